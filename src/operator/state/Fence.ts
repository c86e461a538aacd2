/**
 * The operator's term: what keeps an operator that was stopped, and goes on, from writing (fine print 7).
 *
 * Whoever starts takes a new term, and every transaction holds the term's row with the epoch it was given. A transaction
 * of an earlier term fails with `Superseded`; an operator that hears that must stop.
 */
import { type Cause, Context, Data, Effect, Layer, Schedule } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { type OperatorDatabases, OperatorSql, type Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"

/** Another operator has taken a term since. */
export class Superseded extends Data.TaggedError("Superseded")<{ readonly message: string }> {}

/** The database belongs to an operator that is fed from elsewhere. */
export class ForeignInstallation extends Data.TaggedError("ForeignInstallation")<{ readonly message: string }> {}

const isSuperseded = (cause: Cause.Cause<unknown>): boolean =>
  cause.reasons.some((reason) => reason._tag === "Fail" && reason.error instanceof Superseded)

/** A round of a schedule whose failure is logged and ends nothing, unless another operator has taken over. */
export const roundOf = <A, E, R>(what: string, round: Effect.Effect<A, E, R>): Effect.Effect<void, E, R> =>
  round.pipe(
    Effect.asVoid,
    Effect.catchCause((cause) =>
      isSuperseded(cause) ? Effect.failCause(cause) : Effect.logError(`${what} failed, and is tried again`, cause)
    )
  )

/** How long a transaction that holds the term may say nothing: less than a Lease lasts. */
const longestPause = "10s"

/** A database that is not there yet is waited for, and so is a predecessor's transaction that holds the term. */
const isAbsent = (error: DatabaseFailure | ForeignInstallation | Superseded): boolean =>
  error._tag === "DatabaseFailure" && ["Unavailable", "Timeout", "LockTimeout"].includes(error.reason._tag)

const asSuperseded = <E>(error: E | DatabaseFailure): Effect.Effect<never, E | DatabaseFailure | Superseded> => {
  const reason = (error as Partial<DatabaseFailure>).reason
  return reason?._tag === "Platform" && reason.code === "VL030"
    ? Effect.fail(new Superseded({ message: reason.message }))
    : Effect.fail(error)
}

/** See the module. */
export class Fence extends Context.Service<
  Fence,
  {
    readonly epoch: string
    /** What the resources of this operator's mirror rows are marked with. */
    readonly source: string
    /** A transaction of this term. */
    readonly transaction: <A, E, R>(
      f: (tx: Tx) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | DatabaseFailure | Superseded, R>
    /**
     * One whose statements may take as long as a transaction may. It does not hold the term, for which a successor would
     * wait as long: what writes in it is told the `epoch` and asks for the term itself, at its end.
     */
    readonly long: <A, E, R>(
      f: (tx: Tx) => Effect.Effect<A, E, R>
    ) => Effect.Effect<A, E | DatabaseFailure | Superseded, R>
    /** Statements outside transactions, which hold no term: their caller has one of this term before and after. */
    readonly alone: OperatorDatabases["alone"]
    /** Reads without holding the term. */
    readonly read: <A, E, R>(f: (tx: Tx) => Effect.Effect<A, E, R>) => Effect.Effect<A, E | DatabaseFailure, R>
  }
>()("velocity/operator/Fence") {
  /**
   * Takes a term for `holder`. `source` is `folder`, or a cluster's id: a database belongs to one of them. Where leadership
   * is another's to give, `isTrusted` says whether it is still ours: without it no transaction begins, and no term is taken.
   * It is asked when the term's row is locked already, so whoever leads by now takes his term after this one; and a process
   * that is stopped then is ended by Postgres before a successor has waited long.
   */
  static readonly layerOf = ({
    holder,
    isTrusted,
    source
  }: {
    readonly holder: string
    readonly source: string
    readonly isTrusted?: () => boolean
  }) =>
    Layer.effect(
      Fence,
      Effect.gen(function* () {
        const sql = yield* OperatorSql
        const trusted: Effect.Effect<void, Superseded> = Effect.suspend(() =>
          isTrusted?.() === false
            ? Effect.fail(new Superseded({ message: "this operator's leadership is not certain any more" }))
            : Effect.void
        )
        const pausing = `set_config('idle_in_transaction_session_timeout', '${longestPause}', true)`
        const epoch = yield* sql
          .transaction((tx) =>
            Effect.gen(function* () {
              yield* trusted
              yield* tx.query(statement(`select ${pausing}`))
              const { rows } = yield* tx.query(statement("select source from platform.installation"))
              const owner = rows[0]?.source
              if (typeof owner === "string" && owner !== source) {
                const message = `this database belongs to the installation fed from ${owner}; this operator is fed from ${source}`
                return yield* new ForeignInstallation({ message })
              }
              if (owner === null) yield* tx.query(statement("update platform.installation set source = $1", [source]))
              const taken = yield* tx.query(
                statement("select platform.term_take($1, $2)::text as epoch", [holder, source])
              )
              yield* trusted
              return String(taken.rows[0]?.epoch)
            })
          )
          .pipe(
            Effect.tapError((error) => Effect.logWarning("no term could be taken", error)),
            Effect.retry({ while: isAbsent, schedule: Schedule.spaced("1 second") })
          )
        const check = statement(`select platform.term_check($1::int8)::text as held, ${pausing}`, [epoch])
        return Fence.of({
          epoch,
          source,
          transaction: (f) =>
            Effect.andThen(
              trusted,
              sql.transaction((tx) => Effect.andThen(tx.query(check), f(tx)))
            ).pipe(Effect.catch(asSuperseded)),
          long: (f) => Effect.andThen(trusted, sql.transaction(f, { long: true })).pipe(Effect.catch(asSuperseded)),
          alone: sql.alone,
          read: (f) => sql.transaction(f, { end: "read" })
        })
      })
    )
}
