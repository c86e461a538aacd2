/**
 * What a plan takes for granted of the records, and asks once more in the switch, when nobody writes any more: that there are
 * none, that each value fits its new type. Where it holds no longer the transaction is undone, the plan is overtaken, and
 * what it has become is judged anew.
 */
import { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { quoteText } from "../table/SqlText.ts"
import type { Draft } from "./Draft.ts"

const code = "VL050"

/** Raises where a query finds a row. `what` says what then is so; it never quotes a value. */
export const unless = (select: string, what: string): string =>
  `do $$begin if exists (${select}) then raise exception using errcode = '${code}', message = ${quoteText(what)}; end if; end$$`

/** What a plan took for granted and is no longer so; undefined for any other error. */
export const brokenBy = (error: unknown): string | undefined =>
  error instanceof DatabaseFailure && error.reason._tag === "Platform" && error.reason.code === code
    ? error.reason.message
    : undefined

/** Nobody reads or writes a table from here to the end of the transaction. */
export const shut = (table: string): string => `lock table ${table} in access exclusive mode`

/** A table without records is changed without regard to any; so the first step that changes it sees that none has come. */
export const premiseOfNone = ({ filled, steps, wanted }: Draft): void => {
  const changing = [steps.cut, steps.change, steps.add].find((some) => some.some((one) => one.lock !== "none"))
  const at = changing?.findIndex((one) => one.lock !== "none") ?? -1
  const first = changing?.[at]
  if (filled || changing === undefined || first === undefined) return
  const holds = [
    shut(wanted.table),
    unless(`select from ${wanted.table}`, "records came, and the plan was made for none")
  ]
  changing[at] = { ...first, sql: [...holds, first.sql].join(";\n"), lock: "ACCESS EXCLUSIVE" }
}
