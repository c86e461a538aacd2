/** What row filters admit under the domain's roles, with nobody but Postgres to ask: the API's own conditions left out. */
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { policiesOf } from "../../src/provisioning/table/Policies.ts"
import { connect, withDatabase } from "../support/Database.ts"
import { definition, makeWorld } from "./World.ts"

const fields = [
  { name: "name", type: "string" },
  { name: "n", type: "integer" },
  { name: "price", type: "number", precision: 10, scale: 2 },
  { name: "owner", type: "uuid" },
  { name: "day", type: "date" },
  { name: "open", type: "boolean" }
]

const mine = "00000000-0000-0000-0000-00000000000a"

/** A role for each kind of filter, and which of the names a to d it sees. */
const filters: ReadonlyArray<
  readonly [role: string, filter: Record<string, unknown>, attributes: Record<string, unknown>, sees: string]
> = [
  ["eq-text", { field: "name", op: "eq", identity: "attributes.name" }, { name: "b" }, "b"],
  ["eq-text-missing", { field: "name", op: "eq", identity: "attributes.name" }, {}, ""],
  ["eq-text-list", { field: "name", op: "eq", identity: "attributes.name" }, { name: ["a", "b"] }, ""],
  ["neq-text-list", { field: "name", op: "neq", identity: "attributes.name" }, { name: ["a"] }, ""],
  ["neq-missing", { field: "name", op: "neq", identity: "attributes.name" }, {}, ""],
  ["in-list", { field: "name", op: "in", identity: "attributes.names" }, { names: ["a", "d"] }, "ad"],
  ["in-one", { field: "name", op: "in", identity: "attributes.names" }, { names: "c" }, "c"],
  ["in-none", { field: "name", op: "in", identity: "attributes.names" }, {}, ""],
  ["in-values", { field: "name", op: "in", values: ["a", "it's"] }, {}, "a"],
  ["int", { field: "n", op: "lte", identity: "attributes.n" }, { n: "2" }, "ab"],
  ["int-malformed", { field: "n", op: "lte", identity: "attributes.n" }, { n: "two" }, ""],
  ["int-literal", { field: "n", op: "gt", value: 2 }, {}, "cd"],
  ["int-in", { field: "n", op: "in", identity: "attributes.n" }, { n: ["1", "x", "4"] }, "ad"],
  ["price", { field: "price", op: "eq", value: "2.50" }, {}, "b"],
  ["price-exact", { field: "price", op: "lt", identity: "attributes.p" }, { p: "2.5000000001" }, "ab"],
  ["uuid", { field: "owner", op: "eq", identity: "attributes.id" }, { id: mine }, "a"],
  ["uuid-malformed", { field: "owner", op: "eq", identity: "attributes.id" }, { id: "no" }, ""],
  ["date", { field: "day", op: "gte", value: "2026-01-03" }, {}, "cd"],
  ["bool", { field: "open", op: "eq", value: true }, {}, "ac"],
  ["null", { field: "owner", op: "is_null", value: true }, {}, "bcd"],
  ["not-null", { field: "owner", op: "is_null", value: false }, {}, "a"],
  ["contains", { field: "name", op: "contains", identity: "attributes.part" }, { part: "b" }, "b"],
  ["actor", { field: "name", op: "eq", identity: "actor" }, {}, "d"]
]

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("policies", (it) => {
  it.effect(
    "admit exactly the rows of a filter, whatever the caller's attributes are, in the table and in history",
    () =>
      Effect.gen(function* () {
        const { apply, chain, database, define, domain, look, schema } = yield* makeWorld
        yield* domain()
        const access = {
          roles: [
            { role: "all", operations: ["create", "read", "history"] },
            { role: "nobody", operations: ["create"] },
            ...filters.map(([role]) => ({ role, operations: ["read", "history"] }))
          ],
          rowFilters: filters.map(([role, filter]) => ({ role, filter }))
        }
        yield* apply(define({ object: "seen", fields, access }))
        const [{ id, storage_id: storage } = {}] = yield* look(
          "select id, storage_id from platform.schema_defs where path = $1",
          [`${chain}/seen/v1`]
        )
        yield* look(
          `insert into ${schema}.seen_v1 (id, created_at, created_by, updated_at, updated_by, name, n, price, owner, day, open) values
         (gen_random_uuid(), now(), 'x', now(), 'x', 'a', 1, 1.50, '${mine}', '2026-01-01', true),
         (gen_random_uuid(), now(), 'x', now(), 'x', 'b', 2, 2.50, null, '2026-01-02', false),
         (gen_random_uuid(), now(), 'x', now(), 'x', 'c', 3, 3.50, null, '2026-01-03', true),
         (gen_random_uuid(), now(), 'x', now(), 'x', 'd', 4, 4.50, null, '2026-01-04', false)`
        )
        yield* look(
          `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, state, hash)
         select gen_random_uuid(), $1, $2::int4, $3::int4, t.id, 1, 'create', now(), 'x', to_jsonb(t), '\\x00' from ${schema}.seen_v1 t`,
          [chain, storage, id]
        )
        const seenBy = (roles: ReadonlyArray<string>, attributes: unknown, op: string, from: string, name: string) =>
          Effect.scoped(
            Effect.gen(function* () {
              const connection = yield* connect(database.apiUrl)
              yield* connection.query("begin")
              yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
                `${schema}_reader`,
                JSON.stringify({ op, def: id, actor: "d", roles, attributes })
              ])
              const { rows } = yield* connection.query(
                `select string_agg(${name}, '' order by ${name}) as names from ${schema}.${from}`
              )
              yield* connection.query("rollback")
              return String(rows[0]?.names ?? "")
            })
          )
        const both = (roles: ReadonlyArray<string>, attributes: unknown) =>
          Effect.all([
            seenBy(roles, attributes, "read", "seen_v1", "name"),
            seenBy(roles, attributes, "history", "seen_v1_history", "state ->> 'name'")
          ])
        const found: Record<string, ReadonlyArray<string>> = {}
        const wanted: Record<string, ReadonlyArray<string>> = {}
        for (const [role, , attributes, sees] of filters) {
          wanted[role] = [sees, sees]
          found[role] = yield* both([role], attributes)
        }
        expect(found).toEqual(wanted)
        expect(yield* both(["all"], {})).toEqual(["abcd", "abcd"])
        expect(yield* both([], {})).toEqual(["", ""])
        // union of granting roles; a role that does not grant the operation widens nothing
        expect(yield* both(["int-literal", "eq-text", "nobody"], { name: "a" })).toEqual(["acd", "acd"])
        expect(yield* both(["nobody"], {})).toEqual(["", ""])
      })
  )

  it.effect("are true where there are no row filters, and tell operations apart where there are", () =>
    Effect.sync(() => {
      const roles = [
        { role: "buyer", operations: ["create", "read", "update"] },
        { role: "store", operations: ["read", "delete"] }
      ]
      expect(policiesOf(definition("o", { fields, access: { roles } }), 7)).toEqual({
        select: "true",
        insert: "true",
        update: "true"
      })
      const rowFilters = [{ role: "store", filter: { field: "name", op: "eq", value: "it's" } }]
      expect(policiesOf(definition("o", { fields, access: { roles, rowFilters } }), 7)).toMatchSnapshot()
    })
  )
})
