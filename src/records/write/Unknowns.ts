/**
 * Commits whose answer was lost: entered as `unknown` at once, and settled when the database can be asked again.
 *
 * The connection broke after COMMIT was sent, so the act was done or not, and its own audit entry is there or not; both
 * commit together. The entry `unknown` names the event that the act would have written; settling looks for an `ok` entry
 * of that event and writes what it found (`settled`: `committed` or `rolled_back`), as outcome `unknown` or `failed`,
 * because the gateway may say nothing was `ok` in a domain. It waits until the lost transaction must be over.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schedule from "effect/Schedule"
import * as AuditChain from "../../postgres/AuditChain.ts"
import { AuditorTx } from "../../postgres/AuditorTx.ts"
import { GatewayTx } from "../../postgres/GatewayTx.ts"
import { statement } from "../../postgres/Statement.ts"

/** An act of which nobody knows whether it was done. */
export interface UnknownAct {
  readonly chain: string
  readonly actor: string
  readonly action: string
  readonly schemaPath: string
  readonly entityId: string | undefined
  /** The event that the act would have written; undefined for bulk, whose entry is found by the request. */
  readonly event: string | undefined
  readonly requestId: string
}

/** How long after its COMMIT a transaction must be over: its session's own timeouts have ended it. */
export const settleAfter = Duration.seconds(30)

const lookSql = `select exists (
  select from platform.audit_log
  where chain = $1 and outcome = 'ok' and occurred_at >= to_timestamp($2::float8 / 1000) - interval '10 minutes'
    and request_id = $3 and ($4::text is null or payload ->> 'event' = $4)) as found`

/** See the module. */
export class Unknowns extends Context.Service<
  Unknowns,
  {
    /** Enters the act, now or when the database is back, and settles it later. Returns at once. */
    readonly settle: (act: UnknownAct) => Effect.Effect<void>
  }
>()("velocity/records/Unknowns") {
  /** Settling after a given time. */
  static readonly layerWith = (after: Duration.Duration) =>
    Layer.effect(
      Unknowns,
      Effect.gen(function* () {
        const gateway = yield* GatewayTx
        const auditor = yield* AuditorTx
        const scope = yield* Effect.scope
        const patient = Schedule.exponential("200 millis").pipe(
          Schedule.modifyDelay(({ duration }) => Effect.succeed(Duration.min(duration, Duration.seconds(30)))),
          Schedule.jittered
        )
        const entry = (act: UnknownAct, outcome: "unknown" | "failed", settled?: string) => {
          const { event, ...rest } = act
          return gateway.bundle([
            AuditChain.statement({
              ...rest,
              outcome,
              payload: { ...(event === undefined ? {} : { event }), ...(settled === undefined ? {} : { settled }) }
            })
          ])
        }
        const settle = Effect.fnUntraced(function* (act: UnknownAct) {
          const at = yield* Clock.currentTimeMillis
          yield* Effect.retry(entry(act, "unknown"), patient)
          yield* Effect.sleep(after)
          const [looked] = yield* Effect.retry(
            auditor.bundle([statement(lookSql, [act.chain, at, act.requestId, act.event ?? null])]),
            patient
          )
          const found = looked?.rows[0]?.found === true
          yield* Effect.retry(found ? entry(act, "unknown", "committed") : entry(act, "failed", "rolled_back"), patient)
        })
        return Unknowns.of({
          settle: (act) =>
            Effect.asVoid(
              settle(act).pipe(
                Effect.tapCause((cause) =>
                  Effect.logError("an unknown commit could not be settled", act.requestId, cause)
                ),
                Effect.ignoreCause,
                Effect.forkIn(scope)
              )
            )
        })
      })
    )
  static readonly layerNoDeps = this.layerWith(settleAfter)
  /** Over `GatewayTx.layer` and `AuditorTx.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(GatewayTx.layer, AuditorTx.layer)))
}
