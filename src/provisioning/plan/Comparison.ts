/**
 * How a table as the catalogue has it and the table that is wanted compare: which parts are not there as they should be, and
 * what must be asked of the rows before there can be a plan. Pure.
 *
 * Fields that have a new name are compared under their former one.
 */
import type { Field } from "../../domain/Field.ts"
import { sha256Hex } from "../../domain/Sha256.ts"
import type { Catalogue } from "../table/Catalogue.ts"
import { type TypeChange, typeChangeOf } from "../table/FieldChange.ts"
import { qualified, quoteName, quoteText } from "../table/SqlText.ts"
import type { WantedCheck, WantedForeignKey, WantedIndex, WantedTable } from "../table/WantedTable.ts"
import type { Question } from "./Facts.ts"

/** What a diff is made of. */
export interface Comparison {
  readonly actual: Catalogue
  /** The wanted table's catalogue, under former names. */
  readonly target: Catalogue
  /** Under former names. */
  readonly wanted: WantedTable
  /** Under the names that it will have; the same parts in the same order. */
  readonly named: WantedTable
  /** The fields of the version that is applied, by the columns that they will be. */
  readonly fields: ReadonlyMap<string, string>
  /** The foreign keys whose targets are served. */
  readonly possible: ReadonlySet<string>
  /** The fields that were served last, by the names they had. */
  readonly before: ReadonlyMap<string, Field>
  /** The statements that make policies, grants and view, under the names that they will have. */
  readonly access: ReadonlyArray<string>
  /** The version that is applied, and the fields it was served with that go from it and not from the table. */
  readonly version: string
  readonly gone: ReadonlyArray<string>
  /** Columns that other versions have, let be empty and give no default, with those versions. */
  readonly optional: ReadonlyMap<string, ReadonlyArray<string>>
}

const short = (text: string): string => sha256Hex(text).slice(0, 8)
/** The column that will be the field's when its type has changed; no field's name begins with `_`. */
export const successorOf = (field: string): string => `_n_${short(field)}`
const copyPrefix = "velocity_copy_"
export const copyTrigger = (field: string): string => `${copyPrefix}${short(field)}`
export const notNullCheck = (table: string, field: string): string => `nn_${short(`${table}|${field}`)}`
export const successorIndex = (name: string): string => `${name}_n`
/** Of the records whose value has no successor. */
export const unfitIndex = (table: string, field: string): string => `fit_${short(`${table}|${field}`)}_n`

export const isOurs = {
  column: (name: string) => name.startsWith("_n_"),
  constraint: (name: string) => name.startsWith("nn_"),
  index: (name: string) => name.endsWith("_n"),
  trigger: (name: string) => name.startsWith(copyPrefix)
}

/** What changes of a column's type there are, by field. */
const typeChanges = ({ actual, target, wanted }: Comparison): ReadonlyMap<string, TypeChange> =>
  new Map(
    wanted.columns.flatMap(({ name }) => {
      const is = actual.columns[name]
      const want = target.columns[name]
      if (is === undefined || want === undefined) return []
      if (is.type === want.type && is.collation === want.collation) return []
      return [[name, typeChangeOf(is.type, want.type)] as const]
    })
  )

/** A column's value in another type, rounded if it must be; NULL where the type does not hold it. */
const rounded = (name: string, type: string): string =>
  `case when pg_input_is_valid(${quoteName(name)}::text, ${quoteText(type)}) then ${quoteName(name)}::${type} end`

/** A column's value in another type; NULL where the type does not hold it as it is. Types are copied from number to number. */
const exact = (name: string, type: string): string =>
  // by way of text, because a float becomes a numeric of fifteen digits
  `case when (${rounded(name, type)})::text::numeric = ${quoteName(name)}::numeric then ${quoteName(name)}::${type} end`

/** What a column's successor is to hold. */
export const successorValue = (name: string, type: string, rounds: boolean): string =>
  rounds ? rounded(name, type) : exact(name, type)

export const involves = (fields: ReadonlyArray<string>, names: { has(name: string): boolean }): boolean =>
  fields.some((one) => names.has(one))

/** The parts of a wanted table that are not there as they should be. */
export const parts = (comparison: Comparison) => {
  const { actual, possible, target, wanted } = comparison
  const types = typeChanges(comparison)
  const isThere = (name: string) => actual.columns[name] !== undefined
  const differs = (part: WantedCheck | WantedForeignKey) =>
    actual.constraints[part.name]?.definition !== target.constraints[part.name]?.definition
  return {
    types,
    isThere,
    checks: wanted.checks.filter((check) => differs(check) || types.has(check.field)),
    keys: wanted.foreignKeys.filter((key) => possible.has(key.name) && differs(key)),
    indexes: wanted.indexes.filter((index) => {
      const is = actual.indexes[index.name]
      if (is === undefined || !is.valid || is.definition !== target.indexes[index.name]?.definition) return true
      return index.fields.some((field) => types.get(field)?._tag === "Copy")
    }),
    /** Of constraints that are as wanted but were never proved. */
    unproved: [...wanted.checks, ...wanted.foreignKeys].filter(
      (part) => !differs(part) && actual.constraints[part.name]?.validated === false && !involves(part.fields, types)
    ),
    required: wanted.columns.filter(
      ({ field, name }) => field.required && isThere(name) && actual.columns[name]?.notNull === false
    )
  }
}

const orphans = (wanted: WantedTable, key: WantedForeignKey): string =>
  `select c.id::text as hit from ${wanted.table} c where c.${quoteName(key.field)} is not null and c.deleted_at is null
     and not exists (select from ${qualified(wanted.schema, key.targetTable)} p where p.id = c.${quoteName(key.field)} and p._live)`

/** The unique indexes that are new, or over a field whose values change. */
export const uniques = (comparison: Comparison): ReadonlyArray<WantedIndex> => {
  const { indexes, required } = parts(comparison)
  const filled = new Set(required.map(({ name }) => name))
  return comparison.wanted.indexes.filter(
    (index) => index.unique && (indexes.includes(index) || involves(index.fields, filled))
  )
}

/** What a field will hold in the rows that are there: an expression, the same in all of them, or nothing. */
const valueAfter = (comparison: Comparison, name: string): "constant" | "nothing" | (string & {}) => {
  const { isThere, required, types } = parts(comparison)
  const column = comparison.wanted.columns.find((one) => one.name === name)
  if (column === undefined) return "nothing"
  if (!isThere(name)) return column.field.required && column.defaultSql !== undefined ? "constant" : "nothing"
  const quoted = quoteName(name)
  const value = types.get(name)?._tag === "Copy" ? rounded(name, column.type) : quoted
  return required.includes(column) && column.defaultSql !== undefined
    ? `coalesce(${value}, ${column.defaultSql})`
    : value
}

/** What must be known of the rows before there can be a plan. */
export const questionsOf = (comparison: Comparison): ReadonlyArray<Question> => {
  const { wanted } = comparison
  const { checks, isThere: exists, keys, required, types, unproved } = parts(comparison)
  // of a field that cannot become what it should nothing is asked
  const isThere = (name: string) => exists(name) && types.get(name)?._tag !== "Refused"
  const unprovedNames = new Set(unproved.map((part) => part.name))
  const rows = (condition: string) => `select id::text as hit from ${wanted.table} where ${condition}`
  return [
    ...required.map(({ name }) => ({ key: `nulls ${name}`, select: rows(`${quoteName(name)} is null`) })),
    ...[...types].flatMap(([name, change]) => {
      const column = wanted.columns.find((one) => one.name === name)
      if (change._tag !== "Copy" || column === undefined) return []
      const fits = rounded(name, column.type)
      return [
        { key: `misfits ${name}`, select: rows(`${quoteName(name)} is not null and ${fits} is null`) },
        { key: `rounded ${name}`, select: rows(`${fits} is not null and ${exact(name, column.type)} is null`) }
      ]
    }),
    ...wanted.checks
      .filter((check) => isThere(check.field) && (checks.includes(check) || unprovedNames.has(check.name)))
      .map((check) => ({ key: `breaks ${check.name}`, select: rows(`not (${check.condition})`) })),
    ...wanted.foreignKeys
      .filter((key) => isThere(key.field) && (keys.includes(key) || unprovedNames.has(key.name)))
      .map((key) => ({ key: `orphans ${key.name}`, select: orphans(wanted, key) })),
    ...uniques(comparison).flatMap((index) => {
      const values = index.fields.map((name) => valueAfter(comparison, name))
      if (values.some((value) => value === "nothing")) return []
      if (index.fields.some((name) => exists(name) && !isThere(name))) return []
      const some = values.filter((value) => value !== "constant")
      const live = ["deleted_at is null", ...some.map((value) => `${value} is not null`)].join(" and ")
      const groups = some.length === 0 ? "" : ` group by ${some.join(", ")}`
      return [
        {
          key: `doubles ${index.name}`,
          select: `select min(id::text) || ' and ' || (count(*) - 1) || ' more' as hit from ${wanted.table} where ${live}${groups} having count(*) > 1`
        }
      ]
    })
  ]
}
