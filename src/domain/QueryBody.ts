/** The query of `POST P/query`: `{where, sort, select, include, limit, cursor, count, deleted}`. */
import { ExactNumber, type ExactValue, isExactObject } from "./ExactJson.ts"
import { fault } from "./Fault.ts"
import { isOperator, type ParsedQuery, queryLimits, queryOperators, type Where } from "./Query.ts"
import { Collector, finish, limitOf, named, sortOf } from "./QueryParts.ts"

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
        op === "in" ? "in takes an array of at least one" : "between takes an array of two"
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
