import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { idAt, makeReadWorld, pageOf, refusalOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(TenantTx.layer, GatewayTx.layer))))

const roles = [
  { role: "buyer", operations: ["create", "read", "update"] },
  { role: "store", operations: ["read", "history"] },
  { role: "auditor", operations: ["read", "history"] },
  { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] }
]
const world = (domain: string) =>
  makeReadWorld(
    [
      {
        object: "supplier",
        fields: [
          { name: "name", type: "string", required: true, unique: true },
          { name: "b", type: "integer" },
          {
            name: "iban",
            type: "string",
            sensitivity: "personal",
            mask: { strategy: "partial", unmaskedFor: ["admin"] }
          }
        ],
        access: {
          roles,
          rowFilters: [{ role: "store", filter: { field: "name", op: "eq", value: "seen" } }]
        }
      },
      {
        object: "order",
        fields: [
          { name: "number", type: "string", required: true, indexed: true },
          { name: "supplier", type: "ref", filterable: true, ref: { object: "supplier", version: "v1" } },
          { name: "status", type: "enum", enum: ["draft", "open", "done"], filterable: true },
          {
            name: "price",
            type: "number",
            precision: 30,
            scale: 4,
            filterable: true,
            access: { read: ["admin", "auditor"] }
          },
          { name: "qty", type: "integer", filterable: true },
          { name: "when", type: "timestamp", filterable: true },
          { name: "raw", type: "bytes", filterable: true },
          { name: "at", type: "time", filterable: true },
          { name: "token", type: "uuid", unique: true },
          { name: "extra", type: "json", filterable: true },
          { name: "store_id", type: "string", indexed: true },
          { name: "note", type: "string" }
        ],
        access: {
          roles,
          rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
        }
      },
      {
        object: "line",
        fields: [
          { name: "of", type: "ref", required: true, indexed: true, ref: { object: "order", version: "v1" } },
          { name: "item", type: "ref", ref: { object: "supplier", version: "v1" } },
          { name: "n", type: "integer", filterable: true }
        ],
        access: { roles }
      }
    ],
    domain
  )

const admin = callerOf(["admin"])
const buyer = callerOf(["buyer"])
const store = callerOf(["store"], { store_id: "s1" })

const seeded = (domain: string) =>
  Effect.gen(function* () {
    const here = yield* world(domain)
    yield* here.put("supplier", [
      { id: idAt(1), name: "seen", b: 7, iban: "DE1234567890" },
      { id: idAt(2), name: "unseen", b: 8, iban: "short" },
      { id: idAt(3), name: "gone", deleted_at: "2026-02-01T00:00:00Z" }
    ])
    yield* here.put("order", [
      {
        id: idAt(10),
        number: "b",
        supplier: idAt(1),
        status: "open",
        qty: 3,
        store_id: "s1",
        raw: "\\x00ff",
        at: "13:30:00.5",
        token: idAt(99),
        when: "2026-03-01T10:00:00.123456Z"
      },
      { id: idAt(11), number: "a", supplier: idAt(2), status: "draft", qty: null, store_id: "s2", note: "100%_\\ *" },
      { id: idAt(12), number: "ä", supplier: null, status: "done", qty: 5, store_id: "s1", extra: { a: [1, 2] } },
      {
        id: idAt(13),
        number: "c",
        supplier: null,
        status: "done",
        qty: 5,
        store_id: "s1",
        deleted_at: "2026-02-01T00:00:00Z"
      }
    ])
    yield* here.sql(
      `update "${here.type("order").def.pgSchema}".order_v1 set price = 12345678901234567890.1 where id = $1`,
      [idAt(10)]
    )
    yield* here.put(
      "line",
      Array.from({ length: 130 }, (_, n) => ({
        id: idAt(1000 + n),
        of: idAt(10),
        item: n === 0 ? idAt(2) : idAt(1),
        n
      }))
    )
    return here
  })

layer(Live, { excludeTestServices: true })("ReadRecords", (it) => {
  it.effect("reads one record, exactly, with an ETag of what is seen", () =>
    Effect.gen(function* () {
      const here = yield* seeded("one")
      const answer = yield* here.get("order", admin, idAt(10))
      assert.strictEqual(answer.status, 200)
      assert.include(answer.body, '"price":12345678901234567890.1000')
      assert.include(answer.body, '"raw":"AP8="')
      assert.include(answer.body, '"when":"2026-03-01T10:00:00.123456+00:00"')
      assert.match(answer.headers.etag ?? "", /^"1-[0-9a-f]{8}"$/)
      const again = yield* here.get("order", admin, idAt(10), undefined, answer.headers.etag)
      assert.deepStrictEqual([again.status, again.body], [304, undefined])
      const masked = yield* here.get("order", buyer, idAt(10))
      assert.notStrictEqual(masked.headers.etag, answer.headers.etag)
      const record = JSON.parse(textOf(masked))
      assert.notProperty(record, "price")
      assert.deepStrictEqual(record._masked, { price: null })
      assert.strictEqual((yield* here.get("order", buyer, idAt(10), undefined, answer.headers.etag)).status, 200)
      assert.strictEqual(
        (yield* here.get("order", buyer, idAt(10), undefined, `W/${masked.headers.etag}, "x"`)).status,
        304
      )
      assert.strictEqual((yield* here.get("order", store, idAt(10))).status, 200)
      assert.strictEqual(yield* refusalOf(here.get("order", store, idAt(11))), "404 not_found")
      assert.strictEqual(yield* refusalOf(here.get("order", admin, idAt(13))), "404 not_found")
      assert.strictEqual(yield* refusalOf(here.get("order", admin, "10")), "400 malformed_id")
      assert.strictEqual(
        yield* refusalOf(here.get("order", callerOf(["nobody"]), idAt(10))),
        "403 operation_not_granted"
      )
      const partial = JSON.parse(textOf(yield* here.get("supplier", buyer, idAt(1))))
      assert.deepStrictEqual(partial._masked, { iban: "…7890" })
      assert.strictEqual(partial.b, 7)
      assert.deepStrictEqual(JSON.parse(textOf(yield* here.get("supplier", buyer, idAt(2))))._masked, {
        iban: null
      })
    })
  )

  it.effect("select and include, two levels, by the rights on what is included", () =>
    Effect.gen(function* () {
      const here = yield* seeded("shown")
      const one = yield* here.get("order", buyer, idAt(10), {
        include: "supplier",
        select: "number,price,supplier.name,supplier.iban"
      })
      assert.deepStrictEqual(JSON.parse(textOf(one)), {
        id: idAt(10),
        number: "b",
        supplier: { id: idAt(1), name: "seen", _masked: { iban: "…7890" } },
        _masked: { price: null }
      })
      const listed = pageOf(
        yield* here.list("order", store, {
          include: "supplier,line.of.item",
          select: "number,line.of.n,line.of.item.name"
        })
      )
      assert.deepStrictEqual(
        listed.items.map((item) => item.number),
        ["b", "ä"]
      )
      const lines = listed.items[0]?.["line.of"] as { items: Array<Record<string, unknown>>; next_cursor: string }
      assert.strictEqual(lines.items.length, 100)
      assert.deepStrictEqual(lines.items[0], { id: idAt(1000), n: 0, item: null })
      assert.deepStrictEqual(lines.items[1], { id: idAt(1001), n: 1, item: { id: idAt(1), name: "seen" } })
      assert.deepStrictEqual(listed.items[1]?.["line.of"], { items: [], next_cursor: null })
      assert.nestedPropertyVal(listed.items[0], "supplier.name", "seen")
      // the cursor inside leads to the others
      const rest = pageOf(yield* here.list("line", store, { "filter[of][eq]": idAt(10), cursor: lines.next_cursor }))
      assert.deepStrictEqual(
        rest.items.map((item) => item.n),
        Array.from({ length: 30 }, (_, n) => 100 + n)
      )
      // the ETag depends on what is included
      const before = yield* here.get("order", admin, idAt(10), { include: "supplier" })
      yield* here.sql(`update "${here.type("supplier").def.pgSchema}".supplier_v1 set version = 2 where id = $1`, [
        idAt(1)
      ])
      const after = yield* here.get("order", admin, idAt(10), { include: "supplier" }, before.headers.etag)
      assert.strictEqual(after.status, 200)
      assert.strictEqual(
        (yield* here.get("order", admin, idAt(10), { include: "supplier" }, after.headers.etag)).status,
        304
      )
      const get = (params: Record<string, string>) => refusalOf(here.get("order", buyer, idAt(10), params))
      assert.strictEqual(yield* get({ include: "nothing" }), "400 unknown_field /include")
      assert.strictEqual(yield* get({ include: "supplier.x" }), "400 unknown_field /include")
      assert.strictEqual(yield* get({ select: "supplier.name" }), "400 unknown_field /select")
      assert.strictEqual(yield* get({ select: "nope" }), "400 unknown_field /select")
      assert.strictEqual(yield* get({ limit: "3" }), "400 malformed_query /limit")
      assert.strictEqual(yield* get({ include: "line.of.item.x" }), "400 query_too_large /include")
    })
  )

  it.effect("filters by every operator, and refuses by field", () =>
    Effect.gen(function* () {
      const here = yield* seeded("where")
      const numbers = (params: Record<string, string>, who = admin) =>
        Effect.map(here.list("order", who, params), (answer) =>
          pageOf(answer)
            .items.map((item) => item.number)
            .join()
        )
      assert.strictEqual(yield* numbers({}), "b,a,ä")
      assert.strictEqual(yield* numbers({ "filter[qty][neq]": "3" }), "ä")
      assert.strictEqual(yield* numbers({ "filter[qty][is_null]": "true" }), "a")
      assert.strictEqual(yield* numbers({ "filter[qty][in]": "3,5" }), "b,ä")
      assert.strictEqual(yield* numbers({ "filter[qty][between]": "4,9" }), "ä")
      assert.strictEqual(yield* numbers({ "filter[number][gt]": "b" }), "ä")
      assert.strictEqual(yield* numbers({ "filter[number][ilike]": "Ä" }), "ä")
      assert.strictEqual(yield* numbers({ "filter[number][like]": "*" }), "b,a,ä")
      assert.strictEqual(yield* numbers({ "filter[price][eq]": "12345678901234567890.1" }), "b")
      assert.strictEqual(yield* numbers({ "filter[price][lt]": "12345678901234567890.10001" }), "b")
      assert.strictEqual(yield* numbers({ "filter[extra][contains]": '{"a":[2]}' }), "ä")
      assert.strictEqual(yield* numbers({ "filter[when][gte]": "2026-03-01T11:00:00.123456+01:00" }), "b")
      assert.strictEqual(yield* numbers({ "filter[supplier][eq]": idAt(1) }), "b")
      assert.strictEqual(yield* numbers({ "filter[raw][eq]": "AP8=" }), "b")
      assert.strictEqual(yield* numbers({ "filter[raw][neq]": "AP8=" }), "")
      assert.strictEqual(yield* numbers({ "filter[at][between]": "13:30,13:30:00.500001" }), "b")
      assert.strictEqual(yield* numbers({ "filter[at][lt]": "13:30:00.5" }), "")
      assert.strictEqual(yield* numbers({ "filter[token][in]": `${idAt(98)},${idAt(99)}` }), "b")
      assert.strictEqual(yield* numbers({ "filter[supplier][in]": `${idAt(1)},${idAt(2)}`, sort: "supplier" }), "b,a")
      assert.strictEqual(yield* numbers({ "filter[version][gte]": "1", "filter[created_by][like]": "dev/*" }), "b,a,ä")
      assert.strictEqual(yield* numbers({ sort: "at,-token" }), "b,ä,a")
      assert.strictEqual(yield* numbers({ sort: "number" }), "a,b,ä")
      assert.strictEqual(yield* numbers({ sort: "-qty" }), "a,ä,b")
      assert.strictEqual(yield* numbers({ deleted: "only" }), "c")
      assert.strictEqual(yield* numbers({ deleted: "with", sort: "-id" }), "c,ä,a,b")
      assert.strictEqual(yield* numbers({}, store), "b,ä")
      assert.strictEqual(yield* numbers({}, callerOf(["store"])), "")
      assert.strictEqual(yield* numbers({}, callerOf(["buyer", "store"])), "b,a,ä")
      const refused = (params: Record<string, string>, who = buyer) => refusalOf(here.list("order", who, params))
      for (const value of ["1", "x", ""]) {
        assert.strictEqual(yield* refused({ "filter[price][eq]": value }), "403 field_not_readable /filter[price][eq]")
      }
      assert.strictEqual(yield* refused({ sort: "price" }), "403 field_not_readable /sort")
      assert.strictEqual(yield* refused({ "filter[note][eq]": "x" }), "400 not_filterable /filter[note][eq]")
      assert.strictEqual(yield* refused({ "filter[zz][eq]": "x" }), "400 unknown_field /filter[zz][eq]")
      assert.strictEqual(yield* refused({ "filter[status][lt]": "x" }), "400 unknown_operator /filter[status][lt]")
      assert.strictEqual(yield* refused({ "filter[qty][zz]": "x" }), "400 unknown_operator /filter[qty][zz]")
      assert.strictEqual(yield* refused({ "filter[qty][eq]": "1.5" }), "400 malformed_query /filter[qty][eq]")
      assert.strictEqual(
        yield* refused({ "filter[qty][eq]": "99999999999999999999" }),
        "400 malformed_query /filter[qty][eq]"
      )
      assert.strictEqual(yield* refused({ "filter[number][eq]": "\u0000" }), "400 malformed_query /filter[number][eq]")
      assert.strictEqual(yield* refused({ sort: "extra" }), "400 not_filterable /sort")
      assert.strictEqual(yield* refused({ sort: "raw" }), "400 not_filterable /sort")
      for (const [field, value] of [
        ["raw", "AP8"],
        ["at", "25:00"],
        ["token", "x"],
        ["supplier", idAt(1).toUpperCase().replace("0193", "A193")],
        ["when", "2026-03-01 10:00:00 01:00"],
        ["status", "lost"],
        ["extra", "{"],
        ["extra", '"\\u0000"'],
        ["price", "NaN"]
      ] as const) {
        const key = `filter[${field}][eq]`
        assert.strictEqual(yield* refused({ [key]: value }, admin), `400 malformed_query /${key}`)
      }
      assert.strictEqual(yield* refused({ "filter[number][like]": "a\\" }), "400 malformed_query /filter[number][like]")
      assert.strictEqual(yield* refused({ deleted: "only" }), "403 operation_not_granted")
      assert.strictEqual(
        yield* refusalOf(
          here.query(
            "order",
            buyer,
            '{"where":{"and":[{"field":"qty","op":"in","value":[1,"x"]},{"not":{"field":"zz","op":"eq","value":1}}]}}'
          )
        ),
        "400 malformed_query /where/and/0/value/1 /where/and/1/not/field"
      )
    })
  )

  it.effect("counts, exactly and by estimate, but tells no estimate to whom a filter bounds", () =>
    Effect.gen(function* () {
      const here = yield* seeded("count")
      const count = (who: typeof admin, kind: string) =>
        Effect.map(here.list("order", who, { count: kind, limit: "1" }), (answer) => pageOf(answer).count)
      assert.strictEqual(yield* count(admin, "exact"), 3)
      assert.strictEqual(yield* count(store, "exact"), 2)
      assert.strictEqual(yield* count(store, "estimated"), 2)
      assert.isTrue(Number.isInteger(yield* count(admin, "estimated")))
      const { type } = here
      yield* here.sql(
        `insert into "${type("order").def.pgSchema}".order_v1 (id, number, store_id, created_at, updated_at, created_by, updated_by)
           select gen_random_uuid(), 'n', 's1', now(), now(), 'x', 'x' from generate_series(1, 10001)`
      )
      assert.strictEqual(yield* count(store, "estimated"), null)
      assert.strictEqual(yield* count(store, "exact"), 10_003)
    })
  )
})
