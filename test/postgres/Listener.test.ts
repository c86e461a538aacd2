/** LISTEN on its own connection: what is said is heard, and every reconnection says so. */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Queue from "effect/Queue"
import * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { type Heard, Listener } from "../../src/postgres/Listener.ts"
import { query } from "../support/Database.ts"
import { plainDatabase } from "../support/PlainDatabase.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

const channel = "velocity_registry"
const reconnected: Heard = { _tag: "Reconnected" }
const notified = (payload: string): Heard => ({ _tag: "Notified", payload })

/** A listener through a proxy, and what it hears. */
const listening = Effect.gen(function* () {
  const database = yield* plainDatabase
  const proxy = yield* TcpProxy.make(database.url)
  const heard = yield* Queue.unbounded<Heard>()
  const fiber = yield* Effect.forkScoped(
    Effect.gen(function* () {
      const listener = yield* Listener
      yield* Stream.runForEach(listener.listen(channel), (one) => Queue.offer(heard, one))
    }).pipe(Effect.provide(Listener.layerOf(Redacted.make(proxy.url))))
  )
  const notify = (payload: string) => query(database.superuserUrl, "select pg_notify($1, $2)", [channel, payload])
  return { database, proxy, heard, notify, fiber }
})

describe("Listener", () => {
  it.live("says first that it listens, then what is said, in order", () =>
    Effect.gen(function* () {
      const { heard, notify } = yield* listening
      assert.deepStrictEqual(yield* Queue.take(heard), reconnected)
      for (const payload of ["def:a/b/c/d/v1", "", "émoji 🐘", "x".repeat(7999)]) {
        yield* notify(payload)
        assert.deepStrictEqual(yield* Queue.take(heard), notified(payload))
      }
    })
  )

  it.live("connects again after its connection is cut, its backend killed, and its server away for a while", () =>
    Effect.gen(function* () {
      const { database, proxy, heard, notify } = yield* listening
      assert.deepStrictEqual(yield* Queue.take(heard), reconnected)
      proxy.cut()
      assert.deepStrictEqual(yield* Queue.take(heard), reconnected)
      yield* query(
        database.superuserUrl,
        "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'velocity-listener' and datname = current_database()"
      )
      assert.deepStrictEqual(yield* Queue.take(heard), reconnected)
      proxy.refuse(true)
      proxy.cut()
      // what is said meanwhile is lost, which is why `Reconnected` means: read again
      yield* notify("lost")
      proxy.refuse(false)
      assert.deepStrictEqual(yield* Queue.take(heard), reconnected)
      yield* notify("heard")
      assert.deepStrictEqual(yield* Queue.take(heard), notified("heard"))
      assert.strictEqual(proxy.open(), 1)
    })
  )

  it.live("gives its connection back when nobody listens any more", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const proxy = yield* TcpProxy.make(database.url)
      const first = yield* Effect.gen(function* () {
        const listener = yield* Listener
        return yield* Stream.runCollect(Stream.take(listener.listen(channel), 1))
      }).pipe(Effect.provide(Listener.layerOf(Redacted.make(proxy.url))))
      assert.deepStrictEqual(first, [reconnected])
      yield* Effect.sync(() => proxy.open()).pipe(
        Effect.tap(() => Effect.yieldNow),
        Effect.repeat({ until: (open) => open === 0 })
      )
    })
  )
})
