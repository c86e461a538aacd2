/**
 * What the API answers instead of what was asked: RFC 9457 documents of the closed catalogue in `domain/Problem.ts`.
 *
 * Every endpoint declares the statuses it can answer with; all share one body, so a client decodes each of them alike.
 */
import { Schema } from "effect"
import { HttpApiSchema } from "effect/http-api"

/** RFC 9457 §3. */
export const problemContentType = "application/problem+json"

/** One thing that is wrong with an input. */
export const FaultBody = Schema.Struct({
  pointer: Schema.String.annotate({ description: "A JSON pointer (RFC 6901): /field, in bulk /index/field" }),
  code: Schema.String.annotate({ description: "Stable, for programs" }),
  detail: Schema.String.annotate({ description: "For people" })
}).annotate({ identifier: "Fault" })

/** The body of every answer that is not what was asked for. Members that a later version adds are let pass. */
export const ProblemBody = Schema.Struct({
  type: Schema.String.annotate({ description: "https://velocity.sh/problems/{code}" }),
  title: Schema.String,
  status: Schema.Int,
  code: Schema.String.annotate({ description: "Stable, for programs; see docs/problems.md" }),
  detail: Schema.optionalKey(Schema.String),
  requestId: Schema.optionalKey(Schema.String).annotate({
    description: "Names the request in logs, audit and history"
  }),
  errors: Schema.optionalKey(Schema.Array(FaultBody))
}).annotate({ identifier: "Problem" })

/** See the schema. */
export interface ProblemBody extends Schema.Schema.Type<typeof ProblemBody> {}

const bodies = new Map<number, ReturnType<typeof bodyOf>>()
const bodyOf = (status: number) =>
  ProblemBody.pipe(HttpApiSchema.status(status), HttpApiSchema.asJson({ contentType: problemContentType }))

/** The error schemas of an endpoint that can answer with these statuses. */
export const problemsWith = (...statuses: ReadonlyArray<number>) =>
  statuses.map((status) => {
    const body = bodies.get(status) ?? bodyOf(status)
    bodies.set(status, body)
    return body
  })

/** What every endpoint behind a token can answer. */
export const accessStatuses = [400, 401, 403, 404, 405, 406, 500, 503] as const
/** What a read of records can answer besides. */
export const readStatuses = [...accessStatuses, 408, 410, 413, 415, 422] as const
/** What a write of records can answer besides. */
export const writeStatuses = [...readStatuses, 409, 412, 428] as const
