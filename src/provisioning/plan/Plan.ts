/**
 * A plan: the ordered steps from a table as it is to the table that is wanted, and the hash by which it is approved.
 *
 * - `expand`: columns and triggers that what is served does not notice
 * - `backfill`: rows, in batches, each a transaction of its own
 * - `build`: indexes, outside transactions
 * - `switch`: everything that what is served would notice, in the one transaction in which the new definition is served
 * - `validate`: what new writes obey since the switch is proved of the rows that were there, outside transactions as an index
 *   is built, because all rows are read for it: nothing waits for it, neither requests nor an operator's successor
 *
 * Constraints are added at the switch and not before it: a constraint that is NOT VALID refuses new writes all the same,
 * and the definition that is served until then allows them.
 */
import { sha256Hex } from "../../domain/Sha256.ts"
import { canonicalJson } from "../table/SpecHash.ts"

export type Phase = "expand" | "backfill" | "build" | "switch" | "validate"

export type Lock = "ACCESS EXCLUSIVE" | "SHARE ROW EXCLUSIVE" | "SHARE UPDATE EXCLUSIVE" | "ROW EXCLUSIVE" | "none"

export interface Step {
  readonly phase: Phase
  /** In a few words. */
  readonly does: string
  /**
   * Statements, each to be followed by a semicolon; of a step in batches one with `$1` (after) and `$2` (how many). Behind an
   * index that finds what it is about, it begins again until a pass has met less than one batch.
   */
  readonly sql: string
  /** The strongest lock on the table. */
  readonly lock: Lock
  readonly rewrites: boolean
  readonly losesData: boolean
  /** It can lose data or break clients. */
  readonly needsApproval: boolean
  /** Outside transactions. */
  readonly concurrently: boolean
  readonly batched: boolean
  /** The field whose values we compute: the first statement reads a batch of records, the second writes what they get. */
  readonly computes?: string | undefined
  /** It puts right what somebody did by hand, and touches no record and no promise of the definition. */
  readonly repairs: boolean
  /** The index that it builds, makes room for or comments on, or the constraint that it proves. */
  readonly object?: string | undefined
  /** Rows that it reads or writes, about; undefined where it looks at none. */
  readonly estimate?: number | undefined
  /** What whoever approves should know. */
  readonly why?: string | undefined
}

export interface Plan {
  readonly path: string
  readonly specHash: string
  /** Of the catalogue that it begins with. */
  readonly fingerprint: string
  /** How many plans of the path were approved before it: the same change made again is another plan, and no approval has two effects. */
  readonly approvals: number
  readonly steps: ReadonlyArray<Step>
  /** `p` (digits alone would be a number in a manifest) and 32 hexadecimal digits over the definition, the catalogue, the approvals before it and the ordered steps; estimates and reasons are not in it. */
  readonly hash: string
  /** What stays different, and why. */
  readonly notes: ReadonlyArray<string>
}

/** What a step has that most have not. */
export type StepFacts = Partial<Omit<Step, "phase" | "does" | "sql" | "lock">>

/** A step with what most steps have. */
export const step = (
  phase: Phase,
  does: string,
  sql: ReadonlyArray<string>,
  lock: Lock,
  more: StepFacts = {}
): Step => ({
  phase,
  does,
  sql: sql.join(";\n"),
  lock,
  rewrites: false,
  losesData: false,
  needsApproval: false,
  concurrently: false,
  batched: false,
  repairs: false,
  ...more
})

/** Puts a plan together. */
export const planOf = (parts: Omit<Plan, "hash">): Plan => ({
  ...parts,
  hash: `p${sha256Hex(
    canonicalJson([
      parts.path,
      parts.specHash,
      parts.fingerprint,
      parts.approvals,
      parts.steps.map(({ concurrently, lock, losesData, needsApproval, phase, rewrites, sql }) => [
        phase,
        sql,
        lock,
        rewrites,
        losesData,
        needsApproval,
        concurrently
      ])
    ])
  ).slice(0, 32)}`
})

export const needsApproval = (plan: Pick<Plan, "steps">): boolean => plan.steps.some((one) => one.needsApproval)

/** Whether records are the less for it, so that a legal hold keeps it from being carried out. */
export const losesData = (plan: Pick<Plan, "steps">): boolean => plan.steps.some((one) => one.losesData)

/** Whether it is one transaction, so that it can be done where it was made. */
export const isAtOnce = (plan: Pick<Plan, "steps">): boolean => plan.steps.every((one) => one.phase === "switch")

/** A step in one line. */
export const renderStep = (one: Step): string => {
  const marks = [
    ...(one.losesData ? ["loses data"] : one.needsApproval ? ["breaks clients"] : []),
    ...(one.rewrites ? ["rewrites the table"] : [])
  ]
  return `${one.does}${marks.length === 0 ? "" : ` (${marks.join(", ")})`}${one.why === undefined ? "" : `: ${one.why}`}`
}
