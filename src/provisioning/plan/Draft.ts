/**
 * A plan while it is drawn: its steps, each in the list of the place that it has in the plan, and what all look at that draw.
 */
import { type Fault, fault } from "../../domain/Fault.ts"
import { quoteName } from "../table/SqlText.ts"
import type { WantedTable } from "../table/WantedTable.ts"
import { type Comparison, parts } from "./Comparison.ts"
import { type Facts, type Finding, none } from "./Facts.ts"
import { type Step, type StepFacts, step } from "./Plan.ts"

/** The places, in the order in which they are carried out. */
const places = [
  "expand",
  "backfill",
  "build",
  // what came while an index was built, which may take hours, so that the switch finds little of it
  "catchUp",
  "shut",
  "cut",
  "change",
  "add",
  "rename",
  "open",
  "validate"
] as const
type Place = (typeof places)[number]

export interface Draft extends Comparison, ReturnType<typeof parts> {
  readonly steps: Readonly<Record<Place, Array<Step>>>
  /** Why it cannot be done: the rows contradict it, or it is no change that is made. */
  readonly faults: Array<Fault>
  /** What stays different. */
  readonly notes: Array<string>
  /** Whether there are records, and about how many. */
  readonly filled: boolean
  readonly rows: number
  /** The rows, where a step looks at them all and there are any. */
  readonly estimate: StepFacts
  /** What was asked of the rows under this key. */
  readonly found: (key: string) => Finding
  /** The fields that are copied into a column of another type. */
  readonly copied: ReadonlySet<string>
  /** A column that a policy looks at can be neither dropped nor altered: something here does one of both. */
  freesColumns: boolean
  readonly alter: (sql: string, of?: WantedTable) => string
  /** The rows, or the definition itself, are against it. */
  readonly conflict: (at: ReadonlyArray<PropertyKey>, detail: string) => void
  /** Proves a constraint of the rows that are there. */
  readonly validate: (does: string, name: string, repairs?: boolean) => void
}

/** An empty one. */
export const draftOf = (comparison: Comparison, facts: Facts): Draft => {
  const { named, wanted } = comparison
  const known = parts(comparison)
  const { filled, rows } = facts
  const steps = Object.fromEntries(places.map((place) => [place, []])) as unknown as Draft["steps"]
  const faults: Array<Fault> = []
  const alter = (sql: string, of: WantedTable = wanted) => `alter table ${of.table} ${sql}`
  const estimate = filled ? { estimate: rows } : {}
  return {
    ...comparison,
    ...known,
    steps,
    faults,
    notes: [],
    filled,
    rows,
    estimate,
    found: (key) => facts.findings.get(key) ?? none,
    copied: new Set([...known.types].flatMap(([name, one]) => (one._tag === "Copy" ? [name] : []))),
    freesColumns: false,
    alter,
    conflict: (at, detail) => {
      faults.push(fault(["spec", ...at], "data_conflict", detail))
    },
    validate: (does, name, repairs = false) => {
      const sql = alter(`validate constraint ${quoteName(name)}`, named)
      const why = "of the rows that are there"
      const more = { ...estimate, why, repairs, concurrently: true, object: name }
      steps.validate.push(step("validate", `prove ${does}`, [sql], "SHARE UPDATE EXCLUSIVE", more))
    }
  }
}

/** All steps in their order. */
export const stepsOf = ({ steps }: Draft): ReadonlyArray<Step> => places.flatMap((place) => steps[place])

/** What puts right what somebody did by hand. */
export const repair = { repairs: true }
