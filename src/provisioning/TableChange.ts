/**
 * From the table as it was made to the table that is wanted: the statements, or why not. Pure.
 *
 * Made so far: nullable fields, indexes, enum values, foreign keys whose target came, and everything about access. The
 * rest is refused by field. A new field's default is set after the column is there, so that no row changes without a
 * line in its history.
 */
import { type Fault, fault } from "../domain/Fault.ts"
import { own } from "../domain/Own.ts"
import { quoteName } from "./SqlText.ts"
import type { TableRecord } from "./TableRecord.ts"
import { commentOnConstraint, commentOnIndex, type WantedForeignKey, type WantedTable } from "./WantedTable.ts"

/** What is to be run, and what it does in a few words each. */
export interface TableChange {
  readonly statements: ReadonlyArray<string>
  readonly steps: ReadonlyArray<string>
}

const notYet = (at: ReadonlyArray<PropertyKey>, detail: string): Fault =>
  fault(["spec", ...at], "evolution_not_yet", detail)

const same = (a: unknown, b: unknown): boolean => JSON.stringify(a) === JSON.stringify(b)

/** A foreign key, checked against the rows that are there. */
export const foreignKeySql = (wanted: WantedTable, key: WantedForeignKey): ReadonlyArray<string> => [
  key.sql,
  `alter table ${wanted.table} validate constraint ${quoteName(key.name)}`,
  commentOnConstraint(wanted, key)
]

/** Compares and answers both what cannot be done and what can; the latter means nothing while the former is not empty. */
export const changeTable = (
  wanted: WantedTable,
  actual: TableRecord
): { readonly faults: ReadonlyArray<Fault>; readonly change: TableChange } => {
  const faults: Array<Fault> = []
  const statements: Array<string> = []
  const steps: Array<string> = []
  const { record, table } = wanted
  const added = new Set<string>()
  const atOf = new Map(wanted.columns.map((column) => [column.name, column.at]))

  for (const name of Object.keys(actual.columns)) {
    if (own(record.columns, name) === undefined)
      faults.push(notYet(["fields"], `the field ${name} cannot be removed yet`))
  }
  for (const column of wanted.columns) {
    const is = own(actual.columns, column.name)
    const want = own(record.columns, column.name)
    if (want === undefined) continue
    if (is === undefined) {
      if (want.required) {
        faults.push(notYet([...column.at, "required"], `a required field cannot be added to a table yet`))
        continue
      }
      added.add(column.name)
      steps.push(`add field ${column.name}`)
      statements.push(`alter table ${table} add column ${column.sql}`)
      if (column.live !== undefined) statements.push(`alter table ${table} add column ${column.live}`)
      if (column.defaultSql !== undefined) {
        statements.push(`alter table ${table} alter column ${quoteName(column.name)} set default ${column.defaultSql}`)
      }
      continue
    }
    if (is.type !== want.type || is.sql !== want.sql) {
      faults.push(notYet([...column.at, "type"], `the type is ${is.type} (${is.sql}) and cannot be changed yet`))
    }
    if (is.required !== want.required) {
      faults.push(notYet([...column.at, "required"], `required is ${is.required} and cannot be changed yet`))
    }
    if (is.default !== want.default) {
      faults.push(notYet([...column.at, "default"], "the default cannot be changed yet"))
    }
  }

  for (const [name, check] of Object.entries(actual.checks)) {
    const at = atOf.get(check.field)
    if (at !== undefined && !(name in record.checks)) {
      faults.push(notYet([...at, check.purpose], `${check.purpose} cannot be removed yet`))
    }
  }
  for (const check of wanted.checks) {
    const is = actual.checks[check.name]
    const want = record.checks[check.name]
    if (want === undefined || same(is?.says, want.says)) continue
    const name = quoteName(check.name)
    if (is === undefined) {
      if (!added.has(want.field)) {
        faults.push(notYet(check.at, `${want.purpose} cannot be added to a field that is there`))
        continue
      }
    } else if (want.purpose !== "enum") {
      faults.push(notYet(check.at, `${want.purpose} is ${is.says.join(", ")} and cannot be changed yet`))
      continue
    } else {
      const gone = is.says.filter((value) => !want.says.includes(value))
      if (gone.length > 0) {
        faults.push(notYet(check.at, `enum values cannot be removed yet: ${gone.join(", ")}`))
        continue
      }
      // the same values in another order need no constraint of their own
      if (is.says.length === want.says.length) continue
      steps.push(`add enum values to ${want.field}`)
      statements.push(`alter table ${table} drop constraint ${name}`)
    }
    statements.push(
      `alter table ${table} add constraint ${name} check (${check.sql}) not valid`,
      `alter table ${table} validate constraint ${name}`,
      commentOnConstraint(wanted, check)
    )
  }

  for (const [name, index] of Object.entries(actual.indexes)) {
    if (name in record.indexes || index.fields.some((field) => !(field in record.columns))) continue
    const at = index.fields.length === 1 ? (atOf.get(index.fields[0] as string) ?? ["fields"]) : undefined
    faults.push(
      notYet(
        at === undefined ? ["uniqueConstraints"] : [...at, index.unique ? "unique" : "indexed"],
        `the ${index.unique ? "unique constraint" : "index"} over ${index.fields.join(", ")} cannot be removed yet`
      )
    )
  }
  for (const index of wanted.indexes) {
    if (index.name in actual.indexes) continue
    const unique = record.indexes[index.name]?.unique === true
    if (unique && !index.fields.some((field) => added.has(field))) {
      faults.push(notYet(index.at, `fields that are there cannot become unique yet`))
      continue
    }
    steps.push(`${unique ? "unique" : "index"} ${index.fields.join(", ")}`)
    statements.push(index.sql, commentOnIndex(wanted, index))
  }
  return { faults, change: { statements, steps } }
}
