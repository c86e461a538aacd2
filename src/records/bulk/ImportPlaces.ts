/**
 * How many imports may hold a transaction open at the pace of their senders.
 *
 * A stream that is written as a whole keeps one of the pool's connections until its last record came, and a sender may take
 * his time. So that streams leave connections for everybody else, all of them together have half of the pool, and one
 * actor a quarter of it, at least one. Who finds no place is told at once (503 `busy`), before anything of his is read.
 */
import * as Effect from "effect/Effect"
import { type Problem, problem } from "../../domain/Problem.ts"

/** Seconds until asking again makes sense: an import takes that long. */
const later = { "retry-after": "5" }

/** See the module. */
export interface ImportPlaces {
  /** Holds a place while the effect runs. Fails with `busy`, and nothing was run, where there is none. */
  readonly within: <A, E, R>(actor: string, effect: Effect.Effect<A, E, R>) => Effect.Effect<A, E | Problem, R>
}

/** Places in a pool of so many connections. */
export const makeImportPlaces = (connections: number): ImportPlaces => {
  const together = Math.max(1, Math.floor(connections / 2))
  const each = Math.max(1, Math.floor(connections / 4))
  const held = new Map<string, number>()
  let all = 0
  const take = (actor: string): Effect.Effect<void, Problem> =>
    Effect.suspend(() => {
      const own = held.get(actor) ?? 0
      if (own >= each || all >= together) {
        const whose = own >= each ? "of yours" : "of all"
        return problem("busy", { detail: `${own >= each ? own : all} imports ${whose} are under way`, headers: later })
      }
      held.set(actor, own + 1)
      all++
      return Effect.void
    })
  const leave = (actor: string): Effect.Effect<void> =>
    Effect.sync(() => {
      const own = held.get(actor) ?? 0
      if (own <= 1) held.delete(actor)
      else held.set(actor, own - 1)
      all--
    })
  return {
    within: (actor, effect) =>
      Effect.acquireUseRelease(
        take(actor),
        () => effect,
        () => leave(actor)
      )
  }
}
