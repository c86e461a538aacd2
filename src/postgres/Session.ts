/**
 * Sessions with Postgres, pooled, one pool a login and database; under every transaction of this room.
 *
 * A checkout is exclusive, and what is submitted to a session in one go leaves in one write (the driver's `multiplex`).
 * A session serves again only after everything that was sent on it has been answered. One that does not answer in time
 * is cut by us, because the server's own timeouts help only while it can be reached.
 *
 * Figures: with eight clients on two cores a transaction of four statements in one write costs 27 µs of this process,
 * more than half of it in the one write call; as four writes it costs 64 µs.
 */
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Pool from "effect/Pool"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { type DatabaseFailure, failure, fromSqlError } from "./DatabaseFailure.ts"
import {
  connectionIdle,
  connectionLifetime,
  graceAfterTimeout,
  type PoolSettings,
  startupParameters
} from "./PgSettings.ts"
import type { Statement } from "./Statement.ts"

/** How often sessions are looked at that owe an answer. Milliseconds. */
const watchEvery = 100

/** One connection, checked out. */
export interface Session {
  readonly connection: PgConnection.PgConnection
  /** It is gone because we cut it: it had not answered in time. */
  cut: boolean
  /** When it is to be cut, by `performance.now()`; 0 while it owes nothing. */
  deadline: number
  readonly socket: Net.Socket
  readonly openedAt: number
}

/** What a pool is doing now, for metrics. */
export interface PoolStats {
  /** Connections that are open. */
  readonly open: number
  /** Checkouts that run or wait. */
  readonly claimed: number
  readonly max: number
}

/** The sessions of one login with one database. */
export interface SessionPool {
  readonly settings: PoolSettings
  /**
   * A session of one's own until the scope closes. Fails with `Unavailable` when none can be had within the statement
   * timeout, because all are busy or the database cannot be reached.
   */
  readonly lease: Effect.Effect<Session, DatabaseFailure, Scope.Scope>
  readonly stats: () => PoolStats
}

/** Makes a pool. Connections are opened when they are needed; the scope closes them. */
export const make = Effect.fnUntraced(function* (
  settings: PoolSettings
): Effect.fn.Return<SessionPool, never, Scope.Scope> {
  const runFork = Effect.runForkWith(yield* Effect.context())
  const sessions = new Set<Session>()
  const parameters = startupParameters(settings)
  const target = targetOf(new URL(Redacted.value(settings.url)))

  const open = Effect.gen(function* () {
    let first: Net.Socket | undefined
    const connection = yield* PgConnection.make({
      url: settings.url,
      applicationName: settings.name,
      startupParameters: parameters,
      multiplex: true,
      prepare: settings.prepared > 0,
      preparedStatementCacheSize: settings.prepared,
      connectTimeout: settings.statementTimeout,
      maxMessageSize: 256 * 1024 * 1024,
      // our own socket, so that it can be cut; the driver asks again for a side connection that cancels
      stream: (): Duplex => {
        const socket = Net.connect({ ...target, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 })
        first ??= socket
        return socket
      }
    })
    const socket = first as Net.Socket
    const session: Session = { connection, cut: false, deadline: 0, socket, openedAt: now() }
    sessions.add(session)
    socket.once("close", () => {
      sessions.delete(session)
      // a checkout that waits for this very session must learn of it now
      runFork(Pool.invalidate(pool, session))
    })
    return session
  })

  const pool: Pool.Pool<Session, SqlError> = yield* Pool.makeWithTTL({
    acquire: open,
    min: 0,
    max: settings.maxConnections,
    concurrency: 1,
    timeToLive: connectionIdle,
    timeToLiveStrategy: "usage"
  })

  const watch = setInterval(() => {
    const time = now()
    for (const session of sessions) {
      if (session.deadline === 0 || session.deadline > time) continue
      session.cut = true
      session.socket.destroy()
    }
  }, watchEvery)
  watch.unref()
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(watch)))

  const get: Effect.Effect<Session, SqlError, Scope.Scope> = Effect.flatMap(Pool.get(pool), (session) =>
    isDead(session) || now() - session.openedAt > connectionLifetime
      ? Effect.andThen(
          Pool.invalidate(pool, session),
          Effect.suspend(() => get)
        )
      : Effect.succeed(session)
  )
  const inTime = get.pipe(
    Effect.mapError(fromSqlError),
    Effect.timeoutOrElse({
      duration: settings.statementTimeout,
      orElse: () => Effect.fail(failure("Unavailable", new Error("no connection became free in time")))
    })
  )
  const atOnce = Effect.mapError(get, fromSqlError)

  let claimed = 0
  const claim = Effect.acquireRelease(
    Effect.sync(() => ++claimed),
    () => Effect.sync(() => --claimed)
  )
  return {
    settings,
    // no timer while there is room: opening a connection has a timeout of its own
    lease: Effect.flatMap(claim, (place) => (place > settings.maxConnections ? inTime : atOnce)),
    stats: () => ({ open: sessions.size, claimed, max: settings.maxConnections })
  }
})

const now = (): number => performance.now()

/** The host and port, or the Unix socket, of a URL, as libpq reads it. */
const targetOf = (url: URL): { readonly host: string; readonly port: number } | { readonly path: string } => {
  const host = url.searchParams.get("host") ?? decodeURIComponent(url.hostname.replace(/^\[|\]$/g, ""))
  const port = Number(url.searchParams.get("port") ?? (url.port || 5432))
  return host.startsWith("/") ? { path: `${host}/.s.PGSQL.${port}` } : { host: host || "localhost", port }
}

/** Says by when a session must have answered; call `settled` when it has. */
export const expectAnswer = (session: Session, within: number): void => {
  session.deadline = now() + within + graceAfterTimeout
}

/** Everything that was sent has been answered. */
export const settled = (session: Session): void => {
  session.deadline = 0
}

/**
 * Whether the connection is gone. Asked of the socket, because those who wait for an answer learn of its end before
 * any other listener does.
 */
export const isDead = (session: Session): boolean => session.socket.destroyed

/** A session that must not be used again: closed at once, whatever it is doing. */
export const cut = (session: Session): void => {
  session.socket.destroy()
}

/** What a statement of an exchange came to. */
export type Answer = Exit.Exit<PgConnection.Result, SqlError>

/**
 * Sends statements in one write and waits for all their answers, which come in the same order. With `last`, that
 * command follows them; it is ROLLBACK if one of them could not even be encoded, since the rest would be committed
 * without it. Not interruptible: an answer that nobody waits for would meet the session's next user.
 */
export const exchange = (
  session: Session,
  statements: ReadonlyArray<Statement>,
  within: number,
  last?: "COMMIT" | "ROLLBACK"
): Effect.Effect<ReadonlyArray<Answer>> =>
  Effect.suspend(() => {
    let refused = false
    const noted = (answer: Answer): Answer => {
      // before anything was written only encoding, or a dead connection, can have failed
      if (Exit.isFailure(answer)) refused = true
      return answer
    }
    const all: Array<Effect.Effect<Answer>> = statements.map(({ sql, params }) =>
      Effect.map(Effect.exit(session.connection.query(sql, params)), noted)
    )
    if (last !== undefined) {
      all.push(Effect.suspend(() => Effect.exit(session.connection.query(refused ? "ROLLBACK" : last))))
    }
    expectAnswer(session, within)
    return Effect.map(Effect.all(all, { concurrency: "unbounded" }), (answers) => {
      settled(session)
      return answers
    })
  }).pipe(Effect.uninterruptible)
