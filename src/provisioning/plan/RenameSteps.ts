/**
 * The steps that give fields their new names, and to constraints and indexes those that follow from them: at the end of the
 * switch, so that everything before it knows the former names.
 */
import { liveColumn } from "../../domain/Names.ts"
import { qualified, quoteName } from "../table/SqlText.ts"
import { commentOnConstraint, commentOnIndex } from "../table/WantedTable.ts"
import type { Draft } from "./Draft.ts"
import { step } from "./Plan.ts"

/** See the module. */
export const renameSteps = ({ alter, named, possible, steps, wanted }: Draft): void => {
  wanted.columns.forEach((column, position) => {
    const now = named.columns[position]
    if (now === undefined || now.name === column.name) return
    const live =
      column.live === undefined
        ? []
        : [alter(`rename column ${quoteName(liveColumn(column.name))} to ${quoteName(liveColumn(now.name))}`)]
    steps.rename.push(
      step(
        "switch",
        `rename ${column.name} to ${now.name}`,
        [alter(`rename column ${quoteName(column.name)} to ${quoteName(now.name)}`), ...live],
        "ACCESS EXCLUSIVE",
        { needsApproval: true, why: "clients that use the old name are refused" }
      )
    )
  })
  const renamedParts = [
    ...pairs(wanted.checks, named.checks).map(([was, now]) => [
      alter(`rename constraint ${quoteName(was.name)} to ${quoteName(now.name)}`),
      commentOnConstraint(named, now)
    ]),
    ...pairs(wanted.foreignKeys, named.foreignKeys)
      .filter(([was]) => possible.has(was.name))
      .map(([was, now]) => [
        alter(`rename constraint ${quoteName(was.name)} to ${quoteName(now.name)}`),
        commentOnConstraint(named, now)
      ]),
    ...pairs(wanted.indexes, named.indexes).map(([was, now]) => [
      `alter index ${qualified(wanted.schema, was.name)} rename to ${quoteName(now.name)}`,
      commentOnIndex(named, now)
    ])
  ]
  if (renamedParts.length > 0)
    steps.rename.push(step("switch", "names of constraints and indexes", renamedParts.flat(), "ACCESS EXCLUSIVE"))
}

/** The parts that get another name, with it. */
const pairs = <A extends { readonly name: string }>(
  was: ReadonlyArray<A>,
  now: ReadonlyArray<A>
): ReadonlyArray<readonly [A, A]> =>
  was.flatMap((one, index) => {
    const other = now[index]
    return other === undefined || other.name === one.name ? [] : [[one, other] as const]
  })
