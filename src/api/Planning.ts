/** What applying a definition would do to its table, asked before it is applied; for `velocity schema plan --api` and for CI. */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, OpenApi } from "effect/http-api"
import { apiVersion } from "../domain/Resource.ts"
import { SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import { Bearer } from "./Bearer.ts"
import { accessStatuses, problemsWith } from "./ProblemBody.ts"

const PlanStepBody = Schema.Struct({
  phase: Schema.Literals(["expand", "backfill", "build", "switch", "validate"]),
  does: Schema.String,
  sql: Schema.String.annotate({ description: "The statements, without values of any record" }),
  lock: Schema.String.annotate({ description: "The strongest lock on the table, or none" }),
  rewrites: Schema.Boolean,
  losesData: Schema.Boolean,
  needsApproval: Schema.Boolean.annotate({ description: "It can lose data or break clients" }),
  concurrently: Schema.Boolean.annotate({ description: "Outside transactions" }),
  batched: Schema.Boolean,
  computes: Schema.optionalKey(Schema.String).annotate({ description: "The field whose values Velocity computes" }),
  repairs: Schema.Boolean.annotate({ description: "It puts right what somebody did by hand" }),
  object: Schema.optionalKey(Schema.String).annotate({
    description: "The index that it builds, or the constraint that it proves"
  }),
  estimate: Schema.optionalKey(Schema.Number).annotate({ description: "Rows that it reads or writes, about" }),
  why: Schema.optionalKey(Schema.String).annotate({ description: "What whoever approves should know" })
}).annotate({ identifier: "PlanStep" })

/** What a plan is answered as. */
export const PlanBody = Schema.Struct({
  path: Schema.String,
  state: Schema.Literals(["unchanged", "runs by itself", "waits for approval"]),
  hash: Schema.optionalKey(Schema.String).annotate({
    description: "By which it is approved, as velocity.sh/approve-plan says it; none where there is nothing to do"
  }),
  steps: Schema.Array(PlanStepBody)
}).annotate({ identifier: "Plan" })

const plan = HttpApiEndpoint.post("plan", "/api/platform/plan", {
  query: {
    path: Schema.optionalKey(Schema.String).annotate({
      description: "The domain of the definition (org/app/domain), whose strategy then judges the token"
    })
  },
  payload: Schema.Struct({
    apiVersion: Schema.Literal(apiVersion),
    kind: Schema.Literal("SchemaDefinition"),
    metadata: Schema.optionalKey(Schema.Record(Schema.String, Schema.Unknown)).annotate({
      description: "As in a manifest; may be left out"
    }),
    spec: Schema.toEncoded(SchemaDefinitionSpec)
  }),
  success: PlanBody,
  error: problemsWith(...accessStatuses, 408, 413, 415, 422)
}).annotateMerge(
  OpenApi.annotations({
    summary: "What applying a definition would do to its table",
    description:
      "For `schema-planner` of the domain that `path` names, or without `path` for `platform-admin`. The body is the manifest, 1 MiB at most. The operator makes the plan of the table as it is, and changes nothing; 503 `no_operator` where none answers in time. No value and no id of a record is told, but how many break a rule."
  })
)

/** See the module. */
export const planning = HttpApiGroup.make("planning")
  .add(plan)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Planning", description: "For schema-planner and platform-admin" }))
