/** What a request for records brings beside its path: JSON that is exact, and nothing that its call does not take. */
import { Effect } from "effect"
import type { HttpServerRequest } from "effect/http"
import { ExactJsonError, type ExactValue, isExactObject, parse } from "../domain/ExactJson.ts"
import { boundedFaults, fault } from "../domain/Fault.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { strangers } from "../records/read/ReadRequest.ts"
import { hasBody, readText } from "./RequestBody.ts"

/** A body's text as JSON. */
export const parsedBody = (text: string): Effect.Effect<ExactValue, Problem> =>
  Effect.try({
    try: () => parse(text),
    catch: (cause) =>
      cause instanceof ExactJsonError
        ? problem("malformed_json", { detail: cause.message })
        : problem("internal", { cause })
  })

/** What a call brings that takes no parameters: one that is not known must not be passed over, `dry_run=true` least of all. */
export const withoutParameters = <B, R>(
  request: HttpServerRequest.HttpServerRequest,
  bring: Effect.Effect<B, Problem, R>
): Effect.Effect<B, Problem, R> => {
  const question = request.url.indexOf("?")
  if (question < 0) return bring
  const unknown = strangers(Object.fromEntries(new URLSearchParams(request.url.slice(question + 1))), [])
  return unknown === undefined ? bring : Effect.fail(unknown)
}

/** What is asked by path and headers alone: a body that says something is of another call. */
export const requireNoBody = (
  request: HttpServerRequest.HttpServerRequest,
  bodyTimeout: number
): Effect.Effect<void, Problem> =>
  hasBody(request)
    ? Effect.flatMap(readText(request, { max: 65_536, idle: bodyTimeout }), (text) =>
        text.trim() === ""
          ? Effect.void
          : Effect.flatMap(parsedBody(text), (body) => {
              if (!isExactObject(body)) {
                return Effect.fail(problem("invalid", { errors: [fault([], "type", "this call takes no body")] }))
              }
              const errors = Object.keys(body).map((name) => fault([name], "unknown_field", "this call takes no body"))
              return errors.length === 0 ? Effect.void : Effect.fail(problem("invalid", boundedFaults(errors)))
            })
      )
    : Effect.void
