/**
 * The database `velocity` of an embedded server, migrated, with the logins of a real installation.
 *
 * For `velocity dev` and the benchmarks. The superuser makes the database and its owner, as an administrator would, and
 * nothing else of ours runs as it: the migrations run as `velocity_migrator`, which is CREATEROLE and no superuser.
 * Passwords are derived from the superuser's, so they stay the same from start to start and are stored nowhere else.
 */
import { createHmac } from "node:crypto"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type { SqlError } from "effect/sql/SqlError"
import { type DatabaseFailure, fromSqlError } from "./DatabaseFailure.ts"
import * as Migrations from "./Migrations.ts"

/** The URLs of database `velocity`, with passwords: not for logs. */
export interface DevelopmentDatabase {
  /** The superuser. */
  readonly admin: URL
  /** `velocity_migrator`, the owner. */
  readonly migrate: URL
  /** `velocity_api`. */
  readonly api: URL
  /** `velocity_operator`. */
  readonly operator: URL
}

const database = "velocity"
const migrator = "velocity_migrator"

/**
 * Makes what is missing and migrates. Safe to repeat, and done at each start: an existing database gets this version's
 * migrations. Fails as migrations do (`MigrationFailed`), or with `DatabaseFailure` where the server cannot be reached.
 */
export const prepare = Effect.fnUntraced(function* (
  superuser: URL
): Effect.fn.Return<DevelopmentDatabase, DatabaseFailure | Migrations.MigrationFailed> {
  const urlOf = (login: string): URL => {
    const url = new URL(superuser)
    url.pathname = `/${database}`
    if (login !== superuser.username) {
      url.username = login
      url.password = passwordOf(superuser, login)
    }
    return url
  }
  const password = (login: string) => `password '${passwordOf(superuser, login)}'`
  const asSuperuser = <A>(f: (query: Query) => Effect.Effect<A, SqlError>) =>
    Effect.scoped(
      Effect.flatMap(
        PgConnection.make({ url: Redacted.make(superuser.href), applicationName: "velocity development database" }),
        (connection) => f((sql) => Effect.map(connection.query(sql, [], false), (result) => result.rowCount))
      )
    ).pipe(Effect.mapError(fromSqlError))

  yield* asSuperuser((query) =>
    Effect.gen(function* () {
      if ((yield* query(`select from pg_roles where rolname = '${migrator}'`)) === 0) {
        yield* query(`create role ${migrator} login createrole nosuperuser ${password(migrator)}`)
      }
      if ((yield* query(`select from pg_database where datname = '${database}'`)) === 0) {
        yield* query(`create database ${database} owner ${migrator}`)
      }
    })
  )
  yield* Migrations.run({ url: Redacted.make(urlOf(migrator).href) })
  yield* asSuperuser((query) =>
    Effect.forEach(["velocity_api", "velocity_operator"], (login) => query(`alter role ${login} ${password(login)}`))
  )
  return {
    admin: urlOf(superuser.username),
    migrate: urlOf(migrator),
    api: urlOf("velocity_api"),
    operator: urlOf("velocity_operator")
  }
})

/** Runs a statement and answers how many rows it found or touched. */
type Query = (sql: string) => Effect.Effect<number, SqlError>

/** 43 characters of base64url: nothing that SQL or a URL would have to quote. */
const passwordOf = (superuser: URL, login: string): string =>
  createHmac("sha256", decodeURIComponent(superuser.password)).update(login).digest("base64url")
