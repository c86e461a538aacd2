/**
 * The records' endpoints: who asks and what he may (`access`), what it is about (registry), then `records` does it. Bodies
 * go in and out as text; nothing here knows a field.
 *
 * A definition that is not the one in force is read again and the request repeated, once (fine print 9).
 */
import { Effect, Result, type Stream } from "effect"
import { type HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { platformChain, requireOperation, rolesFor } from "../access/Authorization.ts"
import { CurrentIdentity } from "../api/Bearer.ts"
import { ndjsonContentType } from "../api/ExactBody.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import type { ExactValue } from "../domain/ExactJson.ts"
import type { Caller } from "../domain/Identity.ts"
import { chainOf, parsePath } from "../domain/Names.ts"
import type { Operation } from "../domain/Operation.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { ProveRecords } from "../records/ProveRecords.ts"
import { ReadRecords } from "../records/ReadRecords.ts"
import type { Answer } from "../records/type/Answer.ts"
import type { StaleDefinition } from "../records/type/Failures.ts"
import type { RecordType } from "../records/type/RecordType.ts"
import { WriteRecords } from "../records/WriteRecords.ts"
import type { Referring, WriteRequest } from "../records/write/WriteType.ts"
import { callerOf } from "./Access.ts"
import { AuditEvidence } from "./AuditEvidence.ts"
import { parsedBody, requireNoBody, withoutParameters } from "./Bringing.ts"
import { databaseProblem } from "./DatabaseProblems.ts"
import { CurrentExchange, withoutTimeout } from "./Exchange.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"
import { readStream, readText, requireMediaType } from "./RequestBody.ts"
import { maxJsonBody, type ServerSettings } from "./ServerSettings.ts"
import { requireBeforeSunset, withEnding } from "./Sunset.ts"

interface TypeParams {
  readonly org: string
  readonly app: string
  readonly domain: string
  readonly object: string
  readonly version: string
}

/** What one request is made with: the record type in force, and the caller's rights on it. */
interface Authorized {
  readonly type: RecordType
  readonly caller: Caller
}

const jsonTypes = ["application/json"] as const
const createTypes = ["application/json", ndjsonContentType] as const
const patchTypes = ["application/merge-patch+json", "application/json-patch+json", "application/json"] as const

/** What every answer about records says to caches: it is the caller's alone, and to be asked for again. */
const cached = { "cache-control": "private, no-cache", vary: "Authorization, X-API-Key, Accept, Prefer" }

const responseOf = ({ body, status, stream }: Answer, headers: Readonly<Record<string, string>>) => {
  const all = { ...cached, ...headers }
  if (stream !== undefined) {
    return HttpServerResponse.stream(stream, { status, headers: all, contentType: ndjsonContentType })
  }
  if (body === undefined) return HttpServerResponse.empty({ status, headers: all })
  const options = { status, headers: all, contentType: "application/json" }
  return typeof body === "string"
    ? HttpServerResponse.text(body, options)
    : HttpServerResponse.uint8Array(body, options)
}

/** What a create brings: one body, or a stream that comes only once. */
type Brought = { readonly body: ExactValue } | { readonly stream: Stream.Stream<Uint8Array, Problem> }

const unsettled = (cause: unknown): Problem =>
  problem("not_ready", { detail: "the definition is being changed", headers: { "retry-after": "1" }, cause })

/** The group's handlers; `bodyTimeout` is how long a body may say nothing. */
export const recordHandlers = ({ bodyTimeout }: Pick<ServerSettings, "bodyTimeout">) =>
  HttpApiBuilder.group(VelocityApi, "records", (handlers) =>
    Effect.gen(function* () {
      const registry = yield* Registry
      const reads = yield* ReadRecords
      const writes = yield* WriteRecords
      const proofs = yield* ProveRecords
      const evidence = yield* AuditEvidence

      const authorize = Effect.fnUntraced(function* (
        { app, domain, object, org, version }: TypeParams,
        operation: Operation,
        request: HttpServerRequest.HttpServerRequest
      ) {
        const exchange = yield* CurrentExchange
        const identity = yield* CurrentIdentity
        const chain = `${org}/${app}/${domain}`
        const type = yield* registry.lookup(`${chain}/${object}/${version}`)
        exchange.path = type.path
        const over = requireBeforeSunset(type, registry)
        if (over !== undefined) yield* over
        const caller = yield* Effect.fromResult(
          callerOf(registry, identity, { chain, object, version, operation }, exchange, request)
        )
        yield* Effect.fromResult(requireOperation(type.def.spec, operation, caller))
        return { type, caller } satisfies Authorized
      })

      /** The types of a domain that refer to the rows of one, by whichever version; those by this version first. */
      const referring = (type: Pick<RecordType, "chain" | "def" | "path">): ReadonlyArray<Referring> => {
        const exact: Array<Referring> = []
        const others: Array<Referring> = []
        for (const { chain, path, serving } of registry.definitions()) {
          const other = serving && chain === type.chain ? registry.peers(path) : undefined
          for (const field of other?.def.spec.fields ?? []) {
            const target = other?.fields.get(field.name)?.target
            if (other === undefined || field.ref === undefined || target === undefined) continue
            const among = target === type.path ? exact : others
            if (target !== type.path && registry.peers(target)?.def.storageId !== type.def.storageId) continue
            among.push({ type: other, field, onDelete: field.ref.onDelete })
          }
        }
        return [...exact, ...others]
      }

      /** The types around one, and the roles that a caller has on each, to read it if nothing else is said: a binding may be for some alone. */
      const around = ({ identity }: Caller) => ({
        peers: registry.peers,
        referring,
        rolesOn: (path: string, operation: Operation = "read"): ReadonlyArray<string> => {
          const found = parsePath(path)
          if (found === undefined) return []
          const chain = chainOf(found)
          const target = { chain, object: found.object, version: found.version, operation }
          const bindings = registry.bindingsOf(identity.actor, chain)
          const roles = rolesFor(identity, target, bindings, registry.strategiesOf(platformChain), Date.now())
          return Result.getOrElse(roles, () => [])
        }
      })

      /**
       * Authorizes, makes ready what the request brings (its body, once), and does it; again where the definition was
       * not the one in force, but never twice, and not where what was brought is used up.
       */
      const serve = <B>(
        params: TypeParams,
        operation: Operation,
        request: HttpServerRequest.HttpServerRequest,
        bring: Effect.Effect<B, Problem>,
        act: (authorized: Authorized, brought: B) => Effect.Effect<Answer, Problem | StaleDefinition, CurrentIdentity>,
        repeatable: (brought: B) => boolean = () => true
      ) =>
        answering(
          Effect.gen(function* () {
            let authorized: Authorized = yield* authorize(params, operation, request)
            const brought = yield* bring
            const answer = yield* Effect.catchTag(act(authorized, brought), "StaleDefinition", (stale) =>
              Effect.gen(function* () {
                yield* registry.refresh(stale.path)
                if (!repeatable(brought)) return yield* unsettled(stale.cause)
                authorized = yield* authorize(params, operation, request)
                return yield* Effect.catchTag(act(authorized, brought), "StaleDefinition", ({ cause }) =>
                  Effect.fail(unsettled(cause))
                )
              })
            )
            return responseOf(answer, withEnding(answer.headers, authorized.type, registry))
          })
        )

      type Request = HttpServerRequest.HttpServerRequest
      const jsonBody = (request: Request) =>
        Effect.flatMap(readText(request, { max: maxJsonBody, idle: bodyTimeout }), parsedBody)
      const bodyOf = <A extends string>(request: Request, types: ReadonlyArray<A>) =>
        withoutParameters(
          request,
          Effect.flatMap(requireMediaType(request, types), (mediaType) =>
            Effect.map(jsonBody(request), (body) => ({ mediaType, body }))
          )
        )
      const bodyless = (request: Request) => withoutParameters(request, requireNoBody(request, bodyTimeout))
      const writeRequest = (request: Request, caller: Caller): WriteRequest => ({
        headers: {
          ifMatch: request.headers["if-match"],
          ifNoneMatch: request.headers["if-none-match"],
          prefer: request.headers.prefer,
          idempotencyKey: request.headers["idempotency-key"]
        },
        method: request.method,
        target: request.url,
        contentType: request.headers["content-type"],
        ...around(caller)
      })

      const create = (params: TypeParams, request: Request) =>
        serve(
          params,
          "create",
          request,
          withoutParameters(
            request,
            Effect.flatMap(
              requireMediaType(request, createTypes),
              (mediaType): Effect.Effect<Brought, Problem> =>
                mediaType === ndjsonContentType
                  ? Effect.map(CurrentExchange, (exchange) => {
                      // it may take as long as its transaction, as long as something comes
                      withoutTimeout(exchange)
                      return { stream: readStream(request, bodyTimeout) }
                    })
                  : Effect.map(jsonBody(request), (body) => ({ body }))
            )
          ),
          ({ caller, type }, brought) => {
            const asked = writeRequest(request, caller)
            if ("stream" in brought) {
              // a stream cannot be repeated, so its definition is read again beforehand: one statement for a whole import
              return Effect.flatMap(
                Effect.andThen(registry.refresh(type.path), authorize(params, "create", request)),
                (fresh) => writes.bulkNdjson(fresh.type, fresh.caller, { ...asked, stream: brought.stream })
              )
            }
            const { body } = brought
            return Array.isArray(body)
              ? writes.bulkJson(type, caller, { ...asked, body })
              : writes.create(type, caller, { ...asked, body })
          },
          (brought) => "body" in brought
        )

      /** A record's fields and the entry that commits to them, and the entry's place in the signed tree. */
      const proof = Effect.fnUntraced(function* (type: RecordType, caller: Caller, id: string) {
        const { batch, entry, fields, record } = yield* proofs.evidence(type, caller, id)
        const found = yield* evidence.proof(entry).pipe(Effect.mapError(databaseProblem))
        if (found._tag === "Unknown") return yield* problem("not_found")
        if (found._tag === "NotSealed") return yield* problem("not_sealed")
        const path = batch === undefined ? "" : `,"batch":${JSON.stringify(batch)}`
        const body = `{"record":${record},"fields":${fields}${path},"entry":${found.entry},"proof":${JSON.stringify(found.proof)}}`
        return { status: 200, headers: {}, body } satisfies Answer
      })

      const nothing = Effect.void
      return handlers
        .handleRaw("list", ({ params, query, request }) =>
          serve(params, "read", request, nothing, ({ caller, type }) =>
            reads.list(type, caller, { ...around(caller), params: query, target: request.url })
          )
        )
        .handleRaw("query", ({ params, request }) =>
          serve(params, "read", request, bodyOf(request, jsonTypes), ({ caller, type }, { body }) =>
            reads.query(type, caller, { ...around(caller), body })
          )
        )
        .handleRaw("get", ({ params, query, request }) =>
          serve(params, "read", request, nothing, ({ caller, type }) =>
            reads.get(type, caller, {
              id: params.id,
              params: query,
              ifNoneMatch: request.headers["if-none-match"],
              ...around(caller)
            })
          )
        )
        .handleRaw("history", ({ params, query, request }) =>
          serve(params, "history", request, nothing, ({ caller, type }) =>
            reads.history(type, caller, { id: params.id, params: query, target: request.url })
          )
        )
        .handleRaw("proof", ({ params, request }) =>
          serve(params, "history", request, withoutParameters(request, nothing), ({ caller, type }) =>
            proof(type, caller, params.id)
          )
        )
        .handleRaw("create", ({ params, request }) => create(params, request))
        .handleRaw("patch", ({ params, request }) =>
          serve(params, "update", request, bodyOf(request, patchTypes), ({ caller, type }, { body, mediaType }) =>
            writes.patch(type, caller, {
              ...writeRequest(request, caller),
              id: params.id,
              body,
              format: mediaType === "application/json-patch+json" ? "json-patch" : "merge"
            })
          )
        )
        .handleRaw("put", ({ params, request }) =>
          serve(params, "update", request, bodyOf(request, jsonTypes), ({ caller, type }, { body }) =>
            writes.put(type, caller, { ...writeRequest(request, caller), id: params.id, body })
          )
        )
        .handleRaw("delete", ({ params, request }) =>
          serve(params, "delete", request, bodyless(request), ({ caller, type }) =>
            writes.remove(type, caller, { ...writeRequest(request, caller), id: params.id })
          )
        )
        .handleRaw("restore", ({ params, request }) =>
          serve(params, "restore", request, bodyless(request), ({ caller, type }) =>
            writes.restore(type, caller, { ...writeRequest(request, caller), id: params.id })
          )
        )
    })
  )
