/**
 * The keys that are to be reconciled: each at most once in the queue and never twice at work (as client-go's workqueue).
 *
 * Several may be at work at once, but of each group one, in the order in which they were added: what contends for one name
 * is decided by who came first, and what takes long holds up its own group alone. While one of the group `first` is at work
 * no other is taken up: they stand on what it does. What has a lane stands apart from all that: it is taken by who asks for
 * that lane, whatever else is at work. What is only looked at again, without a reason, comes behind what has one.
 *
 * A key that is added while it is being worked on comes again when that is done. A key that failed comes again after a
 * time that doubles with each failure, with jitter; adding it meanwhile brings it at once.
 */
import { Clock, Deferred, Duration, Effect, FiberMap, Random } from "effect"

/** The first wait after a failure, and the longest. */
export const firstBackoff = Duration.millis(500)
export const longestBackoff = Duration.minutes(1)

/** The wait before a try, by how many have failed; `chance` in [0, 1) spreads it over ±20 %. */
export const backoffOf = (failures: number, chance: number): Duration.Duration => {
  const doubled = Duration.toMillis(firstBackoff) * 2 ** Math.min(Math.max(failures - 1, 0), 30)
  return Duration.millis(Math.min(doubled, Duration.toMillis(longestBackoff)) * (0.8 + 0.4 * chance))
}

export interface WorkQueue {
  readonly add: (key: string) => Effect.Effect<void>
  /** The same without a reason: behind all that have one. */
  readonly addBehind: (key: string) => Effect.Effect<void>
  /**
   * Waits for a key, of those without a lane unless one is said; it is at work until `done`. Answers how long it stood in the
   * queue, in milliseconds, too.
   */
  readonly take: (lane?: string) => Effect.Effect<{ readonly key: string; readonly waited: number }>
  /** The work on a key is over and was good: its failures are forgotten. */
  readonly done: (key: string) => Effect.Effect<void>
  /** The work on a key is over and is to be tried again; answers after how long. */
  readonly retry: (key: string) => Effect.Effect<Duration.Duration>
  /** A key comes again after a time; adding it meanwhile brings it at once. Without a wait it is added behind the others. */
  readonly later: (key: string, wait: Duration.Duration) => Effect.Effect<void>
  /** How many tries of a key have failed since it was last good. */
  readonly failures: (key: string) => number
  /** How many stand in the queue, those at work and those that wait for another try not counted. */
  readonly depth: () => number
  /** Whether nothing stands in the queue or is at work. */
  readonly idle: () => boolean
}

export interface WorkQueueOptions {
  /** Of which one is at work at once. */
  readonly groupOf: (key: string) => string
  /** The group that is waited for by all without a lane. */
  readonly first?: string | undefined
  /** The lane of a key that has one, as it is when the key comes. */
  readonly laneOf?: ((key: string) => string | undefined) | undefined
}

/** Those of a lane that stand in the queue, and since when. */
interface Line {
  readonly front: Map<string, number>
  readonly behind: Map<string, number>
}

/** Makes a queue; waits for another try end with the scope. */
export const make = Effect.fnUntraced(function* ({ first, groupOf, laneOf }: WorkQueueOptions) {
  const lines = new Map<string | undefined, Line>()
  const lineOf = (lane: string | undefined): Line => {
    const line = lines.get(lane) ?? { front: new Map(), behind: new Map() }
    lines.set(lane, line)
    return line
  }
  const working = new Set<string>()
  const busy = new Set<string>()
  const again = new Set<string>()
  const failures = new Map<string, number>()
  const delayed = yield* FiberMap.make<string>()
  let waiting = Deferred.makeUnsafe<void>()

  const push = Effect.fnUntraced(function* (key: string, place: keyof Line = "front") {
    if (working.has(key)) {
      again.add(key)
      return
    }
    const line = lineOf(laneOf?.(key))
    if (line.front.has(key) || line[place].has(key)) return
    const since = line.behind.get(key) ?? (yield* Clock.currentTimeMillis)
    // it may have got a lane since it came
    for (const one of lines.values()) for (const keys of [one.front, one.behind]) keys.delete(key)
    line[place].set(key, since)
    Deferred.doneUnsafe(waiting, Effect.void)
  })

  const over = Effect.fnUntraced(function* (key: string) {
    working.delete(key)
    busy.delete(groupOf(key))
    // whoever takes may have found nothing but this group's
    Deferred.doneUnsafe(waiting, Effect.void)
    if (again.delete(key)) yield* push(key)
  })

  const take: WorkQueue["take"] = Effect.fnUntraced(function* (lane) {
    const { behind, front } = lineOf(lane)
    for (;;) {
      const isHeld = lane === undefined && first !== undefined && busy.has(first)
      for (const line of isHeld ? [] : [front, behind]) {
        for (const [key, since] of line) {
          const group = groupOf(key)
          if (busy.has(group)) continue
          line.delete(key)
          working.add(key)
          busy.add(group)
          return { key, waited: (yield* Clock.currentTimeMillis) - since }
        }
      }
      if (Deferred.isDoneUnsafe(waiting)) waiting = Deferred.makeUnsafe()
      yield* Deferred.await(waiting)
    }
  })

  const depth = () => [...lines.values()].reduce((sum, { behind, front }) => sum + front.size + behind.size, 0)

  const later: WorkQueue["later"] = (key, wait) =>
    Duration.toMillis(wait) === 0
      ? push(key)
      : Effect.asVoid(
          FiberMap.run(
            delayed,
            key,
            Effect.andThen(
              Effect.sleep(wait),
              Effect.suspend(() => push(key))
            )
          )
        )

  return {
    add: (key) => Effect.andThen(FiberMap.remove(delayed, key), push(key)),
    addBehind: (key) => push(key, "behind"),
    take,
    done: (key) =>
      Effect.suspend(() => {
        failures.delete(key)
        return over(key)
      }),
    retry: Effect.fnUntraced(function* (key: string) {
      const count = (failures.get(key) ?? 0) + 1
      failures.set(key, count)
      const wait = backoffOf(count, yield* Random.next)
      yield* over(key)
      yield* later(key, wait)
      return wait
    }),
    later,
    failures: (key) => failures.get(key) ?? 0,
    depth,
    idle: () => depth() === 0 && working.size === 0
  } satisfies WorkQueue
})
