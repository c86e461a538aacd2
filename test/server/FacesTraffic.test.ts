/**
 * A second version comes, both change, and it goes, while clients of both read and write through two replicas, one of which
 * hears of it a second late: no request fails.
 */
import { ConfigProvider, Effect, Layer, Schedule, Schema } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import type { ProvisionRefused } from "../../src/provisioning/table/ProvisionRefused.ts"
import { withdraw } from "../../src/provisioning/Withdrawal.ts"
import * as Server from "../../src/server/Server.ts"
import { configOf } from "../support/Database.ts"
import { provision } from "./Provisioned.ts"
import { send } from "./Requests.ts"
import { type Running, start } from "./Running.ts"
import { makeWorld, tokenOf, type World } from "./World.ts"

type Version = "v1" | "v2"

let world: World
let late: Running<Server.ServerAddress>
let token: string
let chain: string
let table: string

const editor = { role: "editor", operations: ["create", "read", "update", "history"] }
const specOf = (version: Version, fields: ReadonlyArray<unknown>) => {
  const [org, app, domain] = chain.split("/")
  return { org, app, domain, object: "thing", version, fields, access: { roles: [editor] } }
}
const code = { name: "code", type: "string", required: true, unique: true, filterable: true }
const note = { name: "note", type: "string", filterable: true }
const remark = { ...note, name: "remark", renamedFrom: ["note"] }
const old = { name: "old", type: "integer", default: "3" }
const extra = { name: "extra", type: "string", indexed: true }
const level = { name: "level", type: "integer", required: true, default: "5" }

const isLockTimeout = (error: unknown): boolean =>
  (error as { reason?: { _tag?: string } }).reason?._tag === "LockTimeout"

const asOperator = <A, E>(effect: Effect.Effect<A, E, OperatorSql>) =>
  effect.pipe(
    Effect.retry({ while: isLockTimeout, schedule: Schedule.spaced("100 millis") }),
    Effect.provide(OperatorSql.layer.pipe(Layer.provide(ConfigProvider.layer(configOf(world.database))))),
    Effect.runPromise
  )

/** Evolves as the operator does, approving what waits. */
const evolve = (spec: unknown) =>
  asOperator(
    Effect.gen(function* () {
      const operator = yield* OperatorSql
      const runner: Evolution.Runner = { transaction: operator.transaction, alone: operator.alone }
      const wanted = {
        spec: Schema.decodeUnknownSync(SchemaDefinitionSpec)(spec),
        origin: { source: "folder", namespace: "test", name: "eu-thing" }
      }
      const first = yield* Evolution.provision(runner, wanted)
      const result =
        first._tag === "Planned"
          ? yield* Evolution.provision(runner, { ...wanted, approval: { hash: first.hash, by: "tests/approver" } })
          : first
      expect(result._tag).toBe("Applied")
    })
  )

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      table = `${database.org}_shop_eu.thing_v1`
      const strategy = await make("shop")
      token = await tokenOf(strategy, { roles: ["editor"] })
      await provision(database, [{ chain, strategy: strategy.id, types: [specOf("v1", [code, note, old])] }])
    }
  })
  // without prepared statements it does not listen, and looks each second
  late = await start(
    Server.layer({ host: "127.0.0.1", port: 0 }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(world.database, { VELOCITY_PREPARED: "0" })))
    ),
    []
  )
  await world.look(
    `insert into ${table} (id, created_at, created_by, updated_at, updated_by, code, note)
     select gen_random_uuid(), now(), 'x', now(), 'x', 'c' || i, 'n' || i from generate_series(1, 2000) i`
  )
}, 60_000)
afterAll(async () => {
  await late.stop()
  await world.stop()
})

let made = 0

/** Eight clients, half of them on each replica, until they are told to stop; answers what they met. */
const traffic = (versions: ReadonlyArray<Version>) => {
  const urls = [world.url, late.get(Server.ServerAddress).url]
  const failures: Array<string> = []
  let answered = 0
  let enough = Number.POSITIVE_INFINITY
  let arrived = () => {}
  let going = true

  const ask = async (base: string, method: string, path: string, body?: unknown) => {
    const reply = await send(base, `/api/${chain}/thing/${path}`, {
      method,
      token,
      ...(body === undefined ? {} : { body: JSON.stringify(body), headers: { "content-type": "application/json" } })
    })
    answered += 1
    if (answered >= enough) arrived()
    if (reply.status >= 400) failures.push(`${method} ${path} ${reply.status} ${reply.text.slice(0, 300)}`)
    return reply
  }
  const client = async (index: number) => {
    const base = urls[index % 2] as string
    const version = versions[Math.floor(index / 2) % versions.length] as Version
    const text = version === "v1" ? "note" : "remark"
    while (going) {
      const name = `t${index}-${made++}`
      const created = await ask(base, "POST", version, { code: name, [text]: "made" })
      const id = created.json?.id
      if (id === undefined) continue
      const changed = await ask(base, "PATCH", `${version}/${id}`, { [text]: name })
      if (changed.status < 400 && changed.json?.[text] !== name) failures.push(`PATCH was lost: ${changed.text}`)
      await ask(base, "GET", `${version}?limit=5&sort=-code`)
      const found = await ask(base, "GET", `${version}?filter%5Bcode%5D%5Beq%5D=${name}`)
      if (found.status < 400 && found.json?.items?.[0]?.[text] !== name) failures.push(`lost: ${found.text}`)
    }
  }
  const clients = Promise.all(Array.from({ length: 8 }, (_, index) => client(index)))
  return {
    /** Resolves after so many requests more. */
    more: (more: number) =>
      new Promise<void>((done) => {
        arrived = done
        enough = answered + more
      }),
    stop: async () => {
      going = false
      await clients
      return failures
    }
  }
}

describe("versions that come, change and go under traffic", () => {
  const phases: ReadonlyArray<readonly [string, ReadonlyArray<Version>, () => Promise<unknown>]> = [
    ["the second comes", ["v1"], () => evolve(specOf("v2", [code, remark]))],
    ["the second gets fields and an index", ["v1", "v2"], () => evolve(specOf("v2", [code, remark, extra, level]))],
    [
      "the first changes the type of a field of its own",
      ["v1", "v2"],
      () => evolve(specOf("v1", [code, note, { name: "old", type: "number", precision: 12, scale: 1, default: "3" }]))
    ],
    [
      "the first gets a field",
      ["v1", "v2"],
      () =>
        evolve(
          specOf("v1", [
            code,
            note,
            { name: "old", type: "number", precision: 12, scale: 1, default: "3" },
            { name: "kind", type: "enum", enum: ["p", "q"], default: "p" }
          ])
        )
    ],
    [
      "the second goes",
      ["v1"],
      () =>
        asOperator(
          Effect.gen(function* () {
            const operator = yield* OperatorSql
            const origin = { source: "folder", namespace: "test", name: "eu-thing" }
            const going = { path: `${chain}/thing/v2`, origin, leaving: new Set<string>() }
            yield* operator.transaction((tx) =>
              withdraw(tx, going).pipe(Effect.mapError((error: unknown) => error as ProvisionRefused))
            )
          })
        )
    ]
  ]
  for (const [name, versions, change] of phases) {
    it(`fails no request: ${name}`, { timeout: 120_000 }, async () => {
      const { more, stop } = traffic(versions)
      await more(40)
      await change()
      // long enough for the replica that hears of it late
      await more(200)
      expect((await stop()).slice(0, 5)).toEqual([])
      const [row] = await world.look(`select count(*) filter (where code like 'c%')::int4 as first from ${table}`)
      expect(row).toEqual({ first: 2000 })
    })
  }
  it("leaves no hash of history unsound", async () => {
    const [row] = await world.look(
      `select count(*) filter (where e.hash is distinct from platform.event_hash(e.salt, e.storage_id || '/' || e.entity_id || '/' || e.version || '/' || e.op, e.state))::int4 as unsound from platform.event_log e`
    )
    expect(row).toEqual({ unsound: 0 })
  })
})
