/**
 * Erasing a record: `POST /api/{org}/{app}/{domain}/{object}/{version}/{id}/erase`.
 *
 * The path is a domain's, the caller is the platform's: this group's tokens are judged by the platform's own strategy
 * alone, and the role `platform-privacy` is asked for. No role of a domain can erase, and a domain's token is refused here
 * as it is under `/api/platform`.
 */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Bearer } from "./Bearer.ts"
import { ExactObjectBody, json } from "./ExactBody.ts"
import { problemsWith, writeStatuses } from "./ProblemBody.ts"
import { recordParams } from "./Records.ts"

/** What was erased. */
export const ErasedBody = Schema.Struct({
  id: Schema.String,
  entry: Schema.optionalKey(Schema.String).annotate({
    description: "The audit entry that says so; left out where it was undone again"
  }),
  rows: Schema.Int.annotate({ description: "1, or 0 where only history was left" }),
  versions: Schema.Int.annotate({ description: "Events of its history whose contents were removed" }),
  answers: Schema.Int.annotate({ description: "Answers kept for an Idempotency-Key that were removed" })
}).annotate({ identifier: "Erased" })

const erase = HttpApiEndpoint.post("erase", "/api/:org/:app/:domain/:object/:version/:id/erase", {
  params: recordParams,
  headers: { prefer: Schema.optionalKey(Schema.String) },
  payload: ExactObjectBody.annotate({ description: "{reason, ticket?}" }).pipe(json),
  success: ErasedBody,
  error: problemsWith(...writeStatuses)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Erase a record",
    description:
      "For platform-privacy of the platform's own strategy. Removes the contents of the record, live or deleted, of its history and of kept answers, for ever; audit entries, hashes and proofs stay, and an entry `erase` says who did it and why. Refused while live records refer to it: delete it first. A second time is 404. Prefer: tx=rollback does everything and then undoes it."
  })
)

/** See the module. */
export const privacy = HttpApiGroup.make("privacy")
  .add(erase)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Privacy", description: "For platform-privacy" }))
