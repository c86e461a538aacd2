/**
 * Transactions as `velocity_auditor`: reads the audit log and verifies it, and nothing else.
 *
 * Verification reads whole windows of the log, so statements may take as long as a transaction may.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { ApiSql } from "./ApiSql.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import type { Options } from "./GatewayTx.ts"
import { transactionSettings } from "./PgSettings.ts"
import type { SessionPool } from "./Session.ts"
import { type SqlResult, type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

/** Runs transactions as `velocity_auditor`. */
export class AuditorTx extends Context.Service<
  AuditorTx,
  {
    /** Statements known beforehand, in one transaction and one write. Ends as `read` unless told otherwise. */
    readonly bundle: (
      statements: ReadonlyArray<Statement>,
      options?: Options
    ) => Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure>
    /** An interactive transaction. */
    readonly run: <A, E, R>(
      f: (tx: Transaction.Tx) => Effect.Effect<A, E, R>,
      options?: Options
    ) => Effect.Effect<A, E | DatabaseFailure, R>
    /** The rows of one statement, as they come; memory stays flat. */
    readonly stream: (
      statement: Statement,
      options?: Pick<Options, "database">
    ) => Stream.Stream<Readonly<Record<string, unknown>>, DatabaseFailure>
  }
>()("velocity/postgres/AuditorTx") {
  static readonly layerNoDeps = Layer.effect(
    AuditorTx,
    Effect.gen(function* () {
      const api = yield* ApiSql
      return AuditorTx.of({
        bundle: (statements, options) =>
          api.on(options?.database, (pool) =>
            Transaction.bundle(pool, entering(pool), statements, options?.end ?? "read", pool.settings.maxTransaction)
          ),
        run: (f, options) =>
          api.on(options?.database, (pool) =>
            Transaction.run(pool, entering(pool), f, options?.end ?? "read", pool.settings.maxTransaction)
          ),
        stream: (asked, options) =>
          Stream.unwrap(
            api.on(options?.database, (pool) => Effect.succeed(Transaction.stream(pool, entering(pool), asked)))
          )
      })
    })
  )
  /** Over `ApiSql.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(ApiSql.layer))
}

const entering = (pool: SessionPool): Statement => {
  const timeout = `set_config('statement_timeout', '${pool.settings.maxTransaction}ms', true)`
  return statement(
    `select set_config('role', '${pool.settings.rolePrefix}velocity_auditor', true)${transactionSettings(pool.settings)}, ${timeout}`
  )
}
