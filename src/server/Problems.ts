/**
 * Problems as answers: whatever went wrong leaves the server as `application/problem+json` with a code of the catalogue,
 * and what is wrong on our side is logged once, under the request's id, and told to nobody.
 */
import { Cause, Effect, type SchemaIssue } from "effect"
import { HttpServerError, HttpServerResponse } from "effect/http"
import { HttpApiError } from "effect/http-api"
import { problemContentType } from "../api/ProblemBody.ts"
import { type Fault, pointerOf } from "../domain/Fault.ts"
import { type PlainIssue, plainIssues } from "../domain/Issues.ts"
import { Problem, type ProblemCode, problem, problemDocument } from "../domain/Problem.ts"
import { CurrentExchange, type Exchange } from "./Exchange.ts"

/** Seconds after which asking again may help, where the problem itself does not say. */
const retryAfter: Partial<Record<ProblemCode, string>> = {
  unavailable: "1",
  timeout: "1",
  lock_timeout: "1",
  not_ready: "2",
  dependency_unavailable: "5",
  in_flight: "1",
  no_operator: "10",
  // how often the sealer looks
  not_sealed: "10"
}

/** A problem as the answer to a request. */
export const problemResponse = (failure: Problem, exchange: Pick<Exchange, "requestId">) => {
  const again = retryAfter[failure.code]
  return HttpServerResponse.text(JSON.stringify(problemDocument(failure, exchange.requestId)), {
    status: failure.status,
    contentType: problemContentType,
    headers: {
      "cache-control": "no-store",
      ...(again === undefined ? {} : { "retry-after": again }),
      ...failure.headers
    }
  })
}

/** Logs what a problem hides: the cause of what is our own fault. */
export const logged = (failure: Problem, exchange: Exchange): Effect.Effect<void> =>
  failure.cause === undefined || failure.status < 500
    ? Effect.void
    : Effect.logError(`${failure.code}: ${failure.detail ?? failure.title}`, failure.cause).pipe(
        Effect.annotateLogs({ requestId: exchange.requestId, route: exchange.route.template })
      )

/** An endpoint's effect whose problems are its answers. */
export const answering = <R>(
  effect: Effect.Effect<HttpServerResponse.HttpServerResponse, Problem, R>
): Effect.Effect<HttpServerResponse.HttpServerResponse, never, R> =>
  Effect.catch(effect, (failure) =>
    Effect.flatMap(CurrentExchange, (exchange) => {
      exchange.problem = failure
      return Effect.as(logged(failure, exchange), problemResponse(failure, exchange))
    })
  )

/** Parameters are texts, so one of another type is a list of them. */
const parameterText = ({ code, detail, path }: PlainIssue): string => {
  const name = String(path[0])
  if (code === "unknown_key") return `there is no parameter ${name} here`
  return path.length === 1 && detail === "must be a text" ? `${name} is given more than once` : detail
}

const faultsOf = (issue: SchemaIssue.Issue): ReadonlyArray<Fault> =>
  plainIssues(issue).map((one) => ({ pointer: pointerOf(one.path), code: "malformed", detail: parameterText(one) }))

/** The problem of a cause, whatever it is. Undefined where the client went away, so that nobody is there to be told. */
export const problemOf = (cause: Cause.Cause<unknown>, exchange: Exchange): Problem | undefined => {
  for (const reason of cause.reasons) {
    const found = reason._tag === "Fail" ? reason.error : reason._tag === "Die" ? reason.defect : undefined
    if (found instanceof Problem) return found
    if (HttpApiError.HttpApiSchemaError.is(found) && (found.kind === "Query" || found.kind === "Params")) {
      return problem("malformed_query", { errors: faultsOf(found.cause.issue) })
    }
    if (HttpApiError.HttpApiSchemaError.is(found) && found.kind === "Headers") return problem("malformed_header")
    if (found instanceof HttpServerError.HttpServerError && found.reason._tag === "RouteNotFound") {
      return problem("not_found")
    }
  }
  if (exchange.late && exchange.reading) {
    return problem("request_timeout", { detail: "the body took too long", headers: { connection: "close" } })
  }
  if (exchange.late) return problem("timeout", { detail: "the request was given up" })
  if (!Cause.hasInterruptsOnly(cause)) return problem("internal", { cause })
  const leftByClient = cause.reasons.some((reason) => reason.annotations.has(HttpServerError.ClientAbort.key))
  return leftByClient ? undefined : problem("not_ready", { detail: "the server is stopping" })
}
