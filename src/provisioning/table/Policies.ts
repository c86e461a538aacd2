/**
 * The row-level security of a record type's table, and the condition of its history view.
 *
 * Where no role has a row filter every policy is `true`: any other condition, even one without a column, keeps Postgres
 * from using an index for operators that are not leakproof (`=` on numeric, LIKE, jsonb). Which role may do what is then
 * decided by `platform.enter` in the statement, and by the API.
 *
 * With row filters each operation has its own condition, told apart by `platform.op(definition, operation)`. SELECT admits
 * what a read admits, and for the length of an operation what that operation admits too, so that RETURNING and soft delete
 * work. No policy looks at `deleted_at`. What is asked of the caller stands in a scalar subquery, which runs once for a
 * statement and not for each row.
 */
import { type Grant, grantsOf, isUnfiltered } from "../../domain/Access.ts"
import { type Field, pgType } from "../../domain/Field.ts"
import type { Operation } from "../../domain/Operation.ts"
import type { RowCondition, SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import { quoteName, quoteText } from "./SqlText.ts"

/** The conditions of the three commands that domain roles are granted. */
export interface TablePolicies {
  readonly select: string
  readonly insert: string
  readonly update: string
}

/** How a field is read: from a row of the table, or from a state in history. */
type Read = (field: Field) => string

/** What a value is compared as; a number's without precision, so that none is rounded to the column's. */
const castOf = (field: Field): string => (field.type === "number" && field.float !== true ? "numeric" : pgType(field))

const ofRow: Read = (field) => quoteName(field.name)
/** In history a string must be told to compare as the column does, by code points. */
const ofState: Read = (field) => {
  // a state from before the field had its name has it under a former one
  const members = [field.name, ...(field.renamedFrom ?? [])].map((name) => `state -> ${quoteText(name)}`)
  const text =
    members.length === 1 ? `(state ->> ${quoteText(field.name)})` : `(coalesce(${members.join(", ")}) #>> '{}')`
  return castOf(field) === "text" ? `${text} collate "C"` : `${text}::${castOf(field)}`
}

const comparisons: Readonly<Record<string, string>> = { eq: "=", neq: "<>", lt: "<", lte: "<=", gt: ">", gte: ">=" }

const roleIs = (roles: ReadonlyArray<string>): string =>
  `(select platform.has_role(array[${roles.map(quoteText).join(", ")}]::text[]))`

const operationIs = (definition: number, operation: Operation): string =>
  `(select platform.op(${definition}, ${quoteText(operation)}))`

/** What is known of the caller under a name, as one value: NULL where it is a list, absent, or no value of the type. */
const callerValue = (identity: string, cast: string): string => {
  const name = quoteText(identity.slice("attributes.".length))
  const [text, isOne] =
    identity === "actor"
      ? ["(platform.ctx() ->> 'actor')", "true"]
      : [`platform.attr(${name})`, `jsonb_typeof(platform.ctx() -> 'attributes' -> ${name}) = 'string'`]
  return cast === "text"
    ? `(select case when ${isOne} then ${text} end)`
    : `(select case when ${isOne} and pg_input_is_valid(${text}, ${quoteText(cast)}) then ${text}::${cast} end)`
}

/** The same as a list of values. */
const callerValues = (identity: string, cast: string): string => {
  const list =
    identity === "actor"
      ? "array[platform.ctx() ->> 'actor']"
      : `platform.attrs(${quoteText(identity.slice("attributes.".length))})`
  return cast === "text"
    ? `(select ${list})::text[]`
    : `(select array(select case when pg_input_is_valid(v, ${quoteText(cast)}) then v::${cast} end from unnest(${list}) as v))::${cast}[]`
}

/** One condition of a row filter. It is NULL, and so admits nothing, where the caller is not known by that attribute. */
const conditionSql = (field: Field, { identity, op, value, values }: RowCondition, read: Read): string => {
  const column = read(field)
  const cast = castOf(field)
  const literal = (text: string) => `${quoteText(text)}::${cast}`
  if (op === "is_null") return `${column} is ${String(value) === "true" ? "" : "not "}null`
  if (op === "in") {
    const list =
      identity === undefined ? `array[${(values ?? []).map(literal).join(", ")}]` : callerValues(identity, cast)
    return `${column} = any (${list})`
  }
  const right = identity === undefined ? literal(String(value)) : callerValue(identity, cast)
  return op === "contains" ? `strpos(${column}, ${right}) > 0` : `${column} ${comparisons[op]} ${right}`
}

/** The condition under which grants admit a row; undefined where they admit every row. */
const grantedSql = (
  fields: ReadonlyMap<string, Field>,
  grants: ReadonlyArray<Grant>,
  read: Read
): string | undefined => {
  if (isUnfiltered(grants)) return undefined
  const free = grants.filter((grant) => grant.filters.length === 0).map((grant) => grant.role)
  const filtered = grants
    .filter((grant) => grant.filters.length > 0)
    .map(({ filters, role }) => {
      const conditions = filters.map((filter) => {
        const field = fields.get(filter.field)
        // admission has refused a filter on a field that is not there; should it be here, it admits nothing
        return field === undefined ? "false" : conditionSql(field, filter, read)
      })
      return `(${[roleIs([role]), ...conditions].join(" and ")})`
    })
  return [...(free.length === 0 ? [] : [roleIs(free)]), ...filtered].join(" or ")
}

const writes = ["create", "update", "delete", "restore"] as const

/** The policies of a table. `definition` is `platform.schema_defs.id`. Pure. */
export const policiesOf = (spec: SchemaDefinitionSpec, definition: number): TablePolicies => {
  if ((spec.access.rowFilters ?? []).length === 0) return { select: "true", insert: "true", update: "true" }
  const fields = new Map(spec.fields.map((field) => [field.name, field]))
  const grantsFor = (operation: Operation) => grantsOf(spec, operation)
  const during = (operation: Operation): ReadonlyArray<string> => {
    const grants = grantsFor(operation)
    if (grants.length === 0) return []
    const rows = grantedSql(fields, grants, ofRow)
    return [
      rows === undefined ? operationIs(definition, operation) : `(${operationIs(definition, operation)} and (${rows}))`
    ]
  }
  const any = (conditions: ReadonlyArray<string>) => (conditions.length === 0 ? "false" : conditions.join(" or "))
  const isOpen = (...operations: ReadonlyArray<Operation>) =>
    operations.every((operation) => grantsFor(operation).length > 0 && isUnfiltered(grantsFor(operation)))

  const reads = grantsFor("read")
  const readRows = grantedSql(fields, reads, ofRow)
  const readable = readRows === undefined ? [] : [`(${readRows})`]
  return {
    select: isOpen("read") ? "true" : any([...readable, ...writes.flatMap(during)]),
    insert: isOpen("create") ? "true" : any(during("create")),
    update: isOpen("update", "delete", "restore")
      ? "true"
      : any((["update", "delete", "restore"] as const).flatMap(during))
  }
}

/** The condition that the history view adds: the filters of `history`, judged on the state being shown. Pure. */
export const historyConditionOf = (spec: SchemaDefinitionSpec): string | undefined =>
  grantedSql(new Map(spec.fields.map((field) => [field.name, field])), grantsOf(spec, "history"), ofState)
