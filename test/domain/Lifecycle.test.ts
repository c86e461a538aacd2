/** What a lifecycle may say, and what it is told for people. */
import { describe, expect, it } from "vitest"
import { type Lifecycle, lifecycleFaults, lifecycleText } from "../../src/domain/Lifecycle.ts"

const [early, late] = ["2027-01-31T12:00:00Z", "2027-06-30T12:00:00Z"]
const faultsOf = (lifecycle: Lifecycle) =>
  lifecycleFaults(lifecycle, "v1", ["lifecycle"]).map((one) => `${one.pointer}: ${one.detail}`)

describe("a lifecycle", () => {
  it("is in order", () => {
    for (const one of [
      { stage: "active" },
      { stage: "deprecated", deprecatedAt: early },
      { stage: "sunset", deprecatedAt: early, sunsetAt: early, successor: "v2" },
      { stage: "sunset", deprecatedAt: "2028-02-29T23:59:59Z", sunsetAt: "2028-03-01T00:00:00Z" }
    ] as const) {
      expect(faultsOf(one), JSON.stringify(one)).toEqual([])
    }
  })

  it("is told what is wrong with it, all at once", () => {
    expect(faultsOf({ stage: "active", deprecatedAt: early, sunsetAt: late, successor: "v1" })).toEqual([
      "/lifecycle/deprecatedAt: deprecatedAt is said where stage is deprecated or sunset, and only there",
      "/lifecycle/sunsetAt: sunsetAt is said where stage is sunset, and only there",
      "/lifecycle/successor: a version that is in use has no successor",
      "/lifecycle/successor: a version does not succeed itself"
    ])
    expect(faultsOf({ stage: "sunset", deprecatedAt: late, sunsetAt: early })).toEqual([
      "/lifecycle/sunsetAt: sunsetAt is before deprecatedAt"
    ])
    for (const none of [
      "2027-02-29T12:00:00Z",
      "2027-04-31T12:00:00Z",
      "2027-01-31T24:00:00Z",
      "2027-13-01T00:00:00Z"
    ]) {
      expect(faultsOf({ stage: "deprecated", deprecatedAt: none }), none).toEqual([
        "/lifecycle/deprecatedAt: there is no such time"
      ])
    }
  })

  it("is told to people", () => {
    expect(lifecycleText({ stage: "active" })).toBe("")
    expect(lifecycleText({ stage: "deprecated", deprecatedAt: early })).toBe(`deprecated at ${early}`)
    expect(lifecycleText({ stage: "sunset", deprecatedAt: early, sunsetAt: late, successor: "v2" })).toBe(
      `deprecated at ${early}, 410 from ${late}, succeeded by v2`
    )
  })
})
