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
import type { ServeError } from "effect/http/HttpServerError"
import { HttpApiBuilder } from "effect/http-api"
import { Authenticator } from "../access/Authenticator.ts"
import { KeyAuthenticator } from "../access/KeyAuthenticator.ts"
import { openApiPath } from "../api/Routes.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import { ApiSql } from "../postgres/ApiSql.ts"
import { AuditorTx } from "../postgres/AuditorTx.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { Listener } from "../postgres/Listener.ts"
import { PrivacyTx } from "../postgres/PrivacyTx.ts"
import { RegistryAcks } from "../postgres/RegistryAcks.ts"
import { TenantTx } from "../postgres/TenantTx.ts"
import { ProbeRecords } from "../records/ProbeRecords.ts"
import { ProveRecords } from "../records/ProveRecords.ts"
import { ReadRecords } from "../records/ReadRecords.ts"
import { WriteRecords } from "../records/WriteRecords.ts"
import { Denials } from "../records/write/Denials.ts"
import { Unknowns } from "../records/write/Unknowns.ts"
import { bearerLayer } from "./Access.ts"
import { Anomalies } from "./Anomalies.ts"
import { anomalyHandlers } from "./AnomalyHandlers.ts"
import { AuditEvidence } from "./AuditEvidence.ts"
import { AuditLog } from "./AuditLog.ts"
import { makeCors } from "./Cors.ts"
import { docsLayer } from "./Docs.ts"
import { makeFront } from "./Front.ts"
import { healthHandlers } from "./HealthHandlers.ts"
import { makeListener } from "./HttpListener.ts"
import { HttpMetrics, RequestMetrics } from "./HttpMetrics.ts"
import { IsolationGate } from "./IsolationGate.ts"
import { type ListenError, listenError } from "./ListenError.ts"
import { meHandlers } from "./MeHandlers.ts"
import { planHandlers } from "./PlanHandlers.ts"
import { PlanRequests } from "./PlanRequests.ts"
import { platformHandlers } from "./PlatformHandlers.ts"
import { privacyHandlers } from "./PrivacyHandlers.ts"
import { Readiness } from "./Readiness.ts"
import { recordHandlers } from "./RecordHandlers.ts"
import { Refusals } from "./Refusals.ts"
import { Registry } from "./Registry.ts"
import { Replica } from "./Replica.ts"
import { type ServerSettings, serverSettings } from "./ServerSettings.ts"

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

const socket = ({ host, port, shutdownTimeout }: ServerSettings) => {
  const live = NodeHttpServer.layer(makeListener, {
    host,
    port,
    gracefulShutdownTimeout: Duration.millis(shutdownTimeout)
  })
  const refused = (error: ServeError) =>
    Layer.unwrap(Effect.flatMap(listenError(host, port, error), Effect.fail)) as Layer.Layer<
      Layer.Success<typeof live>,
      ListenError
    >
  return Layer.catchTag(live, "ServeError", refused)
}

/** Serves the contract over its handlers. Fails with `ListenError` where the address cannot be listened at. */
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
      const url = `http://${authority(host, port)}`
      yield* Effect.logInfo(`listening at ${url}`)
      return { host: settings.host, port, url }
    })
  ).pipe(
    Layer.provide(socket(settings)),
    Layer.provide(
      Layer.succeed(HttpRouter.RouterConfig, { ignoreDuplicateSlashes: false, ignoreTrailingSlash: false })
    ),
    // a span for each request would cost more than the request's own work
    Layer.provide(Layer.succeed(References.TracerEnabled, false))
  )

const requestMetrics = Layer.effect(
  RequestMetrics,
  Effect.map(Effect.context<never>(), (context) => new HttpMetrics(context))
)

/** What handlers and front need, over the transactions of `velocity_api`. */
const services = Layer.mergeAll(
  AuditLog.layer,
  AuditEvidence.layer,
  Anomalies.layer,
  PlanRequests.layer.pipe(Layer.provide(Listener.layer)),
  Refusals.layer,
  Readiness.layer,
  bearerLayer,
  requestMetrics,
  Replica.layerNoDeps
).pipe(
  Layer.provideMerge(Layer.mergeAll(Authenticator.layer, KeyAuthenticator.layer, IsolationGate.layer)),
  Layer.provideMerge(
    Layer.mergeAll(
      ReadRecords.layerNoDeps,
      WriteRecords.layerNoDeps,
      ProveRecords.layerNoDeps,
      ProbeRecords.layerNoDeps,
      RegistryAcks.layerNoDeps
    )
  ),
  Layer.provideMerge(Layer.mergeAll(Denials.layerNoDeps, Unknowns.layerNoDeps, Registry.layer)),
  Layer.provideMerge(
    Layer.mergeAll(TenantTx.layerNoDeps, GatewayTx.layerNoDeps, AuditorTx.layerNoDeps, PrivacyTx.layerNoDeps)
  ),
  Layer.provideMerge(ApiSql.layer)
)

/**
 * The server, whole, from `VELOCITY_*` variables; settings that are given win over them. Fails with `IsolationViolated`
 * where the database could let it past row-level security (exit with `IsolationCheck.exitCode`), with `ListenError` where
 * its address is taken, with `ConfigError` where a variable is missing or wrong. Without a database it comes up, is not
 * ready, and becomes it when the database answers.
 */
export const layer = (given: Partial<ServerSettings> = {}) =>
  Layer.unwrap(
    Effect.map(serverSettings, (configured) => {
      const settings = { ...configured, ...given }
      return listening(settings).pipe(
        Layer.provide([
          recordHandlers(settings),
          privacyHandlers(settings),
          meHandlers,
          platformHandlers,
          planHandlers(settings),
          anomalyHandlers(settings),
          healthHandlers
        ]),
        Layer.provide(services)
      )
    })
  )
