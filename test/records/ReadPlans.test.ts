/** What Postgres makes of the statements: the plans of those that are sent, under the role that sends them. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { type Enter, type Statement, TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import type { Answer } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { idAt, makeReadWorld, pageOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

/** The bundles that were sent. */
const sent: Array<readonly [Enter, ReadonlyArray<Statement>]> = []
const Watched = Layer.effect(
  TenantTx,
  Effect.map(TenantTx, (real) =>
    TenantTx.of({
      bundle: (enter, statements, end) => {
        sent.push([enter, statements])
        return real.bundle(enter, statements, end)
      },
      run: real.run
    })
  )
).pipe(Layer.provide(TenantTx.layer))

const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provide(GatewayTx.layer), Layer.provideMerge(Watched)))

interface Node {
  readonly "Node Type": string
  readonly "Index Cond"?: string
  readonly "Index Name"?: string
  readonly "Relation Name"?: string
  readonly "Actual Rows": number
  readonly "Actual Loops": number
  readonly Plans?: ReadonlyArray<Node>
}
const nodes = (node: Node): ReadonlyArray<Node> => [node, ...(node.Plans ?? []).flatMap(nodes)]

const roles = [
  { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] },
  { role: "store", operations: ["read"] }
]
const admin = callerOf(["admin"])
const store = callerOf(["store"], { store_id: "s7" })

layer(Live, { excludeTestServices: true })("plans", (it) => {
  const prepared = (domain: string, { analysed = true }: { readonly analysed?: boolean } = {}) =>
    Effect.gen(function* () {
      const here = yield* makeReadWorld(
        [
          {
            object: "thing",
            fields: [
              { name: "code", type: "string", unique: true },
              { name: "rank", type: "integer", indexed: true },
              { name: "store_id", type: "string", indexed: true },
              { name: "parent", type: "ref", indexed: true, ref: { object: "thing", version: "v1" } }
            ],
            access: {
              roles,
              rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
            }
          }
        ],
        domain
      )
      const { table } = here.type("thing")
      yield* here.sql(
        `insert into ${table} (id, created_at, updated_at, created_by, updated_by, code, rank, store_id)
           select ('01930000-0000-7000-8000-' || lpad(to_hex(n), 12, '0'))::uuid, now(), now(), 'x', 'x', 'c' || n, n % 100, 's' || n % 500
           from generate_series(1, 20000) n`
      )
      yield* here.sql(`update ${table} set parent = '${idAt(1)}' where id > '${idAt(19_000)}'`)
      // as provisioning makes them
      for (const column of ["rank", "store_id", "parent"])
        yield* here.sql(
          `create index on ${table} (${column}, id)${column === "parent" ? "" : " where deleted_at is null"}`
        )
      if (analysed) yield* here.sql(`vacuum analyze ${table}`)
      const tenant = yield* TenantTx
      /** The plan of the last statement of what was just asked, carried out; `generic` as after several executions. */
      const plan = (generic: boolean) =>
        Effect.gen(function* () {
          const [enter, statements] = sent.at(-1) ?? assert.fail("nothing was sent")
          const { params, sql } = statements.at(-1) ?? assert.fail("nothing was sent")
          const results = yield* tenant.bundle(enter, [
            {
              sql: `select set_config('plan_cache_mode', '${generic ? "force_generic_plan" : "force_custom_plan"}', true)`,
              params: []
            },
            { sql: `explain (analyze, format json) ${sql}`, params }
          ])
          const [told] = Object.values(results[1]?.rows[0] ?? {})
          const [{ Plan }] = (typeof told === "string" ? JSON.parse(told) : told) as [{ Plan: Node }]
          return nodes(Plan)
        })
      return { here, plan }
    })
  const rowsRead = (all: ReadonlyArray<Node>) =>
    all
      .filter((node) => node["Relation Name"] !== undefined)
      .reduce((sum, node) => sum + node["Actual Rows"] * node["Actual Loops"], 0)

  it.effect.each([
    ["analysed", true],
    ["imported and never analysed", false]
  ] as const)(
    "the default list of a table %s walks the primary key: no sort, no more rows than the page",
    ([, analysed]) =>
      Effect.gen(function* () {
        const { here, plan } = yield* prepared(analysed ? "walk" : "imported", { analysed })
        for (const generic of [false, true]) {
          const first = pageOf(yield* here.list("thing", admin))
          let all = yield* plan(generic)
          assert.notInclude(
            all.map((node) => node["Node Type"]),
            "Sort"
          )
          assert.isAtMost(rowsRead(all), 51)
          yield* here.list("thing", admin, { cursor: first.next_cursor ?? "" })
          all = yield* plan(generic)
          assert.notInclude(
            all.map((node) => node["Node Type"]),
            "Sort"
          )
          assert.isAtMost(rowsRead(all), 51)
          assert.isTrue(all.some((node) => /id >/.test(node["Index Cond"] ?? "")))
        }
      })
  )

  it.effect("an indexed sort, a filter, a row filter and a get are served by their index", () =>
    Effect.gen(function* () {
      const { here, plan } = yield* prepared("index")
      for (const sort of ["rank", "-rank"]) {
        let cursor: string | null = null
        for (let page = 0; page < 6; page++) {
          const answer: Answer = yield* here.list("thing", admin, {
            sort,
            limit: "250",
            ...(cursor === null ? {} : { cursor })
          })
          cursor = pageOf(answer).next_cursor
          const all = yield* plan(page % 2 === 0)
          assert.notInclude(
            all.map((node) => node["Node Type"]),
            "Sort"
          )
          assert.isAtMost(rowsRead(all), 251)
        }
      }
      yield* here.list("thing", admin, { "filter[code][eq]": "c77" })
      assert.isAtMost(rowsRead(yield* plan(true)), 1)
      yield* here.list("thing", store)
      assert.isAtMost(rowsRead(yield* plan(false)), 51)
      yield* here.get("thing", admin, idAt(5))
      const all = yield* plan(true)
      assert.isTrue(all.some((node) => /Index Scan|Index Only Scan/.test(node["Node Type"])))
      assert.strictEqual(rowsRead(all), 1)
    })
  )

  it.effect("includes are part of the one statement, and each row of the page looks up its own", () =>
    Effect.gen(function* () {
      const { here, plan } = yield* prepared("include")
      const before = sent.length
      yield* here.list("thing", admin, { "filter[parent][eq]": idAt(1), include: "parent", limit: "20" })
      assert.strictEqual(sent.length, before + 1)
      assert.strictEqual(sent.at(-1)?.[1].length, 1)
      assert.isAtMost(rowsRead(yield* plan(false)), 2500)
      yield* here.list("thing", admin, { include: "thing.parent", limit: "3" })
      assert.strictEqual(sent.length, before + 2 + 1)
      // the thousand that refer to the first, and no other
      assert.isAtMost(rowsRead(yield* plan(false)), 1010)
    })
  )

  it.effect("a shape is one text: values, pages and lists of any length are parameters", () =>
    Effect.gen(function* () {
      const { here } = yield* prepared("shape")
      const texts = new Set<string>()
      const asked = (params: Record<string, string>, who = admin) =>
        Effect.map(here.list("thing", who, params), (answer) => {
          texts.add(sent.at(-1)?.[1].at(-1)?.sql ?? "")
          return pageOf(answer).next_cursor
        })
      for (const list of ["1", "1,2", "1,2,3,4,5,6"]) yield* asked({ "filter[rank][in]": list })
      for (const limit of ["20", "33", "50"]) yield* asked({ "filter[rank][in]": "7", limit })
      assert.strictEqual(texts.size, 1)
      texts.clear()
      let cursor: string | null = yield* asked({ limit: "40" })
      texts.clear()
      for (let page = 0; page < 4 && cursor !== null; page++) cursor = yield* asked({ limit: "40", cursor })
      assert.strictEqual(texts.size, 1)
      texts.clear()
      for (const [attribute, id] of [
        ["s1", 1],
        ["s2", 2]
      ] as const) {
        yield* here.get("thing", callerOf(["admin"], { store_id: attribute }), idAt(id))
        texts.add(sent.at(-1)?.[1].at(-1)?.sql ?? "")
      }
      assert.strictEqual(texts.size, 1)
      assert.notInclude([...texts][0], "s1")
    })
  )
})
