/** `/api/platform/anomalies`: alerts, the word that one was seen, and a rule tried over the past. */
import { Effect } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { VelocityApi } from "../api/VelocityApi.ts"
import { decodeRule, severities } from "../domain/AnomalyRule.ts"
import { boundedFaults, fault } from "../domain/Fault.ts"
import { isPlain } from "../domain/Identity.ts"
import { problem } from "../domain/Problem.ts"
import { isUuid } from "../domain/Uuid.ts"
import { platformCaller } from "./Access.ts"
import { Anomalies } from "./Anomalies.ts"
import { parsedBody, withoutParameters } from "./Bringing.ts"
import { databaseProblem } from "./DatabaseProblems.ts"
import { CurrentExchange, withoutTimeout } from "./Exchange.ts"
import { headers, limitOf, malformed, page, placeOf, readers, rfc3339, sealed } from "./PlatformHandlers.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"
import { readText, requireMediaType } from "./RequestBody.ts"
import type { ServerSettings } from "./ServerSettings.ts"

/** The longest time that a rule is tried over. */
const maxTrial = 31 * 24 * 60 * 60_000
const defaultTrial = 7 * 24 * 60 * 60_000
const maxBody = 65_536

type Members = Readonly<Record<string, unknown>>

const invalid = (errors: ReadonlyArray<{ readonly pointer: string; readonly code: string; readonly detail: string }>) =>
  problem("invalid", boundedFaults(errors))

const strangersIn = (body: Members, known: ReadonlyArray<string>) =>
  Object.keys(body)
    .filter((name) => !known.includes(name))
    .map((name) => fault([name], "unknown_field", `this call takes ${known.join(", ")}`))

/** The group's handlers; `bodyTimeout` is how long a body may say nothing. */
export const anomalyHandlers = ({ bodyTimeout }: Pick<ServerSettings, "bodyTimeout">) =>
  HttpApiBuilder.group(VelocityApi, "anomalies", (handlers) =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const anomalies = yield* Anomalies

      /** A body that is an object, of plain JSON. */
      const objectOf = (request: HttpServerRequest.HttpServerRequest) =>
        withoutParameters(
          request,
          Effect.gen(function* () {
            yield* requireMediaType(request, ["application/json"])
            const text = yield* readText(request, { max: maxBody, idle: bodyTimeout })
            // twice: the first refuses what JSON.parse lets pass, such as a key that is there twice
            yield* parsedBody(text)
            const body: unknown = JSON.parse(text)
            return typeof body === "object" && body !== null && !Array.isArray(body)
              ? (body as Members)
              : yield* invalid([fault([], "type", "the body is an object")])
          })
        )

      const list = Effect.fnUntraced(function* (
        query: Partial<Record<"chain" | "rule" | "severity" | "acknowledged" | "limit" | "cursor", string>>
      ) {
        yield* platformCaller(registry, readers)
        if (query.severity !== undefined && !(severities as ReadonlyArray<string>).includes(query.severity)) {
          return yield* malformed("severity", `one of ${severities.join(", ")}`)
        }
        if (query.acknowledged !== undefined && !["true", "false"].includes(query.acknowledged)) {
          return yield* malformed("acknowledged", "true or false")
        }
        const found = yield* anomalies
          .list({
            chain: query.chain,
            rule: query.rule,
            severity: query.severity,
            acknowledged: query.acknowledged === undefined ? undefined : query.acknowledged === "true",
            limit: yield* limitOf(query.limit),
            after: yield* placeOf(query.cursor)
          })
          .pipe(Effect.mapError(databaseProblem))
        return page(found.items, found.next === undefined ? undefined : sealed(found.next))
      })

      const acknowledge = Effect.fnUntraced(function* (id: string, request: HttpServerRequest.HttpServerRequest) {
        const caller = yield* platformCaller(registry, ["platform-admin"])
        if (!isUuid(id)) return yield* problem("malformed_id")
        const body = yield* objectOf(request)
        const { comment } = body
        const faults = strangersIn(body, ["comment"])
        if (typeof comment !== "string" || comment === "" || comment.length > 1_000 || !isPlain(comment)) {
          faults.push(fault(["comment"], "format", "1 to 1000 characters, none of them control"))
        }
        if (faults.length > 0) return yield* invalid(faults)
        const alert = yield* anomalies
          .acknowledge({ id, actor: caller.identity.actor, comment: String(comment), requestId: caller.requestId })
          .pipe(
            Effect.mapError((error) =>
              error.reason._tag === "CommitUnknown"
                ? problem("commit_unknown", { cause: error.reason.cause })
                : databaseProblem(error)
            )
          )
        if (alert === undefined) return yield* problem("not_found")
        return HttpServerResponse.text(alert, { contentType: "application/json", headers })
      })

      const scan = Effect.fnUntraced(function* (request: HttpServerRequest.HttpServerRequest) {
        yield* platformCaller(registry, readers)
        const exchange = yield* CurrentExchange
        const body = yield* objectOf(request)
        const faults = strangersIn(body, ["rule", "from", "to"])
        const decoded = decodeRule(body.rule, ["rule"])
        if ("faults" in decoded) {
          faults.push(
            ...decoded.faults.map((one) => (one.code === "unknown_key" ? { ...one, code: "unknown_field" } : one))
          )
        } else if (decoded.value.source !== "entries") {
          faults.push(
            fault(["rule", "source"], "invalid", "what verification finds is asked of /api/platform/audit/verify")
          )
        }
        const timeIn = (name: string): number | undefined => {
          const text = body[name]
          if (text === undefined) return undefined
          const millis = typeof text === "string" && rfc3339.test(text) ? Date.parse(text) : Number.NaN
          if (Number.isNaN(millis))
            faults.push(fault([name], "format", "a time as RFC 3339 writes it, with its offset"))
          return millis
        }
        const to = timeIn("to") ?? Date.now()
        const from = timeIn("from") ?? to - defaultTrial
        if (from >= to || to - from > maxTrial) faults.push(fault(["from"], "invalid", "at most 31 days before `to`"))
        if (faults.length > 0 || "faults" in decoded) return yield* invalid(faults)
        withoutTimeout(exchange)
        const { alerts, truncated } = yield* anomalies
          .trial(decoded.value, { from, to })
          .pipe(Effect.mapError(databaseProblem))
        const answer = {
          rule: decoded.value.name,
          from: new Date(from).toISOString(),
          to: new Date(to).toISOString(),
          alerts,
          truncated
        }
        return HttpServerResponse.text(JSON.stringify(answer), { contentType: "application/json", headers })
      })

      return handlers
        .handleRaw("list", ({ query }) => answering(list(query)))
        .handleRaw("acknowledge", ({ params, request }) => answering(acknowledge(params.id, request)))
        .handleRaw("scan", ({ request }) => answering(scan(request)))
    })
  )
