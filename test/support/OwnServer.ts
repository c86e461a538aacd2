/**
 * A PostgreSQL server for one test file, for what must not happen on the run's shared one: roles belong to the whole
 * server, so a test that damages them would be seen by every other.
 */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import * as EmbeddedServer from "../../src/postgres/EmbeddedServer.ts"
import * as Migrations from "../../src/postgres/Migrations.ts"
import { query } from "./Database.ts"

/** Logs in as one of the server's roles. */
export type UrlOf = (database: string) => string

const password = "own-server"

const make = (settings: Readonly<Record<string, string>>) =>
  Effect.gen(function* () {
    const folder = yield* Effect.acquireRelease(
      Effect.promise(async () => {
        const made = await Fs.mkdtemp(Path.join(Os.tmpdir(), `velocity-test-${process.pid}-own-`))
        // user `postgres` must be able to enter it when we are root
        await Fs.chmod(made, 0o755)
        return made
      }),
      (made) => Effect.promise(() => Fs.rm(made, { recursive: true, force: true }))
    )
    const server = yield* EmbeddedServer.make({ dataDir: folder, durable: false, settings })
    const as = (user: string): UrlOf => {
      return (database) => {
        const url = new URL(server.superuser)
        if (user !== "postgres") {
          url.username = user
          url.password = password
        }
        url.pathname = `/${database}`
        return url.href
      }
    }
    const superuser = as("postgres")
    const sql = (text: string, database = "postgres") => query(superuser(database), text)
    yield* sql(`create role migrator login createrole password '${password}'`)
    /** An empty database of the migrator's. */
    const createDatabase = (name: string) => sql(`create database ${name} owner migrator`)
    /** Lets tests log in as our two logins, once they are there. */
    const setPasswords = Effect.gen(function* () {
      for (const login of ["velocity_api", "velocity_operator"])
        yield* sql(`alter role ${login} password '${password}'`)
    })
    return {
      superuser,
      migrator: as("migrator"),
      api: as("velocity_api"),
      operator: as("velocity_operator"),
      sql,
      createDatabase,
      setPasswords,
      /** A migrated database, by the migrator. */
      migratedDatabase: (name: string) =>
        Effect.gen(function* () {
          yield* createDatabase(name)
          yield* Migrations.run({ url: Redacted.make(as("migrator")(name)) })
          yield* setPasswords
        })
    }
  })

/** See the module. */
export class OwnServer extends Context.Service<OwnServer, Effect.Success<ReturnType<typeof make>>>()(
  "velocity/test/OwnServer"
) {
  /** Stopped and removed with its scope; `settings` are the server's. */
  static readonly layer = (settings: Readonly<Record<string, string>> = {}) =>
    Layer.effect(OwnServer, Effect.orDie(make(settings)))
}
