/** The steps that indexes need: built outside transactions where there are records, and swapped with their columns. */

import { qualified, quoteName } from "../table/SqlText.ts"
import { commentOnIndex, indexSql } from "../table/WantedTable.ts"
import { isOurs, successorIndex, successorOf, uniques } from "./Comparison.ts"
import { type Draft, repair } from "./Draft.ts"
import { renderFinding } from "./Facts.ts"
import { step } from "./Plan.ts"

/** See the module. */
export const indexSteps = (draft: Draft): void => {
  const { actual, before, conflict, copied, estimate, filled, found, indexes, isThere, steps, target, types, wanted } =
    draft
  for (const [name, is] of Object.entries(actual.indexes)) {
    if (target.indexes[name] !== undefined || isOurs.index(name)) continue
    steps.cut.push(
      step(
        "switch",
        `remove ${is.comment ?? `the index ${name}`}`,
        [`drop index ${qualified(wanted.schema, name)}`],
        "ACCESS EXCLUSIVE"
      )
    )
  }
  for (const { at, name } of uniques(draft)) {
    const doubles = found(`doubles ${name}`)
    if (doubles.count > 0) conflict(at, `not unique: ${renderFinding(doubles, "value")}`)
  }
  const swaps: Array<string> = []
  for (const index of indexes) {
    const { fields, name, unique } = index
    if (fields.some((field) => types.get(field)?._tag === "Refused")) continue
    const does = `${unique ? "unique" : "index"} ${fields.join(", ")}`
    const swap = fields.some((field) => copied.has(field))
    const is = actual.indexes[name]
    const isOther = is?.valid === true && is.definition !== target.indexes[name]?.definition
    if (filled) {
      const made = swap ? successorIndex(name) : name
      if (isOther && !swap) {
        steps.expand.push(
          step(
            "expand",
            `drop another index of the name ${name}`,
            [`drop index ${qualified(wanted.schema, name)}`],
            "ACCESS EXCLUSIVE",
            { object: made, repairs: !unique }
          )
        )
      }
      const isPromised = fields.length === 1 && before.get(fields[0] ?? "")?.unique === true
      const narrows = unique && is?.valid !== true && !isPromised && fields.some(isThere)
      steps.build.push(
        step(
          "build",
          does,
          [
            indexSql(wanted, index, {
              name: made,
              concurrently: true,
              columnOf: (field) => (copied.has(field) ? successorOf(field) : field)
            })
          ],
          "SHARE UPDATE EXCLUSIVE",
          {
            concurrently: true,
            object: made,
            repairs: !unique,
            ...estimate,
            ...(narrows ? { needsApproval: true, why: "clients that repeat a value are refused" } : {})
          }
        )
      )
      if (swap) swaps.push(`alter index ${qualified(wanted.schema, made)} rename to ${quoteName(name)}`)
      const about = { object: made, repairs: !unique }
      steps.add.push(step("switch", `comment ${does}`, [commentOnIndex(wanted, index)], "none", about))
    } else {
      const drop = is !== undefined && !swap ? [`drop index ${qualified(wanted.schema, name)}`] : []
      steps.add.push(
        step("switch", does, [...drop, indexSql(wanted, index), commentOnIndex(wanted, index)], "ACCESS EXCLUSIVE", {
          repairs: !unique
        })
      )
    }
  }
  if (swaps.length > 0) steps.change.push(step("switch", "the new columns' indexes", swaps, "ACCESS EXCLUSIVE"))
  // an index that has to do with a renamed or copied field is commented anew with it
  for (const index of wanted.indexes) {
    const is = actual.indexes[index.name]
    if (indexes.includes(index) || is === undefined || is.comment === index.comment) continue
    steps.add.push(step("switch", `comment ${index.comment}`, [commentOnIndex(wanted, index)], "none", repair))
  }
}
