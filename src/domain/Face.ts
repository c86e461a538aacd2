/**
 * How one version of an object shows rows that several versions share: which column of the one table each of its fields is,
 * which columns it has no field for, and what the table's constraints mean in its words. A version whose rows are its own
 * needs none of it.
 *
 * History belongs to the row and not to the face: a state has the columns' names, whichever version wrote it.
 */
import { Schema } from "effect"
import { type Field, FieldType } from "./Field.ts"

/** A column of the shared table, seen from one version. */
export const FaceColumn = Schema.Struct({
  /** In the table, and in the states of history. */
  name: Schema.String,
  /** Names that it had; states from before have them. */
  formerly: Schema.Array(Schema.String),
  /** The field of this version that it is; without one the version keeps what it holds and never shows it. */
  field: Schema.optionalKey(Schema.String),
  /** What it is called in this version's table or view. */
  as: Schema.String,
  type: FieldType
})
export type FaceColumn = typeof FaceColumn.Type

/** What a constraint or index of a table says, in a definition's words. */
export const ConstraintMeaning = Schema.Struct({
  kind: Schema.Literals(["unique", "check", "notNull", "foreignKey", "index"]),
  /** Those that the version has. */
  fields: Schema.Array(Schema.String),
  /** The code of the fault: min, pattern, required, … */
  code: Schema.String,
  detail: Schema.String
})
export type ConstraintMeaning = typeof ConstraintMeaning.Type

/** See the module. */
export const Face = Schema.Struct({
  /** The table that holds the rows. */
  table: Schema.String,
  /** Of all versions that share it. */
  paths: Schema.Array(Schema.String),
  columns: Schema.Array(FaceColumn),
  /** By their names in Postgres. */
  constraints: Schema.Record(Schema.String, ConstraintMeaning)
})
export type Face = typeof Face.Type

/** What a bound of a field says. */
export const boundMeaning = (
  field: Field,
  purpose: "min" | "max" | "minLength" | "maxLength" | "pattern" | "enum"
): Pick<ConstraintMeaning, "code" | "detail"> => {
  switch (purpose) {
    case "min":
      return { code: "min", detail: `at least ${field.min}` }
    case "max":
      return { code: "max", detail: `at most ${field.max}` }
    case "minLength":
      return { code: "min_length", detail: `at least ${field.minLength} long` }
    case "maxLength":
      return { code: "max_length", detail: `at most ${field.maxLength} long` }
    case "pattern":
      return { code: "pattern", detail: `must match ${field.pattern}` }
    case "enum":
      return { code: "enum", detail: `one of ${(field.enum ?? []).join(", ")}` }
  }
}

/** What the other constraints say. */
export const meanings = {
  unique: { kind: "unique", code: "unique", detail: "another live record has this value" },
  uniqueTogether: { kind: "unique", code: "unique", detail: "another live record has these values together" },
  index: { kind: "index", code: "max_length", detail: "longer than its index can hold" },
  foreignKey: { kind: "foreignKey", code: "reference_not_found", detail: "refers to no record that you may see" }
} as const satisfies Readonly<Record<string, Omit<ConstraintMeaning, "fields">>>

/** A definition as it is served, as much as states are read and written by. */
interface Faced {
  readonly face?: Face
  readonly spec: { readonly fields: ReadonlyArray<Field> }
}

/** The members of a state that hold a field's value: the one of today first, then those of before. */
export const stateKeys = ({ face }: Pick<Faced, "face">, field: Field): ReadonlyArray<string> => {
  const column = face?.columns.find((one) => one.field === field.name)
  return column === undefined ? [field.name, ...(field.renamedFrom ?? [])] : [column.name, ...column.formerly]
}

/** A column as a state holds it. */
export interface StoredColumn {
  readonly key: string
  /** In the version's table or view. */
  readonly as: string
  readonly type: FieldType
}

/** Every column of the rows, in the order of a state. */
export const storedColumns = ({ face, spec }: Faced): ReadonlyArray<StoredColumn> =>
  face === undefined
    ? spec.fields.map(({ name, type }) => ({ key: name, as: name, type }))
    : face.columns.map(({ as, name, type }) => ({ key: name, as, type }))
