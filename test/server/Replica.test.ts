/**
 * A replica that says what it serves, for as long as it may serve anything: heartbeats, what is tried again with them, and
 * the isolation gate. Its clock runs a hundred times as fast as the machine's, so that a heartbeat is a third of a second.
 */
import { Clock, ConfigProvider, Duration, Effect, Layer, Schedule } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { problem } from "../../src/domain/Problem.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { Listener } from "../../src/postgres/Listener.ts"
import { RegistryAcks } from "../../src/postgres/RegistryAcks.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ProbeRecords } from "../../src/records/ProbeRecords.ts"
import { IsolationGate } from "../../src/server/IsolationGate.ts"
import { Registry } from "../../src/server/Registry.ts"
import { Replica } from "../../src/server/Replica.ts"
import { configOf, query } from "../support/Database.ts"
import { provision } from "./Provisioned.ts"
import { type Running, start } from "./Running.ts"
import { thing } from "./Things.ts"
import { makeWorld, type World } from "./World.ts"

const factor = 100
const machine = Effect.runSync(Clock.clockWith(Effect.succeed))
const began = Date.now()
const time = () => began + (Date.now() - began) * factor
const fast: Clock.Clock = Object.assign(Object.create(machine), {
  currentTimeMillisUnsafe: time,
  currentTimeMillis: Effect.sync(time),
  sleep: (duration: Duration.Duration) => machine.sleep(Duration.millis(Duration.toMillis(duration) / factor))
})

let world: World
let replica: Running<Replica>
let table: string
let reader: string
let isClosed = false

const gate = Layer.succeed(IsolationGate)({
  closed: () => (isClosed ? problem("not_ready") : undefined),
  judge: Effect.succeed([])
})

beforeAll(async () => {
  // a server beside it, whose replica is another
  world = await makeWorld({
    prepare: async (database, make) => {
      const chain = `${database.org}/shop/eu`
      table = `${database.org}_shop_eu.thing_v1`
      reader = `${database.org}_shop_eu_reader`
      await provision(database, [{ chain, strategy: (await make("shop")).id, types: [thing(chain)] }])
    }
  })
  replica = await start(
    Replica.layerNoDeps.pipe(
      Layer.provide(Layer.succeed(Clock.Clock, fast)),
      Layer.provide([gate, ProbeRecords.layerNoDeps, RegistryAcks.layerNoDeps, Registry.layerNoDeps]),
      Layer.provide([TenantTx.layerNoDeps, GatewayTx.layerNoDeps, Listener.layer]),
      Layer.provide(ApiSql.layer),
      Layer.provide(ConfigProvider.layer(configOf(world.database, { VELOCITY_REPLICA: "fast one" })))
    )
  )
}, 60_000)
afterAll(async () => {
  await replica.stop()
  await world.stop()
})

/** Asks until it is so. */
const until = async (sql: string, is: (rows: ReadonlyArray<Record<string, unknown>>) => boolean) =>
  Effect.runPromise(
    Effect.promise(() => world.look(sql)).pipe(Effect.repeat({ until: is, schedule: Schedule.spaced("50 millis") }))
  )
const mine = "where replica = 'fast_one'"
const said = `select a.generation = (select generation from platform.schema_defs) as now, a.problem from platform.replica_acks a ${mine}`

describe("a replica", () => {
  it("acknowledges what it serves under a name without spaces, and is complete with its first heartbeat", async () => {
    await until(`select complete from platform.replicas ${mine}`, ([row]) => row?.complete === true)
    expect(await world.look(said)).toEqual([{ now: true, problem: null }])
    expect(await world.look("select count(*)::int4 as n from platform.replicas")).toEqual([{ n: 2 }])
  })

  it("writes nothing but its heartbeat while nothing changes", async () => {
    const versions = `select a.xmin::text || a.ctid::text as row from platform.replica_acks a ${mine}`
    const before = await world.look(versions)
    const [seen] = await world.look(`select seen_at::text as seen from platform.replicas ${mine}`)
    await until(`select seen_at::text as seen from platform.replicas ${mine}`, ([row]) => row?.seen !== seen?.seen)
    expect(await world.look(versions)).toEqual(before)
  })

  it("says everything again to a database that has forgotten it", async () => {
    const row = `select complete, started_at::text as started from platform.replicas ${mine}`
    const [before] = await world.look(row)
    await world.look(`delete from platform.replicas ${mine}`)
    await until(row, ([now]) => now?.complete === true && now.started !== before?.started)
    expect(await world.look(said)).toEqual([{ now: true, problem: null }])
  })

  it("tries again with each heartbeat what it could not run", async () => {
    await world.look(`revoke select on ${table} from ${reader}`)
    await world.look("update platform.schema_defs set generation = nextval('platform.generation_seq')")
    await world.look("notify velocity_registry, 'everything'")
    await until(said, ([row]) => row?.now === true && row.problem === "permission denied for table thing_v1")
    await world.look(`grant select on ${table} to ${reader}`)
    await until(said, ([row]) => row?.now === true && row.problem === null)
  })

  it("takes itself out while the isolation gate is closed", async () => {
    isClosed = true
    await until(`select replica from platform.replicas ${mine}`, (rows) => rows.length === 0)
    isClosed = false
    await until(`select complete from platform.replicas ${mine}`, ([row]) => row?.complete === true)
    expect(await world.look(said)).toEqual([{ now: true, problem: null }])
  })

  it("is named by visible characters, and may be told of nothing that there is not", async () => {
    const ask = (sql: string) => Effect.runPromise(query(world.database.apiUrl, sql))
    const call = (replica: string, definition: number) =>
      ask(`select platform.registry_ack('${replica}', ${definition}, 1, null) as known`)
    await expect(call("a b", 1)).rejects.toThrow()
    await expect(call("", 1)).rejects.toThrow()
    await call("odd", 2_000_000_000)
    expect(await world.look("select def_id from platform.replica_acks where replica = 'odd'")).toEqual([])
    await ask("select platform.registry_leave('odd')")
    expect(await world.look("select replica from platform.replicas where replica = 'odd'")).toEqual([])
  })
})
