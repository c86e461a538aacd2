/**
 * The databases as login `velocity_operator`: mirrors, DDL of domains, partitions.
 *
 * The operator's own sessions, with longer timeouts than a request's. `OwnerTx` enters a domain's owner role within one
 * of these transactions; audit entries go through `AuditChain` in the same.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import * as Databases from "./Databases.ts"
import { type Heard, listenOn } from "./Listener.ts"
import { operatorSettings, type PoolSettings, transactionSettings } from "./PgSettings.ts"
import type * as Session from "./Session.ts"
import { type SqlResult, type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

export type { Tx } from "./Transaction.ts"

/** See the module. Fails with `DatabaseFailure` throughout. */
export interface OperatorDatabases {
  /**
   * Runs `f` in one transaction; commits if it succeeds. `rollback` undoes it in the end: a probe, a plan. In a `long` one
   * a statement may take as long as a transaction may: it reads whole months.
   */
  readonly transaction: <A, E, R>(
    f: (tx: Transaction.Tx) => Effect.Effect<A, E, R>,
    options?: {
      readonly database?: string | undefined
      readonly end?: Transaction.End | undefined
      readonly long?: boolean | undefined
    }
  ) => Effect.Effect<A, E | DatabaseFailure, R>
  /** Statements known beforehand, in one transaction and one write. */
  readonly bundle: (
    statements: ReadonlyArray<Statement>,
    options?: { readonly database?: string | undefined; readonly end?: Transaction.End | undefined }
  ) => Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure>
  /**
   * One statement outside any transaction, for what cannot run in one (CREATE INDEX CONCURRENTLY). Interruptible; may
   * take as long as a transaction may.
   */
  readonly query: (
    statement: Statement,
    options?: { readonly database?: string | undefined }
  ) => Effect.Effect<SqlResult, DatabaseFailure>
  /**
   * Statements on one session outside any transaction, each of which may take `within` milliseconds: for what needs a role,
   * a lock of the session and no transaction (CREATE INDEX CONCURRENTLY as a domain's owner). The session is closed then.
   */
  readonly alone: <A, E, R>(
    f: (query: (statement: Statement) => Effect.Effect<SqlResult, DatabaseFailure>) => Effect.Effect<A, E, R>,
    options: { readonly database?: string | undefined; readonly within: number }
  ) => Effect.Effect<A, E | DatabaseFailure, R>
  /** What is told on a channel, as `Listener` hears it. */
  readonly listen: (channel: string) => Stream.Stream<Heard>
  /** Whether anything is heard: not behind a pooler in transaction mode, whose sessions are lent. */
  readonly hears: boolean
  readonly names: ReadonlyArray<string>
  readonly stats: () => ReadonlyMap<string, Session.PoolStats>
}

const make = Effect.fnUntraced(function* (settings: Readonly<Record<string, PoolSettings>>) {
  const databases = yield* Databases.make(settings)
  // a pooler's session brings no settings of ours, so the transaction makes them
  const enter = (pool: Session.SessionPool, long = false): Statement | undefined => {
    const timeout = long ? `, set_config('statement_timeout', '${pool.settings.maxTransaction}ms', true)` : ""
    const more = `${transactionSettings(pool.settings)}${timeout}`
    return more === "" ? undefined : statement(`select ${more.slice(2)}`)
  }
  const listening = Object.values(settings).filter((one) => one.prepared > 0)
  return OperatorSql.of({
    listen: (channel) =>
      listening.length === 0
        ? Stream.never
        : Stream.mergeAll(
            listening.map((one) => listenOn(one.url, channel)),
            { concurrency: "unbounded" }
          ),
    hears: listening.length > 0,
    transaction: (f, options) =>
      databases.on(options?.database, (pool) =>
        Transaction.run(
          pool,
          enter(pool, options?.long),
          f,
          options?.end,
          options?.long === true ? pool.settings.maxTransaction : undefined
        )
      ),
    bundle: (statements, options) =>
      databases.on(options?.database, (pool) => Transaction.bundle(pool, enter(pool), statements, options?.end)),
    query: (asked, options) => databases.on(options?.database, (pool) => Transaction.single(pool, asked)),
    alone: (f, { database, within }) => databases.on(database, (pool) => Transaction.alone(pool, f, within)),
    names: databases.names,
    stats: databases.stats
  })
})

/** See the module. */
export class OperatorSql extends Context.Service<OperatorSql, OperatorDatabases>()("velocity/postgres/OperatorSql") {
  /** Over given settings, by database name. */
  static readonly layerOf = (settings: Readonly<Record<string, PoolSettings>>) =>
    Layer.effect(OperatorSql, make(settings))

  /** One database, from `VELOCITY_OPERATOR_DATABASE_URL`. */
  static readonly layer = Layer.effect(
    OperatorSql,
    Effect.flatMap(operatorSettings, (settings) => make({ [Databases.defaultDatabase]: settings }))
  )
}
