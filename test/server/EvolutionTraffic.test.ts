/**
 * A definition changes while eight clients read and write through two replicas, one of which hears nothing of it, so that it
 * still has the old generation when the other has the new one: no request fails, whatever kind of step runs, with a
 * transaction that idles on the table and an export that takes its time, and what was acknowledged is there.
 */
import { ConfigProvider, Effect, Exit, Layer, Schedule, Schema, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import type { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import type { ProvisionRefused } from "../../src/provisioning/table/ProvisionRefused.ts"
import { compileBackfill } from "../../src/records/type/Rules.ts"
import * as Server from "../../src/server/Server.ts"
import { configOf, connect } from "../support/Database.ts"
import * as TcpProxy from "../support/TcpProxy.ts"
import { provision } from "./Provisioned.ts"
import { send } from "./Requests.ts"
import { type Running, start } from "./Running.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
/** The replica that hears nothing while a definition changes. */
let late: Running<Server.ServerAddress>
/** What it listens through. */
let wire: TcpProxy.TcpProxy
const scope = Scope.makeUnsafe()
let strategy: Strategy
let chain: string
let table: string
/** A record from before all changes. */
let first: string

const roles = [{ role: "editor", operations: ["create", "read", "update", "history"] }]
const specOf = (fields: ReadonlyArray<unknown>, more: Record<string, unknown> = {}) => {
  const [org, app, domain] = chain.split("/")
  return { org, app, domain, object: "thing", version: "v1", fields, access: { roles }, ...more }
}

const code = { name: "code", type: "string", required: true, unique: true, filterable: true }
const note = { name: "note", type: "string", filterable: true }
const n = { name: "n", type: "integer", required: true, default: 1 }
const kind = { name: "kind", type: "enum", enum: ["p", "q"] }
const soft = { name: "soft", type: "string" }
const gone = { name: "gone", type: "string", indexed: true }
const was = { name: "was", type: "string", maxLength: 50 }

const [wide, values, filled, typed, named] = [
  { ...soft, maxLength: 9 },
  { ...kind, enum: ["p", "q", "r"] },
  { ...soft, maxLength: 9, required: true, default: "-" },
  { ...n, type: "number", precision: 12, scale: 2, default: "1" },
  { ...was, name: "is", renamedFrom: ["was"] }
]
const label = { name: "label", type: "string", required: true, default: "-", backfill: "self.code + '!'" }
const up = { name: "up", type: "ref", ref: { object: "thing", version: "v1" } }
const both = { uniqueConstraints: [{ fields: ["note", "code"] }] }

/** Each is a change of the one before. */
const changes: ReadonlyArray<readonly [string, ReadonlyArray<unknown>, Record<string, unknown>?]> = [
  ["a field and an index", [code, note, n, kind, soft, gone, was, { name: "more", type: "integer", indexed: true }]],
  ["an enum value, a bound, a field less", [code, note, n, values, wide, gone, was]],
  ["a unique constraint", [code, note, n, values, wide, gone, was], both],
  ["a field made required", [code, note, n, values, filled, gone, was], both],
  ["another type", [code, note, typed, values, filled, gone, was], both],
  ["a wider number", [code, note, { ...typed, precision: 14 }, values, filled, gone, was], both],
  ["a narrower number", [code, note, { ...typed, precision: 7, scale: 1 }, values, filled, gone, was], both],
  ["a computed value", [code, note, typed, values, filled, gone, was, label], both],
  ["a new name", [code, note, typed, values, filled, gone, named], both],
  ["an indexed field less", [code, note, typed, values, filled, named], both],
  ["a reference", [code, note, typed, values, filled, named, up]]
]

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      table = `${database.org}_shop_eu.thing_v1`
      strategy = await make("shop")
      await provision(database, [
        { chain, strategy: strategy.id, types: [specOf([code, note, n, kind, soft, gone, was])] }
      ])
    }
  })
  wire = await Effect.runPromise(Scope.provide(TcpProxy.make(world.database.apiUrl), scope))
  late = await start(
    Server.layer({ host: "127.0.0.1", port: 0 }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(world.database, { VELOCITY_LISTEN_URL: wire.url })))
    ),
    []
  )
  await world.look(
    `insert into ${table} (id, created_at, created_by, updated_at, updated_by, code, note, n, kind, gone, was)
     select gen_random_uuid(), now(), 'x', now(), 'x', 'c' || i, 'n' || i, i, 'p', 'g', 'w' from generate_series(1, 3000) i`
  )
  const made = await send(world.url, `/api/${chain}/thing/v1`, {
    method: "POST",
    token: await world.token(strategy, { roles: ["editor"] }),
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ code: "first", was: "then", n: 7 })
  })
  first = made.json.id
}, 60_000)
afterAll(async () => {
  await late.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await world.stop()
})

/** Every record that was acknowledged, over all changes: its name, and its note as it was last acknowledged. */
const acknowledged = new Map<string, { readonly code: string; note: string }>()

/** Eight clients, until they are told to stop; answers what they met. */
const traffic = (token: string) => {
  const urls = [world.url, late.get(Server.ServerAddress).url]
  const path = `/api/${chain}/thing/v1`
  const failures: Array<string> = []
  const times: Array<number> = []
  let enough = Number.POSITIVE_INFINITY
  let arrived = () => {}
  let going = true
  let made = 0
  const ask = async (
    base: string,
    sent: { readonly method: string; readonly path: string; readonly body?: unknown }
  ) => {
    const from = performance.now()
    const reply = await send(base, sent.path, {
      method: sent.method,
      token,
      ...(sent.body === undefined
        ? {}
        : { body: JSON.stringify(sent.body), headers: { "content-type": "application/json" } })
    })
    times.push(performance.now() - from)
    if (times.length >= enough) arrived()
    if (reply.status >= 400) failures.push(`${sent.method} ${reply.status} ${reply.text.slice(0, 300)}`)
    return reply
  }
  const client = async (index: number) => {
    const base = urls[index % 2] as string
    while (going) {
      const name = `t${index}-${made++}-${Date.now()}`
      const created = await ask(base, { method: "POST", path, body: { code: name, note: "made", n: 2 } })
      const id = created.json?.id
      if (id === undefined) continue
      const record = { code: name, note: "made" }
      acknowledged.set(id, record)
      await ask(base, { method: "GET", path: `${path}/${id}` })
      const changed = await ask(base, { method: "PATCH", path: `${path}/${id}`, body: { note: name } })
      if (changed.status < 400) record.note = name
      await ask(base, { method: "GET", path: `${path}?limit=5&sort=-code` })
      await ask(base, { method: "GET", path: `${path}?filter%5Bcode%5D%5Beq%5D=${name}` })
    }
  }
  const clients = Promise.all(Array.from({ length: 8 }, (_, index) => client(index)))
  /** Lets so many requests more come, and ends. */
  return async (more: number) => {
    await new Promise<void>((done) => {
      arrived = done
      enough = times.length + more
    })
    going = false
    await clients
    times.sort((a, b) => a - b)
    const at = (part: number) => Math.round(times[Math.floor(times.length * part)] ?? 0)
    return { failures, requests: times.length, p50: at(0.5), p99: at(0.99), longest: at(1 - 1 / times.length) }
  }
}

const isLockTimeout = (error: DatabaseFailure | ProvisionRefused): boolean =>
  error._tag === "DatabaseFailure" && error.reason._tag === "LockTimeout"

/** Evolves as the operator does, waiting a little for locks that do not come, and approving what waits. */
const evolve = (spec: unknown, refused: () => void) =>
  Effect.gen(function* () {
    const operator = yield* OperatorSql
    const runner: Evolution.Runner = {
      transaction: operator.transaction,
      alone: operator.alone,
      backfill: compileBackfill
    }
    const wanted = {
      spec: Schema.decodeUnknownSync(SchemaDefinitionSpec)(spec),
      origin: { source: "folder", namespace: "test", name: "eu-thing" }
    }
    let tries = 0
    const once = (approval?: { readonly hash: string; readonly by: string }) =>
      Effect.suspend(() => {
        tries += 1
        return Evolution.provision(runner, { ...wanted, approval })
      }).pipe(
        Effect.tapError((error) => Effect.sync(() => (isLockTimeout(error) ? refused() : undefined))),
        Effect.retry({ while: isLockTimeout, schedule: Schedule.spaced("300 millis") })
      )
    const first = yield* once()
    const result = first._tag === "Planned" ? yield* once({ hash: first.hash, by: "tests/approver" }) : first
    return { result, tries }
  }).pipe(
    Effect.provide(OperatorSql.layer.pipe(Layer.provide(ConfigProvider.layer(configOf(world.database))))),
    Effect.runPromise
  )

const waited = `select 1 as one from pg_locks l join pg_stat_activity a on a.pid = l.pid
  where l.locktype = 'virtualxid' and not l.granted and a.datname = current_database()`

/**
 * An export as the domain's role: one snapshot, of which a little is read each second for so many seconds, and then the rest.
 * Answers how many records it read and how many there were.
 */
const exporting = (seconds: number) =>
  Effect.gen(function* () {
    const session = yield* connect(world.database.apiUrl)
    yield* session.query("begin isolation level repeatable read")
    yield* session.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
      `${table.split(".")[0]}_reader`,
      JSON.stringify({ op: "read", actor: "shop/exporter", roles: ["editor"] })
    ])
    const [all] = (yield* session.query(`select count(*)::int4 as n from ${table}`)).rows
    yield* session.query(`declare export no scroll cursor for select code, note from ${table}`)
    let read = 0
    for (let second = 0; second < seconds; second++) {
      read += (yield* session.query("fetch 30 from export")).rows.length
      yield* session.query("select pg_sleep(1)")
    }
    read += (yield* session.query("fetch all from export")).rows.length
    yield* session.query("commit")
    return { read, there: Number(all?.n) }
  })

/** A transaction that has read the table and idles until it is let go, and an export that takes `seconds`. */
const loiter = (released: Promise<void>, seconds: number) =>
  Effect.scoped(
    Effect.gen(function* () {
      const idle = yield* connect(world.database.superuserUrl)
      yield* idle.query("begin")
      yield* idle.query(`select count(*) from ${table}`)
      const [exported] = yield* Effect.all(
        [
          exporting(seconds),
          Effect.andThen(
            // an index that is built waits for it, whatever it does
            Effect.race(
              Effect.promise(() => released),
              Effect.promise(() => world.look(waited)).pipe(
                Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("100 millis") })
              )
            ),
            idle.query("rollback")
          )
        ],
        { concurrency: "unbounded" }
      )
      return exported
    })
  ).pipe(Effect.runPromise)

/** Changes the definition under traffic, and looks at what came of it. */
const underTraffic = async (name: string, spec: unknown, seconds: number) => {
  const token = await world.token(strategy, { roles: ["editor"] })
  const stop = traffic(token)
  let release = () => {}
  const loitering = loiter(
    new Promise((done) => {
      release = done
    }),
    seconds
  )
  // until traffic has gone on for a while after the switch, one replica does not hear of it
  wire.stall()
  const evolved = evolve(spec, () => release())
  void evolved.finally(release).catch(() => {})
  await Promise.allSettled([evolved, loitering])
  const met = await stop(80)
  wire.resume()
  const { result, tries } = await evolved
  const exported = await loitering
  console.log(
    `${name}: ${met.requests} requests, p50 ${met.p50} ms, p99 ${met.p99} ms, longest ${met.longest} ms; ${tries} tries; export of ${seconds} s: ${exported.read} records`
  )
  expect(result._tag).toBe("Applied")
  expect(met.failures.slice(0, 5)).toEqual([])
  expect(met.requests).toBeGreaterThan(50)
  expect(exported.read).toBe(exported.there)
  const [row] = await world.look(
    `select count(*)::int4 as rows, count(*) filter (where t.created_by = 'x' and t.code like 'c%')::int4 as first, count(a.id)::int4 as acknowledged
     from ${table} t left join jsonb_to_recordset($1::text::jsonb) as a(id uuid, code text, note text) on a.id = t.id and a.code = t.code and a.note = t.note`,
    [JSON.stringify([...acknowledged].map(([id, record]) => ({ id, ...record })))]
  )
  // the one record that was made before all changes is the first of the test
  expect(row).toEqual({ rows: 3_001 + acknowledged.size, first: 3_000, acknowledged: acknowledged.size })
}

describe("a definition that changes under traffic", () => {
  for (const [name, fields, more] of changes) {
    it(`fails no request: ${name}`, { timeout: 120_000 }, () => underTraffic(name, specOf(fields, more), 2))
  }

  it("shows the past of a renamed field under its new name, and the present", async () => {
    const token = await world.token(strategy, { roles: ["editor"] })
    const at = `/api/${chain}/thing/v1/${first}`
    const now = await send(world.url, at, { token })
    expect(now.json).toMatchObject({ code: "first", is: "then", n: 7, soft: "-" })
    expect(now.text).toContain('"n":7.00')
    const past = await send(world.url, `${at}/history`, { token })
    expect(past.json.items).toMatchObject([{ version: 1, state: { code: "first", is: "then", n: 7 } }])
    expect(past.json.items[0].changed).toContain("is")
    expect(past.json.items[0].changed).not.toContain("was")
  })

  it("fails no request: every kind of step in one plan, and an export of a minute", { timeout: 240_000 }, () =>
    underTraffic(
      "all at once",
      specOf(
        [
          code,
          { ...note, required: true, default: "-" },
          { ...typed, precision: 14, scale: 4 },
          { ...kind, enum: ["p", "q", "r", "s"] },
          { ...filled, maxLength: 8 },
          { ...named, name: "again", renamedFrom: ["is", "was"] },
          { name: "fresh", type: "integer", indexed: true }
        ],
        both
      ),
      60
    )
  )
})
