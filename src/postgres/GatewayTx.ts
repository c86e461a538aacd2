/**
 * Transactions as `velocity_gateway`: reads the mirrors, strategies, bindings and revocations, and writes the audit
 * entries of what was refused or failed, whose own transaction is gone. It cannot reach a tenant's table.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ApiSql } from "./ApiSql.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { transactionSettings } from "./PgSettings.ts"
import type { SessionPool } from "./Session.ts"
import { type SqlResult, type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

/** Where and how a transaction runs that has no domain. */
export interface Options {
  readonly database?: string | undefined
  readonly end?: Transaction.End | undefined
}

/** Runs transactions as `velocity_gateway`. */
export class GatewayTx extends Context.Service<
  GatewayTx,
  {
    /** Statements known beforehand, in one transaction and one write. */
    readonly bundle: (
      statements: ReadonlyArray<Statement>,
      options?: Options
    ) => Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure>
    /** An interactive transaction; commits when `f` succeeds. */
    readonly run: <A, E, R>(
      f: (tx: Transaction.Tx) => Effect.Effect<A, E, R>,
      options?: Options
    ) => Effect.Effect<A, E | DatabaseFailure, R>
  }
>()("velocity/postgres/GatewayTx") {
  static readonly layerNoDeps = Layer.effect(
    GatewayTx,
    Effect.gen(function* () {
      const api = yield* ApiSql
      return GatewayTx.of({
        bundle: (statements, options) =>
          api.on(options?.database, (pool) => Transaction.bundle(pool, entering(pool), statements, options?.end)),
        run: (f, options) => api.on(options?.database, (pool) => Transaction.run(pool, entering(pool), f, options?.end))
      })
    })
  )
  /** Over `ApiSql.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(ApiSql.layer))
}

const entering = (pool: SessionPool): Statement =>
  statement(
    `select set_config('role', '${pool.settings.rolePrefix}velocity_gateway', true)${transactionSettings(pool.settings)}`
  )
