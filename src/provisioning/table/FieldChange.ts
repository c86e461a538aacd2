/** What becomes of a field between two definitions: its name, its type, its bounds. Pure. */
import { compareDecimals } from "../../domain/ExactJson.ts"
import { decimalOf, type Field } from "../../domain/Field.ts"
import type { SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import type { CatalogueColumn } from "./Catalogue.ts"
import type { CheckPurpose } from "./WantedTable.ts"

/** New names to the names that the columns still have; and fields of which more than one former name is there. */
export interface Renames {
  readonly former: ReadonlyMap<string, string>
  readonly unclear: ReadonlyMap<string, ReadonlyArray<string>>
}

/**
 * Which fields have a new name: where exactly one of the former names is a column and the new one is not (fine print 45).
 * Otherwise `renamedFrom` says nothing and may stay.
 */
export const renamesOf = (spec: SchemaDefinitionSpec, columns: Readonly<Record<string, CatalogueColumn>>): Renames => {
  const former = new Map<string, string>()
  const unclear = new Map<string, ReadonlyArray<string>>()
  for (const { name, renamedFrom = [] } of spec.fields) {
    if (Object.hasOwn(columns, name)) continue
    const there = renamedFrom.filter((one) => Object.hasOwn(columns, one))
    if (there.length === 1) former.set(name, there[0] as string)
    else if (there.length > 1) unclear.set(name, there)
  }
  return { former, unclear }
}

/** A definition with its fields under other names. */
export const underNames = (spec: SchemaDefinitionSpec, names: ReadonlyMap<string, string>): SchemaDefinitionSpec => {
  if (names.size === 0) return spec
  const nameOf = (name: string) => names.get(name) ?? name
  return {
    ...spec,
    fields: spec.fields.map((field) => ({ ...field, name: nameOf(field.name) })),
    ...(spec.uniqueConstraints === undefined
      ? {}
      : { uniqueConstraints: spec.uniqueConstraints.map(({ fields }) => ({ fields: fields.map(nameOf) })) }),
    access: {
      ...spec.access,
      ...(spec.access.rowFilters === undefined
        ? {}
        : {
            rowFilters: spec.access.rowFilters.map(({ filter, role }) => ({
              role,
              filter: { ...filter, field: nameOf(filter.field) }
            }))
          })
    }
  }
}

/** How a column gets another type. */
export type TypeChange =
  /** The catalogue alone changes. */
  | { readonly _tag: "Widen" }
  /** By a second column that is filled beside the first. */
  | { readonly _tag: "Copy"; readonly narrows: boolean }
  | { readonly _tag: "Refused" }

const numericOf = (type: string): { readonly whole: number; readonly scale: number } | undefined => {
  if (type === "numeric") return { whole: Number.POSITIVE_INFINITY, scale: Number.POSITIVE_INFINITY }
  const found = /^numeric\((\d+),(\d+)\)$/u.exec(type)
  return found === null ? undefined : { whole: Number(found[1]) - Number(found[2]), scale: Number(found[2]) }
}

/** From one type of Postgres to another, both as `format_type` prints them. */
export const typeChangeOf = (from: string, to: string): TypeChange => {
  const is = numericOf(from)
  const wanted = numericOf(to)
  if (is !== undefined && wanted !== undefined) {
    // only a scale that stays lets the rows stay as they are
    if (to === "numeric" || (wanted.scale === is.scale && wanted.whole >= is.whole)) return { _tag: "Widen" }
    return { _tag: "Copy", narrows: wanted.scale < is.scale || wanted.whole < is.whole }
  }
  if (from === "bigint" && (wanted !== undefined || to === "double precision")) {
    return { _tag: "Copy", narrows: wanted === undefined || wanted.whole < 19 }
  }
  return { _tag: "Refused" }
}

/** Whether everything that the field's earlier bound admitted is admitted still. */
export const isLoosened = (before: Field | undefined, after: Field, purpose: CheckPurpose): boolean => {
  if (before === undefined) return false
  switch (purpose) {
    case "min":
    case "max": {
      const [was, is] = [before[purpose], after[purpose]]
      if (was === undefined || is === undefined) return is === undefined
      const order = compareDecimals(decimalOf(is), decimalOf(was))
      return purpose === "min" ? order <= 0 : order >= 0
    }
    case "minLength":
    case "maxLength": {
      const [was, is] = [before[purpose], after[purpose]]
      if (was === undefined || is === undefined) return is === undefined
      return purpose === "minLength" ? is <= was : is >= was
    }
    case "pattern":
      return after.pattern === undefined || after.pattern === before.pattern
    case "enum":
      return after.enum === undefined || (before.enum !== undefined && removedValues(before, after).length === 0)
  }
}

/** The values that an enum no longer has. */
export const removedValues = (before: Field | undefined, after: Field): ReadonlyArray<string> =>
  (before?.enum ?? []).filter((value) => after.enum !== undefined && !after.enum.includes(value))
