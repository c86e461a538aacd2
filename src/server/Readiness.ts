/**
 * Whether this replica can serve: Postgres answers as `velocity_gateway`, the isolation check found nothing, the registry
 * was read, and nobody has told it to stop.
 */
import { Context, Effect, Layer } from "effect"
import type { ReadinessBody } from "../api/Health.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { statement } from "../postgres/Statement.ts"
import { IsolationGate } from "./IsolationGate.ts"
import { Registry } from "./Registry.ts"

/** An answer of Postgres is believed for so long, so that probes cost it nothing. Milliseconds. */
const believed = 1_000

/** See the module. */
export class Readiness extends Context.Service<
  Readiness,
  {
    readonly check: Effect.Effect<typeof ReadinessBody.Type>
    /** From now on it is not ready: the server stops. */
    readonly drain: () => void
    readonly draining: () => boolean
  }
>()("velocity/server/Readiness") {
  static readonly layer = Layer.effect(
    Readiness,
    Effect.gen(function* () {
      const gateway = yield* GatewayTx
      const registry = yield* Registry
      const gate = yield* IsolationGate
      let stopping = false
      const ping = yield* Effect.cachedWithTTL(
        Effect.match(gateway.bundle([statement("select 1")], { end: "read" }), {
          onFailure: () => ({ ok: false, detail: "the database does not answer" }),
          onSuccess: () => ({ ok: true })
        }),
        believed
      )
      const check = Effect.gen(function* () {
        const state = yield* registry.state
        const postgres = yield* ping
        const isolation =
          gate.closed() === undefined ? { ok: true } : { ok: false, detail: "the isolation check failed" }
        const known = state.loaded ? { ok: true } : { ok: false, detail: "the definitions have not been read yet" }
        const running = stopping ? { ok: false, detail: "stopping" } : { ok: true }
        return {
          ready: postgres.ok && isolation.ok && known.ok && running.ok,
          checks: { postgres, isolation, registry: known, running }
        }
      })
      return Readiness.of({
        check,
        drain: () => {
          stopping = true
        },
        draining: () => stopping
      })
    })
  )
}
