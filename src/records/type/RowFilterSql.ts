/**
 * Row filters as conditions of a statement, beside the policies that say the same: so that the filter's index serves, and
 * so that one of the two still holds when the other has a fault.
 *
 * A caller with several granting roles gets the union of their rows; a role that does not grant the operation never
 * widens anything. Literals and identity values alike are bound parameters, and the text depends on the roles alone. An
 * attribute that is missing, or is no value of the field's type, is bound as NULL, with which every comparison admits no
 * row.
 */
import { grantsOf } from "../../domain/Access.ts"
import { literalFault } from "../../domain/Admission.ts"
import { decimalText } from "../../domain/ExactJson.ts"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import type { RowCondition, SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import type { FieldPlan } from "./FieldPlan.ts"

/** A parameter whose value is known when the caller is. */
export type CallerValue = (caller: Caller) => unknown

interface Condition {
  readonly plan: FieldPlan
  readonly value: CallerValue | undefined
  /** `place` is the parameter's, e.g. `$3`; empty where there is none. */
  readonly sql: (column: string, place: string) => string
}

/** Which rows these roles may do an operation to: any of the alternatives, each with all of its conditions. */
export type RowFilter =
  | { readonly _tag: "All" }
  | { readonly _tag: "None" }
  | { readonly _tag: "Some"; readonly alternatives: ReadonlyArray<ReadonlyArray<Condition>> }

const all: RowFilter = { _tag: "All" }
const none: RowFilter = { _tag: "None" }

const comparisons: Readonly<Record<string, string>> = { eq: "=", neq: "<>", lt: "<", lte: "<=", gt: ">", gte: ">=" }
/** Longer attributes are no number that a column could be compared with. */
const longestNumber = 1000

/** The text when it is a value of the field's type, else null. */
const fitting = (plan: FieldPlan, op: RowCondition["op"], text: string): string | null => {
  if (op === "contains") return text.includes("\u0000") ? null : text
  // a number is compared exactly, also with one of more decimals than the column has
  if (plan.type === "number") return text.length > longestNumber ? null : (decimalText(text) ?? null)
  return literalFault(plan.field, text) === undefined ? text : null
}

const identityOf = (name: string): ((caller: Caller) => string | ReadonlyArray<string> | undefined) => {
  if (name === "actor") return (caller) => caller.identity.actor
  const attribute = name.slice("attributes.".length)
  return ({ identity: { attributes } }) => (Object.hasOwn(attributes, attribute) ? attributes[attribute] : undefined)
}

const valueOf = (plan: FieldPlan, { identity, op, value, values }: RowCondition): CallerValue => {
  const parsed = (text: string) => fitting(plan, op, text)
  if (op === "in") {
    const list = (texts: ReadonlyArray<string>) => texts.map(parsed).filter((text) => text !== null)
    if (identity === undefined) {
      const fixed = list(values ?? [])
      return () => fixed
    }
    const known = identityOf(identity)
    return (caller) => {
      const found = known(caller)
      return list(found === undefined ? [] : typeof found === "string" ? [found] : found)
    }
  }
  if (identity === undefined) {
    const fixed = parsed(String(value))
    return () => fixed
  }
  const known = identityOf(identity)
  return (caller) => {
    const found = known(caller)
    return typeof found === "string" ? parsed(found) : null
  }
}

const conditionOf = (fields: ReadonlyMap<string, FieldPlan>, condition: RowCondition): Condition | undefined => {
  const plan = fields.get(condition.field)
  if (plan === undefined) return undefined
  const { op } = condition
  if (op === "is_null") {
    const negated = String(condition.value) === "true" ? "" : "not "
    return { plan, value: undefined, sql: (column) => `${column} is ${negated}null` }
  }
  const value = valueOf(plan, condition)
  if (op === "contains") return { plan, value, sql: (column, place) => `strpos(${column}, ${place}::text) > 0` }
  if (op === "in") {
    return { plan, value, sql: (column, place) => `${column} = any (${place}::text[]::${plan.cast}[])` }
  }
  const collation = plan.type === "string" && op !== "eq" && op !== "neq" ? ' collate "C"' : ""
  return {
    plan,
    value,
    sql: (column, place) => `${column}${collation} ${comparisons[op]} ${place}::${plan.cast}`
  }
}

/** What these roles' rows are. Done once for each set of roles. */
export const compileRowFilter = (
  spec: SchemaDefinitionSpec,
  fields: ReadonlyMap<string, FieldPlan>,
  operation: Operation,
  roles: ReadonlyArray<string>
): RowFilter => {
  const grants = grantsOf(spec, operation).filter((grant) => roles.includes(grant.role))
  if (grants.some((grant) => grant.filters.length === 0)) return all
  const alternatives = grants.flatMap((grant) => {
    const conditions = grant.filters.map((filter) => conditionOf(fields, filter))
    // a filter that cannot be said admits nothing
    return conditions.includes(undefined) ? [] : [conditions.filter((condition) => condition !== undefined)]
  })
  return alternatives.length === 0 ? none : { _tag: "Some", alternatives }
}

/**
 * The filter as an SQL condition; undefined where every row will do.
 *
 * @param column how a field is read: of a table's row, or of a state in history
 * @param bind adds a parameter and answers its place
 */
export const rowFilterSql = (
  filter: RowFilter,
  column: (plan: FieldPlan) => string,
  bind: (value: CallerValue) => string
): string | undefined => {
  if (filter._tag === "All") return undefined
  if (filter._tag === "None") return "false"
  const alternatives = filter.alternatives.map((conditions) =>
    conditions
      .map(({ plan, sql, value }) => sql(column(plan), value === undefined ? "" : bind(value)))
      .map((one) => `(${one})`)
      .join(" and ")
  )
  return `(${alternatives.join(" or ")})`
}
