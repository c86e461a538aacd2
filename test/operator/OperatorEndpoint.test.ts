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

  it.live("counts its work under the names of controller-runtime", () =>
    Effect.scoped(
      Effect.gen(function* () {
        yield* ControllerMetrics.began
        yield* ControllerMetrics.added
        yield* ControllerMetrics.depth(0)
        yield* ControllerMetrics.waited(20)
        yield* Effect.all(ControllerMetrics.reconciled("Domain", "error", 30))
        yield* ControllerMetrics.working(
          new Map([
            ["Domain/a/b", 1_000],
            ["RoleBinding/a/b", 4_000]
          ]),
          5_000
        )
        const port = yield* listen("127.0.0.1", 0)
        const text = yield* Effect.promise(async () => (await fetch(`http://127.0.0.1:${port}/metrics`)).text())
        expect(
          [...text.matchAll(/^# TYPE ((?:controller_runtime|workqueue)_\S+)/gmu)].map(([, name]) => name).sort()
        ).toEqual([
          "controller_runtime_active_workers",
          "controller_runtime_reconcile_errors_total",
          "controller_runtime_reconcile_time_seconds",
          "controller_runtime_reconcile_total",
          "workqueue_adds_total",
          "workqueue_depth",
          "workqueue_longest_running_processor_seconds",
          "workqueue_queue_duration_seconds",
          "workqueue_retries_total",
          "workqueue_unfinished_work_seconds",
          "workqueue_work_duration_seconds"
        ])
        expect(text).toMatch(/^workqueue_unfinished_work_seconds\{name="velocity"\} 5$/mu)
        expect(text).toMatch(/^workqueue_longest_running_processor_seconds\{name="velocity"\} 4$/mu)
        expect(text).toMatch(/^controller_runtime_active_workers\{controller="Domain"\} 1$/mu)
        expect(text).toMatch(/^controller_runtime_active_workers\{controller="ApiKey"\} 0$/mu)
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
