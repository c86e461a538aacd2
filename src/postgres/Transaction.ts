/**
 * Transactions over a pool, whatever their role: known beforehand and sent in one write (`bundle`), interactive (`run`),
 * or streaming one result (`stream`). The services of this room (`TenantTx`, `GatewayTx`, …) say who enters.
 *
 * A bundle is one write and one Sync, which bounds a transaction by itself: no BEGIN and no COMMIT are said but by a dry
 * run and an interactive transaction. Nothing is answered before the commit.
 *
 * What holds however one ends (answers, errors, interruption, a killed backend): its role and settings end with it,
 * because they are transaction-local and the transaction is over before the session serves again; a session of which
 * that is not certain is closed. The first error is the one that is reported, not the 25P02 that follow it.
 */
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { Fetched, Outcome } from "./Connection.ts"
import { DatabaseFailure, failure } from "./DatabaseFailure.ts"
import { ask, cut, exchange, expectAnswer, fetch, isDead, type Session, type SessionPool } from "./Session.ts"
import { type SqlResult, type Statement, statement } from "./Statement.ts"

/**
 * How a transaction ends when nothing fails.
 *
 * - `commit`: a connection lost after COMMIT was sent is `CommitUnknown`
 * - `read`: commits, but nothing was written: a lost connection is `Unavailable`, and a bundle is sent once more first
 * - `rollback`: everything is done and then undone, for a dry run
 */
export type End = "commit" | "read" | "rollback"

/** An open transaction. Usable only inside the function that was given it; statements run one after the other. */
export interface Tx {
  /** One statement, one round trip; the first takes BEGIN and the role with it. */
  readonly query: (statement: Statement) => Effect.Effect<SqlResult, DatabaseFailure>
  /**
   * The last statements and the transaction's end in one write; the transaction is over, however this ends. Saves the
   * round trip of the COMMIT, where what comes last is known.
   */
  readonly finish: (statements: ReadonlyArray<Statement>) => Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure>
}

const begin = statement("BEGIN")
const commit = statement("COMMIT")
const rollback = statement("ROLLBACK")

/** How many rows of a stream are asked for at once. */
const rowsAtOnce = 500

type Undone = Exclude<Outcome, { readonly _tag: "Done" }>

/** Why an exchange did not do what it was to do. */
const failureOf = (session: Session, outcome: Undone): DatabaseFailure =>
  outcome._tag === "Lost" && session.cut
    ? failure("Timeout", new Error("the connection did not answer in time"))
    : outcome.failure

/** The same of an exchange that was to commit: one whose answer was lost may have. */
const commitFailureOf = (session: Session, outcome: Undone): DatabaseFailure =>
  outcome._tag === "Lost" && outcome.sent
    ? failure("CommitUnknown", outcome.failure.reason.cause)
    : failureOf(session, outcome)

const rolledBack = (): DatabaseFailure =>
  new DatabaseFailure({
    reason: { _tag: "Unexpected", sqlstate: "25P02", cause: new Error("the transaction had been aborted") }
  })

/** Whether no transaction is left open, as it is after an error under BEGIN. */
const isOver = (outcome: Outcome): boolean => !("status" in outcome) || outcome.status === "I"

/** Ends a transaction that was left open; a session on which that fails is closed. */
const undo = (session: Session, within: number): Effect.Effect<void> =>
  Effect.map(exchange(session, [rollback], within), (outcome) => {
    if (outcome._tag !== "Done" || !isOver(outcome)) cut(session)
  })

/**
 * Runs statements in one transaction and one write: `enter`, then the statements, under one Sync, which commits. Answers
 * their results in order. Not interruptible, and over after the statement timeout at the latest.
 */
export const bundle = (
  pool: SessionPool,
  enter: Statement | undefined,
  statements: ReadonlyArray<Statement>,
  end: End = "commit",
  within = pool.settings.statementTimeout
): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> => {
  const dry = end === "rollback"
  const opening = [...(dry ? [begin] : []), ...(enter === undefined ? [] : [enter])]
  const all = [...opening, ...statements, ...(dry ? [rollback] : [])]
  const judge = end === "commit" ? commitFailureOf : failureOf
  const answered = (
    session: Session,
    outcome: Outcome,
    again: boolean
  ): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> => {
    if (outcome._tag === "Refused" && outcome.stale && again) return on(session, false)
    pool.give(session)
    if (outcome._tag === "Done") {
      if (!isOver(outcome)) return Effect.fail(rolledBack())
      return Effect.succeed(outcome.results.slice(opening.length, opening.length + statements.length))
    }
    // a reset connection (fail-over, restart) costs nothing where nothing can have been written
    const undone = outcome._tag === "Lost" && !session.cut && (end === "read" || !outcome.sent)
    if (undone && again) return send(false)
    return Effect.fail(judge(session, outcome))
  }
  const on = (session: Session, again: boolean): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> =>
    Effect.flatMap(exchange(session, all, within), (outcome) =>
      isOver(outcome)
        ? answered(session, outcome, again)
        : Effect.flatMap(undo(session, within), () => answered(session, outcome, again))
    )
  // from taking a session to giving it back nothing can be interrupted, so that no scope is needed
  const send = (again: boolean): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> =>
    Effect.uninterruptibleMask((restore) => {
      const session = pool.takeIdle()
      return session === undefined
        ? Effect.flatMap(pool.take(restore), (taken) => on(taken, again))
        : on(session, again)
    })
  return send(true)
}

/**
 * Runs `f` in one transaction. BEGIN and `enter` travel with the first statement; without any statement nothing is
 * sent. Commits when `f` succeeds, rolls back when it fails or is interrupted, and fails with `Timeout` after the
 * longest time that a transaction may take. The first statement, and `finish`, are waited for even when interrupted (no
 * longer than the statement timeout); the others are cancelled.
 */
export const run = <A, E, R>(
  pool: SessionPool,
  enter: Statement | undefined,
  f: (tx: Tx) => Effect.Effect<A, E, R>,
  end: End = "commit",
  within = pool.settings.statementTimeout
): Effect.Effect<A, E | DatabaseFailure, R> =>
  Effect.uninterruptibleMask((restore) =>
    Effect.gen(function* () {
      const scope = yield* Scope.make()
      const open = new Open(pool, enter, scope, end, within)
      const exit = yield* restore(
        f(open).pipe(
          Effect.timeoutOrElse({
            duration: pool.settings.maxTransaction,
            orElse: () => Effect.fail(failure("Timeout", new Error("the transaction took too long")))
          })
        )
      ).pipe(Effect.exit)
      const ended = yield* Effect.exit(open.end(Exit.isSuccess(exit)))
      yield* Scope.close(scope, Exit.void)
      if (Exit.isFailure(exit)) return yield* Effect.failCause(exit.cause)
      if (Exit.isFailure(ended)) return yield* Effect.failCause(ended.cause)
      return exit.value
    })
  )

class Open implements Tx {
  readonly pool: SessionPool
  readonly opening: ReadonlyArray<Statement>
  readonly scope: Scope.Closeable
  readonly ending: End
  readonly within: number
  readonly turn = Semaphore.makeUnsafe(1)
  session: Session | undefined
  over = false
  /** The first thing that failed: a caller who swallows it must still not be told that his work was committed. */
  first: DatabaseFailure | undefined

  constructor(pool: SessionPool, enter: Statement | undefined, scope: Scope.Closeable, ending: End, within: number) {
    this.pool = pool
    this.opening = enter === undefined ? [begin] : [begin, enter]
    this.scope = scope
    this.ending = ending
    this.within = within
  }

  readonly query = (asked: Statement): Effect.Effect<SqlResult, DatabaseFailure> =>
    this.inTurn(() => {
      const { session } = this
      const outcome =
        session === undefined
          ? this.started((fresh) => exchange(fresh, [...this.opening, asked], this.within))
          : Effect.map(ask(session, [asked], this.within), (outcome) => [session, outcome] as const)
      return Effect.flatMap(outcome, ([session, outcome]) =>
        outcome._tag === "Done"
          ? Effect.succeed(outcome.results.at(-1) as SqlResult)
          : Effect.fail(this.failed(failureOf(session, outcome)))
      )
    })

  readonly finish = (statements: ReadonlyArray<Statement>): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> =>
    this.inTurn(() => {
      const { session } = this
      this.over = true
      const opening = session === undefined ? this.opening : []
      const all = [...opening, ...statements, this.last]
      const send = (session: Session) => exchange(session, all, this.within)
      return Effect.uninterruptibleMask(() =>
        Effect.flatMap(
          session === undefined
            ? this.started(send)
            : Effect.map(send(session), (outcome) => [session, outcome] as const),
          ([session, outcome]) =>
            Effect.map(this.ended(session, outcome), (results) => results.slice(opening.length, -1))
        )
      )
    })

  private readonly inTurn = <A>(f: () => Effect.Effect<A, DatabaseFailure>): Effect.Effect<A, DatabaseFailure> =>
    this.turn.withPermit(
      Effect.suspend(() => (this.over ? Effect.die(new Error("a transaction was used after its end")) : f()))
    )

  private get last(): Statement {
    return this.ending === "rollback" ? rollback : commit
  }

  /** A session, and what came of what was sent on it first. */
  private readonly started = (
    send: (session: Session) => Effect.Effect<Outcome>
  ): Effect.Effect<readonly [Session, Outcome], DatabaseFailure> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function* () {
        const session = yield* restore(Scope.provide(this.pool.lease, this.scope))
        this.session = session
        return [session, yield* send(session)] as const
      })
    )

  private readonly failed = (failure: DatabaseFailure): DatabaseFailure => {
    this.first ??= failure
    return failure
  }

  /** What came of an exchange whose last statement ends the transaction; afterwards none is open. */
  private readonly ended = (
    session: Session,
    outcome: Outcome
  ): Effect.Effect<ReadonlyArray<Fetched>, DatabaseFailure> =>
    Effect.gen({ self: this }, function* () {
      if (!isOver(outcome)) yield* undo(session, this.within)
      if (outcome._tag === "Done") {
        // COMMIT of a transaction that has failed is a ROLLBACK
        if (isOver(outcome) && outcome.results.at(-1)?.command === this.last.sql) return outcome.results
        return yield* Effect.fail(this.first ?? rolledBack())
      }
      const commits = this.ending === "commit" && this.first === undefined
      const judged = commits ? commitFailureOf(session, outcome) : failureOf(session, outcome)
      return yield* Effect.fail(this.first ?? judged)
    })

  /** Ends the transaction unless it is over; whatever happens, the session is idle or closed afterwards. */
  readonly end = (succeeded: boolean): Effect.Effect<void, DatabaseFailure> =>
    this.turn.withPermit(
      Effect.suspend(() => {
        const { over, session } = this
        this.over = true
        if (over || session === undefined) return Effect.void
        if (!succeeded) return undo(session, this.within)
        return Effect.asVoid(
          Effect.flatMap(exchange(session, [this.last], this.within), (outcome) => this.ended(session, outcome))
        )
      })
    )
}

/**
 * Streams the rows of one statement in a transaction of its own, which ends with the stream and lasts no longer than a
 * transaction may. Rows that nobody takes are not asked for.
 */
export const stream = (
  pool: SessionPool,
  enter: Statement | undefined,
  asked: Statement
): Stream.Stream<Readonly<Record<string, unknown>>, DatabaseFailure> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const session = yield* pool.lease
      const until = performance.now() + pool.settings.maxTransaction
      const left = () => until - performance.now()
      yield* Effect.addFinalizer(() =>
        Effect.suspend(() => (isDead(session) ? Effect.void : undo(session, pool.settings.statementTimeout)))
      )
      const rowsOf = (outcome: Outcome) => {
        if (outcome._tag !== "Done") return Effect.fail(failureOf(session, outcome))
        const result = outcome.results.at(-1) as Fetched
        // nobody may hold it open for longer, whether he takes rows or not
        expectAnswer(session, left())
        return Effect.succeed([result.rows, result.suspended ? Option.some(more) : Option.none()] as const)
      }
      const more = Effect.suspend(() => fetch(session, rowsAtOnce, left()))
      const opening = enter === undefined ? [begin] : [begin, enter]
      const first = Effect.suspend(() =>
        ask(session, [...opening, asked], left(), { prepare: false, maxRows: rowsAtOnce })
      )
      return Stream.paginate(first, (outcome) => Effect.flatMap(outcome, rowsOf))
    })
  )

/** One statement by itself, which may take so many milliseconds. */
const oneOf = (session: Session, asked: Statement, within: number): Effect.Effect<SqlResult, DatabaseFailure> =>
  Effect.flatMap(ask(session, [asked], within, { prepare: false }), (outcome) =>
    outcome._tag === "Done" ? Effect.succeed(outcome.results[0] as SqlResult) : Effect.fail(failureOf(session, outcome))
  )

/** One statement outside any transaction; see `OperatorSql.query`. */
export const single = (pool: SessionPool, asked: Statement): Effect.Effect<SqlResult, DatabaseFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* pool.lease
      return yield* oneOf(session, asked, pool.settings.maxTransaction)
    })
  )

/**
 * Several statements on one session outside any transaction, each of which may take `within` milliseconds. The session may
 * be given a role, settings and locks: it is closed afterwards.
 */
export const alone = <A, E, R>(
  pool: SessionPool,
  f: (query: (asked: Statement) => Effect.Effect<SqlResult, DatabaseFailure>) => Effect.Effect<A, E, R>,
  within: number
): Effect.Effect<A, E | DatabaseFailure, R> =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* pool.lease
      yield* Effect.addFinalizer(() => Effect.sync(() => cut(session)))
      return yield* f((asked) => oneOf(session, asked, within))
    })
  ) as Effect.Effect<A, E | DatabaseFailure, R>
