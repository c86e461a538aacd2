/**
 * That filters use indexes under row-level security, as the domain's reader, for each operator and each shape of policy:
 * the statements are those that the API makes. With row filters only operators that are leakproof may use an index of
 * their own, and the filter itself always does.
 */
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import type { ExactValue } from "../../src/domain/ExactJson.ts"
import { parse } from "../../src/domain/ExactJson.ts"
import type { ServedDefinition } from "../../src/domain/ServedDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { orderOf, orderSql, QueryFaults, whereSql } from "../../src/records/read/QuerySql.ts"
import { enterFor } from "../../src/records/type/Entering.ts"
import { compile } from "../../src/records/type/RecordType.ts"
import { rowFilterSql } from "../../src/records/type/RowFilterSql.ts"
import { callerOf } from "../records/World.ts"
import { connect, withDatabase } from "../support/Database.ts"
import { makeWorld } from "./World.ts"

const fields = [
  { name: "code", type: "string", required: true, unique: true },
  { name: "title", type: "string", indexed: true },
  { name: "store", type: "string", indexed: true },
  { name: "amount", type: "integer", indexed: true },
  { name: "price", type: "number", precision: 12, scale: 2, indexed: true },
  { name: "day", type: "date", indexed: true },
  { name: "at", type: "timestamp", indexed: true },
  { name: "token", type: "uuid", indexed: true },
  { name: "state", type: "enum", enum: ["draft", "sent", "rare"], indexed: true },
  { name: "parent", type: "ref", indexed: true, ref: { object: "OBJECT", version: "v1" } }
]

const rows = 4_000

const fill = (table: string) =>
  `insert into ${table} (id, created_at, created_by, updated_at, updated_by, code, title, store, amount, price, day, at, token, state)
   select gen_random_uuid(), now(), 'x', now(), 'x', 'c' || lpad(n::text, 6, '0'), 'title ' || lpad(n::text, 6, '0'), 's' || n % 200, n, n + 0.25,
     date '2000-01-01' + n, timestamptz '2000-01-01Z' + make_interval(hours => n), lpad(to_hex(n), 32, '0')::uuid,
     case when n % 1000 = 0 then 'rare' when n % 2 = 0 then 'draft' else 'sent' end
   from generate_series(1, ${rows}) as n`

type Leaf = readonly [field: string, op: string, value: unknown]

const everyOperator: ReadonlyArray<Leaf> = [
  ["code", "eq", "c000007"],
  ["code", "in", ["c000007", "c000008"]],
  ["title", "eq", "title 000007"],
  ["title", "lt", "title 000020"],
  ["title", "lte", "title 000020"],
  ["title", "gt", "title 003990"],
  ["title", "gte", "title 003990"],
  ["title", "between", ["title 000007", "title 000009"]],
  ["title", "like", "title 00000*"],
  ["title", "is_null", true],
  ["amount", "eq", 7],
  ["amount", "in", [7, 8]],
  ["amount", "lt", 20],
  ["amount", "gte", 3990],
  ["amount", "between", [7, 9]],
  ["price", "eq", 7.25],
  ["price", "in", [7.25, 8.25]],
  ["price", "gt", 3990],
  ["price", "between", [7, 9]],
  ["day", "eq", "2000-01-08"],
  ["day", "lt", "2000-01-20"],
  ["at", "gt", "2000-06-15T00:00:00Z"],
  ["token", "eq", "00000000-0000-0000-0000-000000000007"],
  ["state", "eq", "rare"],
  ["parent", "eq", "00000000-0000-0000-0000-000000000007"]
]

/** Leakproof in PostgreSQL: a policy's conditions need not run first. */
const leakproof = everyOperator.filter(([field, op]) => field !== "price" && op !== "like")

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("filters under row-level security", (it) => {
  const prepare = (object: string, access: Record<string, unknown>) =>
    Effect.gen(function* () {
      const { apply, chain, database, define, domain, look, schema } = yield* makeWorld
      yield* domain()
      const spec = define({
        object,
        fields: fields.map((field) => (field.type === "ref" ? { ...field, ref: { object, version: "v1" } } : field)),
        access
      })
      const { generation, pgTable } = yield* apply(spec)
      const table = `${schema}.${pgTable}`
      yield* look(fill(table))
      yield* look(`analyze ${table}`)
      const [row] = yield* look("select id, storage_id from platform.schema_defs where path = $1", [
        `${chain}/${object}/v1`
      ])
      const def: ServedDefinition = {
        id: Number(row?.id),
        path: `${chain}/${object}/v1`,
        chain,
        storage: `${chain}/${object}`,
        storageId: Number(row?.storage_id),
        generation,
        pgSchema: schema,
        pgTable,
        spec,
        foreignKeys: ["parent"]
      }
      const type = compile(def)
      /** The plan of a list, as one text. */
      const plan = (
        leaf: Leaf | undefined,
        roles: ReadonlyArray<string>,
        attributes: Record<string, string> = {},
        sort?: ReadonlyArray<string>
      ) =>
        Effect.scoped(
          Effect.gen(function* () {
            const caller = callerOf(roles, attributes)
            const faults = new QueryFaults()
            const params: Array<unknown> = []
            const bind = (value: unknown) => `$${params.push(value)}`
            const projection = type.projection(roles)
            const conditions = ["t.deleted_at is null"]
            if (leaf !== undefined) {
              const [field, op, value] = leaf
              const where = { field, op: op as "eq", value: parse(JSON.stringify(value)) as ExactValue }
              conditions.push(whereSql(type, projection, where, "t", bind, "body", faults))
            }
            const filter = rowFilterSql(
              type.rowFilter("read", roles),
              (one) => `t.${one.column}`,
              (value) => bind(value(caller))
            )
            if (filter !== undefined) conditions.push(filter)
            const order = orderOf(
              type,
              projection,
              (sort ?? []).map((field) => ({ field, descending: false })),
              faults
            )
            expect(faults).toEqual(new QueryFaults())
            const connection = yield* connect(database.apiUrl)
            const enter = enterFor(type, caller, "read")
            yield* connection.query("begin")
            yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
              enter.role,
              enter.ctx
            ])
            // whether an index may serve, and not what the planner thinks of it: under row-level security it knows nothing of
            // the values that an operator which is not leakproof compares (PostgreSQL, statistic_proc_security_check)
            if (sort === undefined) yield* connection.query("set local enable_seqscan = off")
            const { rows: lines } = yield* connection.query(
              `explain (costs off) select t.id from ${type.table} t where ${conditions.join(" and ")}${sort === undefined ? "" : ` order by ${orderSql(order, "t")} limit 50`}`,
              params
            )
            yield* connection.query("rollback")
            return lines.map((line) => String(line["QUERY PLAN"])).join("\n")
          })
        )
      return { plan }
    })

  it.effect("use their index for every operator where there are no row filters", () =>
    Effect.gen(function* () {
      const { plan } = yield* prepare("open", { roles: [{ role: "buyer", operations: ["create", "read"] }] })
      const missed: Array<string> = []
      for (const leaf of everyOperator) {
        const text = yield* plan(leaf, ["buyer"])
        if (!/Index (?:Only )?Cond:/u.test(text)) missed.push(`${leaf.join(" ")}\n${text}`)
      }
      expect(missed).toEqual([])
    })
  )

  it.effect("sort by an index, and by id without one of their own", () =>
    Effect.gen(function* () {
      const { plan } = yield* prepare("sorted", { roles: [{ role: "buyer", operations: ["read"] }] })
      for (const sort of [[], ["title"], ["amount"], ["price"], ["at"], ["state"]]) {
        const text = yield* plan(undefined, ["buyer"], {}, sort)
        expect(text).toMatch(/Index (?:Only )?Scan using/u)
        expect(text).not.toMatch(/^ *(?:->)? *Sort/mu)
      }
    })
  )

  const roles = [
    { role: "buyer", operations: ["create", "read", "update"] },
    { role: "store", operations: ["read"] },
    { role: "seller", operations: ["read", "update"] }
  ]

  it.effect("use the filter's own index for a caller who sees his rows alone, and theirs for one who sees all", () =>
    Effect.gen(function* () {
      const { plan } = yield* prepare("filtered", {
        roles,
        rowFilters: [
          { role: "store", filter: { field: "store", op: "eq", identity: "attributes.store" } },
          { role: "seller", filter: { field: "amount", op: "lt", value: 40 } }
        ]
      })
      const missed: Array<string> = []
      for (const leaf of leakproof) {
        const text = yield* plan(leaf, ["buyer"])
        if (!/Index Cond:/u.test(text)) missed.push(`buyer ${leaf.join(" ")}\n${text}`)
      }
      expect(missed).toEqual([])
      expect(yield* plan(["title", "eq", "x"], ["store"], { store: "s7" })).toMatch(/Index Cond:.*(?:store|title)/u)
      expect(yield* plan(undefined, ["seller"])).toMatch(/Index Cond: \(amount </u)
      // the policy's own questions are asked once for a statement
      expect(yield* plan(undefined, ["store"], { store: "s7" })).toMatch(/InitPlan/u)
    })
  )
})
