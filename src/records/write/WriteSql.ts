/**
 * The statements that write records. Each is one statement: the row, its history event, the gate (`platform.enter`), every
 * refusal that depends on the row, and the answer to the caller; so that nothing can come between, and a write whose
 * inputs are known is one network write.
 *
 * A statement that finds something wrong writes nothing and says what (its `verdict`), because a raised error could not
 * say all of it. Values travel as one JSON document that Postgres takes apart by the columns' types (bytes as base64).
 * A change reads its row under a lock first (`FOR NO KEY UPDATE`; delete and restore change what foreign keys point to and
 * take `FOR UPDATE`, so that no reference to the row is made meanwhile): what is compared, kept and hashed is the row as it is then
 * (PostgreSQL, 13.2.1: READ COMMITTED re-reads a row that it waited for).
 *
 * A reference is checked in the same statement, only where it changes: a live row of the target type that the caller may
 * see. No lock of ours is taken on it, since `FOR KEY SHARE` would be judged by the target's UPDATE policy and not by what
 * the caller may read; the foreign key over the generated live columns takes that lock as the table's owner and is the
 * last line (fine print 12).
 */

import { storedColumns } from "../../domain/Face.ts"
import { type Field, pgType, systemColumns } from "../../domain/Field.ts"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import { quoteName, type Statement } from "../../postgres/Statement.ts"
import { gateSql } from "../type/Entering.ts"
import { columnOf, tableRow, quoteText as text } from "../type/Projection.ts"
import type { CallerValue } from "../type/RowFilterSql.ts"

/** What of a record type and its caller a statement is made of. */
export interface WriteShape {
  readonly def: ServedDefinition
  /** The condition under which a row is one that the caller may do this to; undefined where every row is. */
  readonly filter: (operation: Operation, alias: string, bind: BindCaller) => string | undefined
  /** The select list of what the caller sees of the row `alias`. */
  readonly projection: (alias: string) => string
  /** The tag of the ETag of what he sees. */
  readonly tag: string
  /** Whether the caller may read rows of this type at all; else he is told no more than id and version. */
  readonly reads: boolean
  /** How the past is read, over events `_h`; undefined where the caller may not. */
  readonly past:
    | {
        readonly view: string
        /** The select list of what the caller sees of a state. */
        readonly columns: () => string
        readonly filter: (operation: Operation, bind: BindCaller) => string | undefined
      }
    | undefined
  /** For each ref field: the condition under which `target` is a row that the caller may refer to; undefined for none. */
  readonly visible: (field: Field, alias: string, bind: BindCaller) => Target | undefined
  readonly caller: Caller
  /**
   * A statement whose text depends on the record type and the caller's roles alone, so that it is made once for them.
   * `fixed` are the values of this request, `$1` and on; what `build` binds comes behind them.
   */
  readonly statement: (name: string, fixed: ReadonlyArray<unknown>, build: (bind: BindCaller) => string) => Statement
}

/** A table that a ref field points to. */
export interface Target {
  readonly table: string
  /** On the row's alias; undefined where every live row will do. */
  readonly condition: string | undefined
}

/** Adds a value that is known when the caller is, and answers its place. */
export type BindCaller = (value: CallerValue) => string

/** What a statement that writes one record answers. */
export interface Verdict {
  /** No row of that id, or none that the caller may do this to. */
  readonly missing: boolean
  /** `If-Match` names other versions. */
  readonly stale: boolean
  /** For restore: the row is not deleted. */
  readonly live: boolean
  /** System columns that the body says otherwise. */
  readonly readOnly: ReadonlyArray<string>
  /** Ref fields that point to nothing that the caller may refer to. */
  readonly dangling: ReadonlyArray<string>
  /** The row would leave the caller's row filter. */
  readonly outside: boolean
  /** The new version; undefined when nothing was written. */
  readonly version: number | undefined
  /** The record as the caller sees it; undefined when nothing was written or he may not see it. */
  readonly body: string | undefined
}

/** Reads the one row that such a statement answers. */
export const verdictOf = (rows: ReadonlyArray<Readonly<Record<string, unknown>>>): Verdict => {
  const [row] = rows
  if (row === undefined || row.missing === true) {
    return {
      missing: true,
      stale: false,
      live: false,
      readOnly: [],
      dangling: [],
      outside: false,
      version: undefined,
      body: undefined
    }
  }
  const list = (value: unknown) => (Array.isArray(value) ? (value as ReadonlyArray<string>) : [])
  return {
    missing: false,
    stale: row.stale === true,
    live: row.live === true,
    readOnly: list(row.read_only),
    dangling: list(row.dangling),
    outside: row.outside === true,
    version: typeof row.version === "number" ? row.version : undefined,
    body: typeof row.body === "string" ? row.body : undefined
  }
}

/** Who and what an event names, beside the row. */
export interface EventFacts {
  readonly event: string
  readonly actor: string
  readonly requestId: string
}

const nameList = (names: ReadonlyArray<string>): string =>
  names.length === 0 ? "'{}'::text[]" : `array_remove(array[${names.join(", ")}], null)`

/** The table, quoted. */
export const tableOf = (def: ServedDefinition): string => `${quoteName(def.pgSchema)}.${quoteName(def.pgTable)}`

/** The type a field has in the document. */
const documentType = (field: Field): string => (field.type === "bytes" ? "text" : pgType(field))
/** A field's value in the document that `alias` was read from. */
export const fromDocument = (field: Field, alias: string): string =>
  field.type === "bytes" ? `decode(${alias}.${quoteName(field.name)}, 'base64')` : `${alias}.${quoteName(field.name)}`
export const documentColumns = (fields: ReadonlyArray<Field>): string =>
  fields.map((field) => `${quoteName(field.name)} ${documentType(field)}`).join(", ")

/** The select list of a record as rules and patches see it, in the form that bodies have: bytes as base64. */
export const stateColumns = (fields: ReadonlyArray<Field>, alias: string): string => {
  const row = tableRow(alias)
  return [
    ...systemColumns.map((name) => `${row.system(name)} as ${name}`),
    ...fields.map((field) => `${row.value(field)} as ${quoteName(field.name)}`)
  ].join(", ")
}

/** The select list of a row's whole state as history keeps it: every column of the row, of other versions too. */
const storedState = (def: ServedDefinition, alias: string): string => {
  const row = tableRow(alias)
  return [
    ...systemColumns.map((name) => `${row.system(name)} as ${name}`),
    ...storedColumns(def).map(({ as, key, type }) => `${columnOf(alias, as, type)} as ${quoteName(key)}`)
  ].join(", ")
}

/** The names of the ref fields of `next` that point to nothing the caller may refer to, as an array. */
export const danglingOf = (shape: WriteShape, next: string, before: string | undefined, bind: BindCaller): string =>
  nameList(
    shape.def.spec.fields
      .filter((field) => field.type === "ref")
      .map((field) => {
        const column = quoteName(field.name)
        const target = shape.visible(field, "p", bind)
        const found =
          target === undefined
            ? "false"
            : `exists (select from ${target.table} p where p.id = ${next}.${column} and p.deleted_at is null${
                target.condition === undefined ? "" : ` and (${target.condition})`
              })`
        const changed = before === undefined ? "" : `${next}.${column} is distinct from ${before}.${column} and `
        return `case when ${next}.${column} is not null and ${changed}not ${found} then ${text(field.name)} end`
      })
  )

/** Whether the row `alias` is none that the caller may write, as an SQL condition. */
export const outsideOf = (shape: WriteShape, operation: Operation, alias: string, bind: BindCaller): string => {
  const filter = shape.filter(operation, alias, bind)
  return filter === undefined ? "false" : `not coalesce((${filter}), false)`
}

/**
 * A uuidv7 (RFC 9562 §5.7) for an event of a row that the API does not know before: the clock's milliseconds in front of
 * random bits, and version 4 made 7. PostgreSQL has one of its own from 18 on.
 */
export const newEventId = `encode(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing
  substring(int8send(floor(extract(epoch from clock_timestamp()) * 1000)::int8) from 3) from 1 for 6), 52, 1), 53, 1), 'hex')::uuid`

/** The event's CTEs, over the CTE `new` of written rows; `changed` is an SQL array over `n`. */
export const eventSql = (
  def: ServedDefinition,
  operation: Operation,
  changed: string,
  eventId: string,
  actor: string,
  requestId: string,
  from = "new n"
): string => `state as materialized (
  select ${eventId} as event_id, n.id, n.version, n.updated_at, ${changed} as changed,
    (select to_jsonb(_s.*) from (select ${storedState(def, "n")}) _s) as state, uuid_send(gen_random_uuid()) as salt
  from ${from}),
event as (
  insert into platform.event_log
    (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, request_id, changed, state, salt, hash)
  select s.event_id, ${text(def.chain)}, ${def.storageId}, ${def.id}, s.id, s.version, ${text(operation)}, s.updated_at, ${actor}, ${requestId},
    s.changed, s.state, s.salt,
    platform.event_hash(s.salt, ${def.storageId} || '/' || s.id || '/' || s.version || '/' || ${text(operation)}, s.state)
  from state s)`

/** What the caller is told of the written row `n`. */
const bodyOf = (shape: WriteShape, bind: BindCaller): string => {
  if (!shape.reads) return "null::text"
  const body = `(select row_to_json(_b.*)::text from (select ${shape.projection("n")}) _b)`
  const filter = shape.filter("read", "n", bind)
  return filter === undefined ? body : `case when (${filter}) then ${body} end`
}

/** Creates one record. */
export const createSql = (shape: WriteShape, id: string, document: string, facts: EventFacts): Statement => {
  const { def } = shape
  const { fields } = def.spec
  const build = (bind: BindCaller): string => {
    const columns = fields.map((field) => quoteName(field.name))
    const list = ["id", "version", "created_at", "created_by", "updated_at", "updated_by", ...columns].join(", ")
    const values = fields.map((field) => `${fromDocument(field, "r")} as ${quoteName(field.name)}`)
    return `with input as materialized (
  select ${["$2::uuid as id", ...values].join(", ")}
  from jsonb_to_record($1::jsonb) as r(${documentColumns(fields)})),
verdict as materialized (
  select ${gateSql(def, "create")} as entered, ${danglingOf(shape, "i", undefined, bind)} as dangling,
    ${outsideOf(shape, "create", "i", bind)} as outside
  from input i),
new as (
  insert into ${tableOf(def)} (${list})
  select i.id, 1, c.at, $4::text, c.at, $4::text${columns.map((column) => `, i.${column}`).join("")}
  from input i, verdict v, (select clock_timestamp() as at) c
  where v.entered and v.dangling = '{}' and not v.outside
  returning *),
${eventSql(def, "create", createdFields(def), "$3::uuid", "$4::text", "$5::text")}
select v.dangling, v.outside, n.version, ${bodyOf(shape, bind)} as body
from verdict v left join new n on true`
  }
  return shape.statement("create", [document, id, facts.event, facts.actor, facts.requestId], build)
}

/** The columns of `n` that have a value, as history calls them. */
export const createdFields = (def: ServedDefinition): string =>
  nameList(storedColumns(def).map(({ as, key }) => `case when n.${quoteName(as)} is not null then ${text(key)} end`))

const changedFields = (def: ServedDefinition): string =>
  nameList(
    storedColumns(def).map(({ as, key }) => {
      const column = quoteName(as)
      return `case when n.${column} is distinct from o.${column} then ${text(key)} end`
    })
  )

/** The system columns that the document `s` says otherwise than the row `o`. */
const readOnlyOf = (names: ReadonlyArray<string>, document: string): string =>
  nameList(
    names.map((name) => {
      const said =
        name === "version"
          ? `(${document}->>'version')::int8`
          : name.endsWith("_at")
            ? `(${document}->>${text(name)})::timestamptz`
            : // the columns' own collation, or Postgres could not tell which to compare by
              `(${document}->>${text(name)}) collate "C"`
      return `case when ${said} is distinct from o.${name}${name === "id" ? "::text" : ""} then ${text(name)} end`
    })
  )

/** What a change to one record is about. */
export interface Change {
  readonly operation: "update" | "delete" | "restore"
  readonly id: string
  /** The fields to set, as a document; what it does not name keeps its value. */
  readonly document: string
  /** Versions that `If-Match` allows; undefined where any will do. */
  readonly versions: ReadonlyArray<number> | undefined
  /** System columns that the body names, and a document of them. */
  readonly system: ReadonlyArray<string>
  readonly systemDocument: string
}

/** The row that is to be changed (`$1`), locked, as the CTE `old`. */
const oldSql = (shape: WriteShape, operation: Operation, bind: BindCaller): string => {
  const filter = shape.filter(operation, "t", bind)
  const wanted = operation === "restore" ? "" : " and t.deleted_at is null"
  return `old as materialized (
  select t.* from ${tableOf(shape.def)} t
  where t.id = $1::uuid${wanted}${filter === undefined ? "" : ` and (${filter})`}
  for ${operation === "update" ? "no key update" : "update"})`
}

/**
 * The gate as a row of its own, for a statement that may find nothing: a condition that the planner knows to be false (an
 * attribute that the caller does not have) would take a gate beside it along.
 */
const entered = (def: ServedDefinition, operation: Operation): string =>
  `(select ${gateSql(def, operation)} as entered)`

/** Changes one record: its fields, or whether it is deleted. */
export const changeSql = (shape: WriteShape, change: Change, facts: EventFacts): Statement => {
  const { def } = shape
  const { operation, system } = change
  const { fields } = def.spec
  const updates = operation === "update"
  // every field is named and its presence asked for at run time, so that one text serves every patch
  const build = (bind: BindCaller): string => {
    const next = fields.map((field) => {
      const column = quoteName(field.name)
      return updates
        ? `case when d.doc ? ${text(field.name)} then ${fromDocument(field, "r")} else o.${column} end as ${column}`
        : `o.${column}`
    })
    const document = updates
      ? `, (select $6::jsonb as doc) d, jsonb_to_record(d.doc) as r(${documentColumns(fields)})`
      : ""
    const readOnly = system.length === 0 ? "'{}'::text[]" : readOnlyOf(system, `$${updates ? 7 : 6}::jsonb`)
    const deletedAt =
      operation === "delete" ? ", deleted_at = c.at" : operation === "restore" ? ", deleted_at = null" : ""
    const assigned = updates ? fields.map((field) => `, ${quoteName(field.name)} = x.${quoteName(field.name)}`) : []
    return `with ${oldSql(shape, operation, bind)},
next as materialized (
  select ${["o.id", ...next].join(", ")}
  from old o${document}),
verdict as materialized (
  select o.version as before, $5::int4[] is not null and not o.version = any ($5::int4[]) as stale,
    ${operation === "restore" ? "o.deleted_at is null" : "false"} as live, ${readOnly} as read_only,
    ${updates ? danglingOf(shape, "x", "o", bind) : "'{}'::text[]"} as dangling,
    ${updates ? outsideOf(shape, operation, "x", bind) : "false"} as outside,
    greatest(clock_timestamp(), o.updated_at + interval '1 microsecond') as at
  from old o, next x),
new as (
  update ${tableOf(def)} t
  set version = c.before + 1, updated_at = c.at, updated_by = $3::text${deletedAt}${assigned.join("")}
  from next x, verdict c
  where t.id = x.id and not c.stale and not c.live and c.read_only = '{}' and c.dangling = '{}' and not c.outside
  returning t.*),
${eventSql(def, operation, updates ? changedFields(def) : "array['deleted_at']", "$2::uuid", "$3::text", "$4::text", "new n, old o")}
select v.before is null as missing, v.stale, v.live, v.read_only, v.dangling, v.outside, n.version, ${bodyOf(shape, bind)} as body,
  g.entered
from ${entered(def, operation)} g left join verdict v on true left join new n on true`
  }
  return shape.statement(
    `${operation} ${system.join()}`,
    [
      change.id,
      facts.event,
      facts.actor,
      facts.requestId,
      change.versions ?? null,
      ...(updates ? [change.document] : []),
      ...(system.length === 0 ? [] : [change.systemDocument])
    ],
    build
  )
}

/** Locks the row that is to be changed and reads it whole, as history keeps it, for rules and patches. */
export const lockSql = (shape: WriteShape, operation: Change["operation"], id: string): Statement =>
  shape.statement(
    `lock ${operation}`,
    [id],
    (bind) => `with ${oldSql(shape, operation, bind)}
select o.version, o.deleted_at is null as live,
  (select row_to_json(_s.*)::text from (select ${stateColumns(shape.def.spec.fields, "o")}) _s) as state, g.entered
from ${entered(shape.def, operation)} g left join old o on true`
  )

/** Reads one record as the caller sees it. */
export const readSql = (shape: WriteShape, id: string): Statement =>
  shape.statement(
    "read",
    [id],
    (bind) => `select n.version, ${bodyOf(shape, bind)} as body from ${tableOf(shape.def)} n
where n.id = $1::uuid and n.deleted_at is null and ${gateSql(shape.def, "read")}`
  )

/** Reads one record in a version of its past, by today's rights on the state that is shown. */
export const versionSql = (
  shape: WriteShape,
  past: NonNullable<WriteShape["past"]>,
  id: string,
  version: number
): Statement =>
  shape.statement("version", [id, version], (bind) => {
    const filters = [past.filter("history", bind), past.filter("read", bind)].filter((one) => one !== undefined)
    return `select (select row_to_json(_b.*)::text from (select ${past.columns()}) _b) as body from ${past.view} _h
where _h.entity_id = $1::uuid and _h.version = $2::int4 and _h.state is not null and ${gateSql(shape.def, "history")}${filters.map((one) => ` and (${one})`).join("")}`
  })

/** The entry of the act whose event this is; nothing where the act touched no row. Last in its transaction. */
export const auditSql = (id: string, event: string): Statement => ({
  sql: "select platform.audit_event($1::uuid, $2::uuid)::text as entry",
  params: [id, event]
})
