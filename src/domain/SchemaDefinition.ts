/** The record type, as somebody applies it (product.md, section 4). */
import { Effect, Schema } from "effect"
import { Field, FieldName, Label, limits, RoleName, Version } from "./Field.ts"
import type { RecordPath } from "./Names.ts"
import { operations } from "./Operation.ts"

const nonEmpty = (maximum: number) => Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum))
const OperationList = Schema.Array(Schema.Literals(operations)).check(Schema.isMaxLength(8), Schema.isUnique())
/** What a reason or a ticket may be demanded for: erasing is nobody's right in a domain, and demands a reason of itself. */
const DemandingList = Schema.Array(Schema.Literals([...operations, "erase"])).check(
  Schema.isMaxLength(8),
  Schema.isUnique()
)

export const UniqueConstraint = Schema.Struct({
  fields: Schema.Array(FieldName).check(
    Schema.isMinLength(2),
    Schema.isMaxLength(limits.fieldsPerUniqueConstraint),
    Schema.isUnique()
  )
})

/** A CEL expression over `self`, `old`, `now` and `actor` that must hold. */
export const ValidationRule = Schema.Struct({ rule: nonEmpty(2048), message: nonEmpty(512) })

export const RoleGrant = Schema.Struct({
  role: RoleName,
  operations: OperationList.check(Schema.isMinLength(1))
})

export const rowFilterOperators = ["eq", "neq", "lt", "lte", "gt", "gte", "in", "contains", "is_null"] as const

/** A condition on a row: against a literal (`value`, `values`) or what is known of the caller (`identity`). */
export const RowCondition = Schema.Struct({
  field: FieldName,
  op: Schema.Literals(rowFilterOperators),
  /** `attributes.{name}`, or `actor`. */
  identity: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(256),
      Schema.isPattern(/^(actor|attributes\.[A-Za-z_][A-Za-z0-9_-]*)$/u, { message: "actor, or attributes.{name}" })
    )
  ),
  value: Schema.optionalKey(Schema.Union([Schema.String.check(Schema.isMaxLength(256)), Schema.Int, Schema.Boolean])),
  values: Schema.optionalKey(
    Schema.Array(Schema.String.check(Schema.isMaxLength(256))).check(Schema.isMinLength(1), Schema.isMaxLength(64))
  )
})
export type RowCondition = typeof RowCondition.Type

export const RowFilter = Schema.Struct({ role: RoleName, filter: RowCondition })
export type RowFilter = typeof RowFilter.Type

export const Access = Schema.Struct({
  roles: Schema.Array(RoleGrant).check(Schema.isMinLength(1), Schema.isMaxLength(limits.roles)),
  rowFilters: Schema.optionalKey(Schema.Array(RowFilter).check(Schema.isMaxLength(limits.rowFilters)))
})

export const SchemaDefinitionSpec = Schema.Struct({
  org: Label,
  app: Label,
  domain: Label,
  object: Label,
  version: Version,
  description: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(1024))),
  fields: Schema.Array(Field).check(Schema.isMinLength(1), Schema.isMaxLength(limits.fields)),
  uniqueConstraints: Schema.optionalKey(
    Schema.Array(UniqueConstraint).check(Schema.isMaxLength(limits.uniqueConstraints))
  ),
  validation: Schema.optionalKey(
    Schema.Struct({ rules: Schema.Array(ValidationRule).check(Schema.isMaxLength(limits.rules)) })
  ),
  access: Access,
  /** Kept with the definition; its index and `q=` come with full-text search. */
  search: Schema.optionalKey(
    Schema.Struct({
      fields: Schema.Array(FieldName).check(
        Schema.isMinLength(1),
        Schema.isMaxLength(limits.searchFields),
        Schema.isUnique()
      ),
      language: Schema.String.check(Schema.isMaxLength(63)).pipe(
        Schema.withDecodingDefaultKey(Effect.succeed("english"))
      )
    })
  ),
  timeMachine: Schema.Struct({
    enabled: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(true))),
    hotRetention: Schema.String.check(
      Schema.isMaxLength(12),
      Schema.isPattern(/^[0-9]+(d|w|mo|y)$/u, { message: "a duration such as 90d, 12w, 6mo or 2y" })
    ).pipe(Schema.withDecodingDefaultKey(Effect.succeed("90d")))
  }).pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  audit: Schema.Struct({
    reads: Schema.Literals(["none", "summary", "all"]).pipe(
      Schema.withDecodingDefaultKey(Effect.succeed("none" as const))
    ),
    requireReason: DemandingList.pipe(Schema.withDecodingDefaultKey(Effect.succeed([]))),
    requireTicketRef: DemandingList.pipe(Schema.withDecodingDefaultKey(Effect.succeed([])))
  }).pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** `required`: a write without If-Match is 428. */
  concurrency: Schema.Literals(["optional", "required"]).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("optional" as const))
  )
})
export type SchemaDefinitionSpec = typeof SchemaDefinitionSpec.Type

export const pathOfDefinition = ({ app, domain, object, org, version }: SchemaDefinitionSpec): RecordPath => ({
  org,
  app,
  domain,
  object,
  version
})
