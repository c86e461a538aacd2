/** What the two readers of queries, of a URL and of a body, share: the parts beside the conditions, and the limits. */
import { type Fault, fault } from "./Fault.ts"
import { type ParsedQuery, type Query, queryLimits, type SortTerm, type Where } from "./Query.ts"

/** Counts conditions; the tree is no deeper than was parsed. */
const countTerms = (where: Where): number =>
  "and" in where
    ? where.and.reduce((sum, child) => sum + countTerms(child), 0)
    : "or" in where
      ? where.or.reduce((sum, child) => sum + countTerms(child), 0)
      : "not" in where
        ? countTerms(where.not)
        : 1

type Code = "malformed_query" | "unknown_operator" | "query_too_large"

/** Gathers every fault of a query; the first one's code is the problem's. */
export class Collector {
  readonly faults: Array<Fault> = []
  code: Code = "malformed_query"
  add(path: ReadonlyArray<PropertyKey>, code: Code, detail: string): void {
    if (this.faults.length === 0) this.code = code
    this.faults.push(fault(path, code, detail))
  }
}

export const sortOf = (
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

export const limitOf = (value: number | undefined, path: ReadonlyArray<PropertyKey>, say: Collector): number => {
  if (value === undefined) return queryLimits.defaultLimit
  if (!Number.isInteger(value) || value < 1) {
    say.add(path, "malformed_query", "limit is a whole number from 1 to 1000")
    return queryLimits.defaultLimit
  }
  if (value > queryLimits.limit) say.add(path, "query_too_large", `limit is at most ${queryLimits.limit}`)
  return value
}

export const named = <const A extends ReadonlyArray<string>>(
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

/** The query, when nothing was wrong with its parts and they keep the limits. */
export const finish = (parts: Parts, say: Collector): ParsedQuery => {
  if (parts.where !== undefined && countTerms(parts.where) > queryLimits.terms) {
    say.add(["where"], "query_too_large", `at most ${queryLimits.terms} conditions`)
  }
  if (parts.include.length > queryLimits.includes) {
    say.add(["include"], "query_too_large", `at most ${queryLimits.includes} includes`)
  }
  for (const key of ["select", "include"] as const) {
    if (parts[key]?.includes("") === true) say.add([key], "malformed_query", `${key} has an empty name`)
  }
  for (const include of parts.include) {
    // a level is a ref field, or an object and its ref field
    if (include.split(".").length > 4) say.add(["include"], "query_too_large", "includes go two levels deep")
  }
  if (say.faults.length > 0) return { faults: say.faults, code: say.code }
  const given = Object.entries(parts).filter(([, value]) => value !== undefined)
  return { query: Object.fromEntries(given) as unknown as Query }
}
