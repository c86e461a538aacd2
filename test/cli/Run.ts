/** A `velocity` command as a person runs it: a process of its own, its words and its status. */
import { type ChildProcess, spawn } from "node:child_process"
import { join } from "node:path"
import { root } from "../e2e/Dev.ts"

export interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

export interface Running {
  readonly process: ChildProcess
  /** Settles when it ends. */
  readonly ended: Promise<Ran>
  /** Settles when stdout and stderr together have said this. */
  readonly says: (text: string) => Promise<void>
}

/** The environment of nobody: no VELOCITY_ variable but these. */
const environment = (more: Readonly<Record<string, string>>) => ({
  ...Object.fromEntries(Object.entries(process.env).filter(([name]) => !name.startsWith("VELOCITY_"))),
  ...more
})

export const start = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}): Running => {
  const child = spawn(process.execPath, [join(root, "bin/velocity.js"), ...args], {
    cwd: root,
    env: environment(env),
    stdio: ["ignore", "pipe", "pipe"]
  })
  let out = ""
  let err = ""
  const listeners = new Set<() => void>()
  const hear = () => {
    for (const listener of listeners) listener()
  }
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    out += text
    hear()
  })
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    err += text
    hear()
  })
  const ended = new Promise<Ran>((done) => child.once("close", (code) => done({ code, out, err })))
  const says = (text: string) =>
    new Promise<void>((done, failed) => {
      const look = () => {
        if ((out + err).includes(text)) done()
      }
      listeners.add(look)
      look()
      void ended.then((ran) => failed(new Error(`it ended (${ran.code}) and never said "${text}":\n${out}${err}`)))
    })
  return { process: child, ended, says }
}

export const run = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>> = {}): Promise<Ran> =>
  start(args, env).ended
