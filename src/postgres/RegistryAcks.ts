/**
 * What an API replica tells the database of itself: that it is alive, and which generation of each definition it serves.
 *
 * The calls that `velocity_api` makes as itself, without taking on a role, and the only ones that it may (fine print 10).
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { ApiSql } from "./ApiSql.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { transactionSettings } from "./PgSettings.ts"
import type { SessionPool } from "./Session.ts"
import { type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

/** What a replica found of one generation of a definition. */
export interface Ack {
  readonly definition: number
  readonly generation: number
  /** Why it cannot serve it; undefined where it can. */
  readonly problem: string | undefined
}

// all in one statement, so that thousands cost one round trip
const ackSql = `select count(platform.registry_ack($1, a.definition, a.generation, a.problem)) as acks
from jsonb_to_recordset($2::jsonb) as a(definition int4, generation int8, problem text)`

/** See the module. Fails with `DatabaseFailure`. */
export class RegistryAcks extends Context.Service<
  RegistryAcks,
  {
    readonly acknowledge: (replica: string, acks: ReadonlyArray<Ack>) => Effect.Effect<void, DatabaseFailure>
    /**
     * The heartbeat, with which a replica says that it has acknowledged everything there is. False where the database did
     * not know it, and has nothing of what it acknowledged.
     */
    readonly beat: (replica: string) => Effect.Effect<boolean, DatabaseFailure>
    readonly leave: (replica: string) => Effect.Effect<void, DatabaseFailure>
  }
>()("velocity/postgres/RegistryAcks") {
  static readonly layerNoDeps = Layer.effect(
    RegistryAcks,
    Effect.gen(function* () {
      const api = yield* ApiSql
      const ask = (one: Statement) =>
        Effect.map(
          api.on(undefined, (pool) => Transaction.bundle(pool, entering(pool), [one])),
          ([result]) => result?.rows[0]
        )
      return RegistryAcks.of({
        acknowledge: (replica, acks) => Effect.asVoid(ask(statement(ackSql, [replica, JSON.stringify(acks)]))),
        beat: (replica) =>
          Effect.map(
            ask(statement("select platform.registry_ack($1, null, null, null) as known", [replica])),
            (row) => row?.known === true
          ),
        leave: (replica) => Effect.asVoid(ask(statement("select platform.registry_leave($1)::text as gone", [replica])))
      })
    })
  )
}

/** As itself: nothing but what a pooler's session lacks. */
const entering = (pool: SessionPool): Statement | undefined => {
  const settings = transactionSettings(pool.settings)
  return settings === "" ? undefined : statement(`select ${settings.slice(2)}`)
}
