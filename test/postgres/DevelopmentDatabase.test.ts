/** The database of `velocity dev`: made once, the same after a restart, and nothing in it runs as superuser. */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { assert, describe, it } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as DevelopmentDatabase from "../../src/postgres/DevelopmentDatabase.ts"
import * as EmbeddedServer from "../../src/postgres/EmbeddedServer.ts"
import { query } from "../support/Database.ts"

const who =
  "select session_user::text as login, rolsuper as super, current_database()::text as database from pg_roles where rolname = session_user"

describe("DevelopmentDatabase", () => {
  it.live("has each login as an installation has it, with passwords that outlive a restart", () =>
    Effect.gen(function* () {
      const folder = yield* Effect.acquireRelease(
        Effect.promise(async () => {
          const made = await Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity development "))
          await Fs.chmod(made, 0o755)
          return made
        }),
        (path) => Effect.promise(() => Fs.rm(path, { recursive: true, force: true }))
      )
      const once = Effect.scoped(
        Effect.gen(function* () {
          const server = yield* EmbeddedServer.make({ dataDir: folder, durable: false })
          const urls = yield* DevelopmentDatabase.prepare(server.superuser)
          const logins = yield* Effect.forEach([urls.admin, urls.migrate, urls.api, urls.operator], (url) =>
            Effect.map(query(url.href, who), (rows) => rows[0])
          )
          assert.deepStrictEqual(logins, [
            { login: "postgres", super: true, database: "velocity" },
            { login: "velocity_migrator", super: false, database: "velocity" },
            { login: "velocity_api", super: false, database: "velocity" },
            { login: "velocity_operator", super: false, database: "velocity" }
          ])
          return [urls.api.password, urls.operator.password]
        })
      )
      const first = yield* once
      assert.deepStrictEqual(yield* once, first)
      assert.strictEqual(new Set(first).size, 2)
    })
  )
})
