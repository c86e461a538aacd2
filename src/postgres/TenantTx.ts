/**
 * Transactions as a domain's role: the only way to a tenant's rows.
 *
 * Each takes on a role and says who is asking (`velocity.ctx`, read by `platform.ctx()` and its kin) with
 * transaction-local settings, so that both end with it. The API's login may take on domain roles only where it was
 * granted them; another role is `Denied` and nothing runs.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ApiSql } from "./ApiSql.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { transactionSettings } from "./PgSettings.ts"
import type { SessionPool } from "./Session.ts"
import type { SqlResult, Statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

export type { SqlResult, Statement } from "./Statement.ts"
export type { End, Tx } from "./Transaction.ts"

/** Who enters a tenant transaction. */
export interface Enter {
  /** The domain's role: `{schema}_reader`, `_writer` or `_admin`. */
  readonly role: string
  /** JSON: {"op","def","actor","roles","attributes","request_id","reason","ticket"}. */
  readonly ctx: string
  /** The domain's database; without it, the default one. */
  readonly database?: string | undefined
}

/** Runs transactions as a domain's role. */
export class TenantTx extends Context.Service<
  TenantTx,
  {
    /**
     * Statements known beforehand, in one transaction, write and round trip; answers their results in order. The first
     * real error is reported. Not interruptible, ends within the statement timeout. Use end `read` where nothing is
     * written.
     */
    readonly bundle: (
      enter: Enter,
      statements: ReadonlyArray<Statement>,
      end?: Transaction.End
    ) => Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure>
    /** An interactive transaction; see `Transaction.run`. Commits when `f` succeeds. */
    readonly run: <A, E, R>(
      enter: Enter,
      f: (tx: Transaction.Tx) => Effect.Effect<A, E, R>,
      end?: Transaction.End
    ) => Effect.Effect<A, E | DatabaseFailure, R>
  }
>()("velocity/postgres/TenantTx") {
  static readonly layerNoDeps = Layer.effect(
    TenantTx,
    Effect.gen(function* () {
      const api = yield* ApiSql
      return TenantTx.of({
        bundle: (enter, statements, end) =>
          api.on(enter.database, (pool) => Transaction.bundle(pool, entering(pool, enter), statements, end)),
        run: (enter, f, end) => api.on(enter.database, (pool) => Transaction.run(pool, entering(pool, enter), f, end))
      })
    })
  )
  /** Over `ApiSql.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(ApiSql.layer))
}

const enterSql = "select set_config('role', $1, true), set_config('velocity.ctx', $2, true)"

const entering = (pool: SessionPool, enter: Enter): Statement => ({
  sql: enterSql + transactionSettings(pool.settings),
  params: [enter.role, enter.ctx]
})
