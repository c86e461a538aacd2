/**
 * The end of a definition's records: its table, its history view, its name. What the log and the history hold of them goes
 * with their months; a definition that comes to the path later has another history.
 *
 * Whoever calls has seen to it that nobody serves it (fine print 27), and writes into the log who wanted it.
 */
import { Effect } from "effect"
import { historyViewOf } from "../domain/Names.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { refuseHeld } from "./table/LegalHold.ts"
import { setLockTimeout } from "./table/Names.ts"
import { type ProvisionRefused, refused } from "./table/ProvisionRefused.ts"
import { inOneBlock, qualified, quoteName } from "./table/SqlText.ts"

/** A table whose foreign key leads to another. */
interface Referring {
  readonly schema: string
  readonly table: string
  readonly constraint: string
  /** Whose table it is; undefined where it is nobody's. */
  readonly path: string | undefined
  /** It is served no longer, and its records go as well. */
  readonly leaves: boolean
}

const referringSql = `select cn.nspname as schema, c.relname as name, k.conname, s.path,
    coalesce(s.state = 'Withdrawing' and s.serving is null and s.deletion_policy = 'Delete', false) as leaves
  from platform.schema_defs d join pg_namespace n on n.nspname = d.pg_schema
  join pg_class t on t.relnamespace = n.oid and t.relname = d.pg_table
  join pg_constraint k on k.confrelid = t.oid and k.contype = 'f' and k.conrelid <> k.confrelid
  join pg_class c on c.oid = k.conrelid join pg_namespace cn on cn.oid = c.relnamespace
  left join platform.schema_defs s on s.pg_schema = cn.nspname and s.pg_table = c.relname
  where d.path = $1 order by 1, 2, 3`

const referringTo = (tx: Tx, path: string): Effect.Effect<ReadonlyArray<Referring>, DatabaseFailure> =>
  Effect.map(tx.query(statement(referringSql, [path])), ({ rows }) =>
    rows.map((row) => ({
      schema: String(row.schema),
      table: String(row.name),
      constraint: String(row.conname),
      path: typeof row.path === "string" ? row.path : undefined,
      leaves: row.leaves === true
    }))
  )

const tablesIn = (referring: ReadonlyArray<Referring>): string =>
  [...new Set(referring.map((one) => one.table))].slice(0, 10).join(", ")

/**
 * Fails where the records of a definition must stay: its domain is under a legal hold, another version shows them, or a table
 * refers to them that does not go too. `leaving` are paths that are on their way out.
 */
export const refuseDropping = Effect.fnUntraced(function* (
  tx: Tx,
  path: string,
  leaving: ReadonlySet<string>
): Effect.fn.Return<void, DatabaseFailure | ProvisionRefused> {
  yield* refuseHeld(tx, path.split("/").slice(0, 3).join("/"))
  // one that is on its way out still has its view
  const { rows: faces } = yield* tx.query(
    statement(
      `select f.path from platform.schema_defs d join platform.schema_defs f on f.owner_id = d.id
       where d.path = $1 and (f.serving is not null or f.state = 'Withdrawing') order by 1 limit 10`,
      [path]
    )
  )
  if (faces.length > 0) {
    return yield* refused("HasFaces", `${faces.map((one) => String(one.path)).join(", ")} show its records`)
  }
  const staying = (yield* referringTo(tx, path)).filter((one) => !one.leaves && !leaving.has(one.path ?? ""))
  if (staying.length > 0) return yield* refused("Referenced", `${tablesIn(staying)} refer to its records`)
})

/** SQLSTATE: something else, a view that somebody made, would go with it. */
const dependentObjects = "2BP01"

/** What became of records: gone, or waiting for tables that go too and refer to them still. */
export type Dropped =
  | { readonly _tag: "Dropped"; readonly table: string; readonly versions: ReadonlyArray<string> }
  | { readonly _tag: "Referred"; readonly by: ReadonlyArray<string> }

/**
 * Destroys the records of a definition that owns its table and that nobody serves. Versions that showed them and are gone are
 * forgotten with them. Two tables that refer to each other and both go are taken apart by whichever goes first.
 */
export const drop = Effect.fnUntraced(function* (
  tx: Tx,
  path: string,
  leaving: ReadonlySet<string>
): Effect.fn.Return<Dropped, DatabaseFailure | ProvisionRefused> {
  yield* refuseDropping(tx, path, leaving)
  const referring = yield* referringTo(tx, path)
  const served = referring.filter((one) => !one.leaves)
  if (served.length > 0) return { _tag: "Referred", by: [...new Set(served.map((one) => one.path ?? one.table))] }
  const { rows: named } = yield* tx.query(
    statement("select pg_schema, pg_table from platform.schema_defs where path = $1", [path])
  )
  const schema = String(named[0]?.pg_schema)
  const table = String(named[0]?.pg_table)
  yield* tx.query(setLockTimeout)
  yield* asOwner(tx, schema, (owner) =>
    owner.query(
      inOneBlock([
        ...referring.map(
          (one) =>
            `alter table ${qualified(one.schema, one.table)} drop constraint if exists ${quoteName(one.constraint)}`
        ),
        `drop view if exists ${qualified(schema, historyViewOf(table))}`,
        `drop table if exists ${qualified(schema, table)}`
      ])
    )
  ).pipe(
    Effect.catchTag(
      "DatabaseFailure",
      (failure): Effect.Effect<never, DatabaseFailure | ProvisionRefused> =>
        failure.reason._tag === "Unexpected" && failure.reason.sqlstate === dependentObjects
          ? Effect.fail(refused("NotOurs", `something that is not ours needs ${schema}.${table}: ${failure.message}`))
          : Effect.fail(failure)
    )
  )
  // whose records were these, it is decided anew with whom it shares them
  const { rows: versions } = yield* tx.query(
    statement(
      `update platform.schema_defs set state = 'Dropped', storage_id = nextval('platform.storage_id_seq'), owner_id = null, face = null,
         source = null, namespace = null, name = null, uid = null, resource_generation = null, updated_at = now()
       where path = $1 or owner_id = (select id from platform.schema_defs where path = $1) returning id, path`,
      [path]
    )
  )
  const column = (name: string) => `{${versions.map((row) => String(row[name])).join(",")}}`
  yield* tx.query(statement("delete from platform.names where path = any ($1::text[])", [column("path")]))
  yield* tx.query(statement("delete from platform.field_defs where def_id = any ($1::int4[])", [column("id")]))
  return { _tag: "Dropped", table: `${schema}.${table}`, versions: versions.map((row) => String(row.path)) }
})
