/** The tests' own database: migrated, with the logins of a real installation and no more. */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import { Database, freshDatabase, query } from "../support/Database.ts"

layer(Database.layer, { excludeTestServices: true })("a test's database", (it) => {
  it.effect("has each login as a real installation has it", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const who =
        "select session_user::text as u, rolsuper as super, rolcreaterole as creates, rolbypassrls as bypass from pg_roles where rolname = session_user"
      const of = (url: string) => Effect.map(query(url, who), (rows) => rows[0])
      assert.deepStrictEqual(yield* of(database.apiUrl), {
        u: "velocity_api",
        super: false,
        creates: false,
        bypass: false
      })
      assert.deepStrictEqual(yield* of(database.operatorUrl), {
        u: "velocity_operator",
        super: false,
        creates: true,
        bypass: false
      })
      assert.deepStrictEqual(yield* of(database.ownerUrl), {
        u: "velocity_migrator",
        super: false,
        creates: true,
        bypass: false
      })
      assert.deepInclude(yield* of(database.superuserUrl), { super: true })
    })
  )

  it.effect("many are made at once, each its own", () =>
    Effect.gen(function* () {
      const databases = yield* Effect.all(
        Array.from({ length: 6 }, () => freshDatabase),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(databases.map((database) => database.name)).size, 6)
      assert.strictEqual(new Set(databases.map((database) => database.org)).size, 6)
      for (const database of databases) {
        const rows = yield* query(database.ownerUrl, "select current_database()::text as d")
        assert.deepStrictEqual(rows, [{ d: database.name }])
      }
    })
  )
})
