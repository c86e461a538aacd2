/** Domains with record types, in place before a server starts. */
import { Effect, Schema } from "effect"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { provision as provisionTables } from "../records/Provisioned.ts"
import { query, type TestDatabase } from "../support/Database.ts"

export interface WantedDomain {
  readonly chain: string
  /** The strategy that judges its tokens. */
  readonly strategy: string
  /** Specs of its record types, as a manifest has them. */
  readonly types: ReadonlyArray<unknown>
}

/** Makes domains and their record types as `velocity_operator`. */
export const provision = async (database: TestDatabase, domains: ReadonlyArray<WantedDomain>): Promise<void> => {
  for (const { chain, strategy, types } of domains) {
    const specs = types.map((spec) => Schema.decodeUnknownSync(SchemaDefinitionSpec)(spec))
    await Effect.runPromise(provisionTables(database.operatorUrl, specs))
    await Effect.runPromise(
      query(
        database.operatorUrl,
        "update platform.domains set auth_strategy = $2, spec = jsonb_build_object('authStrategy', $2::text) where chain = $1",
        [chain, strategy]
      )
    )
  }
}
