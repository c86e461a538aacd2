/** The queue's promises, by the clock of the test. */
import { it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { describe, expect } from "vitest"
import { backoffOf, firstBackoff, longestBackoff, make } from "../../src/operator/control/WorkQueue.ts"

describe("the queue", () => {
  it.effect("holds a key once, in the order of coming", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key })
      for (const key of ["a", "b", "a", "c", "b"]) yield* queue.add(key)
      expect(queue.depth()).toBe(3)
      const taken = [yield* queue.take(), yield* queue.take(), yield* queue.take()]
      expect(taken.map((one) => one.key)).toEqual(["a", "b", "c"])
      expect(queue.idle()).toBe(false)
      for (const { key } of taken) yield* queue.done(key)
      expect(queue.idle()).toBe(true)
    })
  )

  it.effect("gives a key that comes while it is worked on out again afterwards, and never twice at once", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key })
      yield* queue.add("a")
      yield* queue.take()
      yield* queue.add("a")
      yield* queue.add("a")
      expect(queue.depth()).toBe(0)
      yield* queue.done("a")
      expect(queue.depth()).toBe(1)
      expect((yield* queue.take()).key).toBe("a")
      yield* queue.done("a")
      expect(queue.idle()).toBe(true)
    })
  )

  it.effect("has one of a group at work, the first that came, and passes over it to the others", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key.slice(0, 1) })
      for (const key of ["a1", "a2", "b1", "a3"]) yield* queue.add(key)
      expect((yield* queue.take()).key).toBe("a1")
      expect((yield* queue.take()).key).toBe("b1")
      const waiting = yield* Effect.forkChild(queue.take())
      yield* TestClock.adjust("1 second")
      expect(queue.depth()).toBe(2)
      yield* queue.done("b1")
      yield* TestClock.adjust("1 second")
      expect(queue.depth()).toBe(2)
      yield* queue.done("a1")
      expect((yield* Fiber.join(waiting)).key).toBe("a2")
      yield* queue.retry("a2")
      expect((yield* queue.take()).key).toBe("a3")
    })
  )

  it.effect("takes nothing else up while one of those is at work that go first", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key.slice(0, 1), first: "p" })
      for (const key of ["c1", "p1", "d1"]) yield* queue.add(key)
      expect((yield* queue.take()).key).toBe("c1")
      expect((yield* queue.take()).key).toBe("p1")
      const waiting = yield* Effect.forkChild(queue.take())
      yield* TestClock.adjust("1 second")
      expect(queue.depth()).toBe(1)
      yield* queue.done("p1")
      expect((yield* Fiber.join(waiting)).key).toBe("d1")
    })
  )

  it.effect("gives what has a lane to who asks for it, whatever is at work and stands in the queue", () =>
    Effect.gen(function* () {
      const queue = yield* make({
        groupOf: (key) => key.slice(0, 1),
        first: "p",
        laneOf: (key) => (key.startsWith("r") ? "r" : undefined)
      })
      for (const key of ["p1", "d1", "r1", "r2"]) yield* queue.add(key)
      expect((yield* queue.take()).key).toBe("p1")
      const others = yield* Effect.forkChild(queue.take())
      expect((yield* queue.take("r")).key).toBe("r1")
      yield* TestClock.adjust("1 second")
      expect(queue.depth()).toBe(2)
      yield* queue.done("r1")
      expect((yield* queue.take("r")).key).toBe("r2")
      yield* queue.done("p1")
      expect((yield* Fiber.join(others)).key).toBe("d1")
    })
  )

  it.effect("moves a key into the lane that it has got, and gives it out once", () =>
    Effect.gen(function* () {
      const leaving = new Set<string>()
      const queue = yield* make({ groupOf: (key) => key, laneOf: (key) => (leaving.has(key) ? "r" : undefined) })
      yield* queue.add("k")
      leaving.add("k")
      yield* queue.add("k")
      expect(queue.depth()).toBe(1)
      expect((yield* queue.take("r")).key).toBe("k")
      yield* queue.done("k")
      expect(queue.idle()).toBe(true)
    })
  )

  it.effect("gives out what is only looked at again behind what has a reason, and no sooner than that", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key })
      for (const key of ["a", "b", "c"]) yield* queue.addBehind(key)
      yield* queue.add("d")
      // a reason has come, and what has one does not lose it
      yield* queue.add("b")
      yield* queue.addBehind("d")
      expect(queue.depth()).toBe(4)
      const order = []
      for (let one = 0; one < 4; one++) order.push((yield* queue.take()).key)
      expect(order).toEqual(["d", "b", "a", "c"])
      expect(queue.depth()).toBe(0)
    })
  )

  it.effect("wakes whoever waits for a key", () =>
    Effect.gen(function* () {
      const queue = yield* make({ groupOf: (key) => key })
      const waiting = yield* Effect.forkChild(queue.take())
      yield* TestClock.adjust("1 second")
      yield* queue.add("late")
      expect((yield* Fiber.join(waiting)).key).toBe("late")
    })
  )

  it.effect(
    "brings a failed key again after its time, sooner when it is added, and forgets failures when it succeeds",
    () =>
      Effect.gen(function* () {
        const queue = yield* make({ groupOf: (key) => key })
        yield* queue.add("a")
        yield* queue.take()
        const wait = yield* queue.retry("a")
        expect(queue.idle()).toBe(true)
        yield* TestClock.adjust(Duration.millis(Duration.toMillis(wait) - 1))
        expect(queue.depth()).toBe(0)
        yield* TestClock.adjust("1 millis")
        expect(queue.depth()).toBe(1)
        yield* queue.take()
        yield* queue.retry("a")
        yield* queue.add("a")
        expect(queue.depth()).toBe(1)
        yield* queue.take()
        yield* queue.done("a")
        yield* TestClock.adjust("1 hour")
        expect(queue.depth()).toBe(0)
        yield* queue.add("a")
        yield* queue.take()
        expect(Duration.toMillis(yield* queue.retry("a"))).toBeLessThanOrEqual(Duration.toMillis(firstBackoff) * 1.2)
      })
  )

  it.effect("doubles its waits up to a limit, spread by a fifth", () =>
    Effect.sync(() => {
      const first = Duration.toMillis(firstBackoff)
      const longest = Duration.toMillis(longestBackoff)
      expect([1, 2, 3].map((failures) => Duration.toMillis(backoffOf(failures, 0.5)))).toEqual([
        first,
        first * 2,
        first * 4
      ])
      expect(Duration.toMillis(backoffOf(1, 0))).toBe(first * 0.8)
      expect(Duration.toMillis(backoffOf(1_000_000, 0.999))).toBeLessThanOrEqual(longest * 1.2)
      expect(Duration.toMillis(backoffOf(1_000_000, 0))).toBe(longest * 0.8)
    })
  )
})
