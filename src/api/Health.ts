/** What orchestrators and Prometheus ask; without a token, and without anything about tenants in the answer. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"

/** The process is alive. */
export const HealthBody = Schema.Struct({ status: Schema.Literal("ok") }).annotate({ identifier: "Health" })

const check = Schema.Struct({ ok: Schema.Boolean, detail: Schema.optionalKey(Schema.String) })

/** Whether requests can be served, and what stands in the way. */
export const ReadinessBody = Schema.Struct({
  ready: Schema.Boolean,
  checks: Schema.Struct({ postgres: check, isolation: check, registry: check, running: check })
}).annotate({ identifier: "Readiness" })

const healthz = HttpApiEndpoint.get("healthz", "/healthz", { success: HealthBody }).annotateMerge(
  OpenApi.annotations({ summary: "Is the process alive" })
)

const readyz = HttpApiEndpoint.get("readyz", "/readyz", {
  success: [ReadinessBody, ReadinessBody.pipe(HttpApiSchema.status(503))]
}).annotateMerge(OpenApi.annotations({ summary: "Can it serve: Postgres, the isolation check, the registry" }))

const metrics = HttpApiEndpoint.get("metrics", "/metrics", {
  success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; version=0.0.4; charset=utf-8" }))
}).annotateMerge(OpenApi.annotations({ summary: "Metrics in Prometheus' text format" }))

/** See the module. */
export const health = HttpApiGroup.make("health")
  .add(healthz, readyz, metrics)
  .annotateMerge(OpenApi.annotations({ title: "Health" }))
