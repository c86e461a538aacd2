/**
 * The query tree as SQL: conditions, order and pages of one record type. Names come from the compiled definition, quoted;
 * everything a client sent is a bound parameter (a list is one array), so that a shape of query is one text.
 *
 * What is refused, in this order for each condition: a field that does not exist, one that the caller cannot read
 * unmasked (403, the same whatever the value), one that is not filterable, an operator that is none of its type's, a value
 * that is none of its type. Strings compare by code points (`COLLATE "C"`); null matches nothing but `is_null`, whose
 * three-valued logic `not` keeps (PostgreSQL, 9.1).
 */
import { type ExactValue, stringify } from "../../domain/ExactJson.ts"
import { type Fault, fault } from "../../domain/Fault.ts"
import { type Problem, type ProblemCode, problem } from "../../domain/Problem.ts"
import type { Leaf, Query, SortTerm, Where } from "../../domain/Query.ts"
import type { FieldPlan } from "../type/FieldPlan.ts"
import type { Bind } from "../type/Parameters.ts"
import type { Projection } from "../type/Projection.ts"
import type { RecordType } from "../type/RecordType.ts"
import { likePattern, readValue } from "./QueryValue.ts"

type Place = ReadonlyArray<PropertyKey>

/** Everything that is wrong with a query, so that all of it can be said at once. */
export class QueryFaults {
  private readonly faults: Array<readonly [ProblemCode, Fault]> = []

  add(code: ProblemCode, place: Place, detail: string): void {
    this.faults.push([code, fault(place, code, detail)])
  }

  /** The problem; what cannot be read hides what else is wrong, so that an answer never depends on a value. */
  get problem(): Problem | undefined {
    const unreadable = this.faults.filter(([code]) => code === "field_not_readable")
    const told = unreadable.length > 0 ? unreadable : this.faults
    const [first] = told
    return first === undefined ? undefined : problem(first[0], { errors: told.map(([, one]) => one) })
  }

  /** Whether something is named that the caller cannot read. */
  get unreadable(): boolean {
    return this.faults.some(([code]) => code === "field_not_readable")
  }
}

/** Where a query came from, for the pointers of faults. */
export type Origin = "params" | "body"

/** Finds a field that the caller may ask about; says what is wrong and answers undefined where there is none. */
const asked = (
  type: RecordType,
  projection: Projection,
  name: string,
  place: Place,
  faults: QueryFaults
): FieldPlan | undefined => {
  const plan = type.fields.get(name)
  if (plan === undefined) faults.add("unknown_field", place, `there is no field ${name}`)
  else if (!plan.system && !projection.clear.has(name)) {
    faults.add("field_not_readable", place, `${name} cannot be read by you`)
  } else if (!plan.filterable) {
    faults.add("not_filterable", place, `${name} is neither filterable, indexed nor unique in its definition`)
  } else return plan
  return undefined
}

const collated = (plan: FieldPlan, column: string): string => (plan.cast === "text" ? `${column} collate "C"` : column)

const comparisons: Readonly<Record<string, string>> = { eq: "=", neq: "<>", lt: "<", lte: "<=", gt: ">", gte: ">=" }

/** One condition on a column that may be asked; undefined when a fault was found. */
const conditionSql = (
  plan: FieldPlan,
  { op, value }: Leaf,
  column: string,
  bind: Bind,
  inUrl: boolean,
  place: Place,
  faults: QueryFaults
): string | undefined => {
  const read = (one: ExactValue, at: Place = place): string | undefined => {
    const found = readValue(plan, one, inUrl)
    if ("text" in found) return found.text
    faults.add("malformed_query", at, `${plan.name}: ${found.wrong}`)
    return undefined
  }
  const bound = (text: string): string =>
    plan.type === "bytes" ? `decode(${bind(text)}::text, 'base64')` : `${bind(text)}::${plan.cast}`
  if (op === "is_null") return `${column} is ${value === true ? "" : "not "}null`
  if (op === "in" || op === "between") {
    const given = Array.isArray(value) ? (value as ReadonlyArray<ExactValue>) : [value]
    const texts = given.map((one, index) => read(one, inUrl ? place : [...place, index]))
    if (texts.includes(undefined)) return undefined
    if (op === "in") return `${column} = any (${bind(texts)}::text[]::${plan.cast}[])`
    const [low = "", high = ""] = texts as ReadonlyArray<string>
    return `${collated(plan, column)} between ${bound(low)} and ${bound(high)}`
  }
  const text = read(value)
  if (text === undefined) return undefined
  if (op === "like" || op === "ilike") {
    const pattern = likePattern(text)
    if (pattern === undefined) {
      faults.add("malformed_query", place, `${plan.name}: the pattern ends in an escape`)
      return undefined
    }
    // letters of every script, whatever the column's own collation
    return `${column}${op === "ilike" ? ' collate "default"' : ""} ${op} ${bind(pattern)}::text`
  }
  if (op === "contains") {
    return plan.type === "json" ? `${column} @> ${bound(text)}` : `strpos(${column}, ${bind(text)}::text) > 0`
  }
  const left = op === "eq" || op === "neq" ? column : collated(plan, column)
  return `${left} ${comparisons[op]} ${bound(text)}`
}

/** A tree as a condition on the row `alias`. What is wrong with it is added to `faults`, and the text then means nothing. */
export const whereSql = (
  type: RecordType,
  projection: Projection,
  where: Where,
  alias: string,
  bind: Bind,
  origin: Origin,
  faults: QueryFaults
): string => {
  const walk = (node: Where, place: Place): string => {
    const all = (children: ReadonlyArray<Where>, key: string, word: string) =>
      `(${children.map((child, index) => walk(child, [...place, key, index])).join(` ${word} `)})`
    if ("and" in node) return all(node.and, "and", "and")
    if ("or" in node) return all(node.or, "or", "or")
    if ("not" in node) return `(not ${walk(node.not, [...place, "not"])})`
    const inUrl = origin === "params"
    const named = (member: string): Place => (inUrl ? [`filter[${node.field}][${node.op}]`] : [...place, member])
    const plan = asked(type, projection, node.field, named("field"), faults)
    if (plan === undefined) return "false"
    if (!plan.operators.has(node.op)) {
      const known = [...plan.operators].join(", ")
      faults.add("unknown_operator", named("op"), `${node.op} does not fit ${plan.type}; there are ${known}`)
      return "false"
    }
    const column = `${alias}.${plan.column}`
    return `(${conditionSql(plan, node, column, bind, inUrl, named("value"), faults) ?? "false"})`
  }
  return walk(where, ["where"])
}

/** One step of an order. */
export interface OrderTerm {
  readonly plan: FieldPlan
  readonly descending: boolean
}

/**
 * The order of a list: what was asked for, then `id`, so that there are no ties. It goes the way of the term before it:
 * an index on (field, id) serves the order both forward and backward.
 */
export const orderOf = (
  type: RecordType,
  projection: Projection,
  sort: ReadonlyArray<SortTerm>,
  faults: QueryFaults
): ReadonlyArray<OrderTerm> => {
  const terms: Array<OrderTerm> = []
  for (const { descending, field } of sort) {
    const plan = asked(type, projection, field, ["sort"], faults)
    if (plan === undefined) continue
    if (!plan.sortable) {
      faults.add("not_filterable", ["sort"], `${field} is ${plan.type}, which has no order`)
      continue
    }
    terms.push({ plan, descending })
    // ids are unique: what comes behind one orders nothing
    if (field === "id") return terms
  }
  return [...terms, { plan: type.fields.get("id") as FieldPlan, descending: terms.at(-1)?.descending ?? false }]
}

/** NULLs come last ascending and first descending, as Postgres's own default is, so that an index serves both ways. */
export const orderSql = (order: ReadonlyArray<OrderTerm>, alias: string): string =>
  order
    .map(({ descending, plan }) => `${collated(plan, `${alias}.${plan.column}`)}${descending ? " desc" : ""}`)
    .join(", ")

/** A row's place in an order, as an SQL array of exact texts. */
export const keySql = (order: ReadonlyArray<OrderTerm>, alias: string): string =>
  `array[${order
    .map(({ plan }) => {
      const column = `${alias}.${plan.column}`
      // independent of DateStyle
      return plan.type === "timestamp" || plan.type === "date" ? `to_json(${column}) #>> '{}'` : `${column}::text`
    })
    .join(", ")}]`

/** A condition, made with the parameters of the statement that it goes into. */
export type BoundCondition = (bind: Bind) => string

/**
 * The rows that come after a place in an order, as conditions whose rows follow one another: of one, or of two where the
 * rows without a value in the first column come behind those with one. As one condition with OR, no index could find
 * where the page begins. A text depends on which keys are null, so there are few of them.
 */
export const afterSql = (
  order: ReadonlyArray<OrderTerm>,
  keys: ReadonlyArray<string | null>,
  alias: string
): ReadonlyArray<BoundCondition> => {
  const [first] = order
  if (first === undefined) return []
  const nullsFollow = !first.descending && first.plan.nullable && keys[0] !== null
  const after = (bind: Bind) => laterSql(order, keys, alias, bind)
  return nullsFollow ? [after, () => `${alias}.${first.plan.column} is null`] : [after]
}

/**
 * For (a, b, id): after in a; or equal in a and after in b; or equal in both and after in id. NULLs of the first column
 * that follow a value are the caller's matter.
 */
const laterSql = (
  order: ReadonlyArray<OrderTerm>,
  keys: ReadonlyArray<string | null>,
  alias: string,
  bind: Bind
): string => {
  const columns = order.map(({ plan }) => `${alias}.${plan.column}`)
  const places = keys.map((key, index) => (key === null ? undefined : `${bind(key)}::${order[index]?.plan.cast}`))
  const descending = order[0]?.descending === true
  const oneWay = order.every((term) => term.descending === descending) && !places.includes(undefined)
  if (oneWay && (descending || order.every(({ plan }, index) => index === 0 || !plan.nullable))) {
    // descending, NULLs have passed; a comparison of rows is what an index on all of them understands
    const row = order.map(({ plan }, index) => collated(plan, columns[index] as string)).join(", ")
    return `(${row}) ${descending ? "<" : ">"} (${places.join(", ")})`
  }
  const equal: Array<string> = []
  const alternatives: Array<string> = []
  order.forEach(({ descending, plan }, index) => {
    const column = columns[index] as string
    const place = places[index]
    const nullsFollow = !descending && plan.nullable && index > 0 ? ` or ${column} is null` : ""
    const beyond =
      place === undefined
        ? descending
          ? `${column} is not null`
          : undefined
        : `${collated(plan, column)} ${descending ? "<" : ">"} ${place}${nullsFollow}`
    if (beyond !== undefined) alternatives.push([...equal, `(${beyond})`].join(" and "))
    equal.push(place === undefined ? `${column} is null` : `${column} = ${place}`)
  })
  const later = `(${alternatives.join(" or ")})`
  const [first] = order
  const [place] = places
  if (first === undefined || place === undefined) return later
  // said apart, so that an index on the first column finds the page's beginning
  return `${collated(first.plan, columns[0] as string)} ${first.descending ? "<=" : ">="} ${place} and ${later}`
}

/** What a cursor belongs to: the rows and their order. What is shown of them, and how many at once, may change. */
export const pageIdentity = (type: RecordType, { deleted, sort, where }: Pick<Query, "deleted" | "sort" | "where">) =>
  stringify([
    type.path,
    (where ?? null) as ExactValue,
    sort.map(({ descending, field }) => `${descending ? "-" : ""}${field}`),
    deleted ?? null
  ])

/** The fields that a query's rows and order depend on, as they are defined now: a cursor ends when one changes. */
export const fieldsIdentity = (type: RecordType, { sort, where }: Pick<Query, "sort" | "where">): string => {
  const names = new Set(sort.map(({ field }) => field))
  const walk = (node: Where): void => {
    if ("and" in node) node.and.forEach(walk)
    else if ("or" in node) node.or.forEach(walk)
    else if ("not" in node) walk(node.not)
    else names.add(node.field)
  }
  if (where !== undefined) walk(where)
  return [...names]
    .sort()
    .map((name) => {
      const plan = type.fields.get(name)
      return `${name}:${plan?.type}:${plan?.cast}:${plan?.nullable}`
    })
    .join()
}
