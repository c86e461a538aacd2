/** An organisation: what its applications and domains inherit. Lives in Velocity's own namespace. */
import { Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { immutable } from "./CelRule.ts"
import { Label } from "./Field.ts"
import { orgRules } from "./PathRules.ts"
import { WorkingHours } from "./WorkingHours.ts"

export const OrganisationSpec = Schema.Struct({
  org: Label.annotateKey({ description: "Its name, which begins every path below it" }),
  displayName: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))).annotateKey({
    description: "What people call it"
  }),
  authStrategy: Schema.optionalKey(StrategyName).annotateKey({
    description: "The AuthStrategy of every Domain below that names none"
  }),
  workingHours: Schema.optionalKey(WorkingHours).annotateKey({
    description: "When people work here; without it no act is outside working hours"
  })
}).annotate({ celRules: [immutable("org"), ...orgRules] })
export type OrganisationSpec = typeof OrganisationSpec.Type
