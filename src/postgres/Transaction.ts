/**
 * Transactions over a pool, whatever their role: known beforehand and sent in one write (`bundle`), interactive (`run`),
 * or streaming one result (`stream`). The services of this room (`TenantTx`, `GatewayTx`, …) say who enters.
 *
 * What holds however one ends (answers, errors, interruption, a killed backend): its role and settings end with it,
 * because they are transaction-local and the transaction is over before the session serves again; a session of which
 * that is not certain is closed. The first error is the one that is reported, not the 25P02 that follow it.
 *
 * Measured with eight clients on two cores, a row read by its key as JSON: a bundle costs 28 µs of this process, more than
 * half of it in the one write call, and reaches 0.9 to 1.0 of pgbench's rate for the same transaction in four round
 * trips; an interactive transaction of one statement costs 58 µs (two writes).
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Option from "effect/Option"
import * as Scope from "effect/Scope"
import * as Semaphore from "effect/Semaphore"
import * as Stream from "effect/Stream"
import type { SqlError } from "effect/sql/SqlError"
import { DatabaseFailure, failure, fromSqlError, sqlStateOf } from "./DatabaseFailure.ts"
import { type Answer, cut, exchange, expectAnswer, isDead, type Session, type SessionPool, settled } from "./Session.ts"
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
const command = (end: End): "COMMIT" | "ROLLBACK" => (end === "rollback" ? "ROLLBACK" : "COMMIT")

/** The failure of the first statement that failed; undefined when none did. */
const firstError = (answers: ReadonlyArray<Answer>): SqlError | undefined => {
  for (const answer of answers) {
    if (Exit.isFailure(answer)) return Option.getOrThrow(Cause.findErrorOption(answer.cause))
  }
  return undefined
}

/** A connection that failed under us: cut by us for being late, or lost. */
const lost = (session: Session, error: SqlError): DatabaseFailure =>
  session.cut ? failure("Timeout", new Error("the connection did not answer in time")) : fromSqlError(error)

const rolledBack = (): DatabaseFailure =>
  new DatabaseFailure({
    reason: { _tag: "Unexpected", sqlstate: "25P02", cause: new Error("the transaction had been aborted") }
  })

/**
 * Runs statements in one transaction and one write: BEGIN, `enter`, the statements, COMMIT. Answers their results in
 * order. Not interruptible, and over after the statement timeout at the latest.
 */
export const bundle = (
  pool: SessionPool,
  enter: Statement | undefined,
  statements: ReadonlyArray<Statement>,
  end: End = "commit",
  within = pool.settings.statementTimeout
): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> => {
  const opening = enter === undefined ? [begin] : [begin, enter]
  const all = [...opening, ...statements]
  const answered = (
    session: Session,
    aliveBefore: boolean,
    again: boolean,
    answers: ReadonlyArray<Answer>
  ): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> => {
    pool.give(session)
    const error = firstError(answers)
    if (error === undefined) return resultsOf(answers, opening.length, end)
    if (sqlStateOf(error) !== undefined || !isDead(session)) return Effect.fail(fromSqlError(error))
    if (end === "commit" && aliveBefore) return Effect.fail(unknown(error))
    // a reset connection (fail-over, restart) costs a read nothing
    return again && end === "read" && !session.cut ? send(false) : Effect.fail(lost(session, error))
  }
  const on = (session: Session, again: boolean) => {
    const aliveBefore = !isDead(session)
    return Effect.flatMap(exchange(session, all, within, command(end)), (answers) =>
      answered(session, aliveBefore, again, answers)
    )
  }
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

const unknown = (error: SqlError): DatabaseFailure =>
  failure("CommitUnknown", (error.reason as { readonly cause?: unknown }).cause ?? error)

/** The results between the opening and the last command, which must have been carried out as it was sent. */
const resultsOf = (
  answers: ReadonlyArray<Answer>,
  opening: number,
  end: End,
  before?: DatabaseFailure
): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> => {
  const results: Array<SqlResult> = []
  for (const answer of answers) results.push((answer as Exit.Success<PgConnection.Result>).value)
  return results.pop()?.command === command(end)
    ? Effect.succeed(results.slice(opening))
    : Effect.fail(before ?? rolledBack())
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
      const ended = yield* Effect.exit(open.end(Exit.isSuccess(exit) ? command(end) : "ROLLBACK"))
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
  /** The same connection, whose statements can be cancelled; taken with the second statement. */
  pinned: PgConnection.PgConnection | undefined
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
    this.inTurn(() => (this.session === undefined ? this.start(asked) : this.next(this.session, asked)))

  readonly finish = (statements: ReadonlyArray<Statement>): Effect.Effect<ReadonlyArray<SqlResult>, DatabaseFailure> =>
    this.inTurn(() =>
      Effect.uninterruptibleMask((restore) =>
        Effect.gen({ self: this }, function* () {
          // a pinned connection takes one statement at a time
          if (this.pinned !== undefined) {
            const { session } = this
            const results: Array<SqlResult> = []
            for (const one of statements) results.push(yield* restore(this.next(session as Session, one)))
            yield* this.close(session as Session, command(this.ending))
            return results
          }
          const fresh = this.session === undefined
          const session = this.session ?? (yield* restore(Scope.provide(this.pool.lease, this.scope)))
          this.session = session
          this.over = true
          const opening = fresh ? this.opening : []
          const answers = yield* exchange(session, [...opening, ...statements], this.within, command(this.ending))
          const error = firstError(answers)
          if (error === undefined) return yield* resultsOf(answers, opening.length, this.ending, this.first)
          if (sqlStateOf(error) === undefined && isDead(session) && this.commits)
            return yield* Effect.fail(unknown(error))
          return yield* this.failed(session, error)
        })
      )
    )

  private readonly inTurn = <A>(f: () => Effect.Effect<A, DatabaseFailure>): Effect.Effect<A, DatabaseFailure> =>
    this.turn.withPermit(
      Effect.suspend(() => (this.over ? Effect.die(new Error("a transaction was used after its end")) : f()))
    )

  /** Whether something may have been done that a lost answer leaves in doubt. */
  private get commits(): boolean {
    return this.ending === "commit" && this.first === undefined
  }

  private readonly start = (asked: Statement): Effect.Effect<SqlResult, DatabaseFailure> =>
    Effect.uninterruptibleMask((restore) =>
      Effect.gen({ self: this }, function* () {
        const session = yield* restore(Scope.provide(this.pool.lease, this.scope))
        this.session = session
        const answers = yield* exchange(session, [...this.opening, asked], this.within)
        const error = firstError(answers)
        if (error !== undefined) return yield* this.failed(session, error)
        return (answers[this.opening.length] as Exit.Success<PgConnection.Result>).value
      })
    )

  private readonly next = (session: Session, asked: Statement): Effect.Effect<SqlResult, DatabaseFailure> =>
    Effect.gen({ self: this }, function* () {
      this.pinned ??= yield* Scope.provide(session.connection.pin, this.scope)
      expectAnswer(session, this.within)
      return yield* this.pinned.query(asked.sql, asked.params)
    }).pipe(
      Effect.catch((error) => this.failed(session, error)),
      Effect.ensuring(Effect.sync(() => settled(session)))
    )

  private readonly failed = (session: Session, error: SqlError): Effect.Effect<never, DatabaseFailure> => {
    const mapped = sqlStateOf(error) === undefined && isDead(session) ? lost(session, error) : fromSqlError(error)
    this.first ??= mapped
    return Effect.fail(mapped)
  }

  /** Ends the transaction unless it is over; whatever happens, the session is idle or closed afterwards. */
  readonly end = (last: "COMMIT" | "ROLLBACK"): Effect.Effect<void, DatabaseFailure> =>
    this.turn.withPermit(
      Effect.suspend(() => {
        if (this.session !== undefined && !this.over) return this.close(this.session, last)
        this.over = true
        return Effect.void
      })
    )

  private readonly close = (session: Session, last: "COMMIT" | "ROLLBACK"): Effect.Effect<void, DatabaseFailure> => {
    this.over = true
    expectAnswer(session, this.within)
    return Effect.matchEffect((this.pinned ?? session.connection).query(last), {
      onSuccess: (result) => (result.command === last ? Effect.void : Effect.fail(this.first ?? rolledBack())),
      onFailure: (error) => {
        if (sqlStateOf(error) !== undefined) return Effect.fail(fromSqlError(error))
        const inDoubt = isDead(session) && last === "COMMIT" && this.commits
        const mapped = inDoubt ? unknown(error) : lost(session, error)
        cut(session)
        return Effect.fail(this.first ?? mapped)
      }
    }).pipe(Effect.ensuring(Effect.sync(() => settled(session))), Effect.uninterruptible)
  }
}

/**
 * Streams the rows of one statement in a transaction of its own, which ends with the stream and lasts no longer than a
 * transaction may. Rows that nobody takes are not read from the socket.
 */
export const stream = (
  pool: SessionPool,
  enter: Statement | undefined,
  asked: Statement
): Stream.Stream<Readonly<Record<string, unknown>>, DatabaseFailure> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const session = yield* pool.lease
      const within = pool.settings.maxTransaction
      const ended = Effect.suspend(() => {
        if (isDead(session)) return Effect.void
        expectAnswer(session, pool.settings.statementTimeout)
        return Effect.matchEffect(session.connection.query("ROLLBACK"), {
          onSuccess: () => Effect.sync(() => settled(session)),
          onFailure: () => Effect.sync(() => cut(session))
        })
      })
      yield* Effect.addFinalizer(() => ended)
      const answers = yield* exchange(session, enter === undefined ? [begin] : [begin, enter], within)
      const error = firstError(answers)
      if (error !== undefined) return yield* Effect.fail(lost(session, error))
      expectAnswer(session, within)
      return session.connection
        .stream(asked.sql, asked.params)
        .pipe(
          Stream.mapError((error) => (sqlStateOf(error) === undefined ? lost(session, error) : fromSqlError(error)))
        )
    })
  )

/** One statement outside any transaction; see `OperatorSql.query`. */
export const single = (pool: SessionPool, asked: Statement): Effect.Effect<SqlResult, DatabaseFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const session = yield* pool.lease
      const pinned = yield* session.connection.pin
      expectAnswer(session, pool.settings.maxTransaction)
      return yield* pinned.query(asked.sql, asked.params, false).pipe(
        Effect.mapError((error) => (sqlStateOf(error) === undefined ? lost(session, error) : fromSqlError(error))),
        Effect.ensuring(Effect.sync(() => settled(session)))
      )
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
      const pinned = yield* session.connection.pin
      yield* Effect.addFinalizer(() => Effect.sync(() => cut(session)))
      return yield* f((asked) =>
        Effect.suspend(() => {
          expectAnswer(session, within)
          return pinned.query(asked.sql, asked.params, false)
        }).pipe(
          Effect.mapError((error) => (sqlStateOf(error) === undefined ? lost(session, error) : fromSqlError(error))),
          Effect.ensuring(Effect.sync(() => settled(session)))
        )
      )
    })
  ) as Effect.Effect<A, E | DatabaseFailure, R>
