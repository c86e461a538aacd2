/** A domain of definitions, provisioned as the operator provisions it. */
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Schema from "effect/Schema"
import { DomainSpec } from "../../src/domain/Domain.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import type { ServedDefinition } from "../../src/domain/ServedDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import { applyDomain } from "../../src/provisioning/ProvisionDomain.ts"

const read = `select id, path, chain, storage, storage_id, generation::int4 as generation, pg_schema, pg_table, foreign_keys
from platform.schema_defs where path = $1`

/** Provisions one domain with these definitions, which name no other domain; answers them by path, as they are served. */
export const provision = (
  operatorUrl: string,
  specs: ReadonlyArray<SchemaDefinitionSpec>
): Effect.Effect<ReadonlyMap<string, ServedDefinition>, unknown> =>
  Effect.gen(function* () {
    const operator = yield* OperatorSql
    const [{ app, domain, org }] = specs as [SchemaDefinitionSpec]
    const originOf = (name: string) => ({ source: "folder", namespace: "test", name })
    yield* operator.transaction((tx) =>
      applyDomain(tx, {
        spec: Schema.decodeUnknownSync(DomainSpec)({ org, app, domain }),
        origin: originOf(domain),
        authStrategy: undefined
      })
    )
    const applied = Effect.forEach(specs, (spec) =>
      operator.transaction((tx) => Provision.apply(tx, { spec, origin: originOf(spec.object) }))
    )
    // a definition whose target comes later gets its foreign key when it is looked at again
    yield* applied
    const outcomes = yield* applied
    const defs = new Map<string, ServedDefinition>()
    for (const [index, { path }] of outcomes.entries()) {
      const [row] = (yield* operator.query(statement(read, [path]))).rows
      defs.set(path, {
        id: Number(row?.id),
        path,
        chain: String(row?.chain),
        storage: String(row?.storage),
        storageId: Number(row?.storage_id),
        generation: Number(row?.generation),
        pgSchema: String(row?.pg_schema),
        pgTable: String(row?.pg_table),
        spec: specs[index] as SchemaDefinitionSpec,
        foreignKeys: (row?.foreign_keys ?? []) as ReadonlyArray<string>
      })
    }
    return defs
  }).pipe(
    Effect.provide(
      OperatorSql.layer.pipe(
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown({ VELOCITY_OPERATOR_DATABASE_URL: operatorUrl })))
      )
    ),
    Effect.scoped
  )
