/**
 * One postmaster process on one data folder: looking for it, starting it, stopping it.
 *
 * The mechanics under `EmbeddedServer`, which decides when. Relies on `postmaster.pid`, the file by which PostgreSQL
 * itself says who serves a folder (its lines: process id, folder, start time, port, socket folder, address, shared
 * memory key, status), and by which it guarantees that there is one at most.
 */
import { type ChildProcess, execFile, spawn } from "node:child_process"
import { closeSync, openSync } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { setTimeout as wait } from "node:timers/promises"
import { promisify } from "node:util"
import { type Binaries, EmbeddedServerError, type ServerUser } from "./EmbeddedBinaries.ts"
import { busyMessage, freePort } from "./Ports.ts"

const run = promisify(execFile)

/** A server may have to replay its log after a crash; longer than this is a failure. Milliseconds. */
const startLimit = 120_000
/** How long a fast shutdown may take before an immediate one is asked for. Milliseconds. */
const stopLimit = 15_000
/** How often files and processes are looked at while something is waited for. Milliseconds. */
const pollEvery = 10

/** What `postmaster.pid` says. */
export interface PidFile {
  readonly pid: number
  readonly port: number
  readonly status: string
}

/** A postmaster that accepts connections. */
export interface Running {
  readonly pid: number
  readonly port: number
  /** False: it was running already, left by a process that is gone. */
  readonly started: boolean
}

/** What a postmaster is started with. */
export interface StartOptions {
  readonly binaries: Binaries
  readonly user: ServerUser | undefined
  readonly folder: string
  readonly log: string
  /** The port that must be used, if one must. */
  readonly port: number | undefined
  /** The port to try first, if none must. */
  readonly lastPort: number | undefined
  readonly settings: Readonly<Record<string, string>>
}

/** The environment of the binaries: nothing of ours, and a locale that exists everywhere. */
export const environment: NodeJS.ProcessEnv = { PATH: "/usr/bin:/bin", LC_ALL: "C", TZ: "UTC" }

/** Reads `postmaster.pid`; undefined where there is none or it is not complete yet. */
export const readPidFile = async (folder: string): Promise<PidFile | undefined> => {
  const text = await Fs.readFile(Path.join(folder, "postmaster.pid"), "utf8").catch(() => "")
  const lines = text.split("\n")
  const pid = Number.parseInt(lines[0] ?? "", 10)
  if (!Number.isSafeInteger(pid) || pid <= 0) return undefined
  return { pid, port: Number.parseInt(lines[3] ?? "", 10), status: (lines[7] ?? "").trim() }
}

/** Whether a process id is a living postgres, and not another program that got a dead one's number. */
const isPostgres = async (pid: number): Promise<boolean> => {
  if (process.platform === "linux") {
    const stat = await Fs.readFile(`/proc/${pid}/stat`, "utf8").catch(() => "")
    // `pid (name) state …`; a zombie serves nobody
    const end = stat.lastIndexOf(")")
    return stat.slice(stat.indexOf("(") + 1, end) === "postgres" && stat[end + 2] !== "Z"
  }
  const { stdout } = await run("ps", ["-p", String(pid), "-o", "comm="]).catch(() => ({ stdout: "" }))
  return stdout.trim().endsWith("postgres")
}

/** The postmaster that serves a folder now, in whatever state; undefined where there is none. */
export const find = async (folder: string): Promise<PidFile | undefined> => {
  const file = await readPidFile(folder)
  return file !== undefined && (await isPostgres(file.pid)) ? file : undefined
}

/**
 * Returns the postmaster that serves the folder, or starts one. Copes with one that is still starting or stopping,
 * with a stale `postmaster.pid`, with backends that outlive a killed postmaster for a moment, with a remembered port
 * that was taken meanwhile, and with another process doing the same at once.
 */
export const findOrStart = async (options: StartOptions): Promise<Running> => {
  const deadline = Date.now() + startLimit
  let port = options.port ?? options.lastPort ?? (await freePort())
  for (;;) {
    const found = await find(options.folder)
    if (found !== undefined) {
      if (found.status === "ready") return { pid: found.pid, port: found.port, started: false }
      if (Date.now() > deadline) throw failed(`the server on ${options.folder} does not become ready`)
      await wait(pollEvery)
      continue
    }
    // PostgreSQL removes a stale file itself unless its process id lives again as another program
    await Fs.rm(Path.join(options.folder, "postmaster.pid"), { force: true })
    const outcome = await startOnce(options, port, deadline)
    if (outcome._tag === "Ready") return { pid: outcome.pid, port, started: true }
    const text = outcome.log
    if (/could not bind|could not create any TCP\/IP sockets/.test(text)) {
      if (options.port !== undefined) {
        throw new EmbeddedServerError({ reason: "PortBusy", message: await busyMessage(port) })
      }
      port = await freePort()
    } else if (!/already exists|pre-existing shared memory/.test(text)) {
      throw failed(`PostgreSQL did not start: ${lastLines(text)}`)
    }
    if (Date.now() > deadline) throw failed(`PostgreSQL did not start: ${lastLines(text)}`)
    await wait(pollEvery * 10)
  }
}

type Outcome = { readonly _tag: "Ready"; readonly pid: number } | { readonly _tag: "Exited"; readonly log: string }

const startOnce = async (options: StartOptions, port: number, deadline: number): Promise<Outcome> => {
  const settings = {
    listen_addresses: "127.0.0.1",
    // paths of sockets are limited to 103 bytes on macOS: TCP only
    unix_socket_directories: "",
    max_prepared_transactions: "0",
    timezone: "UTC",
    log_timezone: "UTC",
    ...options.settings
  }
  const before = await Fs.stat(options.log).then(
    (stat) => stat.size,
    () => 0
  )
  const log = openSync(options.log, "a", 0o600)
  let child: ChildProcess
  try {
    child = spawn(
      options.binaries.postgres,
      ["-D", options.folder, "-p", String(port), ...Object.entries(settings).flatMap(([k, v]) => ["-c", `${k}=${v}`])],
      {
        stdio: ["ignore", log, log],
        cwd: "/",
        env: environment,
        // a session of its own, so that Ctrl-C reaches it through us, after its clients are done
        detached: true,
        ...(options.user === undefined ? {} : { uid: options.user.uid, gid: options.user.gid })
      }
    )
  } finally {
    closeSync(log)
  }
  let over: string | undefined
  child.once("exit", (code, signal) => {
    over = `exit ${code ?? signal}`
  })
  child.once("error", (cause) => {
    over = String(cause)
  })
  child.unref()
  for (;;) {
    const file = await readPidFile(options.folder)
    if (file !== undefined && file.pid === child.pid && file.status === "ready") return { _tag: "Ready", pid: file.pid }
    if (over !== undefined) {
      const text = await Fs.readFile(options.log, "utf8").catch(() => "")
      return { _tag: "Exited", log: Buffer.from(text).subarray(before).toString() || over }
    }
    if (Date.now() > deadline) {
      child.kill("SIGQUIT")
      throw failed("PostgreSQL did not become ready in time")
    }
    await wait(pollEvery)
  }
}

/**
 * Stops a postmaster: open transactions are rolled back and everything is written (fast shutdown, SIGINT); one that
 * does not come to an end is stopped at once (SIGQUIT), then killed. Returns when its folder is free.
 */
export const stop = async (folder: string, pid: number): Promise<void> => {
  for (const signal of ["SIGINT", "SIGQUIT", "SIGKILL"] as const) {
    try {
      process.kill(pid, signal)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code === "ESRCH") return
      throw cause
    }
    const deadline = Date.now() + stopLimit
    while (Date.now() < deadline) {
      const file = await readPidFile(folder)
      if (!(await isPostgres(pid)) || (file !== undefined && file.pid !== pid)) return
      await wait(pollEvery)
    }
  }
}

const failed = (message: string) => new EmbeddedServerError({ reason: "StartFailed", message })

const lastLines = (text: string) => text.trim().split("\n").slice(-3).join(" | ")
