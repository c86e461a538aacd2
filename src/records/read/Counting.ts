/** `count=exact|estimated`: how many records all pages have together. */
import type { Caller } from "../../domain/Identity.ts"
import type { SqlResult, Statement } from "../../postgres/Statement.ts"
import type { RecordType } from "../type/RecordType.ts"
import * as ReadSql from "./ReadSql.ts"

/** An estimate where the caller may be told one; else what can be counted. */
export const countOf = (
  type: RecordType,
  caller: Caller,
  rows: ReadSql.Rows,
  count: "exact" | "estimated"
): Statement => {
  if (count === "exact") return ReadSql.countSql(type, caller, rows)
  return type.rowFilter("read", caller.roles)._tag === "All"
    ? ReadSql.estimateSql(type, caller, rows)
    : ReadSql.boundedCountSql(type, caller, rows)
}

/** The count in an answer, as JSON. */
export const countIn = (result: SqlResult | undefined): string => {
  const [row] = result?.rows ?? []
  if (row === undefined) return "null"
  if ("count" in row) return row.count === null ? "null" : String(row.count)
  const [told] = Object.values(row)
  const [plan] = (typeof told === "string" ? JSON.parse(told) : told) as ReadonlyArray<{
    readonly Plan: { readonly "Plan Rows": number }
  }>
  return String(Math.round(plan?.Plan["Plan Rows"] ?? 0))
}
