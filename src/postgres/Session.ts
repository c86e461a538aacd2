/**
 * Sessions with Postgres, pooled, one pool a login and database; under every transaction of this room.
 *
 * A checkout is exclusive, and what is submitted to a session in one go leaves in one write (`Connection`). A session
 * serves again only after everything that was sent on it has been answered. One that does not answer in time is cut by
 * us, because the server's own timeouts help only while it can be reached.
 */
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import { Connection, type Outcome, type Sending } from "./Connection.ts"
import { type DatabaseFailure, failure } from "./DatabaseFailure.ts"
import {
  connectionIdle,
  connectionLifetime,
  graceAfterTimeout,
  type PoolSettings,
  startupParameters
} from "./PgSettings.ts"
import type { Statement } from "./Statement.ts"
import { targetOf } from "./Target.ts"
import * as Wire from "./Wire.ts"

/** How often sessions are looked at that owe an answer or are not needed. Milliseconds. */
const watchEvery = 100
/** How long an interrupted statement may go on before it is cancelled, and how long it may take to end then. */
const cancelAfter = 10
const cancelledWithin = 5_000

/** One connection, checked out. */
export interface Session {
  readonly connection: Connection
  /** It is gone because we cut it: it had not answered in time. */
  cut: boolean
  /** When it is to be cut, by `performance.now()`; 0 while it owes nothing. */
  deadline: number
  /** When it was last given back. */
  idleSince: number
  /** When it is to be replaced. */
  readonly expiresAt: number
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
  const parameters = { ...startupParameters(settings), application_name: settings.name }
  const sessions = new Set<Session>()
  /** The one used last is taken first, so that those beyond need grow idle. */
  const idle: Array<Session> = []
  const waiters = new Set<Waiter>()
  let opening = 0
  let over = false
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
    session.connection.close()
    if (hasRoom()) wake(undefined)
  }

  const connect = Effect.try({
    try: () => targetOf(Redacted.value(settings.url)),
    catch: (cause) => failure("Unavailable", cause)
  }).pipe(Effect.flatMap((target) => Wire.connect(target, parameters, settings.statementTimeout)))
  const join = (wire: Wire.Wire): Session => {
    const time = now()
    const session: Session = {
      connection: new Connection(wire, settings.prepared, () => close(session)),
      cut: false,
      deadline: 0,
      idleSince: time,
      // not all at once
      expiresAt: time + connectionLifetime * (0.9 + Math.random() / 5)
    }
    sessions.add(session)
    // it may have ended already, and so may the pool
    if (over || isDead(session)) close(session)
    return session
  }
  /** Opens a session in a place that was counted already (`opening`). */
  const open = (restore: Restore): Effect.Effect<Session, DatabaseFailure> =>
    restore(connect).pipe(
      Effect.map(join),
      Effect.onExit((exit) =>
        Effect.sync(() => {
          opening--
          // whoever waits for this place may try it
          if (exit._tag === "Failure") wake(undefined)
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
        cut(session)
      }
    }
    const [oldest] = idle
    if (oldest !== undefined && time - oldest.idleSince > connectionIdle) close(oldest)
  }, watchEvery)
  watch.unref()
  yield* Effect.addFinalizer(() =>
    Effect.sync(() => {
      clearInterval(watch)
      over = true
      for (const session of sessions) close(session)
    })
  )

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

/** Says by when a session must have answered; call `settled` when it has. */
export const expectAnswer = (session: Session, within: number): void => {
  session.deadline = now() + within + graceAfterTimeout
}

/** Everything that was sent has been answered. */
export const settled = (session: Session): void => {
  session.deadline = 0
}

/** Whether the connection is gone. */
export const isDead = ({ connection }: Session): boolean => connection.dead !== undefined

/** A session that must not be used again: closed at once, whatever it is doing. */
export const cut = ({ connection }: Session): void =>
  connection.die(failure("Unavailable", new Error("the connection was cut")))

/**
 * Sends statements in one write and waits for all their answers. Not interruptible: an answer that nobody waits for
 * would meet the session's next user.
 */
export const exchange = (
  session: Session,
  statements: ReadonlyArray<Statement>,
  within: number,
  sending?: Sending
): Effect.Effect<Outcome> => Effect.uninterruptible(asking(session, within, statementsOf(statements, sending)))

/** The same where interruption ends the statements themselves: they are cancelled, and waited for. */
export const ask = (
  session: Session,
  statements: ReadonlyArray<Statement>,
  within: number,
  sending?: Sending
): Effect.Effect<Outcome> => asking(session, within, statementsOf(statements, sending))

/** More rows of what was suspended; interruptible. */
export const fetch = (session: Session, maxRows: number, within: number): Effect.Effect<Outcome> =>
  asking(session, within, ({ connection }, answered) => connection.fetch(maxRows, answered))

type Submit = (session: Session, answered: (outcome: Outcome) => void) => void

const statementsOf =
  (statements: ReadonlyArray<Statement>, sending: Sending | undefined): Submit =>
  ({ connection }, answered) =>
    connection.exchange(statements, answered, sending)

const asking = (session: Session, within: number, submit: Submit): Effect.Effect<Outcome> =>
  Effect.callback((resume) => {
    let heard: Outcome | undefined
    let hear = (outcome: Outcome): void => resume(Effect.succeed(outcome))
    expectAnswer(session, within)
    submit(session, (outcome) => {
      settled(session)
      heard = outcome
      hear(outcome)
    })
    const answered = Effect.callback<Outcome>((again) => {
      if (heard === undefined) hear = (outcome) => again(Effect.succeed(outcome))
      else again(Effect.succeed(heard))
    })
    /** Over when the statements are, by themselves or because they were cancelled. */
    return Effect.callback<void>((ended) => {
      if (heard !== undefined) return ended(Effect.void)
      expectAnswer(session, cancelledWithin)
      const timer = setTimeout(() => ended(cancel(session, answered)), cancelAfter)
      hear = () => {
        clearTimeout(timer)
        ended(Effect.void)
      }
    })
  })

/** Ends what a session runs. It serves on only where the server has said that this is what ended it. */
const cancel = (session: Session, answered: Effect.Effect<Outcome>): Effect.Effect<void> =>
  Effect.andThen(
    session.connection.wire.cancel,
    Effect.map(answered, (outcome) => {
      if (outcome._tag !== "Refused" || outcome.failure.reason._tag !== "Timeout") cut(session)
    })
  )
