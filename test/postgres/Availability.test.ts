/** The database down, gone in the middle, slow or silent: a typed failure in time, no leaked connection, recovery. */
import { assert, describe, it } from "@effect/vitest"
import * as Deferred from "effect/Deferred"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as Stream from "effect/Stream"
import type { DatabaseFailure, Reason } from "../../src/postgres/DatabaseFailure.ts"
import * as Session from "../../src/postgres/Session.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Transaction from "../../src/postgres/Transaction.ts"
import { query } from "../support/Database.ts"
import { plainDatabase, settingsOf } from "../support/PlainDatabase.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

const statementTimeout = 400
const one = statement("select 1 as one")
const insert = (id: number) => statement("insert into shop.item (id, name) values ($1, $2)", [id, `item ${id}`])

/** A pool of two connections that reaches its database through a proxy. */
const behindProxy = Effect.gen(function* () {
  const database = yield* plainDatabase
  const proxy = yield* TcpProxy.make(database.url)
  const pool = yield* Session.make(settingsOf(proxy.url, { statementTimeout }))
  const enter = statement("select set_config('role', $1, true)", [database.writer])
  const login = new URL(database.url).username
  const backends = query(
    database.superuserUrl,
    "select count(*)::int as n, count(*) filter (where state <> 'idle')::int as busy from pg_stat_activity where usename = $1",
    [login]
  ).pipe(Effect.map((rows) => rows[0] as { readonly n: number; readonly busy: number }))
  /** Resets every connection. A write that meets the reset itself cannot know; from then on nobody is given one. */
  const cutAll = Effect.sync(() => proxy.cut()).pipe(
    Effect.andThen(Effect.sync(() => pool.stats().open).pipe(Effect.tap(() => Effect.yieldNow))),
    Effect.repeat({ until: (open) => open === 0 })
  )
  /** Everything is as it was: the pool serves, nothing is claimed, and nothing is stuck in the server. */
  const recovered = Effect.gen(function* () {
    const results = yield* Effect.all(
      Array.from({ length: 8 }, () => Transaction.bundle(pool, enter, [one])),
      { concurrency: "unbounded" }
    )
    assert.isTrue(results.every((result) => result[0]?.rows[0]?.one === 1))
    assert.deepInclude(pool.stats(), { idle: pool.stats().open, waiting: 0 })
    assert.isAtMost(pool.stats().open, 2)
    // a backend whose client vanished ends by itself as soon as it looks at its socket
    yield* backends.pipe(Effect.repeat({ until: ({ n, busy }) => n <= 2 && busy === 0 }))
  })
  return { database, proxy, pool, enter, recovered, cutAll }
})

const reasonOf = <A, R>(effect: Effect.Effect<A, DatabaseFailure, R>): Effect.Effect<Reason["_tag"], A, R> =>
  Effect.map(Effect.flip(effect), (failure) => failure.reason._tag)

describe("a database that cannot be reached", () => {
  it.live("down from the start, then up", () =>
    Effect.gen(function* () {
      const { proxy, pool, enter, recovered } = yield* behindProxy
      proxy.refuse(true)
      const tags = yield* Effect.all(
        Array.from({ length: 20 }, () => reasonOf(Transaction.bundle(pool, enter, [one]))),
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual([...new Set(tags)], ["Unavailable"])
      assert.strictEqual(yield* reasonOf(Transaction.run(pool, enter, (tx) => tx.query(one))), "Unavailable")
      assert.strictEqual(yield* reasonOf(Stream.runCount(Transaction.stream(pool, enter, one))), "Unavailable")
      proxy.refuse(false)
      yield* recovered
    })
  )

  it.live("gone while connections are idle", () =>
    Effect.gen(function* () {
      const { proxy, pool, enter, recovered, cutAll } = yield* behindProxy
      yield* recovered
      yield* cutAll
      yield* recovered
      yield* cutAll
      proxy.refuse(true)
      assert.strictEqual(yield* reasonOf(Transaction.bundle(pool, enter, [one], "rollback")), "Unavailable")
      proxy.refuse(false)
      yield* recovered
    })
  )

  it.live("gone in the middle of an interactive transaction: nothing is done", () =>
    Effect.gen(function* () {
      const { database, proxy, pool, enter, recovered } = yield* behindProxy
      const tag = yield* reasonOf(
        Transaction.run(pool, enter, (tx) =>
          tx.query(insert(1)).pipe(
            Effect.tap(() => Effect.sync(() => proxy.cut())),
            Effect.andThen(tx.query(insert(2)))
          )
        )
      )
      assert.strictEqual(tag, "Unavailable")
      yield* recovered
      assert.deepStrictEqual(yield* query(database.superuserUrl, "select id from shop.item"), [])
    })
  )

  it.live("gone before COMMIT is answered: unknown, and it was in fact committed", () =>
    Effect.gen(function* () {
      const { database, proxy, pool, enter, recovered, cutAll } = yield* behindProxy
      yield* recovered
      const committed = (id: number) =>
        query(database.superuserUrl, "select id from shop.item where id = $1", [id]).pipe(
          Effect.repeat({ until: (rows) => rows.length === 1 })
        )
      proxy.deafen()
      const bundled = yield* Effect.forkChild(reasonOf(Transaction.bundle(pool, enter, [insert(1)])), {
        startImmediately: true
      })
      yield* committed(1)
      yield* cutAll
      assert.strictEqual(yield* Fiber.join(bundled), "CommitUnknown")
      proxy.resume()
      const interactive = yield* Effect.forkChild(
        reasonOf(
          Transaction.run(pool, enter, (tx) => Effect.tap(tx.query(insert(2)), () => Effect.sync(() => proxy.deafen())))
        )
      )
      yield* committed(2)
      yield* cutAll
      assert.strictEqual(yield* Fiber.join(interactive), "CommitUnknown")
      proxy.resume()
      yield* recovered
    })
  )
})

describe("a database that is silent", () => {
  it.live("each transaction ends in time, by its kind, and the pool recovers", () =>
    Effect.gen(function* () {
      const { proxy, pool, enter, recovered, cutAll } = yield* behindProxy
      yield* recovered
      proxy.stall()
      const tags = yield* Effect.all(
        [reasonOf(Transaction.bundle(pool, enter, [one])), reasonOf(Transaction.bundle(pool, enter, [one], "read"))],
        { concurrency: "unbounded" }
      )
      assert.deepStrictEqual(tags, ["CommitUnknown", "Timeout"])
      // nothing answers, so nothing connects either
      assert.strictEqual(yield* reasonOf(Transaction.run(pool, enter, (tx) => tx.query(one))), "Unavailable")
      yield* cutAll
      proxy.resume()
      yield* recovered
    })
  )

  it.live("in the middle of an interactive transaction and of a stream", () =>
    Effect.gen(function* () {
      const { proxy, pool, enter, recovered, cutAll } = yield* behindProxy
      const tag = yield* reasonOf(
        Transaction.run(pool, enter, (tx) =>
          tx.query(insert(1)).pipe(
            Effect.tap(() => Effect.sync(() => proxy.stall())),
            Effect.andThen(tx.query(insert(2)))
          )
        )
      )
      assert.strictEqual(tag, "Timeout")
      yield* cutAll
      proxy.resume()
      yield* recovered
      const streamed = yield* reasonOf(
        Transaction.stream(pool, enter, statement("select i from generate_series(1, 1000000) i")).pipe(
          Stream.tap(() => Effect.sync(() => proxy.cut())),
          Stream.runCount
        )
      )
      assert.strictEqual(streamed, "Unavailable")
      yield* recovered
    })
  )
})

describe("a pool that is fully taken", () => {
  it.live("refuses in time and loses no place", () =>
    Effect.gen(function* () {
      const { pool, enter, recovered } = yield* behindProxy
      const busy = yield* Deferred.make<void>()
      const taken = yield* Deferred.make<void>()
      let holding = 0
      const hold = Transaction.run(pool, enter, (tx) =>
        tx.query(one).pipe(
          Effect.tap(() => (++holding === 2 ? Deferred.succeed(taken, undefined) : Effect.void)),
          Effect.andThen(Deferred.await(busy))
        )
      )
      const holders = yield* Effect.forEach([1, 2], () => Effect.forkChild(hold))
      yield* Deferred.await(taken)
      const waiting = yield* Effect.forEach([1, 2, 3], () =>
        Effect.forkChild(reasonOf(Transaction.bundle(pool, enter, [one])), { startImmediately: true })
      )
      const leaving = yield* Effect.forkChild(Transaction.bundle(pool, enter, [one]), { startImmediately: true })
      yield* Fiber.interrupt(leaving)
      assert.isTrue(Exit.isFailure(yield* Fiber.await(leaving)))
      for (const fiber of waiting) assert.strictEqual(yield* Fiber.join(fiber), "Unavailable")
      yield* Deferred.succeed(busy, undefined)
      for (const fiber of holders) yield* Fiber.join(fiber)
      yield* recovered
    })
  )

  it.live("a wave of interruptions leaves no place taken", () =>
    Effect.gen(function* () {
      const { pool, enter, recovered } = yield* behindProxy
      for (let wave = 0; wave < 20; wave++) {
        const fibers = yield* Effect.forEach(Array.from({ length: 12 }), (_, i) =>
          Effect.forkChild(
            i % 3 === 0
              ? Transaction.run(pool, enter, (tx) => Effect.andThen(tx.query(one), tx.query(one)))
              : Transaction.bundle(pool, enter, [one]),
            { startImmediately: i % 2 === 0 }
          )
        )
        if (wave % 2 === 0) yield* Effect.yieldNow
        yield* Fiber.interruptAll(fibers)
      }
      yield* recovered
    })
  )
})
