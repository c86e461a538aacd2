/**
 * Reading records: one, a page of them by a query, and the past of one.
 *
 * A request is a straight line: grammar (400), what the query names (400, 403), its cursor (400), one bundle of statements
 * in one network write, the answer as Postgres made it. A read that a definition wants audited leaves its entry in the
 * same transaction, and without it there is no answer.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ExactValue } from "../domain/ExactJson.ts"
import { fault } from "../domain/Fault.ts"
import type { Caller } from "../domain/Identity.ts"
import type { Operation } from "../domain/Operation.ts"
import { Problem, problem } from "../domain/Problem.ts"
import type { Query } from "../domain/Query.ts"
import { fromBody } from "../domain/QueryBody.ts"
import { fromParams } from "../domain/QueryParams.ts"
import { isUuid } from "../domain/Uuid.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { SqlResult, Statement } from "../postgres/Statement.ts"
import { TenantTx } from "../postgres/TenantTx.ts"
import { countIn, countOf } from "./read/Counting.ts"
import { type CursorBox, type CursorKeys, type CursorScope, makeCursors } from "./read/Cursor.ts"
import { allIncluded, resolveShown, type Shown, type Surroundings, shownIdentity } from "./read/Include.ts"
import { Joins, scopeOf } from "./read/Joins.ts"
import { afterSql, type Origin, orderOf, QueryFaults, whereSql } from "./read/QuerySql.ts"
import { isNamed, nextLink, type Params, refused, staleOf, strangers, ungranted } from "./read/ReadRequest.ts"
import * as ReadSql from "./read/ReadSql.ts"
import type { Answer } from "./type/Answer.ts"
import { enterFor } from "./type/Entering.ts"
import { failureOf, StaleDefinition } from "./type/Failures.ts"
import type { Bind } from "./type/Parameters.ts"
import { tagOf } from "./type/Projection.ts"
import type { RecordType } from "./type/RecordType.ts"

type Failing = Problem | StaleDefinition
type Read<Parts> = (type: RecordType, caller: Caller, request: Parts) => Effect.Effect<Answer, Failing>

/** See the module. */
export class ReadRecords extends Context.Service<
  ReadRecords,
  {
    /** GET of one record: `ETag`, or 304 where `If-None-Match` names it. 404 for one that is deleted or not to be seen. */
    readonly get: Read<
      Surroundings & {
        readonly id: string
        readonly params?: Params | undefined
        readonly ifNoneMatch?: string | undefined
      }
    >
    /** GET of a page: `{items, next_cursor, count?}`, and `Link` to the next. `target` is the URL's path and query. */
    readonly list: Read<Surroundings & { readonly params: Params; readonly target: string }>
    /** POST of a query as a JSON tree. */
    readonly query: Read<Surroundings & { readonly body: ExactValue }>
    /** GET of a record's past, newest first: `{items, next_cursor}`. */
    readonly history: Read<{ readonly id: string; readonly params: Params; readonly target: string }>
  }
>()("velocity/records/ReadRecords") {
  static readonly layerNoDeps = Layer.effect(
    ReadRecords,
    Effect.suspend(() => make)
  )
}

const pageStart = Buffer.from('{"items":[')
const nothing = new Uint8Array()

/** Puts cursors into the text of a page. */
type Seal = (body: string, box: CursorBox) => string

const sealed = (items: Uint8Array, box: CursorBox, seal: Seal): Uint8Array =>
  Buffer.from(seal(Buffer.from(items.buffer, items.byteOffset, items.byteLength).toString("utf8"), box))

const pageTooLarge = (limit: number, bytes: number): Problem => {
  const fits = Math.max(1, Math.floor((limit * ReadSql.maxPageBytes) / bytes))
  const detail = `the page would have ${bytes} bytes; about ${fits} records of this size fit`
  return problem("page_too_large", { errors: [fault(["limit"], "query_too_large", detail)] })
}

/** Everything that is known of a page before it is asked for. */
interface Page {
  readonly type: RecordType
  readonly caller: Caller
  readonly query: Query
  readonly shown: Shown
  readonly order: ReturnType<typeof orderOf>
  readonly origin: Origin
  readonly scope: CursorScope
  readonly keys: CursorKeys | undefined
}

const make = Effect.gen(function* () {
  const tenant = yield* TenantTx
  const cursors = yield* makeCursors

  const mapped = <A>(
    type: RecordType,
    involved: ReadonlyArray<RecordType>,
    effect: Effect.Effect<A, DatabaseFailure>
  ): Effect.Effect<A, Failing> =>
    Effect.mapError(effect, (failure) => {
      const stale = staleOf(failure, involved)
      if (stale !== undefined) return new StaleDefinition({ path: stale.path, cause: failure })
      const { _tag, cause } = failure.reason
      // beyond a gigabyte Postgres cannot add the texts of a page up (StringInfo, 54000)
      if (_tag === "OutOfRange" && failure.reason.tooLong) return problem("page_too_large", { cause })
      // nothing but a value of the query can be it
      return _tag === "InvalidText" || _tag === "OutOfRange"
        ? problem("malformed_query", { detail: "a value is not one of its field's type", cause })
        : failureOf(type, failure)
    })

  const reading = (
    type: RecordType,
    caller: Caller,
    operation: Operation,
    statements: ReadonlyArray<Statement>,
    involved: ReadonlyArray<RecordType> = [type]
  ): Effect.Effect<ReadonlyArray<SqlResult>, Failing> => {
    const end = type.def.spec.audit.reads === "none" ? "read" : "commit"
    return mapped(type, involved, tenant.bundle(enterFor(type, caller, operation), statements, end))
  }

  const box = (type: RecordType) => mapped(type, [type], cursors.box)

  const get: ReadRecords["Service"]["get"] = Effect.fnUntraced(function* (type, caller, request) {
    const { id, ifNoneMatch, params = {} } = request
    const denied = ungranted(type, "read", caller)
    if (denied !== undefined) return yield* denied
    if (!isUuid(id)) return yield* problem("malformed_id")
    const projection = type.projection(caller.roles)
    let answered: Statement
    let joins: Joins | undefined
    let involved: ReadonlyArray<RecordType> = [type]
    let { fingerprint } = projection
    let plain = true
    for (const _ in params) plain = false
    if (plain) answered = ReadSql.getSql(type, caller, id)
    else {
      const unknown = strangers(params, ["select", "include"])
      if (unknown !== undefined) return yield* unknown
      const query = refused(fromParams(params))
      if (query instanceof Problem) return yield* query
      const faults = new QueryFaults()
      const shown = resolveShown({ type, projection }, caller, query, request, faults)
      if (faults.problem !== undefined) return yield* faults.problem
      joins = new Joins(caller, shown)
      involved = [type, ...allIncluded(shown.included).map((node) => node.type)]
      fingerprint = `${fingerprint}|${shownIdentity(shown)}`
      answered = ReadSql.getShownSql(type, caller, id, shown, joins.joining)
    }
    const [result] = yield* reading(type, caller, "read", [answered], involved)
    const [row] = result?.rows ?? []
    if (row === undefined) return yield* problem("not_found")
    const tag = plain ? projection.tag : tagOf(`${fingerprint}|${row.included ?? ""}`)
    const etag = `"${row.version}-${tag}"`
    if (isNamed(ifNoneMatch, etag)) return { status: 304, body: undefined, headers: { etag } }
    const text = String(row.body)
    const body = joins === undefined ? text : joins.sealed(text, yield* box(type))
    return { status: 200, body, headers: { etag } }
  })

  /** Judges what a query names, and where it begins. */
  const pageOf = Effect.fnUntraced(function* (
    type: RecordType,
    caller: Caller,
    query: Query,
    origin: Origin,
    around: Surroundings
  ): Effect.fn.Return<Page, Failing> {
    const ungrantedRead = ungranted(type, "read", caller)
    if (ungrantedRead !== undefined) return yield* ungrantedRead
    const projection = type.projection(caller.roles)
    const faults = new QueryFaults()
    // said once to be judged, and again with the parameters of each statement
    if (query.where !== undefined) whereSql(type, projection, query.where, ReadSql.rowAlias, () => "", origin, faults)
    const order = orderOf(type, projection, query.sort, faults)
    const shown = resolveShown({ type, projection }, caller, query, around, faults)
    const scope = scopeOf(type, caller, query)
    const denied = query.deleted === undefined ? undefined : ungranted(type, "restore", caller)
    if (denied !== undefined) return yield* denied
    if (query.cursor === undefined || (faults.problem !== undefined && !faults.unreadable)) {
      if (faults.problem !== undefined) return yield* faults.problem
      return { type, caller, query, shown, order, origin, scope, keys: undefined }
    }
    const count = faults.unreadable ? undefined : order.length
    const keys = (yield* box(type)).open(query.cursor, scope, count)
    if (keys instanceof Problem) return yield* keys
    // the cursor was given to him when he could still read what he sorts or filters by
    if (faults.unreadable) return yield* problem("cursor_expired")
    return { type, caller, query, shown, order, origin, scope, keys }
  })

  const paged = Effect.fnUntraced(function* (page: Page, target: string | undefined) {
    const { caller, keys, order, origin, query, scope, shown, type } = page
    const projection = type.projection(caller.roles)
    const { where } = query
    const conditions =
      where === undefined
        ? []
        : [(bind: Bind) => whereSql(type, projection, where, ReadSql.rowAlias, bind, origin, new QueryFaults())]
    const rows = { deleted: query.deleted, conditions }
    const pages = keys === undefined ? [] : afterSql(order, keys, ReadSql.rowAlias)
    const joins = new Joins(caller, shown)
    const counts = query.count === undefined ? [] : [countOf(type, caller, rows, query.count)]
    const listed = ReadSql.listSql(type, caller, rows, order, pages, shown, query.limit, joins.joining)
    const involved = [type, ...allIncluded(shown.included).map((node) => node.type)]
    // the list last: where it is audited, the entry holds a lock until the end
    const results = yield* reading(type, caller, "read", [...counts, listed], involved)
    const count = query.count === undefined ? undefined : countIn(results[0])
    return yield* answerOf(type, scope, results[counts.length], {
      target,
      limit: query.limit,
      count,
      seal: joins.marks ? (body, cursors) => joins.sealed(body, cursors) : undefined
    })
  })

  /** A page's rows as an answer. */
  const answerOf = Effect.fnUntraced(function* (
    type: RecordType,
    scope: CursorScope,
    result: SqlResult | undefined,
    {
      count,
      limit,
      seal,
      target
    }: {
      readonly target: string | undefined
      readonly limit: number
      readonly count?: string | undefined
      readonly seal?: Seal | undefined
    }
  ): Effect.fn.Return<Answer, Failing> {
    const [row] = result?.rows ?? []
    if (Number(row?.bytes) > ReadSql.maxPageBytes) return yield* pageTooLarge(limit, Number(row?.bytes))
    const open = yield* box(type)
    const cursor = row?.more === true ? open.seal(scope, JSON.parse(String(row.keys)) as CursorKeys) : undefined
    const items = row?.items instanceof Uint8Array ? row.items : nothing
    const told = count === undefined ? "" : `,"count":${count}`
    const end = `],"next_cursor":${cursor === undefined ? "null" : `"${cursor}"`}${told}}`
    return {
      status: 200,
      body: Buffer.concat([pageStart, seal === undefined ? items : sealed(items, open, seal), Buffer.from(end)]),
      headers: cursor === undefined || target === undefined ? {} : { link: nextLink(target, cursor) }
    }
  })

  const list: ReadRecords["Service"]["list"] = Effect.fnUntraced(function* (type, caller, request) {
    const query = refused(fromParams(request.params))
    if (query instanceof Problem) return yield* query
    return yield* paged(yield* pageOf(type, caller, query, "params", request), request.target)
  })

  const query: ReadRecords["Service"]["query"] = Effect.fnUntraced(function* (type, caller, request) {
    const asked = refused(fromBody(request.body))
    if (asked instanceof Problem) return yield* asked
    return yield* paged(yield* pageOf(type, caller, asked, "body", request), undefined)
  })

  const history: ReadRecords["Service"]["history"] = Effect.fnUntraced(function* (type, caller, request) {
    const { id, params, target } = request
    const denied = ungranted(type, "history", caller)
    if (denied !== undefined) return yield* denied
    if (!isUuid(id)) return yield* problem("malformed_id")
    const unknown = strangers(params, ["limit", "cursor"])
    if (unknown !== undefined) return yield* unknown
    const query = refused(fromParams(params))
    if (query instanceof Problem) return yield* query
    const scope: CursorScope = { actor: caller.identity.actor, query: `${type.path}/${id}/history`, fields: "" }
    const keys = query.cursor === undefined ? undefined : (yield* box(type)).open(query.cursor, scope, 1)
    if (keys instanceof Problem) return yield* keys
    const statement = ReadSql.historySql(type, caller, id, keys?.[0], query.limit)
    const [result] = yield* reading(type, caller, "history", [statement])
    // every record has a first event: without one there is no record, or none that he may see
    if (keys === undefined && Number(result?.rows[0]?.bytes ?? 0) === 0) return yield* problem("not_found")
    return yield* answerOf(type, scope, result, { target, limit: query.limit })
  })

  return ReadRecords.of({ get, list, query, history })
})
