/** A domain under the database's own org, and definitions for it, applied as the operator applies them. */
import * as Effect from "effect/Effect"
import * as Schedule from "effect/Schedule"
import * as Schema from "effect/Schema"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import { applyDomain } from "../../src/provisioning/ProvisionDomain.ts"
import type { Origin } from "../../src/provisioning/table/Origin.ts"
import { ProvisionRefused } from "../../src/provisioning/table/ProvisionRefused.ts"
import { withdraw } from "../../src/provisioning/Withdrawal.ts"
import { compileBackfill } from "../../src/records/type/Rules.ts"
import { Database, query } from "../support/Database.ts"

/** `shop/eu` of an org, with the roles that most tests need. */
export const definition = (
  org: string,
  partial: { readonly fields: ReadonlyArray<unknown> } & Record<string, unknown>
): SchemaDefinitionSpec =>
  Schema.decodeUnknownSync(SchemaDefinitionSpec)({
    org,
    app: "shop",
    domain: "eu",
    object: "thing",
    version: "v1",
    access: {
      roles: [
        { role: "buyer", operations: ["create", "read", "update"] },
        { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] }
      ]
    },
    ...partial
  })

export const originOf = (name: string, more: Partial<Origin> = {}): Origin => ({
  source: "folder",
  namespace: "shop-eu",
  name,
  ...more
})

export const makeWorld = Effect.gen(function* () {
  const database = yield* Database
  const sql = yield* OperatorSql
  const { org } = database
  const schema = `${org}_shop_eu`
  const domain = (name = "eu", more: Record<string, unknown> = {}) =>
    sql.transaction((tx) =>
      applyDomain(tx, {
        spec: { org, app: "shop", domain: name, deletionPolicy: "Retain", database: "default", ...more },
        origin: originOf(name, { namespace: "shop" }),
        authStrategy: undefined
      })
    )
  const runner: Evolution.Runner = { transaction: sql.transaction, alone: sql.alone, backfill: compileBackfill }
  /** As far as it comes: a plan that waits is an answer. A lock that does not come is waited for again. */
  const provision = (spec: SchemaDefinitionSpec, approved?: string, origin = originOf(spec.object)) =>
    Evolution.provision(runner, {
      spec,
      origin,
      ...(approved === undefined ? {} : { approval: { hash: approved, by: "tests/approver" } })
    }).pipe(Effect.retry({ while: isLockTimeout, schedule: Schedule.spaced("50 millis") }))
  const apply = (spec: SchemaDefinitionSpec, origin = originOf(spec.object)) =>
    Effect.flatMap(provision(spec, undefined, origin), (result) =>
      result._tag === "Applied" || result._tag === "Unchanged" ? Effect.succeed(result) : Effect.die(result)
    )
  return {
    database,
    org,
    schema,
    chain: `${org}/shop/eu`,
    sql,
    domain,
    apply,
    provision,
    runner,
    define: (partial: { readonly fields: ReadonlyArray<unknown> } & Record<string, unknown>) =>
      definition(org, partial),
    withdraw: (object: string, leaving: ReadonlyArray<string> = []) =>
      sql.transaction((tx) =>
        withdraw(tx, {
          path: `${org}/shop/eu/${object}/v1`,
          origin: originOf(object),
          leaving: new Set(leaving)
        }).pipe(Effect.map((outcome) => outcome._tag))
      ),
    /** As the superuser, to look at what nobody else may see. */
    look: (text: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, text, params)
  }
})

const isLockTimeout = (error: unknown): boolean =>
  error instanceof DatabaseFailure && error.reason._tag === "LockTimeout"

/** What a provisioning was refused for: the reason, and where. */
export const refusalOf = <A, R>(effect: Effect.Effect<A, unknown, R>): Effect.Effect<string, never, R> =>
  Effect.match(effect, {
    onSuccess: () => "ok",
    onFailure: (error) =>
      error instanceof ProvisionRefused
        ? [error.reason, ...error.faults.map((one) => one.pointer)].join(" ")
        : String(error)
  })
