/**
 * The statements that read records. Each is one statement with its gate (`platform.enter` as an InitPlan), the caller's
 * row filter beside the policy, and the JSON of the answer as Postgres makes it. Aliases begin with `_`, as no field does:
 * `row_to_json(b)` would take a column `b` for the row.
 */
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Statement, statement } from "../../postgres/Statement.ts"
import { gateSql } from "../type/Entering.ts"
import { type Bind, Parameters } from "../type/Parameters.ts"
import { type Projection, quoteText, stateColumn, stateRow, tableRow } from "../type/Projection.ts"
import type { RecordType } from "../type/RecordType.ts"
import { type CallerValue, rowFilterSql } from "../type/RowFilterSql.ts"
import type { Joined, Shown } from "./Include.ts"
import { type BoundCondition, keySql, type OrderTerm, orderSql } from "./QuerySql.ts"

/**
 * The gate of a statement that always answers one row. In its select list, because a condition that the planner knows to
 * be false (an attribute that the caller does not have) would take a gate beside it along.
 */
const entered = (type: RecordType, operation: Operation): string => `${gateSql(type.def, operation)} as entered`

/** The row of the record type's own table. */
export const rowAlias = "_r"

/** A statement whose values are known when id and caller are. */
interface CompiledGet {
  readonly sql: string
  readonly values: ReadonlyArray<CallerValue>
}

/** The entry of a read, where the definition asks for one; in the statement itself, because it tells what was read. */
const auditCall = (entity: string, payload: string): string => `platform.audit_act(${entity}, 'read', ${payload})`

const isAudited = ({ def }: RecordType): boolean => def.spec.audit.reads !== "none"

/** A condition for rows that the caller may do an operation to. */
const filtered = (type: RecordType, operation: Operation, caller: Caller, bind: Bind): string | undefined =>
  rowFilterSql(
    type.rowFilter(operation, caller.roles),
    (plan) => `${rowAlias}.${plan.column}`,
    (value) => bind(value(caller))
  )

const oneRow = (type: RecordType, filter: string | undefined, id: string): string =>
  [
    gateSql(type.def, "read"),
    `${rowAlias}.id = ${id}::uuid`,
    `${rowAlias}.deleted_at is null`,
    ...(filter === undefined ? [] : [filter])
  ].join(" and ")

const getText = (type: RecordType, list: string, joined: Joined | undefined, where: string): string => {
  const versions = joined === undefined || joined.joins === "" ? "" : `, ${joined.versions} as included`
  const audit = isAudited(type)
    ? `, ${auditCall(`${rowAlias}.id`, `jsonb_build_object('version', ${rowAlias}.version)`)} is null as unaudited`
    : ""
  return `select ${rowAlias}.version, row_to_json(_b.*)::text as body${versions}${audit}
from ${type.table} ${rowAlias}${joined?.joins ?? ""} cross join lateral (select ${list}) _b where ${where}`
}

const compiledGets = new WeakMap<RecordType, Map<string, CompiledGet>>()
const maxCompiledGets = 1000

/** Reads one live record, whole: the text is made once for each set of roles. */
export const getSql = (type: RecordType, caller: Caller, id: string): Statement => {
  let ofType = compiledGets.get(type)
  if (ofType === undefined) {
    ofType = new Map()
    compiledGets.set(type, ofType)
  }
  const key = caller.roles.join()
  let compiled = ofType.get(key)
  if (compiled === undefined) {
    const values: Array<CallerValue> = []
    const filter = rowFilterSql(
      type.rowFilter("read", caller.roles),
      (plan) => `${rowAlias}.${plan.column}`,
      (value) => `$${values.push(value) + 1}`
    )
    const list = wholeList(type.projection(caller.roles))
    compiled = { sql: getText(type, list, undefined, oneRow(type, filter, "$1")), values }
    if (ofType.size >= maxCompiledGets) ofType.clear()
    ofType.set(key, compiled)
  }
  const params: Array<unknown> = [id]
  for (const value of compiled.values) params.push(value(caller))
  return { sql: compiled.sql, params }
}

/** The joins of what is included, and the select list with it. */
export type Joining = (bind: Bind) => Joined

const wholeLists = new WeakMap<Projection, string>()

/** The select list of a record without `select` and `include`, made once. */
const wholeList = (projection: Projection): string => {
  const known = wholeLists.get(projection)
  if (known !== undefined) return known
  const fresh = projection.columns(tableRow(rowAlias))
  wholeLists.set(projection, fresh)
  return fresh
}

const selectList = (projection: Projection, shown: Shown, joined: Joined): string =>
  shown.chosen === undefined && shown.included.length === 0
    ? wholeList(projection)
    : [projection.columns(tableRow(rowAlias), shown.chosen, joined.instead), ...joined.members].join(", ")

/** Reads one live record as `select` and `include` ask for. */
export const getShownSql = (
  type: RecordType,
  caller: Caller,
  id: string,
  shown: Shown,
  joining: Joining
): Statement => {
  const parameters = new Parameters()
  const place = parameters.bind(id)
  const joined = joining(parameters.bind)
  const list = selectList(type.projection(caller.roles), shown, joined)
  const where = oneRow(type, filtered(type, "read", caller, parameters.bind), place)
  return statement(getText(type, list, joined, where), parameters.values)
}

/** Which rows a list is of. */
export interface Rows {
  readonly deleted: "only" | "with" | undefined
  /** The query's conditions on the row. */
  readonly conditions: ReadonlyArray<BoundCondition>
}

/** Deleted rows are only for those who could restore them. */
const liveness = (type: RecordType, caller: Caller, deleted: Rows["deleted"], bind: Bind): ReadonlyArray<string> => {
  const column = `${rowAlias}.deleted_at`
  if (deleted === undefined) return [`${column} is null`]
  const restorable = filtered(type, "restore", caller, bind)
  if (deleted === "only") return [`${column} is not null`, ...(restorable === undefined ? [] : [restorable])]
  return restorable === undefined ? [] : [`(${column} is null or ${restorable})`]
}

/**
 * Live rows, where nothing else is asked and the order is the primary key's. Of a table that was never analysed, such as
 * after a first import, the planner takes one row in two hundred to have no `deleted_at` (its DEFAULT_UNK_SEL), and would
 * sort a whole table rather than walk past the others; of a boolean it takes one in two.
 */
const liveInOrder = `${rowAlias}._live`

/** @param after which rows of an order by the primary key alone, if that is the order */
const conditionsOf = (
  type: RecordType,
  caller: Caller,
  rows: Rows,
  bind: Bind,
  after?: ReadonlyArray<BoundCondition>
): string => {
  const filter = filtered(type, "read", caller, bind)
  const walks =
    after !== undefined && filter === undefined && rows.deleted === undefined && rows.conditions.length === 0
  const all = [
    ...(walks ? [liveInOrder] : liveness(type, caller, rows.deleted, bind)),
    ...(filter === undefined ? [] : [filter]),
    ...[...rows.conditions, ...(after ?? [])].map((condition) => condition(bind))
  ]
  return all.length === 0 ? "true" : all.join(" and ")
}

/**
 * The row counts that a text is made for. The planner must know how few rows are wanted, or it sorts a table instead of
 * walking an index; a number for each `limit` would be a text for each. The page is cut to what was asked for inside.
 */
const pageSizes = [11, 51, 101, 251, 501, 1001] as const

const pageSize = (limit: number): number => pageSizes.find((size) => size > limit) ?? limit + 1

/**
 * The page's rows, numbered. Several conditions of `pages` are read one after the other, each in order, until there are
 * enough: an Append keeps to that, and the gate, which no parallel worker may call, keeps it from being parallel.
 */
const pageRows = (
  type: RecordType,
  caller: Caller,
  rows: Rows,
  order: ReadonlyArray<OrderTerm>,
  pages: ReadonlyArray<BoundCondition>,
  size: number,
  bind: Bind
): string => {
  const byKey = order.every(({ plan }) => plan.name === "id")
  const branch = (conditions: ReadonlyArray<BoundCondition>) => {
    const where = byKey
      ? conditionsOf(type, caller, rows, bind, conditions)
      : conditionsOf(type, caller, { ...rows, conditions: [...rows.conditions, ...conditions] }, bind)
    return `select ${rowAlias}.* from ${type.table} ${rowAlias} where ${where} order by ${orderSql(order, rowAlias)} limit ${size}`
  }
  if (pages.length === 0) return branch([])
  const branches = pages.map((page) => branch([page]))
  return branches.length === 1
    ? (branches[0] as string)
    : `select _u.* from (${branches.map((one) => `(${one})`).join(" union all ")}) _u limit ${size}`
}

/** The most bytes of a page's items: what a replica can hold for each of its connections at once. */
export const maxPageBytes = 64 * 1024 * 1024

/**
 * A page whose `items` are one text, as bytes in UTF-8, or none where they have more `bytes` than a page may have. Around the aggregates: said
 * beside them, `string_agg` would run once for each place that names it.
 */
const bounded = (type: RecordType, page: string): string =>
  `select convert_to(case when octet_length(_a.items) <= ${maxPageBytes} then _a.items else '' end, 'UTF8') as items,
  octet_length(_a.items) as bytes, _a.more, _a.keys, _a.entered${isAudited(type) ? ", _a.unaudited" : ""}
from (${page}) _a`

/** Reads one page: `items` as JSON, whether there are `more`, and the last row's `keys` as JSON. */
export const listSql = (
  type: RecordType,
  caller: Caller,
  rows: Rows,
  order: ReadonlyArray<OrderTerm>,
  pages: ReadonlyArray<BoundCondition>,
  shown: Shown,
  limit: number,
  joining: Joining
): Statement => {
  const parameters = new Parameters()
  const { bind } = parameters
  const joined = joining(bind)
  const list = selectList(type.projection(caller.roles), shown, joined)
  const page = pageRows(type, caller, rows, order, pages, pageSize(limit), bind)
  const last = `${bind(limit)}::int8`
  // joins may lose the order of the page, which the plain form keeps
  const [number, ordered] = joined.joins === "" ? ["", ""] : ["row_number() over () as _n, ", " order by _p._n"]
  const { reads } = type.def.spec.audit
  const told = reads === "all" ? ", 'ids', coalesce(jsonb_agg(_p.id), '[]')" : ""
  const audit = isAudited(type)
    ? `, ${auditCall("null::uuid", `jsonb_build_object('count', count(*)${told})`)} is null as unaudited`
    : ""
  // the rows are kept, so that the last one and the one behind it are looked at without numbering all
  const sql = `with _q as materialized (
  ${page}),
_e as materialized (select ${keySql(order, rowAlias)} as _k from _q ${rowAlias} offset ${last} - 1 limit 2)
select coalesce(string_agg(_p._j, ','${ordered}), '') as items, (select count(*) > 1 from _e) as more,
  (select array_to_json(_e._k)::text from _e limit 1) as keys, ${entered(type, "read")}${audit}
from (
  select ${joined.joins === "" ? "" : `${rowAlias}._n, `}${rowAlias}.id, row_to_json(_b.*)::text as _j
  from (select ${number}_q.* from _q limit ${last}) ${rowAlias}${joined.joins} cross join lateral (select ${list}) _b
) _p`
  return statement(bounded(type, sql), parameters.values)
}

const onlyRows = (type: RecordType, caller: Caller, rows: Rows, of: (from: string) => string) => {
  const parameters = new Parameters()
  const where = conditionsOf(type, caller, rows, parameters.bind)
  return statement(of(`from ${type.table} ${rowAlias} where ${where}`), parameters.values)
}

/** Counts the rows of all pages. */
export const countSql = (type: RecordType, caller: Caller, rows: Rows): Statement =>
  onlyRows(type, caller, rows, (from) => `select count(*)::text as count, ${entered(type, "read")} ${from}`)

/** Rows that are counted for a caller who may not be told an estimate, at most. */
export const countedAtMost = 10_000

/** Counts the rows of all pages up to ten thousand; null beyond. */
export const boundedCountSql = (type: RecordType, caller: Caller, rows: Rows): Statement =>
  onlyRows(
    type,
    caller,
    rows,
    (from) =>
      `select case when count(*) <= ${countedAtMost} then count(*)::text end as count, ${entered(type, "read")}
from (select 1 ${from} limit ${countedAtMost + 1}) _c`
  )

/**
 * The planner's guess. Only for roles without a row filter: the guess is made from rows of all (fine print 40). It has no
 * gate, which would halve it; the list beside it has.
 */
export const estimateSql = (type: RecordType, caller: Caller, rows: Rows): Statement =>
  onlyRows(type, caller, rows, (from) => `explain (format json) select 1 ${from}`)

/**
 * Reads one page of a record's past, newest first. The view holds the row filters of `history`; they are said here once
 * more, over the state that is shown, by today's rights (fine print 5). Of what changed only fields that are seen are told.
 */
export const historySql = (
  type: RecordType,
  caller: Caller,
  id: string,
  before: string | null | undefined,
  limit: number
): Statement => {
  const parameters = new Parameters()
  const { bind } = parameters
  const projection = type.projection(caller.roles)
  const filter = rowFilterSql(type.rowFilter("history", caller.roles), stateColumn, (value) => bind(value(caller)))
  const entity = `${bind(id)}::uuid`
  const where = [
    `_h.entity_id = ${entity}`,
    ...(filter === undefined ? [] : [filter]),
    ...(before == null ? [] : [`_h.version < ${bind(before)}::int4`])
  ].join(" and ")
  const seen = [...projection.clear, ...[...type.fields.values()].filter((plan) => plan.system).map(({ name }) => name)]
  const last = `${bind(limit)}::int8`
  const onPage = `filter (where _p._n <= ${last})`
  const audit = isAudited(type)
    ? `, ${auditCall(entity, `jsonb_build_object('history', true, 'count', count(*) ${onPage})`)} is null as unaudited`
    : ""
  // an erased event has no state, and says so rather than that its fields are empty
  const renamed = [...type.fields.values()].flatMap(({ keys, name }) =>
    projection.clear.has(name) ? keys.filter((key) => key !== name).map((key) => [key, name] as const) : []
  )
  const nameNow = [
    ...renamed.map(([key, name]) => ` when ${quoteText(key)} then ${quoteText(name)}`),
    // columns of other versions, whatever they are called
    ...(type.def.face?.columns ?? [])
      .filter(({ field }) => field === undefined)
      .map(({ name }) => ` when ${quoteText(name)} then null`)
  ].join("")
  const changedName = nameNow === "" ? "_c.name" : `case _c.name${nameNow} else _c.name end`
  const state = `case when _r.state is not null then (select row_to_json(_s.*) from (select ${projection.columns(stateRow("_r.state", type.def))}) _s) end`
  const sql = `select coalesce(string_agg(_p._j, ',') ${onPage}, '') as items, coalesce(max(_p._n) > ${last}, false) as more,
  array_to_json(array[(max(_p.version) filter (where _p._n = ${last}))::text])::text as keys, ${entered(type, "history")}${audit}
from (
  select _r._n, _r.version, row_to_json(_b.*)::text as _j
  from (select row_number() over () as _n, _q.* from (
    select _h.* from ${type.historyView} _h where ${where} order by _h.version desc limit ${pageSize(limit)}) _q
  ) _r cross join lateral (select _r.event_id, _r.version, _r.op, _r.occurred_at, _r.actor, _r.request_id,
    array(select ${changedName} from unnest(_r.changed) with ordinality _c (name, n) where ${changedName} = any (array[${seen
      .map(quoteText)
      .join(", ")}]) order by _c.n) as changed, ${state} as state) _b
  where _r._n <= ${last} + 1
) _p`
  return statement(bounded(type, sql), parameters.values)
}
