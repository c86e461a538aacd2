/**
 * One embedded PostgreSQL server for a whole vitest run: started before the first test, stopped and removed after the
 * last. Test files get their databases on it from `Database.ts`.
 *
 * Each run has a folder of its own, so that several runs can share a machine; what a killed run left behind is stopped
 * and removed by the next one.
 */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Scope from "effect/Scope"
import type { TestProject } from "vitest/node"
import * as EmbeddedServer from "../../src/postgres/EmbeddedServer.ts"
import * as Postmaster from "../../src/postgres/Postmaster.ts"
import { processesFile } from "../kubernetes/Cluster.ts"

declare module "vitest" {
  interface ProvidedContext {
    /** The superuser's URL of the run's server; its database is `postgres`. */
    readonly postgres: string
  }
}

const prefix = "velocity-test-"

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  await sweep()
  const folder = await Fs.mkdtemp(Path.join(Os.tmpdir(), `${prefix}${process.pid}-`))
  // user `postgres` must be able to enter it when we are root
  await Fs.chmod(folder, 0o755)
  const scope = Scope.makeUnsafe()
  const server = await Effect.runPromise(
    EmbeddedServer.make({ dataDir: folder, durable: false, settings: { max_connections: "400" } }).pipe(
      Scope.provide(scope)
    )
  )
  project.provide("postgres", server.superuser.href)
  return async () => {
    await Effect.runPromise(Scope.close(scope, Exit.void))
    await Fs.rm(folder, { recursive: true, force: true })
  }
}

const alive = (pid: number): boolean => {
  try {
    process.kill(pid, 0)
    return true
  } catch (cause) {
    return (cause as NodeJS.ErrnoException).code === "EPERM"
  }
}

/** Ends and removes the servers of runs whose process is gone. */
const sweep = async (): Promise<void> => {
  for (const name of await Fs.readdir(Os.tmpdir())) {
    const owner = Number.parseInt(name.slice(prefix.length), 10)
    if (!name.startsWith(prefix) || !Number.isSafeInteger(owner) || alive(owner)) continue
    const folder = Path.join(Os.tmpdir(), name)
    try {
      const left = await Postmaster.find(Path.join(folder, "postgres"))
      if (left !== undefined) await Postmaster.stop(Path.join(folder, "postgres"), left.pid)
      await endCluster(folder)
      await Fs.rm(folder, { recursive: true, force: true })
    } catch {
      // another user's: not ours to end
    }
  }
}

/** Ends the etcd and kube-apiserver that a test cluster has left in its folder; a number that is another's by now stays. */
const endCluster = async (folder: string): Promise<void> => {
  const processes = await Fs.readFile(Path.join(folder, processesFile), "utf8").catch(() => "")
  for (const pid of processes.split("\n").map(Number)) {
    const command = await Fs.readFile(`/proc/${pid}/cmdline`, "utf8").catch(() => "")
    if (pid > 0 && command.includes(folder)) process.kill(pid, "SIGKILL")
  }
}
