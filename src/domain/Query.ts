/**
 * What a list is asked for: one tree, whether it came as `filter[field][op]=value` in a URL (`QueryParams.ts`) or as
 * JSON in a body (`QueryBody.ts`).
 *
 * This is only grammar. Which fields exist, may be filtered and are readable by the caller is judged where the record
 * type is known (`records/QuerySql.ts`).
 */
import type { ExactValue } from "./ExactJson.ts"
import type { Fault } from "./Fault.ts"
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

const ordered: ReadonlyArray<QueryOperator> = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "is_null", "between"]
const closed: ReadonlyArray<QueryOperator> = ["eq", "neq", "in", "is_null"]

const operatorsByType: Readonly<Record<FieldType, ReadonlyArray<QueryOperator>>> = {
  string: queryOperators,
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

export const isOperator = (text: string): text is QueryOperator =>
  (queryOperators as ReadonlyArray<string>).includes(text)
