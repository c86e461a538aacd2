/**
 * Two versions of one object with other row filters and other roles: nobody gets through one what the other alone would
 * give him, neither over HTTP nor by SQL in the API's own session.
 */
import { Effect, Redacted } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { provision } from "../server/Provisioned.ts"
import { send } from "../server/Requests.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { connect } from "../support/Database.ts"

let world: World
let strategy: Strategy
let chain: string
let schema: string
let ids: Readonly<Record<string, number>>

const all = ["create", "read", "update", "delete", "restore", "history"]
const by = (role: string, field: string, attribute: string) => ({
  role,
  filter: { field, op: "eq", identity: `attributes.${attribute}` }
})
const fields = [
  { name: "name", type: "string", filterable: true },
  { name: "store_id", type: "string", indexed: true },
  { name: "region", type: "string" }
]
const renamed = fields.map((field) => ({ ...field, name: `the_${field.name}`, renamedFrom: [field.name] }))
const definitions = () => {
  const [org, app, domain] = chain.split("/")
  const of = (object: string, version: string, columns: ReadonlyArray<unknown>, access: unknown) => ({
    org,
    app,
    domain,
    object,
    version,
    fields: columns,
    access
  })
  return [
    of("thing", "v1", fields, {
      roles: [
        { role: "store", operations: all },
        { role: "boss", operations: all },
        { role: "clerk", operations: ["read", "history"] }
      ],
      rowFilters: [by("store", "store_id", "store_id")]
    }),
    // a store sees its own region only; a clerk nothing; an auditor, of whom v1 knows nothing, all
    of("thing", "v2", renamed, {
      roles: [
        { role: "store", operations: all },
        { role: "boss", operations: all },
        { role: "auditor", operations: ["read", "history"] }
      ],
      rowFilters: [by("store", "the_store_id", "store_id"), by("store", "the_region", "region")]
    }),
    of(
      "line",
      "v1",
      [
        { name: "one", type: "ref", ref: { object: "thing", version: "v1" } },
        { name: "two", type: "ref", ref: { object: "thing", version: "v2" } }
      ],
      { roles: ["store", "boss", "clerk", "auditor"].map((role) => ({ role, operations: all })) }
    )
  ]
}

/** Everybody, with what they see of the four records through each version. */
const store = { roles: ["store"], attributes: { store_id: "s1", region: "north" } }
const boss = { roles: ["boss"], attributes: {} }
const people: ReadonlyArray<
  readonly [
    string,
    { readonly roles: ReadonlyArray<string>; readonly attributes: Record<string, string> },
    string,
    string,
    string
  ]
> = [
  // who, his claims, v1, v2, and what is read of either under another record type's definition
  ["a store", store, "s1n s1s", "s1n", "s1n"],
  ["a store that is an auditor", { ...store, roles: ["store", "auditor"] }, "s1n s1s", "s1n s1s s2n s2s", "s1n s1s"],
  ["a store that is a clerk", { ...store, roles: ["store", "clerk"] }, "s1n s1s s2n s2s", "s1n", "s1n"],
  ["a clerk", { roles: ["clerk"], attributes: {} }, "s1n s1s s2n s2s", "403", ""],
  ["an auditor", { roles: ["auditor"], attributes: {} }, "403", "s1n s1s s2n s2s", ""],
  ["a boss", boss, "s1n s1s s2n s2s", "s1n s1s s2n s2s", "s1n s1s s2n s2s"]
]
const made: Record<string, string> = {}

const ask = async (who: (typeof people)[number][1], method: string, path: string, body?: unknown) =>
  send(world.url, `/api/${chain}/${path}`, {
    method,
    token: await world.token(strategy, { roles: who.roles, attributes: who.attributes }),
    ...(body === undefined ? {} : { headers: { "content-type": "application/json" }, body: JSON.stringify(body) })
  })

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      schema = `${database.org}_shop_eu`
      strategy = await make("shop")
      await provision(database, [{ chain, strategy: strategy.id, types: definitions() }])
    }
  })
  const rows = await world.look("select id, path from platform.schema_defs where chain = $1", [chain])
  ids = Object.fromEntries(rows.map((row) => [String(row.path).slice(chain.length + 1), Number(row.id)]))
  for (const [name, store_id, region] of [
    ["s1n", "s1", "north"],
    ["s1s", "s1", "south"],
    ["s2n", "s2", "north"],
    ["s2s", "s2", "south"]
  ] as const) {
    const reply = await ask(boss, "POST", "thing/v1", { name, store_id, region })
    expect(reply.status, reply.text).toBe(201)
    made[name] = reply.json.id
  }
}, 60_000)
afterAll(() => world.stop())

/** The names that one sees in a statement of his own making, in the API's session, past every condition of the API's. */
const attack = (
  who: (typeof people)[number][1],
  def: number,
  op: string,
  sql: string,
  params: ReadonlyArray<unknown> = [],
  role = "admin"
): Promise<ReadonlyArray<Record<string, unknown>>> =>
  Effect.scoped(
    Effect.gen(function* () {
      const api = yield* connect(world.database.apiUrl)
      yield* api.query("begin")
      const ctx = { op, def, actor: "shop/mallory", roles: who.roles, attributes: who.attributes, request_id: "r" }
      yield* api.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
        `${schema}_${role}`,
        JSON.stringify(ctx)
      ])
      const { rows } = yield* api.query(sql, params)
      yield* api.query("rollback")
      return rows
    })
  ).pipe(Effect.runPromise)

const names = (rows: ReadonlyArray<Record<string, unknown>>) =>
  rows
    .map((row) => String(row.name))
    .sort()
    .join(" ")

describe("versions with other rights", () => {
  for (const [title, who, first, second, both] of people) {
    it(`show ${title} what each version says, over HTTP`, async () => {
      const seen = async (version: string, field: string) => {
        const reply = await ask(who, "GET", `thing/${version}`)
        return reply.status === 200
          ? names(reply.json.items.map((item: Record<string, string>) => ({ name: item[field] })))
          : String(reply.status)
      }
      expect([await seen("v1", "name"), await seen("v2", "the_name")]).toEqual([first, second])
      for (const [name, id] of Object.entries(made)) {
        const may = (what: string) => (what === "403" ? 403 : what.split(" ").includes(name) ? 200 : 404)
        expect((await ask(who, "GET", `thing/v1/${id}`)).status).toBe(may(first))
        expect((await ask(who, "GET", `thing/v2/${id}`)).status).toBe(may(second))
        expect((await ask(who, "GET", `thing/v1/${id}/history`)).status).toBe(may(first))
        expect((await ask(who, "GET", `thing/v2/${id}/history`)).status).toBe(may(second))
      }
    })

    it(`show ${title} no more in the database`, async () => {
      const relations = [`${schema}.thing_v1`, `${schema}.thing_v2`]
      for (const relation of relations) {
        const name = relation.endsWith("v1") ? "name" : "the_name"
        const select = `select ${name} as name from ${relation}`
        const entered = async (def: string) => names(await attack(who, ids[def] ?? 0, "read", select, [], "reader"))
        expect(await entered("thing/v1"), relation).toBe(first === "403" ? "" : first)
        expect(await entered("thing/v2"), relation).toBe(second === "403" ? "" : second)
        // under another definition, and under none, what both admit
        expect(await entered("line/v1"), relation).toBe(both)
        expect(await entered("nothing"), relation).toBe(both)
      }
    })
  }

  it("judge a write by the version it was entered for", async () => {
    const south = made.s1s
    const sets = "set the_name = 'x' where id = $1 returning the_name as name"
    const change = (def: string, op: string) =>
      attack(store, ids[def] ?? 0, op, `update ${schema}.thing_v2 ${sets}`, [south]).then(names)
    expect(await change("thing/v1", "update")).toBe("x")
    expect(await change("thing/v2", "update")).toBe("")
    expect(await change("line/v1", "update")).toBe("")
    expect(await change("thing/v1", "read")).toBe("")
    const insert = (def: string, relation: string, columns: string) =>
      attack(
        store,
        ids[def] ?? 0,
        "create",
        `insert into ${schema}.${relation} (id, created_at, created_by, updated_at, updated_by, ${columns})
         values (gen_random_uuid(), now(), 'x', now(), 'x', 's1', 'south') returning id`
      ).then(
        (rows) => rows.length,
        () => "refused"
      )
    expect(await insert("thing/v1", "thing_v1", "store_id, region")).toBe(1)
    expect(await insert("thing/v2", "thing_v1", "store_id, region")).toBe("refused")
    expect(await insert("thing/v1", "thing_v2", "the_store_id, the_region")).toBe(1)
    expect(await insert("thing/v2", "thing_v2", "the_store_id, the_region")).toBe("refused")
    expect(await insert("line/v1", "thing_v2", "the_store_id, the_region")).toBe("refused")
    expect((await ask(store, "POST", "thing/v2", { the_store_id: "s1", the_region: "south" })).json.code).toBe(
      "row_outside_filter"
    )
    expect((await ask(store, "PATCH", `thing/v2/${south}`, { the_name: "y" })).status).toBe(404)
    expect((await ask(store, "PATCH", `thing/v1/${south}`, { region: "south" })).status).toBe(200)
  })

  it("include and refer to what every version admits", async () => {
    const refer = async (who: typeof store, body: unknown) => (await ask(who, "POST", "line/v1", body)).status
    expect(await refer(store, { one: made.s1n, two: made.s1n })).toBe(201)
    // v1 would let him, but what is read under another definition may be of either version
    expect(await refer(store, { one: made.s1s })).toBe(409)
    expect(await refer(store, { two: made.s1s })).toBe(409)
    const reply = await ask(boss, "POST", "line/v1", { one: made.s1s, two: made.s1s })
    const seen = (await ask(store, "GET", `line/v1/${reply.json.id}?include=one,two`)).json
    expect([seen.one, seen.two]).toEqual([null, null])
    const known = (await ask(boss, "GET", `line/v1/${reply.json.id}?include=one,two`)).json
    expect([known.one.name, known.two.the_name]).toEqual(["s1s", "s1s"])
  })

  it("let nobody reach a column that a version does not have", async () => {
    const reply = await ask(boss, "GET", "thing/v2?filter%5Bstore_id%5D%5Beq%5D=s1")
    expect(reply.status).toBe(400)
    expect((await ask(boss, "PATCH", `thing/v2/${made.s1n}`, { store_id: "s2" })).status).toBe(422)
    expect((await ask(boss, "GET", "thing/v2?select=region")).status).toBe(400)
  })

  it("keep the past apart as the present", async () => {
    for (const [, who, first, second] of people) {
      for (const [def, view, wanted, member] of [
        ["thing/v1", "thing_v1_history", first, "name"],
        ["thing/v2", "thing_v2_history", second, "name"]
      ] as const) {
        const rows = await attack(
          who,
          ids[def] ?? 0,
          "history",
          `select distinct state ->> '${member}' as name from ${schema}.${view} where entity_id = any ($1::uuid[])`,
          [Object.values(made)],
          "reader"
        )
        expect(names(rows)).toBe(wanted === "403" ? "" : wanted)
      }
    }
  })

  it("are sound", async () => {
    const violations = await IsolationCheck.checkAt(Redacted.make(world.database.apiUrl)).pipe(Effect.runPromise)
    expect(violations.map(IsolationCheck.render)).toEqual([])
  })
})
