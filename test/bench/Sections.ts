/** What is measured: each section answers lines of the table. */
import { spawn } from "node:child_process"
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { createInterface } from "node:readline"
import type { Baseline, Driver } from "./Baseline.ts"
import { httpLoad } from "./HttpLoad.ts"
import { type Contestant, type Effort, turnAbout } from "./Measure.ts"
import { type CountryIds, loadOtherCities } from "./Places.ts"
import { benchCity, cityPath, createScript, getScript, listScript, type Product, plainCreate } from "./Product.ts"
import type { Line } from "./Report.ts"
import { type Script, scriptOf } from "./Script.ts"
import { call, inDatabase, query, type World } from "./World.ts"

export interface Bench {
  readonly world: World
  readonly product: Product
  readonly countries: CountryIds
  readonly driver: Driver
  readonly effort: Effort
  /** Says what is being done now. */
  readonly say: (what: string) => void
}

export type Section = (bench: Bench) => Promise<ReadonlyArray<Line>>

/** Connections of the HTTP load and of its baselines. */
const connections = 8

/**
 * A script as the API's login, its sessions in the domain's role from the start: a statement that runs alone has no other
 * way there, and pgbench prepares what stands in a pipeline before it begins it.
 */
const inRole = (world: World, script: Script): Baseline => ({
  url: world.ready.postgres.api,
  clients: connections,
  script,
  role: script.variables.role
})

/** A country to refer to. */
const anyOf = (countries: CountryIds): string => [...countries.values()][0] ?? ""

/** Requests over so many connections; refuses a figure that counts anything but the expected status. */
const http = (api: string, status: number, request: (n: number) => string, clients = connections): Contestant => {
  const { hostname, port } = new URL(api)
  return async (seconds) => {
    const result = await httpLoad({
      host: hostname,
      port: Number(port),
      connections: clients,
      millis: seconds * 1000,
      request
    })
    const others = [...result.statuses].filter(([one]) => one !== status)
    if (others.length > 0)
      throw new Error(`answers other than ${status}: ${others.map((pair) => pair.join(" × ")).join()}`)
    return result.perSecond
  }
}

const head = ({ ready }: World, method: string, path: string): string =>
  `${method} ${path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer ${ready.token}\r\n`

const get = (world: World, path: string): string => `${head(world, "GET", path)}\r\n`

const post = (world: World, path: string, body: string): string =>
  `${head(world, "POST", path)}content-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`

const idsOf = async (world: World, path: string): Promise<ReadonlyArray<string>> => {
  const page = await call(world, `/api/${path}?limit=500&select=name`)
  return (page.items as ReadonlyArray<{ readonly id: string }>).map((item) => item.id)
}

/** Entries of the audit log against the same row in a table with four indexes. */
export const auditedInsert: Section = async ({ driver, effort, say, world }) => {
  const { admin, operator } = world.ready.postgres
  await query(admin, "create database bench")
  for (const statement of readFileSync(join(import.meta.dirname, "sql", "plain-table.sql"), "utf8").split(/;\n/u)) {
    if (statement.trim() !== "") await query(inDatabase(admin, "bench"), statement)
  }
  await query(operator, scriptOf("sixteen-chains.sql", {}).text)
  const lines: Array<Line> = []
  for (const clients of [1, 8, 32]) {
    const run = (url: string, file: string) => driver.run({ url, clients, script: scriptOf(file, {}) })
    const rates = await turnAbout(
      {
        plain: run(inDatabase(operator, "bench"), "plain-insert-four-indexes.sql"),
        one: run(operator, "audited-insert.sql"),
        sixteen: run(operator, "audited-insert-16.sql")
      },
      effort,
      (name) => say(`audited insert, ${clients} clients: ${name}`)
    )
    const wanted = { 1: undefined, 8: { ratio: 0.55 }, 32: { ratio: 0.45 } }[clients]
    const line = (what: string, ours: number) =>
      ({ what, clients, ours, unit: "/s", against: "INSERT, four indexes, no audit", theirs: rates.plain }) as const
    lines.push({ ...line("audited insert, one domain", rates.one), target: wanted })
    lines.push(line("audited insert, sixteen domains", rates.sixteen))
  }
  return lines
}

/** GET of one and of fifty, with a checked token, one server process. */
export const reads: Section = async ({ driver, effort, product, say, world }) => {
  const ids = await idsOf(world, cityPath)
  const id = ids[0] ?? ""
  const { api } = world.ready
  const run = (script: Script) => driver.run(inRole(world, script))
  const requests = ids.map((one) => get(world, `/api/${cityPath}/${one}`))
  const list = get(world, `/api/${cityPath}?limit=50`)
  const rates = await turnAbout(
    {
      get: http(api, 200, (n) => requests[n % requests.length] ?? ""),
      list: http(api, 200, () => list),
      getTrips: run(getScript(product, "read-four-round-trips.sql", id)),
      listTrips: run(listScript(product, "read-four-round-trips.sql")),
      getPipeline: driver.pipelines ? run(getScript(product, "read-pipeline.sql", id)) : undefined,
      listPipeline: driver.pipelines ? run(listScript(product, "read-pipeline.sql")) : undefined
    },
    effort,
    (name) => say(`reads: ${name}`)
  )
  const shared = { clients: connections, unit: "/s" }
  const one = { ...shared, what: "GET one, end to end", ours: rates.get }
  const fifty = { ...shared, what: "list of 50, end to end", ours: rates.list }
  const trips = "same SQL, four round trips"
  const pipeline = "same SQL, one pipeline"
  return [
    { ...one, against: trips, theirs: rates.getTrips, target: { ratio: 0.4 } },
    ...(driver.pipelines ? [{ ...one, against: pipeline, theirs: rates.getPipeline }] : []),
    { ...fifty, against: "GET one", theirs: rates.get, target: { ratio: 0.5 } },
    { ...fifty, against: trips, theirs: rates.listTrips },
    ...(driver.pipelines ? [{ ...fifty, against: pipeline, theirs: rates.listPipeline }] : [])
  ]
}

/** POST of one city, with its history row and audit entry. */
export const creates: Section = async ({ countries, driver, effort, product, say, world }) => {
  const country = anyOf(countries)
  const run = (file: string) => driver.run(inRole(world, createScript(product, file, country)))
  // beyond every number that GeoNames has given, and apart from what the scripts draw
  let next = 2_000_000_000_000 + Date.now()
  const city = benchCity(country)
  const rates = await turnAbout(
    {
      create: http(world.ready.api, 201, () =>
        post(world, `/api/${cityPath}`, JSON.stringify({ geoname_id: next++, ...city }))
      ),
      plain: driver.run(inRole(world, plainCreate(product, country))),
      trips: run("create-four-round-trips.sql"),
      pipeline: driver.pipelines ? run("create-pipeline.sql") : undefined
    },
    effort,
    (name) => say(`create: ${name}`)
  )
  const line = { what: "create, end to end", clients: connections, ours: rates.create, unit: "/s" }
  return [
    { ...line, against: "plain INSERT, same table", theirs: rates.plain, target: { ratio: 0.3 } },
    { ...line, against: "same SQL, five round trips", theirs: rates.trips },
    ...(driver.pipelines ? [{ ...line, against: "same SQL, one pipeline", theirs: rates.pipeline }] : [])
  ]
}

/** Kilobytes of memory of a process now, where the system tells (Linux); NaN elsewhere. */
const residentOf = (pid: number): number => {
  try {
    return Number(/VmRSS:\s+(\d+)/u.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1])
  } catch {
    return Number.NaN
  }
}

/** All cities in one NDJSON stream, all or nothing, against their INSERTs one by one. */
export const imports: Section = async ({ countries, driver, effort, product, say, world }) => {
  const before = residentOf(world.pid)
  let most = before
  say("import")
  const began = performance.now()
  const created = await loadOtherCities(world, countries, () => {
    most = Math.max(most, residentOf(world.pid))
  })
  const ours = created / ((performance.now() - began) / 1000)
  say("import: plain INSERTs")
  const theirs = await driver.run(inRole(world, plainCreate(product, anyOf(countries))))(effort.seconds)
  const line = { what: `import of ${created} cities`, ours, unit: "records/s" }
  return [
    { ...line, against: "plain INSERTs, 8 clients", theirs, target: { least: 5000 } },
    {
      what: "memory of the process, most while importing",
      ours: most / 1024,
      unit: "MiB",
      against: "before",
      theirs: before / 1024
    }
  ]
}

/** Verification of everything the sections before have written: by one connection, and as the API does it, by two. */
export const verify: Section = async ({ effort, say, world }) => {
  const { admin } = world.ready.postgres
  const [counted] = await query(admin, "select count(*)::int4 as entries from platform.audit_log")
  const entries = Number(counted?.entries)
  const timed = (f: () => Promise<unknown>) => async (): Promise<number> => {
    const began = performance.now()
    await f()
    return (entries * 1000) / (performance.now() - began)
  }
  const sound = async () => {
    const [bad] = await query(admin, "select count(*)::int4 as bad from platform.audit_verify_window(null, null)")
    if (Number(bad?.bad) !== 0) throw new Error(`${bad?.bad} entries are wrong`)
  }
  const overHttp = async () => {
    const window = "from=2020-01-01T00:00:00Z&to=2100-01-01T00:00:00Z"
    const response = await fetch(`${world.ready.api}/api/platform/audit/verify?${window}`, {
      headers: { authorization: `Bearer ${world.ready.token}`, accept: "application/x-ndjson" }
    })
    const last = JSON.parse((await response.text()).trim().split("\n").at(-1) ?? "{}") as Record<string, unknown>
    if (last.sound !== true || Number(last.entries) < entries)
      throw new Error(`it is not sound: ${JSON.stringify(last)}`)
  }
  const tree = async (): Promise<number> => {
    const [{ leaves } = {}] = await query(admin, "select platform.audit_tree_size()::int4 as leaves")
    const began = performance.now()
    const response = await fetch(`${world.ready.api}/api/platform/audit/tree`, {
      headers: { authorization: `Bearer ${world.ready.token}`, accept: "application/x-ndjson" }
    })
    const last = JSON.parse((await response.text()).trim().split("\n").at(-1) ?? "{}") as Record<string, unknown>
    if (last.sound !== true) throw new Error(`the tree is not sound: ${JSON.stringify(last)}`)
    return (Number(leaves) * 1000) / (performance.now() - began)
  }
  say(`verify: ${entries} entries`)
  const rates = await turnAbout(
    {
      one: timed(sound),
      two: timed(overHttp),
      tree,
      plain: timed(() => query(admin, scriptOf("verify-plain.sql", {}).text))
    },
    effort,
    (name) => say(`verify: ${name}`)
  )
  const line = { unit: "entries/s", against: "each hashed once", theirs: rates.plain }
  return [
    { ...line, what: `verify ${entries} entries`, clients: 1, ours: rates.one, target: { least: 150_000 } },
    { ...line, what: "verify them over HTTP", clients: 2, ours: rates.two, target: { least: 300_000 } },
    {
      what: "verify log and tree over HTTP",
      clients: 2,
      ours: rates.tree,
      unit: "leaves/s",
      against: "",
      target: { least: 30_000 }
    }
  ]
}

/** What a request costs before anything is asked of the database. */
export const hop: Section = async ({ effort, say, world }) => {
  const path = "/healthz"
  const body = await (await fetch(`${world.ready.api}${path}`)).text()
  const bare = spawn(process.execPath, [join(import.meta.dirname, "NodeHttp.ts"), body], {
    stdio: ["ignore", "pipe", "inherit"]
  })
  try {
    const [port] = (await new Promise<string>((done) => createInterface(bare.stdout).once("line", done))).split("\n")
    const request = () => get(world, path)
    const rates = await turnAbout(
      { ours: http(world.ready.api, 200, request), theirs: http(`http://127.0.0.1:${port}`, 200, request) },
      effort,
      (name) => say(`HttpApi hop: ${name}`)
    )
    return [
      {
        what: `HttpApi hop (${path})`,
        clients: connections,
        ours: rates.ours,
        unit: "/s",
        against: "node:http",
        theirs: rates.theirs
      }
    ]
  } finally {
    bare.kill()
  }
}

/** How long `velocity dev` takes to be ready; last, because it ends the process that all else is measured in. */
export const starts: Section = async ({ say, world }) => {
  say("start on an existing folder")
  const again = await world.restart()
  return [
    { what: "first start of velocity dev", ours: world.firstStart / 1000, unit: "s", against: "", target: { most: 8 } },
    { what: "start on this folder, as it is now", ours: again / 1000, unit: "s", against: "", target: { most: 3 } }
  ]
}
