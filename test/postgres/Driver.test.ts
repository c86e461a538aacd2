/**
 * What we rely on in the driver's codecs and in our connection over them: if one of these changes with a new version, this
 * says so before a tenant does.
 */
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Session from "../../src/postgres/Session.ts"
import { type Statement, statement } from "../../src/postgres/Statement.ts"
import * as Transaction from "../../src/postgres/Transaction.ts"
import { query } from "../support/Database.ts"
import { plainDatabase, settingsOf } from "../support/PlainDatabase.ts"

const withPool = (prepared = 500) =>
  Effect.gen(function* () {
    const database = yield* plainDatabase
    const pool = yield* Session.make(settingsOf(database.url, { maxConnections: 1, prepared }))
    const enter = statement("select set_config('role', $1, true)", [database.writer])
    const ask = (sql: string, params: ReadonlyArray<unknown> = []) =>
      Effect.map(Transaction.bundle(pool, enter, [statement(sql, params)], "read"), (results) => results[0]?.rows[0])
    return { database, pool, enter, ask }
  })

describe("the driver", () => {
  it.live("hands values over as they are, in both directions", () =>
    Effect.gen(function* () {
      const { ask } = yield* withPool()
      const cases: ReadonlyArray<readonly [string, unknown, unknown]> = [
        ["$1::text", "a 'quoted' \"text\" \\ 🐘 é", "a 'quoted' \"text\" \\ 🐘 é"],
        ["$1::text", "", ""],
        ["$1::text", null, null],
        ["$1::numeric", "12345678901234567890.1234567890", "12345678901234567890.1234567890"],
        ["$1::numeric::text", "1.10", "1.10"],
        ["$1::int8", "9223372036854775807", 9223372036854775807n],
        ["$1::int4", 7, 7],
        ["$1::boolean", true, true],
        ["$1::uuid", "0190a8c0-0000-7000-8000-000000000001", "0190a8c0-0000-7000-8000-000000000001"],
        ["$1::timestamptz::text", "2026-11-24T00:00:00.123456Z", "2026-11-24 00:00:00.123456+00"],
        ["$1::jsonb", '{"a":[1,2,{"b":null}]}', { a: [1, 2, { b: null }] }],
        ["$1::bytea", new Uint8Array([0, 255, 10]), new Uint8Array([0, 255, 10])],
        ["$1::text[]", ["a", "b,c", '"'], ["a", "b,c", '"']],
        ["$1::text[]", [], []],
        ["$1::text[]", ["a", null], ["a", null]]
      ]
      for (const [expression, given, expected] of cases) {
        const row = yield* ask(`select ${expression} as value`, [given])
        const value = row?.value instanceof Uint8Array ? new Uint8Array(row.value) : row?.value
        assert.deepStrictEqual(value, expected, `${expression} of ${String(given)}`)
      }
    })
  )

  it.live("passes any text through that Postgres can hold", () =>
    Effect.gen(function* () {
      const { ask } = yield* withPool()
      const every = Array.from({ length: 0x2000 }, (_, i) => String.fromCodePoint(i + 1)).join("")
      const text = `${every}\u{1F418}\u{10FFFF}${"x".repeat(100_000)}`
      assert.strictEqual((yield* ask("select $1::text as value", [text]))?.value, text)
    })
  )

  it.live("gives back rows of megabytes, and takes them", () =>
    Effect.gen(function* () {
      const { ask } = yield* withPool()
      const size = 20 * 1024 * 1024
      const row = yield* ask("select repeat($1, $2) as value", ["é", size / 2])
      assert.strictEqual(Buffer.byteLength(String(row?.value)), size)
      assert.strictEqual((yield* ask("select length($1::text) as n", ["x".repeat(size)]))?.n, size)
    })
  )

  it.live("follows a table that changes under its prepared statements", () =>
    Effect.gen(function* () {
      const { database, pool, enter, ask } = yield* withPool()
      const star = "select * from shop.item"
      yield* Transaction.bundle(pool, enter, [statement("insert into shop.item (id, name) values (1, 'one')")])
      assert.deepStrictEqual(Object.keys((yield* ask(star)) ?? {}), ["id", "name", "price", "parent"])
      yield* query(database.superuserUrl, "alter table shop.item add column extra int")
      // the plan that was kept is of another type: it is forgotten, and the whole is sent once more
      assert.deepStrictEqual(Object.keys((yield* ask(star)) ?? {}), ["id", "name", "price", "parent", "extra"])
      // where a transaction is open that cannot be; told apart, so that the caller may read again and repeat once
      yield* query(database.superuserUrl, "alter table shop.item drop column extra")
      const twice = Transaction.run(pool, enter, (tx) =>
        Effect.andThen(tx.query(statement("select 1")), tx.query(statement(star)))
      )
      assert.strictEqual((yield* Effect.flip(twice)).reason._tag, "StaleShape")
      assert.strictEqual((yield* twice).rowCount, 1)
    })
  )

  it.live("sends a bundle once more whose statements a session has lost, and no other", () =>
    Effect.gen(function* () {
      const { pool, enter } = yield* withPool()
      const insert = (id: number) => statement("insert into shop.item (id, name) values ($1, $2)", [id, `item ${id}`])
      const count = statement("select count(*)::int as n from shop.item")
      const lose = statement("deallocate all")
      const write = (id: number, more: ReadonlyArray<Statement> = []) =>
        Transaction.bundle(pool, enter, [insert(id), ...more, count])
      assert.strictEqual((yield* write(1))[1]?.rows[0]?.n, 1)
      yield* Transaction.single(pool, lose)
      assert.strictEqual((yield* write(2))[1]?.rows[0]?.n, 2)
      // it loses what it needs again, each time it is sent
      assert.strictEqual((yield* Effect.flip(write(3, [count, lose]))).reason._tag, "StaleShape")
      assert.strictEqual((yield* write(3))[1]?.rows[0]?.n, 3)
      yield* Transaction.single(pool, lose)
      assert.strictEqual((yield* Transaction.bundle(pool, enter, [insert(4), count], "rollback"))[1]?.rows[0]?.n, 4)
      assert.strictEqual((yield* write(4))[1]?.rows[0]?.n, 4)
    })
  )

  it.live("keeps no more prepared statements than it was told, and never mixes them up", () =>
    Effect.gen(function* () {
      const { ask } = yield* withPool(10)
      for (let round = 0; round < 3; round++) {
        for (let i = 0; i < 25; i++) assert.deepStrictEqual(yield* ask(`select ${i} as i${i}`), { [`i${i}`]: i })
      }
      const count = yield* ask("select count(*)::int as n from pg_catalog.pg_prepared_statements")
      assert.isAtMost(Number(count?.n), 12)
    })
  )

  it.live("plans again when the same statement comes from another role", () =>
    Effect.gen(function* () {
      const { database, pool, enter } = yield* withPool()
      yield* Transaction.bundle(pool, enter, [statement("insert into shop.item (id, name) values (1, 'one')")])
      for (const sql of [
        "alter table shop.item enable row level security",
        `create policy readers on shop.item for select to ${database.reader} using (false)`,
        `create policy writers on shop.item for select to ${database.writer} using (true)`
      ]) {
        yield* query(database.superuserUrl, sql)
      }
      const asRole = (role: string) =>
        Effect.map(
          Transaction.bundle(
            pool,
            statement("select set_config('role', $1, true)", [role]),
            [statement("select id from shop.item")],
            "read"
          ),
          (results) => results[0]?.rowCount
        )
      for (let i = 0; i < 8; i++) {
        assert.strictEqual(yield* asRole(database.writer), 1)
        assert.strictEqual(yield* asRole(database.reader), 0)
      }
    })
  )
})
