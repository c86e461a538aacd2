/** An application of an organisation: who owns it, and what its domains inherit. */
import { Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { Label } from "./Field.ts"

export const ApplicationSpec = Schema.Struct({
  org: Label,
  app: Label,
  owner: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
  team: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
  authStrategy: Schema.optionalKey(StrategyName)
})
export type ApplicationSpec = typeof ApplicationSpec.Type
