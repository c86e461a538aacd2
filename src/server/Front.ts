/**
 * What every request passes, whatever it asks for: its id, the route it names (404, 405 with Allow, OPTIONS), the type of
 * answer it accepts, its time, its place in the metrics; and every answer: problems made of whatever failed, and the
 * headers that all answers carry.
 *
 * Nothing here knows records or tokens. It wraps the contract's router, so no route can be added past it.
 */
import { Context, Effect, type Scope } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { problemContentType } from "../api/ProblemBody.ts"
import { allowedOf, type Route, routesOf } from "../api/Routes.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import type { Cors } from "./Cors.ts"
import { CurrentExchange, type Exchange, requestIdOf } from "./Exchange.ts"
import { type HttpMetrics, noRoute } from "./HttpMetrics.ts"
import { logged, problemOf, problemResponse } from "./Problems.ts"

type Answering<E, R> = Effect.Effect<HttpServerResponse.HttpServerResponse, E, R>

/** What the front needs to know. */
export interface FrontOptions {
  readonly cors: Cors
  readonly metrics: HttpMetrics
  /** Milliseconds. */
  readonly requestTimeout: number
  /** Why requests about tenants cannot be served now; undefined while they can. */
  readonly closed: () => Problem | undefined
  /** Whether the server is stopping: answers then end their connections. */
  readonly draining: () => boolean
  /** Told of everything that was not answered as asked, once, before the answer leaves. */
  readonly refused: (exchange: Exchange, failure: Problem) => Effect.Effect<void>
}

/** On every answer. Scripts and frames have no business with an API's answers; the page of /docs says otherwise itself. */
const always = {
  "x-content-type-options": "nosniff",
  "referrer-policy": "no-referrer",
  "content-security-policy": "default-src 'none'; frame-ancestors 'none'"
}

const ndjson = "application/x-ndjson"
const answersOf: Readonly<Record<string, ReadonlyArray<string>>> = {
  "records.create": ["application/json", ndjson],
  "platform.verify": ["application/json", ndjson],
  "platform.tree": [ndjson],
  "platform.checkpoint": ["text/plain"]
}
const jsonAlone = ["application/json"]
/** Groups that tell nothing of tenants; of every other the answers are JSON, and the closed gate holds. */
const unguarded = new Set(["health", "docs", "none"])

/** Whether an Accept header (RFC 9110 §12.5.1) takes one of these types, or problems at least. */
const accepts = (header: string | undefined, types: ReadonlyArray<string>): boolean => {
  if (header === undefined || header === "" || header === "*/*" || header.includes("application/json")) return true
  for (const range of header.split(",")) {
    const [type = "", ...parameters] = range.split(";").map((part) => part.trim().toLowerCase())
    if (parameters.some((parameter) => /^q=0(\.0*)?$/u.test(parameter))) continue
    if (type === "*/*" || type === "application/*" || type === problemContentType || types.includes(type)) return true
  }
  return false
}

/** A request that is answered before any handler is asked. */
const early = (
  request: HttpServerRequest.HttpServerRequest,
  pathname: string,
  found: ReadonlyMap<string, Route>,
  options: FrontOptions
): HttpServerResponse.HttpServerResponse | Problem => {
  if (found.size === 0) return problem("not_found", { detail: "no such path" })
  const allow = allowedOf(found)
  if (request.method !== "OPTIONS") {
    return problem("method_not_allowed", { detail: `${pathname} answers ${allow}`, headers: { allow } })
  }
  const preflight = options.cors.preflight(request.headers.origin, allow)
  return HttpServerResponse.empty({
    status: 204,
    headers: { allow, vary: "Origin, Access-Control-Request-Method", ...preflight }
  })
}

/** Whether every percent-encoding stands for text; a decoder of query strings would put something else in its place. */
const isDecodable = (query: string): boolean => {
  if (!query.includes("%")) return true
  try {
    decodeURIComponent(query)
    return true
  } catch {
    return false
  }
}

/** HTTP/1.0 knows no Host (RFC 9110 §7.2). */
const isHttp10 = ({ source }: HttpServerRequest.HttpServerRequest): boolean =>
  (source as { readonly httpVersion?: string }).httpVersion === "1.0"

const closing = { connection: "close" }

/** The router behind the front. */
export const makeFront = <E, R>(
  app: Answering<E, R>,
  options: FrontOptions
): Answering<never, R | HttpServerRequest.HttpServerRequest | Scope.Scope> => {
  const { cors, metrics } = options

  const finished = (
    exchange: Exchange,
    request: HttpServerRequest.HttpServerRequest,
    response: HttpServerResponse.HttpServerResponse
  ): HttpServerResponse.HttpServerResponse => {
    clearTimeout(exchange.timer)
    metrics.ended(exchange.route, response.status, performance.now() - exchange.started)
    const { origin } = request.headers
    const headers: Record<string, string> = { ...always, "x-request-id": exchange.requestId }
    const { "content-security-policy": policy, vary } = response.headers
    if (policy !== undefined) headers["content-security-policy"] = policy
    if (origin !== undefined) {
      Object.assign(headers, cors.answer(origin))
      headers.vary = vary === undefined ? "Origin" : `${vary}, Origin`
    }
    if (options.draining()) Object.assign(headers, closing)
    return HttpServerResponse.setHeaders(response, headers)
  }

  const finish = (
    exchange: Exchange,
    request: HttpServerRequest.HttpServerRequest,
    response: HttpServerResponse.HttpServerResponse
  ): Effect.Effect<HttpServerResponse.HttpServerResponse> =>
    exchange.problem === undefined
      ? Effect.succeed(finished(exchange, request, response))
      : Effect.map(options.refused(exchange, exchange.problem), () => finished(exchange, request, response))

  return Effect.withFiber((fiber) => {
    const request = Context.getUnsafe(fiber.context, HttpServerRequest.HttpServerRequest)
    const { headers, method, url } = request
    const question = url.indexOf("?")
    const pathname = question < 0 ? url : url.slice(0, question)
    const found = routesOf(pathname)
    const route = found.get(method) ?? (method === "HEAD" ? found.get("GET") : undefined)
    metrics.began()
    const exchange: Exchange = {
      requestId: requestIdOf(headers["x-request-id"]),
      address: request.remoteAddress._tag === "Some" ? request.remoteAddress.value : "",
      route: route ?? noRoute,
      started: performance.now(),
      actor: undefined,
      chain: undefined,
      path: undefined,
      problem: undefined,
      late: false,
      reading: false,
      timer: undefined
    }
    const refuse = (failure: Problem) => {
      exchange.problem = failure
      return finish(exchange, request, problemResponse(failure, exchange))
    }

    if (headers.host === undefined && !isHttp10(request)) {
      return refuse(problem("malformed_header", { detail: "HTTP/1.1 asks for a header Host" }))
    }
    if (route === undefined) {
      const answer = early(request, pathname, found, options)
      return HttpServerResponse.isHttpServerResponse(answer)
        ? Effect.succeed(finished(exchange, request, answer))
        : refuse(answer)
    }
    if (question >= 0 && !isDecodable(url.slice(question))) {
      return refuse(problem("malformed_query", { detail: "a percent-encoding stands for no text in UTF-8" }))
    }
    if (!unguarded.has(route.group)) {
      const closed = options.closed()
      if (closed !== undefined) return refuse(closed)
      if (!accepts(headers.accept, answersOf[`${route.group}.${route.endpoint}`] ?? jsonAlone)) {
        return refuse(problem("not_acceptable"))
      }
    }

    exchange.timer = setTimeout(() => {
      exchange.late = true
      fiber.interruptUnsafe()
    }, options.requestTimeout)
    return Effect.matchCauseEffect(Effect.provideService(app, CurrentExchange, exchange), {
      onSuccess: (response) => finish(exchange, request, response),
      onFailure: (cause) => {
        const failure = problemOf(cause, exchange)
        if (failure === undefined) {
          clearTimeout(exchange.timer)
          // nginx's number for a client that went away; nobody reads the answer
          metrics.ended(exchange.route, 499, performance.now() - exchange.started)
          return Effect.succeed(HttpServerResponse.empty({ status: 499 }))
        }
        return Effect.andThen(logged(failure, exchange), refuse(failure))
      }
    })
  }) as Answering<never, R | HttpServerRequest.HttpServerRequest | Scope.Scope>
}
