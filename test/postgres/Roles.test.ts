/** The services under the real roles of a migrated database: who may enter what, and what is left when they have left. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Stream from "effect/Stream"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as AuditChain from "../../src/postgres/AuditChain.ts"
import { AuditorTx } from "../../src/postgres/AuditorTx.ts"
import type { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { asOwner } from "../../src/postgres/OwnerTx.ts"
import { statement } from "../../src/postgres/Statement.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { Database, withDatabase } from "../support/Database.ts"

const services = Layer.mergeAll(TenantTx.layerNoDeps, GatewayTx.layerNoDeps, AuditorTx.layerNoDeps).pipe(
  Layer.provideMerge(ApiSql.layer),
  Layer.merge(OperatorSql.layer)
)

const whoami = statement(
  "select session_user::text as login, current_setting('role') as role, nullif(current_setting('velocity.ctx', true), '') as ctx"
)

const refused = <A, R>(effect: Effect.Effect<A, DatabaseFailure, R>) =>
  Effect.map(Effect.flip(effect), (failure) => failure.reason._tag)

/** A domain as provisioning makes one, with one table, by the operator alone. */
const domain = Effect.fnUntraced(function* (name: string) {
  const { org } = yield* Database
  const operator = yield* OperatorSql
  const schema = `${org}_geo_${name}`
  const chain = `${org}/geo/${name}`
  const tiers = ["reader", "writer", "admin"].map((tier) => `${schema}_${tier}`).join(", ")
  yield* operator.transaction((tx) =>
    Effect.gen(function* () {
      yield* tx.query(statement("insert into platform.domains (chain, pg_schema) values ($1, $2)", [chain, schema]))
      for (const tier of ["owner", "reader", "writer", "admin"]) {
        yield* tx.query(statement(`create role ${schema}_${tier} nologin`))
      }
      yield* tx.query(statement(`grant ${schema}_owner to velocity_operator with inherit false, set true`))
      yield* tx.query(statement(`grant ${tiers} to velocity_api with inherit false, set true, admin false`))
      yield* tx.query(statement("select platform.domain_admit($1)", [schema]))
      yield* tx.query(statement(`create schema ${schema} authorization ${schema}_owner`))
      yield* asOwner(tx, schema, (owner) =>
        Effect.gen(function* () {
          yield* owner.query(statement(`create table ${schema}.thing (id int primary key, name text)`))
          yield* owner.query(statement(`grant usage on schema ${schema} to ${tiers}`))
          yield* owner.query(statement(`grant select, insert on ${schema}.thing to ${tiers}`))
        })
      )
      yield* AuditChain.insert(tx, { chain, actor: "test/operator", action: "operator.domain.apply", outcome: "ok" })
    })
  )
  return { schema, chain, insert: statement(`insert into ${schema}.thing values ($1, $2)`, [1, "one"]) }
})

const entry = (chain: string, outcome: AuditChain.Entry["outcome"]): AuditChain.Entry => ({
  chain,
  actor: "test/alice",
  action: "create",
  outcome,
  schemaPath: `${chain}/thing/v1`,
  entityId: "0190a8c0-0000-7000-8000-000000000001",
  payload: { fields: ["name"], text: "é\"'\\" },
  requestId: "r1",
  reason: "because"
})

layer(withDatabase(services), { excludeTestServices: true })("roles", (it) => {
  it.effect("a tenant's transaction is its domain's role, with its context, and leaves an entry in its chain", () =>
    Effect.gen(function* () {
      const { schema, chain, insert } = yield* domain("atlas")
      const tenant = yield* TenantTx
      const ctx = '{"op":"create","actor":"test/alice"}'
      const [who, , audited] = yield* tenant.bundle({ role: `${schema}_writer`, ctx }, [
        whoami,
        insert,
        AuditChain.statement(entry(chain, "ok"))
      ])
      assert.deepStrictEqual(who?.rows, [{ login: "velocity_api", role: `${schema}_writer`, ctx }])
      assert.match(String(audited?.rows[0]?.id), /^[0-9a-f-]{36}$/)
      const auditor = yield* AuditorTx
      const [rows] = yield* auditor.bundle([
        statement(
          "select actor, outcome, entity_id, payload, request_id, reason, db_login, db_role from platform.audit_log where id = $1",
          [audited?.rows[0]?.id]
        )
      ])
      assert.deepStrictEqual(rows?.rows, [
        {
          actor: "test/alice",
          outcome: "ok",
          entity_id: "0190a8c0-0000-7000-8000-000000000001",
          payload: { fields: ["name"], text: "é\"'\\" },
          request_id: "r1",
          reason: "because",
          db_login: "velocity_api",
          db_role: `${schema}_writer`
        }
      ])
    })
  )

  it.effect("no role but those that it was granted can be entered, and RESET ROLE leaves nothing", () =>
    Effect.gen(function* () {
      const { schema, chain, insert } = yield* domain("maps")
      const other = yield* domain("other")
      const tenant = yield* TenantTx
      for (const role of [
        `${schema}_owner`,
        "velocity_owner",
        "velocity_operator",
        "velocity_tenant",
        "velocity_history",
        "postgres",
        "velocity_migrator",
        "pg_read_all_data"
      ]) {
        assert.strictEqual(yield* refused(tenant.bundle({ role, ctx: "{}" }, [whoami])), "Denied", role)
        assert.strictEqual(yield* refused(tenant.run({ role, ctx: "{}" }, (tx) => tx.query(whoami))), "Denied", role)
      }
      const enter = { role: `${schema}_writer`, ctx: "{}" }
      for (const escape of ["reset role", "set role none"]) {
        for (const then of [
          insert,
          AuditChain.statement(entry(chain, "ok")),
          statement("select * from platform.domains")
        ]) {
          assert.strictEqual(yield* refused(tenant.bundle(enter, [statement(escape), then])), "Denied", then.sql)
        }
      }
      // from within one domain nothing of another's, and no entry in its chain
      assert.strictEqual(yield* refused(tenant.bundle(enter, [other.insert])), "Denied")
      assert.strictEqual(
        yield* refused(tenant.bundle(enter, [AuditChain.statement(entry(other.chain, "ok"))])),
        "Denied"
      )
      assert.strictEqual(
        yield* refused(tenant.bundle(enter, [statement("select * from platform.audit_log")])),
        "Denied"
      )
    })
  )

  it.effect("the gateway reads mirrors and enters refusals, but claims nothing done and reads no tenant", () =>
    Effect.gen(function* () {
      const { schema, chain } = yield* domain("gate")
      const gateway = yield* GatewayTx
      const [who, domains] = yield* gateway.bundle([
        whoami,
        statement("select pg_schema from platform.domains where chain = $1", [chain])
      ])
      assert.deepInclude(who?.rows[0], { login: "velocity_api", role: "velocity_gateway" })
      assert.deepStrictEqual(domains?.rows, [{ pg_schema: schema }])
      yield* gateway.run((tx) => AuditChain.insert(tx, entry(chain, "denied")))
      assert.strictEqual(yield* refused(gateway.run((tx) => AuditChain.insert(tx, entry(chain, "ok")))), "Denied")
      assert.strictEqual(yield* refused(gateway.bundle([statement(`select * from ${schema}.thing`)])), "Denied")
    })
  )

  it.effect("a chain that is not there is told apart", () =>
    Effect.gen(function* () {
      const gateway = yield* GatewayTx
      const failure = yield* Effect.flip(gateway.run((tx) => AuditChain.insert(tx, entry("no/such/chain", "denied"))))
      assert.deepInclude(failure.reason, { _tag: "Platform", code: "VL003" })
    })
  )

  it.effect("the auditor reads and verifies the log, by streams too, and writes nothing", () =>
    Effect.gen(function* () {
      const { schema, chain } = yield* domain("audited")
      const auditor = yield* AuditorTx
      const window = statement(
        "select * from platform.audit_verify_window(now() - interval '1 hour', now() + interval '1 hour')"
      )
      assert.deepStrictEqual((yield* auditor.bundle([window]))[0]?.rows, [])
      const entries = yield* auditor
        .stream(statement("select actor from platform.audit_log where chain = $1", [chain]))
        .pipe(Stream.runCollect)
      assert.deepStrictEqual(entries, [{ actor: "test/operator" }])
      for (const sql of [
        "delete from platform.audit_log",
        "update platform.audit_log set actor = 'x'",
        "truncate platform.audit_log",
        `select * from ${schema}.thing`
      ]) {
        assert.strictEqual(yield* refused(auditor.run((tx) => tx.query(statement(sql)))), "Denied", sql)
      }
    })
  )

  it.effect("the operator enters an owner for as long as it must, and is itself again after a failure of ours", () =>
    Effect.gen(function* () {
      const { schema } = yield* domain("owned")
      const operator = yield* OperatorSql
      const roles = yield* operator.transaction((tx) =>
        Effect.gen(function* () {
          const before = yield* tx.query(whoami)
          const within = yield* asOwner(tx, schema, (owner) => owner.query(whoami))
          yield* Effect.ignore(asOwner(tx, schema, () => Effect.fail("ours")))
          const after = yield* tx.query(whoami)
          return [before, within, after].map((result) => result.rows[0]?.role)
        })
      )
      assert.deepStrictEqual(roles, ["none", `${schema}_owner`, "none"])
      assert.strictEqual(
        yield* refused(operator.transaction((tx) => asOwner(tx, "velocity", () => Effect.void))),
        "Denied"
      )
      yield* operator.transaction(
        (tx) => asOwner(tx, schema, (o) => o.query(statement(`create table ${schema}.gone(x int)`))),
        { end: "rollback" }
      )
      const left = yield* operator.query(
        statement("select relname from pg_class where relnamespace = to_regnamespace($1) and relkind = 'r'", [schema])
      )
      assert.deepStrictEqual(left.rows, [{ relname: "thing" }])
    })
  )

  it.effect("the operator writes into the log what operators and keys do, and nothing that callers do", () =>
    Effect.gen(function* () {
      const { chain } = yield* domain("words")
      const operator = yield* OperatorSql
      const write = (action: string) =>
        operator.transaction((tx) => AuditChain.insert(tx, { chain, actor: "test/operator", action, outcome: "ok" }))
      for (const action of ["operator.domain.apply", "key.create", "key.revoke"]) yield* write(action)
      for (const action of ["create", "erase", "read", "login", "keyless", "key"]) {
        assert.strictEqual(yield* refused(write(action)), "Denied", action)
      }
    })
  )

  it.effect("a database that is not configured is Unavailable", () =>
    Effect.gen(function* () {
      const tenant = yield* TenantTx
      const tag = yield* refused(tenant.bundle({ role: "x", ctx: "{}", database: "elsewhere" }, [whoami]))
      assert.strictEqual(tag, "Unavailable")
    })
  )
})
