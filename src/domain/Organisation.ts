/** An organisation: what its applications and domains inherit. Lives in Velocity's own namespace. */
import { Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { Label } from "./Field.ts"
import { WorkingHours } from "./WorkingHours.ts"

export const OrganisationSpec = Schema.Struct({
  org: Label,
  displayName: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
  /** The strategy of every Domain below that names none. */
  authStrategy: Schema.optionalKey(StrategyName),
  /** When people work here; without it no act is outside working hours. */
  workingHours: Schema.optionalKey(WorkingHours)
})
export type OrganisationSpec = typeof OrganisationSpec.Type
