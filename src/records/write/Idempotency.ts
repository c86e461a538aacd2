/**
 * Requests that must not happen twice: `Idempotency-Key` (fine print 15).
 *
 * The key is taken first in the data transaction and kept with the act, in the same bundle: one that is in flight, was
 * used for another request, or was answered already raises, so the rest of the bundle does not happen. What is kept is the
 * status, ids and versions, never contents; a replay is answered with the record as the caller may see it now. A request
 * that did nothing keeps nothing.
 */
import { createHash } from "node:crypto"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Statement } from "../../postgres/Statement.ts"
import { tableOf } from "./WriteSql.ts"

/** A request with a key. */
export interface KeyedRequest {
  readonly key: string
  readonly method: string
  /** Without the query. */
  readonly path: string
  /** SHA-256 of what the request asks for; not of `If-Match`. */
  readonly hash: Uint8Array
}

/** The hash of a request: method, path, query, content type and body. */
export const requestHash = (
  method: string,
  target: string,
  contentType: string,
  body: string | Uint8Array
): Uint8Array => {
  const hash = new RequestHash(method, target, contentType)
  hash.update(body)
  return hash.digest()
}

/** The same hash of a body that comes in parts. */
export class RequestHash {
  private readonly hash = createHash("sha256")

  constructor(method: string, target: string, contentType: string) {
    for (const part of [method, target, contentType]) this.hash.update(`${Buffer.byteLength(part)}:`).update(part)
  }

  update(part: string | Uint8Array): void {
    this.hash.update(part)
  }

  digest(): Uint8Array {
    return this.hash.digest()
  }
}

/** First in its transaction: raises where the key is not free. */
export const beginSql = (request: KeyedRequest): Statement => ({
  sql: "select platform.idempotency_begin($1, $2, $3, $4)",
  params: [request.method, request.path, request.key, request.hash]
})

/** Last in its transaction: the audit entry, and where there is one, what the request was answered with. */
export const endSql = (
  request: KeyedRequest,
  def: ServedDefinition,
  id: string,
  event: string,
  status: number
): Statement => ({
  sql: `with act as materialized (select platform.audit_event($1::uuid, $2::uuid)::text as entry)
select a.entry, k.done from act a left join lateral (
  select platform.idempotency_end($3, $4, $5, $6, $7, jsonb_build_object('ids', jsonb_build_array($1::uuid),
    'versions', jsonb_build_array((select t.version from ${tableOf(def)} t where t.id = $1::uuid)))) as done
  where a.entry is not null) k on true`,
  params: [id, event, request.method, request.path, request.key, request.hash, status]
})

/** Last in the transaction of a bulk request. */
export const endBulkSql = (
  request: KeyedRequest,
  status: number,
  result: Readonly<Record<string, unknown>>
): Statement => ({
  sql: "select platform.idempotency_end($1, $2, $3, $4, $5, $6::jsonb)",
  params: [request.method, request.path, request.key, request.hash, status, JSON.stringify(result)]
})

/** What a request with this key was answered with. */
export interface Replay {
  readonly status: number
  readonly ids: ReadonlyArray<string>
  readonly versions: ReadonlyArray<number>
  /** Of a bulk request: how many records it made. */
  readonly created: number | undefined
}

/** Whether the failure says that the request was answered already. */
export const replayOf = (failure: DatabaseFailure): Replay | undefined => {
  const { reason } = failure
  if (reason._tag !== "Platform" || reason.code !== "VL022") return undefined
  const said = JSON.parse(reason.detail) as {
    readonly status: number
    readonly ids?: ReadonlyArray<string>
    readonly versions?: ReadonlyArray<number>
    readonly created?: number
  }
  return { status: said.status, ids: said.ids ?? [], versions: said.versions ?? [], created: said.created }
}
