/**
 * The configured databases of one login, by name.
 *
 * Each has its own complete `platform` schema, and no transaction spans two. There is one entry, `default`; nothing
 * above this room assumes so.
 */
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { type DatabaseFailure, failure } from "./DatabaseFailure.ts"
import type { PoolSettings } from "./PgSettings.ts"
import * as Session from "./Session.ts"

/** The database of everything that names none. */
export const defaultDatabase = "default"

/** A login's pools. */
export interface Databases {
  /**
   * Does something with a database's pool; fails with `Unavailable` where no database of that name is configured,
   * which is how a Domain looks whose database was taken out of the configuration.
   */
  readonly on: <A, E, R>(
    database: string | undefined,
    f: (pool: Session.SessionPool) => Effect.Effect<A, E, R>
  ) => Effect.Effect<A, E | DatabaseFailure, R>
  readonly names: ReadonlyArray<string>
  /** What the pools are doing, for metrics. */
  readonly stats: () => ReadonlyMap<string, Session.PoolStats>
}

/** Opens a pool for each database; no connection is made before it is needed. */
export const make = Effect.fnUntraced(function* (
  settings: Readonly<Record<string, PoolSettings>>
): Effect.fn.Return<Databases, never, Scope.Scope> {
  const pools = new Map<string, Session.SessionPool>()
  for (const [name, one] of Object.entries(settings)) pools.set(name, yield* Session.make(one))
  return {
    on: (database, f) => {
      const pool = pools.get(database ?? defaultDatabase)
      return pool === undefined
        ? Effect.fail(failure("Unavailable", new Error(`no database ${database} is configured`)))
        : f(pool)
    },
    names: [...pools.keys()],
    stats: () => new Map([...pools].map(([name, pool]) => [name, pool.stats()]))
  }
})
