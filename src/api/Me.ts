/** Who am I, and what may I do there: `GET /api/me?path=`. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { Bearer } from "./Bearer.ts"
import { accessStatuses, problemsWith } from "./ProblemBody.ts"

const GrantedOperationBody = Schema.Struct({
  operation: Schema.String,
  roles: Schema.Array(Schema.String).annotate({ description: "Those of your roles that grant it" }),
  filtered: Schema.Boolean.annotate({ description: "Only rows that pass a filter are meant" })
})

/** What `GET /api/me` answers. */
export const MeBody = Schema.Struct({
  actor: Schema.String.annotate({ description: "{strategy}/{subject}: your name everywhere" }),
  strategy: Schema.String,
  subject: Schema.String,
  roles: Schema.Array(Schema.String).annotate({ description: "Of the token and of RoleBindings, in this domain" }),
  attributes: Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Array(Schema.String)])),
  expires_at: Schema.NullOr(Schema.String).annotate({ description: "When the token ends" }),
  path: Schema.NullOr(Schema.String),
  record_types: Schema.optionalKey(
    Schema.Array(Schema.Struct({ path: Schema.String, operations: Schema.Array(Schema.String) }))
  ).annotate({ description: "Where the path names a domain: what you may do with its record types, 100 at most" }),
  rights: Schema.optionalKey(
    Schema.Struct({
      path: Schema.String,
      operations: Schema.Array(GrantedOperationBody),
      fields: Schema.Struct({
        readable: Schema.Array(Schema.String),
        masked: Schema.Array(Schema.String),
        writable: Schema.Array(Schema.String)
      })
    })
  ).annotate({ description: "Where the path names a record type" })
}).annotate({ identifier: "Me" })

const me = HttpApiEndpoint.get("me", "/api/me", {
  query: {
    path: Schema.optionalKey(Schema.String).annotate({
      description: "A domain (org/app/domain) or a record type (org/app/domain/object/version); without it the platform"
    })
  },
  success: MeBody,
  error: problemsWith(...accessStatuses)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Who am I, and what may I do there",
    description: "The domain's own strategy judges the token, so the path is asked for as its records are."
  })
)

/** See the module. */
export const meGroup = HttpApiGroup.make("me")
  .add(me)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Me" }))
