/** What somebody does to a table by hand: that it is told in words, and repaired where no record and no promise is touched. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { constraintName } from "../../src/domain/Names.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Drift from "../../src/provisioning/Drift.ts"
import { withDatabase } from "../support/Database.ts"
import { versionsOf } from "../support/Shape.ts"
import { makeWorld } from "./World.ts"

const fields = [
  { name: "a", type: "string", indexed: true, maxLength: 9 },
  { name: "n", type: "integer", unique: true, default: 3 }
]

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })("drift", (it) => {
  const prepared = Effect.fnUntraced(function* (object: string) {
    const world = yield* makeWorld
    yield* world.domain()
    const spec = world.define({ object, fields })
    yield* world.apply(spec)
    const path = `${world.chain}/${object}/v1`
    const table = `${world.schema}.${object}_v1`
    yield* world.look(
      `insert into ${table} (id, created_at, created_by, updated_at, updated_by, a, n) values (gen_random_uuid(), now(), 'x', now(), 'x', 'a', 1)`
    )
    const find = Effect.map(
      world.sql.transaction((tx) => Drift.find(tx, path), { end: "rollback" }),
      (one) => one.differences.map((line) => line.replaceAll(world.org, "ORG"))
    )
    const repair = Effect.gen(function* () {
      const result = yield* world.sql.transaction((tx) => Drift.repair(tx, path, "operator/folder"))
      if (result.planned) expect((yield* world.provision(spec))._tag).toBe("Applied")
      return result
    })
    return { ...world, spec, path, table, find, repair }
  })

  it.effect("is not found where nobody was, and looking changes nothing", () =>
    Effect.gen(function* () {
      const { database, find, repair } = yield* prepared("quiet")
      const before = yield* versionsOf(database.superuserUrl, database.org)
      expect(yield* find).toEqual([])
      expect(yield* repair).toEqual({ repaired: [], differences: [], planned: false })
      expect(yield* versionsOf(database.superuserUrl, database.org)).toEqual(before)
    })
  )

  const object = "hurt"
  const index = constraintName("ix", `${object}_v1`, ["a"])
  const check = constraintName("ck", `${object}_v1`, ["a"], "maxLength")
  const repairs: ReadonlyArray<readonly [string, string, string]> = [
    ["a policy is gone", "drop policy velocity_select on TABLE", "policy velocity_select is missing"],
    ["a policy is open", "alter policy velocity_ddl on TABLE to public", "policy velocity_ddl: roles is"],
    ["a policy is more", "create policy mine on TABLE using (true)", "policy mine is there and is not asked for"],
    ["a grant is gone", "revoke insert on TABLE from SCHEMA_writer", "grant ORG_shop_eu_writer INSERT is missing"],
    ["a grant is more", "grant delete on TABLE to SCHEMA_admin", "grant ORG_shop_eu_admin DELETE is there"],
    ["a column's grant", "grant update (a) on TABLE to SCHEMA_reader", "grant ORG_shop_eu_reader UPDATE (a) is there"],
    ["security is off", "alter table TABLE disable row level security", "row-level security is false"],
    ["security binds no owner", "alter table TABLE no force row level security", "row-level security is false"],
    ["a comment is gone", `comment on constraint ${check} on TABLE is null`, `constraint ${check}: comment is none`],
    [
      "a trigger was made",
      "create trigger mine before update on TABLE for each row execute function suppress_redundant_updates_trigger()",
      "trigger mine is there and is not asked for"
    ],
    ["the history view is another", "alter view SCHEMA.hurt_v1_history set (security_barrier = false)", "history view"],
    ["the history view is gone", "drop view SCHEMA.hurt_v1_history", "history view is missing"],
    ["an index is gone", `drop index SCHEMA.${index}`, `index ${index} is missing`],
    [
      "a check was made anew and never proved",
      `alter table TABLE drop constraint ${check}, add constraint ${check} check (char_length(a) <= 9) not valid`,
      `constraint ${check}: validated is false and should be true`
    ]
  ]

  it.effect("is told in words and repaired: policies, grants, security, comments, triggers, the view, indexes", () =>
    Effect.gen(function* () {
      const { find, look, repair, schema, table } = yield* prepared(object)
      for (const [name, sql, said] of repairs) {
        yield* look(sql.replaceAll("TABLE", table).replaceAll("SCHEMA", schema))
        expect((yield* find).join("\n"), name).toContain(said)
        const result = yield* repair
        expect(result.differences, name).toEqual([])
        expect(result.repaired.length, name).toBeGreaterThan(0)
        expect(yield* find, name).toEqual([])
        expect((yield* IsolationCheck.check()).map(IsolationCheck.render), name).toEqual([])
      }
      expect(yield* look(`select a, n::int4 from ${table}`)).toEqual([{ a: "a", n: 1 }])
    })
  )

  it.effect("is found and repaired while a plan waits, which is the same plan afterwards", () =>
    Effect.gen(function* () {
      const { define, find, look, provision, schema, spec, table, sql, path } = yield* prepared("waits")
      const less = define({ object: "waits", fields: fields.slice(0, 1) })
      const plan = yield* provision(less)
      expect(plan).toMatchObject({ _tag: "Planned", state: "Waiting" })
      expect(yield* find).toEqual([])
      const ix = constraintName("ix", "waits_v1", ["a"])
      yield* look(`alter table ${table} disable row level security`)
      yield* look(`grant delete, truncate on ${table} to public`)
      yield* look(`drop index ${schema}.${ix}`)
      const missing = `index ${ix} is missing`
      expect(yield* find).toEqual([
        "row-level security is false and should be true",
        missing,
        "grant PUBLIC DELETE is there and is not asked for",
        "grant PUBLIC TRUNCATE is there and is not asked for"
      ])
      // what takes a plan of its own is left to the one that waits
      const repair = sql.transaction((tx) => Drift.repair(tx, path, "operator/folder", false))
      expect(yield* repair).toEqual({
        repaired: ["what is not asked for away", "access"],
        differences: [missing],
        planned: false
      })
      expect(yield* find).toEqual([missing])
      yield* look(`create index ${ix} on ${table} (a, id) where deleted_at is null`)
      yield* repair
      expect(yield* find).toEqual([])
      expect(yield* provision(less)).toEqual(plan)
      expect((yield* provision(spec))._tag).toBe("Applied")
    })
  )

  it.effect("is put right at once where rights are concerned, though an index is still to be built", () =>
    Effect.gen(function* () {
      const { find, look, path, schema, sql, table } = yield* prepared("first")
      const ix = constraintName("ix", "first_v1", ["a"])
      yield* look(`drop index ${schema}.${ix}`)
      yield* look(`alter table ${table} disable row level security`)
      const result = yield* sql.transaction((tx) => Drift.repair(tx, path, "operator/folder"))
      expect(result).toMatchObject({ repaired: ["index a", "access"], planned: true })
      expect(yield* look(`select relrowsecurity from pg_class where oid = '${table}'::regclass`)).toEqual([
        { relrowsecurity: true }
      ])
      // the plan is carried out
      expect(yield* find).toEqual([])
    })
  )

  it.effect("is told and left where a record or a promise would be touched", () =>
    Effect.gen(function* () {
      const { find, look, repair, table } = yield* prepared("kept")
      const unique = constraintName("uq", "kept_v1", ["n"])
      yield* look(`drop index ${table.split(".")[0]}.${unique}`)
      yield* look(`alter table ${table} add column mine int4, alter column n set default 4`)
      yield* look(`drop policy velocity_insert on ${table}`)
      const result = yield* repair
      expect(result.planned).toBe(false)
      const left = [
        "column mine is there and is not asked for",
        "column n: default is 4 and should be '3'::bigint",
        `index ${unique} is missing`
      ]
      expect(result.differences).toEqual(left)
      expect(yield* find).toEqual(left)
    })
  )
})
