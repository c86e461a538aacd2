/** PgBouncer itself, where this machine has it: in transaction mode, with a configuration as docs/operations.md says it. */
import { spawn } from "node:child_process"
import { accessSync, constants } from "node:fs"
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { freePort } from "../../src/postgres/Ports.ts"
import { type Pooler, type PoolerOptions, throughPort } from "./Pooler.ts"

const runnable = (file: string): boolean => {
  try {
    accessSync(file, constants.X_OK)
    return true
  } catch {
    return false
  }
}

/** The program, from PATH or from where Debian puts what is for root; undefined where there is none. */
export const program: string | undefined = [...(process.env.PATH ?? "").split(Path.delimiter), "/usr/sbin"]
  .map((folder) => Path.join(folder, "pgbouncer"))
  .find(runnable)

const configuration = (target: URL, port: number, sessions: number, users: string): string =>
  [
    "[databases]",
    `* = host=${target.hostname} port=${target.port}`,
    "[pgbouncer]",
    "pool_mode = transaction",
    `default_pool_size = ${sessions}`,
    "max_client_conn = 200",
    "listen_addr = 127.0.0.1",
    `listen_port = ${port}`,
    "unix_socket_dir =",
    "auth_type = scram-sha-256",
    `auth_file = ${users}`,
    // it will not run as root; an ordinary user is whoever he is
    ...(process.getuid?.() === 0 ? ["user = nobody"] : [])
  ].join("\n")

/** Starts it on a free port of 127.0.0.1, until the scope closes. */
export const make = (file: string, { sessions, urls }: PoolerOptions): Effect.Effect<Pooler, never, Scope.Scope> =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity-pooler-"))),
      (made) => Effect.promise(() => Fs.rm(made, { recursive: true }))
    )
    const [ini, users] = [Path.join(folder, "pgbouncer.ini"), Path.join(folder, "users.txt")]
    const port = yield* Effect.promise(freePort)
    const logins = urls.map((url) => new URL(url))
    yield* Effect.promise(async () => {
      await Fs.chmod(folder, 0o755)
      await Fs.writeFile(users, logins.map((url) => `"${url.username}" "${url.password}"\n`).join(""))
      await Fs.writeFile(ini, configuration(logins[0] as URL, port, sessions, users))
    })
    yield* Effect.acquireRelease(
      Effect.callback<ReturnType<typeof spawn>>((resume) => {
        const child = spawn(file, [ini], { stdio: ["ignore", "ignore", "pipe"] })
        let said = ""
        child.stderr.setEncoding("utf8").on("data", (text: string) => {
          said += text
          if (said.includes("process up")) resume(Effect.succeed(child))
        })
        child.once("exit", () => resume(Effect.die(new Error(`pgbouncer ended: ${said}`))))
      }),
      (child) =>
        Effect.callback<void>((resume) => {
          child.removeAllListeners("exit").once("exit", () => resume(Effect.void))
          child.kill("SIGKILL")
        })
    )
    return { through: throughPort(port) }
  })
