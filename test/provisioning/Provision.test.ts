/** Provisioning under the real roles: what is made, that nothing is made twice, what is refused and what it leaves. */
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { expect } from "vitest"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import { applyDomain } from "../../src/provisioning/ProvisionDomain.ts"
import { ddlLockTimeout } from "../../src/provisioning/table/Names.ts"
import { connect, withDatabase } from "../support/Database.ts"
import { versionsOf } from "../support/Shape.ts"
import { makeWorld, originOf, refusalOf } from "./World.ts"

const everyType = [
  { name: "code", type: "string", required: true, unique: true, pattern: "^[A-Z]{2}\\d+$", maxLength: 12 },
  { name: "title", type: "string", minLength: 1, maxLength: 40, indexed: true, default: "it's \\ new" },
  { name: "count", type: "integer", min: "0", max: "9223372036854775807", default: 3 },
  { name: "price", type: "number", precision: 12, scale: 4, min: "-1.5", default: "1.10" },
  { name: "ratio", type: "number", float: true, max: "1" },
  { name: "amount", type: "number" },
  { name: "open", type: "boolean", default: true },
  { name: "day", type: "date", default: "2026-11-24" },
  { name: "clock", type: "time" },
  { name: "at", type: "timestamp", default: "2026-11-24T01:02:03Z" },
  { name: "token", type: "uuid", unique: true },
  { name: "data", type: "json", default: '{"a":1}' },
  { name: "state", type: "enum", enum: ["draft", "it's", "$v_$"], default: "draft" },
  { name: "blob", type: "bytes", maxLength: 8, default: "AQI=" },
  { name: "order", type: "string" },
  { name: "parent", type: "ref", ref: { object: "thing", version: "v1" } }
]

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "provisioning",
  (it) => {
    it.effect("makes every type of field with its constraints, and the isolation check finds nothing", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, org, schema } = yield* makeWorld
        yield* domain()
        const fields = everyType.map((field) =>
          field.type === "ref" ? { ...field, ref: { object: "every-type", version: "v1" } } : field
        )
        const done = yield* apply(
          define({ object: "every-type", fields, uniqueConstraints: [{ fields: ["title", "order"] }] })
        )
        expect(done).toMatchObject({ _tag: "Applied", pgSchema: schema, pgTable: "every_type_v1", missing: [] })
        const columns = yield* look(
          `select a.attname as name, format_type(a.atttypid, a.atttypmod) as type, a.attnotnull as required, pg_get_expr(d.adbin, d.adrelid) as value
           from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum and a.attgenerated = ''
           where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped order by a.attnum`,
          [`${schema}.every_type_v1`]
        )
        expect(
          columns.map((row) => `${row.name} ${row.type}${row.required ? " required" : ""} ${row.value ?? ""}`.trim())
        ).toMatchSnapshot()
        const constraints = yield* look(
          `select pg_get_constraintdef(oid) as text, convalidated as valid, obj_description(oid, 'pg_constraint') as comment
           from pg_constraint where conrelid = $1::regclass and contype <> 'n' order by 1`,
          [`${schema}.every_type_v1`]
        )
        expect(
          constraints.map((row) => `${row.text} -- ${row.comment} ${row.valid}`.replaceAll(org, "org"))
        ).toMatchSnapshot()
        const indexes = yield* look(
          "select indexdef from pg_indexes where schemaname = $1 and tablename = 'every_type_v1'",
          [schema]
        )
        expect(indexes.map((row) => String(row.indexdef).replaceAll(org, "org")).sort()).toMatchSnapshot()
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
      })
    )

    it.effect("gives every role exactly what it is for", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, org, schema } = yield* makeWorld
        yield* domain()
        yield* apply(define({ object: "granted", fields: [{ name: "a", type: "string" }] }))
        const hide = (text: unknown) => String(text).replaceAll(org, "org")
        const grants = yield* look(
          `select c.relname || ': ' || pg_get_userbyid(a.grantee) || ' ' || string_agg(a.privilege_type, ',' order by a.privilege_type) as line
           from pg_class c, aclexplode(c.relacl) a where c.relnamespace = $1::regnamespace and c.relname like 'granted%' and c.relkind in ('r', 'v')
             and a.grantee <> c.relowner group by c.relname, a.grantee order by 1`,
          [schema]
        )
        expect(grants.map((row) => hide(row.line))).toEqual([
          "granted_v1: org_shop_eu_admin INSERT,SELECT,UPDATE",
          "granted_v1: org_shop_eu_reader SELECT",
          "granted_v1: org_shop_eu_writer INSERT,SELECT,UPDATE",
          "granted_v1: velocity_owner DELETE",
          "granted_v1_history: org_shop_eu_admin SELECT",
          "granted_v1_history: org_shop_eu_reader SELECT",
          "granted_v1_history: org_shop_eu_writer SELECT"
        ])
        const members = yield* look(
          `select format('%s in %s inherit=%s set=%s admin=%s', pg_get_userbyid(member), pg_get_userbyid(roleid), inherit_option, set_option, admin_option) as line
           from pg_auth_members where pg_get_userbyid(roleid) like $1 or pg_get_userbyid(member) like $1 order by 1`,
          [`${schema}_%`]
        )
        expect(members.map((row) => hide(row.line))).toEqual([
          "org_shop_eu_admin in velocity_tenant inherit=t set=f admin=f",
          "org_shop_eu_owner in velocity_history inherit=t set=f admin=f",
          "org_shop_eu_reader in velocity_tenant inherit=t set=f admin=f",
          "org_shop_eu_writer in velocity_tenant inherit=t set=f admin=f",
          "velocity_api in org_shop_eu_admin inherit=f set=t admin=f",
          "velocity_api in org_shop_eu_reader inherit=f set=t admin=f",
          "velocity_api in org_shop_eu_writer inherit=f set=t admin=f",
          "velocity_operator in org_shop_eu_admin inherit=f set=f admin=t",
          "velocity_operator in org_shop_eu_owner inherit=f set=f admin=t",
          "velocity_operator in org_shop_eu_owner inherit=f set=t admin=f",
          "velocity_operator in org_shop_eu_reader inherit=f set=f admin=t",
          "velocity_operator in org_shop_eu_writer inherit=f set=f admin=t"
        ])
      })
    )

    it.effect("does nothing at all the second time: no DDL, no row, no lock, no entry", () =>
      Effect.gen(function* () {
        const { apply, database, define, domain, look, sql } = yield* makeWorld
        yield* domain()
        const spec = define({ object: "twice", fields: everyType.filter((field) => field.type !== "ref") })
        const first = yield* apply(spec)
        const before = yield* versionsOf(database.superuserUrl, database.org)
        const again = yield* sql.transaction((tx) =>
          Effect.gen(function* () {
            const outcome = yield* Provision.apply(tx, { spec, origin: originOf("twice") })
            const locks = yield* tx.query({
              sql: `select count(*)::int4 as locks from pg_locks where pid = pg_backend_pid() and granted
                and (locktype = 'advisory' or (locktype = 'relation' and mode <> 'AccessShareLock') or locktype = 'transactionid')`,
              params: []
            })
            return { outcome, locks: locks.rows[0]?.locks }
          })
        )
        expect(again).toEqual({ outcome: { ...first, _tag: "Unchanged", steps: [] }, locks: 0 })
        yield* domain()
        expect(yield* versionsOf(database.superuserUrl, database.org)).toEqual(before)
        const [entries] = yield* look("select count(*)::int4 as n from platform.audit_log where schema_path like $1", [
          `%/twice/v1`
        ])
        expect(entries).toEqual({ n: 1 })
      })
    )

    it.effect("writes the mirror, an entry and a notification with the table", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look } = yield* makeWorld
        yield* domain()
        const spec = define({
          object: "mirrored",
          fields: [
            { name: "a", type: "string" },
            { name: "b", type: "integer" }
          ]
        })
        const done = yield* apply(spec)
        const [row] = yield* look(
          `select wanted = serving as same, generation::int4, grants, state, source, namespace, name,
             (select json_agg(f.name order by f.position) from platform.field_defs f where f.def_id = s.id) as fields
           from platform.schema_defs s where path = $1`,
          [`${chain}/mirrored/v1`]
        )
        expect(row).toMatchObject({
          same: true,
          generation: done.generation,
          state: "Serving",
          source: "folder",
          namespace: "shop-eu",
          name: "mirrored",
          fields: ["a", "b"]
        })
        expect(row).toHaveProperty("grants.delete", ["admin"])
        const [entry] = yield* look(
          "select actor, action, outcome, db_login, db_role from platform.audit_log where schema_path = $1",
          [`${chain}/mirrored/v1`]
        )
        expect(entry).toEqual({
          actor: "operator/folder",
          action: "operator.schema.apply",
          outcome: "ok",
          db_login: "velocity_operator",
          db_role: "none"
        })
      })
    )

    it.effect("adds nullable fields, indexes, enum values, roles and filters to a table with records", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, provision, schema } = yield* makeWorld
        yield* domain()
        const fields = [
          { name: "code", type: "string", required: true },
          { name: "state", type: "enum", enum: ["draft"] }
        ]
        const first = yield* apply(define({ object: "grown", fields }))
        yield* look(
          `insert into ${schema}.grown_v1 (id, created_at, created_by, updated_at, updated_by, code, state) values (gen_random_uuid(), now(), 'x', now(), 'x', 'c', 'draft')`
        )
        const wanted = define({
          object: "grown",
          fields: [
            { name: "code", type: "string", required: true, indexed: true },
            { name: "state", type: "enum", enum: ["draft", "sent"] },
            { name: "note", type: "string", maxLength: 5, default: "new", unique: true },
            { name: "other", type: "ref", ref: { object: "grown", version: "v1" } }
          ],
          access: {
            roles: [
              { role: "buyer", operations: ["create", "read", "update"] },
              { role: "clerk", operations: ["read"] }
            ],
            rowFilters: [{ role: "clerk", filter: { field: "code", op: "eq", identity: "attributes.code" } }]
          }
        })
        // the table is written anew for a reference, so it waits; the rest would not
        const waits = yield* provision(wanted)
        if (waits._tag !== "Planned") return yield* Effect.die(waits)
        expect(waits.steps.filter((one) => one.needsApproval).map((one) => one.does)).toEqual(["add field other"])
        const grown = yield* provision(wanted, waits.hash)
        if (grown._tag !== "Applied") return yield* Effect.die(grown)
        expect(grown.steps).toEqual([
          "add field note",
          "add field other",
          "index code",
          "unique note",
          "index other",
          "add enum values to state",
          "maxLength of note",
          "foreign key other",
          "access",
          "prove enum of state",
          "prove maxLength of note",
          "prove foreign key other"
        ])
        expect(grown.generation).toBeGreaterThan(first.generation)
        const [row] = yield* look(`select code, state, note, other from ${schema}.grown_v1`)
        expect(row).toEqual({ code: "c", state: "draft", note: null, other: null })
        const policies = yield* look(
          "select policyname, cmd, qual, with_check from pg_policies where schemaname = $1 and tablename = 'grown_v1' order by 1",
          [schema]
        )
        expect(policies.map((one) => one.policyname)).toEqual([
          "velocity_ddl",
          "velocity_erase",
          "velocity_insert",
          "velocity_select",
          "velocity_update"
        ])
        expect(String(policies[3]?.qual)).toContain("platform.has_role")
        const unvalidated = yield* look(
          "select conname from pg_constraint where connamespace = $1::regnamespace and not convalidated",
          [schema]
        )
        expect(unvalidated).toEqual([])
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
      })
    )

    it.effect("refuses what is no change of a field by field, and changes nothing", () =>
      Effect.gen(function* () {
        const { apply, database, define, domain } = yield* makeWorld
        yield* domain()
        const field = (more: Record<string, unknown>) => ({ name: "a", type: "string", ...more })
        const table = (fields: ReadonlyArray<unknown>, more: Record<string, unknown> = {}) =>
          define({ object: "fixed", fields, ...more })
        const number = { name: "n", type: "number", precision: 10, scale: 2, min: "0" }
        const reference = { name: "r", type: "ref", ref: { object: "fixed", version: "v1" } }
        const all = [field({}), number, reference]
        yield* apply(table(all))
        const before = yield* versionsOf(database.superuserUrl, database.org)
        const cases: ReadonlyArray<readonly [ReadonlyArray<unknown>, string]> = [
          [[field({ type: "integer" }), number, reference], "CannotEvolve /spec/fields/0/type"],
          [
            [field({ type: "json" }), { name: "n", type: "integer" }, reference],
            "CannotEvolve /spec/fields/0/type /spec/fields/1/type"
          ],
          [[field({}), number, { name: "r", type: "string" }], "CannotEvolve /spec/fields/2/type"],
          [[{ name: "b", type: "json", renamedFrom: ["a", "n"] }, reference], "CannotEvolve /spec/fields/0/renamedFrom"]
        ]
        for (const [fields, wanted] of cases) expect(yield* refusalOf(apply(table(fields)))).toBe(wanted)
        expect(yield* refusalOf(apply(table([...all, { name: "b", type: "uuid", renamedFrom: ["a"] }])))).toBe(
          "Invalid /spec/fields/3/renamedFrom/0"
        )
        const absent = { object: "fixed", version: "v2", sharesRowsWith: "v3", fields: all }
        expect(yield* refusalOf(apply(define(absent)))).toBe("VersionMissing")
        expect(yield* refusalOf(apply(table([field({ min: "3" })])))).toBe("Invalid /spec/fields/0/min")
        expect(yield* refusalOf(apply(table(all), originOf("somebody")))).toBe("PathConflict")
        expect(yield* refusalOf(apply(table(all), originOf("fixed", { source: "cluster-1" })))).toBe("NotAdopted")
        expect(yield* refusalOf(apply(define({ domain: "nowhere", fields: all })))).toBe("ParentMissing")
        expect(yield* versionsOf(database.superuserUrl, database.org)).toEqual(before)
      })
    )

    it.effect("waits for the lock of a domain that somebody else has no longer than for a table", () =>
      Effect.gen(function* () {
        const { database, org, sql } = yield* makeWorld
        const wanted = {
          spec: { org, app: "shop", domain: "locked", deletionPolicy: "Retain", database: "default" } as const,
          origin: originOf("locked"),
          authStrategy: undefined
        }
        const holder = yield* connect(database.superuserUrl)
        yield* holder.query("begin")
        yield* holder.query(
          `select pg_advisory_xact_lock(hashtextextended('velocity/provision/${org}/shop/locked', 0))::text as held`
        )
        const refused = yield* Effect.flip(sql.transaction((tx) => applyDomain(tx, wanted)))
        expect(refused).toMatchObject({ _tag: "DatabaseFailure", reason: { _tag: "LockTimeout" } })
        yield* holder.query("rollback")
        const timeout = yield* sql.transaction((tx) =>
          Effect.andThen(applyDomain(tx, wanted), tx.query(statement("select current_setting('lock_timeout') as is")))
        )
        expect(timeout.rows).toEqual([{ is: ddlLockTimeout }])
      })
    )

    it.effect("gives a name in Postgres to the first path that uses it", () =>
      Effect.gen(function* () {
        const { database, look, org, sql } = yield* makeWorld
        const domain = (app: string, name: string, more: Record<string, unknown> = {}) =>
          refusalOf(
            sql.transaction((tx) =>
              applyDomain(tx, {
                spec: { org, app, domain: name, deletionPolicy: "Retain", database: "default", ...more },
                origin: originOf(`${app}-${name}`),
                authStrategy: undefined
              })
            )
          )
        expect(yield* domain("a", "b-c")).toBe("ok")
        const before = yield* versionsOf(database.superuserUrl, database.org)
        expect(yield* domain("a-b", "c")).toBe("NameConflict")
        expect(yield* domain("d".repeat(40), "e".repeat(20))).toBe("Invalid /spec/domain")
        expect(yield* domain("a", "z", { database: "other" })).toBe("UnknownDatabase")
        expect(yield* versionsOf(database.superuserUrl, database.org)).toEqual(before)
        expect(yield* look("select path from platform.names where pg_name = $1", [`${org}_a_b_c`])).toEqual([
          { path: `${org}/a/b-c` }
        ])
      })
    )

    it.effect("makes a table without the foreign key whose target is missing, and adds it when the target comes", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, schema } = yield* makeWorld
        yield* domain()
        const left = define({
          object: "left",
          fields: [{ name: "r", type: "ref", ref: { object: "right", version: "v1" } }]
        })
        const right = define({
          object: "right",
          fields: [{ name: "l", type: "ref", ref: { object: "left", version: "v1" } }]
        })
        expect(yield* apply(left)).toMatchObject({ _tag: "Applied", missing: [`${chain}/right/v1`] })
        expect(yield* apply(left)).toMatchObject({ _tag: "Unchanged", missing: [`${chain}/right/v1`] })
        expect(yield* apply(right)).toMatchObject({ _tag: "Applied", missing: [] })
        expect(yield* apply(left)).toMatchObject({ _tag: "Applied", missing: [], steps: ["foreign key r"] })
        expect(yield* apply(left)).toMatchObject({ _tag: "Unchanged" })
        const keys = yield* look(
          "select conrelid::regclass::text as child, confrelid::regclass::text as parent, confdeltype from pg_constraint where connamespace = $1::regnamespace and contype = 'f' and conrelid::regclass::text ~ '(left|right)' order by 1",
          [schema]
        )
        expect(keys).toEqual([
          { child: `${schema}.left_v1`, parent: `${schema}.right_v1`, confdeltype: "a" },
          { child: `${schema}.right_v1`, parent: `${schema}.left_v1`, confdeltype: "a" }
        ])
      })
    )

    it.effect("keeps what a deleted definition held, shut, and opens it again", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, schema, withdraw } = yield* makeWorld
        yield* domain()
        const parent = define({ object: "kept", fields: [{ name: "a", type: "string" }] })
        const child = define({
          object: "child",
          fields: [{ name: "p", type: "ref", ref: { object: "kept", version: "v1" } }]
        })
        const first = yield* apply(parent)
        yield* apply(child)
        yield* look(
          `insert into ${schema}.kept_v1 (id, created_at, created_by, updated_at, updated_by, a) values (gen_random_uuid(), now(), 'x', now(), 'x', 'c')`
        )
        expect(yield* refusalOf(withdraw("kept"))).toBe("Referenced")
        expect(yield* withdraw("kept", [`${chain}/child/v1`])).toBe("Done")
        expect(yield* withdraw("kept", [`${chain}/child/v1`])).toBe("Nothing")
        const shut = yield* look(
          `select s.serving is null as gone, s.wanted is null as unwanted, s.state,
             (select count(*)::int4 from ${schema}.kept_v1) as rows,
             (select count(*)::int4 from pg_policies p where p.schemaname = s.pg_schema and p.tablename = s.pg_table) as policies,
             (select count(*)::int4 from pg_class c, aclexplode(c.relacl) a where c.oid in ('${schema}.kept_v1'::regclass, '${schema}.kept_v1_history'::regclass) and a.grantee <> c.relowner and a.grantee <> 'velocity_owner'::regrole) as grants
           from platform.schema_defs s where path = $1`,
          [`${chain}/kept/v1`]
        )
        expect(shut).toEqual([{ gone: true, unwanted: true, state: "Withdrawn", rows: 1, policies: 2, grants: 0 }])
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
        // the rows are what they were, so a definition that does not fit them is refused still
        expect(yield* refusalOf(apply(define({ object: "kept", fields: [{ name: "a", type: "integer" }] })))).toBe(
          "CannotEvolve /spec/fields/0/type"
        )
        const again = yield* apply(parent)
        expect(again.steps).toEqual(["access"])
        expect(again.generation).toBeGreaterThan(first.generation)
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
      })
    )

    it.effect("gives a table that an earlier Velocity provisioned what erasure needs, once", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, schema } = yield* makeWorld
        yield* domain()
        const spec = define({ object: "elder", fields: [{ name: "a", type: "string" }] })
        yield* apply(spec)
        const table = `${schema}.elder_v1`
        const [{ comment } = {}] = yield* look("select obj_description($1::regclass, 'pg_class') as comment", [table])
        // as it was left: no policy, no rights, and the digests of then
        yield* look(`drop policy velocity_erase on ${table}`)
        yield* look(`revoke all on ${table} from velocity_owner`)
        yield* look(`revoke select (id) on ${table} from velocity_owner`)
        yield* look(`revoke usage on schema ${schema} from velocity_owner`)
        yield* look(
          `comment on table ${table} is '${String(comment)
            .replaceAll("'", "''")
            .replace(/"access":"[0-9a-f]+"/u, '"access":"0123456789abcdef"')}'`
        )
        yield* look("update platform.schema_defs set serving_hash = 'before' where pg_table = 'elder_v1'")
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
        expect(yield* apply(spec)).toMatchObject({ _tag: "Applied", steps: ["access"] })
        const rights = yield* look(
          `select has_schema_privilege('velocity_owner', $1, 'USAGE') as usage, has_table_privilege('velocity_owner', $2, 'DELETE') as delete,
             has_column_privilege('velocity_owner', $2, 'id', 'SELECT') as id, has_column_privilege('velocity_owner', $2, 'a', 'SELECT') as a,
             exists (select from pg_policy where polrelid = $2::regclass and polname = 'velocity_erase') as policy`,
          [schema, table]
        )
        expect(rights).toEqual([{ usage: true, delete: true, id: true, a: false, policy: true }])
        expect((yield* apply(spec))._tag).toBe("Unchanged")
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
      })
    )

    it.effect("leaves nothing when it ends in the middle", () =>
      Effect.gen(function* () {
        const { database, define, domain, look, schema, sql } = yield* makeWorld
        yield* domain()
        const spec = define({ object: "crashed", fields: everyType.filter((field) => field.type !== "ref") })
        const before = yield* versionsOf(database.superuserUrl, database.org)
        const cut = yield* Effect.exit(
          sql.transaction((tx) =>
            Effect.gen(function* () {
              const { rows } = yield* tx.query({ sql: "select pg_backend_pid()::int4 as pid", params: [] })
              yield* Provision.apply(tx, { spec, origin: originOf("crashed") })
              yield* look("select pg_terminate_backend($1::int4)", [rows[0]?.pid])
              yield* tx.query({ sql: "select 1", params: [] })
            })
          )
        )
        expect(cut._tag).toBe("Failure")
        expect(yield* look("select to_regclass($1) as found", [`${schema}.crashed_v1`])).toEqual([{ found: null }])
        const after = yield* versionsOf(database.superuserUrl, database.org)
        expect(after["platform.schema_defs"]).toBe(before["platform.schema_defs"])
        expect(after.pg_class).toBe(before.pg_class)
        expect(after["platform.audit_log"]).toBe(before["platform.audit_log"])
      })
    )
  }
)
