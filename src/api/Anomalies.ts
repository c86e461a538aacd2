/**
 * What the anomaly scanner found, for `platform-admin` and `platform-auditor` of the platform's strategy; and a rule tried
 * over the past, which raises nothing.
 */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { AnomalyRule } from "../domain/AnomalyRule.ts"
import { Bearer } from "./Bearer.ts"
import { accessStatuses, problemsWith } from "./ProblemBody.ts"

const Severity = Schema.Literals(["info", "warning", "critical"])
const Moment = Schema.String.annotate({ description: "UTC, with microseconds" })

/** Where an entry of the audit log stands that caused an alert. */
export const AnomalyEntryBody = Schema.Struct({
  chain: Schema.String,
  lane: Schema.Int,
  seq: Schema.String.annotate({ description: "In digits: it may pass 2^53" }),
  id: Schema.NullOr(Schema.String),
  occurred_at: Schema.String,
  problem: Schema.optionalKey(Schema.String).annotate({ description: "What verification found wrong with it" })
}).annotate({ identifier: "AnomalyEntry" })

const WindowBody = Schema.Struct({ from: Moment, to: Moment })

/** An alert, who was told of it, and who has seen it. */
export const AnomalyBody = Schema.Struct({
  id: Schema.String,
  rule: Schema.String,
  title: Schema.String,
  severity: Severity,
  chain: Schema.String,
  actor: Schema.NullOr(Schema.String).annotate({ description: "Null where the rule does not group by it" }),
  address: Schema.NullOr(Schema.String),
  window: WindowBody,
  count: Schema.Int,
  threshold: Schema.Int,
  entries: Schema.Array(AnomalyEntryBody).annotate({ description: "The newest that caused it, at most 100" }),
  created_at: Moment,
  acknowledged: Schema.NullOr(Schema.Struct({ by: Schema.String, at: Moment, comment: Schema.String })),
  deliveries: Schema.Array(
    Schema.Struct({
      endpoint: Schema.String,
      attempts: Schema.Int,
      status: Schema.NullOr(Schema.Int).annotate({ description: "Of the last attempt; null without an answer" }),
      error: Schema.NullOr(Schema.String),
      next_attempt_at: Schema.NullOr(Moment),
      delivered_at: Schema.NullOr(Moment),
      given_up_at: Schema.NullOr(Moment)
    })
  )
}).annotate({ identifier: "Anomaly" })

/** What a rule would have raised. */
export const AnomalyScanBody = Schema.Struct({
  rule: Schema.String,
  from: Schema.String,
  to: Schema.String,
  alerts: Schema.Array(
    Schema.Struct({
      chain: Schema.String,
      actor: Schema.NullOr(Schema.String),
      address: Schema.NullOr(Schema.String),
      window: WindowBody,
      count: Schema.Int,
      threshold: Schema.Int
    })
  ),
  truncated: Schema.Boolean.annotate({ description: "There would have been more: narrow the rule or the time" })
}).annotate({ identifier: "AnomalyScan" })

const text = Schema.optionalKey(Schema.String)

const list = HttpApiEndpoint.get("list", "/api/platform/anomalies", {
  query: {
    chain: text,
    rule: text,
    severity: text,
    acknowledged: text.annotate({ description: "true or false; both where it is left out" }),
    limit: text.annotate({ description: "1 to 1000; 100 where it is left out" }),
    cursor: text.annotate({ description: "next_cursor of the page before" })
  },
  success: Schema.Struct({ items: Schema.Array(AnomalyBody), next_cursor: Schema.NullOr(Schema.String) }),
  error: problemsWith(...accessStatuses)
}).annotateMerge(OpenApi.annotations({ summary: "Alerts of the anomaly scanner, newest first" }))

const acknowledge = HttpApiEndpoint.post("acknowledge", "/api/platform/anomalies/:id/acknowledge", {
  params: { id: Schema.String.annotate({ description: "A UUID in lower case" }) },
  payload: Schema.Struct({ comment: Schema.String.annotate({ description: "1 to 1000 characters" }) }),
  success: AnomalyBody,
  error: problemsWith(...accessStatuses, 408, 413, 415, 422)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Say that an alert was seen",
    description:
      "For platform-admin. Entered in the audit log the first time; later ones change nothing and answer what was said then."
  })
)

const scan = HttpApiEndpoint.post("scan", "/api/platform/anomalies/scan", {
  payload: Schema.Struct({
    rule: Schema.toEncoded(AnomalyRule),
    from: text.annotate({ description: "RFC 3339; seven days before `to` where it is left out" }),
    to: text.annotate({ description: "RFC 3339, exclusive; now where it is left out" })
  }),
  success: AnomalyScanBody,
  error: problemsWith(...accessStatuses, 408, 413, 415, 422)
}).annotateMerge(
  OpenApi.annotations({
    summary: "Try a rule over at most 31 days of the past",
    description: "Answers what it would have raised, oldest first, and raises and writes nothing."
  })
)

/** See the module. */
export const anomalies = HttpApiGroup.make("anomalies")
  .add(list, acknowledge, scan)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Anomalies", description: "For platform-admin and platform-auditor" }))
