/**
 * The end of serving a definition whose resource was deleted (fine print 27): it is served no longer, every replica has said
 * so, and then rights are taken away (`Retain`), or its records are destroyed (`Delete`).
 *
 * Which of the two is decided when serving ends and stays with the row: a domain that says `Delete` later destroys nothing
 * that was deleted before, and one that says `Retain` by then keeps what it still has.
 */
import { Effect } from "effect"
import { historyViewOf } from "../domain/Names.ts"
import type { SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import * as Dropping from "./Dropping.ts"
import { keepFingerprint, rowSql } from "./MirrorRow.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import { servingOf } from "./ServingState.ts"
import * as Catalogue from "./table/Catalogue.ts"
import * as FaceStore from "./table/FaceStore.ts"
import { lockDomain, setLockTimeout } from "./table/Names.ts"
import { actorOf, foreignOrigin, type Origin } from "./table/Origin.ts"
import { type ProvisionRefused, refused } from "./table/ProvisionRefused.ts"
import { rolePrefixOf } from "./table/RolePrefixOf.ts"
import { inOneBlock, qualified } from "./table/SqlText.ts"
import { accessSql, familyTable, withdrawSql } from "./table/WantedTable.ts"
import { compare } from "./WantedSteps.ts"

/** A definition that is to be served no longer. */
export interface Withdrawal {
  readonly path: string
  readonly origin: Origin
  /** Paths that go at the same time, and so need not be waited for. */
  readonly leaving: ReadonlySet<string>
  /** Its records stay, whatever its domain says: nobody was seen to delete it. */
  readonly keeps?: boolean | undefined
}

/** How far a withdrawal has come. */
export type Withdrawn =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Done" }
  /** Replicas of the API have not said yet that they serve it no longer. */
  | { readonly _tag: "Waits"; readonly for: ReadonlyArray<string> }
  /** Definitions that go too, and whose records are to go with its own, are served still. */
  | { readonly _tag: "Referred"; readonly by: ReadonlyArray<string> }

const nothing: Withdrawn = { _tag: "Nothing" }
const done: Withdrawn = { _tag: "Done" }

/**
 * Takes the views of a version away whose rows are another's, and what the table's policies said of it. Its columns stay, as
 * rows do, and are filled on by what their defaults say.
 */
const withdrawFace = Effect.fnUntraced(function* (
  tx: Tx,
  schema: string,
  table: string,
  view: string,
  ownerId: number
) {
  const { rows } = yield* tx.query(
    statement(
      "select path, serving::text as serving, storage_id from platform.schema_defs where id = $1 and serving is not null",
      [ownerId]
    )
  )
  const [row] = rows
  const actual = yield* Catalogue.read(tx, schema, table)
  if (row === undefined || actual === undefined) return
  const spec = JSON.parse(String(row.serving)) as SchemaDefinitionSpec
  const ids = { id: ownerId, storage: Number(row.storage_id) }
  const family = yield* FaceStore.family(tx, spec, ids, new Set(Object.keys(actual.columns)))
  const views = [...Object.keys(actual.faces ?? {}), historyViewOf(view)]
  const access = accessSql(familyTable(family, schema), family, yield* rolePrefixOf(tx))
  const away = views.map((name) => `drop view if exists ${qualified(schema, name)}`)
  yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock([...away, ...access])))
  yield* FaceStore.keep(tx, family, schema, 0)
  yield* keepFingerprint(tx, String(row.path), schema, table)
  // bounds that only it asked for are lifted as those of any changed definition are: when the owner is looked at next
  const left = yield* Catalogue.read(tx, schema, table)
  const isLeft = yield* compare(tx, spec, schema, left ?? actual, ids).pipe(
    Effect.map(({ target }) => Catalogue.differences(left ?? actual, target).length > 0),
    Effect.catchTag("ProvisionRefused", () => Effect.succeed(true))
  )
  if (isLeft) {
    yield* tx.query(statement("update platform.schema_defs set serving_hash = null where id = $1", [ownerId]))
  }
})

/** Takes from domain roles every right on rows that nobody serves any more through this definition. */
const revoke = Effect.fnUntraced(function* (
  tx: Tx,
  { origin, path }: Withdrawal,
  row: Readonly<Record<string, unknown>>
) {
  const schema = String(row.pg_schema)
  const name = String(row.pg_table)
  const isFace = typeof row.owner_table === "string"
  yield* tx.query(setLockTimeout)
  if (isFace) yield* withdrawFace(tx, schema, String(row.owner_table), name, Number(row.owner_id))
  else if ((yield* Catalogue.read(tx, schema, name)) !== undefined) {
    yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(withdrawSql(schema, name))))
  }
  yield* tx.query(
    statement("update platform.schema_defs set state = 'Withdrawn', updated_at = now() where path = $1", [path])
  )
  yield* AuditChain.insert(tx, {
    chain: chainOfPath(path),
    actor: actorOf(origin),
    action: "operator.schema.withdraw",
    outcome: "ok",
    schemaPath: path,
    payload: { kept: `${schema}.${isFace ? String(row.owner_table) : name}` }
  })
})

const chainOfPath = (path: string): string => path.split("/").slice(0, 3).join("/")

/**
 * Ends the plan of a definition whose resource is gone. Another version of its object would wait for it for ever; a resource
 * that wants the path again makes another, and takes away what this one left.
 */
export const giveUp = Effect.fn("Provision.giveUp")(function* (tx: Tx, path: string) {
  yield* lockDomain(tx, chainOfPath(path))
  const [row] = (yield* tx.query(statement(rowSql, [path]))).rows
  if (typeof row?.plan !== "string") return
  yield* PlanStore.end(tx, row.plan, "Overtaken", "its definition is gone")
  yield* tx.query(
    statement("update platform.schema_defs set wanted = serving, wanted_hash = serving_hash where path = $1", [path])
  )
})

/** Destroys the records of a definition that nobody serves, and says so in the log. */
const destroy = Effect.fnUntraced(function* (tx: Tx, { leaving, origin, path }: Withdrawal) {
  const dropped = yield* Dropping.drop(tx, path, leaving)
  if (dropped._tag === "Referred") return dropped
  yield* AuditChain.insert(tx, {
    chain: chainOfPath(path),
    actor: actorOf(origin),
    action: "operator.schema.drop",
    outcome: "ok",
    schemaPath: path,
    payload: { dropped: dropped.table, versions: dropped.versions }
  })
  return done
})

/** Whether a definition's records are to go: its own, deleted under `Delete`, in a domain that says so still. */
const isToGo = Effect.fnUntraced(function* (tx: Tx, path: string) {
  const { rows } = yield* tx.query(
    statement(
      `select 1 as one from platform.schema_defs s join platform.domains d on d.chain = s.chain
       where s.path = $1 and s.owner_id is null and s.deletion_policy = 'Delete' and d.deletion_policy = 'Delete'`,
      [path]
    )
  )
  return rows.length > 0
})

/**
 * Ends serving a definition whose resource was deleted: answers become 410 `gone`; when every replica has acknowledged that,
 * which may take another call, domain roles lose every right on the table, and its rows, its path and its name stay
 * (`Retain`); or table, history view and name go (`Delete`). Fails with `Referenced` while a definition that stays refers to
 * it, with `HasFaces` while another version shows its rows, and with `LegalHold` where records would go and may not: it is
 * served until then.
 */
export const withdraw = Effect.fn("Provision.withdraw")(function* (
  tx: Tx,
  withdrawal: Withdrawal
): Effect.fn.Return<Withdrawn, DatabaseFailure | ProvisionRefused> {
  const { leaving, origin, path } = withdrawal
  const chain = chainOfPath(path)
  yield* lockDomain(tx, chain)
  const [row] = (yield* tx.query(statement(rowSql, [path]))).rows
  if (row === undefined || (row.serving !== true && row.state !== "Withdrawing")) return nothing
  // the row of another resource, or of another source, is not ours to end
  if (foreignOrigin(row, origin, path) !== undefined) return nothing
  if (row.serving === true) {
    const { rows: referring } = yield* tx.query(
      statement(
        `select s.path from platform.schema_defs s, jsonb_array_elements(s.serving -> 'fields') as f
         where s.chain = $1 and s.path <> $2 and s.serving is not null
           and concat_ws('/', s.chain, f -> 'ref' ->> 'object', f -> 'ref' ->> 'version') = $2 and f ? 'ref'
         group by s.path order by s.path limit 10`,
        [chain, path]
      )
    )
    const staying = referring.map((one) => String(one.path)).filter((one) => !leaving.has(one))
    if (staying.length > 0) return yield* refused("Referenced", `${staying.join(", ")} refer to it`)
    // one that is on its way out still has its view
    const { rows: faces } = yield* tx.query(
      statement(
        "select path from platform.schema_defs where owner_id = $1 and (serving is not null or state = 'Withdrawing') order by path limit 10",
        [row.id]
      )
    )
    if (faces.length > 0) {
      return yield* refused("HasFaces", `${faces.map((one) => String(one.path)).join(", ")} show its records`)
    }
    yield* tx.query(
      statement(
        `update platform.schema_defs set wanted = null, wanted_hash = null, serving = null, serving_hash = null, fingerprint = null, grants = '{}', state = 'Withdrawing',
           deletion_policy = case when $2::boolean then 'Retain' else (select d.deletion_policy from platform.domains d where d.chain = schema_defs.chain) end,
           generation = nextval('platform.generation_seq'), updated_at = now()
         where path = $1`,
        [path, withdrawal.keeps === true]
      )
    )
    if (yield* isToGo(tx, path)) yield* Dropping.refuseDropping(tx, path, leaving)
    if (typeof row.plan === "string") yield* PlanStore.end(tx, row.plan, "Overtaken", "its definition is gone")
    yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`def:${path}`]))
  }
  // whoever still serves it would meet a table that he may not touch, and take that for a fault
  const behind = (yield* servingOf(tx, path))?.behind ?? []
  if (behind.length > 0) return { _tag: "Waits", for: behind }
  if (yield* isToGo(tx, path)) return yield* destroy(tx, withdrawal)
  yield* revoke(tx, withdrawal, row)
  return done
})
