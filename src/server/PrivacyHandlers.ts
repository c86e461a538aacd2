/**
 * `POST P/{id}/erase`, for `platform-privacy` of the platform's own strategy: a record's contents leave for good, in one
 * transaction as `velocity_privacy`, which leaves its entry in the domain's chain.
 *
 * What was erased before is 404 as what never was: whoever may read history finds there that it was. A withdrawn record
 * type's rows are kept, so they can be erased too.
 */
import { Effect, Result } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { VelocityApi } from "../api/VelocityApi.ts"
import { type ExactObject, isExactObject } from "../domain/ExactJson.ts"
import { boundedFaults, type Fault, fault } from "../domain/Fault.ts"
import { chainOf, formatPath, parsePath, type RecordPath } from "../domain/Names.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { tableNameOf } from "../domain/ServedDefinition.ts"
import { isUuid } from "../domain/Uuid.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { type Erased, PrivacyTx } from "../postgres/PrivacyTx.ts"
import { Denials } from "../records/write/Denials.ts"
import { transient } from "../records/write/Outcomes.ts"
import { Unknowns } from "../records/write/Unknowns.ts"
import { readPrefer } from "../records/write/WriteHeaders.ts"
import { platformCaller } from "./Access.ts"
import { parsedBody, withoutParameters } from "./Bringing.ts"
import { databaseProblem } from "./DatabaseProblems.ts"
import { CurrentExchange, withoutTimeout } from "./Exchange.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"
import { readText, requireMediaType } from "./RequestBody.ts"
import type { ServerSettings } from "./ServerSettings.ts"

/** A reason and a ticket are a sentence and a number, not documents. */
const maxBody = 65_536
/** As in the headers that other writes say them by. */
const sayable = /^[\P{Cc}]{1,1000}$/u
const headers = { "cache-control": "no-store", vary: "Authorization, Prefer" }

interface Said {
  readonly reason: string
  readonly ticket: string | undefined
}

const textFaults = (body: ExactObject): ReadonlyArray<Fault> =>
  Object.entries(body).flatMap(([name, value]) => {
    if (name !== "reason" && name !== "ticket") {
      return [fault([name], "unknown_field", "an erasure has a reason and a ticket")]
    }
    if (typeof value !== "string") return [fault([name], "type", "must be a text")]
    return value === "" || (sayable.test(value) && value.isWellFormed())
      ? []
      : [fault([name], "max_length", "1 to 1000 characters, none of them control")]
  })

/** What the body says. */
const saidOf = (body: unknown): Result.Result<Said, Problem> => {
  if (!isExactObject(body as ExactObject)) {
    return Result.fail(problem("invalid", { errors: [fault([], "type", "must be an object")] }))
  }
  const errors = textFaults(body as ExactObject)
  if (errors.length > 0) return Result.fail(problem("invalid", boundedFaults(errors)))
  const { reason, ticket } = body as { readonly reason?: string; readonly ticket?: string }
  if (reason === undefined || reason.trim() === "") {
    return Result.fail(problem("reason_required", { detail: "say it as reason in the body" }))
  }
  return Result.succeed({ reason, ticket: ticket === undefined || ticket.trim() === "" ? undefined : ticket })
}

/** What a failure of the transaction means; nothing was done in any case but an unknown COMMIT. */
const refusalOf = (failure: DatabaseFailure, holder: string | undefined): Problem => {
  const { reason } = failure
  const { cause } = reason
  if (reason._tag === "ForeignKey") {
    const detail = `${holder ?? "live records refer to it"}; delete it first, which does to them what their definition says`
    return problem("still_referenced", { detail, cause })
  }
  if (reason._tag === "CommitUnknown") return problem("commit_unknown", { headers: { "retry-after": "1" }, cause })
  if (reason._tag === "Serialization" || reason._tag === "Deadlock") return problem("write_conflict", { cause })
  if (reason._tag === "Platform") {
    if (reason.code === "VL080") return problem("not_found", { cause })
    if (reason.code === "VL081") return problem("ticket_required", { detail: "say it as ticket in the body", cause })
    if (reason.code === "VL083") {
      return problem("held", { detail: "the records of this domain are held; the hold must be lifted first", cause })
    }
    if (reason.code === "VL082") {
      return problem("not_ready", {
        detail: "the operator has not provisioned this record type for erasure yet",
        cause
      })
    }
  }
  return databaseProblem(failure)
}

/** The group's handlers. */
export const privacyHandlers = ({ bodyTimeout }: Pick<ServerSettings, "bodyTimeout">) =>
  HttpApiBuilder.group(VelocityApi, "privacy", (handlers) =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const privacy = yield* PrivacyTx
      const denials = yield* Denials
      const unknowns = yield* Unknowns

      /** Which type's records refer, in words: whoever may erase may know what there is. */
      const holderOf = (path: RecordPath, { reason }: DatabaseFailure): string | undefined => {
        if (reason._tag !== "ForeignKey") return undefined
        for (const definition of registry.definitions()) {
          const type = definition.chain === chainOf(path) ? registry.peers(definition.path) : undefined
          const fields =
            type !== undefined && tableNameOf(type.def) === reason.table
              ? type.constraint(reason.constraint)?.fields
              : undefined
          if (fields !== undefined) return `live records of ${definition.path} refer to it by ${fields.join(", ")}`
        }
        return undefined
      }

      const erase = Effect.fnUntraced(function* (
        params: RecordPath & { readonly id: string },
        request: HttpServerRequest.HttpServerRequest
      ) {
        const exchange = yield* CurrentExchange
        const path = formatPath(params)
        const chain = chainOf(params)
        if (parsePath(path) !== undefined) exchange.path = path
        const caller = yield* platformCaller(registry, ["platform-privacy"])
        const { actor } = caller.identity
        const { requestId } = caller
        const body = yield* withoutParameters(
          request,
          Effect.andThen(
            requireMediaType(request, ["application/json"]),
            Effect.flatMap(readText(request, { max: maxBody, idle: bodyTimeout }), parsedBody)
          )
        )
        const { reason, ticket } = yield* Effect.fromResult(saidOf(body))
        const prefer = yield* Effect.fromResult(readPrefer(request.headers.prefer))
        if (!isUuid(params.id)) return yield* problem("malformed_id")
        if (parsePath(path) === undefined) return yield* problem("not_found")
        const dry = prefer.rollback
        // what is under way ends by its own time, and is then told as it ended
        withoutTimeout(exchange)
        const entered = (outcome: "failed" | "dry_run", payload: Readonly<Record<string, unknown>>) =>
          denials.record({
            chain,
            actor,
            address: caller.address,
            action: "erase",
            outcome,
            schemaPath: path,
            entityId: params.id,
            payload,
            requestId,
            reason,
            ticketRef: ticket
          })
        const told = (erased: Erased) => {
          const { entry: _, ...undone } = erased
          return HttpServerResponse.text(JSON.stringify(dry ? undone : erased), {
            contentType: "application/json",
            headers: { ...headers, ...(dry ? { "preference-applied": "tx=rollback" } : {}) }
          })
        }
        return yield* transient(
          privacy.erase({ path, id: params.id, actor, requestId, reason, ticket }, { end: dry ? "rollback" : "commit" })
        ).pipe(
          Effect.matchEffect({
            onSuccess: (erased) =>
              dry ? Effect.as(entered("dry_run", { status: 200 }), told(erased)) : Effect.succeed(told(erased)),
            onFailure: (failure) => {
              const refusal = refusalOf(failure, holderOf(params, failure))
              if (refusal.code === "commit_unknown") {
                const act = { chain, actor, action: "erase", schemaPath: path, entityId: params.id, requestId }
                return Effect.andThen(unknowns.settle({ ...act, event: undefined }), Effect.fail(refusal))
              }
              const isEntered = refusal.status === 409 || (dry && refusal.status < 500 && refusal.status !== 404)
              return isEntered
                ? Effect.andThen(entered(dry ? "dry_run" : "failed", { code: refusal.code }), Effect.fail(refusal))
                : Effect.fail(refusal)
            }
          })
        )
      })

      return handlers.handleRaw("erase", ({ params, request }) => answering(erase(params, request)))
    })
  )
