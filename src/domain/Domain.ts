/** A domain: one Postgres schema with its roles, one audit chain. */
import { Effect, Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { Label } from "./Field.ts"

export const DomainSpec = Schema.Struct({
  org: Label,
  app: Label,
  domain: Label,
  authStrategy: Schema.optionalKey(StrategyName),
  /** What becomes of the data when a definition is deleted. */
  deletionPolicy: Schema.Literals(["Retain", "Delete"]).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("Retain" as const))
  ),
  /** Which of the configured databases holds it; immutable. */
  database: Label.pipe(Schema.withDecodingDefaultKey(Effect.succeed("default")))
})
export type DomainSpec = typeof DomainSpec.Type
