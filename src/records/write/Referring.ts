/**
 * What a delete does to the records that refer to the one deleted: `setNull` empties their reference, `cascade` deletes
 * them too (fine print 12). Each of them gets its own history event and audit entry, under its own lock, by the caller's
 * own rights on its type.
 *
 * What the caller may not change, or not see, stays as it is, and then the foreign key refuses the whole delete (409
 * `still_referenced`): so does a cycle of references across tables. Those that depend are done before what they depend on,
 * because a foreign key is judged at the end of each statement.
 */
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import { parse } from "../../domain/ExactJson.ts"
import { stateKeys } from "../../domain/Face.ts"
import type { Field } from "../../domain/Field.ts"
import type { Caller } from "../../domain/Identity.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { quoteName, type Statement, statement } from "../../postgres/Statement.ts"
import type { Tx } from "../../postgres/TenantTx.ts"
import { enterFor, gateSql } from "../type/Entering.ts"
import type { Values } from "../type/InputDecoder.ts"
import { quoteText } from "../type/Projection.ts"
import type { RecordType } from "../type/RecordType.ts"
import type { CallerValue } from "../type/RowFilterSql.ts"
import { eventSql, newEventId, stateColumns } from "./WriteSql.ts"
import { callerOn, filterSql, grants, type Referring, type WriteRequest, writeTypeOf } from "./WriteType.ts"

/** Records that one delete may take along or change, in all. */
export const maxReferring = 10_000

const tooMany = (): Problem =>
  problem("still_referenced", { detail: `more than ${maxReferring} records refer to this one` })

/** Takes on the context of an operation on another type, inside the transaction; the role stays. */
const contextSql = (type: RecordType, caller: Caller, operation: "update" | "delete"): Statement =>
  statement("select set_config('velocity.ctx', $1, true)", [enterFor(type, caller, operation).ctx])

/** Entries for events that this transaction wrote of a type. */
const auditsSql = (ids: ReadonlyArray<string>, events: ReadonlyArray<string>): Statement =>
  statement(
    "select count(platform.audit_event(t.id, t.event)) as entries from unnest($1::uuid[], $2::uuid[]) as t(id, event)",
    [ids, events]
  )

interface Work {
  readonly caller: Caller
  readonly request: WriteRequest
  readonly tx: Tx
  readonly audits: Array<Statement>
  /** Rows, by storage and id: a version's record is the same row as another version's. */
  readonly seen: Set<string>
  left: number
}

const strings = (value: unknown): ReadonlyArray<string> => (Array.isArray(value) ? value.map(String) : [])

/** The live records of a type that refer to these, locked, as far as the caller may do this to them. */
const lockReferring = (
  { caller, left }: Pick<Work, "caller" | "left">,
  { field, type }: Referring,
  operation: "update" | "delete",
  ids: ReadonlyArray<string>,
  withState: boolean
): Statement => {
  const params: Array<unknown> = [ids]
  const bind = (value: CallerValue) => `$${params.push(value(caller))}`
  const filter = filterSql(type, operation, caller, "t", bind)
  const { def } = type
  const state = withState
    ? `, json_agg((select row_to_json(_s.*) from (select ${stateColumns(def.spec.fields, "o")}) _s))::text as states`
    : ""
  return {
    sql: `with old as materialized (
  select t.* from ${type.table} t
  where t.${quoteName(field.name)} = any ($1::uuid[]) and t.deleted_at is null${filter === undefined ? "" : ` and (${filter})`}
    and ${gateSql(def, operation)}
  order by t.id limit ${left + 1} for ${operation === "delete" ? "update" : "no key update"})
select coalesce(array_agg(o.id::text), '{}') as ids${state}, ${gateSql(def, operation)} as entered from old o`,
    params
  }
}

/** Deletes records that are locked, or empties their reference; answers their ids and events. */
const changeReferring = (
  caller: Caller,
  { field, type }: { readonly field: Field; readonly type: RecordType },
  operation: "update" | "delete",
  ids: ReadonlyArray<string>
): Statement => {
  const { def } = type
  const set = operation === "delete" ? "deleted_at = c.at" : `${quoteName(field.name)} = null`
  const changed =
    operation === "delete" ? "array['deleted_at']" : `array[${quoteText(stateKeys(def, field)[0] ?? field.name)}]`
  return {
    sql: `with new as (
  update ${type.table} t
  set ${set}, version = t.version + 1, updated_at = c.at, updated_by = $2::text
  from (select o.id, greatest(clock_timestamp(), o.updated_at + interval '1 microsecond') as at
        from ${type.table} o where o.id = any ($1::uuid[])) c
  where t.id = c.id and t.deleted_at is null
  returning t.*),
${eventSql(def, operation, changed, newEventId, "$2::text", "$3::text")}
select coalesce(array_agg(s.id::text), '{}') as ids, coalesce(array_agg(s.event_id::text), '{}') as events from state s`,
    params: [ids, caller.identity.actor, caller.requestId]
  }
}

/** Does to everything that refers to these records what their references say; depth first. */
const visit = (
  work: Work,
  type: RecordType,
  ids: ReadonlyArray<string>
): Effect.Effect<void, Problem | DatabaseFailure> =>
  Effect.gen(function* () {
    const { request, seen, tx } = work
    for (const referring of request.referring(type)) {
      if (referring.onDelete === "restrict") continue
      const operation = referring.onDelete === "cascade" ? "delete" : "update"
      const caller = callerOn(request, work.caller, referring.type.path, operation)
      if (!grants(referring.type, operation, caller)) continue
      const { rules } = writeTypeOf(referring.type)
      const judged = operation === "update" && rules.any
      yield* tx.query(contextSql(referring.type, caller, operation))
      const locked = yield* tx.query(lockReferring({ caller, left: work.left }, referring, operation, ids, judged))
      const found = strings(locked.rows[0]?.ids).filter((id) => !seen.has(`${referring.type.def.storageId} ${id}`))
      if (found.length === 0) continue
      work.left -= found.length
      if (work.left < 0) return yield* tooMany()
      if (judged) {
        const states = parse(String(locked.rows[0]?.states), { maxDepth: 64 }) as unknown as ReadonlyArray<Values>
        const now = yield* Clock.currentTimeMillis
        for (const old of states) {
          const self = { ...old, [referring.field.name]: null }
          if (rules.judge({ self, old, now, actor: caller.identity.actor }) !== undefined) {
            return yield* problem("still_referenced", { detail: "a record that refers to this one must keep doing so" })
          }
        }
      }
      if (operation === "delete") {
        for (const id of found) seen.add(`${referring.type.def.storageId} ${id}`)
        yield* visit(work, referring.type, found)
        yield* tx.query(contextSql(referring.type, caller, operation))
      }
      const changed = yield* tx.query(changeReferring(caller, referring, operation, found))
      work.audits.push(
        contextSql(referring.type, caller, operation),
        auditsSql(strings(changed.rows[0]?.ids), strings(changed.rows[0]?.events))
      )
    }
  })

/**
 * Prepares the delete of a record that is locked already. Answers the statements that enter what was done to others, to
 * be run after the delete itself and before its own entry; each sets the context it needs, the last one the delete's.
 */
export const removeReferring = (
  tx: Tx,
  {
    caller,
    id,
    request,
    type
  }: {
    readonly type: RecordType
    readonly caller: Caller
    readonly request: WriteRequest
    readonly id: string
  }
): Effect.Effect<
  { readonly before: ReadonlyArray<Statement>; readonly after: ReadonlyArray<Statement> },
  Problem | DatabaseFailure
> =>
  Effect.gen(function* () {
    const work: Work = {
      caller,
      request,
      tx,
      audits: [],
      seen: new Set([`${type.def.storageId} ${id}`]),
      left: maxReferring
    }
    yield* visit(work, type, [id])
    const own = contextSql(type, caller, "delete")
    return { before: [own], after: work.audits.length === 0 ? [] : [...work.audits, own] }
  })
