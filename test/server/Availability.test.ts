/** A database that is down, gone or silent, seen over HTTP: 503 in time, no connection left over, and back without a restart. */
import { Effect, Exit, Scope } from "effect"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { freshDatabase, type TestDatabase } from "../support/Database.ts"
import * as TcpProxy from "../support/TcpProxy.ts"
import { send } from "./Requests.ts"
import { makeWorld, type World } from "./World.ts"

const scope = Scope.makeUnsafe()
let proxy: TcpProxy.TcpProxy
let world: World
let token: string
const connections = 3

const quick = (database: TestDatabase, url: string) => ({
  VELOCITY_API_DATABASE_URL: url,
  VELOCITY_LISTEN_URL: database.apiUrl,
  VELOCITY_STATEMENT_TIMEOUT: "400ms",
  VELOCITY_API_CONNECTIONS: String(connections)
})

const makeProxy = (url: string) => Effect.runPromise(Scope.provide(TcpProxy.make(url), scope))

beforeAll(async () => {
  const database = await Effect.runPromise(Scope.provide(freshDatabase, scope))
  proxy = await makeProxy(database.apiUrl)
  world = await makeWorld({ database, variables: quick(database, proxy.url) })
  token = await world.token(world.platform, { roles: ["platform-admin"] })
})
afterAll(async () => {
  await world.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})

const schemas = () => send(world.url, "/api/platform/schemas", { token })
const served = () => expect.poll(async () => (await schemas()).status, { timeout: 10_000 }).toBe(200)

afterEach(async () => {
  proxy.refuse(false)
  proxy.resume()
  await served()
})

const isUnavailable = async (reply: Awaited<ReturnType<typeof schemas>>) => {
  expect([reply.status, ["unavailable", "timeout"].includes(reply.json.code)]).toEqual([503, true])
  expect(reply.headers["content-type"]).toBe("application/problem+json")
  expect(reply.headers["retry-after"]).toMatch(/^[0-9]+$/u)
  expect(reply.text).not.toMatch(/postgres|ECONN|127\.0\.0\.1|socket/iu)
}

describe("a database that", () => {
  it("is down is 503 and readiness is false; when it is back, so is the API", async () => {
    await served()
    proxy.refuse(true)
    proxy.cut()
    await isUnavailable(await schemas())
    await expect.poll(async () => (await send(world.url, "/readyz")).status, { timeout: 5_000 }).toBe(503)
    expect((await send(world.url, "/healthz")).status).toBe(200)
    proxy.refuse(false)
    await served()
    await expect.poll(async () => (await send(world.url, "/readyz")).status, { timeout: 5_000 }).toBe(200)
  })

  it("says nothing any more is 503 within the timeout, for all who wait", async () => {
    proxy.stall()
    const replies = await Promise.all(Array.from({ length: connections * 4 }, schemas))
    for (const reply of replies) await isUnavailable(reply)
    proxy.resume()
    await served()
    const { text } = await send(world.url, "/metrics")
    expect(text).toMatch(/velocity_pool_waiting\{[^}]*\} 0/u)
    const open = [...text.matchAll(/velocity_pool_connections\{[^}]*\} ([0-9]+)/gu)].map((found) => Number(found[1]))
    expect(open.reduce((sum, value) => sum + value, 0)).toBeLessThanOrEqual(connections)
  })

  it("drops every connection at once is asked again on a new one", async () => {
    await served()
    proxy.cut()
    expect((await schemas()).status).toBe(200)
  })

  it("does not take the audit entry of a refusal does not turn the refusal into something else", async () => {
    proxy.refuse(true)
    proxy.cut()
    const reply = await send(world.url, "/api/platform/schemas")
    expect([reply.status, reply.json.code]).toEqual([401, "token_missing"])
  })
})

describe("a server that is started before its database", () => {
  it("comes up, is not ready, and becomes it", async () => {
    const database = await Effect.runPromise(Scope.provide(freshDatabase, scope))
    const away = await makeProxy(database.apiUrl)
    away.refuse(true)
    const early = await makeWorld({
      database,
      variables: { ...quick(database, away.url), VELOCITY_LISTEN_URL: away.url }
    })
    try {
      const ready = await send(early.url, "/readyz")
      expect(ready.json).toMatchObject({ ready: false, checks: { postgres: { ok: false }, isolation: { ok: false } } })
      const asked = { token: await early.token(early.platform, { roles: ["platform-admin"] }) }
      expect((await send(early.url, "/api/platform/schemas", asked)).json.code).toBe("not_ready")
      away.refuse(false)
      await expect.poll(async () => (await send(early.url, "/readyz")).status, { timeout: 15_000 }).toBe(200)
      await expect
        .poll(async () => (await send(early.url, "/api/platform/schemas", asked)).status, { timeout: 15_000 })
        .toBe(200)
    } finally {
      await early.stop()
    }
  })
})
