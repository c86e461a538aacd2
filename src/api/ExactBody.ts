/**
 * Bodies of records: JSON whose numbers are never a float, on either side of the wire.
 *
 * The contract declares them as text of a JSON media type, so that no generated code parses them; the transformation to
 * a value is `domain/ExactJson`'s. The server's record endpoints pass the text through and never run it.
 */
import { Effect, Schema, SchemaIssue, SchemaTransformation } from "effect"
import { HttpApiSchema } from "effect/http-api"
import { type ExactObject, type ExactValue, isExactObject, parse, stringify } from "../domain/ExactJson.ts"

const isObject = (value: unknown): value is ExactObject => isExactObject(value as ExactValue)
const isArray = (value: unknown): value is ReadonlyArray<ExactValue> => Array.isArray(value)

/** Answers of Postgres may be nested by what a `json` field holds, inside our own envelope. */
const answerDepth = 40

const read = (text: string) =>
  Effect.try({
    try: () => parse(text, { maxDepth: answerDepth }),
    catch: () => new SchemaIssue.InvalidValue({ message: "not JSON" })
  })

const exact = <A extends ExactValue>(is: (value: unknown) => value is A, expected: string) =>
  Schema.String.pipe(
    Schema.decodeTo(
      Schema.declare(is, { expected }),
      SchemaTransformation.transformEffect<A, string>({
        decode: (text) =>
          Effect.flatMap(read(text), (value) =>
            is(value)
              ? Effect.succeed(value)
              : Effect.fail(new SchemaIssue.InvalidValue({ message: `not ${expected}` }))
          ),
        encode: (value) => Effect.succeed(stringify(value))
      })
    )
  )

/** An object: a record, a page of records, a merge patch. */
export const ExactObjectBody = exact(isObject, "an object")
/** An array: many records, or a JSON patch. */
export const ExactArrayBody = exact(isArray, "an array")

/** The body as `application/json`. */
export const json = HttpApiSchema.asText({ contentType: "application/json" })
export const mergePatch = HttpApiSchema.asText({ contentType: "application/merge-patch+json" })
export const jsonPatch = HttpApiSchema.asText({ contentType: "application/json-patch+json" })
export const ndjsonContentType = "application/x-ndjson"
