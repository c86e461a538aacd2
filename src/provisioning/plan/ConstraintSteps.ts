/** The steps that checks and foreign keys need. They are added NOT VALID in the switch, and proved afterwards. */

import { isLoosened, removedValues } from "../table/FieldChange.ts"
import { quoteName } from "../table/SqlText.ts"
import { commentOnConstraint, type WantedTable } from "../table/WantedTable.ts"
import { isOurs } from "./Comparison.ts"
import { type Draft, repair } from "./Draft.ts"
import { none, renderFinding } from "./Facts.ts"
import { step } from "./Plan.ts"

/** See the module. */
export const constraintSteps = (draft: Draft): void => {
  const { actual, alter, before, checks, conflict, copied, filled, found, isThere, keys } = draft
  const { named, notes, steps, target, types, unproved, validate, wanted } = draft
  const wantedNames = new Set([...wanted.checks, ...wanted.foreignKeys].map((part) => part.name))
  const isSystem = (name: string) => target.constraints[name]?.kind === "p" || target.constraints[name]?.kind === "u"
  for (const [name, is] of Object.entries(actual.constraints)) {
    if (wantedNames.has(name) || isSystem(name) || isOurs.constraint(name)) continue
    steps.cut.push(
      step(
        "switch",
        `remove ${is.comment ?? `the constraint ${name}`}`,
        [alter(`drop constraint ${quoteName(name)}`)],
        "ACCESS EXCLUSIVE"
      )
    )
  }
  for (const check of checks) {
    const { bound: field, field: name, purpose } = check
    if (types.get(name)?._tag === "Refused") continue
    const is = actual.constraints[check.name]
    const was = before.get(name)
    const quoted = quoteName(check.name)
    const drop = is === undefined || copied.has(name) ? [] : [alter(`drop constraint ${quoted}`)]
    const typed = types.has(name)
    // else the column's rows would be read for it while everybody waits
    if (typed && drop.length > 0) {
      steps.cut.push(step("switch", `${check.comment} away for a moment`, drop, "ACCESS EXCLUSIVE"))
    }
    const isSame = is !== undefined && is.definition === target.constraints[check.name]?.definition
    const loosened = isLoosened(was, field, purpose)
    const removed = purpose === "enum" ? removedValues(was, field) : []
    const gained =
      purpose === "enum" && was?.enum !== undefined ? (field.enum ?? []).filter((one) => !was.enum?.includes(one)) : []
    // of a new field nobody has said anything yet, and of no records there is no client
    const tightened = filled && isThere(name) && !isSame && !loosened
    const breaks = isThere(name) && !copied.has(name) ? found(`breaks ${check.name}`) : none
    if (copied.has(name) && found(`breaks ${check.name}`).count > 0) {
      conflict(check.at, `${check.comment} is not kept by ${renderFinding(found(`breaks ${check.name}`))}`)
      continue
    }
    const does =
      removed.length > 0
        ? `remove enum values ${removed.join(", ")} from ${name}`
        : gained.length > 0
          ? `add enum values to ${name}`
          : isSame || is === undefined
            ? check.comment
            : `${loosened ? "loosen" : "tighten"} ${check.comment}`
    const why = [
      ...(removed.length > 0
        ? ["clients that send them are refused"]
        : tightened
          ? ["clients that send what it does not admit are refused"]
          : []),
      ...(breaks.count > 0
        ? [`it is not kept by ${renderFinding(breaks)}; what is there stays, and cannot be changed without keeping it`]
        : [])
    ].join("; ")
    steps.add.push(
      step(
        "switch",
        does,
        [
          ...(typed ? [] : drop),
          alter(`add constraint ${quoted} check (${check.condition}) not valid`),
          commentOnConstraint(wanted, check),
          ...(filled ? [] : [alter(`validate constraint ${quoted}`)])
        ],
        "ACCESS EXCLUSIVE",
        { needsApproval: tightened || removed.length > 0 || breaks.count > 0, ...(why === "" ? {} : { why }) }
      )
    )
    if (!filled) continue
    if (breaks.count > 0) notes.push(`${check.comment} is not kept by ${renderFinding(breaks)}`)
    else validate(check.comment, partName(named, wanted, check.name))
  }
  for (const key of keys) {
    const is = actual.constraints[key.name]
    const quoted = quoteName(key.name)
    const was = before.get(key.field)?.ref
    const lost = isThere(key.field) ? found(`orphans ${key.name}`) : none
    if (lost.count > 0) {
      conflict(key.at, `there is no record of ${key.target} for ${renderFinding(lost)}`)
      continue
    }
    steps.add.push(
      step(
        "switch",
        `foreign key ${key.field}`,
        [
          ...(is === undefined ? [] : [alter(`drop constraint ${quoted}`)]),
          key.sql,
          commentOnConstraint(wanted, key),
          ...(filled ? [] : [alter(`validate constraint ${quoted}`)])
        ],
        "SHARE ROW EXCLUSIVE",
        is !== undefined && was !== undefined
          ? { needsApproval: true, why: "it refers to other records" }
          : filled && isThere(key.field) && was === undefined
            ? { needsApproval: true, why: "clients that name a record that is not there are refused" }
            : {}
      )
    )
    if (filled) validate(`foreign key ${key.field}`, partName(named, wanted, key.name))
  }
  for (const part of unproved) {
    const lost = "purpose" in part ? found(`breaks ${part.name}`) : found(`orphans ${part.name}`)
    if (lost.count > 0) notes.push(`${part.comment} is not kept by ${renderFinding(lost)}`)
    else validate(part.comment, partName(named, wanted, part.name), true)
  }
}

/** Comments of constraints that stay: one that has to do with a renamed or copied field is commented anew with it. */
export const constraintComments = ({ actual, checks, keys, steps, wanted }: Draft): void => {
  for (const part of [...wanted.checks, ...wanted.foreignKeys]) {
    const is = actual.constraints[part.name]
    if (
      is === undefined ||
      is.comment === part.comment ||
      checks.some((one) => one.name === part.name) ||
      keys.some((one) => one.name === part.name)
    )
      continue
    steps.add.push(step("switch", `comment ${part.comment}`, [commentOnConstraint(wanted, part)], "none", repair))
  }
}

/** What a part is called in the end. */
const partName = (named: WantedTable, wanted: WantedTable, name: string): string => {
  for (const kind of ["checks", "foreignKeys"] as const) {
    const index = wanted[kind].findIndex((one) => one.name === name)
    if (index >= 0) return named[kind][index]?.name ?? name
  }
  return name
}
