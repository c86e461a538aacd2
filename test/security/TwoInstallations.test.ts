/**
 * Two installations on one server, told apart by `VELOCITY_ROLE_PREFIX`: the same organisation in both, each with its own
 * roles, and neither can enter the other's.
 */
import { Effect, Exit, Redacted, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import * as Migrations from "../../src/postgres/Migrations.ts"
import { prefixed, prefixOfLogin } from "../../src/postgres/RolePrefix.ts"
import { provision } from "../server/Provisioned.ts"
import { send } from "../server/Requests.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { freshDatabase, prefixedDatabase, query, type TestDatabase } from "../support/Database.ts"

const scope = Scope.makeUnsafe()
const json = { "content-type": "application/json" }
let prefix: string
let chain: string
let worlds: ReadonlyArray<{ readonly world: World; readonly token: string }>

beforeAll(async () => {
  const first = await Effect.runPromise(Scope.provide(freshDatabase, scope))
  prefix = `p_${first.org}_`
  const second = await Effect.runPromise(Scope.provide(prefixedDatabase(prefix), scope))
  chain = `${first.org}/shop/sales`
  const worldOf = async (database: TestDatabase) => {
    let strategy: Strategy | undefined
    const world = await makeWorld({
      database,
      prepare: async (_, make) => {
        strategy = await make("tenant")
        await provision(database, [{ chain, strategy: strategy.id, types: [thing(chain)] }])
      }
    })
    return { world, token: await world.token(strategy as Strategy, { roles: ["admin"] }) }
  }
  worlds = [await worldOf(first), await worldOf(second)]
})
afterAll(async () => {
  for (const { world } of worlds ?? []) await world.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

/** What a login may not do: Postgres's own words. */
const refusal = async (url: string, sql: string): Promise<string> => {
  const exit = await Effect.runPromiseExit(query(url, sql))
  return Exit.isSuccess(exit) ? "it may" : JSON.stringify(exit.cause)
}

describe("two installations on one server", () => {
  it("serve the same path, each its own records", async () => {
    for (const [place, { token, world }] of worlds.entries()) {
      const made = await send(world.url, `/api/${chain}/thing/v1`, {
        method: "POST",
        token,
        headers: json,
        body: `{"name":"of ${place}"}`
      })
      expect(made.status, made.text).toBe(201)
      const listed = await send(world.url, `/api/${chain}/thing/v1`, { token })
      expect(listed.json.items.map((one: { readonly name: string }) => one.name)).toEqual([`of ${place}`])
      const history = await send(world.url, `${made.headers.location}/history`, { token })
      expect(history.json.items).toHaveLength(1)
    }
  })

  it("erase under roles of their own", async () => {
    for (const [place, { token, world }] of worlds.entries()) {
      const own = place === 0 ? "" : prefix
      const things = `/api/${chain}/thing/v1`
      const made = await send(world.url, things, { method: "POST", token, headers: json, body: '{"name":"gone"}' })
      const officer = await world.token(world.platform, { roles: ["platform-privacy"] })
      const body = '{"reason":"asked for"}'
      const erased = await send(world.url, `${things}/${made.json.id}/erase`, {
        method: "POST",
        token: officer,
        headers: json,
        body
      })
      expect([erased.status, erased.json.rows], erased.text).toEqual([200, 1])
      const entries = await world.look("select db_login, db_role from platform.audit_log where action = 'erase'")
      expect(entries).toEqual([{ db_login: `${own}velocity_api`, db_role: `${own}velocity_privacy` }])
    }
  })

  it("have roles of their own, and audit under them", async () => {
    for (const [place, { world }] of worlds.entries()) {
      const own = place === 0 ? "" : prefix
      const entries = await world.look(
        "select distinct db_login, db_role from platform.audit_log where action = 'create' and outcome = 'ok'"
      )
      const schema = `${own}${chain.replaceAll("/", "_")}`
      expect(entries).toEqual([{ db_login: `${own}velocity_api`, db_role: `${schema}_writer` }])
      const violations = await Effect.runPromise(IsolationCheck.checkAt(Redacted.make(world.database.apiUrl)))
      expect(violations.map(IsolationCheck.render)).toEqual([])
    }
  })

  it("cannot be entered from each other", async () => {
    const [first, second] = worlds.map(({ world }) => world.database)
    for (const [one, other, itsPrefix] of [
      [first, second, prefix],
      [second, first, ""]
    ] as const) {
      const schema = `${itsPrefix}${chain.replaceAll("/", "_")}`
      for (const role of [`${schema}_admin`, `${itsPrefix}velocity_gateway`, `${itsPrefix}velocity_owner`]) {
        expect(await refusal(String(one?.apiUrl), `set role ${role}`), role).toContain("42501")
        expect(await refusal(String(one?.operatorUrl), `set role ${role}`), role).toContain("42501")
      }
      const there = new URL(String(one?.apiUrl))
      there.pathname = `/${other?.name}`
      expect(await refusal(there.href, "select 1")).toContain("42501")
    }
  })

  it("are migrated again without touching each other", async () => {
    for (const [place, { world }] of worlds.entries()) {
      const again = await Effect.runPromise(
        Migrations.run({ url: Redacted.make(world.database.ownerUrl), rolePrefix: place === 0 ? "" : prefix })
      )
      expect([place, again]).toMatchObject([place, { added: [], repaired: false, complaints: [] }])
    }
  })
})

describe("a prefix", () => {
  it("stands in front of our roles, once, and of nothing else", () => {
    const sql =
      "grant velocity_owner to velocity_api; '^velocity_(api|owner)$'; policy velocity_select; velocity_ownership"
    const once = prefixed(sql, "stage_")
    expect(once).toBe(
      "grant stage_velocity_owner to stage_velocity_api; '^stage_velocity_(api|owner)$'; policy velocity_select; velocity_ownership"
    )
    expect(prefixed(once, "stage_")).toBe(once)
    expect(prefixed(sql, "")).toBe(sql)
  })

  it("is read from a login's name", () => {
    expect(["velocity_api", "stage_velocity_api", "a_b_velocity_operator", "pooled"].map(prefixOfLogin)).toEqual([
      "",
      "stage_",
      "a_b_",
      ""
    ])
  })
})
