/** What orchestrators and Prometheus ask an operator: `/healthz`, `/readyz`, `/metrics`, where `VELOCITY_OPERATOR_PORT` is set. */
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Config, Data, Effect, Layer, Metric } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { integer } from "../postgres/PgSettings.ts"

/** The port cannot be listened at. */
export class EndpointFailure extends Data.TaggedError("EndpointFailure")<{ readonly message: string }> {}

const memory = Metric.gauge("velocity_process_resident_bytes", { description: "Memory of the process" })

const page = Effect.andThen(
  Effect.suspend(() => Metric.update(memory, process.memoryUsage.rss())),
  PrometheusMetrics.format()
)

const answer = (response: ServerResponse, status: number, type: string, body: string) =>
  Effect.sync(() => {
    response.writeHead(status, { "content-type": type, "cache-control": "no-store" }).end(body)
  })

const json = "application/json"

/** Listens until the scope closes; answers the port. An operator that stands by is as ready as one that leads. */
export const listen = Effect.fnUntraced(function* (host: string, port: number) {
  const context = yield* Effect.context<never>()
  const server = createServer({ requestTimeout: 10_000, headersTimeout: 5_000 }, (request, response) => {
    const path = (request.url ?? "").split("?")[0]
    const handled =
      request.method !== "GET"
        ? answer(response, 405, json, '{"status":"method not allowed"}')
        : path === "/metrics"
          ? Effect.flatMap(page, (text) => answer(response, 200, "text/plain; version=0.0.4; charset=utf-8", text))
          : path === "/healthz" || path === "/readyz"
            ? answer(response, 200, json, '{"status":"ok"}')
            : answer(response, 404, json, '{"status":"not found"}')
    Effect.runForkWith(context)(handled)
  })
  yield* Effect.acquireRelease(
    Effect.callback<void, EndpointFailure>((resume) => {
      server.once("error", (error) => resume(Effect.fail(new EndpointFailure({ message: error.message }))))
      server.listen(port, host, () => resume(Effect.void))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        server.closeAllConnections()
      })
  )
  return (server.address() as AddressInfo).port
})

const none = -1

const settings = Config.all({
  host: Config.String("VELOCITY_HOST").pipe(Config.withDefault("127.0.0.1")),
  // 0 chooses a free one; none: nothing listens
  port: integer("VELOCITY_OPERATOR_PORT", none, 0, 65_535)
})

/** See the module. */
export const layer = Layer.effectDiscard(
  Effect.flatMap(settings, ({ host, port }) =>
    port === none
      ? Effect.void
      : Effect.flatMap(listen(host, port), (bound) => Effect.logInfo(`health and metrics at http://${host}:${bound}`))
  )
)
