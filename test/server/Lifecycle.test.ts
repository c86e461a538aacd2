/**
 * A version on its way out, over HTTP: what its answers say of it, and that it ends when it is said to, by the clock and
 * by nothing that has to happen then.
 */
import { Clock, Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { provision } from "./Provisioned.ts"
import { send } from "./Requests.ts"
import { thing } from "./Things.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

const hour = 3_600_000
const now = Math.floor(Date.now() / 1000) * 1000
const moment = (at: number) => new Date(at).toISOString().replace(".000Z", "Z")
const [deprecatedAt, sunsetAt] = [now - hour, now + hour]

/** The machine's clock, but for the time of day, which stands still. */
let time = now
const clock: Clock.Clock = Object.assign(Object.create(Effect.runSync(Clock.clockWith(Effect.succeed))), {
  currentTimeMillisUnsafe: () => time,
  currentTimeMillis: Effect.sync(() => time)
})

let world: World
let shop: Strategy
let chain: string
let token: string

const specOf = (object: string, lifecycle?: object) => ({
  ...thing(chain),
  object,
  ...(lifecycle === undefined ? {} : { lifecycle })
})
const deprecated = { stage: "deprecated", deprecatedAt: moment(deprecatedAt) }
const ending = { stage: "sunset", deprecatedAt: moment(deprecatedAt), sunsetAt: moment(sunsetAt) }

beforeAll(async () => {
  world = await makeWorld({
    clock,
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      shop = await make("shop")
      const types = [
        specOf("thing"),
        specOf("old", deprecated),
        specOf("ending", ending),
        specOf("replaced", { ...ending, successor: "v3" })
      ]
      await provision(database, [{ chain, strategy: shop.id, types }])
    }
  })
  token = await world.token(shop, { roles: ["admin"], exp: (now + 10 * hour) / 1000 })
}, 60_000)
afterAll(() => world.stop())

const path = (object: string, rest = "") => `/api/${chain}/${object}/v1${rest}`
const get = (object: string, rest = "") => send(world.url, path(object, rest), { token })
const create = (object: string, name: string) =>
  send(world.url, path(object), {
    method: "POST",
    token,
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ name })
  })

/** Another version of an object, served beside the first: of it nothing but its path is asked. */
const alsoServed = async (object: string, version: string) => {
  await world.look(
    `insert into platform.schema_defs (path, chain, storage, pg_schema, pg_table, wanted, serving, grants, state)
     select replace(path, '/v1', '/' || $2), chain, storage, pg_schema, replace(pg_table, '_v1', '_' || $2), wanted,
       jsonb_set(serving, '{version}', to_jsonb($2)), grants, state from platform.schema_defs where path = $1`,
    [`${chain}/${object}/v1`, version]
  )
}

describe("a version on its way out", () => {
  it("says nothing while it is in use", async () => {
    const reply = await get("thing")
    expect(reply.status).toBe(200)
    expect(reply.headers).not.toHaveProperty("deprecation")
    expect(reply.headers).not.toHaveProperty("sunset")
  })

  it("says since when it is deprecated, and when it ends, with each answer", async () => {
    const header = `@${deprecatedAt / 1000}`
    const made = await create("old", "a")
    expect([made.status, made.headers.deprecation, made.headers.sunset]).toEqual([201, header, undefined])
    const sunset = new Date(sunsetAt).toUTCString()
    for (const reply of [await create("ending", "a"), await get("ending"), await get("ending", "?limit=1")]) {
      expect(reply.status).toBeLessThan(300)
      expect([reply.headers.deprecation, reply.headers.sunset, reply.headers.link]).toEqual([header, sunset, undefined])
    }
    await create("ending", "b")
    expect((await get("ending", "?limit=1")).headers.link).toMatch(/^<[^>]*cursor=[^>]*>; rel="next"$/u)
  })

  it("is told of by /api/platform/schemas", async () => {
    const admin = await world.token(world.platform, { roles: ["platform-admin"], exp: (now + 10 * hour) / 1000 })
    const reply = await send(world.url, `/api/platform/schemas?chain=${chain}`, { token: admin })
    const told = Object.fromEntries(
      reply.json.items.map((one: { path: string; lifecycle: object }) => [one.path.split("/")[3], one.lifecycle])
    )
    const active = { stage: "active", deprecated_at: null, sunset_at: null, successor: null }
    expect(told).toEqual({
      thing: active,
      old: { ...active, stage: "deprecated", deprecated_at: moment(deprecatedAt) },
      ending: { ...active, stage: "sunset", deprecated_at: moment(deprecatedAt), sunset_at: moment(sunsetAt) },
      replaced: {
        stage: "sunset",
        deprecated_at: moment(deprecatedAt),
        sunset_at: moment(sunsetAt),
        successor: "v3"
      }
    })
  })

  it("ends at its time, for reads and writes, with 410 and an entry in the log, and not a moment before", async () => {
    time = sunsetAt - 1
    expect((await get("ending")).status).toBe(200)
    time = sunsetAt
    const requestId = "ends-at-its-time"
    const reply = await send(world.url, path("ending"), { token, headers: { "x-request-id": requestId } })
    expect(reply.status).toBe(410)
    expect(reply.json).toMatchObject({ code: "sunset", type: "https://velocity.sh/problems/sunset", requestId })
    expect(reply.headers.sunset).toBe(new Date(sunsetAt).toUTCString())
    expect(
      await world.look(
        "select actor, action, outcome, schema_path, payload ->> 'code' as code from platform.audit_log where request_id = $1",
        [requestId]
      )
    ).toEqual([
      { actor: "shop/alice", action: "read", outcome: "denied", schema_path: `${chain}/ending/v1`, code: "sunset" }
    ])
    expect((await create("ending", "c")).status).toBe(410)
    // who has not proved who he is, is told nothing
    expect((await send(world.url, path("ending"))).status).toBe(401)
    expect((await get("old")).status).toBe(200)
    time = now
    expect((await get("ending")).status).toBe(200)
  })

  it("leads to the newest later version that is served, or to the one that it names", async () => {
    expect((await get("replaced")).headers.link).toBeUndefined()
    for (const version of ["v2", "v3", "v10"]) await alsoServed("ending", version)
    for (const version of ["v2", "v3"]) await alsoServed("replaced", version)
    await world.look("notify velocity_registry, 'everything'")
    const link = (object: string, version: string) => `</api/${chain}/${object}/${version}>; rel="successor-version"`
    await expect.poll(async () => (await get("replaced")).headers.link).toBe(link("replaced", "v3"))
    const page = await get("ending", "?limit=1")
    expect(page.headers.link).toMatch(/^<[^>]*>; rel="next", </u)
    expect(page.headers.link).toContain(`, ${link("ending", "v10")}`)
    time = sunsetAt
    const over = await get("ending")
    expect([over.status, over.headers.link]).toEqual([410, link("ending", "v10")])
    time = now
  })
})
