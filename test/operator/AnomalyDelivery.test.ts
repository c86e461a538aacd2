/**
 * Alerts on their way to a receiver that fails, hangs, answers 500 or is gone: the same id and body each time, signed anew,
 * until it takes them or they are given up. Time is what the test says it is.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer, Logger, Redacted } from "effect"
import { expect } from "vitest"
import { answerWithin, delayAfter, deliver, giveUpStranded } from "../../src/operator/anomaly/AnomalyDelivery.ts"
import { scan } from "../../src/operator/anomaly/AnomalyScanner.ts"
import type { Endpoint } from "../../src/operator/anomaly/AnomalySettings.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { Database, query, withDatabase } from "../support/Database.ts"
import { chainIn, hourAgo, minutes, ruleOf, wrote } from "./AnomalyWorld.ts"
import { isSigned, receiver } from "./Receiver.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))
const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
const older = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD7wFvqXv3Y1A="
const giveUp = 24 * 60 * minutes(1)

let counter = 0
const endpointAt = (url: string, more: Partial<Endpoint> = {}): Endpoint => ({
  name: `receiver-${counter++}`,
  url,
  urlHash: url,
  secrets: [Redacted.make(secret)],
  severities: ["info", "warning", "critical"],
  ...more
})

/** Raises one alert for these endpoints, at a time; answers its id. */
const raised = Effect.fnUntraced(function* (endpoints: ReadonlyArray<Endpoint>, now: number, severity = "info") {
  const database = yield* Database
  const chain = yield* chainIn(database, `hooked${counter++}`)
  yield* wrote(database, [{ chain, at: hourAgo(2) }])
  const { alerts } = yield* scan({
    rules: [ruleOf({ match: { chains: [chain] }, threshold: 1, severity })],
    endpoints,
    now
  })
  expect(alerts.length).toBe(1)
  return { id: String(alerts[0]), chain }
})

const stateOf = (id: string, endpoint: Endpoint) =>
  Effect.flatMap(Database, (database) =>
    query(
      database.operatorUrl,
      `select attempts, status, error, delivered_at is not null as delivered, given_up_at is not null as given_up, next_attempt_at as next
       from platform.anomaly_deliveries where alert_id = $1::uuid and endpoint = $2`,
      [id, endpoint.name]
    )
  ).pipe(Effect.map(([row]) => row ?? {}))

/** What is said at level Error while an effect runs. */
const errorsOf = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
  Effect.suspend(() => {
    const said: Array<string> = []
    const listening = Logger.layer([
      Logger.make(({ logLevel, message }) => {
        if (logLevel === "Error") said.push(String(message))
      })
    ])
    return Effect.as(Effect.provide(effect, listening), said)
  })

layer(withDatabase(services), { excludeTestServices: true })("delivery of alerts", (it) => {
  const start = hourAgo(0)

  it.effect("tells the whole alert, signed with every secret", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver({ status: 204 })
      const endpoint = endpointAt(url, { secrets: [Redacted.make(secret), Redacted.make(older)] })
      const { chain, id } = yield* raised([endpoint], start)
      expect(yield* deliver(endpoint, { giveUp, now: start })).toBe(1)
      const [hook] = received
      expect(hook?.headers).toMatchObject({
        "content-type": "application/json",
        "webhook-id": expect.stringMatching(/^msg_[0-9a-f]{32}$/u),
        "webhook-timestamp": String(start / 1000)
      })
      expect(received.map((one) => [isSigned(one, secret), isSigned(one, older)])).toEqual([[true, true]])
      expect(isSigned({ ...(hook as (typeof received)[0]), body: `${hook?.body} ` }, secret)).toBe(false)
      expect(JSON.parse(hook?.body ?? "")).toMatchObject({
        type: "audit.anomaly",
        timestamp: new Date(start).toISOString().replace("Z", "000Z"),
        data: {
          id,
          rule: "probe",
          severity: "info",
          chain,
          actor: "dev/ann",
          count: 1,
          threshold: 1,
          entries: [{ chain }]
        }
      })
      expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 1, status: 204, error: null, delivered: true })
      expect(yield* deliver(endpoint, { giveUp, now: start + giveUp })).toBe(0)
      expect(received.length).toBe(1)
    })
  )

  it.effect("tells again what was told anew while it was on its way, and not that it was taken", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const { received, url } = yield* receiver({ status: 204 }, { status: 204 })
      const endpoint = endpointAt(url)
      const { id } = yield* raised([endpoint], start)
      const real = yield* Fence
      let calls = 0
      // between the claim, which is the first transaction of a round, and its end, which is the second
      const between = Fence.of({
        ...real,
        transaction: (f) =>
          Effect.andThen(
            Effect.suspend(() => {
              calls += 1
              return calls === 2
                ? Effect.orDie(
                    query(
                      database.operatorUrl,
                      "update platform.anomaly_deliveries set attempts = 0, next_attempt_at = $2::timestamptz where alert_id = $1::uuid",
                      [id, new Date(start + 1_000).toISOString()]
                    )
                  )
                : Effect.void
            }),
            real.transaction(f)
          )
      })
      expect(yield* deliver(endpoint, { giveUp, now: start }).pipe(Effect.provideService(Fence, between))).toBe(1)
      expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 0, delivered: false })
      expect(yield* deliver(endpoint, { giveUp, now: start + 1_000 })).toBe(1)
      expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 1, delivered: true })
      expect(received.length).toBe(2)
    })
  )

  it.effect(
    "repeats the same id and body, signed anew, while the receiver answers 500, resets, redirects or hangs",
    () =>
      Effect.gen(function* () {
        const { received, url } = yield* receiver(
          { status: 500 },
          "reset",
          { status: 307, headers: { location: "http://127.0.0.1:1/" } },
          "hang",
          { status: 200 }
        )
        const endpoint = endpointAt(url)
        const { id } = yield* raised([endpoint], start)
        let now = start
        const errors = ["answered 500", /./u, "answered 307", "no answer within 200 ms"]
        for (const [index, error] of errors.entries()) {
          expect(yield* deliver(endpoint, { giveUp, now, within: 200 })).toBe(1)
          const state = yield* stateOf(id, endpoint)
          expect(state).toMatchObject({ attempts: index + 1, delivered: false, given_up: false })
          expect(state.error).toMatch(error)
          // doubling from five seconds, half of it by chance
          const delay = (state.next as Date).getTime() - now
          expect(delay).toBeGreaterThanOrEqual(2_500 * 2 ** index)
          expect(delay).toBeLessThanOrEqual(5_000 * 2 ** index)
          expect(yield* deliver(endpoint, { giveUp, now: now + delay - 1 })).toBe(0)
          now += delay
        }
        expect(yield* deliver(endpoint, { giveUp, now })).toBe(1)
        expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 5, status: 200, delivered: true })
        expect(received.length).toBe(5)
        expect(new Set(received.map(({ headers }) => headers["webhook-id"])).size).toBe(1)
        expect(new Set(received.map(({ body }) => body)).size).toBe(1)
        expect(received.every((one) => isSigned(one, secret))).toBe(true)
        const stamps = received.map(({ headers }) => Number(headers["webhook-timestamp"]))
        expect(stamps).toEqual([...stamps].sort((a, b) => a - b))
        expect(stamps.at(-1)).toBe(Math.floor(now / 1000))
      })
  )

  it.effect("goes on after a restart: killed between the alert and its delivery, before the answer, and after it", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver({ status: 200 })
      const endpoint = endpointAt(url)
      // the scanner is gone after its commit: nothing in memory leads to the alert
      const { id } = yield* raised([endpoint], start)
      expect(received.length).toBe(0)
      // killed when the attempt was claimed and made, and before its answer was kept
      const real = yield* Fence
      let transactions = 0
      const dying = Fence.of({
        ...real,
        transaction: (f) =>
          Effect.suspend(() => {
            transactions += 1
            return transactions > 1 ? Effect.fail(failure("Unavailable", new Error("killed"))) : real.transaction(f)
          })
      })
      yield* Effect.flip(Effect.provideService(deliver(endpoint, { giveUp, now: start }), Fence, dying))
      expect(received.length).toBe(1)
      expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 1, delivered: false })
      // not while the attempt may be somebody's, and then again, under the same id
      expect(yield* deliver(endpoint, { giveUp, now: start + answerWithin })).toBe(0)
      expect(yield* deliver(endpoint, { giveUp, now: start + minutes(3) })).toBe(1)
      expect(yield* stateOf(id, endpoint)).toMatchObject({ attempts: 2, delivered: true })
      expect(new Set(received.map(({ headers }) => headers["webhook-id"])).size).toBe(1)
      expect(received.length).toBe(2)
    })
  )

  it.effect("gives up loudly when the time is over, after a last attempt at its end", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver({ status: 500 })
      const endpoint = endpointAt(url)
      const { id } = yield* raised([endpoint], start)
      let now = start
      let attempts = 0
      for (;;) {
        const said = yield* errorsOf(deliver(endpoint, { giveUp, now }))
        attempts += 1
        const state = yield* stateOf(id, endpoint)
        if (state.given_up === true) {
          expect(said).toEqual([
            `alert ${id} is given up for ${endpoint.name} after ${attempts} attempts: answered 500`
          ])
          expect(now).toBe(start + giveUp)
          break
        }
        expect(said).toEqual([])
        now = (state.next as Date).getTime()
      }
      expect(attempts).toBeGreaterThan(24)
      expect(received.length).toBe(attempts)
      expect(yield* deliver(endpoint, { giveUp, now: now + giveUp })).toBe(0)
    })
  )

  it.effect("waits as long as the receiver asks, in seconds or until a date", () =>
    Effect.gen(function* () {
      const date = new Date(start + minutes(180)).toUTCString()
      const { url } = yield* receiver(
        { status: 503, headers: { "retry-after": "7200" } },
        { status: 429, headers: { "retry-after": date } },
        { status: 200 }
      )
      const endpoint = endpointAt(url)
      const { id } = yield* raised([endpoint], start)
      yield* deliver(endpoint, { giveUp, now: start })
      expect((yield* stateOf(id, endpoint)).next).toEqual(new Date(start + minutes(120)))
      yield* deliver(endpoint, { giveUp, now: start + minutes(120) })
      expect((yield* stateOf(id, endpoint)).next).toEqual(new Date(start + minutes(180)))
    })
  )

  it.effect("tells nothing more to an endpoint that is gone, and something again to another address", () =>
    Effect.gen(function* () {
      const { received, url } = yield* receiver({ status: 410 })
      const endpoint = endpointAt(url)
      const first = yield* raised([endpoint], start)
      const second = yield* raised([endpoint], start)
      const said = yield* errorsOf(deliver(endpoint, { giveUp, now: start }))
      expect(said.length).toBe(2)
      expect(said[0]).toContain("the endpoint is gone (410)")
      for (const { id } of [first, second]) {
        expect(yield* stateOf(id, endpoint)).toMatchObject({ given_up: true, delivered: false })
      }
      const third = yield* raised([endpoint], start)
      expect(yield* stateOf(third.id, endpoint)).toEqual({})
      const before = received.length
      expect(yield* deliver(endpoint, { giveUp, now: start + minutes(60) })).toBe(0)
      expect(received.length).toBe(before)
      const moved = { ...endpoint, urlHash: "another" }
      const fourth = yield* raised([moved], start)
      expect(yield* deliver(moved, { giveUp, now: start })).toBe(1)
      expect(yield* stateOf(fourth.id, moved)).toMatchObject({ attempts: 1 })
    })
  )

  it.effect("keeps endpoints apart: each has its own state, and only the severities that it wants", () =>
    Effect.gen(function* () {
      const good = yield* receiver({ status: 200 })
      const bad = yield* receiver("hang")
      const picky = endpointAt(good.url, { severities: ["critical"] })
      const [one, other] = [endpointAt(good.url), endpointAt(bad.url)]
      const { id } = yield* raised([one, other, picky], start, "warning")
      yield* Effect.all([one, other, picky].map((endpoint) => deliver(endpoint, { giveUp, now: start, within: 200 })))
      expect(yield* stateOf(id, one)).toMatchObject({ attempts: 1, delivered: true })
      expect(yield* stateOf(id, other)).toMatchObject({ attempts: 1, delivered: false })
      expect(yield* stateOf(id, picky)).toEqual({})
      // one that nobody configures any more is waited for as long as any
      yield* giveUpStranded([one.name], { giveUp, now: start + giveUp - 1 })
      expect(yield* stateOf(id, other)).toMatchObject({ given_up: false })
      const said = yield* errorsOf(giveUpStranded([one.name], { giveUp, now: start + giveUp }))
      expect(said).toContain(`alert ${id} is given up for ${other.name}: the endpoint is not configured`)
      expect(yield* stateOf(id, other)).toMatchObject({ given_up: true })
    })
  )

  it.effect("delays grow to an hour, by chance between half and all of it", () =>
    Effect.sync(() => {
      expect([1, 2, 3, 11, 50].map((attempts) => delayAfter(attempts, 1))).toEqual([
        5_000, 10_000, 20_000, 3_600_000, 3_600_000
      ])
      expect(delayAfter(1, 0)).toBe(2_500)
    })
  )
})
