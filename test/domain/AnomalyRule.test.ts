/** Rules as values: what they count, for whom, when a window holds too much; and working hours, as clocks show them. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  type AnomalyRule,
  builtinRules,
  decodeRule,
  decodeRules,
  type Fact,
  groupOf,
  hourMillis,
  matches,
  minuteMillis,
  ruleKey,
  windowMillis
} from "../../src/domain/AnomalyRule.ts"
import { SlidingWindows } from "../../src/domain/AnomalyWindow.ts"
import { decodeResource } from "../../src/domain/Resource.ts"
import { idleSpans, isWorking, type WorkingHours } from "../../src/domain/WorkingHours.ts"

const rule = (value: object): AnomalyRule => {
  const decoded = decodeRule({
    name: "probe",
    title: "A probe",
    severity: "info",
    threshold: 3,
    window: "5m",
    ...value
  })
  if ("faults" in decoded) throw new Error(JSON.stringify(decoded.faults))
  return decoded.value
}

const start = Date.parse("2026-11-24T10:00:00Z")
const fact = (minute: number, more: Partial<Fact> = {}): Fact => ({
  chain: "acme/shop/eu",
  actor: "dev/ann",
  address: "",
  action: "read",
  outcome: "ok",
  minute: start + minute * minuteMillis,
  entries: 1,
  records: 1,
  ...more
})
const none = new Map<string, WorkingHours>()

/** What a rule finds, as [minute after the start, total]. */
const found = (one: AnomalyRule, facts: ReadonlyArray<Fact>) => {
  const windows = new SlidingWindows(one, none)
  return [...facts.flatMap((each) => windows.add(each)), ...windows.end()].map(({ minute, total }) => [
    (minute - start) / minuteMillis,
    total
  ])
}

describe("a rule", () => {
  it("counts what it names, and everything where it names nothing", () => {
    const matching = (match: object, more: Partial<Fact> = {}) => matches(rule({ match }), fact(0, more), none)
    expect(matching({})).toBe(true)
    expect(matching({ actions: ["read", "create"] })).toBe(true)
    expect(matching({ actions: ["create"] })).toBe(false)
    expect(matching({ outcomes: ["denied"] })).toBe(false)
    expect(matching({ chains: ["acme/*"] })).toBe(true)
    expect(matching({ chains: ["acme/shop"] })).toBe(false)
    expect(matching({ actors: ["dev/*"], exceptActors: ["dev/robot*"] })).toBe(true)
    expect(matching({ actors: ["dev/*"], exceptActors: ["dev/robot*"] }, { actor: "dev/robot-1" })).toBe(false)
    expect(matching({}, { action: "operator.anomaly" })).toBe(false)
  })

  it("groups by what it says, and keeps its counts under its name and what it is", () => {
    const one = fact(0, { address: "10.0.0.1" })
    expect(groupOf(rule({}), one)).toEqual({ chain: "acme/shop/eu", actor: "dev/ann", address: "" })
    expect(groupOf(rule({ groupBy: ["address"] }), one)).toEqual({ chain: "", actor: "", address: "10.0.0.1" })
    expect(ruleKey(rule({}))).toMatch(/^probe@[0-9a-f]{16}$/u)
    expect(ruleKey(rule({}))).toBe(ruleKey(rule({})))
    expect(ruleKey(rule({ threshold: 4 }))).not.toBe(ruleKey(rule({})))
  })

  it("of the built-in ones keeps what a file does not change", () => {
    const decoded = decodeRules([{ name: "bulk_reader", threshold: 7 }])
    expect("rules" in decoded && decoded.rules.find(({ name }) => name === "bulk_reader")).toEqual({
      ...builtinRules[0],
      threshold: 7
    })
  })
})

describe("a window", () => {
  const one = rule({ window: "5m", threshold: 3 })

  it("raises at its threshold and not one below", () => {
    expect(found(one, [fact(0), fact(1)])).toEqual([])
    expect(found(one, [fact(0), fact(1), fact(2)])).toEqual([[2, 3]])
    expect(found(one, [fact(0, { entries: 2 }), fact(4)])).toEqual([[4, 3]])
    expect(found(one, [fact(0, { entries: 2 }), fact(5)])).toEqual([])
    expect(found(rule({ count: "records" }), [fact(0, { records: 2 }), fact(4, { records: 1 })])).toEqual([[4, 3]])
  })

  it("slides over the end of an hour, and raises once in each", () => {
    const busy = [...Array(10).keys()].map((index) => fact(56 + index))
    expect(found(one, busy)).toEqual([
      [58, 3],
      [60, 5]
    ])
  })

  it("is counted whole before it is judged, whatever the order within a minute", () => {
    expect(found(one, [fact(3, { action: "read" }), fact(3, { action: "create", entries: 4 })])).toEqual([[3, 5]])
  })

  it("finds what a plain look at every minute finds", () => {
    const shape = fc.record({
      width: fc.integer({ min: 1, max: 90 }),
      threshold: fc.integer({ min: 1, max: 12 }),
      at: fc.array(
        fc.tuple(fc.integer({ min: 0, max: 400 }), fc.integer({ min: 1, max: 4 }), fc.constantFrom("a", "b")),
        {
          maxLength: 60
        }
      )
    })
    fc.assert(
      fc.property(shape, ({ at, threshold, width }) => {
        const each = rule({ window: `${width}m`, threshold })
        const facts = at
          .map(([minute, entries, actor]) => fact(minute, { entries, actor: `dev/${actor}` }))
          .sort((a, b) => a.minute - b.minute)
        const expected: Array<string> = []
        for (const actor of ["dev/a", "dev/b"]) {
          const hours = new Set<number>()
          for (const minute of new Set(facts.filter((one) => one.actor === actor).map((one) => one.minute))) {
            const total = facts
              .filter((one) => one.actor === actor && one.minute <= minute && one.minute > minute - windowMillis(each))
              .reduce((sum, { entries }) => sum + entries, 0)
            const hour = Math.floor(minute / hourMillis)
            if (total >= threshold && !hours.has(hour)) {
              hours.add(hour)
              expected.push(`${actor} ${minute} ${total}`)
            }
          }
        }
        const windows = new SlidingWindows(each, none)
        const got = [...facts.flatMap((one) => windows.add(one)), ...windows.end()]
        expect(got.map(({ actor, minute, total }) => `${actor} ${minute} ${total}`).sort()).toEqual(expected.sort())
      })
    )
  })
})

describe("working hours", () => {
  const berlin: WorkingHours = {
    timeZone: "Europe/Berlin",
    days: ["mon", "tue", "wed", "thu", "fri"],
    from: "09:00",
    to: "17:00"
  }
  const at = (time: string, hours = berlin) => isWorking(hours, Date.parse(time))

  it("are those of the wall clock, in winter and in summer", () => {
    // Friday before and Monday after clocks go forward, 2026-03-29
    expect([
      at("2026-03-27T08:00:00Z"),
      at("2026-03-27T07:59:00Z"),
      at("2026-03-27T15:59:00Z"),
      at("2026-03-27T16:00:00Z")
    ]).toEqual([true, false, true, false])
    expect([
      at("2026-03-30T07:00:00Z"),
      at("2026-03-30T06:59:00Z"),
      at("2026-03-30T14:59:00Z"),
      at("2026-03-30T15:00:00Z")
    ]).toEqual([true, false, true, false])
    // and when they go back, 2026-10-25
    expect([at("2026-10-23T07:00:00Z"), at("2026-10-26T07:00:00Z"), at("2026-10-26T08:00:00Z")]).toEqual([
      true,
      false,
      true
    ])
  })

  it("hold on the days themselves on which clocks change", () => {
    const sundays: WorkingHours = { ...berlin, days: ["sun"], from: "01:30", to: "03:30" }
    // 02:00 to 03:00 is not there in spring: half an hour before it and half an hour after
    expect(
      ["00:29", "00:30", "00:59", "01:00", "01:29", "01:30"].map((time) => at(`2026-03-29T${time}:00Z`, sundays))
    ).toEqual([false, true, true, true, true, false])
    // and is there twice in autumn
    expect(["23:29", "23:30"].map((time) => at(`2026-10-24T${time}:00Z`, sundays))).toEqual([false, true])
    expect(["00:59", "01:59", "02:29", "02:30"].map((time) => at(`2026-10-25T${time}:00Z`, sundays))).toEqual([
      true,
      true,
      true,
      false
    ])
  })

  it("know the day there, and nights that end on the day after", () => {
    const auckland: WorkingHours = { timeZone: "Pacific/Auckland", days: ["mon"], from: "00:00", to: "23:59" }
    expect([at("2026-11-22T10:59:00Z", auckland), at("2026-11-22T11:00:00Z", auckland)]).toEqual([false, true])
    const night: WorkingHours = { timeZone: "UTC", days: ["fri"], from: "22:00", to: "06:00" }
    expect(
      [
        "2026-11-27T21:59:00Z",
        "2026-11-27T22:00:00Z",
        "2026-11-28T05:59:00Z",
        "2026-11-28T06:00:00Z",
        "2026-11-27T05:00:00Z"
      ].map((time) => at(time, night))
    ).toEqual([false, true, true, false, false])
  })

  it("leave spans between them, to the minute, on days on which clocks change too", () => {
    const from = Date.parse("2026-10-24T12:00:00Z")
    const to = Date.parse("2026-10-26T12:00:00Z")
    for (const hours of [berlin, { ...berlin, days: ["sun"], from: "22:00", to: "02:30" } satisfies WorkingHours]) {
      const spans = idleSpans(hours, from, to)
      for (let minute = from; minute < to; minute += minuteMillis) {
        const isIdle = spans.some((span) => minute >= span.from && minute < span.to)
        expect(isIdle).toBe(!isWorking(hours, minute))
      }
    }
    expect(idleSpans(berlin, from, to)).toEqual([{ from, to: Date.parse("2026-10-26T08:00:00Z") }])
  })

  it("are part of an organisation, and refused where they cannot be", () => {
    const organisation = (workingHours: unknown) =>
      decodeResource({
        apiVersion: "velocity.sh/v1",
        kind: "Organisation",
        metadata: { name: "acme" },
        spec: { org: "acme", workingHours }
      })
    expect(organisation(berlin)).toMatchObject({ resource: { spec: { workingHours: berlin } } })
    const faults = (value: object) => {
      const decoded = organisation({ ...berlin, ...value })
      return "faults" in decoded ? decoded.faults.map(({ detail, pointer }) => `${pointer} ${detail}`) : []
    }
    expect(faults({ timeZone: "Europe/Atlantis" })).toEqual([
      "/spec/workingHours/timeZone must be an IANA time zone, such as Europe/Berlin"
    ])
    expect(faults({ timeZone: "+02:00" }).length).toBe(1)
    expect(faults({ days: ["monday"] }).length).toBe(1)
    expect(faults({ from: "9:00" }).length).toBe(1)
    expect(faults({ from: "17:00" })).toEqual(["/spec/workingHours from and to must differ"])
  })

  it("count only what was done outside them, and nothing where none are told", () => {
    const after = rule({ hours: "outside_working_hours" })
    const hours = new Map([["acme", berlin]])
    const evening = { minute: Date.parse("2026-11-24T16:00:00Z") }
    expect(matches(after, fact(0, evening), hours)).toBe(true)
    expect(matches(after, fact(0), hours)).toBe(false)
    expect(matches(after, fact(0, { ...evening, chain: "other/shop/eu" }), hours)).toBe(false)
    expect(matches(after, fact(0, { ...evening, chain: "platform" }), hours)).toBe(false)
  })
})
