/**
 * Values of records as a program has them. A number comes as it was written (`ExactNumber`); these schemas turn it into
 * what can be computed with exactly, and back. None of them passes through a float.
 */
import { Effect, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { type DecimalString, decimalText, ExactNumber } from "../domain/ExactJson.ts"

const isExactNumber = (value: unknown): value is ExactNumber => value instanceof ExactNumber

/** A JSON number as it was written. */
export const Exact = Schema.declare(isExactNumber, { expected: "a number" })

const invalid = (message: string) => Effect.fail(new SchemaIssue.InvalidValue({ message }))

/** A number field: `"12.3400"`, at the declared scale. Written back it must be a JSON number without `+`, NaN or infinity. */
export const Decimal = Exact.pipe(
  Schema.decodeTo(
    Schema.String,
    SchemaTransformation.transformEffect<DecimalString, ExactNumber>({
      decode: (number) => {
        const text = decimalText(number)
        return text === undefined ? invalid("a number of more than 2,000 digits") : Effect.succeed(text)
      },
      encode: (text) =>
        /^-?(0|[1-9][0-9]*)(\.[0-9]+)?$/u.test(text) ? Effect.succeed(new ExactNumber(text)) : invalid("not a decimal")
    })
  )
)

/** An integer field, beyond 2^53 too. */
export const Integer = Exact.pipe(
  Schema.decodeTo(
    Schema.BigInt,
    SchemaTransformation.transformEffect<bigint, ExactNumber>({
      decode: (number) =>
        /^-?[0-9]+$/u.test(number.text) ? Effect.succeed(BigInt(number.text)) : invalid("not an integer"),
      encode: (value) => Effect.succeed(new ExactNumber(value.toString()))
    })
  )
)

/** A number that is small by its nature, such as a row's version. */
export const Count = Exact.pipe(
  Schema.decodeTo(
    Schema.Int,
    SchemaTransformation.transformEffect<number, ExactNumber>({
      decode: (number) => Effect.succeed(number.toNumber()),
      encode: (value) => Effect.succeed(new ExactNumber(String(value)))
    })
  )
)

/** What every record has beside its own fields. Times are RFC 3339 with microseconds, as text. */
export const SystemColumns = {
  id: Schema.String,
  version: Count,
  created_at: Schema.String,
  created_by: Schema.String,
  updated_at: Schema.String,
  updated_by: Schema.String,
  deleted_at: Schema.NullOr(Schema.String),
  /** Fields that the caller may not see as they are: null, or the part that is shown. */
  _masked: Schema.optionalKey(Schema.Record(Schema.String, Schema.NullOr(Schema.String)))
}
