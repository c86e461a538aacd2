/**
 * The write side of a record type, compiled once (decoder, rules), and what its statements are made of for one caller.
 */
import { grantsOf, visibilityOf } from "../domain/Access.ts"
import type { Field } from "../domain/Field.ts"
import { pgType } from "../domain/Field.ts"
import type { Caller } from "../domain/Identity.ts"
import { formatPath, rolesOf, tierOf } from "../domain/Names.ts"
import type { Operation } from "../domain/Operation.ts"
import type { RowCondition } from "../domain/SchemaDefinition.ts"
import type { ServedDefinition } from "../domain/ServedDefinition.ts"
import { sha256Hex } from "../domain/Sha256.ts"
import { quoteName } from "../postgres/Statement.ts"
import type { Enter } from "../postgres/TenantTx.ts"
import type { Constrained } from "./Failures.ts"
import { compileDecoder, type InputDecoder } from "./InputDecoder.ts"
import { compileRules, type Rules } from "./Rules.ts"
import type { WriteHeaders } from "./WriteHeaders.ts"
import { type Bind, tableOf, type WriteShape } from "./WriteSql.ts"

export interface RecordType extends Constrained {
  readonly def: ServedDefinition
  readonly path: string
  readonly chain: string
}

/** The record types beside one, by path. */
export type Peers = (path: string) => RecordType | undefined

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

export const enterFor = (type: RecordType, caller: Caller, operation: Operation): Enter => ({
  role: rolesOf(type.def.pgSchema)[tierOf(operation)],
  ctx: JSON.stringify({
    op: operation,
    def: type.def.id,
    actor: caller.identity.actor,
    roles: caller.roles,
    attributes: caller.identity.attributes,
    request_id: caller.requestId,
    reason: caller.reason,
    ticket: caller.ticket
  })
})

const operators: Readonly<Record<string, string>> = { eq: "=", neq: "<>", lt: "<", lte: "<=", gt: ">", gte: ">=" }

const conditionSql = (type: RecordType, condition: RowCondition, caller: Caller, alias: string, bind: Bind): string => {
  const field = type.def.spec.fields.find((one) => one.name === condition.field)
  if (field === undefined) return "false"
  const column = `${alias}.${quoteName(field.name)}`
  const cast = pgType(field)
  if (condition.op === "is_null") return `${column} is ${String(condition.value) === "true" ? "" : "not "}null`
  const { identity } = condition
  const known =
    identity === undefined
      ? undefined
      : identity === "actor"
        ? caller.identity.actor
        : caller.identity.attributes[identity.slice("attributes.".length)]
  if (condition.op === "in") {
    const values = condition.values ?? (known === undefined ? [] : typeof known === "string" ? [known] : known)
    return `${column} = any (${bind(values)}::text[]::${cast}[])`
  }
  const value = identity === undefined ? String(condition.value) : known
  if (typeof value !== "string") return "false"
  return condition.op === "contains"
    ? `strpos(${column}, ${bind(value)}::text) > 0`
    : `${column} ${operators[condition.op]} ${bind(value)}::text::${cast}`
}

/** The condition under which the caller may do this to a row; undefined where every row will do. */
export const filterSql = (
  type: RecordType,
  operation: Operation,
  caller: Caller,
  alias: string,
  bind: Bind
): string | undefined => {
  const grants = grantsOf(type.def.spec, operation).filter((grant) => caller.roles.includes(grant.role))
  if (grants.length === 0) return "false"
  if (grants.some((grant) => grant.filters.length === 0)) return undefined
  return grants
    .map((grant) => grant.filters.map((filter) => conditionSql(type, filter, caller, alias, bind)).join(" and "))
    .map((all) => `(${all})`)
    .join(" or ")
}

const projectionSql = (type: RecordType, roles: ReadonlyArray<string>, alias: string): string => {
  const { fields } = type.def.spec
  const shown = fields.filter((field) => visibilityOf(field, roles) === "clear")
  const masked = fields.filter((field) => visibilityOf(field, roles) !== "clear")
  return [
    ...["id", "version", "created_at", "created_by", "updated_at", "updated_by", "deleted_at"].map(
      (c) => `${alias}.${c}`
    ),
    ...shown.map((field) =>
      field.type === "bytes"
        ? `translate(encode(${alias}.${quoteName(field.name)}, 'base64'), E'\\n', '') as ${quoteName(field.name)}`
        : `${alias}.${quoteName(field.name)}`
    ),
    ...(masked.length === 0
      ? []
      : [`json_build_object(${masked.map((field) => `'${field.name}', null`).join(", ")}) as _masked`])
  ].join(", ")
}

/** What the statements of a write by this caller are made of. */
export const shapeOf = (type: RecordType, caller: Caller, peers: Peers): WriteShape => ({
  def: type.def,
  caller,
  filter: (operation, alias, bind) => filterSql(type, operation, caller, alias, bind),
  projection: (alias) => projectionSql(type, caller.roles, alias),
  reads: grantsOf(type.def.spec, "read").some((grant) => caller.roles.includes(grant.role)),
  visible: (field, alias, bind) => {
    if (field.ref === undefined) return undefined
    const { object, version } = field.ref
    const { app, domain, org } = type.def.spec
    const target = peers(formatPath({ org, app, domain, object, version }))
    if (target === undefined || filterSql(target, "read", caller, alias, () => "null") === "false") return undefined
    return { table: tableOf(target.def), condition: filterSql(target, "read", caller, alias, bind) }
  }
})

/** The record's ETag for this caller: the row's version, and a tag of what he sees. */
export const etagOf = (type: RecordType, caller: Caller, version: number): string => {
  const seen = type.def.spec.fields.map((field) => visibilityOf(field, caller.roles)).join()
  return `"${version}-${sha256Hex(`${type.def.generation}|${seen}`).slice(0, 8)}"`
}
