/**
 * Sessions with Postgres, pooled, one pool a login and database; under every transaction of this room.
 *
 * A checkout is exclusive, and what is submitted to a session in one go leaves in one write (the driver's `multiplex`).
 * A session serves again only after everything that was sent on it has been answered. One that does not answer in time
 * is cut by us, because the server's own timeouts help only while it can be reached.
 *
 * The pool is our own and not the driver's, for three reasons: a session that is silent can be cut, waiting for a place
 * ends within the statement timeout, and taking an idle session costs no scope and no timer.
 */
import * as Net from "node:net"
import type { Duplex } from "node:stream"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Redacted from "effect/Redacted"
import * as Scope from "effect/Scope"
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

/** How often sessions are looked at that owe an answer or are not needed. Milliseconds. */
const watchEvery = 100

/** One connection, checked out. */
export interface Session {
  readonly connection: PgConnection.PgConnection
  /** It is gone because we cut it: it had not answered in time. */
  cut: boolean
  /** When it is to be cut, by `performance.now()`; 0 while it owes nothing. */
  deadline: number
  /** When it was last given back. */
  idleSince: number
  readonly socket: Net.Socket
  /** When it is to be replaced. */
  readonly expiresAt: number
  readonly scope: Scope.Closeable
}

/** What a pool is doing now, for metrics. */
export interface PoolStats {
  /** Connections that are open or being opened. */
  readonly open: number
  /** Of these, those that nobody uses. */
  readonly idle: number
  /** Transactions that wait for one. */
  readonly waiting: number
  readonly max: number
}

/** The sessions of one login with one database. */
export interface SessionPool {
  readonly settings: PoolSettings
  /** An idle session, at once, if there is one; to be given back with `give`. */
  readonly takeIdle: () => Session | undefined
  /**
   * A session, idle, new, or the next that is given back; to be given back with `give`. To be run where nothing can be
   * interrupted (a session would be lost on the way out); waiting itself is, through `restore`. Fails with
   * `Unavailable` when none can be had within the statement timeout, because all are busy or the database cannot be
   * reached.
   */
  readonly take: (restore: Restore) => Effect.Effect<Session, DatabaseFailure>
  /** Gives a session back that owes no answer; one that is dead is forgotten. */
  readonly give: (session: Session) => void
  /** `take` until the scope closes. */
  readonly lease: Effect.Effect<Session, DatabaseFailure, Scope.Scope>
  readonly stats: () => PoolStats
}

/** What `Effect.uninterruptibleMask` hands to its function. */
export type Restore = <A, E, R>(effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E, R>

/** A transaction that waits: it is handed a session, or told that there is room to open one. */
type Waiter = (found: Session | undefined) => void

/** Makes a pool. Connections are opened when they are needed; the scope closes them. */
export const make = Effect.fnUntraced(function* (
  settings: PoolSettings
): Effect.fn.Return<SessionPool, never, Scope.Scope> {
  const parent = yield* Scope.Scope
  const parameters = startupParameters(settings)
  const target = targetOf(new URL(Redacted.value(settings.url)))
  const sessions = new Set<Session>()
  /** The one used last is taken first, so that those beyond need grow idle. */
  const idle: Array<Session> = []
  const waiters = new Set<Waiter>()
  let opening = 0
  const hasRoom = () => sessions.size + opening < settings.maxConnections

  const wake = (found: Session | undefined): boolean => {
    for (const waiter of waiters) {
      waiters.delete(waiter)
      waiter(found)
      return true
    }
    return false
  }
  const close = (session: Session): void => {
    if (!sessions.delete(session)) return
    const at = idle.indexOf(session)
    if (at >= 0) idle.splice(at, 1)
    Effect.runFork(Scope.close(session.scope, Exit.void))
    if (hasRoom()) wake(undefined)
  }

  const connect = Effect.fnUntraced(function* (scope: Scope.Closeable) {
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
    }).pipe(Scope.provide(scope))
    const socket = first as Net.Socket
    const time = now()
    // not all at once
    const expiresAt = time + connectionLifetime * (0.9 + Math.random() / 5)
    const session: Session = { connection, cut: false, deadline: 0, idleSince: time, expiresAt, socket, scope }
    sessions.add(session)
    socket.once("close", () => close(session))
    return session
  })
  /** Opens a session in a place that was counted already (`opening`). */
  const open = (restore: Restore): Effect.Effect<Session, DatabaseFailure> =>
    Effect.flatMap(Scope.fork(parent), (scope) =>
      restore(connect(scope)).pipe(
        Effect.mapError(fromSqlError),
        Effect.onExit((exit) => {
          opening--
          if (Exit.isSuccess(exit)) return Effect.void
          // whoever waits for this place may try it
          wake(undefined)
          return Scope.close(scope, exit)
        })
      )
    )

  const takeIdle = (): Session | undefined => {
    for (;;) {
      const session = idle.pop()
      if (session === undefined) return undefined
      if (!isDead(session) && now() < session.expiresAt) return session
      close(session)
    }
  }
  const give = (session: Session): void => {
    session.deadline = 0
    if (isDead(session)) close(session)
    else if (!wake(session)) {
      session.idleSince = now()
      idle.push(session)
    }
  }

  const wait = (until: number) =>
    Effect.callback<Session | undefined, DatabaseFailure>((resume) => {
      const leave = () => {
        clearTimeout(timer)
        waiters.delete(waiter)
      }
      const timer = setTimeout(() => {
        leave()
        resume(Effect.fail(failure("Unavailable", new Error("no connection became free in time"))))
      }, until - now())
      // the fiber goes on in this very call, so that no interruption can come between
      const waiter: Waiter = (session) => {
        leave()
        resume(Effect.succeed(session))
      }
      waiters.add(waiter)
      return Effect.sync(leave)
    })
  const takeUntil = (restore: Restore, until: number): Effect.Effect<Session, DatabaseFailure> =>
    Effect.suspend(() => {
      const session = takeIdle()
      if (session !== undefined) return Effect.succeed(session)
      if (hasRoom()) {
        opening++
        return open(restore)
      }
      return Effect.flatMap(restore(wait(until)), (one) =>
        one === undefined ? takeUntil(restore, until) : Effect.succeed(one)
      )
    })
  const take = (restore: Restore) => Effect.suspend(() => takeUntil(restore, now() + settings.statementTimeout))

  const watch = setInterval(() => {
    const time = now()
    for (const session of sessions) {
      if (session.deadline !== 0 && session.deadline < time) {
        session.cut = true
        session.socket.destroy()
      }
    }
    const [oldest] = idle
    if (oldest !== undefined && time - oldest.idleSince > connectionIdle) close(oldest)
  }, watchEvery)
  watch.unref()
  yield* Effect.addFinalizer(() => Effect.sync(() => clearInterval(watch)))

  return {
    settings,
    takeIdle,
    take,
    give,
    lease: Effect.uninterruptibleMask((restore) =>
      Effect.tap(take(restore), (session) => Effect.addFinalizer(() => Effect.sync(() => give(session))))
    ),
    stats: () => ({
      open: sessions.size + opening,
      idle: idle.length,
      waiting: waiters.size,
      max: settings.maxConnections
    })
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
  Effect.uninterruptible(
    Effect.suspend(() => {
      const { connection } = session
      const fibers: Array<Fiber.Fiber<PgConnection.Result, SqlError>> = []
      let refused = false
      expectAnswer(session, within)
      // what is submitted before the first wait shares a write; the last one is waited for here, without a fiber
      const ahead = last === undefined ? statements.length - 1 : statements.length
      for (let i = 0; i < ahead; i++) {
        const { sql, params } = statements[i] as Statement
        const fiber = Effect.runFork(connection.query(sql, params))
        fibers.push(fiber)
        // over before anything was written: it could not be encoded, or the connection is dead
        if (fiber.pollUnsafe() !== undefined) refused = true
      }
      const tail = statements[ahead]
      const final =
        last !== undefined
          ? connection.query(refused ? "ROLLBACK" : last)
          : connection.query(tail?.sql ?? "", tail?.params)
      return Effect.flatMap(Effect.exit(final), (exit) => {
        const answers: Array<Answer> = []
        for (const fiber of fibers) {
          const answer = fiber.pollUnsafe()
          // one that the driver sent a second time is not over yet
          if (answer === undefined) return awaitAll(session, fibers, exit)
          answers.push(answer)
        }
        settled(session)
        answers.push(exit)
        return Effect.succeed(answers)
      })
    })
  )

const awaitAll = (
  session: Session,
  fibers: ReadonlyArray<Fiber.Fiber<PgConnection.Result, SqlError>>,
  last: Answer
): Effect.Effect<ReadonlyArray<Answer>> =>
  Effect.map(Effect.forEach(fibers, Fiber.await), (answers) => {
    settled(session)
    return [...answers, last]
  })
