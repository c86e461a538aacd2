/**
 * The data folder of an embedded server: found, made, judged, and what we remember in it.
 *
 * What is in it: `postgres/` (PostgreSQL's own, with `velocity.json`: the superuser's password and the last port) and
 * `postgres.log`. Run by root, whose server runs as user `postgres`, and in a folder which that user cannot enter, the
 * data is in `/var/lib/velocity/data/<id>` instead and the file `postgres-folder` names it.
 */
import { execFile } from "node:child_process"
import { randomBytes, randomUUID } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { promisify } from "node:util"
import {
  type Binaries,
  canTraverse,
  EmbeddedServerError,
  locate,
  openFolder,
  type ServerUser,
  serverUser,
  systemFolder,
  thisPlatform
} from "./EmbeddedBinaries.ts"
import * as Postmaster from "./Postmaster.ts"

const run = promisify(execFile)

/** The server's log is put aside beyond this. Bytes. */
const logLimit = 10 * 1024 * 1024

/** What an embedded server is asked for. */
export interface Options {
  /** Made if absent. Relative paths are from the working directory. */
  readonly dataDir: string
  /** The TCP port on 127.0.0.1. Without one: that of the last run while it is free, else any free one. */
  readonly port?: number | undefined
  /** False gives up durability for speed: for tests, whose data is worth nothing after a crash. Default true. */
  readonly durable?: boolean | undefined
  /** Further settings of the server (`max_connections`, …). */
  readonly settings?: Readonly<Record<string, string>> | undefined
}

/** A folder that a postmaster can be started on. */
export interface Place extends Postmaster.StartOptions {
  readonly binaries: Binaries
  readonly user: ServerUser | undefined
  readonly password: string
}

/** What `velocity.json` holds. */
interface Remembered {
  readonly password: string
  readonly port?: number
}

/** Everything up to a folder that a postmaster can be started on. `say` hears what a person should know. */
export const prepare = async (options: Options, say: (line: string) => void): Promise<Place> => {
  const dataDir = Path.resolve(options.dataDir)
  const everyday = await serverUser(say)
  await Fs.mkdir(dataDir, { recursive: true, mode: everyday === undefined ? 0o700 : 0o755 })
  const folder = await folderOf(dataDir, everyday)
  const existing = await Fs.stat(folder).catch(() => undefined)
  if (existing !== undefined && everyday === undefined && existing.uid !== process.getuid?.()) {
    throw new EmbeddedServerError({
      reason: "NotPermitted",
      message: `${folder} belongs to another user (id ${existing.uid}); run as that user, as root, or use another folder`
    })
  }
  // root serves an ordinary user's folder as that user
  const user = everyday !== undefined && existing !== undefined ? { uid: existing.uid, gid: existing.gid } : everyday
  const binaries = await locate(thisPlatform(), user)
  if (existing === undefined) await initialise(binaries, user, folder, options.durable ?? true)
  const major = Number.parseInt(await Fs.readFile(Path.join(folder, "PG_VERSION"), "utf8").catch(() => ""), 10)
  if (!Number.isSafeInteger(major)) {
    throw new EmbeddedServerError({ reason: "StartFailed", message: `${folder} is not a PostgreSQL data folder` })
  }
  if (major !== binaries.major) {
    throw new EmbeddedServerError({
      reason: "OtherVersion",
      message:
        `${folder} was written by PostgreSQL ${major} and this is ${binaries.major}: ` +
        `start the Velocity that wrote it and export the records, or move the folder away to begin anew`
    })
  }
  const remembered = await recall(folder)
  const log = Path.join(dataDir, "postgres.log")
  const size = await Fs.stat(log).then(
    (stat) => stat.size,
    () => 0
  )
  if (size > logLimit) await Fs.rename(log, `${log}.1`)
  const loose = { fsync: "off", synchronous_commit: "off", full_page_writes: "off" }
  return {
    binaries,
    user,
    folder,
    log,
    port: options.port,
    lastPort: remembered.port,
    password: remembered.password,
    settings: { ...(options.durable === false ? loose : {}), ...options.settings }
  }
}

/** Where PostgreSQL's own folder of a data folder is, or is to be. */
const folderOf = async (dataDir: string, user: ServerUser | undefined): Promise<string> => {
  const pointer = Path.join(dataDir, "postgres-folder")
  const elsewhere = await Fs.readFile(pointer, "utf8").catch(() => undefined)
  if (elsewhere !== undefined) return elsewhere.trim()
  const here = Path.join(dataDir, "postgres")
  if (await canTraverse(dataDir, user)) return here
  const made = Path.join(systemFolder, "data", randomUUID())
  await openFolder(Path.dirname(made))
  try {
    await Fs.writeFile(pointer, `${made}\n`, { flag: "wx" })
    return made
  } catch (cause) {
    if ((cause as NodeJS.ErrnoException).code !== "EEXIST") throw cause
    return folderOf(dataDir, user)
  }
}

/** initdb beside the folder, then one rename: what was interrupted is never taken for a database. */
const initialise = async (
  binaries: Binaries,
  user: ServerUser | undefined,
  folder: string,
  durable: boolean
): Promise<void> => {
  const beside = `${folder}.${randomUUID()}.tmp`
  const passwordFile = `${beside}.pw`
  const password = randomBytes(24).toString("base64url")
  const give = async (path: string) => {
    if (user !== undefined) await Fs.chown(path, user.uid, user.gid)
  }
  try {
    await Fs.mkdir(beside, { mode: 0o700 })
    await give(beside)
    await Fs.writeFile(passwordFile, password, { mode: 0o600 })
    await give(passwordFile)
    await run(
      binaries.initdb,
      [
        ...["-D", beside, "-U", "postgres", `--pwfile=${passwordFile}`, "--auth=scram-sha-256", "--encoding=UTF8"],
        // the same order and the same letters on every machine, whatever locales it has
        ...["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"],
        ...(durable ? [] : ["--no-sync"])
      ],
      { cwd: "/", env: Postmaster.environment, ...(user === undefined ? {} : { uid: user.uid, gid: user.gid }) }
    )
    await save(beside, { password }, user)
    await Fs.rename(beside, folder)
  } catch (cause) {
    await Fs.rm(beside, { recursive: true, force: true })
    // two first starts at once: the other one's folder is as good
    const code = (cause as NodeJS.ErrnoException).code
    if (code === "ENOTEMPTY" || code === "EEXIST") return
    const stderr = String((cause as { readonly stderr?: unknown }).stderr ?? "").trim()
    throw new EmbeddedServerError({
      reason: code === "EACCES" || code === "EPERM" || code === "EROFS" ? "NotPermitted" : "StartFailed",
      message: `initdb failed in ${Path.dirname(folder)}: ${stderr || (cause as Error).message}`,
      cause
    })
  } finally {
    await Fs.rm(passwordFile, { force: true })
  }
}

const recall = async (folder: string): Promise<Remembered> => {
  const path = Path.join(folder, "velocity.json")
  try {
    return JSON.parse(await Fs.readFile(path, "utf8")) as Remembered
  } catch (cause) {
    throw new EmbeddedServerError({
      reason: "StartFailed",
      message: `${path} holds the superuser's password and cannot be read; put it back, or move the folder away`,
      cause
    })
  }
}

const save = async (folder: string, what: Remembered, user: ServerUser | undefined): Promise<void> => {
  const path = Path.join(folder, "velocity.json")
  const beside = `${path}.${randomUUID()}`
  await Fs.writeFile(beside, `${JSON.stringify(what)}\n`, { mode: 0o600 })
  if (user !== undefined) await Fs.chown(beside, user.uid, user.gid)
  await Fs.rename(beside, path)
}

/** Keeps the port for the next start. */
export const remember = async (place: Place, port: number): Promise<void> => {
  if (place.lastPort !== port) await save(place.folder, { password: place.password, port }, place.user)
}
