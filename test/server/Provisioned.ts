/** Domains with record types, in place before a server starts: provisioned as the operator provisions them. */
import { ConfigProvider, Effect, Layer, Schema } from "effect"
import { DomainSpec } from "../../src/domain/Domain.ts"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import * as ProvisionDomain from "../../src/provisioning/ProvisionDomain.ts"
import { configOf, type TestDatabase } from "../support/Database.ts"

export interface WantedDomain {
  readonly chain: string
  /** The strategy that judges its tokens. */
  readonly strategy: string
  /** Specs of its record types, as a manifest has them, those first that others refer to. */
  readonly types: ReadonlyArray<unknown>
}

const origin = (name: string) => ({ source: "folder", namespace: "test", name })

/** Makes domains and their record types as `velocity_operator`. */
export const provision = (
  database: TestDatabase,
  domains: ReadonlyArray<WantedDomain>,
  variables: Readonly<Record<string, string>> = {}
): Promise<void> =>
  Effect.gen(function* () {
    const operator = yield* OperatorSql
    for (const { chain, strategy, types } of domains) {
      const [org, app, domain] = chain.split("/")
      const spec = Schema.decodeUnknownSync(DomainSpec)({ org, app, domain })
      yield* operator.transaction((tx) =>
        ProvisionDomain.applyDomain(tx, { spec, origin: origin(chain.replaceAll("/", "-")), authStrategy: strategy })
      )
      for (const one of types) {
        const definition = Schema.decodeUnknownSync(SchemaDefinitionSpec)(one)
        yield* operator.transaction((tx) =>
          Provision.apply(tx, { spec: definition, origin: origin(`${domain}-${definition.object}`) })
        )
      }
    }
  }).pipe(
    Effect.provide(OperatorSql.layer.pipe(Layer.provide(ConfigProvider.layer(configOf(database, variables))))),
    Effect.runPromise
  )
