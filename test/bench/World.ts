/** What the bench runs against: `velocity dev` as a process of its own, on the samples, in a folder that goes with it. */

import { join } from "node:path"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { type Ready, type RunningDev, removeFolder, root, startDev, temporaryFolder } from "../e2e/Dev.ts"

export type Rows = ReadonlyArray<Readonly<Record<string, unknown>>>

/** One statement, as the login of `url`. */
export const query = (url: string, sql: string, params: ReadonlyArray<unknown> = []): Promise<Rows> =>
  Effect.runPromise(
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* PgConnection.make({ url: Redacted.make(url), applicationName: "velocity bench" })
        return (yield* connection.query(sql, params)).rows
      })
    )
  )

/** The same server, another database. */
export const inDatabase = (url: string, name: string): string => {
  const other = new URL(url)
  other.pathname = `/${name}`
  return other.href
}

/** The product as it runs. */
export interface World {
  readonly ready: Ready
  readonly pid: number
  readonly data: string
  /** Milliseconds from nothing to ready, and from an existing folder; the second known after `restart`. */
  readonly firstStart: number
  /** Stops it and starts it again on its folder; answers how many milliseconds the start took. */
  readonly restart: () => Promise<number>
  readonly stop: () => Promise<void>
}

/** A request of the API, its answer as JSON; refuses anything but 2xx. */
export const call = async (world: World, path: string, init: RequestInit = {}): Promise<Record<string, unknown>> => {
  const headers = { authorization: `Bearer ${world.ready.token}`, "content-type": "application/json" }
  const response = await fetch(`${world.ready.api}${path}`, { ...init, headers: { ...headers, ...init.headers } })
  const text = await response.text()
  if (!response.ok) throw new Error(`${init.method ?? "GET"} ${path}: ${response.status} ${text.slice(0, 500)}`)
  return JSON.parse(text) as Record<string, unknown>
}

const timed = async (data: string): Promise<{ readonly dev: RunningDev; readonly millis: number }> => {
  const began = performance.now()
  const dev = await startDev({ data, manifests: join(root, "k8s", "samples") })
  return { dev, millis: performance.now() - began }
}

export const startWorld = async (): Promise<World> => {
  const data = await temporaryFolder()
  const first = await timed(data)
  let running = first.dev
  const stopRunning = async () => {
    const { code } = await running.end("SIGTERM")
    if (code !== 0) throw new Error(`velocity dev ended with ${code}:\n${running.log()}`)
  }
  return {
    get ready() {
      return running.ready
    },
    get pid() {
      return running.process.pid ?? 0
    },
    data,
    firstStart: first.millis,
    restart: async () => {
      await stopRunning()
      const again = await timed(data)
      running = again.dev
      return again.millis
    },
    stop: async () => {
      await stopRunning()
      await removeFolder(data)
    }
  }
}
