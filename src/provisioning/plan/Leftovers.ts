/**
 * What a plan makes for itself (a column's successor, the trigger that fills it, indexes of both) and leaves behind when it
 * ends before its switch. Pure.
 */
import type { Catalogue } from "../table/Catalogue.ts"
import { qualified, quoteName } from "../table/SqlText.ts"
import { isOurs } from "./Comparison.ts"

/** The statements that clear it away; `uniques` are further indexes, which go if they are unique. */
export const leftovers = (
  { columns, indexes, triggers }: Catalogue,
  schema: string,
  name: string,
  uniques: ReadonlySet<string> = new Set()
): ReadonlyArray<string> => {
  const table = qualified(schema, name)
  return [
    ...Object.keys(triggers)
      .filter(isOurs.trigger)
      .map((one) => `drop trigger ${quoteName(one)} on ${table}`),
    ...Object.entries(indexes)
      .filter(
        ([one, { definition }]) => isOurs.index(one) || (uniques.has(one) && /^create unique /iu.test(definition))
      )
      .map(([one]) => `drop index ${qualified(schema, one)}`),
    ...Object.keys(columns)
      .filter(isOurs.column)
      .map((one) => `alter table ${table} drop column ${quoteName(one)}`)
  ]
}
