/**
 * The platform's own view, for the roles `platform-admin` and `platform-auditor` of the platform's strategy alone:
 * what is served, the audit log, its verification and its evidence.
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
  lifecycle: Schema.Struct({
    stage: Schema.Literals(["active", "deprecated", "sunset"]),
    deprecated_at: Schema.NullOr(Schema.String),
    sunset_at: Schema.NullOr(Schema.String).annotate({ description: "From then on its records are 410" }),
    successor: Schema.NullOr(Schema.String).annotate({ description: "The version that the definition names" })
  }),
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

/** A month of the log that was retired. */
export const SealedMonthBody = Schema.Struct({
  partition: Schema.String,
  from: Schema.String,
  to: Schema.String,
  entries: Schema.String.annotate({ description: "In digits" }),
  disposition: Schema.Literals(["drop", "keep", "export"])
}).annotate({ identifier: "SealedMonth" })

/** What a verification answers. */
export const AuditVerificationBody = Schema.Struct({
  from: Schema.String,
  to: Schema.String,
  sound: Schema.Boolean,
  entries: Schema.Int.annotate({ description: "How many entries the window has" }),
  findings: Schema.Array(AuditFindingBody),
  truncated: Schema.Boolean.annotate({ description: "There are more findings; ask for application/x-ndjson" }),
  sealed: Schema.Array(SealedMonthBody).annotate({
    description: "Months of the window that were retired: what follows them was verified against their seals"
  })
}).annotate({ identifier: "AuditVerification" })

/** An entry with the proof that it is in the signed tree. */
export const EntryProofBody = Schema.Struct({
  entry: AuditEntryBody,
  proof: Schema.String.annotate({
    description: "C2SP tlog-proof: index, path and signed checkpoint; verified by velocity audit verify-proof"
  })
}).annotate({ identifier: "EntryProof" })

/** The proof that one tree grew from another. */
export const ConsistencyBody = Schema.Struct({
  from: Schema.Int,
  to: Schema.Int,
  proof: Schema.Array(Schema.String.annotate({ description: "A hash, base64" }))
}).annotate({ identifier: "ConsistencyProof" })

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
      'Without from and to, the last 24 hours. As application/x-ndjson any window: a line for each entry that is wrong as it is found, between them lines {"verified": {"until", "entries", "total"}} from whose `until` on it can be asked for again, and one last line {"sound", "entries", "sealed"}; without that line the verification did not end.'
  })
)

const size = { description: "A number of leaves, in digits" }

const checkpoint = HttpApiEndpoint.get("checkpoint", "/api/platform/audit/checkpoint", {
  query: { size: text.annotate(size) },
  success: Schema.String.pipe(HttpApiSchema.asText({ contentType: "text/plain; charset=utf-8" })),
  error: problemsWith(...accessStatuses)
}).annotateMerge(
  OpenApi.annotations({
    summary: "The newest signed head of the log's tree, or the one of a size",
    description: "A C2SP tlog-checkpoint: a signed note, with the cosignatures of witnesses. Keep one outside."
  })
)

const proof = HttpApiEndpoint.get("proof", "/api/platform/audit/:id/proof", {
  params: { id: Schema.String },
  success: EntryProofBody,
  error: problemsWith(...accessStatuses, 409)
}).annotateMerge(OpenApi.annotations({ summary: "An entry, and the proof that it is in the signed tree" }))

const consistency = HttpApiEndpoint.get("consistency", "/api/platform/audit/consistency", {
  query: { from: text.annotate(size), to: text.annotate(size) },
  success: ConsistencyBody,
  error: problemsWith(...accessStatuses)
}).annotateMerge(OpenApi.annotations({ summary: "The proof that one tree of the log grew from another (RFC 6962)" }))

const tree = HttpApiEndpoint.get("tree", "/api/platform/audit/tree", {
  query: {
    origin: text,
    size: text.annotate(size),
    root: text.annotate({ description: "Hexadecimal" }),
    from: text.annotate({ description: "A leaf to go on from, as a line `verified` said" })
  },
  success: HttpApiSchema.StreamUint8Array({ contentType: ndjsonContentType }),
  error: problemsWith(...accessStatuses)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Verify the log against its tree, and the tree against a checkpoint from outside",
    description:
      'A line for each thing that is wrong (tail_missing, head_mismatch, seal_mismatch, rewritten, seq_gap, tree_broken, unknown_origin; restored is no fault), after each slice of leaves but the last one {"verified": {"until", "total"}}, then one line {"sound"}. Without origin, size and root, against the newest checkpoint that is stored.'
  })
)

/** See the module. */
export const platform = HttpApiGroup.make("platform")
  .add(schemas, audit, verify, checkpoint, proof, consistency, tree)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Platform", description: "For platform-admin and platform-auditor" }))
