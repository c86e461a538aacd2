/** Random writes come to what a model in memory says: the same refusals, rows, versions, events and entries. */
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import fc from "fast-check"
import { expect } from "vitest"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { callerOf, idOf, makeWorld, refusalOf } from "./World.ts"

const all = ["create", "read", "update", "delete", "restore", "history"]
const access = { roles: [{ role: "admin", operations: all }] }
const definitions = [
  {
    object: "node",
    fields: [
      { name: "name", type: "string", unique: true },
      { name: "n", type: "integer", max: "5", default: "1" },
      { name: "info", type: "json" },
      { name: "up", type: "ref", ref: { object: "node", version: "v1" } }
    ],
    access
  }
]
const admin = callerOf(["admin"])

interface Row {
  id: string
  version: number
  live: boolean
  name: string | null
  n: number | null
  info: unknown
  up: number | null
}
/** A body whose `up` is the number of a record. */
type Body = Partial<Record<"name" | "n" | "info" | "up", unknown>>
type Step =
  | { readonly kind: "create"; readonly body: Body }
  | { readonly kind: "patch"; readonly at: number; readonly body: Body; readonly ifMatch?: number | undefined }
  | { readonly kind: "put"; readonly at: number; readonly body: Body; readonly ifMatch?: number | undefined }
  | { readonly kind: "remove"; readonly at: number }
  | { readonly kind: "restore"; readonly at: number }

/** Every sequence begins with something to write to. */
const start: ReadonlyArray<Step> = [
  { kind: "create", body: { name: "a" } },
  { kind: "create", body: { up: 0 } }
]

const slots = 3
const body: fc.Arbitrary<Body> = fc.record(
  {
    name: fc.constantFrom(null, "a", "b", "é"),
    n: fc.oneof({ weight: 8, arbitrary: fc.constantFrom(null, 0, 5) }, { weight: 1, arbitrary: fc.constant(6) }),
    info: fc.constantFrom(null, 1, { a: 1 }, { a: null, b: { c: 2 } }),
    up: fc.constantFrom(null, null, 0, 1, 2)
  },
  { requiredKeys: [] }
)
const at = fc.nat(slots - 1)
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 2, arbitrary: fc.record({ kind: fc.constant("create" as const), body }) },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom("patch" as const, "put" as const),
      at,
      body,
      ifMatch: fc.option(fc.integer({ min: 1, max: 4 }), { nil: undefined, freq: 2 })
    })
  },
  { weight: 3, arbitrary: fc.record({ kind: fc.constantFrom("remove" as const, "restore" as const), at }) }
)

const merge = (target: unknown, patch: unknown): unknown => {
  if (typeof patch !== "object" || patch === null) return patch
  const merged: Record<string, unknown> = typeof target === "object" && target !== null ? { ...target } : {}
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) delete merged[key]
    else merged[key] = merge(merged[key], value)
  }
  return merged
}

/** What the step should come to; changes the rows if it does something. */
const expected = (rows: Array<Row>, one: Step): string => {
  const taken = (name: string | null, self?: Row) =>
    name !== null && rows.some((row) => row !== self && row.live && row.name === name)
  const refers = (up: unknown) => up === null || up === undefined || rows[up as number]?.live === true
  const tooMuch = (n: unknown) => typeof n === "number" && n > 5
  if (one.kind === "create") {
    const { info = null, n = 1, name = null, up = null } = one.body
    if (tooMuch(n)) return "422 invalid /n"
    if (!refers(up)) return "409 reference_not_found /up"
    if (taken(name as string | null)) return "409 unique_conflict /name"
    rows.push({
      id: "",
      version: 1,
      live: true,
      name: name as string | null,
      n: n as number | null,
      info,
      up: up as number | null
    })
    return "ok"
  }
  const row = rows[one.at]
  if (one.kind === "restore") {
    if (row === undefined) return "404 not_found"
    if (row.live) return "409 not_deleted"
    // its own reference counts as soon as it lives
    if (taken(row.name, row)) return "409 unique_conflict /name"
    if (row.up !== null && row.up !== one.at && rows[row.up]?.live !== true) return "409 reference_not_found /up"
    row.live = true
    row.version += 1
    return "ok"
  }
  if (one.kind === "remove") {
    if (row?.live !== true) return "404 not_found"
    if (rows.some((other) => other !== row && other.live && other.up === one.at)) return "409 still_referenced"
    row.live = false
    row.version += 1
    return "ok"
  }
  if (tooMuch(one.body.n)) return "422 invalid /n"
  if (row?.live !== true) return "404 not_found"
  if (one.ifMatch !== undefined && one.ifMatch !== row.version) return "412 stale"
  const base = one.kind === "put" ? { name: null, n: 1, info: null, up: null } : row
  const next = { name: base.name, n: base.n, info: base.info, up: base.up, ...one.body } as Pick<
    Row,
    "name" | "n" | "info" | "up"
  >
  if (one.kind === "patch" && "info" in one.body) next.info = merge(row.info, one.body.info)
  if (next.up !== row.up && !refers(next.up)) return "409 reference_not_found /up"
  if (taken(next.name, row)) return "409 unique_conflict /name"
  Object.assign(row, next, { version: row.version + 1 })
  return "ok"
}

layer(withDatabase(WriteRecords.layer), { excludeTestServices: true })("Random writes", (it) => {
  it.effect("come to what the model says", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(definitions)
      const absent = "01920000-0000-7000-8000-000000000000"
      const seen = new Map<string, number>()
      const sequences = fc.sample(fc.array(step, { minLength: 20, maxLength: 40 }), { numRuns: 60, seed: 20_261_124 })
      let written = 0
      for (const [run, steps] of sequences.entries()) {
        const rows: Array<Row> = []
        // unique values are a domain's, so each sequence has its own
        const said = ({ name, up, ...rest }: Body) => ({
          ...rest,
          ...(name === undefined ? {} : { name: name === null ? null : `${run}-${name}` }),
          ...(up === undefined ? {} : { up: up === null ? null : (rows[up as number]?.id ?? absent) })
        })
        for (const one of [...start, ...steps]) {
          const id = one.kind === "create" ? "" : (rows[one.at]?.id ?? absent)
          const headers = "ifMatch" in one && one.ifMatch !== undefined ? { ifMatch: `"${one.ifMatch}-0"` } : {}
          const sent = "body" in one ? said(one.body) : {}
          const write =
            one.kind === "create"
              ? Effect.map(world.create("node", admin, sent), idOf)
              : one.kind === "remove" || one.kind === "restore"
                ? Effect.as(world[one.kind]("node", admin, id), id)
                : Effect.as(world[one.kind]("node", admin, id, sent, headers), id)
          const outcome = yield* Effect.matchEffect(write, {
            onSuccess: (made) => Effect.succeed({ made, told: "ok" }),
            onFailure: (failure) => Effect.map(refusalOf(Effect.fail(failure)), (told) => ({ made: "", told }))
          })
          const before = rows.length
          const wanted = expected(rows, one)
          expect({ step: one, told: outcome.told }).toEqual({ step: one, told: wanted })
          if (rows.length > before) (rows[before] as Row).id = outcome.made
          if (wanted === "ok") written += 1
          seen.set(`${one.kind} ${wanted}`, (seen.get(`${one.kind} ${wanted}`) ?? 0) + 1)
        }
        for (const row of rows) {
          const [found] = yield* world.sql(
            `select version, deleted_at is null as live, name, n::int as n, info, up::text as up,
               (select count(*)::int from platform.event_log e where e.entity_id = t.id) as events,
               (select count(*)::int from platform.audit_log a where a.entity_id = t.id and a.outcome = 'ok') as entries,
               (select e.state->'info' from platform.event_log e where e.entity_id = t.id order by version desc limit 1) as kept
             from ${world.table("node")} t where id = $1`,
            [row.id]
          )
          expect(found).toEqual({
            version: row.version,
            live: row.live,
            name: row.name === null ? null : `${run}-${row.name}`,
            n: row.n,
            info: row.info,
            up: row.up === null ? null : rows[row.up]?.id,
            events: row.version,
            entries: row.version,
            kept: row.info
          })
        }
      }
      console.log(`${written} writes:`, Object.fromEntries([...seen].sort()))
      for (const outcome of [
        "create ok",
        "patch ok",
        "put ok",
        "remove ok",
        "restore ok",
        "patch 412 stale",
        "remove 409 still_referenced",
        "restore 409 unique_conflict /name",
        "create 409 reference_not_found /up"
      ]) {
        expect(seen.get(outcome) ?? 0).toBeGreaterThan(0)
      }
      expect(yield* world.sql("select * from platform.audit_verify_window('-infinity', 'infinity')")).toEqual([])
    })
  )
})
