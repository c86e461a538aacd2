/** `/healthz`, `/readyz` and `/metrics`. */
import { type Context, Effect, Metric } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { PrometheusMetrics } from "effect/observability"
import type { ReadinessBody } from "../api/Health.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import { ApiSql } from "../postgres/ApiSql.ts"
import { RequestMetrics } from "./HttpMetrics.ts"
import { Readiness } from "./Readiness.ts"

const ready = Metric.gauge("velocity_ready", {
  description: "1 for each check of readiness that holds; a replica is ready where all do"
})
const connections = Metric.gauge("velocity_pool_connections", { description: "Connections of velocity_api, by state" })
const waiting = Metric.gauge("velocity_pool_waiting", { description: "Transactions that wait for a connection" })
const memory = Metric.gauge("velocity_process_resident_bytes", { description: "Memory of the process" })

const json = { contentType: "application/json", headers: { "cache-control": "no-store" } }

export const healthHandlers = HttpApiBuilder.group(VelocityApi, "health", (handlers) =>
  Effect.gen(function* () {
    const readiness = yield* Readiness
    const requests = yield* RequestMetrics
    const databases = yield* ApiSql

    const measured = ({ checks }: typeof ReadinessBody.Type) =>
      Effect.contextWith((context: Context.Context<never>) =>
        Effect.sync(() => {
          requests.gauge()
          for (const [name, { ok }] of Object.entries(checks)) {
            Metric.withAttributes(ready, { check: name }).updateUnsafe(ok ? 1 : 0, context)
          }
          memory.updateUnsafe(process.memoryUsage.rss(), context)
          for (const [database, { idle, open, waiting: queued }] of databases.stats()) {
            Metric.withAttributes(connections, { database, state: "idle" }).updateUnsafe(idle, context)
            Metric.withAttributes(connections, { database, state: "used" }).updateUnsafe(open - idle, context)
            Metric.withAttributes(waiting, { database }).updateUnsafe(queued, context)
          }
        })
      )
    return handlers
      .handleRaw("healthz", () => Effect.succeed(HttpServerResponse.text('{"status":"ok"}', json)))
      .handleRaw("readyz", () =>
        Effect.map(readiness.check, (body) =>
          HttpServerResponse.text(JSON.stringify(body), { ...json, status: body.ready ? 200 : 503 })
        )
      )
      .handleRaw("metrics", () =>
        Effect.andThen(
          Effect.flatMap(readiness.check, measured),
          Effect.map(PrometheusMetrics.format(), (text) =>
            HttpServerResponse.text(text, {
              contentType: "text/plain; version=0.0.4; charset=utf-8",
              headers: { "cache-control": "no-store" }
            })
          )
        )
      )
  })
)
