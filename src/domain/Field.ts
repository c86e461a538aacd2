/**
 * A field of a record type, as a definition says it. One flat object whatever the type, because a structural CRD schema
 * knows no unions of objects; which keys go with which type is judged by `Admission`.
 */
import { Effect, Schema } from "effect"
import { labelMaxLength, labelPattern, versionMaxLength, versionPattern } from "./Names.ts"

export const fieldTypes = [
  "string",
  "integer",
  "number",
  "boolean",
  "date",
  "time",
  "timestamp",
  "uuid",
  "json",
  "enum",
  "ref",
  "bytes"
] as const
export const FieldType = Schema.Literals(fieldTypes)
export type FieldType = (typeof fieldTypes)[number]

/** Columns that every record has, in the order they are shown. No field may bear their names, or begin with `_`. */
export const systemColumns = [
  "id",
  "version",
  "created_at",
  "created_by",
  "updated_at",
  "updated_by",
  "deleted_at"
] as const
export type SystemColumn = (typeof systemColumns)[number]

/** Limits that the API server's run-time CEL cost sets (fine print 19), and our own. */
export const limits = {
  fields: 200,
  roles: 32,
  rolesPerList: 8,
  uniqueConstraints: 16,
  fieldsPerUniqueConstraint: 8,
  rowFilters: 64,
  rules: 64,
  enumValues: 256,
  name: 63,
  searchFields: 16
} as const

const text = (maximum: number) => Schema.String.check(Schema.isMaxLength(maximum))
const nonEmpty = (maximum: number) => Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum))

export const Label = Schema.String.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(labelMaxLength),
  Schema.isPattern(labelPattern, { message: "a DNS label: lower-case letters, digits and -, beginning with a letter" })
)
export const Version = Schema.String.check(
  Schema.isMaxLength(versionMaxLength),
  Schema.isPattern(versionPattern, { message: "a version such as v1" })
)
export const fieldNamePattern = /^[a-z][a-z0-9_]*$/u
export const FieldName = Schema.String.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(limits.name),
  Schema.isPattern(fieldNamePattern, { message: "lower-case letters, digits and _, beginning with a letter" })
)
export const RoleName = Schema.String.check(
  Schema.isMinLength(1),
  Schema.isMaxLength(limits.name),
  Schema.isPattern(labelPattern, { message: "a role: lower-case letters, digits and -, beginning with a letter" })
)
const RoleList = Schema.Array(RoleName).check(Schema.isMaxLength(limits.rolesPerList), Schema.isUnique())

/**
 * A bound or default of an integer or number: a decimal string, because YAML and JSON readers turn digits into floats.
 * A whole YAML number below 2^53 is taken too, and becomes its digits.
 */
export const decimalPattern = /^-?(0|[1-9][0-9]*)(\.[0-9]+)?$/u
export const Bound = Schema.Union([
  Schema.String.check(
    Schema.isMaxLength(80),
    Schema.isPattern(decimalPattern, { message: "a decimal number in quotes" })
  ),
  // safe ones only: 2^53 itself may be what a reader made of 2^53 + 1
  Schema.Int
])
export type Bound = typeof Bound.Type

/** The digits of a bound. */
export const decimalOf = (bound: Bound): string => String(bound)

export const Ref = Schema.Struct({
  object: Label,
  version: Version,
  onDelete: Schema.Literals(["restrict", "cascade", "setNull"]).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("restrict" as const))
  )
})

export const Mask = Schema.Struct({
  /** redact: nothing of it; partial: the last four characters of a string of at least eight. */
  strategy: Schema.Literals(["redact", "partial"]),
  unmaskedFor: Schema.optionalKey(RoleList)
})

export const FieldAccess = Schema.Struct({
  read: Schema.optionalKey(RoleList),
  write: Schema.optionalKey(RoleList)
})

export const Field = Schema.Struct({
  name: FieldName,
  type: FieldType,
  /** Names that it had, newest first; its records keep what they hold. */
  renamedFrom: Schema.optionalKey(
    Schema.Array(FieldName).check(Schema.isMinLength(1), Schema.isMaxLength(8), Schema.isUnique())
  ),
  description: Schema.optionalKey(text(1024)),
  required: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  unique: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  indexed: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  filterable: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))),
  sensitivity: Schema.optionalKey(Schema.Literals(["public", "internal", "financial", "personal"])),
  /** The text of the default; for json a JSON text. */
  default: Schema.optionalKey(Schema.Union([text(4096), Schema.Int, Schema.Boolean])),
  min: Schema.optionalKey(Bound),
  max: Schema.optionalKey(Bound),
  minLength: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_485_760 }))),
  maxLength: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_485_760 }))),
  pattern: Schema.optionalKey(nonEmpty(512)),
  precision: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))),
  scale: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 }))),
  float: Schema.optionalKey(Schema.Boolean),
  enum: Schema.optionalKey(
    Schema.Array(nonEmpty(limits.name)).check(
      Schema.isMinLength(1),
      Schema.isMaxLength(limits.enumValues),
      Schema.isUnique()
    )
  ),
  ref: Schema.optionalKey(Ref),
  access: Schema.optionalKey(FieldAccess),
  mask: Schema.optionalKey(Mask)
})
export type Field = typeof Field.Type

/** The column's type in Postgres. */
export const pgType = (field: Field): string => {
  switch (field.type) {
    case "string":
    case "enum":
      return "text"
    case "integer":
      return "int8"
    case "number":
      if (field.float === true) return "float8"
      return field.precision === undefined ? "numeric" : `numeric(${field.precision},${field.scale ?? 0})`
    case "boolean":
      return "boolean"
    case "date":
      return "date"
    case "time":
      return "time"
    case "timestamp":
      return "timestamptz"
    case "uuid":
    case "ref":
      return "uuid"
    case "json":
      return "jsonb"
    case "bytes":
      return "bytea"
  }
}

/** Filtering and sorting need one of these in the definition. */
export const isFilterable = (field: Field): boolean => field.filterable || field.indexed || field.unique
