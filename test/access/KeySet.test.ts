import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Fiber } from "effect"
import { TestClock } from "effect/testing"
import { fetchedKeys } from "../../src/access/KeySet.ts"
import { keyServer, makeKey } from "./Issuer.ts"

const timings = {
  maxAge: Duration.minutes(10),
  cooldown: Duration.seconds(30),
  failureCooldown: Duration.seconds(2),
  timeout: Duration.seconds(5)
}

const [first, second] = [await makeKey("ES256", "one"), await makeKey("ES256", "two")]

describe("fetched keys", () => {
  it.effect("are fetched once, by the first question, however many ask at once", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([first])
      const keys = fetchedKeys(server.url, timings)
      assert.strictEqual(server.asked(), 0)
      const answers = yield* Effect.all(
        Array.from({ length: 50 }, () => keys.candidates("ES256", "one")),
        { concurrency: "unbounded" }
      )
      assert.isTrue(answers.every((found) => found.length === 1))
      assert.strictEqual(server.asked(), 1)
    })
  )

  it.effect("an asker who leaves while they are fetched leaves the next one his turn", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([first])
      const keys = fetchedKeys(server.url, timings)
      const leaver = yield* Effect.forkChild(keys.candidates("ES256", "one"), { startImmediately: true })
      const stayer = yield* Effect.forkChild(keys.candidates("ES256", "one"), { startImmediately: true })
      yield* Fiber.interrupt(leaver)
      assert.strictEqual((yield* Fiber.join(stayer)).length, 1)
    })
  )

  it.effect("an unknown key asks again, but not within the cooldown", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([first])
      const keys = fetchedKeys(server.url, timings)
      yield* keys.candidates("ES256", "one")
      for (let n = 0; n < 20; n++) assert.lengthOf(yield* keys.candidates("ES256", `forged-${n}`), 0)
      assert.strictEqual(server.asked(), 1)

      server.publish([first, second])
      yield* TestClock.adjust("30 seconds")
      assert.lengthOf(yield* keys.candidates("ES256", "two"), 1)
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
      assert.strictEqual(server.asked(), 2)
      assert.strictEqual(keys.epoch(), 0)
    })
  )

  it.effect("a withdrawn key is gone after the age of the keys, and what it vouched for is to be judged again", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([first, second])
      const keys = fetchedKeys(server.url, timings)
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
      server.publish([second])
      yield* TestClock.adjust("599 seconds")
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
      yield* TestClock.adjust("1 second")
      assert.isTrue(keys.isStale(600_000))
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 0)
      assert.strictEqual(keys.epoch(), 1)
      assert.isFalse(keys.isStale(600_000))
    })
  )

  it.effect("an issuer that is down denies, is asked again after a pause, and recovers", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      yield* server.down
      const keys = fetchedKeys(server.url, timings)
      assert.strictEqual((yield* Effect.flip(keys.candidates("ES256", "one")))._tag, "KeysUnavailable")
      yield* server.up
      server.publish([first])
      // within the pause the failure is the answer, and nobody is asked
      assert.strictEqual((yield* Effect.flip(keys.candidates("ES256", "one")))._tag, "KeysUnavailable")
      assert.strictEqual(server.asked(), 0)
      yield* TestClock.adjust("2 seconds")
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
    })
  )

  it.effect("known keys are believed while they are fresh, and no longer when the issuer is down after that", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([first])
      const keys = fetchedKeys(server.url, timings)
      yield* keys.candidates("ES256", "one")
      yield* server.down
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual((yield* Effect.flip(keys.candidates("ES256", "one")))._tag, "KeysUnavailable")
      // keeping fresh in passing never fails, and does not throw the old set away
      yield* TestClock.adjust("2 seconds")
      yield* keys.keepFresh
      yield* server.up
      server.publish([first])
      yield* TestClock.adjust("2 seconds")
      assert.lengthOf(yield* keys.candidates("ES256", "one"), 1)
      assert.strictEqual(keys.epoch(), 0)
    })
  )

  it.effect("what is not a key set denies", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      const answers: ReadonlyArray<readonly [number, string]> = [
        [500, ""],
        [404, '{"keys":[]}'],
        [200, ""],
        [200, "<html>"],
        [200, "[]"],
        [200, "null"],
        [200, '{"keys":{}}'],
        [200, `{"keys":[],"pad":"${"x".repeat(1_100_000)}"}`]
      ]
      for (const [status, body] of answers) {
        server.answer(status, body)
        const error = yield* Effect.flip(fetchedKeys(server.url, timings).candidates("ES256", "one"))
        assert.strictEqual(error._tag, "KeysUnavailable", body.slice(0, 20))
      }
      assert.strictEqual(server.asked(), answers.length)
    })
  )

  it.effect("a redirect is not followed", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      const other = yield* keyServer
      other.publish([first])
      server.redirect(other.url)
      const error = yield* Effect.flip(fetchedKeys(server.url, timings).candidates("ES256", "one"))
      assert.strictEqual(error._tag, "KeysUnavailable")
      assert.strictEqual(other.asked(), 0)
    })
  )

  it.effect("an issuer that never answers is given up", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.hang()
      const keys = fetchedKeys(server.url, { ...timings, timeout: Duration.millis(20) })
      assert.strictEqual((yield* Effect.flip(keys.candidates("ES256", "one")))._tag, "KeysUnavailable")
    })
  )

  it.effect("at most eight keys are tried for a token that names none", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish(yield* Effect.promise(() => Promise.all(Array.from({ length: 20 }, () => makeKey("ES256")))))
      assert.lengthOf(yield* fetchedKeys(server.url, timings).candidates("ES256", undefined), 8)
    })
  )
})
