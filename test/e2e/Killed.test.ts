/**
 * A thousand keyed creates from outside, and `kill -9` in the middle of them: of the whole process, and of every process
 * of Postgres. What was acknowledged is there, what was not is whole or absent, and repeating everything under the same
 * keys gives every record exactly once.
 */
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { stringify } from "yaml"
import { run } from "../cli/Run.ts"
import { send } from "../server/Requests.ts"
import { query } from "../support/Database.ts"
import { type RunningDev, removeFolder, root, startDev, temporaryFolder } from "./Dev.ts"

const total = 1_000
const atOnce = 32
/** How many acknowledgements come before each blow. */
const blows = [100, 400, 700]

let data: string
let manifests: string
let dev: RunningDev

const definition = (object: string) => ({
  apiVersion: "velocity.sh/v1",
  kind: "SchemaDefinition",
  metadata: { name: object, namespace: "acme-geo-atlas" },
  spec: {
    org: "acme",
    app: "geo",
    domain: "atlas",
    object,
    version: "v1",
    fields: [{ name: "number", type: "integer", required: true, unique: true }],
    access: { roles: [{ role: "cartographer", operations: ["create", "read"] }] }
  }
})

beforeAll(async () => {
  data = await temporaryFolder()
  manifests = join(await temporaryFolder(), "manifests")
  await mkdir(manifests)
  for (const name of ["geo.yaml", "namespaces.yaml", "organisation.yaml"]) {
    await writeFile(join(manifests, name), await readFile(join(root, "k8s/samples", name)))
  }
  for (const object of ["process", "database"]) {
    await writeFile(join(manifests, `${object}.yaml`), stringify(definition(object)))
  }
  dev = await startDev({ data, manifests })
})
afterAll(async () => {
  await dev.end("SIGTERM")
  await removeFolder(data)
  await removeFolder(join(manifests, ".."))
})

const create = (object: string, n: number) =>
  send(dev.ready.api, `/api/acme/geo/atlas/${object}/v1`, {
    method: "POST",
    token: dev.ready.token,
    headers: { "content-type": "application/json", "idempotency-key": `${object}-${n}` },
    body: `{"number":${n}}`
  })

/** Sends every create, `atOnce` at a time; answers the ids of those that were acknowledged, by number. */
const creates = async (object: string, heard: (acknowledged: number) => void): Promise<ReadonlyMap<number, string>> => {
  const ids = new Map<number, string>()
  let next = 0
  const sender = async () => {
    for (let n = next++; n < total; n = next++) {
      // a connection that breaks, or a 503, acknowledges nothing
      const reply = await create(object, n).catch(() => undefined)
      if (reply?.status !== 201) continue
      ids.set(n, reply.json.id)
      heard(ids.size)
    }
  }
  await Promise.all(Array.from({ length: atOnce }, sender))
  return ids
}

const look = (sql: string) =>
  Effect.runPromise(Effect.scoped(query(dev.ready.postgres.admin, sql))) as Promise<
    ReadonlyArray<Record<string, unknown>>
  >

/** The records by number; each must have exactly one event and one entry, of the same hash, and none may have more. */
const held = async (object: string): Promise<ReadonlyMap<number, string>> => {
  const rows = await look(`select number::int4 as n, id::text from acme_geo_atlas.${object}_v1`)
  const [tally] = await look(
    `select count(*)::int4 as rows, count(e.id)::int4 as events, count(a.id)::int4 as entries,
       (select count(*)::int4 from platform.event_log x
        where x.storage_id = (select storage_id from platform.schema_defs where path = 'acme/geo/atlas/${object}/v1')) as all_events,
       (select count(*)::int4 from platform.audit_log x
        where x.schema_path = 'acme/geo/atlas/${object}/v1' and x.action = 'create' and x.outcome = 'ok') as all_entries
     from acme_geo_atlas.${object}_v1 r
     left join platform.event_log e on e.entity_id = r.id
     left join platform.audit_log a on a.entity_id = r.id and a.action = 'create' and a.outcome = 'ok'
       and a.payload ->> 'event' = e.id::text and a.payload ->> 'hash' = encode(e.hash, 'hex')`
  )
  const count = rows.length
  expect(tally).toEqual({ rows: count, events: count, entries: count, all_events: count, all_entries: count })
  return new Map(rows.map((row) => [Number(row.n), String(row.id)]))
}

const isThere = (acknowledged: ReadonlyMap<number, string>, rows: ReadonlyMap<number, string>) => {
  for (const [n, id] of acknowledged) expect([n, rows.get(n)]).toEqual([n, id])
}

/** Repeats every create under its key until each is answered; the answers name the records that are there. */
const repeatAll = async (object: string, before: ReadonlyMap<number, string>) => {
  const again = await creates(object, () => undefined)
  expect(again.size).toBe(total)
  isThere(before, again)
  const rows = await held(object)
  expect(rows.size).toBe(total)
  isThere(again, rows)
  const verified = await run(["audit", "verify", "--all", "--data", data])
  expect(verified).toMatchObject({ code: 0, out: expect.stringMatching(/^sound: /u) })
}

/** Every process whose parent is this one, and itself. */
const family = async (pid: number): Promise<ReadonlyArray<number>> => {
  const found = [pid]
  for (const entry of await readdir("/proc")) {
    if (!/^[0-9]+$/u.test(entry)) continue
    const stat = await readFile(`/proc/${entry}/stat`, "utf8").catch(() => "")
    // the name, in brackets, may hold spaces; the parent is the second word behind it
    if (Number(stat.slice(stat.lastIndexOf(")") + 2).split(" ")[1]) === pid) found.push(Number(entry))
  }
  return found
}

const killAll = (pids: ReadonlyArray<number>) => {
  for (const pid of pids) {
    try {
      process.kill(pid, "SIGKILL")
    } catch {
      // it has ended already, with its parent
    }
  }
}

describe("kill -9 in the middle of a thousand creates", () => {
  it("of the whole process: nothing acknowledged is lost, nothing is done twice", async () => {
    for (const blowAt of blows) {
      let blow: Promise<unknown> | undefined
      const acknowledged = await creates("process", (count) => {
        if (count === blowAt) blow = dev.end("SIGKILL")
      })
      await blow
      expect(acknowledged.size).toBeGreaterThanOrEqual(blowAt)
      expect(acknowledged.size).toBeLessThan(total)
      dev = await startDev({ data, manifests })
      isThere(acknowledged, await held("process"))
    }
    await repeatAll("process", await held("process"))
  })

  it("of every process of Postgres: the API lives, says so, and nothing is lost", async () => {
    const postmaster = async () => {
      const [file] = await look("select split_part(pg_read_file('postmaster.pid'), e'\\n', 1)::int4 as pid")
      return Number(file?.pid)
    }
    const ready = async (before: number) =>
      (await postmaster().catch(() => before)) !== before && (await send(dev.ready.api, "/readyz")).status === 200
    for (const blowAt of blows) {
      const before = await postmaster()
      expect((await family(before)).length).toBeGreaterThan(5)
      const acknowledged = await creates("database", (count) => {
        if (count === blowAt) void family(before).then(killAll)
      })
      expect(acknowledged.size).toBeGreaterThanOrEqual(blowAt)
      expect(acknowledged.size).toBeLessThan(total)
      // the same process serves, and is ready again once its database is
      while (!(await ready(before))) await new Promise((later) => setTimeout(later, 50))
      expect(dev.process.exitCode).toBeNull()
      isThere(acknowledged, await held("database"))
    }
    await repeatAll("database", await held("database"))
  })
})

describe("kill -9 in the middle of forty new definitions", () => {
  it("leaves each of them whole or absent, and the next start makes the others", async () => {
    const objects = Array.from({ length: 40 }, (_, n) => `kind-${n}`)
    const applied = async () => {
      const rows = await look(
        `select d.path, to_regclass(format('%I.%I', d.pg_schema, d.pg_table)) is not null as made,
           (select count(*)::int4 from platform.audit_log a where a.action = 'operator.schema.apply' and a.outcome = 'ok'
              and a.schema_path = d.path) as entries
         from platform.schema_defs d where d.path like 'acme/geo/atlas/kind-%' and d.serving is not null`
      )
      for (const row of rows) expect(row).toMatchObject({ made: true, entries: 1 })
      const [tables] = await look(
        "select count(*)::int4 as made from pg_tables where schemaname = 'acme_geo_atlas' and tablename like 'kind_%'"
      )
      expect(tables?.made).toBe(rows.length)
      return rows.length
    }
    const killed = new Promise<void>((done) => {
      dev.process.stderr?.on("data", () => {
        if ((dev.log().match(/\+ SchemaDefinition\/acme-geo-atlas\/kind-/gu) ?? []).length < 5) return
        dev.process.kill("SIGKILL")
        done()
      })
    })
    const ended = new Promise((done) => dev.process.once("exit", done))
    for (const object of objects) await writeFile(join(manifests, `${object}.yaml`), stringify(definition(object)))
    await killed
    await ended
    dev = await startDev({ data, manifests })
    expect(await applied()).toBe(objects.length)
    const again = await dev.end("SIGTERM")
    expect(again).toEqual({ code: 0, signal: null })
    dev = await startDev({ data, manifests })
    expect(await applied()).toBe(objects.length)
    const verified = await run(["audit", "verify", "--all", "--data", data])
    expect(verified).toMatchObject({ code: 0 })
  })
})
