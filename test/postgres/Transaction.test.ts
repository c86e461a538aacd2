/** Transactions over real sessions: one write, typed failures, and a session that is clean whatever happened. */
import { randomBytes } from "node:crypto"
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
import { type PlainDatabase, plainDatabase, settingsOf } from "../support/PlainDatabase.ts"

const enterAs = (role: string, ctx = "{}") =>
  statement("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [role, ctx])

const insert = (id: number, name: string, price = "1.00", parent: number | null = null) =>
  statement("insert into shop.item (id, name, price, parent) values ($1, $2, $3, $4) returning id", [
    id,
    name,
    price,
    parent
  ])
const select = statement("select id, name from shop.item order by id")
const whoami = statement(
  "select current_user::text as u, session_user::text as s, current_setting('role') as r, nullif(current_setting('velocity.ctx', true), '') as c, pg_backend_pid() as pid"
)

/** A database and a pool of one connection, so that whatever one transaction leaves behind meets the next. */
const withPool = Effect.gen(function* () {
  const database = yield* plainDatabase
  const pool = yield* Session.make(settingsOf(database.url, { maxConnections: 1, statementTimeout: 2_000 }))
  return { database, pool }
})

const reasonOf = <A, R>(effect: Effect.Effect<A, DatabaseFailure, R>): Effect.Effect<Reason, A, R> =>
  Effect.map(Effect.flip(effect), (failure) => failure.reason)

/** The next transaction on the pool's one connection starts from nothing: no role, no settings, no transaction. */
const assertClean = Effect.fnUntraced(function* (pool: Session.SessionPool, database: PlainDatabase) {
  // outside any transaction of ours, where whatever was left behind would show
  const [row] = (yield* Transaction.single(pool, whoami)).rows
  const locks = yield* Transaction.single(
    pool,
    statement("select count(*)::int as n from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'")
  )
  assert.deepStrictEqual(locks.rows, [{ n: 0 }])
  const login = new URL(database.url).username
  assert.strictEqual(row?.u, login)
  assert.strictEqual(row?.s, login)
  assert.strictEqual(row?.r, "none")
  assert.strictEqual(row?.c, null)
  const stuck = yield* query(
    database.superuserUrl,
    "select state from pg_stat_activity where usename = $1 and state <> 'idle'",
    [login]
  )
  assert.deepStrictEqual(stuck, [])
})

describe("bundle", () => {
  it.live("does its statements as the role, commits, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const results = yield* Transaction.bundle(pool, enterAs(database.writer, '{"op":"create"}'), [
        insert(1, "one"),
        whoami,
        select
      ])
      assert.deepStrictEqual(
        results.map((result) => [result.command, result.rowCount]),
        [
          ["INSERT", 1],
          ["SELECT", 1],
          ["SELECT", 1]
        ]
      )
      assert.strictEqual(results[1]?.rows[0]?.u, database.writer)
      assert.strictEqual(results[1]?.rows[0]?.c, '{"op":"create"}')
      yield* assertClean(pool, database)
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 1)
    })
  )

  it.live("leaves in one write", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      // prepared or not, read or dry run, and whatever is wrong with it
      const bundles = [
        Transaction.bundle(pool, enterAs(database.reader), [select], "read"),
        Transaction.bundle(pool, enterAs(database.reader), [select], "read"),
        Transaction.bundle(pool, enterAs(database.writer), [insert(1, "one"), select]),
        Transaction.bundle(pool, enterAs(database.writer), [insert(2, "two"), select], "rollback"),
        Effect.flip(Transaction.bundle(pool, enterAs(database.writer), [insert(1, "one"), select]))
      ]
      yield* Transaction.single(pool, whoami)
      const { socket } = (yield* Effect.scoped(pool.lease)).connection
      const original = socket.write
      let writes = 0
      socket.write = function (this: typeof socket, ...args: Array<unknown>) {
        writes++
        return (original as (...a: Array<unknown>) => boolean).apply(this, args)
      } as typeof original
      for (const [at, bundle] of bundles.entries()) {
        yield* bundle
        assert.strictEqual(writes, at + 1)
      }
    })
  )

  it.live("undoes everything with end rollback, and answers what would have been", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const results = yield* Transaction.bundle(pool, enterAs(database.writer), [insert(1, "one"), select], "rollback")
      assert.strictEqual(results[1]?.rowCount, 1)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
      yield* assertClean(pool, database)
    })
  )

  it.live("reports the first error by its kind, commits nothing, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const w = enterAs(database.writer)
      yield* Transaction.bundle(pool, w, [insert(1, "one")])
      const cases: ReadonlyArray<readonly [string, ReturnType<typeof insert>, Partial<Reason>]> = [
        ["unique", insert(2, "one"), { _tag: "Unique", constraint: "name_is_unique" }],
        ["check", insert(2, "two", "-1"), { _tag: "Check", constraint: "item_price_check" }],
        ["not null", statement("insert into shop.item (id) values (2)"), { _tag: "NotNull", column: "name" }],
        ["deferred foreign key, at COMMIT", insert(2, "two", "1", 77), { _tag: "ForeignKey", constraint: "parent_is" }],
        ["out of range", insert(2, "two", "12345678.00"), { _tag: "OutOfRange" }],
        ["longer than an index holds", insert(2, randomBytes(9000).toString("base64")), { _tag: "OutOfRange" }],
        ["malformed", statement("select $1::uuid", ["x"]), { _tag: "InvalidText" }],
        ["a zero byte", insert(2, "a\u0000b"), { _tag: "InvalidText" }],
        ["no such column", statement("select nothing from shop.item"), { _tag: "StaleShape" }],
        ["no such table", statement("select 1 from shop.nothing"), { _tag: "StaleShape" }],
        ["no privilege", statement("delete from shop.item"), { _tag: "Denied", rowSecurity: false }],
        [
          "one of ours",
          statement("do $$ begin raise 'x' using errcode = 'VL010', detail = 'd'; end $$"),
          { _tag: "Platform", code: "VL010", detail: "d" }
        ],
        ["too long", statement("select pg_sleep(10)"), { _tag: "Timeout" }],
        ["a bad statement of ours", statement("selec 1"), { _tag: "Unexpected", sqlstate: "42601" }]
      ]
      for (const [what, bad, expected] of cases) {
        const reason = yield* reasonOf(Transaction.bundle(pool, w, [insert(9, "nine"), bad, select]))
        assert.deepInclude(reason, expected as Reason, what)
        yield* assertClean(pool, database)
      }
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 1)
    })
  )

  it.live("does nothing under a role that may not be entered", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      for (const role of [database.stranger, "postgres", "no such role", ""]) {
        const reason = yield* reasonOf(Transaction.bundle(pool, enterAs(role), [insert(1, "one")]))
        assert.include(["Denied", "InvalidText"], reason._tag, role)
        yield* assertClean(pool, database)
      }
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )

  it.live("commits nothing when a value cannot be encoded", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const w = enterAs(database.writer)
      for (const value of [{ a: 1 }, [[1]], [1, "x"], Symbol("x"), () => 1, new Date(Number.NaN), 2n ** 80n]) {
        const bad = statement("select $1", [value])
        const reason = yield* reasonOf(Transaction.bundle(pool, w, [insert(1, "one"), bad, insert(2, "two")]))
        assert.strictEqual(reason._tag, "Unexpected", String(value))
        yield* assertClean(pool, database)
      }
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )

  it.live("RESET ROLE inside leaves the login with nothing", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      for (const escape of ["reset role", "set role none", "select set_config('role', 'none', false)"]) {
        const reason = yield* reasonOf(Transaction.bundle(pool, enterAs(database.writer), [statement(escape), select]))
        assert.strictEqual(reason._tag, "Denied", escape)
        yield* assertClean(pool, database)
      }
    })
  )

  it.live("is finished, not abandoned, when its caller is interrupted", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      yield* Transaction.bundle(pool, enterAs(database.reader), [select], "read")
      const fiber = yield* Effect.forkChild(
        Transaction.bundle(pool, enterAs(database.writer), [insert(1, "one"), statement("select pg_sleep(0.3)")]),
        { startImmediately: true }
      )
      const exit = yield* Fiber.interrupt(fiber).pipe(Effect.andThen(Fiber.await(fiber)))
      assert.isTrue(Exit.isFailure(exit))
      yield* assertClean(pool, database)
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 1)
    })
  )

  it.live("a killed backend: unknown for a write, sent again for a read, and the pool goes on", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      yield* query(database.superuserUrl, `grant pg_signal_backend to ${database.writer}`)
      const kill = statement("select pg_terminate_backend(pg_backend_pid())")
      const w = enterAs(database.writer)
      const write = yield* reasonOf(Transaction.bundle(pool, w, [insert(1, "one"), kill]))
      assert.strictEqual(write._tag, "CommitUnknown")
      const dry = yield* reasonOf(Transaction.bundle(pool, w, [insert(1, "one"), kill], "rollback"))
      assert.strictEqual(dry._tag, "Unavailable")
      yield* assertClean(pool, database)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
      // the read is sent again, once: a session that was killed while idle costs nobody anything
      const [before] = yield* Transaction.bundle(pool, enterAs(database.reader), [whoami], "read")
      yield* query(database.superuserUrl, "select pg_terminate_backend($1)", [before?.rows[0]?.pid])
      const [after] = yield* Transaction.bundle(pool, enterAs(database.reader), [whoami], "read")
      assert.notStrictEqual(after?.rows[0]?.pid, before?.rows[0]?.pid)
    })
  )

  it.live("does not confuse transactions that share a small pool", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const pool = yield* Session.make(settingsOf(database.url, { maxConnections: 3 }))
      const results = yield* Effect.forEach(
        Array.from({ length: 200 }, (_, i) => i),
        (i) =>
          Effect.map(
            Effect.exit(
              Transaction.bundle(pool, enterAs(i % 2 === 0 ? database.reader : database.writer, `{"i":${i}}`), [
                whoami,
                ...(i % 5 === 0 ? [statement("select 1/0")] : [])
              ])
            ),
            (exit) => [i, exit] as const
          ),
        { concurrency: "unbounded" }
      )
      for (const [i, exit] of results) {
        if (i % 5 === 0) assert.isTrue(Exit.isFailure(exit))
        else {
          assert.isTrue(Exit.isSuccess(exit))
          if (Exit.isSuccess(exit)) assert.strictEqual(exit.value[0]?.rows[0]?.c, `{"i":${i}}`)
        }
      }
      assert.deepInclude(pool.stats(), { idle: pool.stats().open, waiting: 0 })
      assert.isAtMost(pool.stats().open, 3)
    })
  )
})

describe("run", () => {
  it.live("commits what it did, as the role", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const count = yield* Transaction.run(pool, enterAs(database.writer), (tx) =>
        Effect.gen(function* () {
          yield* tx.query(insert(1, "one"))
          yield* tx.query(insert(2, "two"))
          const who = yield* tx.query(whoami)
          assert.strictEqual(who.rows[0]?.u, database.writer)
          return (yield* tx.query(select)).rowCount
        })
      )
      assert.strictEqual(count, 2)
      yield* assertClean(pool, database)
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 2)
    })
  )

  it.live("rolls back on a failure of ours, of the database, and with end rollback", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const w = enterAs(database.writer)
      const ours = yield* Effect.flip(
        Transaction.run(pool, w, (tx) => Effect.andThen(tx.query(insert(1, "one")), Effect.fail("no")))
      )
      assert.strictEqual(ours, "no")
      yield* assertClean(pool, database)
      const theirs = yield* Effect.flip(
        Transaction.run(pool, w, (tx) => Effect.andThen(tx.query(insert(1, "one")), tx.query(insert(1, "two"))))
      )
      assert.strictEqual(theirs._tag === "DatabaseFailure" && theirs.reason._tag, "Unique")
      yield* assertClean(pool, database)
      const first = yield* reasonOf(Transaction.run(pool, w, (tx) => tx.query(statement("select 1/0"))))
      assert.strictEqual(first._tag, "Unexpected")
      yield* assertClean(pool, database)
      yield* Transaction.run(pool, w, (tx) => tx.query(insert(1, "one")), "rollback")
      yield* assertClean(pool, database)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )

  it.live("does not claim to have committed after an error that its user swallowed", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const reason = yield* reasonOf(
        Transaction.run(pool, enterAs(database.writer), (tx) =>
          Effect.andThen(tx.query(insert(1, "one")), Effect.ignore(tx.query(insert(1, "again"))))
        )
      )
      assert.strictEqual(reason._tag, "Unique")
      yield* assertClean(pool, database)
    })
  )

  it.live("a COMMIT that fails is typed", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const reason = yield* reasonOf(
        Transaction.run(pool, enterAs(database.writer), (tx) => tx.query(insert(1, "one", "1", 77)))
      )
      assert.deepInclude(reason, { _tag: "ForeignKey", constraint: "parent_is" })
      yield* assertClean(pool, database)
    })
  )

  it.live("may be finished with its last statements in one write, from any state", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const w = enterAs(database.writer)
      const after = (count: number, start: number) =>
        Transaction.run(pool, w, (tx) =>
          Effect.gen(function* () {
            for (let i = 0; i < count; i++) yield* tx.query(insert(start + i, `before ${start + i}`))
            const results = yield* tx.finish([insert(start + 8, `last ${start}`), select])
            assert.strictEqual(results[1]?.rowCount, before + count + 1)
            return results.length
          })
        )
      let before = 0
      for (const [count, start] of [
        [0, 10],
        [1, 20],
        [2, 30]
      ] as const) {
        assert.strictEqual(yield* after(count, start), 2)
        before += count + 1
        yield* assertClean(pool, database)
      }
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 6)
      for (const count of [0, 1, 2]) {
        const reason = yield* reasonOf(
          Transaction.run(pool, w, (tx) =>
            Effect.gen(function* () {
              for (let i = 0; i < count; i++) yield* tx.query(insert(50 + i, `lost ${i}`))
              return yield* tx.finish([insert(60, "lost"), insert(60, "twice"), insert(61, "never")])
            })
          )
        )
        assert.strictEqual(reason._tag, "Unique")
        yield* assertClean(pool, database)
        const swallowed = yield* reasonOf(
          Transaction.run(pool, w, (tx) =>
            Effect.andThen(Effect.ignore(tx.query(insert(20, "again"))), tx.finish(count === 0 ? [] : [select]))
          )
        )
        assert.include(["Unique", "Unexpected"], swallowed._tag)
        yield* assertClean(pool, database)
        yield* Transaction.run(pool, w, (tx) => tx.finish([insert(70, "dry")]), "rollback")
      }
      assert.strictEqual((yield* query(database.superuserUrl, select.sql)).length, 6)
      const used = yield* Effect.exit(
        Transaction.run(pool, w, (tx) => Effect.andThen(tx.finish([select]), tx.query(select)))
      )
      assert.isTrue(Exit.hasDies(used))
    })
  )

  it.live("is cancelled and rolled back when interrupted", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const started = yield* Deferred.make<void>()
      const fiber = yield* Effect.forkChild(
        Transaction.run(pool, enterAs(database.writer), (tx) =>
          tx
            .query(insert(1, "one"))
            .pipe(
              Effect.andThen(Deferred.succeed(started, undefined)),
              Effect.andThen(tx.query(statement("select pg_sleep(1.9)")))
            )
        )
      )
      yield* Deferred.await(started)
      yield* Fiber.interrupt(fiber)
      yield* assertClean(pool, database)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )

  it.live("a backend killed in the middle is Unavailable, and the pool goes on", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const reason = yield* reasonOf(
        Transaction.run(pool, enterAs(database.writer), (tx) =>
          Effect.gen(function* () {
            const who = yield* tx.query(whoami)
            yield* tx.query(insert(1, "one"))
            yield* query(database.superuserUrl, "select pg_terminate_backend($1)", [who.rows[0]?.pid]).pipe(
              Effect.orDie
            )
            return yield* tx.query(insert(2, "two"))
          })
        )
      )
      assert.strictEqual(reason._tag, "Unavailable")
      yield* assertClean(pool, database)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )

  it.live("sends nothing when it asks nothing, and dies when it is used after its end", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      assert.strictEqual(yield* Transaction.run(pool, enterAs(database.stranger), () => Effect.succeed(1)), 1)
      assert.deepInclude(pool.stats(), { open: 0, waiting: 0 })
      const kept = yield* Transaction.run(pool, enterAs(database.reader), (tx) => Effect.succeed(tx))
      assert.isTrue(Exit.hasDies(yield* Effect.exit(kept.query(select))))
    })
  )

  it.live("ends after the longest time that a transaction may take", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const pool = yield* Session.make(settingsOf(database.url, { maxConnections: 1, maxTransaction: 200 }))
      const reason = yield* reasonOf(
        Transaction.run(pool, enterAs(database.writer), (tx) =>
          Effect.andThen(tx.query(insert(1, "one")), Effect.never)
        )
      )
      assert.strictEqual(reason._tag, "Timeout")
      yield* assertClean(pool, database)
      assert.deepStrictEqual(yield* query(database.superuserUrl, select.sql), [])
    })
  )
})

describe("stream", () => {
  const many = statement("select i from generate_series(1, 200000) i")

  it.live("gives every row, and leaves nothing behind", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const count = yield* Transaction.stream(pool, enterAs(database.reader), many).pipe(Stream.runCount)
      assert.strictEqual(count, 200000)
      yield* assertClean(pool, database)
    })
  )

  it.live("may be left early, and may fail at its start or in its middle", () =>
    Effect.gen(function* () {
      const { database, pool } = yield* withPool
      const r = enterAs(database.reader)
      const some = yield* Transaction.stream(pool, r, many).pipe(Stream.take(3), Stream.runCollect)
      assert.deepStrictEqual(
        some.map((row) => row.i),
        [1, 2, 3]
      )
      yield* assertClean(pool, database)
      const denied = yield* reasonOf(Stream.runCount(Transaction.stream(pool, enterAs(database.stranger), many)))
      assert.strictEqual(denied._tag, "Denied")
      yield* assertClean(pool, database)
      const middle = statement("select 1 / (100000 - i) as i from generate_series(1, 200000) i")
      const failed = yield* reasonOf(Stream.runCount(Transaction.stream(pool, r, middle)))
      assert.deepInclude(failed, { _tag: "Unexpected", sqlstate: "22012" })
      yield* assertClean(pool, database)
    })
  )
})

describe("a pooler's session", () => {
  it.live("prepares nothing and makes its settings in each transaction", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const pool = yield* Session.make(
        settingsOf(database.url, { maxConnections: 1, prepared: 0, statementTimeout: 300 })
      )
      const { transactionSettings } = yield* Effect.promise(() => import("../../src/postgres/PgSettings.ts"))
      const enter = statement(`select set_config('role', $1, true)${transactionSettings(pool.settings)}`, [
        database.reader
      ])
      const [settings, prepared] = yield* Transaction.bundle(pool, enter, [
        statement("select current_setting('search_path') as p, current_setting('TimeZone') as z"),
        statement("select name from pg_catalog.pg_prepared_statements")
      ])
      assert.deepStrictEqual(settings?.rows, [{ p: "pg_catalog, pg_temp", z: "UTC" }])
      assert.deepStrictEqual(prepared?.rows, [])
      const slow = yield* reasonOf(Transaction.bundle(pool, enter, [statement("select pg_sleep(2)")]))
      assert.strictEqual(slow._tag, "Timeout")
      const outside = yield* Transaction.single(pool, statement("select current_setting('search_path') as p"))
      assert.notStrictEqual(outside.rows[0]?.p, "pg_catalog, pg_temp")
    })
  )
})
