/** The migrations and their runner, on a server of their own: they make and repair roles, which are the server's. */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { describe, expect, it as plain } from "vitest"
import * as Migrations from "../../src/postgres/Migrations.ts"
import { statementsOf } from "../../src/postgres/SqlScript.ts"
import { createCity, provisionAtlas } from "../support/Atlas.ts"
import { connect, query } from "../support/Database.ts"
import { OwnServer } from "../support/OwnServer.ts"
import { shapeOf, versionsOf } from "../support/Shape.ts"

const run = (url: string, folder?: string) => Migrations.run({ url: Redacted.make(url), folder })

const files = [
  "0001_platform_schema.sql",
  "0002_audit_chain.sql",
  "0003_grants.sql",
  "0004_event_log.sql",
  "0005_access.sql",
  "0006_anomaly.sql",
  "0007_evidence.sql",
  "0008_retention.sql",
  "0009_erasure.sql",
  "0010_record_proof.sql",
  "0011_evolution.sql",
  "0012_api_keys.sql",
  "0013_serving.sql",
  "0014_faces.sql",
  "0015_plan_requests.sql"
]

/** A copy of the migrations in which some files have another text, or none. */
const folderWith = (changes: Readonly<Record<string, string | undefined>>) =>
  Effect.acquireRelease(
    Effect.promise(async () => {
      const folder = await Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity-migrations-"))
      for (const file of await Migrations.readMigrations(Migrations.migrationsFolder())) {
        await Fs.writeFile(Path.join(folder, file.name), file.text)
      }
      for (const [name, text] of Object.entries(changes)) {
        if (text === undefined) await Fs.rm(Path.join(folder, name))
        else await Fs.writeFile(Path.join(folder, name), text)
      }
      return folder
    }),
    (folder) => Effect.promise(() => Fs.rm(folder, { recursive: true }))
  )

plain("PostgreSQL 15 and older are refused by name", () => {
  expect(Migrations.refuseVersion(150_018, "15.18")).toMatch(/^PostgreSQL 15\.18 is too old: 16 or later/)
  expect(Migrations.refuseVersion(160_000, "16.0")).toBeUndefined()
  expect(Migrations.refuseVersion(180_004, "18.4")).toBeUndefined()
})

layer(OwnServer.layer(), { excludeTestServices: true })("migrations", (it) => {
  it.effect("make the same database however many runners there are, on one database or two at once", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      yield* server.createDatabase("one")
      yield* server.createDatabase("two")
      // the roles are not there yet: this is the race
      const results = yield* Effect.all(
        ["one", "two", "one", "two", "one"].map((name) => run(server.migrator(name))),
        { concurrency: "unbounded" }
      )
      expect(results.filter((result) => result.added.length === files.length)).toHaveLength(2)
      for (const result of results) expect([...result.added, ...result.repeated]).toEqual(files)
      expect(results.every((result) => !result.repaired)).toBe(true)
      expect(yield* shapeOf(server.superuser("one"))).toEqual(yield* shapeOf(server.superuser("two")))
      yield* server.setPasswords
    })
  )

  it.effect("leave no login a member of velocity_owner", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      const rows = yield* server.sql(
        "select member::regrole::text as member from pg_auth_members where roleid = 'velocity_owner'::regrole and (set_option or inherit_option)"
      )
      expect(rows).toEqual([])
    })
  )

  it.effect("record each file by name and SHA-256", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      const rows = yield* server.sql(
        "select file, sha256, applied_by from platform.schema_migrations order by file",
        "one"
      )
      const known = yield* Effect.promise(() => Migrations.readMigrations(Migrations.migrationsFolder()))
      expect(rows).toEqual(known.map((file) => ({ file: file.name, sha256: file.sha256, applied_by: "migrator" })))
    })
  )

  it.effect("change nothing on a used database, and take no lock on any of its tables", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      const atlas = yield* provisionAtlas(server.operator("one"), "used")
      for (const name of ["Oslo", "Lima", "Bern"]) yield* createCity(server.api("one"), atlas, name)
      for (const login of [server.migrator, server.superuser]) {
        const before = yield* versionsOf(server.superuser("one"))
        expect((yield* run(login("one"))).repaired).toBe(false)
        expect(yield* versionsOf(server.superuser("one"))).toEqual(before)

        // the same statements in one transaction of ours, so that its locks can be looked at before it ends
        const held = yield* Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(login("one"))
            yield* connection.query("begin")
            for (const file of yield* Effect.promise(() => Migrations.readMigrations(Migrations.migrationsFolder()))) {
              for (const sql of statementsOf(file.text)) yield* connection.query(sql)
            }
            const locks = yield* connection.query(
              `select locktype, mode, relation::regclass::text as relation from pg_locks
               where pid = pg_backend_pid() and locktype not in ('virtualxid') and (relation is null or relation >= 16384)`
            )
            const [xid] = (yield* connection.query("select pg_current_xact_id_if_assigned()::text as xid")).rows
            yield* connection.query("rollback")
            return { locks: locks.rows, xid: xid?.xid }
          })
        )
        expect(held.xid).toBeNull()
        expect(held.locks.filter((lock) => lock.mode !== "AccessShareLock")).toEqual([])
      }
    })
  )

  // the log, history's months and tenants' tables are not even read; of event_log the policies' text is, for which
  // PostgreSQL opens it
  it.effect("run while every table is locked against everything but reading", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      const applied = yield* Effect.scoped(
        Effect.gen(function* () {
          const holder = yield* connect(server.superuser("one"))
          yield* holder.query("begin")
          const tables = yield* holder.query(
            `select c.oid::regclass::text as name, n.nspname <> 'platform' or c.relname ~ '^(audit_log|event_log_)' as busy
             from pg_class c join pg_namespace n on n.oid = c.relnamespace
             where c.relkind in ('r', 'p') and n.nspname !~ '^(pg_|information_schema)'`
          )
          for (const table of tables.rows) {
            yield* holder.query(`lock table ${table.name} in ${table.busy ? "access exclusive" : "exclusive"} mode`)
          }
          const result = yield* run(server.migrator("one"))
          yield* holder.query("rollback")
          return result
        })
      )
      expect(applied).toMatchObject({ added: [], repaired: false })
    })
  )

  const damages: ReadonlyArray<{ readonly name: string; readonly sql: ReadonlyArray<string> }> = [
    { name: "a dropped grant", sql: ["revoke select on platform.domains from velocity_gateway"] },
    {
      name: "a dropped grant on a function",
      sql: ["revoke execute on function platform.audit_event from velocity_tenant"]
    },
    {
      name: "a dropped grant on the schema",
      sql: ["revoke usage on schema platform from velocity_tenant, pg_database_owner"]
    },
    { name: "a dropped grant on the database", sql: ["revoke connect on database two from velocity_api"] },
    { name: "a dropped trigger", sql: ["drop trigger refuse_row on platform.audit_log"] },
    { name: "a dropped trigger of a partition", sql: ["drop trigger refuse_truncate on platform.{audit}"] },
    { name: "a disabled trigger", sql: ["alter table platform.audit_log disable trigger refuse_row"] },
    { name: "a disabled trigger of a partition", sql: ["alter table platform.{audit} disable trigger refuse_row"] },
    {
      name: "an extra trigger",
      sql: [
        "create trigger more before insert on platform.audit_log for each row execute function platform.audit_refuse()"
      ]
    },
    { name: "a rule", sql: ["create rule nothing as on insert to platform.{audit} do instead nothing"] },
    {
      name: "a replaced function body",
      sql: [
        "create or replace function platform.audit_refuse() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as 'begin return null; end'"
      ]
    },
    { name: "a function that lost its search_path", sql: ["alter function platform.enter reset all"] },
    { name: "a function that lost SECURITY DEFINER", sql: ["alter function platform.audit_insert security invoker"] },
    {
      name: "a replaced guard",
      sql: [
        "create or replace function platform.migrate_grants(p_kind text, p_name text, p_wanted text) returns void language plpgsql set search_path = pg_catalog, pg_temp as 'begin end'"
      ]
    },
    {
      name: "a guard nobody may call",
      sql: ["revoke execute on function platform.migrate_end from pg_database_owner"]
    },
    { name: "row-level security disabled", sql: ["alter table platform.event_log disable row level security"] },
    {
      name: "row-level security of a partition disabled",
      sql: ["alter table platform.{event} disable row level security"]
    },
    { name: "a dropped policy", sql: ["drop policy append on platform.event_log"] },
    { name: "an opened policy", sql: ["alter policy history on platform.event_log using (true)"] },
    { name: "an extra policy", sql: ["create policy more on platform.event_log for select to public using (true)"] },
    { name: "a grant to PUBLIC", sql: ["grant select on platform.audit_log to public"] },
    { name: "a function for PUBLIC", sql: ["grant execute on function platform.audit_insert to public"] },
    { name: "a column for PUBLIC", sql: ["grant update (payload) on platform.{audit} to public"] },
    { name: "the schema for PUBLIC", sql: ["grant usage on schema platform to public"] },
    { name: "the database for PUBLIC", sql: ["grant connect, temp on database two to public"] },
    { name: "the schema public for PUBLIC", sql: ["grant usage, create on schema public to public"] },
    { name: "a grant to the API's login", sql: ["grant insert, delete on platform.audit_log to velocity_api"] },
    {
      name: "a grant to the operator on a partition",
      sql: ["grant truncate on platform.{audit} to velocity_operator"]
    },
    {
      name: "a grant with grant option",
      sql: ["grant select on platform.domains to velocity_gateway with grant option"]
    },
    { name: "the owner without its own rights", sql: ["revoke insert on platform.audit_log from velocity_owner"] },
    {
      name: "default privileges for PUBLIC",
      sql: ["alter default privileges for role velocity_owner grant execute on functions to public"]
    },
    { name: "a missing row", sql: ["delete from platform.operator_term"] },
    { name: "retention without its row", sql: ["delete from platform.retention"] },
    { name: "the archive for PUBLIC", sql: ["grant usage on schema platform_archive to public"] },
    { name: "a dropped index", sql: ["drop index platform.audit_log_occurred_at"] },
    { name: "a dropped table", sql: ["drop table platform.anomaly_deliveries, platform.anomaly_alerts"] },
    { name: "a dropped function", sql: ["drop function platform.cursor_keys()"] },
    {
      name: "evidence without its guard, and for others to write",
      sql: [
        "drop trigger refuse_row on platform.audit_leaves",
        "alter table platform.audit_tiles disable trigger refuse_truncate",
        "grant insert on platform.audit_checkpoints to velocity_sealer",
        "grant execute on function platform.audit_seal_append(bigint, integer, text, smallint) to velocity_operator"
      ]
    }
  ]

  const memberships: ReadonlyArray<{ readonly name: string; readonly sql: ReadonlyArray<string> }> = [
    {
      name: "the API a member of velocity_owner",
      sql: ["grant velocity_owner to velocity_api with inherit false, set true"]
    },
    { name: "the operator a member of velocity_owner", sql: ["grant velocity_owner to velocity_operator"] },
    { name: "the operator a member of velocity_gateway", sql: ["grant velocity_gateway to velocity_operator"] },
    {
      name: "the API that inherits velocity_gateway",
      sql: ["grant velocity_gateway to velocity_api with inherit true, set true"]
    },
    {
      name: "the API that may hand velocity_auditor out",
      sql: ["grant velocity_auditor to velocity_api with admin true"]
    },
    { name: "a stranger a member of velocity_api", sql: ["grant velocity_api to stranger"] },
    { name: "a membership taken away", sql: ["revoke velocity_gateway from velocity_api"] },
    {
      name: "a membership taken from velocity_owner, and from all domains",
      sql: ["revoke velocity_tenant from velocity_owner cascade"]
    }
  ]

  /** Months change, tests do not. */
  const thisMonth = (sql: string, month: string) =>
    sql.replaceAll("{audit}", `audit_log_${month}`).replaceAll("{event}", `event_log_${month}`)

  it.effect(
    "repair each damage and change nothing else, as the database's owner and as superuser",
    () =>
      Effect.gen(function* () {
        const server = yield* OwnServer
        const [row] = yield* server.sql("select to_char(now() at time zone 'UTC', 'YYYY_MM') as month")
        const before = yield* shapeOf(server.superuser("two"))
        for (const damage of damages) {
          for (const login of ["migrator", "superuser"] as const) {
            for (const sql of damage.sql) yield* server.sql(thisMonth(sql, String(row?.month)), "two")
            const applied = yield* run(server[login]("two"))
            expect(applied.repaired, `${damage.name}, as ${login}`).toBe(true)
            expect(yield* shapeOf(server.superuser("two")), `${damage.name}, as ${login}`).toEqual(before)
            expect((yield* run(server[login]("two"))).repaired, `${damage.name}, as ${login}, again`).toBe(false)
          }
        }
      }),
    // each damage is repaired twice, by all files
    300_000
  )

  it.effect("repair memberships: as superuser whoever granted them, as the owner what the owner granted", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      yield* server.sql("create role stranger login")
      const before = yield* shapeOf(server.superuser("two"))
      for (const damage of memberships) {
        for (const login of ["migrator", "superuser"] as const) {
          // a grant made by a superuser is nobody else's to take back, so the owner repairs what a CREATEROLE login did
          for (const sql of damage.sql) yield* query(server[sql.startsWith("revoke") ? "migrator" : login]("two"), sql)
          expect((yield* run(server[login]("two"))).repaired, `${damage.name}, as ${login}`).toBe(true)
          // what a domain lost is given back by the database that the domain is in
          yield* run(server[login]("one"))
          const after = yield* shapeOf(server.superuser("two"))
          expect(after, `${damage.name}, as ${login}`).toEqual(before)
        }
      }
    })
  )

  it.effect("go on where a superuser's grant is not theirs to revoke", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      yield* server.sql("grant velocity_owner to velocity_api")
      const applied = yield* run(server.migrator("two"))
      expect(applied.repeated).toEqual(files)
      expect(applied.complaints.map((one) => `${one.code} ${one.object}`)).toContain("membership velocity_owner")
      yield* run(server.superuser("two"))
      const rows = yield* server.sql(
        "select from pg_auth_members where roleid = 'velocity_owner'::regrole and member = 'velocity_api'::regrole"
      )
      expect(rows).toEqual([])
    })
  )

  it.effect("complain of attributes that roles must not have, and leave them", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      expect((yield* run(server.migrator("two"))).complaints).toEqual([])
      yield* server.sql("alter role velocity_api bypassrls")
      yield* server.sql("alter role velocity_operator superuser")
      const { complaints, repaired } = yield* run(server.migrator("two"))
      expect(repaired).toBe(false)
      expect(complaints.map((one) => one.repair)).toEqual([
        "ALTER ROLE velocity_api NOBYPASSRLS",
        "ALTER ROLE velocity_operator NOSUPERUSER"
      ])
      for (const one of complaints) yield* server.sql(one.repair)
      expect((yield* run(server.migrator("two"))).complaints).toEqual([])
    })
  )

  it.effect("end in two seconds where a repair needs a lock that requests hold, and change nothing", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      yield* server.sql("drop trigger refuse_truncate on platform.audit_log", "two")
      const before = yield* versionsOf(server.superuser("two"))
      const failure = yield* Effect.scoped(
        Effect.gen(function* () {
          const holder = yield* connect(server.superuser("two"))
          yield* holder.query("begin")
          yield* holder.query("lock table platform.audit_log in row exclusive mode")
          return yield* Effect.flip(run(server.migrator("two")))
        })
      )
      expect(failure).toMatchObject({ _tag: "MigrationFailed", file: "0002_audit_chain.sql", sqlstate: "55P03" })
      expect(yield* versionsOf(server.superuser("two"))).toEqual(before)
      expect((yield* run(server.migrator("two"))).repaired).toBe(true)
    })
  )

  it.effect("leave nothing of a file that fails, and all of those before it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* OwnServer
        yield* server.createDatabase("three")
        const folder = yield* folderWith({
          "0004_event_log.sql":
            "select platform.migrate_relation('half', 'create table platform.half ()');\ncreate role velocity_half nologin;\nselect 1 / 0;\n"
        })
        const failure = yield* Effect.flip(run(server.migrator("three"), folder))
        expect(failure.file).toBe("0004_event_log.sql")
        expect(failure.message).toBe("0004_event_log.sql: division by zero")
        const left = yield* server.sql(
          "select (select count(*)::int4 from platform.schema_migrations) as files, to_regclass('platform.half')::text as half, (select count(*)::int4 from pg_roles where rolname = 'velocity_half') as role, (select count(*)::int4 from pg_auth_members where roleid = 'velocity_owner'::regrole and set_option) as members",
          "three"
        )
        expect(left).toEqual([{ files: 3, half: null, role: 0, members: 0 }])
        expect((yield* run(server.migrator("three"))).added).toEqual(files.slice(3))
        expect(yield* shapeOf(server.superuser("three"))).toEqual(yield* shapeOf(server.superuser("two")))
      })
    )
  )

  it.effect("refuse by name a file that was edited, and one that is missing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const server = yield* OwnServer
        const before = yield* versionsOf(server.superuser("one"))
        const edited = yield* folderWith({ "0005_access.sql": "select 1;\n" })
        expect((yield* Effect.flip(run(server.migrator("one"), edited))).message).toMatch(
          /^0005_access\.sql was edited/
        )
        const missing = yield* folderWith({ "0006_anomaly.sql": undefined })
        expect((yield* Effect.flip(run(server.migrator("one"), missing))).message).toMatch(
          /^0006_anomaly\.sql was applied to this database and is unknown here/
        )
        expect(yield* versionsOf(server.superuser("one"))).toEqual(before)
      })
    )
  )

  it.effect("refuse a login that does not own the database or may not make roles, saying what to type", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      const failure = yield* Effect.flip(run(server.operator("one")))
      expect(failure.message).toBe(
        'login velocity_operator must own the database: ALTER DATABASE "one" OWNER TO "velocity_operator"'
      )
    })
  )
})

describe("a script", () => {
  plain("is taken apart where psql takes it apart", () => {
    const script =
      "-- a; comment\nselect 'a;''b', \"c;\"\"d\"; /* x; /* y; */ z; */\nselect $$;$$, $t$;$$;$t$, a$1;\n\n;select E'\\';', 1"
    expect(statementsOf(script)).toEqual([
      "select 'a;''b', \"c;\"\"d\"",
      "select $$;$$, $t$;$$;$t$, a$1",
      "select E'\\';', 1"
    ])
  })
})
