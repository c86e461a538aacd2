/**
 * What a transaction answers is true, whatever happens to its connection: an acknowledged write is there, a refused one
 * is not, and only what is said to be unknown may be either. Random transactions under random faults; a failing case
 * prints its seed.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Cause from "effect/Cause"
import * as Effect from "effect/Effect"
import * as Exit from "effect/Exit"
import * as Fiber from "effect/Fiber"
import * as fc from "fast-check"
import { DatabaseFailure } from "../../src/postgres/DatabaseFailure.ts"
import * as Session from "../../src/postgres/Session.ts"
import { type Statement, statement } from "../../src/postgres/Statement.ts"
import * as Transaction from "../../src/postgres/Transaction.ts"
import { connect, query } from "../support/Database.ts"
import { plainDatabase, settingsOf } from "../support/PlainDatabase.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

type Shape = "bundle" | "run" | "twice" | "finish" | "dry" | "error" | "undone"
type Fault = "none" | "kill" | "cut" | "deaf" | "interrupt"

const step = fc.record({
  shape: fc.constantFrom<Shape>("bundle", "run", "twice", "finish", "dry", "error", "undone"),
  fault: fc.oneof(
    { weight: 3, arbitrary: fc.constant<Fault>("none") },
    { weight: 2, arbitrary: fc.constantFrom<Fault>("kill", "cut", "deaf", "interrupt") }
  ),
  /** How many turns of the event loop the fault waits. */
  after: fc.nat({ max: 12 })
})

const insert = (id: number) => statement("insert into shop.item (id, name) values ($1, $2)", [id, `item ${id}`])
const select = statement("select count(*) from shop.item")
const broken = statement("select 1 / 0")

const transact = (
  pool: Session.SessionPool,
  enter: Statement,
  shape: Shape,
  id: number
): Effect.Effect<unknown, DatabaseFailure | "undone"> => {
  switch (shape) {
    case "bundle":
      return Transaction.bundle(pool, enter, [insert(id), select])
    case "run":
      return Transaction.run(pool, enter, (tx) => tx.query(insert(id)))
    case "twice":
      return Transaction.run(pool, enter, (tx) => Effect.andThen(tx.query(select), tx.query(insert(id))))
    case "finish":
      return Transaction.run(pool, enter, (tx) => Effect.andThen(tx.query(select), tx.finish([insert(id)])))
    case "dry":
      return Transaction.bundle(pool, enter, [insert(id)], "rollback")
    case "error":
      return Transaction.bundle(pool, enter, [insert(id), broken])
    case "undone":
      return Transaction.run(pool, enter, (tx) => Effect.andThen(tx.query(insert(id)), Effect.fail("undone" as const)))
  }
}

/** What the answer says of the write: done, not done, or nothing. */
const verdict = (shape: Shape, exit: Exit.Exit<unknown, DatabaseFailure | "undone">): boolean | undefined => {
  if (Exit.isSuccess(exit)) return shape !== "dry"
  if (Cause.hasInterrupts(exit.cause))
    return shape === "dry" || shape === "error" || shape === "undone" ? false : undefined
  const error = Cause.squash(exit.cause)
  return error instanceof DatabaseFailure && error.reason._tag === "CommitUnknown" ? undefined : false
}

describe("acknowledged", () => {
  it.live("what is answered is true, under kills, cuts, deafness and interruption", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const proxy = yield* TcpProxy.make(database.url)
      const pool = yield* Session.make(settingsOf(proxy.url, { maxConnections: 3, statementTimeout: 2_000 }))
      const enter = statement("select set_config('role', $1, true)", [database.writer])
      const admin = yield* connect(database.superuserUrl)
      const login = new URL(database.url).username
      let next = 0
      const seen = { done: 0, undone: 0, unknown: 0 }

      const cause = (fault: Fault, fiber: Fiber.Fiber<unknown, unknown>) => {
        switch (fault) {
          case "none":
            return Effect.void
          case "kill":
            return admin.query(
              "select pg_terminate_backend(pid) from pg_stat_activity where usename = $1 order by random() limit 1",
              [login]
            )
          case "cut":
            return Effect.sync(() => proxy.cut())
          case "deaf":
            return Effect.sync(() => {
              proxy.deafen()
              setTimeout(() => {
                proxy.cut()
                proxy.resume()
              }, 5)
            })
          case "interrupt":
            return Fiber.interrupt(fiber)
        }
      }

      const play = (steps: ReadonlyArray<{ shape: Shape; fault: Fault; after: number }>) =>
        Effect.gen(function* () {
          const played = yield* Effect.forEach(
            steps,
            ({ shape, fault, after }) =>
              Effect.gen(function* () {
                const id = next++
                const fiber = yield* Effect.forkChild(transact(pool, enter, shape, id), { startImmediately: true })
                for (let turn = 0; turn < after; turn++) yield* Effect.promise(() => new Promise(setImmediate))
                yield* cause(fault, fiber)
                return { id, shape, says: verdict(shape, yield* Fiber.await(fiber)) }
              }),
            { concurrency: 6 }
          )
          // a write whose answer was lost may still be on its way
          const idle = "select count(*)::int as n from pg_stat_activity where usename = $1 and state <> 'idle'"
          yield* query(database.superuserUrl, idle, [login]).pipe(Effect.repeat({ until: (rows) => rows[0]?.n === 0 }))
          const rows = yield* query(database.superuserUrl, "select id from shop.item")
          const there = new Set(rows.map((row) => row.id))
          for (const { id, shape, says } of played) {
            seen[says === undefined ? "unknown" : says ? "done" : "undone"]++
            if (says !== undefined) assert.strictEqual(there.has(id), says, `${shape} ${id} said ${says}`)
          }
          assert.deepInclude(pool.stats(), { idle: pool.stats().open, waiting: 0 })
        })

      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(fc.array(step, { minLength: 20, maxLength: 40 }), (steps) => Effect.runPromise(play(steps))),
          { numRuns: 25 }
        )
      )
      // the cases were really met
      assert.isAbove(seen.done, 100)
      assert.isAbove(seen.undone, 100)
      assert.isAbove(seen.unknown, 0)
    })
  )
})
