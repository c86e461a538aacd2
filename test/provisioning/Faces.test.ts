/** Versions of one object over one table: what becomes of the table and its views, in whatever order they come and change. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import * as fc from "fast-check"
import { expect } from "vitest"
import { formatPath } from "../../src/domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { asOwner } from "../../src/postgres/OwnerTx.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Drift from "../../src/provisioning/Drift.ts"
import * as Catalogue from "../../src/provisioning/table/Catalogue.ts"
import * as WantedSteps from "../../src/provisioning/WantedSteps.ts"
import { withdraw } from "../../src/provisioning/Withdrawal.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld, originOf, refusalOf } from "./World.ts"

const text = (name: string, more: Record<string, unknown> = {}) => ({ name, type: "string", ...more })

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })("faces", (it) => {
  const prepared = Effect.fnUntraced(function* (object: string) {
    const world = yield* makeWorld
    yield* world.domain()
    const version = (name: string, fields: ReadonlyArray<unknown>, more: Record<string, unknown> = {}) =>
      world.define({ object, version: name, fields, ...more })
    /** Applies a version as the operator does, approving what waits. */
    const apply = Effect.fnUntraced(function* (spec: SchemaDefinitionSpec) {
      const first = yield* world.provision(spec)
      const result = first._tag === "Planned" ? yield* world.provision(spec, first.hash) : first
      if (result._tag !== "Applied" && result._tag !== "Unchanged") return yield* Effect.die(result)
      const why = first._tag === "Planned" ? first.steps.filter((one) => one.needsApproval).map((one) => one.does) : []
      return { ...result, why }
    })
    /** That the table is what each of these says, and that there is nothing to find for the isolation check. */
    const sound = Effect.fnUntraced(function* (...specs: ReadonlyArray<SchemaDefinitionSpec>) {
      for (const spec of specs) {
        const path = formatPath(pathOfDefinition(spec))
        const [row] = yield* world.look(
          `select s.id, s.storage_id, coalesce(o.pg_table, s.pg_table) as name from platform.schema_defs s
           left join platform.schema_defs o on o.id = s.owner_id where s.path = $1`,
          [path]
        )
        const differences = yield* world.sql.transaction((tx) =>
          Effect.gen(function* () {
            const actual = yield* Catalogue.read(tx, world.schema, String(row?.name))
            if (actual === undefined) return ["no table"]
            const ids = { id: Number(row?.id), storage: Number(row?.storage_id) }
            const compared = yield* WantedSteps.compare(tx, spec, world.schema, actual, ids)
            return Catalogue.differences(actual, compared.target)
          })
        )
        expect(differences, path).toEqual([])
        expect((yield* world.provision(spec))._tag, path).toBe("Unchanged")
        expect((yield* world.sql.transaction((tx) => Drift.find(tx, path))).differences).toEqual([])
      }
      expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
    })
    const put = (relation: string, values: Record<string, unknown>) => {
      const row = { created_by: "x", updated_by: "x", created_at: "2026-01-01", updated_at: "2026-01-01", ...values }
      const names = Object.keys(row).map((name) => `"${name}"`)
      return world.look(
        `insert into ${world.schema}."${relation}" (id, ${names}) select gen_random_uuid(), ${names}
         from jsonb_populate_record(null::${world.schema}."${relation}", $1::text::jsonb)`,
        [JSON.stringify(row)]
      )
    }
    const rows = (relation: string, columns: string) =>
      world.look(`select ${columns} from ${world.schema}."${relation}" order by 1`)
    const remove = (name: string) =>
      world.sql.transaction((tx) =>
        withdraw(tx, { path: `${world.chain}/${object}/${name}`, origin: originOf(object), leaving: new Set() })
      )
    return { ...world, version, apply, sound, put, rows, remove }
  })

  it.effect("are a table and a view with a field more, one renamed and one left out", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("basic")
      const v1 = version("v1", [text("a", { required: true, unique: true }), text("b"), text("c")])
      const v2 = version("v2", [
        text("a", { required: true, unique: true }),
        text("bee", { renamedFrom: ["b"], indexed: true }),
        { name: "n", type: "integer", required: true, default: "7" }
      ])
      yield* apply(v1)
      yield* put("basic_v1", { a: "1", b: "x", c: "kept" })
      const made = yield* apply(v2)
      expect(made).toMatchObject({ pgTable: "basic_v2", rowsOf: "basic_v1", why: [] })
      yield* sound(v1, v2)
      yield* put("basic_v2", { a: "2", bee: "y", n: 9 })
      expect(yield* rows("basic_v1", "a, b, c, n::text")).toEqual([
        { a: "1", b: "x", c: "kept", n: "7" },
        { a: "2", b: "y", c: null, n: "9" }
      ])
      expect(yield* rows("basic_v2", "a, bee, n::text")).toEqual([
        { a: "1", bee: "x", n: "7" },
        { a: "2", bee: "y", n: "9" }
      ])
    })
  )

  it.effect("come to the same in either order", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("order")
      const v1 = version("v1", [text("a"), text("c")])
      const v2 = version("v2", [text("bee", { renamedFrom: ["a"] }), text("d")])
      expect(yield* apply(v2)).toMatchObject({ pgTable: "order_v2", rowsOf: undefined })
      expect(yield* apply(v1)).toMatchObject({ pgTable: "order_v1", rowsOf: "order_v2" })
      yield* sound(v1, v2)
      yield* put("order_v1", { a: "1", c: "2" })
      expect(yield* rows("order_v2", "bee, d")).toEqual([{ bee: "1", d: null }])
    })
  )

  it.effect("are refused by field where one table cannot be both", () =>
    Effect.gen(function* () {
      const { apply, provision, version } = yield* prepared("refused")
      const number = { name: "n", type: "number", precision: 10, scale: 2 }
      yield* apply(version("v1", [text("a", { required: true }), text("b", { unique: true }), number, text("c")]))
      const cases: ReadonlyArray<readonly [ReadonlyArray<unknown>, string, Record<string, unknown>?]> = [
        [[text("a"), { name: "b", type: "integer" }], "CannotEvolve /spec/fields/1/type"],
        [[text("a"), { ...number, scale: 3 }], "CannotEvolve /spec/fields/1/type"],
        [[text("b")], "CannotEvolve /spec/fields"],
        [[text("a"), text("z", { required: true })], "CannotEvolve /spec/fields/1/required"],
        [[text("a"), text("z", { unique: true, default: "same" })], "CannotEvolve /spec/fields/1"],
        [[text("a"), text("z", { renamedFrom: ["b"] }), text("y", { renamedFrom: ["x"] })], "ok"],
        [[text("a")], "CannotEvolve /spec/sharesRowsWith", { sharesRowsWith: "none" }],
        [[text("a")], "Invalid /spec/sharesRowsWith", { sharesRowsWith: "v2" }]
      ]
      for (const [fields, wanted, more] of cases) {
        expect(yield* refusalOf(provision(version("v2", fields, more))), JSON.stringify(fields)).toBe(wanted)
      }
      expect(yield* refusalOf(provision(version("v3", [text("a")], { sharesRowsWith: "v9" })))).toBe("VersionMissing")
      expect(yield* refusalOf(provision(version("v1", [text("a")], { sharesRowsWith: "v2" })))).toBe(
        "CannotEvolve /spec/sharesRowsWith"
      )
    })
  )

  it.effect("hold all rows to the bounds of each, a stricter one only by approval", () =>
    Effect.gen(function* () {
      const { apply, put, sound, version } = yield* prepared("bounds")
      const kind = (...values: ReadonlyArray<string>) => ({ name: "kind", type: "enum", enum: values })
      const v1 = version("v1", [kind("p", "q", "r"), text("t", { maxLength: 5 })])
      const v2 = version("v2", [kind("p", "q"), text("t", { maxLength: 9 })])
      yield* apply(v1)
      yield* put("bounds_v1", { kind: "p", t: "12345" })
      expect((yield* apply(v2)).why).toEqual(["remove enum values r from kind"])
      yield* sound(v1, v2)
      expect(yield* Effect.exit(put("bounds_v1", { kind: "r" }))).toMatchObject({ _tag: "Failure" })
      expect(yield* Effect.exit(put("bounds_v2", { t: "123456" }))).toMatchObject({ _tag: "Failure" })
      // a value more is allowed when both allow it
      const wide = [kind("p", "q", "r"), text("t", { maxLength: 9 })]
      yield* apply(version("v2", wide))
      yield* put("bounds_v1", { kind: "r" })
      expect(yield* Effect.exit(put("bounds_v2", { t: "123456" }))).toMatchObject({ _tag: "Failure" })
      yield* apply(version("v1", wide))
      yield* put("bounds_v2", { t: "123456" })
      yield* sound(version("v1", wide), version("v2", wide))
    })
  )

  it.effect("are held to a value that one of them requires only by approval", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("requires")
      const v1 = version("v1", [text("a"), text("b", { default: "own" }), text("c")])
      yield* apply(v1)
      yield* put("requires_v1", { c: "1" })
      const v2 = version("v2", [
        text("a", { required: true, default: "filled" }),
        text("b", { required: true, default: "other" }),
        text("new", { required: true, default: "-" })
      ])
      expect((yield* apply(v2)).why).toEqual(["require a", "require b", "hold clients of v1 to a value of a"])
      yield* sound(v1, v2)
      expect(yield* rows("requires_v2", "a, b, new")).toEqual([{ a: "filled", b: "own", new: "-" }])
      expect(yield* Effect.exit(put("requires_v1", { a: null, b: "x" }))).toMatchObject({ _tag: "Failure" })
      yield* put("requires_v1", { a: "2", b: "x" })
    })
  )

  it.effect("follow the owner's new names, keep what it drops, and let it change what is its own", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("evolves")
      const own = { name: "own", type: "integer" }
      const v2 = version("v2", [text("bee", { renamedFrom: ["a"] }), text("b"), text("extra")])
      yield* apply(version("v1", [text("a"), text("b"), own]))
      yield* put("evolves_v1", { a: "1", b: "2", own: 3 })
      yield* apply(v2)
      const renamed = version("v1", [text("c", { renamedFrom: ["a"] }), text("b"), own])
      expect((yield* apply(renamed)).why).toEqual(["rename a to c"])
      yield* sound(renamed, v2)
      expect(yield* rows("evolves_v2", "bee, b")).toEqual([{ bee: "1", b: "2" }])
      // the type of a column that the view holds
      const typed = version("v1", [
        text("c", { renamedFrom: ["a"] }),
        text("b"),
        { name: "own", type: "number", precision: 20, scale: 2 }
      ])
      yield* apply(typed)
      yield* sound(typed, v2)
      const dropped = version("v1", [text("c", { renamedFrom: ["a"] })])
      expect((yield* apply(dropped)).why).toEqual(["drop field own", "b is no longer a field of v1"])
      yield* sound(dropped, v2)
      expect(yield* rows("evolves_v2", "bee, b")).toEqual([{ bee: "1", b: "2" }])
      // the face's own names, and what is its alone
      const face = version("v2", [text("bee", { renamedFrom: ["a"] }), text("more", { renamedFrom: ["extra"] })])
      expect((yield* apply(face)).why.sort()).toEqual(["drop field b", "extra is no longer a field of v2"])
      yield* sound(dropped, face)
      const last = version("v2", [text("bee", { renamedFrom: ["a"] })])
      expect((yield* apply(last)).why).toEqual(["drop field extra"])
      yield* sound(dropped, last)
    })
  )

  it.effect("may be three, each sharing with the one before", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("three")
      const v1 = version("v1", [text("a"), text("b")])
      const v2 = version("v2", [text("bee", { renamedFrom: ["a"] }), text("note")])
      const v3 = version("v3", [text("bee"), text("remark", { renamedFrom: ["note"] }), text("b")])
      for (const one of [v1, v2, v3]) yield* apply(one)
      yield* sound(v1, v2, v3)
      yield* put("three_v3", { bee: "1", remark: "2", b: "3" })
      expect(yield* rows("three_v1", "a, b, note")).toEqual([{ a: "1", b: "3", note: "2" }])
      expect(yield* rows("three_v2", "bee, note")).toEqual([{ bee: "1", note: "2" }])
    })
  )

  it.effect("go one by one, the owner last, and what they held comes back with them", () =>
    Effect.gen(function* () {
      const { apply, look, put, remove, rows, schema, sound, version } = yield* prepared("leaves")
      const v1 = version("v1", [text("a")])
      const v2 = version("v2", [text("bee", { renamedFrom: ["a"] }), text("note", { required: true, default: "-" })])
      yield* apply(v1)
      yield* apply(v2)
      yield* put("leaves_v2", { bee: "1", note: "2" })
      expect(yield* refusalOf(remove("v1"))).toBe("HasFaces")
      expect(yield* remove("v2")).toEqual({ _tag: "Done" })
      const views = `select relname::text as name from pg_class where relnamespace = '${schema}'::regnamespace and relkind = 'v' and relname like 'leaves%'`
      expect(yield* look(views)).toEqual([{ name: "leaves_v1_history" }])
      yield* sound(v1)
      yield* put("leaves_v1", { a: "3" })
      const more = version("v1", [text("a"), text("b")])
      expect((yield* apply(more)).why).toEqual([])
      yield* sound(more)
      yield* apply(v2)
      yield* sound(more, v2)
      expect(yield* rows("leaves_v2", "bee, note")).toEqual([
        { bee: "1", note: "2" },
        { bee: "3", note: "-" }
      ])
      expect(yield* remove("v2")).toEqual({ _tag: "Done" })
      expect(yield* remove("v1")).toEqual({ _tag: "Done" })
      expect(yield* refusalOf(apply(v2))).toBe("VersionMissing")
      yield* apply(more)
      yield* apply(v2)
      yield* sound(more, v2)
    })
  )

  it.effect("take with them what only they asked of the rows, and what the owner dropped before", () =>
    Effect.gen(function* () {
      const { apply, look, put, remove, sound, version } = yield* prepared("lifted")
      const kind = (...values: ReadonlyArray<string>) => ({ name: "kind", type: "enum", enum: values })
      const must = text("must", { required: true })
      const v1 = version("v1", [kind("p", "q"), text("t"), text("u"), must])
      yield* apply(v1)
      yield* apply(
        version("v2", [kind("p"), text("t", { required: true }), text("u", { unique: true }), must, text("alone")])
      )
      expect(yield* Effect.exit(put("lifted_v1", { kind: "q", t: "1", must: "x" }))).toMatchObject({ _tag: "Failure" })
      expect(yield* remove("v2")).toEqual({ _tag: "Done" })
      const lifted = yield* apply(v1)
      expect(lifted).toMatchObject({ _tag: "Applied", why: [] })
      expect([...lifted.steps].sort()).toEqual(["remove enum of kind in v2", "remove unique u", "t is optional"])
      yield* sound(v1)
      for (const _ of [1, 2]) yield* put("lifted_v1", { kind: "q", u: "same", must: "x" })
      // a field of both, which the owner lets go when the other is gone: nobody gives it a value any more
      const without = version("v1", [kind("p", "q"), text("t"), text("u")])
      expect((yield* apply(without)).why).toEqual(["must is no longer a field of v1"])
      yield* put("lifted_v1", {})
      yield* sound(without)
      // nobody loosened anything: there is nothing to lift, and nothing is served anew
      yield* apply(version("v3", [kind("p", "q")]))
      const generation = "select generation::text as generation from platform.schema_defs where path like '%/lifted/v1'"
      expect(yield* remove("v3")).toEqual({ _tag: "Done" })
      const [before] = yield* look(generation)
      expect((yield* apply(without))._tag).toBe("Unchanged")
      expect(yield* look(generation)).toEqual([before])
    })
  )

  it.effect("that are on their way out while replicas lag hold up no change of the owner, and may come back", () =>
    Effect.gen(function* () {
      const { apply, look, put, remove, sound, version } = yield* prepared("lags")
      const said = look("select platform.registry_ack('lagging', id, generation, null) from platform.schema_defs")
      const bee = text("bee", { renamedFrom: ["b"] })
      const v2 = version("v2", [text("a"), bee, text("c")])
      yield* apply(version("v1", [text("a"), text("b"), text("c")]))
      yield* apply(v2)
      yield* said
      yield* look("select platform.registry_ack('lagging', null, null, null)")
      expect(yield* remove("v2")).toEqual({ _tag: "Waits", for: ["lagging"] })
      expect(yield* refusalOf(remove("v1"))).toBe("HasFaces")
      // its view is there still, and holds the columns
      const v1 = version("v1", [text("a"), text("bb", { renamedFrom: ["b"] })])
      expect((yield* apply(v1)).why).toEqual(["rename b to bb", "c is no longer a field of v1"])
      yield* put("lags_v1", { a: "1", bb: "2" })
      yield* apply(v2)
      yield* sound(v1, v2)
      expect(yield* remove("v2")).toEqual({ _tag: "Waits", for: ["lagging"] })
      yield* said
      expect(yield* remove("v2")).toEqual({ _tag: "Done" })
      yield* sound(v1)
      expect(yield* remove("v1")).toEqual({ _tag: "Waits", for: ["lagging"] })
      expect(yield* refusalOf(apply(v2))).toBe("VersionMissing")
      yield* said
      expect(yield* remove("v1")).toEqual({ _tag: "Done" })
      expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
      yield* look("delete from platform.replicas")
      yield* apply(v1)
      yield* apply(v2)
      yield* sound(v1, v2)
    })
  )

  it.effect("are tables of their own where that is said", () =>
    Effect.gen(function* () {
      const { apply, put, rows, sound, version } = yield* prepared("apart")
      const v1 = version("v1", [text("a")])
      const v2 = version("v2", [{ name: "a", type: "integer" }], { sharesRowsWith: "none" })
      const v3 = version("v3", [{ name: "a", type: "integer" }, text("b")])
      yield* apply(v1)
      expect(yield* apply(v2)).toMatchObject({ pgTable: "apart_v2", rowsOf: undefined })
      expect(yield* apply(v3)).toMatchObject({ pgTable: "apart_v3", rowsOf: "apart_v2" })
      yield* sound(v1, v2, v3)
      yield* put("apart_v3", { a: 1 })
      expect(yield* rows("apart_v1", "a")).toEqual([])
      expect(yield* rows("apart_v2", "a::text")).toEqual([{ a: "1" }])
    })
  )

  it.effect("find records by the table's indexes, and walk them in order", () =>
    Effect.gen(function* () {
      const { apply, look, schema, sql, version } = yield* prepared("indexed")
      yield* apply(version("v1", [text("a", { unique: true }), text("b", { indexed: true })]))
      yield* apply(
        version("v2", [text("bee", { renamedFrom: ["b"], indexed: true }), text("code", { renamedFrom: ["a"] })])
      )
      yield* look(
        `insert into ${schema}.indexed_v1 (id, created_at, created_by, updated_at, updated_by, a, b)
         select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || i, 'b' || i from generate_series(1, 5000) i`
      )
      yield* look(`analyze ${schema}.indexed_v1`)
      const plan = (select: string) =>
        sql.transaction((tx) =>
          asOwner(tx, schema, (owner) =>
            Effect.map(owner.query(statement(`explain (costs off) ${select}`)), ({ rows }) =>
              rows.map((row) => String(row["QUERY PLAN"])).join("\n")
            )
          )
        )
      const from = `from ${schema}.indexed_v2 where deleted_at is null`
      for (const select of [
        `select * ${from} and code = 'a7'`,
        `select * ${from} and bee = 'b7'`,
        `select * ${from} order by bee, id limit 5`,
        `select * ${from} and id = '00000000-0000-7000-8000-000000000001' for no key update`
      ]) {
        expect(yield* plan(select), select).toMatch(/Index|Bitmap/u)
        expect(yield* plan(select), select).not.toMatch(/Seq Scan|Sort|Subquery Scan/u)
      }
    })
  )

  it.effect("are one in what refers to them", () =>
    Effect.gen(function* () {
      const { apply, define, look, schema, sound, version } = yield* prepared("target")
      const v1 = version("v1", [text("a")])
      const v2 = version("v2", [text("a"), { name: "up", type: "ref", ref: { object: "target", version: "v2" } }])
      yield* apply(v1)
      yield* apply(v2)
      const child = define({
        object: "child",
        fields: [{ name: "to", type: "ref", ref: { object: "target", version: "v2" } }]
      })
      yield* apply(child)
      yield* sound(v1, v2, child)
      const keys = yield* look(
        `select conrelid::regclass::text as at, confrelid::regclass::text as points from pg_constraint where contype = 'f' and connamespace = '${schema}'::regnamespace order by 1`
      )
      expect(keys.map((row) => [row.at, row.points])).toEqual([
        [`${schema}.child_v1`, `${schema}.target_v1`],
        [`${schema}.target_v1`, `${schema}.target_v1`]
      ])
    })
  )

  it.effect("are repaired where somebody changed a view by hand, whichever version looks", () =>
    Effect.gen(function* () {
      const { apply, chain, look, schema, sound, sql, version } = yield* prepared("drifts")
      const v1 = version("v1", [text("a")])
      const v2 = version("v2", [text("b", { renamedFrom: ["a"] })])
      yield* apply(v1)
      yield* apply(v2)
      const view = `${schema}.drifts_v2`
      /** What is done, which version then looks, what the isolation check says; and what undoes it, where a person must. */
      const harms: ReadonlyArray<readonly [string, string, string, string?]> = [
        // its owner's rights would be asked for, and his policy lets him see every row
        [`alter view ${view} set (security_invoker = false)`, "v1", "unexpected_object"],
        [`drop view ${view}`, "v1", ""],
        [`grant delete on ${view} to ${schema}_admin`, "v2", "tenant_privilege"],
        [`drop view ${view}_history`, "v2", ""],
        [
          `alter view ${view} alter column b set default 'x'`,
          "v2",
          "unexpected_default",
          `alter view ${view} alter column b drop default`
        ],
        [
          `create rule hole as on delete to ${view} do instead nothing`,
          "v1",
          "unexpected_object unexpected_rule",
          `drop rule hole on ${view}`
        ],
        [
          `create view ${view}_more with (security_invoker = true) as select id, a from ${schema}.drifts_v1`,
          "v1",
          "unexpected_object",
          `drop view ${view}_more`
        ]
      ]
      for (const [harm, by, told, undo] of harms) {
        yield* look(harm)
        const codes = new Set((yield* IsolationCheck.check()).map((one) => one.code))
        expect([...codes].join(" "), harm).toBe(told)
        if (undo !== undefined) {
          yield* look(undo)
          continue
        }
        const found = yield* sql.transaction((tx) => Drift.find(tx, `${chain}/drifts/${by}`))
        expect(found.differences.join(), harm).toContain("view drifts_v2")
        const repaired = yield* sql.transaction((tx) => Drift.repair(tx, `${chain}/drifts/${by}`, "operator/folder"))
        expect(repaired.differences).toEqual([])
        yield* sound(v1, v2)
      }
    })
  )

  it.effect("whatever they are and in whatever order they come, leave what both want", () =>
    Effect.gen(function* () {
      const world = yield* prepared("any")
      let count = 0
      const field = fc.record({
        type: fc.constantFrom("string", "integer", "boolean", "bytes"),
        required: fc.boolean(),
        indexed: fc.boolean()
      })
      const made = fc.tuple(
        fc.array(field, { minLength: 1, maxLength: 5 }),
        fc.array(fc.constantFrom("keep", "rename", "leave", "keep"), { minLength: 5, maxLength: 5 }),
        fc.array(field, { maxLength: 2 }),
        fc.boolean()
      )
      const samples = fc.sample(made, { numRuns: 12, seed: 20261125 })
      const defaults: Record<string, unknown> = { string: "-", integer: "1", boolean: true, bytes: "AA==" }
      for (const [fields, fates, added, later] of samples) {
        const object = `any${count++}`
        const of = (one: (typeof fields)[number], name: string) => ({
          ...one,
          name,
          indexed: one.indexed && one.type !== "bytes",
          default: defaults[one.type]
        })
        const first = fields.map((one, index) => of(one, `f${index}`))
        const second = [
          ...first.flatMap((one, index) =>
            fates[index] === "leave"
              ? []
              : fates[index] === "rename"
                ? [{ ...one, name: `g${index}`, renamedFrom: [one.name] }]
                : [one]
          ),
          ...added.map((one, index) => of(one, `new${index}`)),
          text("always")
        ]
        const v1 = world.define({ object, version: "v1", fields: first })
        const v2 = world.define({ object, version: "v2", fields: second })
        for (const one of later ? [v2, v1] : [v1, v2]) yield* world.apply(one)
        yield* world.sound(v1, v2)
        // written through one and seen through the other, under every name
        yield* world.put(`${object}_v1`, {})
        yield* world.put(`${object}_v2`, {})
        expect((yield* world.rows(`${object}_v1`, "id")).length).toBe(2)
        expect(yield* world.rows(`${object}_v1`, "id")).toEqual(yield* world.rows(`${object}_v2`, "id"))
      }
    })
  )
})
