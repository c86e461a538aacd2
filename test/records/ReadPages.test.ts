import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as TestClock from "effect/testing/TestClock"
import type { Caller } from "../../src/domain/Identity.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import { CursorBox, cursorLifetime, makeCursors } from "../../src/records/read/Cursor.ts"
import { compile } from "../../src/records/type/RecordType.ts"
import { withDatabase } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { idAt, makeReadWorld, pageOf, refusalOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

const Transactions = Layer.mergeAll(TenantTx.layer, GatewayTx.layer)
const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provideMerge(Transactions)))

const roles = [
  { role: "buyer", operations: ["create", "read", "update", "history"] },
  { role: "auditor", operations: ["read", "history"] },
  { role: "store", operations: ["read", "history"] },
  { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] }
]
const fields = [
  { name: "name", type: "string", indexed: true },
  { name: "rank", type: "integer", filterable: true },
  { name: "price", type: "number", precision: 20, scale: 2, filterable: true, access: { read: ["admin", "auditor"] } },
  { name: "store_id", type: "string", indexed: true }
]
const rowFilters = [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
const world = (domain: string, more: Record<string, unknown> = {}) =>
  Effect.gen(function* () {
    const here = yield* makeReadWorld([{ object: "thing", fields, access: { roles, rowFilters }, ...more }], domain)
    yield* here.put(
      "thing",
      Array.from({ length: 25 }, (_, n) => ({
        id: idAt(n),
        name: `n${n % 4}`,
        rank: n % 3 === 0 ? null : n % 5,
        price: n,
        store_id: n % 2 === 0 ? "s1" : "s2"
      }))
    )
    return here
  })

const admin = callerOf(["admin"], {}, "ann")
const bob = callerOf(["admin"], {}, "bob")

type World = Effect.Success<ReturnType<typeof world>>

/** All ids of a query, page by page. */
const pages = (here: World, who: Caller, params: Record<string, string>) =>
  Effect.gen(function* () {
    const ids: Array<string> = []
    let cursor: string | null | undefined
    do {
      const page = pageOf(yield* here.list("thing", who, cursor == null ? params : { ...params, cursor }))
      ids.push(...page.items.map((item) => String(item.id)))
      cursor = page.next_cursor
    } while (cursor !== null)
    return ids
  })

layer(Live, { excludeTestServices: true })("pages", (it) => {
  it.effect("every order shows each row once, however small the pages", () =>
    Effect.gen(function* () {
      const here = yield* world("orders")
      for (const sort of [
        "",
        "rank",
        "-rank",
        "-rank,name",
        "name,-rank",
        "-id",
        "rank,-id",
        "-price",
        "created_at,-rank"
      ]) {
        const params = sort === "" ? {} : { sort }
        const whole = yield* pages(here, admin, { ...params, limit: "1000" })
        assert.strictEqual(new Set(whole).size, 25)
        for (const limit of ["1", "3", "7", "25"]) {
          assert.deepStrictEqual(yield* pages(here, admin, { ...params, limit }), whole, `${sort} by ${limit}`)
        }
      }
    })
  )

  it.effect("a page's Link is the same URL with the next cursor", () =>
    Effect.gen(function* () {
      const here = yield* world("link")
      const answer = yield* here.list("thing", admin, { "filter[name][in]": 'n1,"n2"', sort: "-rank", limit: "2" })
      const { next_cursor } = pageOf(answer)
      const match = /^<(\/api\/[^>]+)>; rel="next"$/.exec(answer.headers.link ?? "")
      const query = new URLSearchParams(match?.[1]?.split("?")[1])
      assert.strictEqual(query.get("cursor"), next_cursor)
      assert.strictEqual(query.get("filter[name][in]"), 'n1,"n2"')
      assert.strictEqual(query.get("sort"), "-rank")
      const last = yield* here.list("thing", admin, { limit: "25" })
      assert.isUndefined(last.headers.link)
      assert.isNull(pageOf(last).next_cursor)
    })
  )

  it.effect("a cursor is of one caller and one query, and cannot be changed or cut", () =>
    Effect.gen(function* () {
      const here = yield* world("attack")
      const params = { sort: "-rank", limit: "2", "filter[name][neq]": "n0" }
      const cursor = pageOf(yield* here.list("thing", admin, params)).next_cursor ?? ""
      const asked = (more: Record<string, string>, who = admin) =>
        refusalOf(here.list("thing", who, { ...params, ...more }))
      assert.strictEqual(yield* asked({ cursor }), "ok")
      // what is shown, and how much, may change
      assert.strictEqual(yield* asked({ cursor, limit: "5", select: "name", count: "exact" }), "ok")
      const body = JSON.stringify({ where: { field: "name", op: "neq", value: "n0" }, sort: ["-rank"], cursor })
      assert.strictEqual(yield* refusalOf(here.query("thing", admin, body)), "ok")
      assert.strictEqual(yield* asked({ cursor }, bob), "400 cursor_invalid")
      assert.strictEqual(yield* asked({ cursor, sort: "rank" }), "400 cursor_invalid")
      assert.strictEqual(yield* asked({ cursor, "filter[name][neq]": "n1" }), "400 cursor_invalid")
      assert.strictEqual(yield* asked({ cursor, deleted: "with" }), "400 cursor_invalid")
      const other = yield* world("attack2")
      assert.strictEqual(yield* refusalOf(other.list("thing", admin, { ...params, cursor })), "400 cursor_invalid")
      const raw = Buffer.from(cursor, "base64url")
      for (let at = 0; at < raw.length; at++) {
        const forged = Buffer.from(raw)
        forged[at] = (forged[at] ?? 0) ^ 1
        assert.strictEqual(yield* asked({ cursor: forged.toString("base64url") }), "400 cursor_invalid")
        assert.strictEqual(yield* asked({ cursor: raw.subarray(0, at).toString("base64url") }), "400 cursor_invalid")
      }
      for (const text of [
        "",
        "a",
        "null",
        `${cursor}A`,
        `${cursor}=`,
        ` ${cursor}`,
        `${cursor}${cursor}`,
        "ä",
        "A".repeat(20_000)
      ]) {
        assert.strictEqual(yield* asked({ cursor: text }), "400 cursor_invalid", text.slice(0, 40))
      }
    })
  )

  it.effect("a cursor ends with the right to read what it was sorted by, and with a change of that field", () =>
    Effect.gen(function* () {
      const here = yield* world("ends")
      const auditor = callerOf(["auditor"], {}, "cleo")
      const params = { sort: "price", limit: "2" }
      const cursor = pageOf(yield* here.list("thing", auditor, params)).next_cursor ?? ""
      const asked = (who: Caller, more = {}) => refusalOf(here.list("thing", who, { ...params, ...more }))
      assert.strictEqual(yield* asked(auditor, { cursor }), "ok")
      const buyer = { ...auditor, roles: ["buyer"] }
      assert.strictEqual(yield* asked(buyer), "403 field_not_readable /sort")
      assert.strictEqual(yield* asked(buyer, { cursor }), "400 cursor_expired")
      assert.strictEqual(yield* asked(buyer, { cursor: `${cursor}AAAA` }), "400 cursor_invalid")
      // somebody else learns nothing of the field by it
      assert.strictEqual(yield* asked({ ...buyer, identity: bob.identity }, { cursor }), "400 cursor_invalid")
      const { def } = here.type("thing")
      const required = def.spec.fields.map((field) => (field.name === "price" ? { ...field, required: true } : field))
      here.types.set(def.path, compile({ ...def, spec: { ...def.spec, fields: required } }))
      assert.strictEqual(yield* asked(auditor, { cursor }), "400 cursor_expired")
    })
  )

  it.effect("a cursor lasts a day, under the keys of its day", () =>
    Effect.gen(function* () {
      const here = yield* world("day")
      const { box } = yield* makeCursors
      const scope = { actor: "a", query: "q", fields: "f" }
      const keys = [null, "ä", "12345678901234567890.10"]
      const cursor = (yield* box).seal(scope, keys)
      assert.deepStrictEqual((yield* box).open(cursor, scope, 3), keys)
      assert.include((yield* box).open(cursor, scope, 2), { code: "cursor_expired" })
      assert.include((yield* box).open(cursor, { ...scope, fields: "g" }, 3), { code: "cursor_expired" })
      const rotate = here.sql("select platform.cursor_key_rotate()")
      yield* rotate
      // another replica, with the new key: it opens what the former sealed
      const later = yield* makeCursors
      assert.deepStrictEqual((yield* later.box).open(cursor, scope, 3), keys)
      assert.notStrictEqual((yield* later.box).seal(scope, keys).slice(0, 4), cursor.slice(0, 4))
      yield* Effect.gen(function* () {
        const clocked = yield* makeCursors
        const sealed = (yield* clocked.box).seal(scope, keys)
        yield* TestClock.adjust(cursorLifetime)
        assert.deepStrictEqual((yield* clocked.box).open(sealed, scope, 3), keys)
        yield* TestClock.adjust(1)
        assert.include((yield* clocked.box).open(sealed, scope, 3), { code: "cursor_expired" })
      }).pipe(Effect.provide(TestClock.layer()))
      assert.include(new CursorBox([], 0).open(cursor, scope, 3), { code: "cursor_invalid" })
    })
  )
})

layer(Live, { excludeTestServices: true })("history", (it) => {
  const event = (
    id: string,
    version: number,
    op: string,
    state: Record<string, unknown>,
    changed: ReadonlyArray<string>
  ) => ({
    id: crypto.randomUUID(),
    entity_id: id,
    version,
    op,
    occurred_at: `2026-11-24T00:00:0${version}Z`,
    actor: "dev/ann",
    request_id: `r${version}`,
    changed,
    state
  })
  const seeded = (domain: string, more: Record<string, unknown> = {}) =>
    Effect.gen(function* () {
      const here = yield* world(domain, more)
      const { def } = here.type("thing")
      const id = idAt(0)
      const state = {
        id,
        version: 1,
        created_at: "2026-11-24T00:00:01+00:00",
        created_by: "dev/ann",
        name: "a",
        rank: 1
      }
      const events = [
        event(id, 1, "create", { ...state, price: 1, store_id: "s1" }, ["name", "price", "store_id"]),
        event(id, 2, "update", { ...state, version: 2, price: 2, store_id: "s2" }, ["price", "store_id"]),
        event(id, 3, "update", { ...state, version: 3, price: 3, store_id: "s2", old: "dropped" }, ["name"])
      ]
      yield* here.sql(
        `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, request_id, changed, state, hash)
         select e.id, $1, $2, $2, e.entity_id, e.version, e.op, e.occurred_at, e.actor, e.request_id, e.changed, e.state, ''
         from jsonb_populate_recordset(null::platform.event_log, $3::text::jsonb) e`,
        [def.chain, def.id, JSON.stringify(events)]
      )
      // prices at their scale, as to_jsonb writes them
      yield* here.sql(
        `update platform.event_log set state = jsonb_set(state, '{price}', ((state ->> 'price') || '.10')::jsonb) where storage_id = $1`,
        [def.id]
      )
      return { here, id }
    })

  it.effect("newest first, by pages, masked by today's rights on the state that is shown", () =>
    Effect.gen(function* () {
      const { here, id } = yield* seeded("past")
      const whole = yield* here.history("thing", admin, id)
      assert.include(textOf(whole), '"price":3.10')
      assert.deepStrictEqual(
        pageOf(whole).items.map((item) => item.version),
        [3, 2, 1]
      )
      const first = pageOf(yield* here.history("thing", admin, id, { limit: "2" }))
      assert.deepStrictEqual(
        first.items.map((item) => item.version),
        [3, 2]
      )
      const cursor = first.next_cursor ?? ""
      const second = yield* here.history("thing", admin, id, { limit: "2", cursor })
      assert.deepStrictEqual(
        pageOf(second).items.map((item) => item.version),
        [1]
      )
      assert.isNull(pageOf(second).next_cursor)
      assert.strictEqual(yield* refusalOf(here.history("thing", bob, id, { cursor })), "400 cursor_invalid")
      assert.strictEqual(yield* refusalOf(here.history("thing", admin, idAt(1), { cursor })), "400 cursor_invalid")

      const buyer = callerOf(["buyer"])
      const [newest, , oldest] = pageOf(yield* here.history("thing", buyer, id)).items
      assert.deepStrictEqual(newest?.state, {
        id,
        version: 3,
        created_at: "2026-11-24T00:00:01+00:00",
        created_by: "dev/ann",
        updated_at: null,
        updated_by: null,
        deleted_at: null,
        name: "a",
        rank: 1,
        store_id: "s2",
        _masked: { price: null }
      })
      assert.deepStrictEqual(oldest?.changed, ["name", "store_id"])
      assert.deepStrictEqual(Object.keys(newest ?? {}).sort(), [
        "actor",
        "changed",
        "event_id",
        "occurred_at",
        "op",
        "request_id",
        "state",
        "version"
      ])
    })
  )

  it.effect("of a row that moved from one filter to another, each sees the states that are his", () =>
    Effect.gen(function* () {
      const { here, id } = yield* seeded("moved")
      const versions = (who: Caller) =>
        Effect.map(here.history("thing", who, id), (answer) => pageOf(answer).items.map((item) => item.version))
      assert.deepStrictEqual(yield* versions(callerOf(["store"], { store_id: "s1" })), [1])
      assert.deepStrictEqual(yield* versions(callerOf(["store"], { store_id: "s2" })), [3, 2])
      assert.strictEqual(yield* refusalOf(here.history("thing", callerOf(["store"]), id)), "404 not_found")
      assert.strictEqual(yield* refusalOf(here.history("thing", admin, idAt(77))), "404 not_found")
      assert.strictEqual(yield* refusalOf(here.history("thing", admin, "77")), "400 malformed_id")
      assert.strictEqual(yield* refusalOf(here.history("thing", callerOf(["nobody"]), id)), "403 operation_not_granted")
      assert.strictEqual(
        yield* refusalOf(here.history("thing", admin, id, { sort: "version" })),
        "400 malformed_query /sort"
      )
    })
  )

  it.effect("reads that are to be audited leave one entry each, and what was read in it", () =>
    Effect.gen(function* () {
      const entries = (here: World) =>
        Effect.map(
          here.sql(
            "select action, outcome, actor, entity_id::text as entity, payload::text as payload, request_id from platform.audit_log where chain = $1 and action not like 'operator.%' order by lane, seq",
            [here.chain]
          ),
          (rows) => rows.map((row) => [row.action, row.outcome, row.entity, JSON.parse(String(row.payload))])
        )
      const { here, id } = yield* seeded("summary", { audit: { reads: "summary" } })
      yield* here.get("thing", admin, id)
      yield* here.list("thing", admin, { limit: "2", count: "exact" })
      yield* here.history("thing", admin, id)
      assert.strictEqual(yield* refusalOf(here.get("thing", admin, idAt(77))), "404 not_found")
      const sorted = (rows: ReadonlyArray<unknown>) => rows.map((row) => JSON.stringify(row)).sort()
      assert.deepStrictEqual(
        sorted(yield* entries(here)),
        sorted([
          ["read", "ok", id, { version: 1 }],
          ["read", "ok", null, { count: 2 }],
          ["read", "ok", id, { count: 3, history: true }]
        ])
      )
      const all = yield* seeded("all", { audit: { reads: "all" } })
      yield* all.here.list("thing", admin, { limit: "2", "filter[name][eq]": "n1" })
      yield* all.here.list("thing", admin, { "filter[name][eq]": "nobody" })
      assert.deepStrictEqual(
        sorted(yield* entries(all.here)),
        sorted([
          ["read", "ok", null, { ids: [idAt(1), idAt(5)], count: 2 }],
          ["read", "ok", null, { ids: [], count: 0 }]
        ])
      )
      const none = yield* seeded("none")
      yield* none.here.get("thing", admin, id)
      assert.deepStrictEqual(yield* entries(none.here), [])
    })
  )

  it.effect("a definition that is not the one in force is said to be so, also that of an included type", () =>
    Effect.gen(function* () {
      const here = yield* makeReadWorld(
        [
          { object: "parent", fields: [{ name: "a", type: "string" }] },
          { object: "child", fields: [{ name: "p", type: "ref", ref: { object: "parent", version: "v1" } }] }
        ],
        "stale"
      )
      yield* here.put("parent", [{ id: idAt(1), a: "x" }])
      yield* here.put("child", [{ id: idAt(2), p: idAt(1) }])
      const parent = here.type("parent").path
      yield* here.sql(
        "update platform.schema_defs set generation = nextval('platform.generation_seq') where path = $1",
        [parent]
      )
      const stale = (effect: Effect.Effect<unknown, unknown>) =>
        Effect.match(effect, {
          onSuccess: () => "ok",
          onFailure: (error) => (error as { readonly path?: string }).path
        })
      assert.strictEqual(yield* stale(here.get("parent", admin, idAt(1))), parent)
      assert.strictEqual(yield* stale(here.list("parent", admin)), parent)
      assert.strictEqual(yield* stale(here.history("parent", admin, idAt(1))), parent)
      // also where the planner knows that there is nothing
      const nobody = { "filter[id][in]": idAt(1), "filter[deleted_at][is_null]": "false" }
      assert.strictEqual(yield* stale(here.list("parent", admin, nobody)), parent)
      assert.strictEqual(yield* stale(here.list("child", admin)), "ok")
      assert.strictEqual(yield* stale(here.list("child", admin, { include: "p" })), parent)
      assert.strictEqual(yield* stale(here.get("child", admin, idAt(2), { include: "p" })), parent)
    })
  )
})
