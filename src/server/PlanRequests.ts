/**
 * Asks the operator for plans, as `velocity_gateway`: a row that the operator answers, and a notification each way.
 *
 * The API can neither enter a domain's owner nor read its catalogue, so the plan is made by who can. It listens before it
 * asks, on a connection that lasts as long as somebody waits here; nothing is read but what a notification points to.
 */
import { Context, Duration, Effect, Layer, Option, Schedule, Semaphore, Stream } from "effect"
import { type Problem, problem } from "../domain/Problem.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { type Heard, Listener } from "../postgres/Listener.ts"
import { listenUrl } from "../postgres/PgSettings.ts"
import { statement } from "../postgres/Statement.ts"
import type { Answer } from "../provisioning/PlanShown.ts"
import { databaseProblem } from "./DatabaseProblems.ts"

const channel = "velocity_plan_answered"

/** How many a replica asks for at once; each has a connection that listens. */
const atOnce = 4
/** How often it is looked where nothing is heard, as behind a pooler. */
const deafLook = Duration.millis(500)

const later = { "Retry-After": "1" }
const tooMany = () => problem("busy", { detail: "too many plans are being made", headers: later })

const refusalOf = (failure: DatabaseFailure): Problem =>
  failure.reason._tag === "Platform" && failure.reason.code === "VL090" ? tooMany() : databaseProblem(failure)

/** What is to be planned, and for whom. */
export interface PlanQuestion {
  readonly chain: string
  readonly actor: string
  /** As JSON. */
  readonly manifest: string
  /** How long an answer is waited for, in milliseconds. */
  readonly within: number
}

/** See the module. */
export class PlanRequests extends Context.Service<
  PlanRequests,
  {
    /** Fails with `no_operator` where nobody answers in time, with `busy` where too many ask. */
    readonly ask: (question: PlanQuestion) => Effect.Effect<Answer, Problem>
  }
>()("velocity/server/PlanRequests") {
  static readonly layer = Layer.effect(
    PlanRequests,
    Effect.gen(function* () {
      const gateway = yield* GatewayTx
      const listener = yield* Listener
      const isDeaf = Option.isNone(yield* listenUrl)
      const permits = yield* Semaphore.make(atOnce)

      const call = (sql: string, params: ReadonlyArray<unknown>) =>
        Effect.map(gateway.bundle([statement(sql, params)]), ([result]) => result?.rows[0]?.found)
      const take = (id: string, end: boolean) => call("select platform.plan_take($1::uuid, $2) as found", [id, end])

      const hints: Stream.Stream<Heard> = isDeaf
        ? Stream.map(Stream.fromSchedule(Schedule.spaced(deafLook)), () => ({ _tag: "Reconnected" }) as const)
        : listener.listen(channel)

      const waited = Effect.fnUntraced(function* ({ actor, chain, manifest, within }: PlanQuestion) {
        let id: string | undefined
        const step = Effect.fnUntraced(function* (heard: Heard) {
          if (id === undefined) {
            const made = call("select platform.plan_ask($1, $2, $3, $4::int4)::text as found", [
              chain,
              actor,
              manifest,
              within
            ])
            // that it was asked must be known to whoever ends it
            id = String(yield* Effect.uninterruptible(made))
            return undefined
          }
          if (heard._tag === "Notified" && heard.payload !== id) return undefined
          const answer = yield* take(id, false)
          return typeof answer === "string" ? (JSON.parse(answer) as Answer) : undefined
        })
        const answer = yield* hints.pipe(
          Stream.mapEffect(step),
          Stream.filter((found) => found !== undefined),
          Stream.runHead,
          Effect.mapError(refusalOf),
          Effect.timeoutOption(within),
          Effect.onExit((exit) =>
            id === undefined || (exit._tag === "Success" && Option.isSome(exit.value))
              ? Effect.void
              : Effect.ignore(take(id, true))
          )
        )
        const found = Option.getOrUndefined(Option.flatten(answer))
        if (found !== undefined) return found
        return yield* id === undefined
          ? problem("unavailable", { headers: later })
          : problem("no_operator", { detail: `no operator has answered within ${within / 1000} s` })
      })

      return PlanRequests.of({
        ask: (question) =>
          Effect.flatMap(permits.withPermitsIfAvailable(1)(waited(question)), (answer) =>
            Option.isSome(answer) ? Effect.succeed(answer.value) : Effect.fail(tooMany())
          )
      })
    })
  )
}
