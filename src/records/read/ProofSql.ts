/**
 * The statements behind the proof of a record. The row must be live and the caller's to read, and its last event his to
 * see: values come from the history view, whose row filters hold; salts and leaves from `platform.event_proof`, which
 * knows no contents.
 */
import { systemColumns } from "../../domain/Field.ts"
import type { Caller } from "../../domain/Identity.ts"
import { type Statement, statement } from "../../postgres/Statement.ts"
import { gateSql } from "../type/Entering.ts"
import { Parameters } from "../type/Parameters.ts"
import { stateColumn } from "../type/Projection.ts"
import type { RecordType } from "../type/RecordType.ts"
import { rowFilterSql } from "../type/RowFilterSql.ts"

/** One row: `record` (without its path) and `fields` as JSON, the `event`, when it was (`at`), its `request_id` and `version`. */
export const proofSql = (type: RecordType, caller: Caller, id: string): Statement => {
  const parameters = new Parameters()
  const { bind } = parameters
  const entity = `${bind(id)}::uuid`
  const { clear } = type.projection(caller.roles)
  // by the names that the state has, which its hash is over
  const keys = [...type.fields.values()].flatMap((plan) => (clear.has(plan.name) ? plan.keys : []))
  const shown = `${bind([...systemColumns, ...keys])}::text[]`
  const filters = [
    rowFilterSql(
      type.rowFilter("read", caller.roles),
      (plan) => `_r.${plan.column}`,
      (value) => bind(value(caller))
    ),
    rowFilterSql(type.rowFilter("history", caller.roles), stateColumn, (value) => bind(value(caller)))
  ].filter((one) => one !== undefined)
  const audited =
    type.def.spec.audit.reads === "none"
      ? ""
      : `, platform.audit_act(_r.id, 'read', jsonb_build_object('proof', true, 'version', _r.version)) is null as unaudited`
  return statement(
    `select _r.version, _p.proof ->> 'event' as event, _h.occurred_at::text as at, _h.request_id,
  json_build_object('storage_id', _p.proof -> 'storage_id', 'entity_id', _r.id, 'version', _r.version, 'op', _p.proof -> 'op')::text as record,
  (select json_agg(case when _f.field ? 'name'
      then json_build_object('name', _f.field -> 'name', 'value', (_h.state -> (_f.field ->> 'name'))::text, 'salt', _f.field -> 'salt')
      else to_json(_f.field) end order by _f.n)::text
   from jsonb_array_elements(_p.proof -> 'fields') with ordinality as _f (field, n)) as fields${audited}
from ${type.table} _r join ${type.historyView} _h on _h.entity_id = _r.id and _h.version = _r.version
  cross join lateral (select platform.event_proof(_r.id, _r.version, ${shown}) as proof offset 0) _p
where ${gateSql(type.def, "history")} and ${gateSql(type.def, "read")} and _r.id = ${entity} and _r.deleted_at is null
  and _p.proof is not null${filters.map((one) => ` and (${one})`).join("")}`,
    parameters.values
  )
}

/** Entries beside the one that is looked for that may be of the same request. */
const maxEntries = 200

/**
 * The entry of an event, or those of its request that may cover it among others, as `velocity_auditor`. The entry follows
 * its event within the transaction; a minute before it stands for a row whose clock was ahead.
 */
export const entriesSql = (
  type: RecordType,
  found: { readonly id: string; readonly event: string; readonly at: string; readonly requestId: string | null }
): Statement =>
  statement(
    `select a.id::text as id, a.schema_path as path, a.payload ->> 'first_id' as first, a.payload ->> 'last_id' as last, a.payload ->> 'root' as root
from platform.audit_log a
where a.chain = $1 and a.schema_path = any ($2::text[]) and a.outcome = 'ok' and a.request_id is not distinct from $3
  and a.occurred_at >= $4::timestamptz - interval '1 minute' and a.occurred_at < $4::timestamptz + interval '1 hour'
  and ((a.entity_id = $5::uuid and a.payload ->> 'event' = $6)
    or (a.entity_id is null and a.action = 'create' and a.payload ? 'root'
        and $5::uuid between (a.payload ->> 'first_id')::uuid and (a.payload ->> 'last_id')::uuid))
order by a.occurred_at limit ${maxEntries}`,
    [type.chain, type.def.face?.paths ?? [type.path], found.requestId, found.at, found.id, found.event]
  )

/** The events that an entry of many covers: `id` and `hash`, in the order of their tree. */
export const batchSql = (type: RecordType, first: string, last: string, requestId: string | null): Statement =>
  statement(
    `select b.entity_id::text as id, encode(b.hash, 'hex') as hash from platform.event_batch($1::uuid, $2::uuid, $3) b
where ${gateSql(type.def, "history")} order by b.entity_id`,
    [first, last, requestId]
  )
