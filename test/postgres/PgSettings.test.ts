/** What is read from VELOCITY_* variables, and what sessions are pinned to. */
import { assert, describe, it } from "@effect/vitest"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import * as PgSettings from "../../src/postgres/PgSettings.ts"
import * as Session from "../../src/postgres/Session.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Transaction from "../../src/postgres/Transaction.ts"
import { plainDatabase, settingsOf } from "../support/PlainDatabase.ts"

const url = "postgres://velocity_api:secret@127.0.0.1:5432/velocity"

const read = (env: Record<string, string>) =>
  Effect.provideService(PgSettings.apiSettings, ConfigProvider.ConfigProvider, ConfigProvider.fromUnknown(env))

describe("PgSettings", () => {
  it.effect("has a default for all but the URL", () =>
    Effect.gen(function* () {
      const settings = yield* read({ VELOCITY_API_DATABASE_URL: url })
      assert.strictEqual(Redacted.value(settings.url), url)
      assert.notInclude(String(settings.url), "secret")
      assert.deepInclude(settings, {
        maxConnections: 16,
        prepared: 500,
        statementTimeout: 5_000,
        maxTransaction: 300_000
      })
    })
  )

  it.effect("reads durations as they are written, and refuses others by name", () =>
    Effect.gen(function* () {
      for (const [text, milliseconds] of [
        ["250ms", 250],
        ["5s", 5_000],
        ["2 min", 120_000],
        ["1h", 3_600_000]
      ] as const) {
        const settings = yield* read({ VELOCITY_API_DATABASE_URL: url, VELOCITY_STATEMENT_TIMEOUT: text })
        assert.strictEqual(settings.statementTimeout, milliseconds)
      }
      for (const text of ["5", "-5s", "five", "5 s ", "1e9s", "5 seconds"]) {
        const error = yield* Effect.flip(read({ VELOCITY_API_DATABASE_URL: url, VELOCITY_STATEMENT_TIMEOUT: text }))
        assert.include(String(error), "VELOCITY_STATEMENT_TIMEOUT")
      }
    })
  )

  it.effect("refuses to start without a URL, and with no or too many connections", () =>
    Effect.gen(function* () {
      assert.include(String(yield* Effect.flip(read({}))), "VELOCITY_API_DATABASE_URL")
      for (const text of ["0", "-1", "1.5", "many"]) {
        const error = yield* Effect.flip(read({ VELOCITY_API_DATABASE_URL: url, VELOCITY_API_CONNECTIONS: text }))
        assert.include(String(error), "VELOCITY_API_CONNECTIONS")
      }
    })
  )

  it.live("sessions are pinned, whatever the server, the database or the role says", () =>
    Effect.gen(function* () {
      const database = yield* plainDatabase
      const login = new URL(database.url).username
      const { query } = yield* Effect.promise(() => import("../support/Database.ts"))
      for (const [name, value] of [
        ["TimeZone", "Asia/Kolkata"],
        ["search_path", "shop, public"],
        ["default_transaction_isolation", "serializable"],
        ["statement_timeout", "0"]
      ]) {
        yield* query(database.superuserUrl, `alter role ${login} set ${name} = '${value}'`)
      }
      const pool = yield* Session.make(settingsOf(database.url, { statementTimeout: 4_000, maxTransaction: 60_000 }))
      const names = [
        "TimeZone",
        "client_encoding",
        "search_path",
        "statement_timeout",
        "lock_timeout",
        "idle_in_transaction_session_timeout",
        "transaction_isolation"
      ]
      const shown = yield* Transaction.single(
        pool,
        statement(`select ${names.map((name) => `current_setting('${name}') as "${name}"`).join(", ")}`)
      )
      assert.deepStrictEqual(shown.rows[0], {
        TimeZone: "UTC",
        client_encoding: "UTF8",
        search_path: "pg_catalog, pg_temp",
        statement_timeout: "4s",
        lock_timeout: "2400ms",
        idle_in_transaction_session_timeout: "1min",
        transaction_isolation: "read committed"
      })
    })
  )
})
