/**
 * Records while the network fails under them: a database that goes silent or away in the middle of a write, an answer to
 * COMMIT that is lost, a client that goes away in the middle of an import. Nothing half done, and nothing left over.
 */
import { connect } from "node:net"
import { Effect, Exit, Scope } from "effect"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { freshDatabase, type TestDatabase } from "../support/Database.ts"
import * as TcpProxy from "../support/TcpProxy.ts"
import { provision } from "./Provisioned.ts"
import { raw, type Sent, send } from "./Requests.ts"
import { thing } from "./Things.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

const scope = Scope.makeUnsafe()
let database: TestDatabase
let proxy: TcpProxy.TcpProxy
let world: World
let token: string
let things: string
const connections = 3
let counter = 0
const named = () => JSON.stringify({ name: `thing ${counter++}` })
const json = { "content-type": "application/json" }
const ask = (path: string, sent: Sent = {}) => send(world.url, path, { token, ...sent })
const create = () => ask(things, { method: "POST", headers: json, body: named() })

/** Rows, events and entries of what was done: they must always agree. */
const held = async () => {
  const [row] = await world.look(
    `select (select count(*) from ${database.org}_shop_sales.thing_v1)::int4 as rows,
            (select count(*) from platform.event_log)::int4 as events,
            (select coalesce(sum(coalesce((payload ->> 'count')::int4, 1)), 0) from platform.audit_log
             where outcome = 'ok' and action = 'create')::int4 as entries`
  )
  expect(row?.events).toBe(row?.rows)
  expect(row?.entries).toBe(row?.rows)
  return Number(row?.rows)
}
const poolOf = async () => {
  const { text } = await send(world.url, "/metrics")
  const of = (state: string) =>
    Number(new RegExp(`velocity_pool_connections\\{[^}]*state="${state}"[^}]*\\} ([0-9]+)`).exec(text)?.[1])
  return { used: of("used"), open: of("used") + of("idle") }
}

beforeAll(async () => {
  database = await Effect.runPromise(Scope.provide(freshDatabase, scope))
  proxy = await Effect.runPromise(Scope.provide(TcpProxy.make(database.apiUrl), scope))
  let strategy: Strategy | undefined
  world = await makeWorld({
    database,
    settings: { bodyTimeout: 60_000 },
    variables: {
      VELOCITY_API_DATABASE_URL: proxy.url,
      VELOCITY_LISTEN_URL: database.apiUrl,
      VELOCITY_STATEMENT_TIMEOUT: "500ms",
      VELOCITY_API_CONNECTIONS: String(connections)
    },
    prepare: async (_, makeStrategy) => {
      strategy = await makeStrategy("sales")
      const chain = `${database.org}/shop/sales`
      things = `/api/${chain}/thing/v1`
      await provision(database, [{ chain, strategy: strategy.id, types: [thing(chain)] }])
    }
  })
  token = await world.token(strategy as Strategy, { sub: "ann", roles: ["admin"] })
})
afterAll(async () => {
  await world.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})
afterEach(async () => {
  proxy.refuse(false)
  proxy.resume()
  await expect.poll(async () => (await ask(`${things}?limit=1`)).status, { timeout: 10_000 }).toBe(200)
  await expect.poll(poolOf, { timeout: 10_000 }).toMatchObject({ used: 0 })
  expect((await poolOf()).open).toBeLessThanOrEqual(connections)
})

describe("a database that", () => {
  it("goes silent is 503 for reads and writes, and nothing was done", async () => {
    const before = await held()
    const { json: made } = await create()
    proxy.stall()
    const replies = await Promise.all([
      ask(things),
      ask(`${things}/${made.id}`),
      ask(`${things}/${made.id}/history`),
      ask(`${things}/query`, { method: "POST", headers: json, body: "{}" })
    ])
    for (const reply of replies) {
      expect([reply.status, ["timeout", "unavailable"].includes(reply.json.code)]).toEqual([503, true])
      expect(reply.headers["retry-after"]).toBeDefined()
    }
    proxy.resume()
    await expect.poll(async () => (await ask(`${things}?limit=1`)).status, { timeout: 10_000 }).toBe(200)
    expect(await held()).toBe(before + 1)
  })

  it("loses the answer to a COMMIT is told as such, and a repeat with the same key does it once", async () => {
    const before = await held()
    const headers = { ...json, "idempotency-key": `key-${counter}` }
    const body = named()
    expect((await ask(`${things}?limit=1`)).status).toBe(200)
    proxy.deafen()
    const lost = await ask(things, { method: "POST", headers, body })
    expect([lost.status, lost.json.code]).toEqual([503, "commit_unknown"])
    proxy.cut()
    proxy.resume()
    await expect.poll(async () => (await ask(`${things}?limit=1`)).status, { timeout: 10_000 }).toBe(200)
    const again = await ask(things, { method: "POST", headers, body })
    expect(again.status).toBe(201)
    expect(await held()).toBe(before + 1)
  })

  it("goes away under many writes keeps those that were acknowledged, each whole", async () => {
    const before = await held()
    const writing = Promise.all(Array.from({ length: 60 }, create))
    proxy.cut()
    const replies = await writing
    const made = replies.filter(({ status }) => status === 201)
    for (const reply of replies) if (reply.status !== 201) expect(reply.status).toBe(503)
    const unknown = replies.filter(({ json: body }) => body?.code === "commit_unknown").length
    const after = await held()
    expect(after).toBeGreaterThanOrEqual(before + made.length)
    expect(after).toBeLessThanOrEqual(before + made.length + unknown)
    for (const { json: record } of made) {
      const rows = await world.look("select version from platform.event_log where entity_id = $1::uuid", [record.id])
      expect(rows).toEqual([{ version: 1 }])
    }
  })
})

describe("a client that", () => {
  const head = () =>
    `POST ${things} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${token}\r\nContent-Type: application/x-ndjson\r\n`
  const chunk = (text: string) => `${Buffer.byteLength(text).toString(16)}\r\n${text}\r\n`
  const open = () =>
    new Promise<ReturnType<typeof connect>>((resolve) => {
      const socket = connect({ host: "127.0.0.1", port: Number(new URL(world.url).port) }, () => resolve(socket))
      socket.on("error", () => undefined)
    })

  it("goes away in the middle of an import leaves nothing", async () => {
    const before = await held()
    const socket = await open()
    socket.write(`${head()}Transfer-Encoding: chunked\r\n\r\n`)
    const lines = Array.from({ length: 1_500 }, named).join("\n")
    socket.write(chunk(`${lines}\n`))
    // the transaction is open when its first chunks were written
    await expect.poll(poolOf, { timeout: 10_000 }).toMatchObject({ used: 1 })
    socket.destroy()
    await expect.poll(poolOf, { timeout: 10_000 }).toMatchObject({ used: 0 })
    expect(await held()).toBe(before)
  })

  it("sends an import in pieces has it done in one transaction", async () => {
    const before = await held()
    const socket = await open()
    const answered = new Promise<string>((resolve) => {
      let text = ""
      socket.setEncoding("utf8").on("data", (part: string) => {
        text += part
        if (text.includes("\r\n\r\n{")) resolve(text)
      })
    })
    socket.write(`${head()}Transfer-Encoding: chunked\r\n\r\n`)
    for (let index = 0; index < 3; index++) socket.write(chunk(`${named()}\n`))
    socket.write("0\r\n\r\n")
    expect(await answered).toContain('"created":3')
    socket.destroy()
    expect(await held()).toBe(before + 3)
  })

  it("sends a record that never ends is refused", async () => {
    const before = await held()
    const line = `{"name":"${"x".repeat(2 * 1024 * 1024)}`
    const reply = await raw(world.url, `${head()}Content-Length: ${line.length}\r\nConnection: close\r\n\r\n${line}`)
    expect(reply).toMatch(/^HTTP\/1.1 413/u)
    expect(await held()).toBe(before)
  })
})
