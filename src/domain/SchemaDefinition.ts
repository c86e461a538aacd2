/** The record type, as somebody applies it (product.md, section 4). */
import { Effect, Schema } from "effect"
import { conditionRules, definitionRules } from "./DefinitionRules.ts"
import { Field, FieldName, Label, limits, RoleName, Version } from "./Field.ts"
import { Lifecycle } from "./Lifecycle.ts"
import { type RecordPath, versionMaxLength } from "./Names.ts"
import { operations } from "./Operation.ts"

const nonEmpty = (maximum: number) => Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum))
const OperationList = Schema.Array(Schema.Literals(operations)).check(Schema.isMaxLength(8), Schema.isUnique())
/** What a reason or a ticket may be demanded for: erasing is nobody's right in a domain, and demands a reason of itself. */
const DemandingList = Schema.Array(Schema.Literals([...operations, "erase"])).check(
  Schema.isMaxLength(8),
  Schema.isUnique()
)

export const UniqueConstraint = Schema.Struct({
  fields: Schema.Array(FieldName)
    .check(Schema.isMinLength(2), Schema.isMaxLength(limits.fieldsPerUniqueConstraint), Schema.isUnique())
    .annotateKey({ description: "The fields whose values are unique together, among live records" })
})

/** A CEL expression over `self`, `old`, `now` and `actor` that must hold. */
export const ValidationRule = Schema.Struct({
  rule: nonEmpty(2048).annotateKey({ description: "A CEL expression over self, old, now and actor that must hold" }),
  message: nonEmpty(512).annotateKey({ description: "What a caller is told when it does not hold" })
})

export const RoleGrant = Schema.Struct({
  role: RoleName.annotateKey({ description: "The role, as tokens and bindings name it" }),
  operations: OperationList.check(Schema.isMinLength(1)).annotateKey({ description: "What it may do" })
})

export const rowFilterOperators = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "contains", "is_null"] as const

/** A condition on a row: against a literal (`value`, `values`) or what is known of the caller (`identity`). */
export const RowCondition = Schema.Struct({
  field: FieldName.annotateKey({ description: "The field that is compared" }),
  op: Schema.Literals(rowFilterOperators).annotateKey({ description: "How it is compared" }),
  identity: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(256),
      Schema.isPattern(/^(actor|attributes\.[A-Za-z_][A-Za-z0-9_-]*)$/u, { message: "actor, or attributes.{name}" })
    )
  ).annotateKey({ description: "What is known of the caller, to compare with: actor, or attributes.{name}" }),
  value: Schema.optionalKey(
    Schema.Union([Schema.String.check(Schema.isMaxLength(256)), Schema.Int, Schema.Boolean])
  ).annotateKey({ description: "A value to compare with, in quotes" }),
  values: Schema.optionalKey(
    Schema.Array(Schema.String.check(Schema.isMaxLength(256))).check(Schema.isMinLength(1), Schema.isMaxLength(64))
  ).annotateKey({ description: "The values to compare with, where op is in" })
}).annotate({ exactlyOneOf: ["identity", "value", "values"], celRules: conditionRules })
export type RowCondition = typeof RowCondition.Type

export const RowFilter = Schema.Struct({
  role: RoleName.annotateKey({ description: "The role that it narrows" }),
  filter: RowCondition.annotateKey({ description: "What a record must be like for the role to reach it" })
})
export type RowFilter = typeof RowFilter.Type

export const Access = Schema.Struct({
  roles: Schema.Array(RoleGrant)
    .check(Schema.isMinLength(1), Schema.isMaxLength(limits.roles))
    .annotate({ listMapKeys: ["role"] })
    .annotateKey({ description: "Every role that the definition names anywhere, with what it may do" }),
  rowFilters: Schema.optionalKey(Schema.Array(RowFilter).check(Schema.isMaxLength(limits.rowFilters))).annotateKey({
    description: "Which records a role reaches; several for one role must all hold"
  })
})

export const SchemaDefinitionSpec = Schema.Struct({
  org: Label.annotateKey({ description: "The organisation that it belongs to" }),
  app: Label.annotateKey({ description: "The application that it belongs to" }),
  domain: Label.annotateKey({ description: "The domain that it belongs to" }),
  object: Label.annotateKey({ description: "What its records are" }),
  version: Version.annotateKey({ description: "The version of the object, such as v1" }),
  sharesRowsWith: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(versionMaxLength),
      Schema.isPattern(/^(none|v[1-9][0-9]*)$/u, { message: "a version such as v1, or none" })
    )
  ).annotateKey({
    description:
      "The version whose records it shows as well; without it the latest that is there; none: records of its own"
  }),
  description: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(1024))).annotateKey({
    description: "What its records are, shown in the API's documentation"
  }),
  fields: Schema.Array(Field)
    .check(Schema.isMinLength(1), Schema.isMaxLength(limits.fields))
    .annotate({ listMapKeys: ["name"] })
    .annotateKey({ description: "The fields of a record" }),
  uniqueConstraints: Schema.optionalKey(
    Schema.Array(UniqueConstraint).check(Schema.isMaxLength(limits.uniqueConstraints))
  ).annotateKey({ description: "Fields that are unique together" }),
  validation: Schema.optionalKey(
    Schema.Struct({
      rules: Schema.Array(ValidationRule)
        .check(Schema.isMaxLength(limits.rules))
        .annotateKey({ description: "Rules that every record must keep" })
    })
  ).annotateKey({ description: "What a record must be like beyond its fields' types" }),
  access: Access.annotateKey({ description: "Who may do what, with which records" }),
  search: Schema.optionalKey(
    Schema.Struct({
      fields: Schema.Array(FieldName)
        .check(Schema.isMinLength(1), Schema.isMaxLength(limits.searchFields), Schema.isUnique())
        .annotateKey({ description: "The string fields that are searched" }),
      language: Schema.String.check(Schema.isMaxLength(63))
        .pipe(Schema.withDecodingDefaultKey(Effect.succeed("english")))
        .annotateKey({ description: "The language of the texts, as Postgres names its text search configurations" })
    })
  ).annotateKey({
    description: "Full-text search over records; kept with the definition and not built: Ready says so"
  }),
  timeMachine: Schema.Struct({
    enabled: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(true))).annotateKey({
      description: "Whether the past of records can be read"
    }),
    hotRetention: Schema.String.check(
      Schema.isMaxLength(12),
      Schema.isPattern(/^[0-9]+(d|w|mo|y)$/u, { message: "a duration such as 90d, 12w, 6mo or 2y" })
    )
      .pipe(Schema.withDecodingDefaultKey(Effect.succeed("90d")))
      .annotateKey({ description: "How far back it is read quickly: a duration such as 90d, 12w, 6mo or 2y" })
  })
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
    .annotateKey({ description: "The past of records" }),
  audit: Schema.Struct({
    reads: Schema.Literals(["none", "summary", "all"])
      .pipe(Schema.withDecodingDefaultKey(Effect.succeed("none" as const)))
      .annotateKey({ description: "Which reads leave an entry in the audit log; writes always do" }),
    requireReason: DemandingList.pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))).annotateKey({
      description: "Operations that need a reason"
    }),
    requireTicketRef: DemandingList.pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))).annotateKey({
      description: "Operations that need the reference of a ticket"
    })
  })
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
    .annotateKey({ description: "What the audit log is told, and what it demands" }),
  concurrency: Schema.Literals(["optional", "required"])
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("optional" as const)))
    .annotateKey({ description: "required: a write without If-Match is refused (428)" }),
  lifecycle: Schema.optionalKey(Lifecycle).annotateKey({
    description: "How long this version of the object is for; without it, it is in use"
  })
}).annotate({ celRules: definitionRules })
export type SchemaDefinitionSpec = typeof SchemaDefinitionSpec.Type

export const pathOfDefinition = ({ app, domain, object, org, version }: SchemaDefinitionSpec): RecordPath => ({
  org,
  app,
  domain,
  object,
  version
})
