/**
 * The product behind a pooler in transaction mode (fine print 48): few sessions of Postgres, lent to many of our
 * connections for one transaction each. Through ours, which is stricter than any, and through PgBouncer where it is.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { ConfigProvider, type Context, Effect, Exit, Fiber, Layer, Redacted, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import { provision } from "../server/Provisioned.ts"
import { type Reply, send } from "../server/Requests.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { configOf, freshDatabase, type TestDatabase } from "../support/Database.ts"
import type { Pooler, PoolerOptions } from "../support/Pooler.ts"
import * as PoolerBouncer from "../support/PoolerBouncer.ts"
import * as PoolerProxy from "../support/PoolerProxy.ts"

const { program } = PoolerBouncer
if (program === undefined) console.log("PgBouncer is not on this machine: tested through our own pooler alone")

type Make = (options: PoolerOptions) => Effect.Effect<Pooler, never, Scope.Scope>
const poolers: ReadonlyArray<readonly [string, Make]> = [
  ["our own pooler", PoolerProxy.make],
  ...(program === undefined
    ? []
    : [["PgBouncer", (options: PoolerOptions) => PoolerBouncer.make(program, options)] as const])
]

const sessions = 2
const connections = 8

/** What a session of the pooler's holds that would meet whoever gets it next. */
const leftovers = `select pg_backend_pid() as pid, current_setting('role') as role,
  coalesce(nullif(current_setting('velocity.ctx', true), ''), 'none') as ctx, current_setting('search_path') as path,
  current_setting('statement_timeout') as timeout, (select count(*)::int from pg_prepared_statements) as prepared,
  (select count(*)::int from pg_listening_channels()) as listening,
  (select count(*)::int from pg_locks where pid = pg_backend_pid() and locktype = 'advisory') as locks`
const clean = {
  role: "none",
  ctx: "none",
  path: '"$user", public',
  timeout: "0",
  prepared: 0,
  listening: 0,
  locks: 0
}

describe.each(poolers)("behind %s", (_name, make) => {
  const scope = Scope.makeUnsafe()
  const inScope = <A, E>(effect: Effect.Effect<A, E, Scope.Scope>) => Effect.runPromise(Scope.provide(effect, scope))
  let pooler: Pooler
  let database: TestDatabase
  let world: World
  let services: Context.Context<GatewayTx | OperatorSql>
  const strategies: Array<Strategy> = []
  const run = <A, E>(effect: Effect.Effect<A, E, GatewayTx | OperatorSql>) =>
    Effect.runPromise(Effect.provideContext(effect, services))
  /** The product has no other way to the database; what the test itself looks at and writes goes straight. */
  const variables = () => ({
    VELOCITY_API_DATABASE_URL: pooler.through(database.apiUrl),
    VELOCITY_OPERATOR_DATABASE_URL: pooler.through(database.operatorUrl),
    VELOCITY_PREPARED: "0",
    VELOCITY_API_CONNECTIONS: String(connections)
  })
  const chain = (domain: number) => `${database.org}/shop/d${domain}`
  /** A store's own view, or that of whoever may do all. */
  const tokenFor = (domain: number, store: string, role = "store") =>
    world.token(strategies[domain] as Strategy, {
      roles: [role],
      attributes: { store_id: store }
    })

  beforeAll(async () => {
    database = await inScope(freshDatabase)
    pooler = await inScope(make({ urls: [database.apiUrl, database.operatorUrl], sessions }))
    const config = ConfigProvider.layer(configOf(database, variables()))
    services = await inScope(
      Layer.build(Layer.mergeAll(GatewayTx.layer, OperatorSql.layer).pipe(Layer.provide(config)))
    )
    world = await makeWorld({
      database,
      variables: variables(),
      prepare: async (where, strategy) => {
        for (const domain of [0, 1]) {
          const made = await strategy(`s${domain}`)
          strategies.push(made)
          await provision(
            where,
            [{ chain: chain(domain), strategy: made.id, types: [thing(chain(domain))] }],
            variables()
          )
        }
      }
    })
  })
  afterAll(async () => {
    await world.stop()
    await Effect.runPromise(Scope.close(scope, Exit.void))
  })

  /** What is left in every session of a login: as many transactions as there are sessions, all open at once. */
  const leftIn = (url: string) =>
    Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const clients = yield* Effect.forEach(Array.from({ length: sessions }), () =>
            PgConnection.make({ url: Redacted.make(pooler.through(url)), prepare: false })
          )
          yield* Effect.forEach(clients, (client) => client.query("begin"))
          const found = yield* Effect.forEach(clients, (client) => client.query(leftovers))
          yield* Effect.forEach(clients, (client) => client.query("rollback"))
          return found.flatMap(({ rows }) => rows.map(({ pid, ...left }) => ({ pid, left })))
        })
      )
    )

  const areClean = async (url: string) => {
    const found = await leftIn(url)
    expect(new Set(found.map(({ pid }) => pid)).size).toBe(sessions)
    expect(found.map(({ left }) => left)).toEqual(found.map(() => clean))
  }

  const sessionsOf = async (url: string) => {
    const text = "select count(*)::int as n from pg_stat_activity where usename = $1 and datname = $2"
    return (await world.look(text, [new URL(url).username, database.name]))[0]?.n
  }

  it("serves two domains at once over two sessions, to each its own, and leaves nothing in a session", async () => {
    const tokens = await Promise.all([0, 1].map((domain) => tokenFor(domain, "none", "admin")))
    const writes = await Promise.all(
      Array.from({ length: 60 }, (_, index) =>
        send(world.url, `/api/${chain(index % 2)}/thing/v1`, {
          method: "POST",
          token: tokens[index % 2] as string,
          headers: { "content-type": "application/json" },
          body: JSON.stringify({ name: `thing ${index}`, store_id: `s${index % 6}` })
        })
      )
    )
    expect(writes.map((reply) => reply.status)).toEqual(writes.map(() => 201))
    const asked = Array.from({ length: 120 }, (_, index) => ({ domain: index % 2, store: `s${index % 6}` }))
    const lists = await Promise.all(
      asked.map(async ({ domain, store }) =>
        send(world.url, `/api/${chain(domain)}/thing/v1`, { token: await tokenFor(domain, store) })
      )
    )
    // whoever met a role, a context or a filter of somebody else's would see other rows, or none
    const seen = (reply: Reply) => reply.json.items.map((item: { name: string }) => item.name).sort()
    for (const [at, reply] of lists.entries()) {
      const store = Number(asked[at]?.store.slice(1))
      const mine = Array.from({ length: 60 }, (_, index) => index).filter((index) => index % 6 === store)
      expect(seen(reply)).toEqual(mine.map((index) => `thing ${index}`).sort())
    }
    for (const url of [database.apiUrl, database.operatorUrl]) {
      await areClean(url)
      // a session that only carried a login through may still be leaving
      await expect.poll(() => sessionsOf(url), { timeout: 10_000 }).toBe(sessions)
    }
  })

  it("sets in each transaction what its own sessions would have brought", () =>
    run(
      Effect.gen(function* () {
        const settings = statement(
          `select current_setting('search_path') as path, current_setting('statement_timeout') as statement,
             current_setting('lock_timeout') as lock, current_setting('idle_in_transaction_session_timeout') as idle,
             current_setting('TimeZone') as zone, current_setting('transaction_isolation') as isolation`
        )
        const both = { path: "pg_catalog, pg_temp", idle: "5min", zone: "UTC", isolation: "read committed" }
        const [gateway] = yield* (yield* GatewayTx).bundle([settings], { end: "read" })
        expect(gateway?.rows).toEqual([{ ...both, statement: "5s", lock: "3s" }])
        const operator = yield* (yield* OperatorSql).transaction((tx) => tx.query(settings))
        expect(operator.rows).toEqual([{ ...both, statement: "1min", lock: "36s" }])
      })
    ))

  it("cancels on the session that runs the statement, and gives it back clean", () =>
    run(
      Effect.gen(function* () {
        const operator = yield* OperatorSql
        const running = () =>
          Effect.promise(() =>
            world.look("select pid from pg_stat_activity where datname = $1 and query like 'select pg_sleep(3600)%'", [
              database.name
            ])
          )
        const fiber = yield* Effect.forkChild(
          operator.transaction((tx) =>
            Effect.andThen(tx.query(statement("select 1")), tx.query(statement("select pg_sleep(3600)")))
          )
        )
        yield* running().pipe(Effect.repeat({ until: (rows) => rows.length > 0 }))
        yield* Fiber.interrupt(fiber)
        yield* Effect.promise(() =>
          world.look(
            "select 1 from pg_stat_activity where datname = $1 and state <> 'idle' and query like 'select pg_sleep(3600)%'",
            [database.name]
          )
        ).pipe(Effect.repeat({ until: (rows) => rows.length === 0 }))
        yield* Effect.promise(() => areClean(database.operatorUrl))
      })
    ))

  it("keeps what it imported in one transaction, and the chain of entries is whole", async () => {
    const token = await tokenFor(0, "none", "admin")
    const body = Array.from({ length: 1_200 }, (_, index) => JSON.stringify({ name: `line ${index}` })).join("\n")
    const reply = await send(world.url, `/api/${chain(0)}/thing/v1`, {
      method: "POST",
      token,
      headers: { "content-type": "application/x-ndjson" },
      body
    })
    expect(reply.status).toBe(201)
    const verified = await send(world.url, "/api/platform/audit/verify", {
      token: await world.token(world.platform, { roles: ["platform-auditor"] })
    })
    expect(verified.json).toMatchObject({ sound: true, findings: [] })
  })

  it("sees what changed without LISTEN, which no pooler could carry", async () => {
    const token = await tokenFor(1, "s1")
    const path = `/api/${chain(1)}/thing/v1`
    expect((await send(world.url, path, { token })).status).toBe(200)
    await world.look("insert into platform.revoked_actors (actor, reason) values ($1, 'test')", ["s1/alice"])
    await expect.poll(async () => (await send(world.url, path, { token })).status, { timeout: 30_000 }).toBe(401)
    await areClean(database.apiUrl)
  })
})
