/**
 * Transactions as `velocity_privacy`: erase one record, and nothing else. The role may call `platform.erase_record` and
 * touches no table by itself.
 *
 * An erasure looks through the answers that a domain kept for a day, so it may take as long as a transaction may.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ApiSql } from "./ApiSql.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import type { Options } from "./GatewayTx.ts"
import { transactionSettings } from "./PgSettings.ts"
import type { SessionPool } from "./Session.ts"
import { type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

/** What is to be erased, and what its entry says of who asked for it. */
export interface Erasure {
  /** The record type: `acme/geo/atlas/city/v1`. */
  readonly path: string
  readonly id: string
  /** `{strategy}/{subject}`. */
  readonly actor: string
  readonly requestId: string
  readonly reason: string
  readonly ticket?: string | undefined
}

/** What was erased. */
export interface Erased {
  readonly id: string
  /** The audit entry. */
  readonly entry: string
  /** 1, or 0 where the row was gone and its history was not. */
  readonly rows: number
  /** Events whose contents were removed. */
  readonly versions: number
  /** Answers kept for idempotency keys. */
  readonly answers: number
}

/** Erases records as `velocity_privacy`. */
export class PrivacyTx extends Context.Service<
  PrivacyTx,
  {
    /**
     * Erases one record, whole or not at all. Fails with `Platform` VL080 where there is nothing to erase, VL081 where a
     * ticket is demanded, VL082 before the operator has provisioned the table for it, VL083 under a legal hold, and
     * with `ForeignKey` where live records refer to it. With end `rollback` everything is done and then undone.
     */
    readonly erase: (erasure: Erasure, options?: Options) => Effect.Effect<Erased, DatabaseFailure>
  }
>()("velocity/postgres/PrivacyTx") {
  static readonly layerNoDeps = Layer.effect(
    PrivacyTx,
    Effect.gen(function* () {
      const api = yield* ApiSql
      return PrivacyTx.of({
        erase: (erasure, options) =>
          Effect.map(
            api.on(options?.database, (pool) =>
              Transaction.bundle(
                pool,
                entering(pool, erasure),
                [statement("select platform.erase_record($1, $2::uuid)::text as erased", [erasure.path, erasure.id])],
                options?.end ?? "commit",
                pool.settings.maxTransaction
              )
            ),
            ([result]) => JSON.parse(String(result?.rows[0]?.erased)) as Erased
          )
      })
    })
  )
  /** Over `ApiSql.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(ApiSql.layer))
}

const entering = ({ settings }: SessionPool, { actor, reason, requestId, ticket }: Erasure): Statement =>
  statement(
    `select set_config('role', $1, true), set_config('velocity.ctx', $2, true)${transactionSettings(settings)}, set_config('statement_timeout', '${settings.maxTransaction}ms', true)`,
    [
      `${settings.rolePrefix}velocity_privacy`,
      JSON.stringify({ op: "erase", actor, request_id: requestId, reason, ticket })
    ]
  )
