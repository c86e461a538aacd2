/**
 * What applying a definition would do, in a transaction that is rolled back: for `velocity schema plan`, and for those who
 * ask the API.
 */
import { Effect } from "effect"
import type { Fault } from "../domain/Fault.ts"
import { formatPath } from "../domain/Names.ts"
import type { ResourceOf } from "../domain/Resource.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as Provision from "./Provision.ts"
import { needsApproval, type Step } from "./plan/Plan.ts"
import type { RefusalReason } from "./table/ProvisionRefused.ts"

/** A plan as it is shown. */
export interface Shown {
  readonly path: string
  readonly state: "unchanged" | "runs by itself" | "waits for approval"
  /** By which it is approved; there is none where there is nothing to do. */
  readonly hash?: string
  readonly steps: ReadonlyArray<Step>
}

/** What the operator answers to whoever asks through the API. */
export type Answer =
  | { readonly _tag: "Shown"; readonly plan: Shown }
  | {
      readonly _tag: "Refused"
      readonly reason: RefusalReason
      readonly message: string
      readonly faults: ReadonlyArray<Fault>
    }
  /** The database did not let it be asked; why is in the operator's log. */
  | { readonly _tag: "Failed"; readonly why: "lock_timeout" | "timeout" | "unavailable" | "internal" }

/** Whose resource the plan is of: that of the path where there is one, so that a plan is of what is there. */
const originOf = Effect.fnUntraced(function* (
  tx: Tx,
  path: string,
  { metadata: { name, namespace } }: ResourceOf<"SchemaDefinition">,
  source: string
) {
  const { rows } = yield* tx.query(
    statement("select source, namespace, name from platform.schema_defs where path = $1 and source is not null", [path])
  )
  const [row] = rows
  return row === undefined
    ? { source, namespace, name }
    : { source: String(row.source), namespace: String(row.namespace), name: String(row.name) }
})

/** The plan of a definition; `tx` is to be rolled back. Fails with `ProvisionRefused` where it could not be applied. */
export const shown = Effect.fnUntraced(function* (tx: Tx, definition: ResourceOf<"SchemaDefinition">, source: string) {
  const { spec } = definition
  const path = formatPath(pathOfDefinition(spec))
  const outcome = yield* Provision.apply(tx, { spec, origin: yield* originOf(tx, path, definition, source) }, true)
  const plan: Shown =
    outcome._tag === "Planned"
      ? {
          path,
          state: needsApproval(outcome) ? "waits for approval" : "runs by itself",
          hash: outcome.hash,
          steps: outcome.steps
        }
      : { path, state: "unchanged", steps: [] }
  return plan
})

/** The list of ids behind the number of records that a finding is about (`renderFinding`), and no other text. */
const ids = / \((?:[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}(?: and \d+ more)?(?:, )?)+…?\)/gu

const withoutIds = (text: string): string => text.replaceAll(ids, "")

/**
 * The answer without the ids of records: whoever may plan need not be able to read, and could otherwise find what each
 * record holds by planning one bound after the other. How many records break a rule is told.
 */
export const withoutRecords = (answer: Answer): Answer => {
  switch (answer._tag) {
    case "Shown": {
      const steps = answer.plan.steps.map((one) => (one.why === undefined ? one : { ...one, why: withoutIds(one.why) }))
      return { ...answer, plan: { ...answer.plan, steps } }
    }
    case "Refused": {
      const faults = answer.faults.map((one) => ({ ...one, detail: withoutIds(one.detail) }))
      return { ...answer, message: withoutIds(answer.message), faults }
    }
    case "Failed":
      return answer
  }
}
