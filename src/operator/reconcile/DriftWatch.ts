/**
 * Looks at the tables of served definitions from time to time, and repairs what somebody did to them by hand. What cannot be
 * repaired is remembered, so that it is said until it is gone.
 */
import { Clock, Effect } from "effect"
import * as Drift from "../../provisioning/Drift.ts"
import type { ProvisionRefused } from "../../provisioning/table/ProvisionRefused.ts"
import type { Failures, World } from "../state/Reconciler.ts"

/** How often a table is looked at, in milliseconds. */
export const lookEvery = 10 * 60_000
/** How often, while it is not as it should be. */
export const lookAgain = 60_000

interface Looked {
  readonly at: number
  readonly differences: ReadonlyArray<string>
}

/** By the term of the operator: one that starts looks at everything once. */
const known = new WeakMap<World["fence"], Map<string, Looked>>()

export interface Found {
  readonly differences: ReadonlyArray<string>
  readonly repaired: ReadonlyArray<string>
  /** A plan repairs more. */
  readonly planned: boolean
}

const lookedBy = (fence: World["fence"]): Map<string, Looked> => {
  const looked = known.get(fence) ?? new Map<string, Looked>()
  known.set(fence, looked)
  return looked
}

/** A table that was just made what it should be need not be looked at now. */
export const settled = Effect.fnUntraced(function* ({ fence }: World, path: string) {
  lookedBy(fence).set(path, { at: yield* Clock.currentTimeMillis, differences: [] })
})

const asTheyAre = (differences: ReadonlyArray<string>): Found => ({ differences, repaired: [], planned: false })

/**
 * What is otherwise than it should be with a definition's table; looks when it is time to, or `now`. `isWanted` as in
 * `Drift.repair`.
 */
export const watch = Effect.fnUntraced(function* (
  world: World,
  path: string,
  { isWanted, now: isDue }: { readonly isWanted: boolean; readonly now: boolean }
): Effect.fn.Return<Found, Failures | ProvisionRefused> {
  const { fence } = world
  const looked = lookedBy(fence)
  const last = looked.get(path)
  const now = yield* Clock.currentTimeMillis
  if (!isDue && last !== undefined && now - last.at < (last.differences.length > 0 ? lookAgain : lookEvery)) {
    return asTheyAre(last.differences)
  }
  const { differences } = yield* fence.read((tx) => Drift.find(tx, path))
  if (differences.length === 0) {
    looked.set(path, { at: now, differences })
    return asTheyAre([])
  }
  yield* Effect.logWarning(`the table of ${path} was changed by hand: ${differences.join("; ")}`)
  const result = yield* fence.transaction((tx) => Drift.repair(tx, path, `operator/${fence.source}`, isWanted))
  if (!result.planned) looked.set(path, { at: now, differences: result.differences })
  return result
})
