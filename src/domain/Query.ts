/**
 * What a list is asked for: one tree, whether it came as `filter[field][op]=value` in a URL or as JSON in a body.
 *
 * This is only grammar. Which fields exist, may be filtered and are readable by the caller is judged where the record
 * type is known (`records/QuerySql.ts`).
 */

import { ExactNumber, type ExactValue, isExactObject } from "./ExactJson.ts"
import { type Fault, fault } from "./Fault.ts"
import type { FieldType } from "./Field.ts"

export const queryOperators = [
  "eq",
  "neq",
  "lt",
  "lte",
  "gt",
  "gte",
  "in",
  "like",
  "ilike",
  "contains",
  "is_null",
  "between"
] as const
export type QueryOperator = (typeof queryOperators)[number]

/** A value of a condition: text as it stands in a URL, or a JSON value. */
export type QueryValue = ExactValue

export interface Leaf {
  readonly field: string
  readonly op: QueryOperator
  /** One value; for `in` and `between` an array. */
  readonly value: QueryValue
}
export type Where =
  | Leaf
  | { readonly and: ReadonlyArray<Where> }
  | { readonly or: ReadonlyArray<Where> }
  | { readonly not: Where }

export interface SortTerm {
  readonly field: string
  readonly descending: boolean
}

export interface Query {
  readonly where?: Where
  readonly sort: ReadonlyArray<SortTerm>
  /** `name`, or `supplier.name` for a field of an included record. */
  readonly select?: ReadonlyArray<string>
  /** `supplier`, `supplier.country`, or `{object}.{ref}` for the records that refer to this one. */
  readonly include: ReadonlyArray<string>
  readonly limit: number
  readonly cursor?: string
  readonly count?: "exact" | "estimated"
  /** Deleted records instead of (`only`) or beside (`with`) the live ones. */
  readonly deleted?: "only" | "with"
}

export const queryLimits = {
  terms: 64,
  depth: 32,
  includes: 4,
  sortTerms: 8,
  limit: 1000,
  defaultLimit: 50,
  inValues: 500
} as const

export type ParsedQuery =
  | { readonly query: Query }
  | { readonly faults: ReadonlyArray<Fault>; readonly code: "malformed_query" | "unknown_operator" | "query_too_large" }

const textual: ReadonlyArray<QueryOperator> = [
  "eq",
  "neq",
  "lt",
  "lte",
  "gt",
  "gte",
  "in",
  "like",
  "ilike",
  "contains",
  "is_null",
  "between"
]
const ordered: ReadonlyArray<QueryOperator> = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "is_null", "between"]
const closed: ReadonlyArray<QueryOperator> = ["eq", "neq", "in", "is_null"]

const operatorsByType: Readonly<Record<FieldType, ReadonlyArray<QueryOperator>>> = {
  string: textual,
  integer: ordered,
  number: ordered,
  date: ordered,
  time: ordered,
  timestamp: ordered,
  uuid: ordered,
  boolean: closed,
  enum: closed,
  ref: closed,
  json: ["eq", "neq", "contains", "is_null"],
  bytes: ["eq", "neq", "is_null"]
}

/** What a field of this type can be asked. */
export const operatorsOf = (type: FieldType): ReadonlyArray<QueryOperator> => operatorsByType[type]

const isOperator = (text: string): text is QueryOperator => (queryOperators as ReadonlyArray<string>).includes(text)

/**
 * A comma-separated list as CSV quotes it (RFC 4180): `a,"b,c","say ""so"""`. Undefined when a quote is not closed or
 * stands in the middle.
 */
export const splitList = (text: string): ReadonlyArray<string> | undefined => {
  const values: Array<string> = []
  let index = 0
  for (;;) {
    if (text[index] === '"') {
      let value = ""
      for (index += 1; ; ) {
        const end = text.indexOf('"', index)
        if (end < 0) return undefined
        value += text.slice(index, end)
        index = end + 1
        if (text[index] !== '"') break
        value += '"'
        index += 1
      }
      values.push(value)
      if (index === text.length) return values
      if (text[index] !== ",") return undefined
      index += 1
    } else {
      const comma = text.indexOf(",", index)
      const value = comma < 0 ? text.slice(index) : text.slice(index, comma)
      if (value.includes('"')) return undefined
      values.push(value)
      if (comma < 0) return values
      index = comma + 1
    }
  }
}

/** Counts conditions; the tree is no deeper than was parsed. */
const countTerms = (where: Where): number =>
  "and" in where
    ? where.and.reduce((sum, child) => sum + countTerms(child), 0)
    : "or" in where
      ? where.or.reduce((sum, child) => sum + countTerms(child), 0)
      : "not" in where
        ? countTerms(where.not)
        : 1

class Collector {
  readonly faults: Array<Fault> = []
  code: "malformed_query" | "unknown_operator" | "query_too_large" = "malformed_query"
  add(path: ReadonlyArray<PropertyKey>, code: typeof this.code, detail: string): void {
    if (this.faults.length === 0) this.code = code
    this.faults.push(fault(path, code, detail))
  }
}

const sortOf = (
  terms: ReadonlyArray<string>,
  path: ReadonlyArray<PropertyKey>,
  say: Collector
): ReadonlyArray<SortTerm> => {
  const sorted = terms.map((term) => ({ field: term.replace(/^-/u, ""), descending: term.startsWith("-") }))
  if (sorted.length > queryLimits.sortTerms)
    say.add(path, "query_too_large", `at most ${queryLimits.sortTerms} sort terms`)
  const seen = new Set<string>()
  for (const { field } of sorted) {
    if (field === "") say.add(path, "malformed_query", "a sort term is empty")
    else if (seen.has(field)) say.add(path, "malformed_query", `${field} is sorted by twice`)
    seen.add(field)
  }
  return sorted
}

const limitOf = (value: number | undefined, path: ReadonlyArray<PropertyKey>, say: Collector): number => {
  if (value === undefined) return queryLimits.defaultLimit
  if (!Number.isInteger(value) || value < 1) {
    say.add(path, "malformed_query", "limit is a whole number from 1 to 1000")
    return queryLimits.defaultLimit
  }
  if (value > queryLimits.limit) say.add(path, "query_too_large", `limit is at most ${queryLimits.limit}`)
  return value
}

const named = <const A extends ReadonlyArray<string>>(
  value: string | undefined,
  allowed: A,
  path: ReadonlyArray<PropertyKey>,
  say: Collector
): A[number] | undefined => {
  if (value === undefined || allowed.includes(value)) return value
  say.add(path, "malformed_query", `${path.join(".")} is one of ${allowed.join(", ")}`)
  return undefined
}

interface Parts {
  readonly where: Where | undefined
  readonly sort: ReadonlyArray<SortTerm>
  readonly select: ReadonlyArray<string> | undefined
  readonly include: ReadonlyArray<string>
  readonly limit: number
  readonly cursor: string | undefined
  readonly count: "exact" | "estimated" | undefined
  readonly deleted: "only" | "with" | undefined
}

const finish = (parts: Parts, say: Collector): ParsedQuery => {
  if (parts.where !== undefined && countTerms(parts.where) > queryLimits.terms) {
    say.add(["where"], "query_too_large", `at most ${queryLimits.terms} conditions`)
  }
  if (parts.include.length > queryLimits.includes) {
    say.add(["include"], "query_too_large", `at most ${queryLimits.includes} includes`)
  }
  for (const include of parts.include) {
    // a level is a ref field, or an object and its ref field
    if (include.split(".").length > 4) say.add(["include"], "query_too_large", "includes go two levels deep")
  }
  if (say.faults.length > 0) return { faults: say.faults, code: say.code }
  const given = Object.entries(parts).filter(([, value]) => value !== undefined)
  return { query: Object.fromEntries(given) as unknown as Query }
}

const filterKey = /^filter\[([^[\]]*)\]\[([^[\]]*)\]$/u

/** One condition of a URL; lists are CSV, `is_null` is true or false. */
const leafOf = (field: string, op: string, text: string, key: string, say: Collector): Leaf | undefined => {
  if (!isOperator(op)) {
    say.add([key], "unknown_operator", `there is no operator ${op}; there are ${queryOperators.join(", ")}`)
    return undefined
  }
  if (op === "in" || op === "between") {
    const values = splitList(text)
    if (values === undefined) {
      say.add(
        [key],
        "malformed_query",
        'a list is separated by commas; a value with a comma or a quote is quoted: in=a,"b,c"'
      )
      return undefined
    }
    if (op === "between" && values.length !== 2) {
      say.add([key], "malformed_query", "between takes two values")
      return undefined
    }
    if (values.length > queryLimits.inValues) {
      say.add([key], "query_too_large", `in takes at most ${queryLimits.inValues} values`)
      return undefined
    }
    return { field, op, value: values }
  }
  if (op === "is_null") {
    if (text !== "true" && text !== "false") {
      say.add([key], "malformed_query", "is_null is true or false")
      return undefined
    }
    return { field, op, value: text === "true" }
  }
  return { field, op, value: text }
}

const listed = (text: string | undefined): ReadonlyArray<string> | undefined =>
  text === undefined ? undefined : text.split(",").map((part) => part.trim())

const single = new Set(["sort", "select", "include", "limit", "cursor", "count", "deleted"])

/**
 * The query of a URL's parameters. Several conditions are ANDed, and a repeated key is one more condition. Unknown
 * parameters are refused.
 */
export const fromParams = (params: Readonly<Record<string, string | ReadonlyArray<string>>>): ParsedQuery => {
  const say = new Collector()
  const leaves: Array<Leaf> = []
  const one = new Map<string, string>()
  for (const [key, given] of Object.entries(params)) {
    const values = typeof given === "string" ? [given] : given
    const filter = filterKey.exec(key)
    if (filter !== null) {
      const [, field = "", op = ""] = filter
      for (const value of values) {
        const leaf = leafOf(field, op, value, key, say)
        if (leaf !== undefined) leaves.push(leaf)
      }
    } else if (!single.has(key)) {
      say.add([key], "malformed_query", `there is no parameter ${key}`)
    } else if (values.length !== 1) {
      say.add([key], "malformed_query", `${key} is given more than once`)
    } else {
      one.set(key, values[0] ?? "")
    }
  }
  const limit = one.get("limit")
  const sort = one.get("sort")
  return finish(
    {
      where: leaves.length === 0 ? undefined : leaves.length === 1 ? leaves[0] : { and: leaves },
      sort: sort === undefined ? [] : sortOf(listed(sort) ?? [], ["sort"], say),
      select: listed(one.get("select")),
      include: listed(one.get("include")) ?? [],
      limit: limitOf(
        limit === undefined ? undefined : /^[0-9]{1,6}$/u.test(limit) ? Number(limit) : Number.NaN,
        ["limit"],
        say
      ),
      cursor: one.get("cursor"),
      count: named(one.get("count"), ["exact", "estimated"], ["count"], say),
      deleted: named(one.get("deleted"), ["only", "with"], ["deleted"], say)
    },
    say
  )
}

const bodyKeys = new Set(["where", "sort", "select", "include", "limit", "cursor", "count", "deleted"])

const texts = (value: ExactValue | undefined, key: string, say: Collector): ReadonlyArray<string> | undefined => {
  if (value === undefined) return undefined
  if (Array.isArray(value) && value.every((item) => typeof item === "string")) return value as ReadonlyArray<string>
  say.add([key], "malformed_query", `${key} is an array of strings`)
  return undefined
}

const textOf = (value: ExactValue | undefined, key: string, say: Collector): string | undefined => {
  if (value === undefined || typeof value === "string") return value
  say.add([key], "malformed_query", `${key} is a string`)
  return undefined
}

const whereOf = (
  value: ExactValue | undefined,
  path: ReadonlyArray<PropertyKey>,
  depth: number,
  say: Collector
): Where | undefined => {
  if (depth > queryLimits.depth) {
    say.add(path, "query_too_large", `conditions are nested deeper than ${queryLimits.depth}`)
    return undefined
  }
  if (!isExactObject(value)) {
    say.add(path, "malformed_query", "a condition is an object: {field, op, value}, {and}, {or} or {not}")
    return undefined
  }
  const keys = Object.keys(value)
  const [only] = keys
  if (keys.length === 1 && (only === "and" || only === "or")) {
    const children = value[only]
    if (!Array.isArray(children) || children.length === 0) {
      say.add([...path, only], "malformed_query", `${only} is an array of at least one condition`)
      return undefined
    }
    const parsed = children.map((child, index) => whereOf(child, [...path, only, index], depth + 1, say))
    const kept = parsed.filter((child) => child !== undefined)
    return only === "and" ? { and: kept } : { or: kept }
  }
  if (keys.length === 1 && only === "not") {
    const child = whereOf(value.not, [...path, "not"], depth + 1, say)
    return child === undefined ? undefined : { not: child }
  }
  const { field, op, value: operand } = value
  const strangers = keys.filter((key) => key !== "field" && key !== "op" && key !== "value")
  if (typeof field !== "string" || typeof op !== "string" || operand === undefined || strangers.length > 0) {
    say.add(path, "malformed_query", "a condition has exactly field, op and value, or exactly one of and, or, not")
    return undefined
  }
  if (!isOperator(op)) {
    say.add([...path, "op"], "unknown_operator", `there is no operator ${op}; there are ${queryOperators.join(", ")}`)
    return undefined
  }
  if (op === "in" || op === "between") {
    if (!Array.isArray(operand) || operand.length === 0 || (op === "between" && operand.length !== 2)) {
      say.add(
        [...path, "value"],
        "malformed_query",
        op === "in" ? "in takes an array" : "between takes an array of two"
      )
      return undefined
    }
    if (operand.length > queryLimits.inValues) {
      say.add([...path, "value"], "query_too_large", `in takes at most ${queryLimits.inValues} values`)
      return undefined
    }
  } else if (op === "is_null" && typeof operand !== "boolean") {
    say.add([...path, "value"], "malformed_query", "is_null is true or false")
    return undefined
  }
  return { field, op, value: operand }
}

/** The query of a JSON body. */
export const fromBody = (body: ExactValue): ParsedQuery => {
  const say = new Collector()
  if (!isExactObject(body))
    return { faults: [fault([], "malformed_query", "a query is an object")], code: "malformed_query" }
  for (const key of Object.keys(body)) {
    if (!bodyKeys.has(key)) say.add([key], "malformed_query", `there is no member ${key}`)
  }
  const limit = body.limit
  if (limit !== undefined && !(limit instanceof ExactNumber)) say.add(["limit"], "malformed_query", "limit is a number")
  return finish(
    {
      where: body.where === undefined ? undefined : whereOf(body.where, ["where"], 1, say),
      sort: sortOf(texts(body.sort, "sort", say) ?? [], ["sort"], say),
      select: texts(body.select, "select", say),
      include: texts(body.include, "include", say) ?? [],
      limit: limitOf(limit instanceof ExactNumber ? limit.toNumber() : undefined, ["limit"], say),
      cursor: textOf(body.cursor, "cursor", say),
      count: named(textOf(body.count, "count", say), ["exact", "estimated"], ["count"], say),
      deleted: named(textOf(body.deleted, "deleted", say), ["only", "with"], ["deleted"], say)
    },
    say
  )
}
