/**
 * A field of a record type, as a definition says it. One flat object whatever the type, because a structural CRD schema
 * knows no unions of objects; which keys go with which type is judged by `Admission`.
 */
import { Effect, Schema } from "effect"
import { fieldRules } from "./DefinitionRules.ts"
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
  object: Label.annotateKey({ description: "The object that it refers to, in the same domain" }),
  version: Version.annotateKey({ description: "The version of that object" }),
  onDelete: Schema.Literals(["restrict", "cascade", "setNull"])
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("restrict" as const)))
    .annotateKey({
      description:
        "What deleting the record that is referred to does: it is refused, deletes this one too, or empties the field"
    })
})

export const Mask = Schema.Struct({
  strategy: Schema.Literals(["redact", "partial"]).annotateKey({
    description: "redact: nothing of it is shown; partial: the last four characters of a string of at least eight"
  }),
  unmaskedFor: Schema.optionalKey(RoleList).annotateKey({ description: "The roles that see the value" })
})

export const FieldAccess = Schema.Struct({
  read: Schema.optionalKey(RoleList).annotateKey({
    description: "The roles that see the field at all; without it every role that reads the record"
  }),
  write: Schema.optionalKey(RoleList).annotateKey({
    description: "The roles that may set the field; without it every role that writes the record"
  })
})

export const Field = Schema.Struct({
  name: FieldName.annotateKey({ description: "The field's name in the API and its column's in Postgres" }),
  type: FieldType.annotateKey({ description: "What it holds; which keys go beside it depends on it" }),
  renamedFrom: Schema.optionalKey(
    Schema.Array(FieldName).check(Schema.isMinLength(1), Schema.isMaxLength(8), Schema.isUnique())
  ).annotateKey({ description: "Names that it had, newest first; its records keep what they hold" }),
  description: Schema.optionalKey(text(1024)).annotateKey({
    description: "What it means, shown in the API's documentation"
  }),
  required: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))).annotateKey({
    description: "Whether every record has it"
  }),
  unique: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))).annotateKey({
    description: "Whether no two live records have the same value"
  }),
  indexed: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))).annotateKey({
    description: "Whether an index stands over it"
  }),
  filterable: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(false))).annotateKey({
    description:
      "Whether records can be filtered and sorted by it without an index; indexed and unique fields always can"
  }),
  sensitivity: Schema.optionalKey(Schema.Literals(["public", "internal", "financial", "personal"])).annotateKey({
    description: "How sensitive it is: financial and personal are redacted for roles that no mask names"
  }),
  default: Schema.optionalKey(Schema.Union([text(4096), Schema.Int, Schema.Boolean])).annotateKey({
    description: "What a record gets that does not say it, as a text in quotes; for json a JSON text"
  }),
  backfill: Schema.optionalKey(nonEmpty(2048)).annotateKey({
    description:
      "CEL over self, a record that is there and has no value: what a required field gets in it; evaluated by Velocity, in batches"
  }),
  min: Schema.optionalKey(Bound).annotateKey({ description: "The smallest value of an integer or number, in quotes" }),
  max: Schema.optionalKey(Bound).annotateKey({ description: "The largest value of an integer or number, in quotes" }),
  minLength: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_485_760 }))).annotateKey({
    description: "The fewest code points of a string, or bytes"
  }),
  maxLength: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 10_485_760 }))).annotateKey({
    description: "The most code points of a string, or bytes"
  }),
  pattern: Schema.optionalKey(nonEmpty(512)).annotateKey({
    description: "A regular expression that a string must match, anywhere unless it is anchored"
  }),
  precision: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1000 }))).annotateKey({
    description: "How many digits an exact number has in all"
  }),
  scale: Schema.optionalKey(Schema.Int.check(Schema.isBetween({ minimum: 0, maximum: 1000 }))).annotateKey({
    description: "How many of them stand after the point; more are refused and never rounded"
  }),
  float: Schema.optionalKey(Schema.Boolean).annotateKey({
    description: "Whether a number is a double instead of an exact one"
  }),
  enum: Schema.optionalKey(
    Schema.Array(nonEmpty(limits.name)).check(
      Schema.isMinLength(1),
      Schema.isMaxLength(limits.enumValues),
      Schema.isUnique()
    )
  ).annotateKey({ description: "The values of an enum" }),
  ref: Schema.optionalKey(Ref).annotateKey({ description: "What a ref refers to" }),
  access: Schema.optionalKey(FieldAccess).annotateKey({ description: "Which roles see the field and may set it" }),
  mask: Schema.optionalKey(Mask).annotateKey({ description: "How it is covered for roles that may not see its value" })
}).annotate({ celRules: fieldRules(systemColumns) })
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
