import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { eventHash, eventHead } from "../../src/domain/EventHash.ts"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { bodyOf, callerOf, idOf, makeWorld, refusalOf } from "./World.ts"

const roles = [
  { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] },
  { role: "buyer", operations: ["create", "read", "update"] },
  { role: "store", operations: ["create", "read", "update", "delete", "restore"] },
  { role: "clerk", operations: ["create", "update"] },
  { role: "auditor", operations: ["read"] }
]
const supplier = {
  object: "supplier",
  fields: [
    { name: "name", type: "string", required: true, unique: true },
    { name: "store_id", type: "string", indexed: true }
  ],
  access: {
    roles,
    rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
  }
}
const order = {
  object: "order",
  fields: [
    { name: "number", type: "string", required: true, unique: true, pattern: "^PO-[0-9]+$" },
    { name: "supplier", type: "ref", ref: { object: "supplier", version: "v1" } },
    { name: "status", type: "enum", enum: ["draft", "approved"], default: "draft" },
    {
      name: "price",
      type: "number",
      precision: 12,
      scale: 4,
      min: "0",
      access: { read: ["admin", "auditor"], write: ["admin"] }
    },
    { name: "secret", type: "string", sensitivity: "personal", mask: { strategy: "redact", unmaskedFor: ["admin"] } },
    { name: "count", type: "integer" },
    { name: "free", type: "number" },
    { name: "raw", type: "bytes" },
    { name: "due", type: "timestamp" },
    { name: "info", type: "json" },
    { name: "group", type: "string" },
    { name: "user", type: "string" }
  ],
  uniqueConstraints: [{ fields: ["group", "user"] }],
  access: { roles }
}
const ruled = {
  object: "ruled",
  fields: [
    { name: "low", type: "number", precision: 10, scale: 2, required: true },
    { name: "high", type: "number", precision: 10, scale: 2 },
    { name: "steps", type: "integer", default: "0" }
  ],
  validation: {
    rules: [
      { rule: "!has(self.high) || dec.lte(self.low, self.high)", message: "low is above high" },
      { rule: "!has(old.steps) || self.steps >= old.steps", message: "steps go up" },
      { rule: "self.steps != 13 || has(self.nothing.here)", message: "thirteen errs" }
    ]
  },
  access: { roles }
}
const careful = {
  object: "careful",
  fields: [{ name: "name", type: "string" }],
  concurrency: "required",
  audit: { requireReason: ["delete"], requireTicketRef: ["update"] },
  access: { roles }
}

const admin = callerOf(["admin"])
const buyer = callerOf(["buyer"])
const clerk = callerOf(["clerk"])
const auditor = callerOf(["auditor"])
const store = callerOf(["store"], { store_id: "s1" })
const nobody = "01920000-0000-7000-8000-000000000000"

layer(withDatabase(WriteRecords.layer), { excludeTestServices: true })("WriteRecords", (it) => {
  let count = 0
  const next = () => `PO-${++count}`

  it.effect("writes, shows and keeps exactly what was said, each act with one event and one entry", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order, ruled, careful], "keeps")
      const exact = `{"number":"${next()}","count":9007199254740993,"price":1.1,"free":12345678901234567890.10,"raw":"AAEC/w==",
        "due":"2026-11-24T13:30:00.000001+05:30","info":{"n":1.10,"deep":[null,{"k":2e2}]},"secret":"s"}`
      const made = yield* world.create("order", admin, exact)
      const id = idOf(made)
      expect(made.status).toBe(201)
      expect(made.headers.location).toBe(`/api/${world.chain}/order/v1/${id}`)
      expect(made.headers.etag).toMatch(/^"1-[0-9a-f]{8}"$/)
      expect(made.body).toContain('"count":9007199254740993')
      expect(made.body).toContain('"price":1.1000')
      expect(made.body).toContain('"free":12345678901234567890.10')
      expect(made.body).toContain('"raw":"AAEC/w=="')
      expect(made.body).toContain('"due":"2026-11-24T08:00:00.000001+00:00"')
      expect(made.body).toContain('"n": 1.10')
      expect(made.body).toContain('"status":"draft"')

      const patched = yield* world.patch("order", admin, id, '{"status":null,"count":1,"group":"g"}')
      expect(patched.headers.etag).toMatch(/^"2-/)
      expect(bodyOf(patched)).toMatchObject({ version: 2, status: null, count: 1, group: "g", secret: "s" })
      yield* world.patch("order", admin, id, '{"info":{"deep":null,"more":{"x":null,"y":1}}}')
      yield* world.patch(
        "order",
        admin,
        id,
        '[{"op":"test","path":"/info/n","value":1.1},{"op":"add","path":"/info/list","value":[1.50]},{"op":"copy","from":"/count","path":"/free"},{"op":"remove","path":"/group"}]'
      )
      const put = yield* world.put("order", admin, id, { number: next(), raw: null })
      expect(bodyOf(put)).toMatchObject({ version: 5, status: "draft", count: null, info: null })
      const removed = yield* world.remove("order", admin, id)
      expect([removed.status, removed.body]).toEqual([204, undefined])
      expect(yield* refusalOf(world.patch("order", admin, id, { count: 2 }))).toBe("404 not_found")
      const restored = yield* world.restore("order", admin, id)
      expect(bodyOf(restored)).toMatchObject({ version: 7, deleted_at: null })

      const events = yield* world.sql(
        `select id::text, entity_id::text, storage_id, version, op, changed, actor, request_id, encode(salt, 'hex') as salt, encode(hash, 'hex') as hash,
           (select jsonb_object_agg(key, value::text) from jsonb_each(state)) as fields, state::text as state, occurred_at::text as at
         from platform.event_log where entity_id = $1 order by version`,
        [id]
      )
      expect(events.map((event) => [event.version, event.op, event.changed])).toEqual([
        [1, "create", ["number", "status", "price", "secret", "count", "free", "raw", "due", "info"]],
        [2, "update", ["status", "count", "group"]],
        [3, "update", ["info"]],
        [4, "update", ["free", "info", "group"]],
        [5, "update", ["number", "status", "price", "secret", "count", "free", "raw", "due", "info"]],
        [6, "delete", ["deleted_at"]],
        [7, "restore", ["deleted_at"]]
      ])
      expect(events[2]?.state).toContain('"info": {"n": 1.10, "more": {"y": 1}}')
      expect(events[3]?.state).toContain('"info": {"n": 1.10, "list": [1.50], "more": {"y": 1}}')
      expect(events[3]?.state).toContain('"free": 1,')
      for (const event of events) {
        const head = eventHead(Number(event.storage_id), id, Number(event.version), String(event.op))
        const values = new Map(Object.entries(event.fields as Record<string, string>))
        const hash = eventHash(Buffer.from(String(event.salt), "hex"), head, values)
        expect(Buffer.from(hash).toString("hex")).toBe(event.hash)
      }
      const entries = yield* world.sql(
        `select action, outcome, actor, request_id, schema_path, payload->>'event' as event, payload->>'hash' as hash, (payload->>'version')::int as version
         from platform.audit_log where entity_id = $1 and outcome = 'ok' order by occurred_at`,
        [id]
      )
      expect(entries).toEqual(
        events.map((event) => ({
          action: event.op,
          outcome: "ok",
          actor: admin.identity.actor,
          request_id: admin.requestId,
          schema_path: `${world.chain}/order/v1`,
          event: event.id,
          hash: event.hash,
          version: event.version
        }))
      )
      const [row] = yield* world.sql(`select updated_at::text as at from ${world.table("order")} where id = $1`, [id])
      expect(row?.at).toBe(events.at(-1)?.at)
    })
  )

  it.effect("answers each refusal with its own problem and changes nothing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order, ruled, careful], "refuses")
      const first = idOf(yield* world.create("order", admin, { number: next(), group: "g", user: "u", price: 5 }))
      const taken = bodyOf(yield* world.create("order", admin, { number: next(), count: 1 }))
      const other = String(taken.id)
      const gone = idOf(yield* world.create("supplier", admin, { name: "gone" }))
      yield* world.remove("supplier", admin, gone)
      const before = yield* world.sql("select count(*)::int as n from platform.event_log")

      const refusals: Array<[string, Effect.Effect<unknown, unknown>]> = [
        ["403 operation_not_granted", world.create("order", auditor, { number: next() })],
        ["403 operation_not_granted", world.remove("order", buyer, first)],
        ["422 invalid /nope /number", world.create("order", admin, { nope: 1 })],
        ["422 invalid /count /raw /number", world.create("order", admin, { count: "1", raw: "?" })],
        ["409 unique_conflict /number", world.create("order", admin, { number: taken.number })],
        ["409 unique_conflict /group /user", world.create("order", admin, { number: next(), group: "g", user: "u" })],
        ["409 unique_conflict /number", world.patch("order", admin, first, { number: taken.number })],
        ["409 reference_not_found /supplier", world.create("order", admin, { number: next(), supplier: nobody })],
        ["409 reference_not_found /supplier", world.create("order", admin, { number: next(), supplier: gone })],
        ["409 reference_not_found /supplier", world.patch("order", admin, first, { supplier: gone })],
        ["403 field_not_writable /price", world.patch("order", buyer, first, { price: 1 })],
        ["403 field_not_writable /price", world.put("order", buyer, first, { number: next(), price: 1 })],
        ["403 field_not_readable /secret", world.put("order", buyer, first, { number: next(), secret: "x" })],
        ["404 not_found", world.patch("order", admin, nobody, { count: 1 })],
        ["404 not_found", world.put("order", admin, nobody, { number: next() })],
        ["404 not_found", world.remove("order", admin, nobody)],
        ["404 not_found", world.restore("order", admin, nobody)],
        ["400 malformed_id", world.patch("order", admin, "x", { count: 1 })],
        ["409 not_deleted", world.restore("order", admin, first)],
        ["412 stale", world.patch("order", admin, first, { count: 1 }, { ifMatch: '"7-00000000"' })],
        ["412 stale", world.remove("order", admin, first, { ifMatch: 'W/"1-00000000"' })],
        [
          "412 stale",
          world.patch("order", admin, first, [{ op: "test", path: "/count", value: 1 }], { ifMatch: '"2"' })
        ],
        ["400 malformed_header", world.patch("order", admin, first, { count: 1 }, { ifMatch: "1" })],
        ["400 malformed_header", world.patch("order", admin, first, { count: 1 }, { prefer: "handling=strict, x=1" })],
        ["400 malformed_header", world.create("order", admin, { number: next() }, { idempotencyKey: "a b" })],
        ["422 invalid /version", world.patch("order", admin, first, { version: 9 })],
        [
          "422 invalid /created_by /id",
          world.put("order", admin, first, { number: next(), id: nobody, created_by: "x" })
        ],
        ["400 malformed_patch /0/op", world.patch("order", admin, first, [{ op: "frob", path: "/count" }])],
        ["400 malformed_patch /0/path", world.patch("order", admin, first, [{ op: "remove", path: "" }])],
        [
          "403 field_not_readable /0/path",
          world.patch("order", buyer, first, [{ op: "test", path: "/price", value: 5 }])
        ],
        [
          "403 field_not_readable /0/from",
          world.patch("order", buyer, first, [{ op: "copy", from: "/secret", path: "/user" }])
        ],
        [
          "403 field_not_readable /0/from",
          world.patch("order", buyer, first, [{ op: "move", from: "/secret", path: "/user" }])
        ],
        [
          "403 field_not_writable /0/path",
          world.patch("order", buyer, first, [{ op: "replace", path: "/price", value: 5 }])
        ],
        ["422 invalid /0/path", world.patch("order", admin, first, [{ op: "add", path: "/nope", value: 5 }])],
        ["409 write_conflict /0", world.patch("order", admin, first, [{ op: "test", path: "/price", value: 6 }])],
        ["422 invalid /0/path", world.patch("order", admin, first, [{ op: "remove", path: "/info/x/y" }])],
        ["422 invalid /version", world.patch("order", admin, first, [{ op: "replace", path: "/version", value: 5 }])],
        ["422 invalid /number", world.patch("order", admin, first, [{ op: "remove", path: "/number" }])],
        ["422 invalid ", world.create("ruled", admin, { low: 2, high: 1.99 })],
        ["422 rule_error ", world.create("ruled", admin, { low: 2, steps: 13 })],
        ["428 precondition_required", world.patch("careful", { ...admin, ticket: "T" }, first, { name: "x" })],
        ["400 reason_required", world.remove("careful", admin, first, { ifMatch: "*" })],
        ["400 ticket_required", world.patch("careful", admin, first, { name: "x" }, { ifMatch: "*" })],
        [
          "422 idempotency_dry_run",
          world.create("order", admin, { number: next() }, { prefer: "tx=rollback", idempotencyKey: "k" })
        ]
      ]
      for (const [expected, effect] of refusals) expect(yield* refusalOf(effect)).toBe(expected)
      expect(yield* world.sql("select count(*)::int as n from platform.event_log")).toEqual(before)
      expect(bodyOf(yield* world.patch("order", admin, first, {}))).toMatchObject({ version: 2, price: 5 })
      expect(other).not.toBe(first)
    })
  )

  it.effect("judges rules over the row as it will be", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([ruled], "rules")
      const id = idOf(yield* world.create("ruled", admin, { low: 1, high: 2, steps: 5 }))
      expect(yield* refusalOf(world.patch("ruled", admin, id, { low: 3 }))).toBe("422 invalid ")
      expect(yield* refusalOf(world.patch("ruled", admin, id, { steps: 4 }))).toBe("422 invalid ")
      expect(yield* refusalOf(world.put("ruled", admin, id, { low: 1 }))).toBe("422 invalid ")
      expect(yield* refusalOf(world.patch("ruled", admin, id, [{ op: "replace", path: "/high", value: 0.5 }]))).toBe(
        "422 invalid "
      )
      expect(bodyOf(yield* world.patch("ruled", admin, id, { low: 2, steps: 6 }))).toMatchObject({
        low: 2,
        high: 2,
        version: 2
      })
      yield* world.remove("ruled", admin, id)
      expect(bodyOf(yield* world.restore("ruled", admin, id))).toMatchObject({ version: 4 })
    })
  )

  it.effect("keeps writers inside their row filter, and tells them no more than they may see", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order], "filters")
      const own = idOf(yield* world.create("supplier", store, { name: "a", store_id: "s1" }))
      expect(yield* refusalOf(world.create("supplier", store, { name: "b", store_id: "s2" }))).toBe(
        "403 row_outside_filter"
      )
      expect(yield* refusalOf(world.create("supplier", store, { name: "b" }))).toBe("403 row_outside_filter")
      const foreign = idOf(yield* world.create("supplier", admin, { name: "c", store_id: "s2" }))
      expect(yield* refusalOf(world.patch("supplier", store, foreign, { name: "d" }))).toBe("404 not_found")
      expect(yield* refusalOf(world.remove("supplier", store, foreign))).toBe("404 not_found")
      expect(yield* refusalOf(world.patch("supplier", store, own, { store_id: "s2" }))).toBe("403 row_outside_filter")
      // who holds a role without filter besides is held by none
      const both = callerOf(["admin", "store"], { store_id: "s1" })
      yield* world.patch("supplier", both, own, { store_id: "s2" })
      yield* world.patch("supplier", both, own, { store_id: "s1" })
      // a reference needs a row that one may see
      expect(yield* refusalOf(world.create("order", store, { number: next(), supplier: foreign }))).toBe(
        "409 reference_not_found /supplier"
      )
      const made = idOf(yield* world.create("order", store, { number: next(), supplier: own }))
      yield* world.patch("order", admin, made, { supplier: foreign })
      // one that stands is nobody's business while it stays
      yield* world.patch("order", store, made, { supplier: foreign, count: 1 })
      expect(yield* refusalOf(world.create("order", clerk, { number: next(), supplier: own }))).toBe(
        "409 reference_not_found /supplier"
      )
      // a clerk may create and change, not read
      const blind = yield* world.create("order", clerk, { number: next(), count: 7 })
      expect(Object.keys(bodyOf(blind))).toEqual(["id", "version"])
      expect(Object.keys(bodyOf(yield* world.patch("order", clerk, idOf(blind), { count: 8 })))).toEqual([
        "id",
        "version"
      ])
      yield* world.remove("supplier", store, own, {})
    }).pipe(
      // the order above still refers to the foreign supplier, not to one's own
      Effect.orDie
    )
  )

  it.effect("gives unique values back at delete, and refuses to restore over them", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order], "restores")
      const number = next()
      const old = idOf(yield* world.create("order", admin, { number }))
      yield* world.remove("order", admin, old)
      const fresh = idOf(yield* world.create("order", admin, { number }))
      expect(yield* refusalOf(world.restore("order", admin, old))).toBe("409 unique_conflict /number")
      yield* world.remove("order", admin, fresh)
      yield* world.restore("order", admin, old)

      const parent = idOf(yield* world.create("supplier", admin, { name: "p" }))
      const child = idOf(yield* world.create("order", admin, { number: next(), supplier: parent }))
      expect(yield* refusalOf(world.remove("supplier", admin, parent))).toBe("409 still_referenced")
      yield* world.remove("order", admin, child)
      yield* world.remove("supplier", admin, parent)
      expect(yield* refusalOf(world.restore("order", admin, child))).toBe("409 reference_not_found /supplier")
      yield* world.restore("supplier", admin, parent)
      yield* world.restore("order", admin, child)
    })
  )

  it.effect("honours If-Match by version alone, return=minimal and return=representation", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, careful], "headers")
      const made = yield* world.create("careful", admin, { name: "a" })
      const withTicket = { ...admin, ticket: "T-1", reason: "because" }
      const patched = yield* world.patch(
        "careful",
        withTicket,
        idOf(made),
        { name: "b" },
        { ifMatch: '"9-x", "1-ffffffff"' }
      )
      expect(bodyOf(patched)).toMatchObject({ version: 2 })
      const minimal = yield* world.create("supplier", admin, { name: "m" }, { prefer: "return=minimal" })
      expect([minimal.status, minimal.body, minimal.headers["preference-applied"]]).toEqual([
        201,
        undefined,
        "return=minimal"
      ])
      const removed = yield* world.remove("careful", withTicket, idOf(made), {
        ifMatch: "*",
        prefer: "return=representation"
      })
      expect(removed.status).toBe(200)
      expect(bodyOf(removed)).toMatchObject({ version: 3, deleted_at: expect.any(String) })
      const entries = yield* world.sql(
        "select action, reason, ticket_ref from platform.audit_log where schema_path = $1 and outcome = 'ok' and action in ('update', 'delete') order by occurred_at",
        [`${world.chain}/careful/v1`]
      )
      expect(entries).toEqual([
        { action: "update", reason: "because", ticket_ref: "T-1" },
        { action: "delete", reason: "because", ticket_ref: "T-1" }
      ])
    })
  )

  it.effect("does a dry run whole and leaves one entry of it, and nothing else", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier], "dry")
      const rollback = { prefer: "tx=rollback" }
      const id = idOf(yield* world.create("supplier", admin, { name: "a" }))
      const dry = yield* world.create("supplier", admin, { name: "b" }, rollback)
      expect([dry.status, dry.headers["preference-applied"], dry.headers.location, dry.headers.etag]).toEqual([
        201,
        "tx=rollback",
        undefined,
        undefined
      ])
      expect(bodyOf(dry)).toMatchObject({ name: "b", version: 1 })
      expect(bodyOf(dry)).not.toHaveProperty("id")
      expect(bodyOf(yield* world.patch("supplier", admin, id, { name: "c" }, rollback))).toMatchObject({
        name: "c",
        version: 2
      })
      yield* world.remove("supplier", admin, id, rollback)
      expect(yield* refusalOf(world.create("supplier", admin, { name: "a" }, rollback))).toBe(
        "409 unique_conflict /name"
      )
      expect(bodyOf(yield* world.bulk("supplier", admin, [{ name: "x" }, { name: "y" }], rollback))).toEqual({
        created: 2
      })
      expect(yield* world.sql(`select name, version from ${world.table("supplier")}`)).toEqual([
        { name: "a", version: 1 }
      ])
      const entries = yield* world.sql(
        "select action, outcome, payload->>'code' as code from platform.audit_log where schema_path = $1 and action not like 'operator.%' order by occurred_at",
        [`${world.chain}/supplier/v1`]
      )
      expect(entries).toEqual([
        { action: "create", outcome: "ok", code: null },
        { action: "create", outcome: "dry_run", code: null },
        { action: "update", outcome: "dry_run", code: null },
        { action: "delete", outcome: "dry_run", code: null },
        { action: "create", outcome: "dry_run", code: "unique_conflict" },
        { action: "create", outcome: "dry_run", code: null }
      ])
    })
  )

  it.effect("enters one failure for a request that breaks rules, without its values", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier], "fails")
      const failing = callerOf(["admin"], {}, "failing")
      yield* world.create("supplier", failing, { name: "a" })
      yield* refusalOf(world.create("supplier", failing, { name: "a" }))
      yield* refusalOf(world.create("supplier", failing, { name: 7, x: "private" }))
      yield* refusalOf(world.create("supplier", auditor, { name: "b" }))
      const entries = yield* world.sql(
        "select outcome, payload from platform.audit_log where schema_path = $1 and outcome <> 'ok' order by occurred_at",
        [`${world.chain}/supplier/v1`]
      )
      expect(entries).toEqual([
        {
          outcome: "failed",
          payload: { code: "unique_conflict", errors: ["/name unique"], address: "127.0.0.1" }
        },
        {
          outcome: "failed",
          payload: { code: "invalid", errors: ["/name type", "/x unknown_field"], address: "127.0.0.1" }
        }
      ])
    })
  )

  it.effect("answers a repeated key from the record, not from a copy", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order], "keys")
      const key = { idempotencyKey: "k-1" }
      const body = { number: next(), secret: "s", count: 1 }
      const first = yield* world.create("order", admin, body, key)
      const again = yield* world.create("order", admin, body, key)
      expect(again.headers["idempotency-replayed"]).toBe("true")
      expect([again.status, again.body, again.headers.etag, again.headers.location]).toEqual([
        first.status,
        first.body,
        first.headers.etag,
        first.headers.location
      ])
      expect(yield* refusalOf(world.create("order", admin, { ...body, count: 2 }, key))).toBe(
        "422 idempotency_mismatch"
      )
      // a key is its actor's own
      yield* world.create("order", buyer, { number: next() }, key)
      // what did nothing reserves nothing
      expect(
        yield* refusalOf(
          world.patch("order", admin, idOf(first), { count: 5 }, { ifMatch: '"9"', idempotencyKey: "k-2" })
        )
      ).toBe("412 stale")
      yield* world.patch("order", admin, idOf(first), { count: 5 }, { ifMatch: '"1"', idempotencyKey: "k-2" })
      // a replay is judged before If-Match
      const replay = yield* world.patch(
        "order",
        admin,
        idOf(first),
        { count: 5 },
        { ifMatch: '"1"', idempotencyKey: "k-2" }
      )
      expect(bodyOf(replay)).toMatchObject({ version: 2, count: 5 })
      // a newer version is not the one that was answered
      yield* world.patch("order", admin, idOf(first), { count: 6 })
      const later = yield* world.create("order", admin, body, key)
      expect(bodyOf(later)).toEqual(bodyOf(first))
      expect(later.headers.etag).toBe(first.headers.etag)
      // nor is it told to whom the past is none of his business
      const own = idOf(yield* world.create("order", buyer, { number: next(), count: 1 }, { idempotencyKey: "k-0" }))
      const again0 = { number: `PO-${count}`, count: 1 }
      yield* world.patch("order", buyer, own, { count: 2 })
      expect(bodyOf(yield* world.create("order", buyer, again0, { idempotencyKey: "k-0" }))).toEqual({
        id: own,
        version: 1
      })
      // under the row's lock, with a delete, and in bulk
      const steps = [{ op: "replace", path: "/count", value: 9 }]
      yield* world.patch("order", admin, idOf(first), steps, { idempotencyKey: "k-3" })
      expect(bodyOf(yield* world.patch("order", admin, idOf(first), steps, { idempotencyKey: "k-3" }))).toMatchObject({
        count: 9,
        version: 4
      })
      yield* world.remove("order", admin, idOf(first), { idempotencyKey: "k-4" })
      expect((yield* world.remove("order", admin, idOf(first), { idempotencyKey: "k-4" })).status).toBe(204)
      const many = [{ number: next() }, { number: next() }]
      const lines = `{"number":"${next()}"}\n{"number":"${next()}"}`
      const streamed = yield* world.stream("order", admin, lines, { idempotencyKey: "k-6" })
      expect(bodyOf(yield* world.stream("order", admin, lines, { idempotencyKey: "k-6" }))).toEqual(bodyOf(streamed))
      expect(yield* refusalOf(world.stream("order", admin, `${lines}\n{}`, { idempotencyKey: "k-6" }))).toBe(
        "422 idempotency_mismatch"
      )
      const bulk = yield* world.bulk("order", admin, many, { idempotencyKey: "k-5" })
      const replayed = yield* world.bulk("order", admin, many, { idempotencyKey: "k-5" })
      expect(bodyOf(replayed)).toEqual(bodyOf(bulk))
      const [rows] = yield* world.sql(
        `select count(*)::int as n, sum(version)::int as versions from ${world.table("order")}`
      )
      expect(rows).toEqual({ n: 7, versions: 5 + 1 + 1 + 1 + 1 + 1 + 2 })
    })
  )

  it.effect("shows a writer no more than a reader of his roles", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier, order], "masks")
      const id = idOf(yield* world.create("order", admin, { number: next(), price: 77.5, secret: "hush", user: "u" }))
      const answers = [
        yield* world.patch("order", buyer, id, { count: 1 }),
        yield* world.patch("order", buyer, id, [{ op: "replace", path: "/count", value: 2 }]),
        yield* world.put("order", buyer, id, { number: next() }),
        yield* world.patch("order", buyer, id, { count: 3 }, { prefer: "tx=rollback" }),
        yield* world.create("order", buyer, { number: next(), secret: "hush" })
      ]
      for (const answer of answers) {
        expect(answer.body).not.toMatch(/hush|77\.5/)
        expect(bodyOf(answer)._masked).toEqual({ price: null, secret: null })
        expect(bodyOf(answer)).not.toHaveProperty("price")
      }
      // and what he did not see, he did not change
      expect(bodyOf(yield* world.patch("order", admin, id, {}))).toMatchObject({
        price: 77.5,
        secret: "hush",
        user: null
      })
    })
  )

  it.effect("counts only roles that hold for what is touched besides", () =>
    Effect.gen(function* () {
      // a binding of admin that is for writing orders alone, and for everything about suppliers but deletes
      const world = yield* makeWorld(
        [
          supplier,
          {
            ...order,
            fields: order.fields.map((field) =>
              field.name === "supplier" ? { ...field, ref: { ...field.ref, onDelete: "cascade" } } : field
            )
          }
        ],
        "scopes",
        (path, operation = "read") =>
          path.includes("/order/")
            ? ["create", "update"].includes(operation)
              ? ["admin"]
              : []
            : operation === "read"
              ? ["buyer"]
              : ["admin"]
      )
      const id = idOf(yield* world.create("supplier", admin, { name: "a" }))
      const both = callerOf(["admin", "buyer"])
      expect(yield* refusalOf(world.create("order", admin, { number: next(), supplier: id }))).toBe(
        "409 reference_not_found /supplier"
      )
      const made = yield* world.create("order", both, { number: next(), supplier: id })
      expect(Object.keys(bodyOf(made))).toEqual(["id", "version"])
      expect(yield* refusalOf(world.remove("supplier", admin, id))).toBe("409 still_referenced")
    })
  )

  it.effect("takes fields of any name", () =>
    Effect.gen(function* () {
      const names =
        "a b c d e i j n o p r s t v x at doc old new next state event input verdict judged order user select".split(
          " "
        )
      const fields = names.map((name) => ({ name, type: "string" }))
      const world = yield* makeWorld(
        [{ object: "odd", fields, access: { roles }, validation: { rules: [{ rule: "true", message: "m" }] } }],
        "names"
      )
      const body = Object.fromEntries(names.map((name) => [name, `value of ${name}`]))
      const id = idOf(yield* world.create("odd", admin, body))
      expect(bodyOf(yield* world.patch("odd", admin, id, { a: "1" }))).toMatchObject({ ...body, a: "1" })
      yield* world.bulk("odd", admin, [body])
      const states = yield* world.sql("select state from platform.event_log where chain = $1 order by occurred_at", [
        world.chain
      ])
      expect(states.map((one) => one.state)).toMatchObject([body, { ...body, a: "1" }, body])
    })
  )

  it.effect("leaves the log sound", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld([supplier], "sound")
      yield* world.create("supplier", admin, { name: "a" })
      expect(yield* world.sql("select * from platform.audit_verify_window('-infinity', 'infinity')")).toEqual([])
      const [unmatched] = yield* world.sql(
        `select count(*)::int as n from platform.event_log e where not exists (
           select from platform.audit_log a where a.outcome = 'ok' and (a.payload->>'event' = e.id::text or a.payload ? 'root'))`
      )
      expect(unmatched).toEqual({ n: 0 })
    })
  )
})
