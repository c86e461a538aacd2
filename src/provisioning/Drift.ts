/**
 * Drift: what somebody did to a table by hand. A table that is as provisioning left it is told by one digest; else it is
 * compared with what its served definition asks for, told in words, and repaired where that touches no record and no promise
 * (missing or foreign policies and grants, triggers, comments, missing indexes, what was never proved). The rest waits for
 * a person.
 */
import { Effect } from "effect"
import { chainOf } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { keepFingerprint } from "./MirrorRow.ts"
import { isAtOnce } from "./plan/Plan.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Catalogue from "./table/Catalogue.ts"
import { lockDomain, setLockTimeout } from "./table/Names.ts"
import { inOneBlock } from "./table/SqlText.ts"
import { compare, planOfDiff } from "./WantedSteps.ts"

/** What is otherwise than it was left; nothing where a plan is under way. */
export interface Drift {
  readonly path: string
  readonly differences: ReadonlyArray<string>
}

// a plan of another version is a plan for the same table
const rowSql = `select id, storage_id, pg_schema, coalesce((select o.pg_table from platform.schema_defs o where o.id = s.owner_id), pg_table) as pg_table, serving::text as serving, serving_hash, fingerprint, approvals,
  fingerprint_version = current_setting('server_version_num') as same_version,
  exists (select from platform.plans p where p.path = s.path and p.state in ('Waiting', 'Running')) or exists (
    select from platform.plans p join platform.schema_defs f on f.path = p.path where f.storage_id = s.storage_id and p.state = 'Running') as planned
  from platform.schema_defs s where s.path = $1 and s.serving is not null`

const lookAt = Effect.fnUntraced(function* (tx: Tx, path: string) {
  const { rows } = yield* tx.query(statement(rowSql, [path]))
  const [row] = rows
  if (row === undefined || row.planned === true) return undefined
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

/**
 * Repairs what can be. What takes more than this transaction (an index is built outside) becomes a plan that is to be
 * carried out. Answers what was done and what differs still.
 */
export const repair = Effect.fn("Drift.repair")(function* (tx: Tx, path: string, actor: string) {
  const nothing = { repaired: [], differences: [], planned: false } as const
  yield* lockDomain(tx, path.split("/").slice(0, 3).join("/"))
  const found = yield* lookAt(tx, path)
  if (found === undefined) return nothing
  const { actual, compared, row, schema, spec, table } = found
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
  const does = steps.filter((one) => one.lock !== "none").map((one) => one.does)
  if (steps.length > 0 && !isAtOnce({ steps })) {
    const plan = planOfDiff(path, String(row.serving_hash), Number(row.approvals), actual, {
      steps,
      faults: [],
      notes: []
    })
    yield* PlanStore.insert(tx, plan, "Running", undefined)
    yield* entry("operator.drift.repair", { steps: does, plan: plan.hash })
    return { repaired: does, differences: [], planned: true }
  }
  if (steps.length > 0) {
    yield* tx.query(setLockTimeout)
    yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(steps.map((one) => one.sql))))
    yield* entry("operator.drift.repair", { steps: does })
  }
  const after = yield* Catalogue.read(tx, schema, table)
  const differences = after === undefined ? [] : Catalogue.differences(after, compared.target)
  if (differences.length === 0) yield* keepFingerprint(tx, path, schema, table)
  return { repaired: steps.map((one) => one.does), differences, planned: false }
})
