/** How often an object may tell something of itself. */
import { Duration } from "effect"
import { describe, expect, it } from "vitest"
import { burst, makeBudgets, refill } from "../../src/kubernetes/Events.ts"

const every = Duration.toMillis(refill)

/** How many of so many at one time are told. */
const told = (mayTell: ReturnType<typeof makeBudgets>, key: string, now: number, count = burst + 5): number =>
  Array.from({ length: count }, () => mayTell(key, now)).filter((one) => one).length

describe("the budget of an object's Events", () => {
  it("is a burst, and then one at a time", () => {
    const mayTell = makeBudgets()
    expect(told(mayTell, "a", 0)).toBe(burst)
    expect(told(mayTell, "a", every - 1)).toBe(0)
    expect(told(mayTell, "a", every)).toBe(1)
    expect(told(mayTell, "a", 2 * every - 1)).toBe(0)
    expect(told(mayTell, "a", 4 * every)).toBe(3)
  })

  it("fills up to a burst and no further", () => {
    const mayTell = makeBudgets()
    told(mayTell, "a", 0)
    expect(told(mayTell, "a", 1_000 * every)).toBe(burst)
  })

  it("is each object's own", () => {
    const mayTell = makeBudgets()
    told(mayTell, "a", 0)
    expect(told(mayTell, "b", 0)).toBe(burst)
  })

  it("of those that told nothing for longest is forgotten first", () => {
    const mayTell = makeBudgets()
    told(mayTell, "quiet", 0)
    told(mayTell, "loud", 0)
    for (let n = 0; n < 9_999; n++) {
      mayTell(`other ${n}`, 0)
      mayTell("loud", 0)
    }
    expect(mayTell("loud", 0)).toBe(false)
    expect(mayTell("quiet", 0)).toBe(true)
  })
})
