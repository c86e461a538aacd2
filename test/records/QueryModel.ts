/** The query of a list over an array in memory: what `ReadRecords` must answer, written down independently of any SQL. */
import { compareDecimals } from "../../src/domain/ExactJson.ts"
import type { QueryOperator } from "../../src/domain/Query.ts"

/** A value as text in the form that its type compares by; json as its value. */
export type Cell = string | null
export type Kind = "string" | "decimal" | "float" | "boolean" | "plain" | "json"
export interface Column {
  readonly kind: Kind
  readonly operators: ReadonlyArray<QueryOperator>
}
export interface ModelRow {
  readonly id: string
  readonly deleted: boolean
  readonly cells: Readonly<Record<string, Cell>>
}
export type Condition =
  | { readonly field: string; readonly op: QueryOperator; readonly value: unknown }
  | { readonly and: ReadonlyArray<Condition> }
  | { readonly or: ReadonlyArray<Condition> }
  | { readonly not: Condition }

/** Three-valued: null is unknown. */
type Truth = boolean | null

const codePoints = (a: string, b: string): number => Buffer.compare(Buffer.from(a), Buffer.from(b))

export const compareCells = (kind: Kind, a: string, b: string): number => {
  switch (kind) {
    case "decimal":
      return compareDecimals(a, b)
    case "float":
      return Number(a) - Number(b)
    case "boolean":
      return Number(a === "true") - Number(b === "true")
    default:
      return codePoints(a, b)
  }
}

const canonical = (json: unknown): string =>
  JSON.stringify(json, (_, value) =>
    typeof value === "object" && value !== null && !Array.isArray(value)
      ? Object.fromEntries(Object.entries(value).sort(([a], [b]) => codePoints(a, b)))
      : value
  )

/** PostgreSQL, 8.14.3: objects by their members, arrays as sets, and an array contains a bare scalar. */
const contains = (whole: unknown, part: unknown, top = true): boolean => {
  if (Array.isArray(whole)) {
    if (Array.isArray(part)) return part.every((one) => whole.some((other) => contains(other, one, false)))
    return top && (typeof part !== "object" || part === null) && whole.some((one) => one === part)
  }
  if (typeof whole === "object" && whole !== null) {
    if (typeof part !== "object" || part === null || Array.isArray(part)) return false
    return Object.entries(part).every(
      ([key, value]) => key in whole && contains((whole as Record<string, unknown>)[key], value, false)
    )
  }
  return canonical(whole) === canonical(part)
}

/** `*` is any text, `\\` takes the next character as it is. */
const matches = (text: string, pattern: string, fold: boolean): boolean => {
  const folded = (one: string) => (fold ? one.toLowerCase() : one)
  let source = ""
  let escaped = false
  for (const character of folded(pattern)) {
    if (!escaped && character === "\\") escaped = true
    else {
      source += !escaped && character === "*" ? "[^]*" : `\\u{${character.codePointAt(0)?.toString(16)}}`
      escaped = false
    }
  }
  return new RegExp(`^${source}$`, "u").test(folded(text))
}

const leaf = (kind: Kind, cell: Cell, op: QueryOperator, value: unknown): Truth => {
  if (op === "is_null") return (cell === null) === value
  if (cell === null) return null
  const text = String(value)
  if (kind === "json") {
    const [have, asked] = [JSON.parse(cell), value]
    if (op === "contains") return contains(have, asked)
    return (canonical(have) === canonical(asked)) === (op === "eq")
  }
  const against = (other: unknown) => compareCells(kind, cell, String(other))
  switch (op) {
    case "eq":
      return against(value) === 0
    case "neq":
      return against(value) !== 0
    case "lt":
      return against(value) < 0
    case "lte":
      return against(value) <= 0
    case "gt":
      return against(value) > 0
    case "gte":
      return against(value) >= 0
    case "in":
      return (value as ReadonlyArray<unknown>).some((one) => against(one) === 0)
    case "between": {
      const [low, high] = value as ReadonlyArray<unknown>
      return against(low) >= 0 && against(high) <= 0
    }
    case "contains":
      return cell.includes(text)
    case "like":
      return matches(cell, text, false)
    case "ilike":
      return matches(cell, text, true)
  }
}

/** What a condition says of a row. */
export const judge = (columns: Readonly<Record<string, Column>>, row: ModelRow, where: Condition): Truth => {
  const all = (children: ReadonlyArray<Condition>) => children.map((child) => judge(columns, row, child))
  if ("and" in where) {
    const found = all(where.and)
    return found.includes(false) ? false : found.includes(null) ? null : true
  }
  if ("or" in where) {
    const found = all(where.or)
    return found.includes(true) ? true : found.includes(null) ? null : false
  }
  if ("not" in where) {
    const found = judge(columns, row, where.not)
    return found === null ? null : !found
  }
  if (where.field === "id") return leaf("plain", row.id, where.op, where.value)
  const column = columns[where.field]
  return column === undefined ? null : leaf(column.kind, row.cells[where.field] ?? null, where.op, where.value)
}

/** Rows in an order: NULLs last ascending and first descending, ties by id in the direction of the last term. */
export const sorted = (
  columns: Readonly<Record<string, Column>>,
  rows: ReadonlyArray<ModelRow>,
  sort: ReadonlyArray<string>
): ReadonlyArray<ModelRow> =>
  [...rows].sort((a, b) => {
    for (const term of sort) {
      const descending = term.startsWith("-")
      const name = descending ? term.slice(1) : term
      const [x, y] = name === "id" ? [a.id, b.id] : [a.cells[name] ?? null, b.cells[name] ?? null]
      // null is greater than everything
      const difference =
        x === null || y === null
          ? Number(x === null) - Number(y === null)
          : compareCells(columns[name]?.kind ?? "plain", x, y)
      if (difference !== 0) return descending ? -difference : difference
    }
    // ids go the way of the last term
    return sort.at(-1)?.startsWith("-") === true ? codePoints(b.id, a.id) : codePoints(a.id, b.id)
  })
