/**
 * The gate of ADR-007: nothing about tenants is served unless the database holds domains apart.
 *
 * It is judged before the server listens, where a violation ends the process (`IsolationCheck.exitCode`), and every minute while it
 * runs, where a violation closes the gate: requests are 503, readiness is false, a metric tells, and the log names each
 * violation with the SQL that repairs it. Whoever repairs it opens the gate again within a minute. A database that does
 * not answer leaves the gate as it was: nothing can be read from it either; before the first answer it is closed.
 */
import { Context, Data, Duration, Effect, Layer, Metric } from "effect"
import { type Problem, problem } from "../domain/Problem.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Violation } from "../postgres/IsolationCheck.ts"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"

/** The database could let the API past row-level security: the process must not serve. */
export class IsolationViolated extends Data.TaggedError("IsolationViolated")<{
  readonly violations: ReadonlyArray<Violation>
}> {
  override get message(): string {
    return [
      "the database could let the API past row-level security, so nothing is served from it:",
      ...this.violations.map((violation) => `  ${IsolationCheck.render(violation)}`)
    ].join("\n")
  }
}

const verifiedGauge = Metric.gauge("velocity_isolation_verified", {
  description: "1 while the isolation check finds nothing, else 0"
})
const violationsGauge = Metric.gauge("velocity_isolation_violations", {
  description: "Ways past row-level security that the last check found"
})

const unjudged = problem("not_ready", { detail: "the isolation check has not run yet" })

const soon = Duration.seconds(1)
const everyMinute = Duration.minutes(1)

/** See the module. */
export class IsolationGate extends Context.Service<
  IsolationGate,
  {
    /** Why nothing may be served; undefined while all is well. */
    readonly closed: () => Problem | undefined
    /** Judges now, out of turn. */
    readonly judge: Effect.Effect<ReadonlyArray<Violation>, DatabaseFailure>
  }
>()("velocity/server/IsolationGate") {
  /** Over a check of the database. Fails with `IsolationViolated` where the first one that answers finds something. */
  static readonly layerOf = <R>(
    check: Effect.Effect<ReadonlyArray<Violation>, DatabaseFailure, R>,
    every: Duration.Duration = everyMinute
  ) =>
    Layer.effect(
      IsolationGate,
      Effect.gen(function* () {
        const context = yield* Effect.context<R>()
        let refusal: Problem | undefined = unjudged
        const judged = Effect.fnUntraced(function* (found: ReadonlyArray<Violation>) {
          const open = found.length === 0
          if (!open) yield* Effect.logError(new IsolationViolated({ violations: found }).message)
          else if (refusal !== undefined) yield* Effect.logInfo("isolation verified")
          refusal = open ? undefined : problem("not_ready", { detail: "the isolation check found a violation" })
          yield* Metric.update(verifiedGauge, open ? 1 : 0)
          yield* Metric.update(violationsGauge, found.length)
        })
        yield* Metric.update(verifiedGauge, 0)
        const judge = check.pipe(Effect.tap(judged), Effect.provideContext(context))
        const first = yield* Effect.result(judge)
        if (first._tag === "Success" && first.success.length > 0) {
          return yield* new IsolationViolated({ violations: first.success })
        }
        if (first._tag === "Failure") yield* Effect.logWarning("the isolation check could not run", first.failure)
        // a database that was not there at first is waited for closely
        const wait = Effect.suspend(() => Effect.sleep(refusal === unjudged ? Duration.min(every, soon) : every))
        yield* wait.pipe(
          Effect.andThen(judge),
          Effect.catchCause((cause) => Effect.logWarning("the isolation check could not run", cause)),
          Effect.forever,
          Effect.forkScoped
        )
        return IsolationGate.of({ closed: () => refusal, judge })
      })
    )

  /** Over the check of the default database. */
  static readonly layer = this.layerOf(IsolationCheck.check())
}
