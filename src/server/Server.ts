/**
 * The API's HTTP server: the contract's routes behind the front, on a socket.
 *
 * It listens once the isolation check has found nothing and the registry was read. When its scope closes it is not ready
 * any more, takes no new connection, lets what is under way end (`VELOCITY_SHUTDOWN_TIMEOUT`), and is gone; so a process
 * that closes it on SIGTERM drains.
 */
import { NodeHttpServer } from "@effect/platform-node"
import { Context, Duration, Effect, Layer, References } from "effect"
import { HttpRouter, HttpServer } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { openApiPath } from "../api/Routes.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import { makeCors } from "./Cors.ts"
import { docsLayer } from "./Docs.ts"
import { makeFront } from "./Front.ts"
import { makeListener } from "./HttpListener.ts"
import { RequestMetrics } from "./HttpMetrics.ts"
import { IsolationGate } from "./IsolationGate.ts"
import { Readiness } from "./Readiness.ts"
import { Refusals } from "./Refusals.ts"
import type { ServerSettings } from "./ServerSettings.ts"

/** Where it listens. */
export class ServerAddress extends Context.Service<
  ServerAddress,
  { readonly host: string; readonly port: number; readonly url: string }
>()("velocity/server/ServerAddress") {}

const authority = (host: string, port: number): string => (host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`)

/** Every address of the machine is reached from it by this one. */
const reachable = (host: string): string => (host === "0.0.0.0" ? "127.0.0.1" : host === "::" ? "::1" : host)

/** The contract's routes and its description; over the handlers of every group. */
const routes = Layer.mergeAll(HttpApiBuilder.layer(VelocityApi, { openapiPath: openApiPath }), docsLayer)

/** Serves the contract over its handlers. Fails with `ServeError` where the address cannot be listened at. */
export const listening = (settings: ServerSettings) =>
  Layer.effect(
    ServerAddress,
    Effect.gen(function* () {
      const readiness = yield* Readiness
      const gate = yield* IsolationGate
      const metrics = yield* RequestMetrics
      const refusals = yield* Refusals
      const app = yield* HttpRouter.toHttpEffect(routes)
      const front = makeFront(app, {
        cors: makeCors(settings.corsOrigins),
        metrics,
        requestTimeout: settings.requestTimeout,
        closed: gate.closed,
        draining: readiness.draining,
        refused: refusals.note
      })
      yield* HttpServer.serveEffect(front)
      // after serving, so that it runs before the socket closes
      yield* Effect.addFinalizer(() => Effect.sync(readiness.drain))
      const { address } = yield* HttpServer.HttpServer
      const port = address._tag === "UnixPathAddress" ? 0 : address.port
      const host = reachable(settings.host)
      return { host: settings.host, port, url: `http://${authority(host, port)}` }
    })
  ).pipe(
    Layer.provide(
      NodeHttpServer.layer(makeListener, {
        host: settings.host,
        port: settings.port,
        gracefulShutdownTimeout: Duration.millis(settings.shutdownTimeout)
      })
    ),
    Layer.provide(
      Layer.succeed(HttpRouter.RouterConfig, { ignoreDuplicateSlashes: false, ignoreTrailingSlash: false })
    ),
    // a span for each request would cost more than the request's own work
    Layer.provide(Layer.succeed(References.TracerEnabled, false))
  )
