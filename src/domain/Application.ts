/** An application of an organisation: who owns it, and what its domains inherit. */
import { Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { immutable } from "./CelRule.ts"
import { Label } from "./Field.ts"

export const ApplicationSpec = Schema.Struct({
  org: Label.annotateKey({ description: "The organisation that it belongs to" }),
  app: Label.annotateKey({ description: "Its name, the second part of every path below it" }),
  owner: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))).annotateKey({
    description: "Whom to ask, as an address"
  }),
  team: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))).annotateKey({
    description: "The team that runs it"
  }),
  authStrategy: Schema.optionalKey(StrategyName).annotateKey({
    description: "The AuthStrategy of every Domain below that names none; goes before the organisation's"
  })
}).annotate({ celRules: [immutable("org"), immutable("app")] })
export type ApplicationSpec = typeof ApplicationSpec.Type
