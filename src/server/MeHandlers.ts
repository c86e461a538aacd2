/** `GET /api/me?path=`: who the caller is there, and what he may do. */
import { Effect } from "effect"
import { HttpServerRequest, HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { platformChain, rightsOn } from "../access/Authorization.ts"
import { CurrentIdentity } from "../api/Bearer.ts"
import type { MeBody } from "../api/Me.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import { formatPath, parseChain, parsePath, type RecordPath } from "../domain/Names.ts"
import { type Operation, operations } from "../domain/Operation.ts"
import { problem } from "../domain/Problem.ts"
import { callerOf } from "./Access.ts"
import { CurrentExchange } from "./Exchange.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"

/** A token without an end is not accepted; a key may have none, and a strategy of type none has no token. */
const ends = (expiresAt: number): string | null =>
  Number.isFinite(expiresAt) ? new Date(expiresAt).toISOString() : null

/** Record types of a domain that an answer lists. */
const maxRecordTypes = 100

export const meHandlers = HttpApiBuilder.group(VelocityApi, "me", (handlers) =>
  Effect.map(Registry, (registry) => {
    const me = Effect.fnUntraced(function* (path: string | undefined) {
      const exchange = yield* CurrentExchange
      const identity = yield* CurrentIdentity
      const request = yield* HttpServerRequest.HttpServerRequest
      const record = path === undefined ? undefined : parsePath(path)
      if (path !== undefined && record === undefined && parseChain(path) === undefined) {
        return yield* problem("not_found")
      }
      const chain = exchange.chain ?? platformChain
      const rolesFor = (operation?: Operation, at = record) =>
        Effect.fromResult(
          callerOf(
            registry,
            identity,
            { chain, object: at?.object, version: at?.version, operation },
            exchange,
            request
          )
        )
      const { roles } = yield* rolesFor()
      const body: typeof MeBody.Type = {
        actor: identity.actor,
        strategy: identity.strategy,
        subject: identity.subject,
        roles,
        attributes: identity.attributes,
        expires_at: ends(identity.expiresAt),
        path: path ?? null
      }
      const rightsAt = Effect.fnUntraced(function* (at: RecordPath) {
        const type = yield* registry.lookup(formatPath(at))
        const held = new Map<Operation, ReadonlyArray<string>>()
        for (const operation of operations) held.set(operation, (yield* rolesFor(operation, at)).roles)
        return rightsOn(type.path, type.def.spec, (operation) => held.get(operation) ?? [])
      })
      if (record !== undefined) return { ...body, rights: yield* rightsAt(record) }
      if (path === undefined) return body
      const served = registry
        .definitions()
        .filter((one) => one.chain === chain && one.serving)
        .map((one) => one.path)
        .sort()
        .slice(0, maxRecordTypes)
      const recordTypes: Array<{ path: string; operations: ReadonlyArray<string> }> = []
      for (const at of served.flatMap((one) => parsePath(one) ?? [])) {
        const rights = yield* rightsAt(at)
        if (rights.operations.length === 0) continue
        recordTypes.push({ path: rights.path, operations: rights.operations.map((one) => one.operation) })
      }
      return { ...body, record_types: recordTypes }
    })
    return handlers.handleRaw("me", ({ query }) =>
      answering(
        Effect.map(me(query.path), (body) =>
          HttpServerResponse.text(JSON.stringify(body), {
            contentType: "application/json",
            headers: { "cache-control": "private, no-store", vary: "Authorization, X-API-Key" }
          })
        )
      )
    )
  })
)
