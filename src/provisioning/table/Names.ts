/**
 * The names that a database has given away. The first path to use a name in Postgres keeps it until its data is dropped;
 * the unique index of `platform.names` decides between two that come at once.
 */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { type ProvisionRefused, refused } from "./ProvisionRefused.ts"

/** Takes a name for a path; fails with `NameConflict`, naming the path that has it. */
export const reserveName = (
  tx: Tx,
  name: string,
  path: string
): Effect.Effect<void, DatabaseFailure | ProvisionRefused> =>
  Effect.gen(function* () {
    yield* tx.query(
      statement("insert into platform.names (pg_name, path) values ($1, $2) on conflict (pg_name) do nothing", [
        name,
        path
      ])
    )
    const { rows } = yield* tx.query(statement("select path from platform.names where pg_name = $1", [name]))
    const winner = rows[0]?.path
    if (winner !== path) {
      return yield* refused("NameConflict", `${path} would be ${name} in Postgres, a name that ${String(winner)} has`)
    }
  })

/** The advisory lock under which a domain is changed: one change at a time, held until the transaction ends. */
export const lockDomain = (tx: Tx, chain: string) =>
  tx.query(
    statement("select pg_advisory_xact_lock(hashtextextended($1, 0))::text as locked", [`velocity/provision/${chain}`])
  )

/**
 * How long DDL waits for a table that is in use, its own or one that it refers to, before it gives way and is tried again
 * later: every request comes to stand behind it. Less than deadlock_timeout, so that none of them is chosen to give way.
 */
export const ddlLockTimeout = "500ms"

/** Sets it for this transaction. */
export const setLockTimeout = statement("select set_config('lock_timeout', $1, true)", [ddlLockTimeout])
