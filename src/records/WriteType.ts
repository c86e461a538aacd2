/**
 * The write side of a record type, compiled once (decoder, rules), and what its statements are made of for one caller.
 */
import type { Field } from "../domain/Field.ts"
import type { Caller } from "../domain/Identity.ts"
import type { Operation } from "../domain/Operation.ts"
import type { ServedDefinition } from "../domain/ServedDefinition.ts"
import { compileDecoder, type InputDecoder } from "./InputDecoder.ts"
import { tableRow } from "./Projection.ts"
import type { Peers, RecordType } from "./RecordType.ts"
import { rowFilterSql } from "./RowFilterSql.ts"
import { compileRules, type Rules } from "./Rules.ts"
import type { WriteHeaders } from "./WriteHeaders.ts"
import type { Bind, WriteShape } from "./WriteSql.ts"

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
  bind: Bind
): string | undefined =>
  rowFilterSql(
    type.rowFilter(operation, caller.roles),
    (plan) => `${alias}.${plan.column}`,
    (value) => bind(value(caller))
  )

/** Whether any of the caller's roles grants the operation. */
export const grants = (type: RecordType, operation: Operation, caller: Caller): boolean =>
  type.rowFilter(operation, caller.roles)._tag !== "None"

/** What the statements of a write by this caller are made of. */
export const shapeOf = (type: RecordType, caller: Caller, peers: Peers): WriteShape => ({
  def: type.def,
  caller,
  filter: (operation, alias, bind) => filterSql(type, operation, caller, alias, bind),
  projection: (alias) => type.projection(caller.roles).columns(tableRow(alias)),
  reads: grants(type, "read", caller),
  visible: (field, alias, bind) => {
    const path = type.fields.get(field.name)?.target
    const target = path === undefined ? undefined : peers(path)
    return target === undefined || !grants(target, "read", caller)
      ? undefined
      : { table: target.table, condition: filterSql(target, "read", caller, alias, bind) }
  }
})

/** The record's ETag for this caller: the row's version, and a tag of what he sees. */
export const etagOf = (type: RecordType, caller: Caller, version: number): string =>
  `"${version}-${type.projection(caller.roles).tag}"`
