/**
 * Whose transactions keep a definition's table, or one that it refers to, from being changed. It is asked when a lock did not
 * come, by a session that waits for none: twice, because who reads or writes just now would hold nobody up.
 */
import { type Duration, Effect } from "effect"
import { formatPath } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import { transactionText } from "./Builds.ts"
import * as FaceStore from "./table/FaceStore.ts"

/** For how long a transaction must have held its lock to be named: longer than a request mostly takes. */
const between: Duration.Input = "250 millis"

// who reads a table holds up what is done to it, and not a foreign key that is to refer to it
const heldSql = `select distinct l.pid::text as pid, l.virtualtransaction as xact, a.usename::text as login, a.application_name::text as application
  from platform.schema_defs s
    join pg_namespace n on n.nspname = s.pg_schema
    join pg_class c on c.relnamespace = n.oid and c.relname = coalesce((select o.pg_table from platform.schema_defs o where o.id = s.owner_id), s.pg_table)
    join pg_locks l on l.locktype = 'relation' and l.relation = c.oid and l.granted
      and l.database = (select d.oid from pg_database d where d.datname = current_database())
    left join pg_stat_activity a on a.pid = l.pid
  where s.path = any ($2::text[]) and l.pid <> pg_backend_pid() and (s.path = $1 or l.mode not in ('AccessShareLock', 'RowShareLock'))
  order by 1`

/** The transactions, in words. */
export const heldBy = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec
): Effect.fn.Return<ReadonlyArray<string>, DatabaseFailure> {
  const path = formatPath(pathOfDefinition(spec))
  const look = tx.query(statement(heldSql, [path, [path, ...FaceStore.targetsOf(spec)]]))
  const first = new Set((yield* look).rows.map(({ pid, xact }) => `${pid} ${xact}`))
  if (first.size === 0) return []
  yield* Effect.sleep(between)
  return (yield* look).rows.filter(({ pid, xact }) => first.has(`${pid} ${xact}`)).map(transactionText)
})
