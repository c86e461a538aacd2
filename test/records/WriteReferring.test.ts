import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { expect } from "vitest"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { bodyOf, callerOf, idOf, makeWorld, refusalOf } from "./World.ts"

const all = ["create", "read", "update", "delete", "restore", "history"]
const roles = [
  { role: "admin", operations: all },
  { role: "store", operations: all },
  { role: "remover", operations: ["read", "delete"] }
]
const ref = (name: string, object: string, onDelete: string) => ({
  name,
  type: "ref",
  ref: { object, version: "v1", onDelete }
})
const definitions = [
  { object: "root", fields: [{ name: "name", type: "string" }], access: { roles } },
  {
    object: "branch",
    fields: [{ name: "name", type: "string" }, ref("root", "root", "cascade"), ref("up", "branch", "cascade")],
    access: { roles }
  },
  { object: "leaf", fields: [{ name: "name", type: "string" }, ref("branch", "branch", "cascade")], access: { roles } },
  {
    object: "note",
    fields: [{ name: "text", type: "string" }, ref("root", "root", "setNull"), { name: "store_id", type: "string" }],
    access: {
      roles: roles.filter(({ role }) => role !== "remover"),
      rowFilters: [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
    }
  },
  {
    object: "bound",
    fields: [ref("root", "root", "setNull"), { name: "kind", type: "string" }],
    validation: { rules: [{ rule: "self.kind != 'fixed' || has(self.root)", message: "a fixed one keeps its root" }] },
    access: { roles }
  }
]
const admin = callerOf(["admin"])
const store = callerOf(["store"], { store_id: "s1" })
const remover = callerOf(["remover"])

layer(withDatabase(WriteRecords.layer), { excludeTestServices: true })("Deleting what others refer to", (it) => {
  const plant = (domain: string) =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, domain)
      const root = idOf(yield* world.create("root", admin, { name: "r" }))
      const branches = [
        idOf(yield* world.create("branch", admin, { name: "b1", root })),
        idOf(yield* world.create("branch", admin, { name: "b2", root }))
      ]
      const twig = idOf(yield* world.create("branch", admin, { name: "t", up: branches[0] }))
      const leaves = [
        idOf(yield* world.create("leaf", admin, { name: "l1", branch: twig })),
        idOf(yield* world.create("leaf", admin, { name: "l2", branch: branches[1] }))
      ]
      return { world, root, branches, twig, leaves }
    })

  it.effect("takes along and empties, each with its own event and entry", () =>
    Effect.gen(function* () {
      const { branches, leaves, root, twig, world } = yield* plant("takes")
      const note = idOf(yield* world.create("note", admin, { text: "n", root }))
      expect((yield* world.remove("root", admin, root)).status).toBe(204)
      const gone = yield* world.sql(
        `select e.entity_id::text as id, e.id::text as event, e.op, e.version, a.action, a.outcome, a.schema_path, a.payload->>'hash' = encode(e.hash, 'hex') as same,
           e.hash = platform.event_hash(e.salt, e.storage_id || '/' || e.entity_id || '/' || e.version || '/' || e.op, e.state) as sound
         from platform.event_log e join platform.audit_log a on a.payload->>'event' = e.id::text
         where e.chain = $1 and e.version = 2 order by e.entity_id`,
        [world.chain]
      )
      const expected = [...[root, ...branches, twig, ...leaves].map((id) => [id, "delete"]), [note, "update"]].sort()
      expect(gone.map((row) => [row.id, row.op])).toEqual(expected)
      for (const row of gone) expect(row).toMatchObject({ action: row.op, outcome: "ok", same: true, sound: true })
      for (const row of gone) expect(row.event).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab]/u)
      expect(new Set(gone.map((row) => row.schema_path)).size).toBe(4)
      expect(yield* world.sql(`select root, version, deleted_at from ${world.table("note")}`)).toEqual([
        { root: null, version: 2, deleted_at: null }
      ])
      expect(yield* world.sql("select * from platform.audit_verify_window('-infinity', 'infinity')")).toEqual([])
    })
  )

  it.effect("refuses whole where the caller may not do it to one of them", () =>
    Effect.gen(function* () {
      const { root, world } = yield* plant("refuses")
      const own = idOf(yield* world.create("note", store, { text: "n", root, store_id: "s1" }))
      const before = yield* world.sql("select count(*)::int as n from platform.event_log")
      // the remover has no right on notes, the store only on its own
      expect(yield* refusalOf(world.remove("root", remover, root))).toBe("409 still_referenced")
      const foreign = idOf(yield* world.create("note", admin, { text: "n", root, store_id: "s2" }))
      expect(yield* refusalOf(world.remove("root", store, root))).toBe("409 still_referenced")
      yield* world.remove("note", admin, foreign)
      const fixed = idOf(yield* world.create("bound", admin, { root, kind: "fixed" }))
      expect(yield* refusalOf(world.remove("root", store, root))).toBe("409 still_referenced")
      expect(yield* refusalOf(world.remove("root", store, root, { ifMatch: '"5-00000000"' }))).toBe("412 stale")
      const [after] = yield* world.sql("select count(*)::int as n from platform.event_log")
      expect(after?.n).toBe(Number(before[0]?.n) + 3)
      yield* world.remove("bound", admin, fixed)
      expect(yield* world.remove("root", store, root, { prefer: "tx=rollback" })).toMatchObject({ status: 204 })
      expect((yield* world.remove("root", store, root)).status).toBe(204)
      expect(yield* world.sql(`select id::text, root from ${world.table("note")} where deleted_at is null`)).toEqual([
        { id: own, root: null }
      ])
    })
  )

  it.effect("refuses a circle across records rather than going round in it", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions, "circle")
      const one = idOf(yield* world.create("branch", admin, { name: "1" }))
      const two = idOf(yield* world.create("branch", admin, { name: "2", up: one }))
      const self = idOf(yield* world.create("branch", admin, { name: "s" }))
      yield* world.patch("branch", admin, one, { up: two })
      yield* world.patch("branch", admin, self, { up: self })
      expect(yield* refusalOf(world.remove("branch", admin, one))).toBe("409 still_referenced")
      yield* world.remove("branch", admin, self)
      yield* world.patch("branch", admin, one, { up: null })
      expect(bodyOf(yield* world.remove("branch", admin, one, { prefer: "return=representation" }))).toMatchObject({
        version: 4
      })
    })
  )
})
