/** A domain: one Postgres schema with its roles, one audit chain. */
import { Effect, Schema } from "effect"
import { StrategyName } from "./AuthStrategy.ts"
import { immutable } from "./CelRule.ts"
import { Label } from "./Field.ts"
import { domainRules } from "./PathRules.ts"

export const DomainSpec = Schema.Struct({
  org: Label.annotateKey({ description: "The organisation that it belongs to" }),
  app: Label.annotateKey({ description: "The application that it belongs to" }),
  domain: Label.annotateKey({ description: "Its name, the third part of the path of its records" }),
  authStrategy: Schema.optionalKey(StrategyName).annotateKey({
    description:
      "The AuthStrategy by which callers prove who they are: of this namespace, or velocity-system/{name}; else the application's, else the organisation's"
  }),
  deletionPolicy: Schema.Literals(["Retain", "Delete"])
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("Retain" as const)))
    .annotateKey({
      description:
        "What becomes of the records when a definition is deleted: Retain keeps them, shut, for whoever applies its path again; Delete destroys them once no replica of the API serves them, never under a legal hold, and with the last of them what the deleted domain had in Postgres"
    }),
  database: Label.pipe(Schema.withDecodingDefaultKey(Effect.succeed("default"))).annotateKey({
    description: "Which of the configured databases holds it; cannot be changed"
  })
}).annotate({
  celRules: [immutable("org"), immutable("app"), immutable("domain"), immutable("database"), ...domainRules]
})
export type DomainSpec = typeof DomainSpec.Type
