import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { bodyOf, callerOf, idOf, makeWorld, refusalOf } from "./World.ts"

const all = ["create", "read", "update", "delete", "restore", "history"]
const access = { roles: [{ role: "admin", operations: all }] }
const definitions = [
  { object: "parent", fields: [{ name: "name", type: "string", unique: true }], access },
  {
    object: "child",
    fields: [{ name: "parent", type: "ref", ref: { object: "parent", version: "v1" } }],
    access
  },
  {
    object: "follower",
    fields: [{ name: "parent", type: "ref", ref: { object: "parent", version: "v1", onDelete: "cascade" } }],
    access
  },
  {
    object: "counter",
    fields: [
      { name: "n", type: "integer", default: "0" },
      { name: "log", type: "json" }
    ],
    access
  }
]
const admin = callerOf(["admin"])
const all8 = { concurrency: "unbounded" } as const

layer(withDatabase(WriteRecords.layer), { excludeTestServices: true })("Writes at once", (it) => {
  it.effect("lets one of two patches with one ETag through", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "etag")
      for (let round = 0; round < 10; round++) {
        const made = yield* world.create("counter", admin, {})
        const ifMatch = String(made.headers.etag)
        const outcomes = yield* Effect.all(
          [1, 2].map((n) => refusalOf(world.patch("counter", admin, idOf(made), { n }, { ifMatch }))),
          all8
        )
        expect([...outcomes].sort()).toEqual(["412 stale", "ok"])
      }
    })
  )

  it.effect("loses no write of eight to one record, in one round trip or two", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "eight")
      const id = idOf(yield* world.create("counter", admin, { log: {} }))
      yield* Effect.all(
        Array.from({ length: 8 }, (_, n) => world.patch("counter", admin, id, { log: { [`k${n}`]: n } })),
        all8
      )
      yield* Effect.all(
        Array.from({ length: 8 }, (_, n) => world.patch("counter", admin, id, { n })),
        all8
      )
      const last = bodyOf(yield* world.patch("counter", admin, id, {}))
      expect(last).toMatchObject({ version: 18 })
      expect(Object.keys(last.log as object)).toHaveLength(8)
      const events = yield* world.sql(
        "select version, occurred_at::text as at, state->>'version' as told from platform.event_log where entity_id = $1 order by version",
        [id]
      )
      expect(events.map((event) => event.version)).toEqual(Array.from({ length: 18 }, (_, index) => index + 1))
      const times = events.map((event) => String(event.at))
      expect([...times].sort()).toEqual(times)
      expect(new Set(times).size).toBe(18)
      const entries = yield* world.sql("select count(*)::int as n from platform.audit_log where entity_id = $1", [id])
      expect(entries).toEqual([{ n: 18 }])
    })
  )

  it.effect("never leaves a live child of a deleted parent", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "orphans")
      for (let round = 0; round < 15; round++) {
        const parent = idOf(yield* world.create("parent", admin, {}))
        const outcomes = yield* Effect.all(
          [
            refusalOf(world.remove("parent", admin, parent)),
            refusalOf(world.create("child", admin, { parent })),
            refusalOf(world.create("follower", admin, { parent }))
          ],
          all8
        )
        for (const outcome of outcomes) {
          expect(["ok", "409 still_referenced", "409 reference_not_found /parent"]).toContain(outcome)
        }
      }
      for (const object of ["child", "follower"]) {
        expect(
          yield* world.sql(
            `select c.id from ${world.table(object)} c join ${world.table("parent")} p on p.id = c.parent
             where c.deleted_at is null and p.deleted_at is not null`
          )
        ).toEqual([])
      }
    })
  )

  it.effect("gives a unique value to one of many, and a key to one request", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "unique")
      const outcomes = yield* Effect.all(
        Array.from({ length: 8 }, () => refusalOf(world.create("parent", admin, { name: "same" }))),
        all8
      )
      expect([...outcomes].sort()).toEqual([...Array.from({ length: 7 }, () => "409 unique_conflict /name"), "ok"])
      const keyed = yield* Effect.all(
        Array.from({ length: 8 }, () => refusalOf(world.create("counter", admin, {}, { idempotencyKey: "one" }))),
        all8
      )
      for (const outcome of keyed) expect(["ok", "409 in_flight"]).toContain(outcome)
      expect(yield* world.sql(`select count(*)::int as n from ${world.table("counter")}`)).toEqual([{ n: 1 }])
    })
  )

  it.effect("keeps the log sound under all of it", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "sound")
      yield* Effect.all(
        Array.from({ length: 32 }, () => world.create("counter", admin, {})),
        all8
      )
      expect(yield* world.sql("select * from platform.audit_verify_window('-infinity', 'infinity')")).toEqual([])
      expect(
        yield* world.sql(
          `select count(*)::int as n from platform.event_log e
           where (select count(*) from platform.audit_log a where a.payload->>'event' = e.id::text) <> 1`
        )
      ).toEqual([{ n: 0 }])
    })
  )
})
