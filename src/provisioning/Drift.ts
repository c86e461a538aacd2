/**
 * Drift: what somebody did to a table by hand. A table that is as provisioning left it is told by one digest; else it is
 * compared with what its served definition asks for, told in words, and repaired where that touches no record and no promise
 * (missing or foreign policies and grants, triggers, comments, missing indexes, what was never proved). The rest waits for
 * a person. What is served may be drifted from while another definition waits for an approval, or is refused: only a plan
 * that is carried out leaves the table between two definitions.
 */
import { Effect } from "effect"
import { chainOf } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { keepFingerprint } from "./MirrorRow.ts"
import type { Step } from "./plan/Plan.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Catalogue from "./table/Catalogue.ts"
import { lockDomain, setLockTimeout } from "./table/Names.ts"
import { inOneBlock } from "./table/SqlText.ts"
import { compare, planOfDiff } from "./WantedSteps.ts"

/** What is otherwise than it was left; nothing where a plan is carried out. */
export interface Drift {
  readonly path: string
  readonly differences: ReadonlyArray<string>
}

// a plan of another version is a plan for the same table
const rowSql = `select id, storage_id, pg_schema, coalesce((select o.pg_table from platform.schema_defs o where o.id = s.owner_id), pg_table) as pg_table, serving::text as serving, serving_hash, fingerprint, approvals,
  fingerprint_version = current_setting('server_version_num') as same_version,
  exists (select from platform.plans p join platform.schema_defs f on f.path = p.path
    where f.storage_id = s.storage_id and p.state = 'Running') as evolving
  from platform.schema_defs s where s.path = $1 and s.serving is not null`

const lookAt = Effect.fnUntraced(function* (tx: Tx, path: string) {
  const { rows } = yield* tx.query(statement(rowSql, [path]))
  const [row] = rows
  if (row === undefined || row.evolving === true) return undefined
  const schema = String(row.pg_schema)
  const table = String(row.pg_table)
  const actual = yield* Catalogue.read(tx, schema, table)
  if (actual === undefined) return { row, schema, table, actual, compared: undefined }
  if (row.same_version === true && row.fingerprint === Catalogue.fingerprint(actual)) return undefined
  const spec = JSON.parse(String(row.serving)) as SchemaDefinitionSpec
  const ids = { id: Number(row.id), storage: Number(row.storage_id) }
  return { row, schema, table, actual, compared: yield* compare(tx, spec, schema, actual, ids), spec }
})

/** Finds drift. In a transaction that is to be rolled back, or to be gone on with. */
export const find = Effect.fn("Drift.find")(function* (tx: Tx, path: string) {
  const found = yield* lookAt(tx, path)
  if (found === undefined) return { path, differences: [] } satisfies Drift
  if (found.compared === undefined) return { path, differences: ["the table is gone"] } satisfies Drift
  return { path, differences: Catalogue.differences(found.actual, found.compared.target) } satisfies Drift
})

/** Whether a step is one of this transaction: an index is built outside, and rows are read by nobody who keeps others out. */
const isForNow = (steps: ReadonlyArray<Step>): ((one: Step) => boolean) => {
  const built = new Set(steps.flatMap((one) => (one.concurrently ? [one.object] : [])))
  return ({ object, phase }) =>
    (phase === "switch" || phase === "expand") && (object === undefined || !built.has(object))
}

/**
 * Repairs what can be, first of all who may do what. What takes more than this transaction (an index is built outside)
 * becomes a plan that is to be carried out; not so where `isWanted` is false: what is served is not what is wanted, so that
 * nobody would carry it out. Answers what was done and what differs still.
 */
export const repair = Effect.fn("Drift.repair")(function* (tx: Tx, path: string, actor: string, isWanted = true) {
  const nothing = { repaired: [], differences: [], planned: false } as const
  yield* lockDomain(tx, path.split("/").slice(0, 3).join("/"))
  const found = yield* lookAt(tx, path)
  if (found === undefined) return nothing
  const { compared, row, schema, spec, table } = found
  if (compared === undefined) return { ...nothing, differences: ["the table is gone"] }
  const steps = compared.diff.steps.filter((one) => one.repairs)
  const entry = (action: string, payload: object) =>
    AuditChain.insert(tx, {
      chain: chainOf(pathOfDefinition(spec)),
      actor,
      action,
      outcome: "ok",
      schemaPath: path,
      payload
    })
  const isNow = isForNow(steps)
  const now = steps.filter(isNow)
  const later = isWanted ? steps.filter((one) => !isNow(one)) : []
  if (now.length > 0) {
    yield* tx.query(setLockTimeout)
    yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(now.map((one) => one.sql))))
  }
  const after = (yield* Catalogue.read(tx, schema, table)) ?? found.actual
  // the comment of an index that is built belongs to it
  const told = steps.filter((one) => (isWanted || isNow(one)) && (one.object === undefined || one.lock !== "none"))
  const repaired = told.map((one) => one.does)
  if (later.length > 0) {
    const rest = { steps: later, faults: [], notes: [] }
    const plan = planOfDiff(path, String(row.serving_hash), Number(row.approvals), after, rest)
    yield* PlanStore.insert(tx, plan, "Running", undefined)
    yield* entry("operator.drift.repair", { steps: repaired, plan: plan.hash })
    return { repaired, differences: [], planned: true }
  }
  if (now.length > 0) yield* entry("operator.drift.repair", { steps: repaired })
  const differences = Catalogue.differences(after, compared.target)
  if (differences.length === 0) yield* keepFingerprint(tx, path, schema, table)
  return { repaired, differences, planned: false }
})
