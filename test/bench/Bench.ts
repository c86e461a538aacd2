/**
 * `npm run bench`: starts what it needs, measures and prints one table of ratios, each of two things measured in the same
 * run. `npm run bench -- reads creates` measures only these; VELOCITY_BENCH_SECONDS (4) and VELOCITY_BENCH_ROUNDS (3) say
 * how long. Ends with 1 where a line is short of what it must reach. Give it a quiet machine: it uses all of it.
 */
import { availableParallelism, cpus, loadavg } from "node:os"
import { findDriver } from "./Baseline.ts"
import { definitions } from "./Definitions.ts"
import { loadCountries, loadSomeCities } from "./Places.ts"
import { readProduct } from "./Product.ts"
import { type Line, reached, report } from "./Report.ts"
import { seal } from "./Seal.ts"
import * as Sections from "./Sections.ts"
import { query, startWorld, type World } from "./World.ts"

/** In the order in which they run: each finds what the ones before left. */
const sections: Readonly<Record<string, Sections.Section>> = {
  imports: Sections.imports,
  reads: Sections.reads,
  creates: Sections.creates,
  audit: Sections.auditedInsert,
  seal,
  verify: Sections.verify,
  hop: Sections.hop,
  definitions,
  starts: Sections.starts
}

const settings = [
  "server_version",
  "fsync",
  "synchronous_commit",
  "full_page_writes",
  "wal_level",
  "shared_buffers",
  "max_connections",
  "data_checksums"
]

const found = async (world: World, driver: string): Promise<string> => {
  const rows = await query(
    world.ready.postgres.admin,
    "select name, current_setting(name) as value from unnest($1::text[]) with ordinality as s (name, n) order by n",
    [settings]
  )
  const postgres = rows.map((row) => `${row.name} ${row.value}`).join(", ")
  return [
    `machine   ${availableParallelism()} × ${cpus()[0]?.model ?? "unknown"}, load ${loadavg()[0]?.toFixed(2)}, Node ${process.version}`,
    `postgres  ${postgres}`,
    `baselines ${driver}`
  ].join("\n")
}

/** The current step on one line of the terminal; a line each where it is none. */
const say = (what: string): void => {
  if (process.stderr.isTTY) process.stderr.write(`\r\u001b[K${what}`)
  else process.stderr.write(`${what}\n`)
}

const main = async (): Promise<void> => {
  const asked = process.argv.slice(2)
  const stranger = asked.find((name) => !(name in sections))
  if (stranger !== undefined) {
    console.error(`no section ${stranger}: there are ${Object.keys(sections).join(", ")}`)
    process.exitCode = 2
    return
  }
  const effort = {
    seconds: Number(process.env.VELOCITY_BENCH_SECONDS ?? 4),
    rounds: Number(process.env.VELOCITY_BENCH_ROUNDS ?? 3)
  }
  const driver = findDriver()
  say("first start of velocity dev")
  const world = await startWorld()
  const lines: Array<Line> = []
  try {
    const settingsFound = await found(world, driver.name)
    const countries = await loadCountries(world)
    await loadSomeCities(world, countries)
    const product = await readProduct(world)
    for (const [name, section] of Object.entries(sections)) {
      if (asked.length > 0 && !asked.includes(name)) continue
      lines.push(...(await section({ world, product, countries, driver, effort, say })))
    }
    say("")
    console.log(`${settingsFound}\n\n${report(lines)}`)
  } finally {
    await world.stop()
  }
  if (!lines.every(reached)) process.exitCode = 1
}

await main()
