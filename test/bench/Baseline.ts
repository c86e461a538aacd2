/**
 * Runs a script against Postgres with so many clients: by pgbench where the system has one, and otherwise by a loop over
 * the driver, which is the slower of the two and cannot send a pipeline.
 */
import { spawn, spawnSync } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { Contestant } from "./Measure.ts"
import type { Script } from "./Script.ts"

export interface Baseline {
  readonly url: string
  readonly clients: number
  readonly script: Script
  /** A role that each session takes on when it begins, for a statement that runs alone. */
  readonly role?: string | undefined
}

export interface Driver {
  /** What it is, for people. */
  readonly name: string
  /** Whether it can send many statements before it reads an answer. */
  readonly pipelines: boolean
  readonly run: (baseline: Baseline) => Contestant
}

const ended = (command: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv): Promise<string> =>
  new Promise((done, failed) => {
    const child = spawn(command, args, { env, stdio: ["ignore", "pipe", "pipe"] })
    let output = ""
    let errors = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (errors += text))
    child.once("error", failed)
    child.once("close", (code) =>
      code === 0 ? done(output) : failed(new Error(`${command}: ${errors.slice(0, 2000)}`))
    )
  })

/** libpq's variables for a URL, so that no password stands in a command line. */
const environment = ({ role, url }: Baseline): NodeJS.ProcessEnv => {
  const { hostname, password, pathname, port, username } = new URL(url)
  return {
    ...process.env,
    PGHOST: hostname,
    PGPORT: port,
    PGUSER: decodeURIComponent(username),
    PGPASSWORD: decodeURIComponent(password),
    PGDATABASE: decodeURIComponent(pathname.slice(1)),
    ...(role === undefined ? {} : { PGOPTIONS: `-c role=${role}` })
  }
}

const pgbench = (name: string): Driver => ({
  name,
  pipelines: true,
  run: (baseline) => async (seconds) => {
    const { clients, script } = baseline
    const folder = mkdtempSync(join(tmpdir(), "velocity-bench-"))
    try {
      const file = join(folder, "script.sql")
      writeFileSync(file, script.text)
      const variables = Object.entries(script.variables).flatMap(([key, value]) => ["-D", `${key}=${value}`])
      const args = ["-n", "-M", "prepared", "-c", `${clients}`, "-j", "2", "-T", `${seconds}`, "-f", file, ...variables]
      const output = await ended("pgbench", args, environment(baseline))
      const rate = /tps = ([\d.]+) \(without/u.exec(output)?.[1]
      if (rate === undefined || /number of failed transactions: [1-9]/u.test(output)) throw new Error(output)
      return Number(rate)
    } finally {
      rmSync(folder, { recursive: true, force: true })
    }
  }
})

interface Step {
  readonly sql: string
  /** The names of its parameters, in order. */
  readonly names: ReadonlyArray<string>
}

interface Program {
  /** `\set name random(from, to)` */
  readonly draws: ReadonlyArray<{ readonly name: string; readonly from: number; readonly to: number }>
  readonly steps: ReadonlyArray<Step>
}

/** Reads the part of pgbench's language that our scripts use. */
const programOf = (text: string): Program => {
  const draws: Array<Program["draws"][number]> = []
  const lines = text.split("\n").filter((line) => !line.startsWith("--"))
  const rest = lines.filter((line) => {
    const draw = /^\\set (\w+) random\((\d+), (\d+)\)$/u.exec(line)
    if (draw !== null) draws.push({ name: draw[1] ?? "", from: Number(draw[2]), to: Number(draw[3]) })
    return !line.startsWith("\\")
  })
  const steps = rest
    .join("\n")
    .split(/;\s*(?:\n|$)/u)
    .filter((sql) => sql.trim() !== "")
    .map((sql) => {
      const names: Array<string> = []
      return { sql: sql.replace(/(?<!:):(\w+)/gu, (_, name: string) => `$${names.push(name)}`), names }
    })
  return { draws, steps }
}

const loop: Driver = {
  name: "a loop over the driver (no pgbench on this system)",
  pipelines: false,
  run:
    ({ clients, role, script, url }) =>
    (seconds) => {
      const { draws, steps } = programOf(script.text)
      const client = (until: number) =>
        Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* PgConnection.make({ url: Redacted.make(url), applicationName: "velocity bench" })
            if (role !== undefined) yield* connection.query("select set_config('role', $1, false)", [role])
            let count = 0
            while (performance.now() < until) {
              const drawn = draws.map(
                ({ from, name, to }) => [name, Math.floor(from + Math.random() * (to - from))] as const
              )
              const values: Readonly<Record<string, unknown>> = { ...script.variables, ...Object.fromEntries(drawn) }
              for (const { names, sql } of steps)
                yield* connection.query(
                  sql,
                  names.map((name) => String(values[name]))
                )
              count += 1
            }
            return count
          })
        )
      const until = performance.now() + seconds * 1000
      return Effect.runPromise(
        Effect.map(
          Effect.all(
            Array.from({ length: clients }, () => client(until)),
            { concurrency: "unbounded" }
          ),
          (counts) => counts.reduce((sum, count) => sum + count, 0) / seconds
        )
      )
    }
}

/** pgbench of the system, or the loop. */
export const findDriver = (): Driver => {
  const found = spawnSync("pgbench", ["--version"], { encoding: "utf8" })
  return found.status === 0 ? pgbench(found.stdout.trim()) : loop
}
