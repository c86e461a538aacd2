/** `velocity dev` as a user starts it: a process of its own, told to speak JSON, on a folder of its own. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdtemp, rm } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, resolve } from "node:path"
import { createInterface } from "node:readline"

export const root = resolve(import.meta.dirname, "../..")

/** The line that `--output json` prints once everything serves. */
export interface Ready {
  readonly api: string
  readonly token: string
  readonly postgres: { readonly admin: string; readonly api: string; readonly operator: string }
  readonly manifests: string
}

export interface RunningDev {
  readonly ready: Ready
  readonly process: ChildProcess
  readonly data: string
  /** What it wrote to stderr so far. */
  readonly log: () => string
  /** Sends a signal and answers how the process ended. */
  readonly end: (signal: NodeJS.Signals) => Promise<{ readonly code: number | null; readonly signal: string | null }>
}

export const temporaryFolder = (): Promise<string> => mkdtemp(join(tmpdir(), "velocity dev "))

export const removeFolder = (folder: string): Promise<void> => rm(folder, { recursive: true, force: true })

/** Starts it and waits for its line; rejects with its log when it ends before. */
export const startDev = (options: {
  readonly data: string
  readonly manifests?: string
  readonly args?: ReadonlyArray<string>
  readonly env?: Readonly<Record<string, string>>
}): Promise<RunningDev> =>
  new Promise((done, failed) => {
    const args = ["dev", "--output", "json", "--data", options.data, "--port", "0", ...(options.args ?? [])]
    if (options.manifests !== undefined) args.push("--manifests", options.manifests)
    const child = spawn(process.execPath, [join(root, "bin/velocity.js"), ...args], {
      cwd: root,
      env: { ...process.env, ...options.env },
      stdio: ["ignore", "pipe", "pipe"]
    })
    let log = ""
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      log += text
    })
    const ended = new Promise<{ readonly code: number | null; readonly signal: string | null }>((resolveEnd) =>
      child.once("exit", (code, signal) => resolveEnd({ code, signal }))
    )
    void ended.then(({ code, signal }) =>
      failed(new Error(`velocity dev ended (${code ?? signal}) before it was ready:\n${log}`))
    )
    createInterface(child.stdout).once("line", (line) =>
      done({
        ready: JSON.parse(line) as Ready,
        process: child,
        data: options.data,
        log: () => log,
        end: (signal) => {
          child.kill(signal)
          return ended
        }
      })
    )
  })
