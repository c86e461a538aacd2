/** The query of a URL: `filter[field][op]=value`, `sort`, `select`, `include`, `limit`, `cursor`, `count`, `deleted`. */
import { isOperator, type Leaf, type ParsedQuery, queryLimits, queryOperators } from "./Query.ts"
import { Collector, finish, limitOf, named, sortOf } from "./QueryParts.ts"

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
