/** A step that no transaction may hold, because it takes as long as a table is large: an index, and the proof of a constraint. */
import { Effect } from "effect"
import { rolesOf } from "../domain/Names.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { type SqlResult, type Statement, statement } from "../postgres/Statement.ts"
import type { Planned } from "./Provision.ts"
import type { StoredStep } from "./plan/PlanStore.ts"
import { ddlLockTimeout } from "./table/Names.ts"
import { qualified, quoteName } from "./table/SqlText.ts"

/** Runs statements on a session of their own, outside any transaction, for at most `within` milliseconds. */
export type Alone = <A, E>(
  f: (query: (statement: Statement) => Effect.Effect<SqlResult, DatabaseFailure>) => Effect.Effect<A, E>,
  options: { readonly within: number }
) => Effect.Effect<A, E | DatabaseFailure>

/** How long building one index, or proving one constraint, may take, in milliseconds. */
const longestBuild = 6 * 60 * 60_000

/**
 * Builds an index, or proves a constraint, on a session of its own, under a lock of that session. Answers whether that is
 * done.
 */
export const build = (alone: Alone, planned: Planned, next: StoredStep) =>
  alone(
    Effect.fnUntraced(function* (query) {
      const index = qualified(planned.pgSchema, next.object ?? "")
      yield* query(statement(`set role ${quoteName(rolesOf(planned.pgSchema).owner)}`))
      // an index waits for transactions that are older, and blocks nobody meanwhile
      yield* query(statement(`set lock_timeout = ${next.phase === "validate" ? `'${ddlLockTimeout}'` : "0"}`))
      yield* query(statement(`set statement_timeout = ${longestBuild}`))
      // a session that was left behind may still be at it: waiting here would hold a snapshot for which it waits
      const { rows: held } = yield* query(
        statement("select pg_try_advisory_lock(hashtextextended($1, 0)) as held", [`velocity/build/${planned.path}`])
      )
      if (held[0]?.held !== true) return false
      // once proved it costs nothing again
      if (next.phase === "validate") return yield* Effect.as(query(statement(next.sql)), true)
      const { rows } = yield* query(
        statement(
          "select i.indisvalid as valid from pg_index i where i.indexrelid = to_regclass($1) and i.indrelid = to_regclass($2)",
          [index, qualified(planned.pgSchema, planned.pgTable)]
        )
      )
      if (rows[0]?.valid === true) return true
      if (rows.length > 0) yield* query(statement(`drop index concurrently ${index}`))
      yield* query(statement(next.sql)).pipe(
        Effect.tapError(() => Effect.ignore(query(statement(`drop index concurrently if exists ${index}`))))
      )
      return true
    }),
    { within: longestBuild }
  )
