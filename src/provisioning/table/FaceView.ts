/**
 * What versions that share rows have in Postgres beside the one table: each later version a view over it, a history view of
 * its own, and the policies of the table, which tell the versions apart.
 *
 * A view is `security_invoker`: whoever reads or writes through it is judged by the table's policies as if he had named the
 * table. Columns that a version has no field for are in its view under names that no field can have, so that history can
 * keep the whole row; nothing that a caller asks for can name them.
 */
import { boundMeaning, type ConstraintMeaning, type Face, type FaceColumn, meanings } from "../../domain/Face.ts"
import { systemColumns } from "../../domain/Field.ts"
import { historyViewOf, rolesOf } from "../../domain/Names.ts"
import type { SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import { sha256Hex } from "../../domain/Sha256.ts"
import type { Family, Member } from "./Faces.ts"
import { underNames } from "./FieldChange.ts"
import { historyConditionOf, policiesOf, type TablePolicies } from "./Policies.ts"
import { nameList, qualified, quoteName, quoteText } from "./SqlText.ts"
import type { WantedTable } from "./WantedTable.ts"

/** A column's name in the view of a version that has no field for it; no field's name begins with `_`. */
export const hiddenColumn = (column: string): string => `_c_${sha256Hex(column).slice(0, 8)}`

/** The versions that are views. */
export const facesOf = ({ members }: Family): ReadonlyArray<Member> => members.slice(1)

/** A member's definition with its fields under their columns' names. */
const inColumns = ({ formerly }: Family, { columns, spec }: Member): SchemaDefinitionSpec => {
  const named = underNames(spec, columns)
  return {
    ...named,
    fields: named.fields.map(({ renamedFrom: _, ...field }) => {
      const names = formerly.get(field.name) ?? []
      return names.length === 0 ? field : { ...field, renamedFrom: names }
    })
  }
}

const enteredFor = ({ id }: Member): string => `(select coalesce(platform.ctx() ->> 'def' = '${id}', false))`

const isFree = (condition: string): boolean => condition === "true"

/** One condition for each version, each in force in what was entered under that version alone. */
const apart = (
  members: ReadonlyArray<Member>,
  conditions: ReadonlyArray<string>,
  otherwise: (conditions: ReadonlyArray<string>) => string | undefined
): string => {
  if (new Set(conditions).size === 1) return conditions[0] as string
  const each = members.map((member, index) => `(${enteredFor(member)} and (${conditions[index]}))`)
  const rest = otherwise(conditions)
  const none = members.map((member) => `not ${enteredFor(member)}`).join(" and ")
  return [...each, ...(rest === undefined ? [] : [`(${none} and ${rest})`])].join(" or ")
}

/**
 * The policies of a table that several versions share. A transaction is entered under one definition, and is held to that
 * one's row filters. What is read under another record type's (an include, a reference) may be of any version, and so must
 * be what all of them admit: a role that one version keeps from a row does not reach it by another's.
 */
export const sharedPolicies = (family: Family): TablePolicies => {
  const { members } = family
  const each = members.map((member) => policiesOf(inColumns(family, member), member.id))
  const all = (conditions: ReadonlyArray<string>) =>
    conditions
      .filter((one) => !isFree(one))
      .map((one) => `(${one})`)
      .join(" and ")
  return {
    select: apart(
      members,
      each.map((one) => one.select),
      all
    ),
    // rows are written under their own definition alone
    insert: apart(
      members,
      each.map((one) => one.insert),
      () => undefined
    ),
    update: apart(
      members,
      each.map((one) => one.update),
      () => undefined
    )
  }
}

/** What each member's past is narrowed to; undefined where it is not. */
export const historyCondition = (family: Family, member: Member): string | undefined =>
  historyConditionOf(inColumns(family, member))

/** The columns of the table, as a version's table or view shows them. */
export const faceColumns = (family: Family, member: Member): ReadonlyArray<FaceColumn> => {
  const fields = new Map([...member.columns].map(([field, column]) => [column, field]))
  const isTable = member === family.members[0]
  return family.spec.fields.map(({ name, type }): FaceColumn => {
    const field = fields.get(name)
    return {
      name,
      formerly: family.formerly.get(name) ?? [],
      ...(field === undefined ? {} : { field }),
      as: isTable ? name : (field ?? hiddenColumn(name)),
      type
    }
  })
}

/** What a version's view says of itself. */
export const faceComment = (member: Member): string => `Velocity record type ${member.path}`

/** The statements that make a version's view and its history view; the view must not be there. */
export const faceSql = (wanted: WantedTable, family: Family, member: Member): ReadonlyArray<string> => {
  const roles = rolesOf(wanted.schema)
  const all = nameList([roles.reader, roles.writer, roles.admin])
  const writers = nameList([roles.writer, roles.admin])
  const view = qualified(wanted.schema, member.relation)
  const history = qualified(wanted.schema, historyViewOf(member.relation))
  const list = [
    ...[...systemColumns, "_live"].map(quoteName),
    ...faceColumns(family, member).map(({ as, name }) =>
      as === name ? quoteName(name) : `${quoteName(name)} as ${quoteName(as)}`
    )
  ]
  return [
    `create view ${view} with (security_invoker = true) as select ${list.join(", ")} from ${wanted.table}`,
    `comment on view ${view} is ${quoteText(faceComment(member))}`,
    `grant select on ${view} to ${all}`,
    `grant insert, update on ${view} to ${writers}`,
    ...historySql(history, member.path, family.storage, historyCondition(family, member)),
    `grant select on ${history} to ${all}`
  ]
}

/** The view through which a version's past is read. */
export const historySql = (
  view: string,
  path: string,
  storage: number,
  condition: string | undefined
): ReadonlyArray<string> => [
  `create or replace view ${view} with (security_barrier = true) as
  select id as event_id, entity_id, version, op, occurred_at, actor, request_id, changed, state
  from platform.event_log where storage_id = ${storage}${condition === undefined ? "" : ` and (${condition})`}`,
  `comment on view ${view} is ${quoteText(`The past of ${path}`)}`
]

/** What a version's constraints mean in its own words: those of the whole table, whoever asked for them. */
const meaningsOf = (wanted: WantedTable, member: Member): Readonly<Record<string, ConstraintMeaning>> => {
  const fields = new Map([...member.columns].map(([field, column]) => [column, field]))
  const named = (columns: ReadonlyArray<string>) =>
    columns.flatMap((column) => {
      const field = fields.get(column)
      return field === undefined ? [] : [field]
    })
  const found: Record<string, ConstraintMeaning> = {}
  for (const { bound, field, name, purpose } of wanted.checks) {
    found[name] = { kind: "check", fields: named([field]), ...boundMeaning(bound, purpose) }
  }
  for (const { fields: columns, name, unique } of wanted.indexes) {
    const meaning = !unique ? meanings.index : columns.length === 1 ? meanings.unique : meanings.uniqueTogether
    found[name] = { ...meaning, fields: named(columns) }
  }
  for (const { field, name } of wanted.foreignKeys) found[name] = { ...meanings.foreignKey, fields: named([field]) }
  return found
}

/** How a version is served. */
export const faceOf = (wanted: WantedTable, family: Family, member: Member): Face => ({
  table: wanted.name,
  paths: family.members.map(({ path }) => path),
  columns: faceColumns(family, member),
  constraints: meaningsOf(wanted, member)
})

/** The family with its columns under other names: those that they still have. */
export const familyUnder = (family: Family, former: ReadonlyMap<string, string>): Family => {
  if (former.size === 0) return family
  const was = (column: string) => former.get(column) ?? column
  const members = family.members.map((member, index) =>
    index === 0
      ? {
          ...member,
          spec: underNames(member.spec, former),
          columns: new Map([...member.columns].map(([field, column]) => [was(field), was(column)]))
        }
      : { ...member, columns: new Map([...member.columns].map(([field, column]) => [field, was(column)])) }
  ) as unknown as Family["members"]
  const { place } = family
  const now = new Map([...former].map(([name, before]) => [before, name]))
  return {
    ...family,
    members,
    wanted: members[family.members.indexOf(family.wanted)] ?? family.wanted,
    spec: underNames(family.spec, former),
    bounds: family.bounds.map((one) => ({ ...one, field: { ...one.field, name: was(one.field.name) } })),
    optional: new Map([...family.optional].map(([name, versions]) => [was(name), versions])),
    formerly: new Map([...family.formerly].map(([name, names]) => [was(name), names])),
    place: (column, index) => place(now.get(column) ?? column, index)
  }
}
