/**
 * A migrated database for a test file, on the run's one embedded server, with the logins of a real installation.
 *
 * Roles belong to the whole server and databases are many: domain roles carry the name of their org, so a test that
 * provisions anything uses names under `org`, which no other database of the run has.
 *
 * Example:
 *
 *     layer(Database.layer, { excludeTestServices: true })("…", (it) => {
 *       it.effect("…", () => Effect.gen(function* () { const { apiUrl, org } = yield* Database … }))
 *     })
 */
import { randomBytes } from "node:crypto"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as ConfigProvider from "effect/ConfigProvider"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { inject } from "vitest"
import { migrate } from "./Migrated.ts"

/** What a test knows of its database. All URLs carry passwords. */
export interface TestDatabase {
  readonly name: string
  /** `velocity_api`: what the server logs in as. */
  readonly apiUrl: string
  /** `velocity_operator`. */
  readonly operatorUrl: string
  /** The migrator: owner of the database, CREATEROLE, not a superuser. */
  readonly ownerUrl: string
  /** For attacks, and for nothing else. */
  readonly superuserUrl: string
  /** An organisation's name that is this database's own. */
  readonly org: string
}

const template = "velocity_template"
const migrator = "velocity_migrator"
/** Serialises what changes roles and templates, across the workers of a run. */
const setupLock = "1447382096"

/** A connection of its own, until the scope closes. */
export const connect = (url: string): Effect.Effect<PgConnection.PgConnection, SqlError, Scope.Scope> =>
  PgConnection.make({ url: Redacted.make(url), applicationName: "velocity test" })

/** Runs one statement as the login of `url`, outside any pool of ours, and returns its rows. */
export const query = (
  url: string,
  sql: string,
  params: ReadonlyArray<unknown> = []
): Effect.Effect<ReadonlyArray<PgConnection.Row>, SqlError> =>
  Effect.scoped(Effect.flatMap(connect(url), (connection) => connection.query(sql, params))).pipe(
    Effect.map((result) => result.rows)
  )

const withLogin = (base: string, user: string, password: string, database: string): string => {
  const url = new URL(base)
  url.username = user
  url.password = password
  url.pathname = `/${database}`
  return url.href
}

/** One password for the logins of a run: derived from the server's, so that every worker knows it. */
const loginPassword = (superuser: string): string => `login-${new URL(superuser).password}`

/** Makes the template once a run; called with the set-up lock held. */
const ensureTemplate = Effect.fnUntraced(function* (superuser: string, admin: PgConnection.PgConnection) {
  const password = loginPassword(superuser)
  const existing = yield* admin.query("select 1 from pg_database where datname = $1", [template])
  if (existing.rows.length > 0) return
  const role = yield* admin.query("select 1 from pg_roles where rolname = $1", [migrator])
  if (role.rows.length === 0)
    yield* admin.query(`create role ${migrator} login createrole createdb password '${password}'`)
  const building = `${template}_building`
  yield* admin.query(`drop database if exists ${building} with (force)`)
  yield* admin.query(`create database ${building} owner ${migrator}`)
  yield* migrate(withLogin(superuser, migrator, password, building))
  for (const login of ["velocity_api", "velocity_operator"]) {
    yield* admin.query(`alter role ${login} password '${password}'`)
  }
  yield* admin.query(`alter database ${building} rename to ${template}`)
})

/** Names and logins of a database that is to be made. */
const newDatabase = (rolePrefix = ""): TestDatabase => {
  const superuser = inject("postgres")
  const id = randomBytes(5).toString("hex")
  const name = `t_${id}`
  const url = (user: string) => withLogin(superuser, user, loginPassword(superuser), name)
  return {
    name,
    apiUrl: url(`${rolePrefix}velocity_api`),
    operatorUrl: url(`${rolePrefix}velocity_operator`),
    ownerUrl: url(migrator),
    superuserUrl: withLogin(superuser, "postgres", new URL(superuser).password, name),
    org: `o${id}`
  }
}

const dropped = (name: string) =>
  Effect.ignore(query(inject("postgres"), `drop database if exists ${name} with (force)`))

/**
 * A fresh migrated database, dropped when the scope closes. The copy of a template does not carry the grants on the
 * database itself, so the migrations are applied to it again.
 */
export const freshDatabase: Effect.Effect<TestDatabase, unknown, Scope.Scope> = Effect.gen(function* () {
  const superuser = inject("postgres")
  const database = newDatabase()
  yield* Effect.acquireRelease(
    Effect.scoped(
      Effect.gen(function* () {
        const admin = yield* connect(superuser)
        yield* admin.query(`select pg_advisory_lock(${setupLock})`)
        yield* ensureTemplate(superuser, admin)
        yield* admin.query(`create database ${database.name} template ${template} owner ${migrator}`)
        yield* migrate(database.ownerUrl)
      })
    ),
    () => dropped(database.name)
  )
  return database
})

/**
 * The same of another installation on the run's server, whose roles begin with `rolePrefix`; they stay until the server
 * ends. After `freshDatabase`, which makes the migrator.
 */
export const prefixedDatabase = Effect.fnUntraced(function* (rolePrefix: string) {
  const superuser = inject("postgres")
  const database = newDatabase(rolePrefix)
  yield* Effect.acquireRelease(
    Effect.andThen(
      query(superuser, `create database ${database.name} owner ${migrator}`),
      migrate(database.ownerUrl, rolePrefix)
    ),
    () => dropped(database.name)
  )
  for (const login of ["velocity_api", "velocity_operator"]) {
    yield* query(superuser, `alter role ${rolePrefix}${login} password '${loginPassword(superuser)}'`)
  }
  return database
})

/** The configuration that the services of `src/` read, for a test's database. */
export const configOf = (
  database: TestDatabase,
  more: Readonly<Record<string, string>> = {}
): ConfigProvider.ConfigProvider =>
  ConfigProvider.fromUnknown({
    VELOCITY_API_DATABASE_URL: database.apiUrl,
    VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
    VELOCITY_MIGRATE_DATABASE_URL: database.ownerUrl,
    ...more
  })

/** The database of a test file. */
export class Database extends Context.Service<Database, TestDatabase>()("velocity/test/Database") {
  /** A fresh one for whoever builds the layer. */
  static readonly layer = Layer.effect(Database, Effect.orDie(freshDatabase))
}

/** `layer`, built over a fresh database and the configuration that leads to it; the database stays visible. */
export const withDatabase = <A, E>(
  layer: Layer.Layer<A, E, Database>,
  more: Readonly<Record<string, string>> = {}
): Layer.Layer<A | Database, E> =>
  layer.pipe(
    Layer.provide(Layer.unwrap(Effect.map(Database, (database) => ConfigProvider.layer(configOf(database, more))))),
    Layer.provideMerge(Database.layer)
  )

/** A copy of a database as it is now, as a backup has it; nobody may be connected to the original. */
export const copyOf = Effect.fnUntraced(function* (original: TestDatabase) {
  const copy = { ...newDatabase(), org: original.org }
  yield* Effect.acquireRelease(
    Effect.andThen(
      query(inject("postgres"), `create database ${copy.name} template ${original.name} owner ${migrator}`),
      migrate(copy.ownerUrl)
    ),
    () => dropped(copy.name)
  )
  return copy
})
