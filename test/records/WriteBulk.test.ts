import { layer } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import { expect } from "vitest"
import { leafHash, rootHash } from "../../src/domain/MerkleTree.ts"
import { problem } from "../../src/domain/Problem.ts"
import { NdjsonLines } from "../../src/records/bulk/NdjsonLines.ts"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { bodyOf, callerOf, idOf, linesOf, makeWorld, refusalOf } from "./World.ts"

const all = ["create", "read", "update", "delete", "restore", "history"]
const roles = [
  { role: "admin", operations: all },
  { role: "store", operations: all }
]
const definitions = [
  {
    object: "country",
    fields: [
      { name: "name", type: "string" },
      { name: "store_id", type: "string" }
    ],
    access: {
      roles,
      rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
    }
  },
  {
    object: "city",
    fields: [
      { name: "code", type: "integer", required: true, unique: true },
      { name: "name", type: "string", maxLength: 40 },
      { name: "area", type: "number", precision: 12, scale: 3 },
      { name: "country", type: "ref", ref: { object: "country", version: "v1" } },
      { name: "store_id", type: "string" },
      { name: "flag", type: "bytes" }
    ],
    validation: { rules: [{ rule: "!has(self.name) || self.name != 'no'", message: "no is no name" }] },
    access: {
      roles,
      rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
    }
  }
]
const admin = callerOf(["admin"])
const store = callerOf(["store"], { store_id: "s1" })
const nobody = "01920000-0000-7000-8000-000000000000"
const range = (length: number, from = 0) => Array.from({ length }, (_, index) => index + from)
const ndjson = (records: ReadonlyArray<unknown>) => records.map((record) => JSON.stringify(record)).join("\n")

layer(withDatabase(WriteRecords.layer), { excludeTestServices: true })("Many at once", (it) => {
  it.effect(
    "creates an array in one transaction: an event a record, an entry a chunk with the root over its events",
    () =>
      Effect.gen(function* () {
        const world = yield* makeWorld(definitions, "array")
        const made = yield* world.bulk(
          "city",
          admin,
          range(1201).map((code) => ({ code, area: code, name: `é${code}`, flag: "AAE=" }))
        )
        expect(made.status).toBe(201)
        const body = bodyOf(made)
        expect(body).toMatchObject({ created: 1201 })
        const rows = yield* world.sql(
          `select e.entity_id::text as id, e.id::text as event, encode(e.hash, 'hex') as hash, e.version, e.op, c.area::text as area, (e.state->>'code')::int as code,
           e.hash = platform.event_hash(e.salt, e.storage_id || '/' || e.entity_id || '/1/create', e.state) as sound
         from platform.event_log e join ${world.table("city")} c on c.id = e.entity_id order by e.entity_id`
        )
        expect(rows).toHaveLength(1201)
        expect([rows[0]?.id, rows.at(-1)?.id]).toEqual([body.first_id, body.last_id])
        expect(
          rows.every((row, index) => row.sound === true && row.code === index && row.area === `${index}.000`)
        ).toBe(true)
        for (const row of rows) expect(row.event).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/u)
        const entries = yield* world.sql(
          "select payload, action, outcome from platform.audit_log where schema_path = $1 and action not like 'operator.%' order by payload->>'first_id'",
          [`${world.chain}/city/v1`]
        )
        expect(entries.map((entry) => (entry.payload as { count: number }).count)).toEqual([500, 500, 201])
        entries.forEach((entry, index) => {
          const chunk = rows.slice(index * 500, index * 500 + 500)
          const root = rootHash(chunk.map((row) => leafHash(Buffer.from(String(row.hash), "hex"))))
          expect(entry).toMatchObject({
            action: "create",
            outcome: "ok",
            payload: { first_id: chunk[0]?.id, last_id: chunk.at(-1)?.id, root: Buffer.from(root).toString("hex") }
          })
        })
      })
  )

  it.effect("answers ids, and nothing for nothing", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "ids")
      const made = yield* world.stream("city", admin, ndjson(range(700).map((code) => ({ code }))), {
        prefer: "return=representation"
      })
      expect(made.body).toBeUndefined()
      const ids = (yield* linesOf(made)).map((line) => line.id)
      const rows = yield* world.sql(`select id::text from ${world.table("city")} order by code`)
      expect(ids).toEqual(rows.map((row) => row.id))
      for (const answer of [yield* world.stream("city", admin, "\n  \n"), yield* world.bulk("city", admin, [])]) {
        expect(bodyOf(answer)).toEqual({ created: 0, first_id: null, last_id: null })
      }
    })
  )

  it.effect("imports at their senders' pace leave connections for everybody else", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "pace")
      const go = yield* Deferred.make<void>()
      let code = 0
      /** An import that sends one record and then nothing, until it may go on; answers when it is under way. */
      const slow = (actor: string) =>
        Effect.gen(function* () {
          const began = yield* Deferred.make<void>()
          const line = new TextEncoder().encode(`{"code":${code++}}\n`)
          const body = Stream.make(line).pipe(
            Stream.concat(
              Stream.fromEffect(Deferred.succeed(began, undefined).pipe(Effect.andThen(Deferred.await(go)))).pipe(
                Stream.drain
              )
            )
          )
          const fiber = yield* Effect.forkChild(refusalOf(world.stream("city", callerOf(["admin"], {}, actor), body)))
          yield* Effect.raceFirst(Deferred.await(began), Fiber.await(fiber))
          return fiber
        })
      const refused = (actor: string) =>
        refusalOf(world.stream("city", callerOf(["admin"], {}, actor), ndjson([{ code: code++ }])))
      const fibers = []
      // of the pool's 16 connections: four for one actor, eight for all
      for (const actor of ["ann", "ann", "ann", "ann", "ben", "ben", "ben", "cleo"]) {
        if (fibers.length === 4) expect(yield* refused("ann")).toBe("503 busy")
        fibers.push(yield* slow(actor))
      }
      expect(yield* refused("cleo")).toBe("503 busy")
      expect(yield* refused("dan")).toBe("503 busy")
      // who imports nothing is served, and so is an array
      for (let n = 0; n < 16; n++) expect(yield* refusalOf(world.create("city", admin, { code: code++ }))).toBe("ok")
      expect(yield* refusalOf(world.bulk("city", admin, [{ code: code++ }]))).toBe("ok")
      yield* Deferred.succeed(go, undefined)
      for (const fiber of fibers) expect(yield* Fiber.join(fiber)).toBe("ok")
      expect(yield* refused("ann")).toBe("ok")
      expect(yield* world.sql(`select count(*)::int as n from ${world.table("city")}`)).toEqual([{ n: 26 }])
    })
  )

  it.effect("writes nothing where one record is wrong, and says which", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "nothing")
      const country = idOf(yield* world.create("country", admin, { name: "c", store_id: "s2" }))
      yield* world.create("city", admin, { code: 777 })
      const good = range(600)
      const withBad = (at: number, record: unknown) => good.map((code) => (code === at ? record : { code }))
      const cases: Array<[string, Effect.Effect<unknown, unknown>]> = [
        ["422 invalid /3/code /3/x", world.bulk("city", admin, withBad(3, { code: "a", x: 1 }))],
        [
          "422 invalid /3/code /9/name",
          world.bulk(
            "city",
            admin,
            good.map((code) => (code === 3 ? {} : code === 9 ? { code, name: 1 } : { code }))
          )
        ],
        ["422 invalid /4", world.bulk("city", admin, withBad(4, { code: 4, name: "no" }))],
        ["422 invalid /5", world.bulk("city", admin, withBad(5, 7))],
        ["409 unique_conflict /550/code", world.bulk("city", admin, withBad(550, { code: 777 }))],
        ["409 unique_conflict /551/code", world.stream("city", admin, ndjson(withBad(551, { code: 3 })))],
        [
          "409 reference_not_found /10/country /20/country",
          world.bulk(
            "city",
            admin,
            good.map((code) => (code % 10 === 0 && code > 0 && code < 30 ? { code, country: nobody } : { code }))
          )
        ],
        [
          "403 row_outside_filter /0",
          world.bulk("city", store, [
            { code: 1, store_id: "s2" },
            { code: 2, store_id: "s1" }
          ])
        ],
        [
          "409 reference_not_found /1/country",
          world.bulk("city", store, [
            { code: 2, store_id: "s1" },
            { code: 1, store_id: "s1", country }
          ])
        ],
        [
          "400 malformed_json /599",
          world.stream("city", admin, `${ndjson(good.slice(0, 599).map((code) => ({ code })))}\n{"code":`)
        ],
        ["400 malformed_json /1", world.stream("city", admin, '{"code":1}\n{"code":2,"code":3}')],
        [
          "413 payload_too_large /1",
          world.stream("city", admin, `{"code":1}\n{"name":"${"x".repeat(1024 * 1024)}"}\n{"code":2}`)
        ],
        [
          "408 request_timeout",
          world.stream(
            "city",
            admin,
            Stream.concat(
              Stream.make(new TextEncoder().encode('{"code":1}\n')),
              Stream.fail(problem("request_timeout"))
            )
          )
        ],
        ["422 invalid ", world.bulk("city", admin, { code: 1 })]
      ]
      for (const [expected, effect] of cases) expect(yield* refusalOf(effect)).toBe(expected)
      expect(yield* world.sql(`select code::int from ${world.table("city")}`)).toEqual([{ code: 777 }])
      expect(
        yield* world.sql("select count(*)::int as n from platform.event_log where op = 'create' and chain = $1", [
          world.chain
        ])
      ).toEqual([{ n: 2 }])
    })
  )

  it.effect("commits what is good when it is asked to be lenient, and tells of each record in order", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "lenient")
      yield* world.create("city", admin, { code: 5 })
      const records = range(1100).map((code): Record<string, unknown> => ({ code }))
      records[7] = { code: "x" }
      records[20] = { code: 20, country: nobody }
      records[600] = { code: 601 }
      records[1099] = { nope: 1 }
      const answer = yield* world.stream("city", admin, `${ndjson(records)}\n{`, { prefer: "handling=lenient" })
      expect([answer.status, answer.headers["preference-applied"]]).toEqual([200, "handling=lenient"])
      const lines = yield* linesOf(answer)
      expect(lines.map((line) => line.line)).toEqual(range(1101, 1))
      const failed = lines.filter((line) => line.status !== 201)
      expect(failed.map((line) => [line.line, line.status, (line.problem as { code: string }).code])).toEqual([
        [6, 409, "unique_conflict"],
        [8, 422, "invalid"],
        [21, 409, "reference_not_found"],
        [602, 409, "unique_conflict"],
        [1100, 422, "invalid"],
        [1101, 400, "malformed_json"]
      ])
      const rows = yield* world.sql(`select id::text, code::int from ${world.table("city")} order by code`)
      expect(rows).toHaveLength(1 + 1101 - 6)
      expect(new Set(lines.map((line) => line.id).filter(Boolean))).toEqual(
        new Set(
          rows
            .map((row) => row.id)
            .slice(0, 5)
            .concat(rows.slice(6).map((row) => row.id))
        )
      )
      const [counts] = yield* world.sql(
        "select sum((payload->>'count')::int) filter (where payload ? 'root')::int as audited, count(*) filter (where outcome = 'failed')::int as failed from platform.audit_log where schema_path = $1",
        [`${world.chain}/city/v1`]
      )
      expect(counts).toEqual({ audited: 1101 - 6, failed: 1 })
      expect(yield* refusalOf(world.bulk("city", admin, [], { prefer: "handling=lenient", idempotencyKey: "k" }))).toBe(
        "400 malformed_header"
      )
      const small = yield* world.bulk("city", admin, [{ code: 5000 }, { code: 5000 }], { prefer: "handling=lenient" })
      expect((yield* linesOf(small)).map((line) => line.status)).toEqual([201, 409])
      expect(yield* world.sql("select * from platform.audit_verify_window('-infinity', 'infinity')")).toEqual([])
    })
  )

  it.effect("reads a stream with flat memory", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "flat")
      const filler = "x".repeat(36)
      const collect = (globalThis as { gc?: () => void }).gc
      const block = (n: number) =>
        new TextEncoder().encode(
          range(100, n * 100)
            .map((code) => `{"code":${code},"name":"${filler}"}\n`)
            .join("")
        )
      let most = 0
      const stream = Stream.range(0, 399).pipe(
        Stream.map((n) => {
          collect?.()
          most = Math.max(most, process.memoryUsage().heapUsed)
          return block(n)
        })
      )
      const before = process.memoryUsage().heapUsed
      const answer = yield* world.stream("city", admin, stream)
      expect(bodyOf(answer)).toMatchObject({ created: 40_000 })
      // the stream alone is 2.6 MB as text and many times that as records
      expect(most - before).toBeLessThan(150_000_000)
    })
  )
})

layer(withDatabase(WriteRecords.layer, { VELOCITY_IMPORT_MAX_RECORDS: "10" }), { excludeTestServices: true })(
  "Limits of an import",
  (it) => {
    it.effect("refuses more records than are allowed", () =>
      Effect.gen(function* () {
        const world = yield* makeWorld(definitions, "limit")
        const text = (length: number) => ndjson(range(length).map((code) => ({ code })))
        expect(yield* refusalOf(world.stream("city", admin, text(11)))).toBe("413 payload_too_large /10")
        expect(bodyOf(yield* world.stream("city", admin, text(10)))).toMatchObject({ created: 10 })
      })
    )

    it("cuts lines wherever the bytes are cut", () => {
      const text = '{"a":"é𝒳"}\r\n\n{"b":2}\n\ufeff{"c":3}'
      const bytes = new TextEncoder().encode(text)
      for (let size = 1; size <= bytes.length; size++) {
        const lines = new NdjsonLines()
        const found = []
        for (let at = 0; at < bytes.length; at += size) found.push(...lines.push(bytes.subarray(at, at + size)))
        found.push(...lines.end())
        expect(found.map((line) => [line.number, JSON.parse(line.text ?? "")])).toEqual([
          [1, { a: "é𝒳" }],
          [3, { b: 2 }],
          [4, { c: 3 }]
        ])
      }
      const broken = new NdjsonLines().push(Uint8Array.of(0x22, 0xff, 0x0a))
      expect(broken).toEqual([{ number: 1, text: undefined, fault: "not_utf8" }])
    })
  }
)
