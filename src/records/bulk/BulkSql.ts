/**
 * The statement that creates up to 500 records: INSERT … SELECT from one JSON document (COPY is refused under row-level
 * security), history rows in the same statement, one verdict over all of them. All are written or none.
 */
import type { Caller } from "../../domain/Identity.ts"
import { quoteName, type Statement } from "../../postgres/Statement.ts"
import { gateSql } from "../type/Entering.ts"
import {
  type BindCaller,
  createdFields,
  danglingOf,
  documentColumns,
  eventSql,
  fromDocument,
  newEventId,
  outsideOf,
  tableOf,
  type WriteShape
} from "../write/WriteSql.ts"

/** Records in one statement, and in one audit entry (fine print 14). */
export const chunkSize = 500

/** A record that is ready to be written. */
export interface Ready {
  /** Its place among the request's records, from 0. */
  readonly index: number
  /** Its line in the stream, from 1; in a JSON array its place, from 1. */
  readonly line: number
  readonly id: string
  /** Its fields as a JSON object. */
  readonly document: string
}

/** Puts place and id in front of a record's fields; no field begins with `_`. */
const element = ({ document, id }: Ready, place: number): string =>
  `{"_i":${place},"_id":"${id}"${document === "{}" ? "" : `,${document.slice(1, -1)}`}}`

/** Creates these records. */
export const bulkSql = (shape: WriteShape, records: ReadonlyArray<Ready>, caller: Caller): Statement => {
  const { def } = shape
  const { fields } = def.spec
  const build = (bind: BindCaller): string => {
    const columns = fields.map((field) => quoteName(field.name))
    const list = ["id", "version", "created_at", "created_by", "updated_at", "updated_by", ...columns].join(", ")
    const values = fields.map((field) => `${fromDocument(field, "r")} as ${quoteName(field.name)}`)
    return `with input as materialized (
  select ${["r._i", "r._id as id", ...values].join(", ")}
  from jsonb_to_recordset($1::jsonb) as r(_i int4, _id uuid, ${documentColumns(fields)})),
judged as materialized (
  select i._i, ${danglingOf(shape, "i", undefined, bind)} as dangling, ${outsideOf(shape, "create", "i", bind)} as outside
  from input i),
verdict as materialized (
  select ${gateSql(def, "create")} as entered,
    (select json_agg(json_build_array(j._i, j.dangling, j.outside) order by j._i) from judged j
     where j.dangling <> '{}' or j.outside)::text as bad),
new as (
  insert into ${tableOf(def)} (${list})
  select i.id, 1, c.at, $2::text, c.at, $2::text${columns.map((column) => `, i.${column}`).join("")}
  from input i, verdict v, (select clock_timestamp() as at) c
  where v.entered and v.bad is null
  returning *),
${eventSql(def, "create", createdFields(def), newEventId, "$2::text", "$3::text")}
select v.bad from verdict v`
  }
  const document = `[${records.map(element).join(",")}]`
  return shape.statement("bulk", [document, caller.identity.actor, caller.requestId], build)
}

/** The one entry for these records; none where the statement before wrote nothing. */
export const bulkAuditSql = (shape: WriteShape, records: ReadonlyArray<Ready>): Statement => {
  const { def } = shape
  return {
    sql: `select platform.audit_events($1::uuid[])::text as entry
where (select count(*) from ${tableOf(def)} t where t.id = any ($1::uuid[])) = cardinality($1::uuid[])`,
    params: [records.map((record) => record.id)]
  }
}

/** A record that may not be written as it is. */
export interface Bad {
  readonly record: Ready
  readonly dangling: ReadonlyArray<string>
  readonly outside: boolean
}

/** What the statement found wrong; none where it wrote everything. */
export const badOf = (
  rows: ReadonlyArray<Readonly<Record<string, unknown>>>,
  records: ReadonlyArray<Ready>
): ReadonlyArray<Bad> => {
  const [row] = rows
  if (typeof row?.bad !== "string") return []
  const found = JSON.parse(row.bad) as ReadonlyArray<readonly [number, ReadonlyArray<string>, boolean]>
  return found.map(([place, dangling, outside]) => ({ record: records[place] as Ready, dangling, outside }))
}
