/**
 * The write side of a record type, compiled once (decoder, rules), and what its statements are made of for one caller.
 */
import type { Field } from "../../domain/Field.ts"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import { compileDecoder, type InputDecoder } from "../type/InputDecoder.ts"
import { stateColumn, stateRow, tableRow } from "../type/Projection.ts"
import type { Peers, RecordType } from "../type/RecordType.ts"
import { type CallerValue, rowFilterSql } from "../type/RowFilterSql.ts"
import { compileRules, type Rules } from "../type/Rules.ts"
import type { WriteHeaders } from "./WriteHeaders.ts"
import type { BindCaller, WriteShape } from "./WriteSql.ts"

/** A type that refers to another, by which field, and what a delete does to it. */
export interface Referring {
  readonly type: RecordType
  readonly field: Field
  readonly onDelete: "restrict" | "cascade" | "setNull"
}

/** What a write is told beside its body. */
export interface WriteRequest {
  readonly headers: WriteHeaders
  readonly method: string
  /** Path and query, as they were sent: an idempotency key belongs to them. */
  readonly target: string
  readonly contentType?: string | undefined
  readonly peers: Peers
  /**
   * The roles that the caller has for an operation on a type, since a binding may be for some alone; the same as here
   * where it is left out. Without an operation, for reading.
   */
  readonly rolesOn?: ((path: string, operation?: Operation) => ReadonlyArray<string>) | undefined
  /** The types of the domain that refer to this one. */
  readonly referring: (type: RecordType) => ReadonlyArray<Referring>
}

/** What is compiled of a definition for writing. */
export interface WriteType {
  readonly decoder: InputDecoder
  readonly rules: Rules
  readonly fields: ReadonlyMap<string, Field>
}

const compiled = new WeakMap<ServedDefinition, WriteType>()

/** Compiled at first use and kept as long as the definition is. */
export const writeTypeOf = (type: RecordType): WriteType => {
  const known = compiled.get(type.def)
  if (known !== undefined) return known
  const { spec } = type.def
  const fresh: WriteType = {
    decoder: compileDecoder(spec),
    rules: compileRules(spec),
    fields: new Map(spec.fields.map((field) => [field.name, field]))
  }
  compiled.set(type.def, fresh)
  return fresh
}

/** The condition under which the caller may do this to the row `alias`; undefined where every row will do. */
export const filterSql = (
  type: RecordType,
  operation: Operation,
  caller: Caller,
  alias: string,
  bind: BindCaller
): string | undefined =>
  rowFilterSql(type.rowFilter(operation, caller.roles), (plan) => `${alias}.${plan.column}`, bind)

/**
 * The caller as he stands to another type or operation than the request's: with those of his roles that hold for both,
 * since what the transaction is told of him are the request's.
 */
export const callerOn = (
  { rolesOn }: Pick<WriteRequest, "rolesOn">,
  caller: Caller,
  path: string,
  operation: Operation
): Caller => {
  if (rolesOn === undefined) return caller
  const there = rolesOn(path, operation)
  const roles = caller.roles.filter((role) => there.includes(role))
  return roles.length === caller.roles.length ? caller : { ...caller, roles }
}

/** Whether any of the caller's roles grants the operation. */
export const grants = (type: RecordType, operation: Operation, caller: Caller): boolean =>
  type.rowFilter(operation, caller.roles)._tag !== "None"

/** The text of a statement, the caller's values that it binds, and the types it was made with. */
interface Text {
  readonly sql: string
  readonly values: ReadonlyArray<CallerValue>
  readonly targets: ReadonlyArray<readonly [string, RecordType | undefined]>
}

const texts = new WeakMap<RecordType, Map<string, Text>>()
/** Texts that are kept of a type; callers with more roles than a definition knows can ask for any number of them. */
const maxTexts = 1000

const textOf = (
  type: RecordType,
  peers: Peers,
  key: string,
  fixed: number,
  build: (bind: BindCaller) => string
): Text => {
  const known = texts.get(type) ?? new Map<string, Text>()
  texts.set(type, known)
  const found = known.get(key)
  if (found?.targets.every(([path, target]) => peers(path) === target)) return found
  const values: Array<CallerValue> = []
  const sql = build((value) => `$${fixed + values.push(value)}`)
  const paths = [...type.fields.values()].flatMap(({ target }) => (target === undefined ? [] : [target]))
  const fresh: Text = { sql, values, targets: paths.map((path) => [path, peers(path)] as const) }
  if (known.size >= maxTexts) known.clear()
  known.set(key, fresh)
  return fresh
}

/** What the statements of a write by this caller are made of. */
export const shapeOf = (
  type: RecordType,
  caller: Caller,
  request: Pick<WriteRequest, "peers" | "rolesOn">
): WriteShape => {
  const { peers } = request
  const reader = callerOn(request, caller, type.path, "read")
  const historian = callerOn(request, caller, type.path, "history")
  const targets = new Map<string, Caller>()
  for (const { target } of type.fields.values()) {
    if (target !== undefined) targets.set(target, callerOn(request, caller, target, "read"))
  }
  const own = caller.roles.join()
  const others = [reader, historian, ...targets.values()]
  const roles = others.every((one) => one === caller) ? own : [own, ...others.map((one) => one.roles.join())].join("|")
  return {
    def: type.def,
    caller,
    statement: (name, fixed, build) => {
      const { sql, values } = textOf(type, peers, `${name}|${roles}`, fixed.length, build)
      return { sql, params: values.length === 0 ? fixed : [...fixed, ...values.map((value) => value(caller))] }
    },
    filter: (operation, alias, bind) => filterSql(type, operation, operation === "read" ? reader : caller, alias, bind),
    projection: (alias) => type.projection(reader.roles).columns(tableRow(alias)),
    tag: type.projection(reader.roles).tag,
    reads: grants(type, "read", reader),
    past: grants(type, "history", historian)
      ? {
          view: type.historyView,
          columns: () => type.projection(reader.roles).columns(stateRow("_h.state", type.def)),
          filter: (operation, bind) => {
            const { roles } = operation === "history" ? historian : reader
            return rowFilterSql(type.rowFilter(operation, roles), stateColumn, bind)
          }
        }
      : undefined,
    visible: (field, alias, bind) => {
      const path = type.fields.get(field.name)?.target
      const target = path === undefined ? undefined : peers(path)
      const there = path === undefined ? undefined : targets.get(path)
      return target === undefined || there === undefined || !grants(target, "read", there)
        ? undefined
        : { table: target.table, condition: filterSql(target, "read", there, alias, bind) }
    }
  }
}
