/**
 * Hears what the API's replicas acknowledge, and has just those definitions looked at whose conditions it may change; and that
 * a person decided what others wait for: an orphan was released or dropped, a legal hold lifted.
 * Nothing is asked for meanwhile but whether a replica has died, which only silence tells; its row is removed then.
 */
import { Duration, Effect, Schedule, Stream } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { OperatorDatabases } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { deadAfter, type ServingState, servingOfAll } from "../../provisioning/ServingState.ts"
import type { Fence, Superseded } from "../state/Fence.ts"
import type { ResourceState } from "../state/ResourceStatus.ts"
import { judge } from "../state/Serving.ts"

/** Payloads are paths, `replicas` where one came or went, and `decided`. */
const channel = "velocity_serving"
const replicas = "replicas"
const decision = "decided"

/** How often it is asked who died. */
const sweepEvery = Duration.seconds(30)
/** How often everything is asked where nothing is heard, as behind a pooler. */
const deafLook = Duration.seconds(1)

export interface ServingWatchOptions {
  readonly fence: Fence["Service"]
  readonly sql: OperatorDatabases
  readonly states: () => ReadonlyArray<ResourceState>
  /** Has the definitions at these paths looked at, those that are leaving too. */
  readonly wake: (paths: ReadonlySet<string>) => Effect.Effect<void>
  /** Has those looked at that wait for a person's decision: each costs little. */
  readonly wakeUndecided: Effect.Effect<void>
}

const conditionOf = ({ conditions }: ResourceState, type: string) => conditions.find((one) => one.type === type)

/** Whether replicas acknowledged something that the conditions of a definition do not say yet. */
const isNews = (is: ServingState, was: ResourceState): boolean => {
  if (conditionOf(was, "Ready")?.reason === "Withdrawing") return is.behind.length === 0
  const said = conditionOf(was, "Serving")
  const { message, reason, status } = judge(is)
  return said?.status !== status || said.reason !== reason || said.message !== message
}

const silent = `seen_at <= now() - interval '${deadAfter}'`

/** Forgets who has died; answers whether there was anybody. */
const sweep = Effect.fnUntraced(function* (
  fence: Fence["Service"]
): Effect.fn.Return<boolean, DatabaseFailure | Superseded> {
  const { rows } = yield* fence.read((tx) =>
    tx.query(statement(`select replica from platform.replicas where ${silent} limit 1`))
  )
  if (rows.length === 0) return false
  const gone = yield* fence.transaction((tx) =>
    tx.query(statement(`delete from platform.replicas where ${silent} returning replica`))
  )
  for (const row of gone.rows) {
    yield* Effect.logWarning(`the API's replica ${row.replica} said nothing for ${deadAfter}: it is counted no more`)
  }
  return true
})

/** Watches until the scope closes. */
export const run = Effect.fnUntraced(function* ({ fence, sql, states, wake, wakeUndecided }: ServingWatchOptions) {
  const lookAtAll = Effect.gen(function* () {
    const known = new Map(states().map((one) => [one.identity, one]))
    const now = yield* fence.read(servingOfAll)
    const news = now.filter((is) => {
      const was = known.get(`SchemaDefinition/${is.origin.namespace}/${is.origin.name}`)
      return was !== undefined && isNews(is, was)
    })
    yield* wake(new Set(news.map((one) => one.path)))
  })
  /** What fails is not lost: definitions are reconciled again in any case. */
  const told = <A, E>(what: Effect.Effect<A, E>) =>
    Effect.catchCause(what, (cause) => Effect.logWarning("what replicas acknowledged could not be read", cause))

  yield* sql.listen(channel).pipe(
    Stream.runForEachArray((heard) => {
      const paths = new Set<string>()
      let everything = false
      let decided = false
      for (const one of heard) {
        if (one._tag === "Reconnected") everything = decided = true
        else if (one.payload === replicas) everything = true
        else if (one.payload === decision) decided = true
        else paths.add(one.payload)
      }
      return Effect.all(
        [wake(paths), everything ? told(lookAtAll) : Effect.void, decided ? wakeUndecided : Effect.void],
        {
          discard: true
        }
      )
    }),
    Effect.forkScoped
  )
  const rounds = Effect.flatMap(sweep(fence), (swept) => (swept || !sql.hears ? lookAtAll : Effect.void)).pipe(
    Effect.andThen(sql.hears ? Effect.void : wakeUndecided)
  )
  yield* told(rounds).pipe(Effect.repeat(Schedule.spaced(sql.hears ? sweepEvery : deafLook)), Effect.forkScoped)
})
