/** What orchestrators and Prometheus ask an operator. */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { describe, expect } from "vitest"
import * as ControllerMetrics from "../../src/operator/control/ControllerMetrics.ts"
import { listen } from "../../src/operator/OperatorEndpoint.ts"

describe("the operator's port", () => {
  it.live("answers health and metrics, and nothing else", () =>
    Effect.scoped(
      Effect.gen(function* () {
        yield* ControllerMetrics.orphans(3)
        const port = yield* listen("127.0.0.1", 0)
        const get = (path: string, init?: RequestInit) =>
          Effect.promise(async () => {
            const answer = await fetch(`http://127.0.0.1:${port}${path}`, init)
            return { status: answer.status, text: await answer.text() }
          })
        expect(yield* get("/healthz")).toEqual({ status: 200, text: '{"status":"ok"}' })
        expect((yield* get("/readyz?verbose")).status).toBe(200)
        const metrics = yield* get("/metrics")
        expect(metrics.text).toMatch(/^velocity_orphans 3$/mu)
        expect(metrics.text).toMatch(/^velocity_process_resident_bytes \d+$/mu)
        expect((yield* get("/")).status).toBe(404)
        expect((yield* get("/metrics", { method: "POST" })).status).toBe(405)
      })
    )
  )

  it.live("says why it cannot listen", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const port = yield* listen("127.0.0.1", 0)
        const failure = yield* Effect.flip(listen("127.0.0.1", port))
        expect(failure.message).toContain("EADDRINUSE")
      })
    )
  )
})
