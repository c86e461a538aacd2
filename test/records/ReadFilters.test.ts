/** Row filters by type, operator and attribute: said by policies and API, and by each of the two alone. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Attributes } from "../../src/domain/Identity.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { idAt, makeReadWorld, pageOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(TenantTx.layer, GatewayTx.layer))))

const fields = [
  { name: "k", type: "integer", required: true, filterable: true },
  { name: "s", type: "string" },
  { name: "i", type: "integer" },
  { name: "n", type: "number", precision: 20, scale: 2 },
  { name: "b", type: "boolean" },
  { name: "d", type: "date" },
  { name: "t", type: "timestamp" },
  { name: "u", type: "uuid" },
  { name: "e", type: "enum", enum: ["x", "y"] },
  { name: "by", type: "string" }
]
const rows = [
  { s: "a", i: 3, n: 3.5, b: true, d: "2026-01-01", t: "2026-01-01T00:00:00Z", u: idAt(1), e: "x", by: "dev/r" },
  { s: "ab", i: 5, n: -1, b: false, d: "2026-02-01", t: "2026-02-01T00:00:00Z", u: idAt(2), e: "y", by: "dev/q" },
  { s: null, i: null, n: null, b: null, d: null, t: null, u: null, e: null, by: null },
  { s: "a'b\\%", i: 9, n: 100, b: true, d: "2026-03-01", t: "2026-03-01T00:00:00Z", u: idAt(3), e: "x", by: "" }
].map((row, k) => ({ id: idAt(100 + k), k, ...row }))

const of = (field: string, op: string, attribute: Record<string, unknown>) => ({ field, op, ...attribute })
const mine = { identity: "attributes.v" }

/**
 * A filter, the attribute of the caller, and the rows that remain; `wider` where Postgres takes more for a value of the
 * type than we do, so that its policy alone would admit more.
 */
const cases: ReadonlyArray<
  readonly [Record<string, unknown>, string | ReadonlyArray<string> | undefined, string, "wider"?]
> = [
  [of("s", "eq", mine), "a", "0"],
  [of("s", "eq", mine), "a'b\\%", "3"],
  [of("s", "eq", mine), undefined, ""],
  [of("s", "eq", mine), ["a"], ""],
  [of("s", "neq", mine), "a", "13"],
  [of("s", "neq", mine), undefined, ""],
  [of("s", "gt", mine), "a", "13"],
  [of("s", "contains", mine), "b", "13"],
  [of("s", "contains", mine), "%", "3"],
  [of("s", "in", mine), ["a", "ab", "zz"], "01"],
  [of("s", "in", mine), "ab", "1"],
  [of("s", "in", mine), [], ""],
  [of("s", "in", mine), undefined, ""],
  [of("s", "in", { values: ["a", "nobody"] }), undefined, "0"],
  [of("s", "is_null", { value: true }), undefined, "2"],
  [of("s", "is_null", { value: false }), undefined, "013"],
  [of("i", "eq", mine), "3", "0"],
  [of("i", "eq", mine), "abc", ""],
  [of("i", "eq", mine), " 3", "", "wider"],
  [of("i", "eq", mine), "0x3", "", "wider"],
  [of("i", "eq", mine), "3; drop table x", ""],
  [of("i", "neq", mine), "abc", ""],
  [of("i", "lte", mine), "5", "01"],
  [of("i", "lte", mine), "99999999999999999999", ""],
  [of("i", "in", mine), ["5", "x", "9"], "13"],
  [of("n", "gte", mine), "3.4999", "03"],
  [of("n", "lt", mine), "3.5000001", "01"],
  [of("n", "lt", mine), "NaN", "", "wider"],
  [of("n", "lt", mine), "Infinity", "", "wider"],
  [of("b", "eq", mine), "true", "03"],
  [of("b", "eq", mine), "yes", "", "wider"],
  [of("b", "eq", { value: false }), undefined, "1"],
  [of("d", "lt", mine), "2026-02-01", "0"],
  [of("d", "lt", mine), "tomorrow", "", "wider"],
  [of("t", "gte", mine), "2026-02-01T01:00:00+01:00", "13"],
  [of("t", "gte", mine), "now", "", "wider"],
  [of("u", "eq", mine), idAt(2), "1"],
  [of("u", "eq", mine), "2", ""],
  [of("u", "in", mine), [idAt(1), "2", idAt(3)], "03"],
  [of("e", "eq", { value: "x" }), undefined, "03"],
  [of("e", "neq", mine), "x", "1"],
  [of("by", "eq", { identity: "actor" }), undefined, "0"]
]

layer(Live, { excludeTestServices: true })("row filters", (it) => {
  it.effect("compare by the field's type, and admit nothing for what is no value of it", () =>
    Effect.gen(function* () {
      const operations = ["read", "history"]
      const extra: ReadonlyArray<readonly [string, Record<string, unknown>]> = [
        ["several", of("i", "gte", { value: "5" })],
        ["several", of("b", "eq", { value: true })],
        ["five", of("i", "gte", { value: "5" })],
        ["true", of("b", "eq", { value: true })],
        ["born", of("s", "neq", { identity: "attributes.constructor" })]
      ]
      // a definition has at most 32 roles
      const half = Math.ceil(cases.length / 2)
      const definition = (object: string, from: number, more: typeof extra) => {
        const filters = cases.slice(from, from + half).map(([filter], n) => [`r${from + n}`, filter] as const)
        const rowFilters = [...filters, ...more].map(([role, filter]) => ({ role, filter }))
        const roles = [...new Set([...rowFilters.map(({ role }) => role), "free"])].map((role) => ({
          role,
          operations
        }))
        return { object, fields, access: { roles, rowFilters } }
      }
      const here = yield* makeReadWorld([definition("one", 0, extra), definition("two", half, [])])
      for (const object of ["one", "two"]) yield* here.put(object, rows)
      const seen = (object: string, roles: ReadonlyArray<string>, attributes: Attributes) =>
        Effect.gen(function* () {
          const caller = callerOf(roles)
          const who = { ...caller, identity: { ...caller.identity, actor: "dev/r", attributes } }
          const page = pageOf(yield* here.list(object, who, { sort: "k", count: "exact" }))
          assert.strictEqual(page.count, page.items.length)
          // one at a time as well
          const found: Array<unknown> = []
          for (const { id, k } of rows) {
            const status = yield* Effect.match(here.get(object, who, id), {
              onSuccess: () => 200,
              onFailure: () => 404
            })
            if (status === 200) found.push(k)
          }
          assert.deepStrictEqual(
            page.items.map((item) => item.k),
            found
          )
          return found.join("")
        })
      const all = (by: "both" | "policies" | "api") =>
        Effect.gen(function* () {
          for (const [n, [filter, attribute, wanted, wider]] of cases.entries()) {
            const found = yield* seen(
              n < half ? "one" : "two",
              [`r${n}`],
              attribute === undefined ? {} : { v: attribute }
            )
            if (wider === undefined || by !== "policies") {
              assert.strictEqual(found, wanted, `${by}: ${JSON.stringify([filter, attribute])}`)
            }
          }
          // filters of one role are ANDed, those of several roles are a union, a role without one sees everything
          assert.strictEqual(yield* seen("one", ["several"], {}), "3")
          assert.strictEqual(yield* seen("one", ["five", "true"], {}), "013")
          assert.strictEqual(yield* seen("one", ["five", "free"], {}), "0123")
          assert.strictEqual(yield* seen("one", ["five", "other"], {}), "13")
          // names that objects have from birth are no attributes
          assert.strictEqual(yield* seen("one", ["born"], {}), "")
        })
      yield* all("both")
      const types = ["one", "two"].map((object) => here.type(object))
      for (const type of types) here.types.set(type.path, { ...type, rowFilter: () => ({ _tag: "All" }) })
      yield* all("policies")
      for (const type of types) {
        here.types.set(type.path, type)
        yield* here.sql(`alter policy velocity_select on ${type.table} using (true)`)
      }
      yield* all("api")
    })
  )

  it.effect("an included type is judged by the roles that the caller has there", () =>
    Effect.gen(function* () {
      const operations = ["create", "read", "update"]
      const access = {
        roles: [
          { role: "a", operations },
          { role: "b", operations }
        ]
      }
      const here = yield* makeReadWorld(
        [
          {
            object: "parent",
            fields: [
              { name: "open", type: "string" },
              { name: "shut", type: "string", access: { read: ["b"] } }
            ],
            access
          },
          { object: "child", fields: [{ name: "up", type: "ref", ref: { object: "parent", version: "v1" } }], access }
        ],
        "narrow"
      )
      yield* here.put("parent", [{ id: idAt(1), open: "o", shut: "s" }])
      yield* here.put("child", [{ id: idAt(2), up: idAt(1) }])
      const read = yield* ReadRecords
      const both = callerOf(["a", "b"])
      const including = (rolesOn: ReadonlyArray<string> | undefined) =>
        Effect.map(
          read.get(here.type("child"), both, {
            ...here.around,
            ...(rolesOn === undefined ? {} : { rolesOn: () => rolesOn }),
            id: idAt(2),
            params: { include: "up", select: "up.open,up.shut,up" }
          }),
          (answer) => JSON.parse(textOf(answer)).up
        )
      assert.deepStrictEqual(yield* including(undefined), { id: idAt(1), open: "o", shut: "s" })
      assert.deepStrictEqual(yield* including(["a"]), { id: idAt(1), open: "o", _masked: { shut: null } })
      assert.isNull(yield* including([]))
      // roles that he does not have here are none that the database would take
      assert.isNull(yield* including(["c"]))
    })
  )
})
