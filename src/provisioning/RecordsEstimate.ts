/** About how many records a definition's table has, whichever version's it is. Reads none of what they hold. */
import { Effect } from "effect"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { estimateOf } from "./plan/Facts.ts"

/** Undefined where nothing is served, or the table is gone. */
export const recordsOf = Effect.fnUntraced(function* (
  tx: Tx,
  path: string
): Effect.fn.Return<number | undefined, DatabaseFailure> {
  const { rows } = yield* tx.query(
    statement(
      `select n.nspname as pg_schema, c.relname as pg_table from platform.schema_defs s
         join pg_namespace n on n.nspname = s.pg_schema
         join pg_class c on c.relnamespace = n.oid and c.relname = coalesce((select o.pg_table from platform.schema_defs o where o.id = s.owner_id), s.pg_table)
       where s.path = $1 and s.serving is not null`,
      [path]
    )
  )
  const [row] = rows
  // it is of no use to wait for
  yield* tx.query(statement("select set_config('lock_timeout', '100ms', true)"))
  if (row === undefined) return undefined
  const schema = String(row.pg_schema)
  return yield* asOwner(tx, schema, (owner) => estimateOf(owner, schema, String(row.pg_table)))
})
