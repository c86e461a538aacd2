/**
 * What the logins and the roles behind them cannot do, by trying: nobody writes, changes or empties the audit log or a
 * future month of it, nobody forges an entry, and a domain role ends at its domain. Roles and partitions are taken from
 * the catalogue, so that a new one is tried too.
 */
import { layer } from "@effect/vitest"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import { sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import { type Atlas, createCity, provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, type TestDatabase } from "../support/Database.ts"

class Prepared extends Context.Service<
  Prepared,
  TestDatabase & { readonly atlas: Atlas; readonly logs: ReadonlyArray<string>; readonly events: ReadonlyArray<string> }
>()("velocity/test/Prepared") {
  static readonly layer = Layer.effect(
    Prepared,
    Effect.gen(function* () {
      const database = yield* Database
      const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
      yield* createCity(database.apiUrl, atlas, "Oslo")
      // a future month, made as the operator makes one
      for (const what of ["audit", "event"]) {
        yield* query(
          database.operatorUrl,
          `select platform.${what}_partition_create((date_trunc('month', now() at time zone 'UTC') + interval '9 months')::date)`
        )
      }
      const tree = (parent: string) =>
        Effect.map(
          query(
            database.superuserUrl,
            `select relid::regclass::text as name from pg_partition_tree('platform.${parent}') order by 1`
          ),
          (rows) => rows.map((row) => String(row.name))
        )
      return { ...database, atlas, logs: yield* tree("audit_log"), events: yield* tree("event_log") }
    }).pipe(Effect.orDie)
  ).pipe(Layer.provide(Database.layer))
}

/** The SQLSTATE that a statement fails with in a transaction of that login and role, or "done". */
const attempt = (url: string, role: string, sql: string | ReadonlyArray<string>, ctx = "") =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(url)
      yield* connection.query("begin")
      return yield* Effect.gen(function* () {
        yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
          role,
          ctx
        ])
        let last: ReadonlyArray<Readonly<Record<string, unknown>>> = []
        for (const one of typeof sql === "string" ? [sql] : sql) last = (yield* connection.query(one)).rows
        return { state: "done", rows: last }
      }).pipe(
        Effect.catch((error) => Effect.succeed({ state: sqlStateOf(error), rows: [] })),
        Effect.tap(() => Effect.ignore(connection.query("rollback")))
      )
    })
  )

const stateOf = (url: string, role: string, sql: string | ReadonlyArray<string>, ctx?: string) =>
  Effect.map(attempt(url, role, sql, ctx), (result) => result.state)

/** The roles that a login may take on, itself among them. */
const rolesOf = (superuserUrl: string, login: string, org: string) =>
  Effect.map(
    query(
      superuserUrl,
      `select rolname::text as name from pg_roles where pg_has_role('${login}', oid, 'SET') and (rolname ~ '^velocity_' or rolname ~ '^${org}_') order by 1`
    ),
    (rows) => ["none", ...rows.map((row) => String(row.name)).filter((name) => name !== login)]
  )

const denied = "42501"

layer(Prepared.layer, { excludeTestServices: true })("privileges", (it) => {
  it.effect("let no login and no role behind it write, change or empty the log, this month's or a future one's", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, superuserUrl, org, logs } = yield* Prepared
      expect(logs.length).toBeGreaterThanOrEqual(6)
      const api = yield* rolesOf(superuserUrl, "velocity_api", org)
      const operator = yield* rolesOf(superuserUrl, "velocity_operator", org)
      // the lists are right, or the loop below tries nothing
      expect(api).toEqual(
        expect.arrayContaining([
          `${org}_geo_atlas_admin`,
          `${org}_geo_other_reader`,
          "velocity_auditor",
          "velocity_gateway",
          "velocity_privacy"
        ])
      )
      expect(operator).toEqual(expect.arrayContaining([`${org}_geo_atlas_owner`, "velocity_sealer"]))
      expect(api.filter((role) => /_owner$/.test(role))).toEqual([])
      const attacks = logs.flatMap((log) => [
        `insert into ${log} select * from ${log}`,
        `insert into ${log} (chain, lane, seq, occurred_at, id, actor, action, outcome, db_login, db_role, prev_hash, hash)
         values ('platform', 0, 1, now(), gen_random_uuid(), 'x', 'x', 'ok', 'x', 'x', '', '')`,
        `update ${log} set actor = 'x'`,
        `delete from ${log}`,
        `truncate ${log}`,
        `select * from ${log} for update`,
        `alter table ${log} disable trigger all`,
        `drop table ${log}`,
        `lock table ${log} in row exclusive mode`
      ])
      for (const [url, roles] of [
        [apiUrl, api],
        [operatorUrl, operator]
      ] as const) {
        for (const role of roles) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const connection = yield* connect(url)
              yield* connection.query("begin")
              yield* connection.query("select set_config('role', $1, true)", [role])
              for (const attack of attacks) {
                yield* connection.query("savepoint s")
                const error = yield* Effect.flip(connection.query(attack))
                expect(sqlStateOf(error), `${role}: ${attack}`).toBe(denied)
                yield* connection.query("rollback to s")
              }
              yield* connection.query("rollback")
            })
          )
        }
      }
    })
  )

  it.effect("let no one who has the privilege change the log, not even its owner", () =>
    Effect.gen(function* () {
      const { superuserUrl, logs } = yield* Prepared
      for (const log of logs) {
        for (const sql of [`update ${log} set actor = 'x'`, `delete from ${log}`]) {
          const [row] = yield* query(superuserUrl, `select count(*)::int4 as n from ${log}`)
          const state = yield* stateOf(superuserUrl, "velocity_owner", sql)
          const replica = yield* stateOf(superuserUrl, "none", ["set local session_replication_role = replica", sql])
          // a row trigger speaks where there is a row
          expect([state, replica], sql).toEqual(row?.n === 0 ? ["done", "done"] : ["VL001", "VL001"])
        }
        expect(yield* stateOf(superuserUrl, "velocity_owner", `truncate ${log}`), log).toBe("VL001")
        expect(
          yield* stateOf(superuserUrl, "none", ["set local session_replication_role = replica", `truncate ${log}`]),
          log
        ).toBe("VL001")
      }
    })
  )

  it.effect("let nobody become what it is not", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, atlas } = yield* Prepared
      for (const role of [
        "postgres",
        "velocity_owner",
        "velocity_tenant",
        "velocity_history",
        "velocity_operator",
        "velocity_sealer",
        `${atlas.schema}_owner`,
        "pg_read_all_data"
      ]) {
        expect(yield* stateOf(apiUrl, role, "select 1"), role).toBe(denied)
      }
      for (const role of [
        "postgres",
        "velocity_owner",
        "velocity_tenant",
        "velocity_history",
        "velocity_api",
        "velocity_gateway",
        "velocity_auditor",
        `${atlas.schema}_writer`,
        "pg_write_all_data"
      ]) {
        expect(yield* stateOf(operatorUrl, role, "select 1"), role).toBe(denied)
      }
      for (const sql of [
        "grant velocity_owner to velocity_operator",
        "grant velocity_gateway to velocity_operator",
        "grant pg_execute_server_program to velocity_operator",
        "create role boss superuser",
        "create role boss bypassrls",
        "alter role velocity_api bypassrls",
        "alter role velocity_api password 'x'",
        "alter role velocity_owner login",
        "drop role velocity_tenant",
        "set session_replication_role = replica",
        "create schema platform_two authorization velocity_owner",
        "alter schema platform owner to velocity_operator",
        "create table platform.mine ()",
        "create function platform.audit_insert() returns int language sql return 1",
        "create or replace function platform.audit_refuse() returns trigger language plpgsql as 'begin return null; end'",
        "select platform.partition_create('audit_log', '2031-01-01')",
        "select platform.migrate_as_owner('truncate platform.audit_log')",
        "select platform.migrate_end()",
        "select platform.cursor_keys()",
        "select * from platform.secrets",
        "select * from platform.idempotency_keys"
      ]) {
        expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe(denied)
      }
    })
  )

  it.effect("leave velocity_api by itself with nothing but to say what it serves", () =>
    Effect.gen(function* () {
      const { apiUrl, superuserUrl, atlas } = yield* Prepared
      const relations = yield* query(
        superuserUrl,
        "select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('platform', $1) and c.relkind in ('r', 'p', 'v')",
        [atlas.schema]
      )
      expect(relations.length).toBeGreaterThan(25)
      yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(apiUrl)
          for (const { name } of relations) {
            for (const sql of [`select * from ${name}`, `insert into ${name} default values`, `delete from ${name}`]) {
              expect(sqlStateOf(yield* Effect.flip(connection.query(sql))), sql).toBe(denied)
            }
          }
          // RESET ROLE inside a tenant's transaction leads to the same nothing
          yield* connection.query("begin")
          yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_admin`])
          yield* connection.query(`select * from ${atlas.schema}.city_v1`)
          yield* connection.query("reset role")
          expect(sqlStateOf(yield* Effect.flip(connection.query(`select * from ${atlas.schema}.city_v1`)))).toBe(denied)
          yield* connection.query("rollback")
        })
      )
      const functions = yield* query(
        superuserUrl,
        "select oid::regprocedure::text as name from pg_proc where pronamespace = 'platform'::regnamespace and has_function_privilege('velocity_api', oid, 'EXECUTE') order by 1"
      )
      expect(functions.map((one) => one.name)).toEqual([
        "platform.registry_ack(text,integer,bigint,text)",
        "platform.registry_leave(text)"
      ])
      for (const sql of [
        "create temp table t ()",
        "create table public.t ()",
        "create schema s",
        "select lo_create(0) from platform.domains"
      ]) {
        expect(yield* stateOf(apiUrl, "none", sql), sql).toBe(denied)
      }
    })
  )

  it.effect("end a domain role at its domain", () =>
    Effect.gen(function* () {
      const { apiUrl, superuserUrl, atlas, org, events } = yield* Prepared
      const foreign = yield* query(
        superuserUrl,
        `select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
         where c.relkind in ('r', 'p', 'v', 'm') and n.nspname !~ '^(pg_|information_schema)' and n.nspname <> $1`,
        [atlas.schema]
      )
      for (const suffix of ["_reader", "_writer", "_admin"]) {
        yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(apiUrl)
            yield* connection.query("begin")
            yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}${suffix}`])
            for (const { name } of foreign) {
              yield* connection.query("savepoint s")
              const error = yield* Effect.flip(connection.query(`select * from ${name}`))
              expect(sqlStateOf(error), `${suffix} reads ${name}`).toBe(denied)
              yield* connection.query("rollback to s")
            }
            yield* connection.query("rollback")
          })
        )
      }
      for (const table of ["city_v1", "country_v1", "city_v1_history"]) {
        expect(yield* stateOf(apiUrl, `${org}_geo_other_admin`, `select * from ${atlas.schema}.${table}`)).toBe(denied)
      }
      const writer = `${atlas.schema}_writer`
      for (const sql of [
        `delete from ${atlas.schema}.city_v1`,
        `truncate ${atlas.schema}.city_v1`,
        `alter table ${atlas.schema}.city_v1 disable row level security`,
        `drop table ${atlas.schema}.city_v1`,
        `create table ${atlas.schema}.t ()`
      ]) {
        expect(yield* stateOf(apiUrl, writer, sql), sql).toBe(denied)
      }
      const reader = `${atlas.schema}_reader`
      expect(
        yield* stateOf(apiUrl, reader, `insert into ${atlas.schema}.city_v1 (id, name) values (gen_random_uuid(), 'x')`)
      ).toBe(denied)
      // history: written for the own domain only, read through the view only
      const event = (chain: string, log: string) =>
        `insert into ${log} (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, hash)
         values (gen_random_uuid(), '${chain}', ${atlas.city.storage}, ${atlas.city.id}, gen_random_uuid(), 1, 'create', clock_timestamp(), 'x', '')`
      expect(yield* stateOf(apiUrl, writer, event(atlas.chain, "platform.event_log"))).toBe("done")
      expect(yield* stateOf(apiUrl, writer, event(`${org}/geo/other`, "platform.event_log"))).toBe(denied)
      expect(yield* stateOf(apiUrl, writer, event("platform", "platform.event_log"))).toBe(denied)
      for (const log of events.filter((name) => name !== "platform.event_log")) {
        expect(yield* stateOf(apiUrl, writer, event(atlas.chain, log)), log).toBe(denied)
      }
      for (const sql of [
        "select * from platform.event_log",
        "update platform.event_log set actor = 'x'",
        "delete from platform.event_log"
      ]) {
        expect(yield* stateOf(apiUrl, writer, sql), sql).toBe(denied)
      }
      const history = yield* attempt(apiUrl, reader, `select count(*)::int4 as n from ${atlas.schema}.city_v1_history`)
      expect(history).toEqual({ state: "done", rows: [{ n: 1 }] })
    })
  )

  it.effect("let an owner of a domain see the history of its own domain alone", () =>
    Effect.gen(function* () {
      const { operatorUrl, atlas, org } = yield* Prepared
      const count = "select count(*)::int4 as n from platform.event_log"
      expect((yield* attempt(operatorUrl, `${atlas.schema}_owner`, count)).rows).toEqual([{ n: 1 }])
      expect((yield* attempt(operatorUrl, `${org}_geo_other_owner`, count)).rows).toEqual([{ n: 0 }])
    })
  )

  it.effect("let nobody write an entry that is not his to write", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, superuserUrl, atlas, org } = yield* Prepared
      const entry = (chain: string, action: string, outcome: string) =>
        `select platform.audit_insert('${chain}', 'dev/alice', '${action}', '${outcome}', null, null, '{}', null, null, null, null)`
      const { chain } = atlas
      const cases: ReadonlyArray<readonly [url: string, role: string, sql: string, state: string]> = [
        [apiUrl, `${atlas.schema}_writer`, entry(chain, "create", "ok"), "done"],
        [apiUrl, `${atlas.schema}_reader`, entry(chain, "read", "ok"), "done"],
        [apiUrl, `${atlas.schema}_writer`, entry(`${org}/geo/other`, "create", "ok"), denied],
        [apiUrl, `${atlas.schema}_writer`, entry("platform", "login", "ok"), denied],
        [apiUrl, `${org}_geo_other_writer`, entry(chain, "create", "ok"), denied],
        [apiUrl, "velocity_gateway", entry(chain, "create", "denied"), "done"],
        [apiUrl, "velocity_gateway", entry(chain, "create", "failed"), "done"],
        [apiUrl, "velocity_gateway", entry(chain, "create", "unknown"), "done"],
        [apiUrl, "velocity_gateway", entry(chain, "create", "dry_run"), "done"],
        [apiUrl, "velocity_gateway", entry(chain, "create", "ok"), denied],
        [apiUrl, "velocity_gateway", entry("platform", "login", "ok"), "done"],
        [apiUrl, "velocity_auditor", entry(chain, "create", "denied"), denied],
        [apiUrl, "velocity_privacy", entry(chain, "create", "denied"), denied],
        [apiUrl, "none", entry(chain, "create", "ok"), denied],
        [apiUrl, `${atlas.schema}_writer`, entry(chain, "create", "fine"), "VL012"],
        [operatorUrl, "none", entry(chain, "operator.schema.apply", "ok"), "done"],
        [operatorUrl, "none", entry("platform", "operator.term", "ok"), "done"],
        [operatorUrl, "none", entry(chain, "create", "ok"), denied],
        [operatorUrl, `${atlas.schema}_owner`, entry(chain, "operator.schema.apply", "ok"), denied],
        // the function itself judges the login, also of those who could call it by other rights
        [superuserUrl, "none", entry(chain, "create", "ok"), denied],
        [superuserUrl, "velocity_gateway", entry(chain, "create", "denied"), denied],
        [superuserUrl, `${atlas.schema}_writer`, entry(chain, "create", "ok"), denied]
      ]
      for (const [url, role, sql, state] of cases) {
        expect(yield* stateOf(url, role, sql), `${new URL(url).username} as ${role}: ${sql}`).toBe(state)
      }
      // the operator may give itself a domain role that it made, and is still not the API
      const forged = yield* stateOf(operatorUrl, "none", [
        `grant ${atlas.schema}_writer to velocity_operator with set true`,
        `set local role ${atlas.schema}_writer`,
        entry(chain, "create", "ok")
      ])
      expect(forged).toBe(denied)
    })
  )

  it.effect("let the gateway read what it judges by, and no tenant's row", () =>
    Effect.gen(function* () {
      const { apiUrl, atlas } = yield* Prepared
      for (const table of [
        "schema_defs",
        "field_defs",
        "domains",
        "auth_strategies",
        "role_bindings",
        "api_keys",
        "revoked_actors",
        "names"
      ]) {
        expect(yield* stateOf(apiUrl, "velocity_gateway", `select * from platform.${table}`), table).toBe("done")
        expect(yield* stateOf(apiUrl, "velocity_gateway", `delete from platform.${table}`), table).toBe(denied)
      }
      for (const table of [
        "platform.resource_status",
        "platform.secrets",
        "platform.audit_log",
        "platform.event_log",
        "platform.idempotency_keys",
        `${atlas.schema}.city_v1`
      ]) {
        expect(yield* stateOf(apiUrl, "velocity_gateway", `select * from ${table}`), table).toBe(denied)
      }
      expect(
        (yield* attempt(apiUrl, "velocity_gateway", "select length(value)::int4 as n from platform.cursor_keys()")).rows
      ).toEqual([{ n: 32 }])
      expect(yield* stateOf(apiUrl, "velocity_auditor", "select * from platform.audit_log")).toBe("done")
      expect(yield* stateOf(apiUrl, "velocity_auditor", "select * from platform.event_log")).toBe(denied)
      expect(yield* stateOf(apiUrl, "velocity_auditor", "select * from platform.audit_verify_window(null, null)")).toBe(
        "done"
      )
    })
  )

  it.effect("let the operator look for anomalies without reading the log, and nobody else", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, superuserUrl, org } = yield* Prepared
      const raise = `select platform.anomaly_raise('{"rule":"r","title":"t","severity":"info","chain":"platform","actor":"a","address":"","at":"2026-01-01T00:00:00Z",
        "window_from":"2026-01-01T00:00:00Z","window_to":"2026-01-01T00:00:00Z","counted":1,"threshold":1,"explanation":[]}', '{}', now())`
      const scanner = [
        "select * from platform.anomaly_read(now() - interval '1 hour', 10)",
        "select * from platform.anomaly_rewound()",
        "select * from platform.anomaly_entries(now() - interval '1 hour', now(), '{}')",
        raise
      ]
      for (const sql of scanner) expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe("done")
      // where entries stand and what they count as, and nothing of what they say
      const columns = yield* query(
        superuserUrl,
        `select distinct unnest(proargnames[pronargs + 1:]) as name from pg_proc
         where pronamespace = 'platform'::regnamespace and proname in ('anomaly_read', 'anomaly_entries', 'anomaly_rewound') order by 1`
      )
      const named = columns.map((row) => String(row.name))
      for (const secret of ["payload", "reason", "ticket_ref", "request_id", "entity_id", "fail_modes"]) {
        expect(named).not.toContain(secret)
      }
      for (const sql of [
        "select * from platform.audit_log",
        "insert into platform.anomaly_alerts default values",
        "update platform.anomaly_alerts set acknowledged_by = 'x'",
        "delete from platform.anomaly_alerts",
        "delete from platform.anomaly_deliveries",
        "update platform.anomaly_scan_state set seq = 0",
        "delete from platform.anomaly_scanner",
        "select platform.anomaly_acknowledge(gen_random_uuid(), 'a', 'b', 'c')"
      ]) {
        expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe(denied)
      }
      for (const role of yield* rolesOf(superuserUrl, "velocity_api", org)) {
        for (const sql of [...scanner, "update platform.anomaly_alerts set comment = 'x'"]) {
          expect(yield* stateOf(apiUrl, role, sql), `${role}: ${sql}`).toBe(denied)
        }
      }
      const acknowledge = "select platform.anomaly_acknowledge(gen_random_uuid(), 'a', 'b', 'c')"
      expect(yield* stateOf(apiUrl, "velocity_gateway", acknowledge)).toBe("done")
      expect(yield* stateOf(apiUrl, "velocity_auditor", acknowledge)).toBe(denied)
      expect(yield* stateOf(apiUrl, "velocity_auditor", "select * from platform.working_hours()")).toBe("done")
      expect(yield* stateOf(apiUrl, "velocity_auditor", "select * from platform.anomaly_alerts")).toBe(denied)
      expect(yield* stateOf(apiUrl, "velocity_gateway", "select * from platform.anomaly_alerts")).toBe("done")
    })
  )

  it.effect("let the gateway ask for plans and the operator answer them, and neither do the other's part", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, superuserUrl, org } = yield* Prepared
      const asks = [
        "select platform.plan_ask('a', 'b', '{}', 1000)",
        "select platform.plan_take(gen_random_uuid(), true)"
      ]
      const answers = ["select platform.plan_answer(gen_random_uuid(), '{}')", "select * from platform.plan_requests"]
      const nobody = [
        "insert into platform.plan_requests (chain, actor, manifest, wanted_until) values ('a', 'b', '{}', now())",
        "update platform.plan_requests set answer = 'x'",
        "delete from platform.plan_requests"
      ]
      for (const sql of answers) expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe("done")
      for (const sql of [...asks, ...nobody]) expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe(denied)
      for (const role of yield* rolesOf(superuserUrl, "velocity_api", org)) {
        const may = role === "velocity_gateway" ? "done" : denied
        for (const sql of asks) expect(yield* stateOf(apiUrl, role, sql), `${role}: ${sql}`).toBe(may)
        for (const sql of [...answers, ...nobody]) {
          expect(yield* stateOf(apiUrl, role, sql), `${role}: ${sql}`).toBe(denied)
        }
      }
    })
  )

  it.effect("admit as domain roles only those that the operator made for a domain", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl, org } = yield* Prepared
      const schema = `${org}_x_y`
      const domain = `insert into platform.domains (chain, pg_schema) values ('${org}/x/y', '${schema}')`
      const roles = ["_owner", "_reader", "_writer", "_admin"].map((suffix) => `create role ${schema}${suffix} nologin`)
      const admit = `select platform.domain_admit('${schema}')`
      expect(yield* stateOf(operatorUrl, "none", [...roles, admit])).toBe("VL012")
      expect(yield* stateOf(operatorUrl, "none", [domain, admit])).toBe("VL012")
      expect(yield* stateOf(operatorUrl, "none", [domain, ...roles, admit])).toBe("done")
      expect(yield* stateOf(operatorUrl, "none", [domain, ...roles, admit, admit])).toBe("done")
      expect(yield* stateOf(operatorUrl, "none", [domain, ...roles, `alter role ${schema}_reader login`, admit])).toBe(
        "VL012"
      )
      expect(
        yield* stateOf(operatorUrl, "none", [
          domain,
          ...roles,
          `create role ${org}_z`,
          `grant ${org}_z to ${schema}_reader`,
          admit
        ])
      ).toBe("VL012")
      expect(yield* stateOf(operatorUrl, "none", "select platform.domain_admit('platform')")).toBe("VL012")
      yield* query(superuserUrl, `create role ${schema}_owner nologin`)
      expect(yield* stateOf(operatorUrl, "none", [domain, ...roles.slice(1), admit])).toBe("VL012")
      yield* query(superuserUrl, `drop role ${schema}_owner`)
    })
  )

  it.effect("open the gate of an operation to its role, its generation and its grant, and to nothing else", () =>
    Effect.gen(function* () {
      const { apiUrl, atlas } = yield* Prepared
      const { id, generation } = atlas.country
      const ctx = (op: string, roles: ReadonlyArray<string>, def = id) =>
        JSON.stringify({ op, def, actor: "dev/a", roles, attributes: { store_id: "s1", many: ["a", "b"] } })
      const enter = (
        op: string,
        suffix: string,
        roles: ReadonlyArray<string>,
        more: { ctxOp?: string; generation?: number; def?: number } = {}
      ) =>
        stateOf(
          apiUrl,
          `${atlas.schema}${suffix}`,
          `select platform.enter(${more.def ?? id}, ${more.generation ?? generation}, '${op}')`,
          ctx(more.ctxOp ?? op, roles)
        )
      expect(yield* enter("read", "_reader", ["buyer"])).toBe("done")
      expect(yield* enter("read", "_reader", ["store", "clerk"])).toBe("done")
      expect(yield* enter("create", "_writer", ["clerk"])).toBe("done")
      expect(yield* enter("delete", "_admin", ["buyer"])).toBe("done")
      expect(yield* enter("read", "_writer", ["buyer"], { ctxOp: "update" })).toBe("done")
      expect(yield* enter("read", "_reader", ["clerk"])).toBe("VL011")
      expect(yield* enter("read", "_reader", [])).toBe("VL011")
      expect(yield* enter("create", "_reader", ["buyer"])).toBe("VL011")
      expect(yield* enter("delete", "_writer", ["buyer"])).toBe("VL011")
      expect(yield* enter("erase", "_admin", ["buyer"])).toBe("VL011")
      expect(yield* enter("nothing", "_admin", ["buyer"])).toBe("VL011")
      expect(yield* enter("update", "_writer", ["buyer"], { ctxOp: "create" })).toBe("VL011")
      expect(yield* enter("read", "_reader", ["buyer"], { generation: generation + 1 })).toBe("VL010")
      expect(yield* enter("read", "_reader", ["buyer"], { def: 2_000_000 })).toBe("VL010")
      expect(
        yield* stateOf(
          apiUrl,
          `${atlas.other}_reader`,
          `select platform.enter(${id}, ${generation}, 'read')`,
          ctx("read", ["buyer"])
        )
      ).toBe("VL011")
      expect(
        yield* stateOf(apiUrl, `${atlas.schema}_reader`, `select platform.enter(${id}, ${generation}, 'read')`)
      ).toBe("VL011")
      const said = yield* attempt(
        apiUrl,
        `${atlas.schema}_reader`,
        `select platform.attr('store_id') as one, platform.attrs('many') as many, platform.attrs('store_id') as single, platform.attrs('none') as none,
           platform.has_role('{x,buyer}') as role, platform.has_role('{x}') as no, platform.op(${id}, 'read') as op, platform.op(${id + 1}, 'read') as other`,
        ctx("read", ["buyer"])
      )
      expect(said.rows).toEqual([
        { one: "s1", many: ["a", "b"], single: ["s1"], none: [], role: true, no: false, op: true, other: false }
      ])
      const unsaid = yield* attempt(
        apiUrl,
        `${atlas.schema}_reader`,
        "select platform.attr('store_id') as one, platform.attrs('many') as many, platform.has_role('{x}') as role, platform.op(1, 'read') as op, platform.ctx() as ctx"
      )
      expect(unsaid.rows).toEqual([{ one: null, many: [], role: false, op: false, ctx: null }])
    })
  )

  // the probes of the verified listing, as they stand there
  it.effect("hold for rows: filters, creating without reading, references against soft delete", () =>
    Effect.gen(function* () {
      const { apiUrl, atlas } = yield* Prepared
      const s = atlas.schema
      const ctx = (op: string, roles: ReadonlyArray<string>, attributes = {}) =>
        JSON.stringify({ op, def: atlas.country.id, roles, attributes })
      const row = (id: string, store: string) =>
        `insert into ${s}.country_v1 (id, name, store_id, created_at) values ('00000000-0000-0000-0000-00000000000${id}', '${id}', '${store}', now()) returning name`
      const under = (role: string, context: string) => [
        `set local role ${s}${role}`,
        `select set_config('velocity.ctx', '${context}', true)`
      ]
      const buyers = [...under("_writer", ctx("create", ["buyer"])), row("1", "s1"), row("2", "s2")]
      const clerk = [...under("_writer", ctx("create", ["clerk"])), row("3", "s1")]
      const count = `select count(*)::int4 as n from ${s}.country_v1`
      const seen = (role: string, context: string) =>
        Effect.map(
          attempt(apiUrl, "none", [...buyers, ...clerk, ...under(role, context), count]),
          ({ rows }) => rows[0]?.n
        )
      expect(yield* seen("_reader", ctx("read", ["clerk"]))).toBe(0)
      expect(yield* seen("_reader", ctx("read", ["store"], { store_id: "s1" }))).toBe(2)
      expect(yield* seen("_reader", ctx("read", ["store"], { store_id: "s9" }))).toBe(0)
      expect(yield* seen("_reader", ctx("read", ["store"]))).toBe(0)
      expect(yield* seen("_reader", "")).toBe(0)
      expect(yield* seen("_reader", ctx("read", ["store", "buyer"], { store_id: "s1" }))).toBe(3)
      const deleted = [
        ...buyers,
        ...under("_admin", ctx("delete", ["buyer"])),
        `update ${s}.country_v1 set deleted_at = now() where name = '2' returning name, _live`
      ]
      expect((yield* attempt(apiUrl, "none", deleted)).rows).toEqual([{ name: "2", _live: false }])
      const child = (id: string) =>
        `insert into ${s}.city_v1 (id, name, country, created_at) values (gen_random_uuid(), 'x', '00000000-0000-0000-0000-00000000000${id}', now())`
      expect(yield* stateOf(apiUrl, "none", [...deleted, child("1")])).toBe("done")
      expect(yield* stateOf(apiUrl, "none", [...deleted, child("2")])).toBe("23503")
      expect(
        yield* stateOf(apiUrl, "none", [
          ...buyers,
          child("2"),
          ...under("_admin", ctx("delete", ["buyer"])),
          `update ${s}.country_v1 set deleted_at = now()`
        ])
      ).toBe("23503")
    })
  )

  it.effect("give an idempotency key to one request at a time, and its answer to the same request only", () =>
    Effect.gen(function* () {
      const { apiUrl, superuserUrl, atlas } = yield* Prepared
      const ctx = (actor: string) => JSON.stringify({ op: "create", def: atlas.city.id, actor, roles: ["buyer"] })
      const begin = (key: string, hash: string) =>
        `select platform.idempotency_begin('POST', '/p', '${key}', '${hash}')`
      const end = (key: string, hash: string) =>
        `select platform.idempotency_end('POST', '/p', '${key}', '${hash}', 201, '{"ids":["a"],"versions":[1]}')`
      const writer = `${atlas.schema}_writer`
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* connect(apiUrl)
          const enter = (actor: string) =>
            first.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
              writer,
              ctx(actor)
            ])
          yield* first.query("begin")
          yield* enter("dev/a")
          yield* first.query(begin("k", "\\x01"))
          expect(yield* stateOf(apiUrl, writer, begin("k", "\\x01"), ctx("dev/a"))).toBe("VL020")
          expect(yield* stateOf(apiUrl, writer, begin("k", "\\x01"), ctx("dev/b"))).toBe("done")
          yield* first.query("rollback")
          // a request that was rolled back reserves nothing
          expect(yield* stateOf(apiUrl, writer, begin("k", "\\x01"), ctx("dev/a"))).toBe("done")
          yield* first.query("begin")
          yield* enter("dev/a")
          yield* first.query(begin("k", "\\x01"))
          yield* first.query(end("k", "\\x01"))
          yield* first.query("commit")
          yield* first.query("begin")
          yield* enter("dev/a")
          const error = yield* Effect.flip(first.query(begin("k", "\\x01")))
          expect(sqlStateOf(error)).toBe("VL022")
          const said = (error.reason as { readonly cause?: { readonly detail?: string } }).cause
          expect(JSON.parse(said?.detail ?? "")).toEqual({ ids: ["a"], versions: [1], status: 201 })
          yield* first.query("rollback")
        })
      )
      expect(yield* stateOf(apiUrl, writer, begin("k", "\\x02"), ctx("dev/a"))).toBe("VL021")
      expect(yield* stateOf(apiUrl, `${atlas.other}_writer`, begin("k", "\\x01"), ctx("dev/a"))).toBe("done")
      expect(yield* stateOf(apiUrl, writer, begin("k", "\\x01"))).toBe("VL012")
      yield* query(superuserUrl, "update platform.idempotency_keys set expires_at = now() - interval '1 second'")
      expect(yield* stateOf(apiUrl, writer, begin("k", "\\x02"), ctx("dev/a"))).toBe("done")
    })
  )

  it.effect("let one operator's term be in force, and end the others", () =>
    Effect.gen(function* () {
      const { operatorUrl } = yield* Prepared
      const take = Effect.map(query(operatorUrl, "select platform.term_take('me', 'here')::int4 as epoch"), (rows) =>
        Number(rows[0]?.epoch)
      )
      const first = yield* take
      const second = yield* take
      expect(second).toBe(first + 1)
      expect(yield* stateOf(operatorUrl, "none", `select platform.term_check(${first})`)).toBe("VL030")
      expect(yield* stateOf(operatorUrl, "none", `select platform.term_check(${second})`)).toBe("done")
    })
  )

  it.effect("end a month by the operator's call alone, and how long months are kept by nobody's but his", () =>
    Effect.gen(function* () {
      const { apiUrl, operatorUrl, superuserUrl, org, logs } = yield* Prepared
      const month = String(logs.find((name) => name !== "platform.audit_log")).replace("platform.", "")
      const calls = [
        `select platform.partition_seal('${month}')`,
        `select platform.partition_export('${month}', null, 1)`,
        `select platform.partition_exported('${month}', '{}')`,
        `select platform.partition_retire('${month}', 'drop', null)`,
        "select platform.retention_set(1, 1)",
        "select platform.hold_place('platform', 'x', 'x')",
        "select platform.hold_lift(gen_random_uuid(), 'x', 'x')"
      ]
      for (const role of yield* rolesOf(superuserUrl, "velocity_api", org)) {
        for (const sql of calls) expect(yield* stateOf(apiUrl, role, sql), `${role}: ${sql}`).toBe(denied)
      }
      // the operator reads no month that may stay, and has none of what the calls are made of
      expect(yield* stateOf(operatorUrl, "none", calls[1] ?? "")).toBe("VL060")
      for (const sql of [
        `select platform.partition_lanes('${month}')`,
        `select platform.partition_detach('audit_log', '${month}', now(), '{}', null)`,
        `select platform.partition_still_free('${month}', 'audit_log', now(), '{}')`,
        `select platform.partition_archive('audit_log', '${month}')`,
        `select platform.event_heads_build('${month}', now())`,
        `select platform.partition_sound('${month}', 'audit_log', now(), now())`,
        "update platform.retention set audit_months = 1",
        "delete from platform.legal_holds",
        "insert into platform.retirements (name, parent, \"from\", \"to\") values ('x', 'audit_log', now(), now())",
        "insert into platform.audit_heads values ('platform', 0, 1, now(), '')",
        "create table platform_archive.mine ()"
      ]) {
        expect(yield* stateOf(operatorUrl, "none", sql), sql).toBe(denied)
      }
    })
  )

  it.effect("make months once, by their first day only", () =>
    Effect.gen(function* () {
      const { operatorUrl } = yield* Prepared
      const make = (day: string) =>
        attempt(operatorUrl, "none", `select platform.audit_partition_create(${day}) as made`)
      const month = "(date_trunc('month', now() at time zone 'UTC') + interval '10 months')::date"
      expect((yield* make(month)).rows).toEqual([{ made: true }])
      expect((yield* make("date_trunc('month', now() at time zone 'UTC')::date")).rows).toEqual([{ made: false }])
      expect((yield* make(`${month} + 1`)).state).toBe("VL012")
      expect((yield* make("'9999-01-01'")).state).toBe("VL012")
      expect((yield* make("null")).state).toBe("VL012")
    })
  )
})
