/**
 * The platform's own view, for the roles `platform-admin` and `platform-auditor` of the platform's strategy alone:
 * what is served, the audit log, and its verification.
 */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Bearer } from "./Bearer.ts"
import { ndjsonContentType } from "./ExactBody.ts"
import { accessStatuses, problemsWith } from "./ProblemBody.ts"

/** A record type, as the platform knows it. */
export const SchemaBody = Schema.Struct({
  path: Schema.String,
  chain: Schema.String,
  state: Schema.String,
  generation: Schema.NullOr(Schema.Int),
  pg_schema: Schema.String,
  pg_table: Schema.String,
  serving: Schema.Boolean.annotate({ description: "Whether records of it can be asked for" }),
  updated_at: Schema.String
}).annotate({ identifier: "SchemaSummary" })

/** An entry of the audit log. Texts are as Postgres prints them, so that its hash can be computed anew (audit.md). */
export const AuditEntryBody = Schema.Struct({
  id: Schema.String,
  chain: Schema.String,
  lane: Schema.Int,
  seq: Schema.String.annotate({ description: "In digits: it may pass 2^53" }),
  occurred_at: Schema.String.annotate({ description: "UTC, with microseconds" }),
  actor: Schema.String,
  action: Schema.String,
  outcome: Schema.String,
  schema_path: Schema.NullOr(Schema.String),
  entity_id: Schema.NullOr(Schema.String),
  payload: Schema.NullOr(Schema.String).annotate({ description: "JSON, as Postgres prints it" }),
  request_id: Schema.NullOr(Schema.String),
  reason: Schema.NullOr(Schema.String),
  ticket_ref: Schema.NullOr(Schema.String),
  fail_modes: Schema.NullOr(Schema.String).annotate({ description: "JSON, as Postgres prints it" }),
  db_login: Schema.String,
  db_role: Schema.String,
  prev_hash: Schema.String.annotate({ description: "Hexadecimal" }),
  hash: Schema.String.annotate({ description: "Hexadecimal" })
}).annotate({ identifier: "AuditEntry" })

/** An entry that is wrong. */
export const AuditFindingBody = Schema.Struct({
  chain: Schema.String,
  lane: Schema.Int,
  seq: Schema.String.annotate({ description: "In digits: it may pass 2^53" }),
  id: Schema.NullOr(Schema.String),
  occurred_at: Schema.NullOr(Schema.String),
  stored_hash: Schema.NullOr(Schema.String),
  computed_hash: Schema.NullOr(Schema.String),
  problem: Schema.String
}).annotate({ identifier: "AuditFinding" })

/** What a verification answers. */
export const AuditVerificationBody = Schema.Struct({
  from: Schema.String,
  to: Schema.String,
  sound: Schema.Boolean,
  entries: Schema.Int.annotate({ description: "How many entries the window has" }),
  findings: Schema.Array(AuditFindingBody),
  truncated: Schema.Boolean.annotate({ description: "There are more findings; ask for application/x-ndjson" })
}).annotate({ identifier: "AuditVerification" })

const text = Schema.optionalKey(Schema.String)
const window = {
  from: text.annotate({ description: "RFC 3339, inclusive" }),
  to: text.annotate({ description: "RFC 3339, exclusive" })
}
const page = {
  limit: text.annotate({ description: "1 to 1000; 100 where it is left out" }),
  cursor: text.annotate({ description: "next_cursor of the page before" })
}

const schemas = HttpApiEndpoint.get("schemas", "/api/platform/schemas", {
  query: { chain: text, ...page },
  success: Schema.Struct({ items: Schema.Array(SchemaBody), next_cursor: Schema.NullOr(Schema.String) }),
  error: problemsWith(...accessStatuses)
}).annotateMerge(OpenApi.annotations({ summary: "Every record type, and what is served of it" }))

const audit = HttpApiEndpoint.get("audit", "/api/platform/audit", {
  query: { chain: text, actor: text, action: text, outcome: text, entity: text, ...window, ...page },
  success: Schema.Struct({ items: Schema.Array(AuditEntryBody), next_cursor: Schema.NullOr(Schema.String) }),
  error: problemsWith(...accessStatuses)
}).annotateMerge(OpenApi.annotations({ summary: "Entries of the audit log, newest first" }))

const verify = HttpApiEndpoint.get("verify", "/api/platform/audit/verify", {
  query: window,
  success: [AuditVerificationBody, HttpApiSchema.StreamUint8Array({ contentType: ndjsonContentType })],
  error: problemsWith(...accessStatuses)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Verify a window of the audit log",
    description:
      'Without from and to, the last 24 hours. As application/x-ndjson any window: a line for each entry that is wrong as it is found, then one line {"sound", "entries"}; without that last line the verification did not end.'
  })
)

/** See the module. */
export const platform = HttpApiGroup.make("platform")
  .add(schemas, audit, verify)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Platform", description: "For platform-admin and platform-auditor" }))
