/**
 * `/api/platform/*`: what is served, the audit log, its verification and its evidence, for `platform-admin` and
 * `platform-auditor` of the platform's own strategy.
 */
import { Effect, Stream } from "effect"
import { HttpServerResponse } from "effect/http"
import { HttpApiBuilder } from "effect/http-api"
import { ndjsonContentType } from "../api/ExactBody.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import { toBase64 } from "../domain/Base64.ts"
import { parseSize } from "../domain/Checkpoint.ts"
import { fault } from "../domain/Fault.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { isUuid } from "../domain/Uuid.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { statement } from "../postgres/Statement.ts"
import { sliceLeaves } from "../postgres/TreeSlices.ts"
import { platformCaller } from "./Access.ts"
import { AuditEvidence, noteOf } from "./AuditEvidence.ts"
import { AuditLog, type AuditPlace, type AuditWindow } from "./AuditLog.ts"
import { databaseProblem } from "./DatabaseProblems.ts"
import { CurrentExchange, withoutTimeout } from "./Exchange.ts"
import { answering } from "./Problems.ts"
import { Registry } from "./Registry.ts"

/** A window beyond this is verified as a stream. */
export const verifiedAtOnce = 31 * 24 * 60 * 60 * 1000
const dayMillis = 24 * 60 * 60 * 1000
const defaultLimit = 100
const maxLimit = 1_000
export const readers = ["platform-admin", "platform-auditor"] as const
const outcomes = ["ok", "denied", "failed", "dry_run", "unknown"]

export const malformed = (parameter: string, detail: string): Problem =>
  problem("malformed_query", { errors: [fault([parameter], "malformed", detail)] })

export const limitOf = (text: string | undefined): Effect.Effect<number, Problem> => {
  if (text === undefined) return Effect.succeed(defaultLimit)
  const limit = /^[1-9][0-9]{0,3}$/u.test(text) ? Number(text) : 0
  return limit >= 1 && limit <= maxLimit
    ? Effect.succeed(limit)
    : Effect.fail(malformed("limit", `a whole number from 1 to ${maxLimit}`))
}

export const rfc3339 =
  /^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?([Zz]|[+-][0-9]{2}:[0-9]{2})$/u

const timeOf = (parameter: string, text: string | undefined): Effect.Effect<string | undefined, Problem> =>
  text === undefined || (rfc3339.test(text) && !Number.isNaN(Date.parse(text)))
    ? Effect.succeed(text)
    : Effect.fail(malformed(parameter, "a time as RFC 3339 writes it, with its offset; + is %2B in a query"))

/** Cursors of the platform's lists hide nothing and grant nothing: they are a place, read again as one. */
export const sealed = (place: unknown): string => Buffer.from(JSON.stringify(place), "utf8").toString("base64url")

const opened = (cursor: string): unknown => {
  try {
    return JSON.parse(Buffer.from(cursor, "base64url").toString("utf8"))
  } catch {
    return undefined
  }
}

export const placeOf = (cursor: string | undefined): Effect.Effect<AuditPlace | undefined, Problem> => {
  if (cursor === undefined) return Effect.succeed(undefined)
  const place = opened(cursor) as AuditPlace | undefined
  return typeof place?.occurredAt === "string" &&
    rfc3339.test(place.occurredAt) &&
    !Number.isNaN(Date.parse(place.occurredAt)) &&
    typeof place.id === "string" &&
    isUuid(place.id)
    ? Effect.succeed({ occurredAt: place.occurredAt, id: place.id })
    : Effect.fail(problem("cursor_invalid"))
}

const windowOf = Effect.fnUntraced(function* (query: { readonly from?: string; readonly to?: string }) {
  const to = (yield* timeOf("to", query.to)) ?? new Date().toISOString()
  const from = (yield* timeOf("from", query.from)) ?? new Date(Date.parse(to) - dayMillis).toISOString()
  // what is empty would be found sound
  if (Date.parse(from) >= Date.parse(to))
    return yield* malformed("from", "a time before `to`, which is now if not given")
  return { from, to } satisfies AuditWindow
})

const sizeOf = (parameter: string, text: string | undefined): Effect.Effect<number | undefined, Problem> => {
  const size = text === undefined ? undefined : parseSize(text)
  return text === undefined || size !== undefined
    ? Effect.succeed(size)
    : Effect.fail(malformed(parameter, "a number of leaves, in digits"))
}

/** The checkpoint to compare with: all of it, or none. */
const outsideOf = Effect.fnUntraced(function* (query: Partial<Record<"origin" | "size" | "root", string>>) {
  const { origin, root } = query
  const size = yield* sizeOf("size", query.size)
  if (origin === undefined && size === undefined && root === undefined) return undefined
  if (origin === undefined || size === undefined || root === undefined) {
    return yield* malformed("origin", "origin, size and root belong together")
  }
  if (!/^[0-9a-f]{64}$/u.test(root)) return yield* malformed("root", "32 bytes in hexadecimal, in lower case")
  return { origin, size, root }
})

const schemasSql = `
select json_build_object('path', path, 'chain', chain, 'state', state, 'generation', generation, 'pg_schema', pg_schema,
  'pg_table', pg_table, 'serving', serving is not null,
  'lifecycle', json_build_object('stage', coalesce(serving #>> '{lifecycle,stage}', 'active'), 'deprecated_at', serving #>> '{lifecycle,deprecatedAt}',
    'sunset_at', serving #>> '{lifecycle,sunsetAt}', 'successor', serving #>> '{lifecycle,successor}'),
  'updated_at', pg_catalog.to_char(updated_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'))::text as item, path
from platform.schema_defs
where ($1::text is null or chain = $1) and ($2::text is null or path > $2) order by path limit $3::int4`

export const headers = { "cache-control": "private, no-store", vary: "Authorization, Accept" }

/** A page made of JSON texts. */
export const page = (items: ReadonlyArray<string>, next: string | undefined) =>
  HttpServerResponse.text(`{"items":[${items.join(",")}],"next_cursor":${JSON.stringify(next ?? null)}}`, {
    contentType: "application/json",
    headers
  })

const lines = new TextEncoder()

export const platformHandlers = HttpApiBuilder.group(VelocityApi, "platform", (handlers) =>
  Effect.gen(function* () {
    const registry = yield* Registry
    const gateway = yield* GatewayTx
    const log = yield* AuditLog
    const evidence = yield* AuditEvidence

    const schemas = Effect.fnUntraced(function* (query: {
      readonly chain?: string
      readonly limit?: string
      readonly cursor?: string
    }) {
      yield* platformCaller(registry, readers)
      const limit = yield* limitOf(query.limit)
      const after = query.cursor === undefined ? null : opened(query.cursor)
      if (after !== null && typeof after !== "string") return yield* problem("cursor_invalid")
      const [result] = yield* gateway
        .bundle([statement(schemasSql, [query.chain ?? null, after, limit + 1])], { end: "read" })
        .pipe(Effect.mapError(databaseProblem))
      const rows = result?.rows ?? []
      const last = rows.length > limit ? rows[limit - 1] : undefined
      return page(
        rows.slice(0, limit).map((row) => String(row.item)),
        last === undefined ? undefined : sealed(String(last.path))
      )
    })

    const audit = Effect.fnUntraced(function* (
      query: Partial<
        Record<"chain" | "actor" | "action" | "outcome" | "entity" | "from" | "to" | "limit" | "cursor", string>
      >
    ) {
      yield* platformCaller(registry, readers)
      if (query.entity !== undefined && !isUuid(query.entity)) return yield* malformed("entity", "a UUID in lower case")
      if (query.outcome !== undefined && !outcomes.includes(query.outcome)) {
        return yield* malformed("outcome", `one of ${outcomes.join(", ")}`)
      }
      const found = yield* log
        .list({
          chain: query.chain,
          actor: query.actor,
          action: query.action,
          outcome: query.outcome,
          entity: query.entity,
          from: yield* timeOf("from", query.from),
          to: yield* timeOf("to", query.to),
          limit: yield* limitOf(query.limit),
          after: yield* placeOf(query.cursor)
        })
        .pipe(Effect.mapError(databaseProblem))
      return page(found.items, found.next === undefined ? undefined : sealed(found.next))
    })

    /** Findings as they come, how far it is after each slice but the last, and the verdict. */
    const streamed = (window: AuditWindow) => {
      let sound = true
      let entries = 0
      const ofSlices = (total: number) =>
        log.verified(window).pipe(
          Stream.flatMap((slice) => {
            sound &&= slice.findings.length === 0
            entries += slice.entries
            const far = { verified: { until: slice.until, entries, total: Math.max(total, entries) } }
            return Stream.fromIterable(
              slice.until === window.to ? slice.findings : [...slice.findings, JSON.stringify(far)]
            )
          })
        )
      const verdict = Effect.map(log.sealed(window), (months) =>
        Stream.make(`${JSON.stringify({ sound, entries }).slice(0, -1)},"sealed":[${months.join(",")}]}`)
      )
      const said = Stream.concat(Stream.unwrap(Effect.map(log.count(window), ofSlices)), Stream.unwrap(verdict))
      return HttpServerResponse.stream(said.pipe(Stream.map((line) => lines.encode(`${line}\n`))), {
        contentType: ndjsonContentType,
        headers
      })
    }

    const verify = Effect.fnUntraced(function* (
      query: { readonly from?: string; readonly to?: string },
      accept: string | undefined
    ) {
      yield* platformCaller(registry, readers)
      const exchange = yield* CurrentExchange
      const window = yield* windowOf(query)
      withoutTimeout(exchange)
      if (accept?.includes(ndjsonContentType) === true) return streamed(window)
      if (Date.parse(window.to) - Date.parse(window.from) > verifiedAtOnce) {
        return yield* malformed("from", "a window of more than 31 days is verified as application/x-ndjson")
      }
      const { entries, findings, truncated } = yield* log.verify(window).pipe(Effect.mapError(databaseProblem))
      const months = yield* log.sealed(window).pipe(Effect.mapError(databaseProblem))
      const head = JSON.stringify({ ...window, sound: findings.length === 0, entries, truncated }).slice(0, -1)
      const answer = `${head},"findings":[${findings.join(",")}],"sealed":[${months.join(",")}]}`
      return HttpServerResponse.text(answer, {
        contentType: "application/json",
        headers
      })
    })

    const checkpoint = Effect.fnUntraced(function* (query: { readonly size?: string }) {
      yield* platformCaller(registry, readers)
      const size = yield* sizeOf("size", query.size)
      const found = yield* evidence.checkpoint(size).pipe(Effect.mapError(databaseProblem))
      if (found === undefined) {
        return yield* problem("not_found", {
          detail: size === undefined ? "no checkpoint was signed yet" : "no checkpoint of this size was signed"
        })
      }
      return HttpServerResponse.text(noteOf(found), { contentType: "text/plain; charset=utf-8", headers })
    })

    const proof = Effect.fnUntraced(function* (id: string) {
      yield* platformCaller(registry, readers)
      if (!isUuid(id)) return yield* problem("malformed_id")
      const found = yield* evidence.proof(id).pipe(Effect.mapError(databaseProblem))
      switch (found._tag) {
        case "Unknown":
          return yield* problem("not_found")
        case "NotSealed":
          return yield* problem("not_sealed")
        case "Proved":
          return HttpServerResponse.text(`{"entry":${found.entry},"proof":${JSON.stringify(found.proof)}}`, {
            contentType: "application/json",
            headers
          })
      }
    })

    const consistency = Effect.fnUntraced(function* (query: { readonly from?: string; readonly to?: string }) {
      yield* platformCaller(registry, readers)
      const from = yield* sizeOf("from", query.from)
      const to = yield* sizeOf("to", query.to)
      if (from === undefined) return yield* malformed("from", "a number of leaves, in digits")
      if (to === undefined || from > to) return yield* malformed("to", "a number of leaves, not below `from`")
      const found = yield* evidence.consistency(from, to).pipe(Effect.mapError(databaseProblem))
      if (found === undefined) {
        return yield* problem("not_found", { detail: "no checkpoint has so many leaves" })
      }
      return HttpServerResponse.text(JSON.stringify({ from, to, proof: found.map(toBase64) }), {
        contentType: "application/json",
        headers
      })
    })

    const tree = Effect.fnUntraced(function* (query: Partial<Record<"origin" | "size" | "root" | "from", string>>) {
      yield* platformCaller(registry, readers)
      const exchange = yield* CurrentExchange
      const outside = yield* outsideOf(query)
      const from = (yield* sizeOf("from", query.from)) ?? 0
      if (from % sliceLeaves !== 0) return yield* malformed("from", "a leaf that a line `verified` said")
      withoutTimeout(exchange)
      let sound = true
      const found = Stream.flatMap(evidence.tree(outside, from), ({ findings, total, until }) => {
        // what a signed note accounts for is told, and is no fault
        if (findings.some(({ problem: kind }) => kind !== "restored")) sound = false
        const texts = findings.map(({ finding }) => finding)
        return Stream.fromIterable(until === total ? texts : [...texts, JSON.stringify({ verified: { until, total } })])
      })
      const last = Stream.suspend(() => Stream.make(JSON.stringify({ sound })))
      return HttpServerResponse.stream(
        Stream.concat(found, last).pipe(Stream.map((line) => lines.encode(`${line}\n`))),
        { contentType: ndjsonContentType, headers }
      )
    })

    return handlers
      .handleRaw("schemas", ({ query }) => answering(schemas(query)))
      .handleRaw("audit", ({ query }) => answering(audit(query)))
      .handleRaw("checkpoint", ({ query }) => answering(checkpoint(query)))
      .handleRaw("proof", ({ params }) => answering(proof(params.id)))
      .handleRaw("consistency", ({ query }) => answering(consistency(query)))
      .handleRaw("tree", ({ query }) => answering(tree(query)))
      .handleRaw("verify", ({ query, request }) => answering(verify(query, request.headers.accept)))
  })
)
