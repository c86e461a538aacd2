/** Writes at random through either of two versions, against rows in memory: both versions and both pasts show the same. */
import * as fc from "fast-check"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { provision } from "./Provisioned.ts"
import { type Reply, send } from "./Requests.ts"
import { makeWorld, tokenOf, type World } from "./World.ts"

type Version = "v1" | "v2"

/** The columns of the rows, as each version calls them; undefined where it has none. */
const columns = [
  { name: "a", v1: "a", v2: "a" },
  { name: "b", v1: "b", v2: "bee" },
  { name: "c", v1: "c", v2: undefined },
  { name: "n", v1: undefined, v2: "n" },
  { name: "j", v1: "j", v2: "jay" }
] as const
type Column = (typeof columns)[number]["name"]
const defaults: Partial<Record<Column, unknown>> = { n: 7, c: "see" }

interface Row {
  readonly version: number
  readonly deleted: boolean
  readonly values: Readonly<Record<Column, unknown>>
}

let world: World
let chain: string
let token: string

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      const strategy = await make("shop")
      const [org, app, domain] = chain.split("/")
      const operations = ["create", "read", "update", "delete", "restore", "history"]
      const of = (version: Version, fields: ReadonlyArray<unknown>, more = {}) => ({
        org,
        app,
        domain,
        object: "thing",
        version,
        fields,
        access: { roles: [{ role: "editor", operations }] },
        ...more
      })
      const text = (name: string, more: Record<string, unknown> = {}) => ({ name, type: "string", ...more })
      const types = [
        of("v1", [
          text("a", { unique: true, required: true }),
          text("b"),
          text("c", { default: "see" }),
          { name: "j", type: "json" }
        ]),
        of(
          "v2",
          [
            text("a", { unique: true, required: true }),
            text("bee", { renamedFrom: ["b"] }),
            { name: "n", type: "integer", required: true, default: "7" },
            { name: "jay", type: "json", renamedFrom: ["j"] }
          ],
          // rules make every change of this version read its row first
          { validation: { rules: [{ rule: "!has(self.bee) || self.bee != 'never'", message: "never" }] } }
        )
      ]
      await provision(database, [{ chain, strategy: strategy.id, types }])
      token = await tokenOf(strategy, { roles: ["editor"] })
    }
  })
}, 60_000)
afterAll(() => world.stop())

const ask = (method: string, path: string, body?: unknown): Promise<Reply> =>
  send(world.url, `/api/${chain}/thing/${path}`, {
    method,
    token,
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
  })

const seen = (version: Version, values: Row["values"]): Record<string, unknown> =>
  Object.fromEntries(
    columns.flatMap((column) => {
      const name = column[version]
      return name === undefined ? [] : [[name, values[column.name]]]
    })
  )

const word = fc.constantFrom("x", "y", "z", null)
const act = fc.record({
  via: fc.constantFrom<Version>("v1", "v2"),
  does: fc.constantFrom("create", "create", "patch", "patch", "put", "delete", "restore"),
  which: fc.nat(50),
  a: fc.constantFrom("k1", "k2", "k3", "k4", "k5", "k6", "k7", "k8"),
  b: fc.option(word, { nil: undefined }),
  c: fc.option(word, { nil: undefined }),
  n: fc.option(fc.integer({ min: -3, max: 3 }), { nil: undefined }),
  j: fc.option(fc.constantFrom({ deep: [1, "2"] }, [], 3), { nil: undefined })
})

describe("two versions of one set of rows", () => {
  it("agree with rows in memory, whatever is written through which", { timeout: 120_000 }, async () => {
    const acts = fc.sample(fc.array(act, { minLength: 140, maxLength: 140 }), { numRuns: 1, seed: 62 })[0] ?? []
    const rows = new Map<string, Row>()
    const past = new Map<string, Array<Row>>()
    const taken = (a: unknown, but?: string) =>
      [...rows].some(([id, row]) => id !== but && !row.deleted && row.values.a === a)
    const write = (id: string, row: Row) => {
      rows.set(id, row)
      past.set(id, [...(past.get(id) ?? []), row])
    }
    const done = new Map<string, number>()
    for (const [index, { does, via, which, ...said }] of acts.entries()) {
      const given = columns.flatMap((column) => {
        const name = column[via]
        const value = said[column.name]
        return name === undefined || value === undefined ? [] : [[column.name, name, value] as const]
      })
      const body = Object.fromEntries(given.map(([, name, value]) => [name, value]))
      const set = Object.fromEntries(given.map(([column, , value]) => [column, value]))
      const own = columns.filter((column) => column[via] !== undefined).map(({ name }) => name)
      const blank = Object.fromEntries(columns.map(({ name }) => [name, defaults[name] ?? null])) as Row["values"]
      const [id, row] = [...rows][which % Math.max(1, rows.size)] ?? []
      const label = `${index}: ${does} through ${via} ${JSON.stringify(body)}`
      let reply: Reply
      let expected: number
      if (does === "create" || id === undefined || row === undefined) {
        reply = await ask("POST", via, body)
        expected = taken(said.a) ? 409 : 201
        if (expected === 201) write(reply.json.id, { version: 1, deleted: false, values: { ...blank, ...set } })
      } else if (does === "patch" || does === "put") {
        reply = await ask(does.toUpperCase(), `${via}/${id}`, body)
        expected = row.deleted ? 404 : taken(said.a, id) ? 409 : 200
        const kept =
          does === "patch"
            ? row.values
            : { ...row.values, ...Object.fromEntries(own.map((name) => [name, blank[name]])) }
        if (expected === 200) write(id, { version: row.version + 1, deleted: false, values: { ...kept, ...set } })
      } else if (does === "delete") {
        reply = await ask("DELETE", `${via}/${id}`)
        expected = row.deleted ? 404 : 204
        if (expected === 204) write(id, { ...row, version: row.version + 1, deleted: true })
      } else {
        reply = await ask("POST", `${via}/${id}/restore`)
        expected = row.deleted ? (taken(row.values.a, id) ? 409 : 200) : 409
        if (row.deleted && expected === 200) write(id, { ...row, version: row.version + 1, deleted: false })
      }
      expect(reply.status, `${label}: ${reply.text}`).toBe(expected)
      done.set(`${does} ${expected}`, (done.get(`${does} ${expected}`) ?? 0) + 1)
      const touched = reply.json?.id ?? id
      const after = rows.get(touched)
      for (const version of ["v1", "v2"] as const) {
        if (after === undefined) continue
        const now = await ask("GET", `${version}/${touched}`)
        expect(now.status, label).toBe(after.deleted ? 404 : 200)
        if (!after.deleted) {
          expect(now.json, label).toMatchObject({ version: after.version, ...seen(version, after.values) })
        }
      }
    }
    for (const version of ["v1", "v2"] as const) {
      const listed = (await ask("GET", `${version}?limit=1000`)).json.items as ReadonlyArray<Record<string, unknown>>
      const live = [...rows].filter(([, row]) => !row.deleted).map(([id]) => id)
      expect(listed.map((item) => String(item.id)).sort()).toEqual(live.sort())
      for (const [id, states] of past) {
        const items = (await ask("GET", `${version}/${id}/history?limit=1000`)).json.items
        expect(items.map((item: { state: unknown }) => item.state).reverse()).toMatchObject(
          states.map((row) => ({ version: row.version, ...seen(version, row.values) }))
        )
      }
    }
    const sound = await world.look(
      `select count(*)::int4 as events, count(*) filter (where e.hash = platform.event_hash(e.salt, e.storage_id || '/' || e.entity_id || '/' || e.version || '/' || e.op, e.state))::int4 as sound,
         count(distinct (select string_agg(k, ',' order by k) from jsonb_object_keys(e.state) k))::int4 as shapes from platform.event_log e`
    )
    expect(sound[0]?.sound).toBe(sound[0]?.events)
    expect(sound[0]?.shapes).toBe(1)
    // the seed is one that does all of it
    expect([...done.keys()].sort()).toEqual(
      expect.arrayContaining([
        "create 201",
        "create 409",
        "delete 204",
        "patch 200",
        "patch 409",
        "put 200",
        "restore 200"
      ])
    )
  })
})
