/**
 * Applies the files under `migrations/` with a database owner's credentials, which need CREATEROLE and not superuser.
 *
 * What the database knows already is applied again first, all of it in one transaction, so that no older version of a
 * function is ever visible: this is how drift is repaired, and a sound database is only read. Then each new file is one
 * transaction with its record in `schema_migrations`, so that a file that fails leaves nothing. Runners of one database
 * wait for each other; a lock on a table that does not come within two seconds ends the attempt, so that traffic goes on.
 *
 * Relies on the files for what they guard (0001 says how), and on `SqlScript`, since the extended protocol takes one
 * statement at a time.
 */
import { createHash } from "node:crypto"
import { existsSync } from "node:fs"
import { readdir, readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import * as Schedule from "effect/Schedule"
import type { SqlError } from "effect/sql/SqlError"
import { sqlStateOf } from "./DatabaseFailure.ts"
import { catalogueRules, type Violation, violationOf } from "./IsolationRules.ts"
import { prefixed } from "./RolePrefix.ts"
import { statementsOf } from "./SqlScript.ts"

/** A migration could not be applied; nothing of its file is left. The message is one for a person. */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  /** The file it happened in; undefined before the first. */
  readonly file: string | undefined
  readonly message: string
  /** The server's, where it was the server that refused. */
  readonly sqlstate?: string | undefined
  readonly cause?: unknown
}> {}

/** A file of `migrations/`. */
export interface MigrationFile {
  readonly name: string
  readonly text: string
  /** Hexadecimal, of the file's bytes. */
  readonly sha256: string
}

/** What a run did. */
export interface Applied {
  /** Files that the database did not know before. */
  readonly added: ReadonlyArray<string>
  /** Files that were applied again. */
  readonly repeated: ReadonlyArray<string>
  /** False when applying again wrote nothing at all: the database was sound. */
  readonly repaired: boolean
  /** What of the roles is wrong and not a migration's to put right, each with the SQL that does, for a superuser. */
  readonly complaints: ReadonlyArray<Violation>
}

/** What a run needs. */
export interface MigrateOptions {
  /** The owner's connection. */
  readonly url: Redacted.Redacted
  /** What stands in front of our roles (RolePrefix); nothing unless said. */
  readonly rolePrefix?: string | undefined
  /** Where the files are; the package's own unless said. */
  readonly folder?: string | undefined
}

/** Held for the session by whoever migrates this database. Any fixed number does. */
const runnerLock = "1447382098"
/** How long a runner waits for another one of the same database. */
const runnerTimeout = "60s"
/** How long it waits for a lock that requests hold. */
const lockTimeout = "2s"
/** 16.0, as `server_version_num` counts. */
const oldestVersion = 160_000

/** The package's `migrations/`, from the sources as from the compiled package. */
export const migrationsFolder = (): string => {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const candidate = join(folder, "migrations")
    if (existsSync(join(candidate, "0001_platform_schema.sql"))) return candidate
    if (dirname(folder) === folder) throw new Error("the folder migrations/ is missing from the package")
  }
}

/** The files of a folder in the order they are applied. */
export const readMigrations = async (folder: string): Promise<ReadonlyArray<MigrationFile>> => {
  const names = (await readdir(folder)).filter((name) => /^[0-9]{4}_[a-z0-9_]+\.sql$/u.test(name)).sort()
  return Promise.all(
    names.map(async (name) => {
      const bytes = await readFile(join(folder, name))
      return { name, text: bytes.toString("utf8"), sha256: createHash("sha256").update(bytes).digest("hex") }
    })
  )
}

/** Why a server is refused, by its `server_version_num`; undefined when it is not. */
export const refuseVersion = (versionNumber: number, version: string): string | undefined =>
  versionNumber >= oldestVersion
    ? undefined
    : `PostgreSQL ${version} is too old: 16 or later is needed, because before 16 a login with CREATEROLE can grant ` +
      "itself velocity_owner and pg_execute_server_program"

/**
 * Applies everything. Fails with `MigrationFailed`: a server that is too old, a login that may not, a file that was
 * edited after it was applied or is missing, a statement that the server refused.
 */
export const run = (options: MigrateOptions): Effect.Effect<Applied, MigrationFailed> =>
  Effect.scoped(attempt(options)).pipe(
    Effect.retry({
      while: isRace,
      schedule: Schedule.exponential("50 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 8 }))
    })
  )

interface Session {
  readonly query: (
    sql: string,
    params?: ReadonlyArray<unknown>,
    file?: string
  ) => Effect.Effect<ReadonlyArray<PgConnection.Row>, MigrationFailed>
}

const attempt = Effect.fnUntraced(function* (options: MigrateOptions) {
  const files = yield* Effect.tryPromise({
    try: () => readMigrations(options.folder ?? migrationsFolder()),
    catch: (cause) =>
      new MigrationFailed({
        file: undefined,
        message: `the migrations cannot be read: ${(cause as Error).message}`,
        cause
      })
  })
  const connection = yield* PgConnection.make({
    url: options.url,
    applicationName: "velocity migrate",
    startupParameters: { client_encoding: "UTF8", client_min_messages: "error" }
  }).pipe(Effect.mapError((error) => failed(undefined, error)))
  const session: Session = {
    query: (sql, params = [], file) =>
      connection.query(prefixed(sql, options.rolePrefix ?? ""), params).pipe(
        Effect.mapError((error) => failed(file, error)),
        Effect.map((result) => result.rows)
      )
  }
  yield* judgeLogin(session)
  yield* session.query(
    `select set_config('lock_timeout', '${runnerTimeout}', false), set_config('timezone', 'UTC', false), set_config('search_path', 'pg_catalog, pg_temp', false)`
  )
  yield* session.query(`select pg_advisory_lock(${runnerLock})`)
  yield* session.query(`select set_config('lock_timeout', '${lockTimeout}', false)`)
  const known = yield* knownFiles(session)
  yield* judgeFiles(files, known)
  const repeated = files.filter((file) => known.has(file.name))
  const added = files.filter((file) => !known.has(file.name))
  const repaired = repeated.length > 0 && (yield* apply(session, repeated))
  for (const file of added) yield* apply(session, [file])
  const names = (some: ReadonlyArray<MigrationFile>) => some.map((file) => file.name)
  const complaints = yield* complaintsOf(session)
  return { added: names(added), repeated: names(repeated), repaired, complaints } satisfies Applied
})

/** Attributes are never restated, and a membership that a superuser granted is only a superuser's to revoke. */
const complaintsOf = (session: Session) =>
  Effect.map(session.query(catalogueRules), (rows) =>
    rows
      .map(violationOf)
      .filter((one) => /^(superuser|bypassrls|role_attribute|role_setting|membership.*|.*_role_member)$/.test(one.code))
  )

/** The server is new enough, and the login is what a migration needs. */
const judgeLogin = Effect.fnUntraced(function* (session: Session) {
  const [row] = yield* session.query(
    `select current_setting('server_version_num')::int4 as number, current_setting('server_version') as version,
       current_user::text as login, rolsuper as super, rolcreaterole as createrole, current_database()::text as database,
       pg_has_role(current_user, (select datdba from pg_database where datname = current_database()), 'USAGE') as owner
     from pg_roles where rolname = current_user`
  )
  const refuse = (message: string) => Effect.fail(new MigrationFailed({ file: undefined, message }))
  const old = refuseVersion(Number(row?.number), String(row?.version))
  if (old !== undefined) return yield* refuse(old)
  if (row?.super === true) return
  const needs = [
    ...(row?.owner === true ? [] : [`own the database: ALTER DATABASE "${row?.database}" OWNER TO "${row?.login}"`]),
    ...(row?.createrole === true ? [] : [`make roles: ALTER ROLE "${row?.login}" CREATEROLE`])
  ]
  if (needs.length > 0) return yield* refuse(`login ${row?.login} must ${needs.join(", and ")}`)
})

const knownFiles = Effect.fnUntraced(function* (session: Session) {
  const [there] = yield* session.query(
    `select has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT') as readable
     from pg_namespace n join pg_class c on c.relnamespace = n.oid and c.relname = 'schema_migrations'
     where n.nspname = 'platform'`
  )
  if (there === undefined) return new Map<string, string>()
  // a grant that was dropped is mended by applying again; for that the table must be read first
  const rows =
    there.readable === true
      ? yield* session.query("select file, sha256 from platform.schema_migrations")
      : yield* asOwner(session, "select file, sha256 from platform.schema_migrations")
  return new Map(rows.map((row) => [String(row.file), String(row.sha256)]))
})

/** Reads as `velocity_owner`, in a transaction that is rolled back, and with it the membership. */
const asOwner = (session: Session, sql: string) =>
  Effect.gen(function* () {
    yield* session.query("begin")
    yield* session.query("grant velocity_owner to current_user with inherit false, set true")
    yield* session.query("set local role velocity_owner")
    return yield* session.query(sql)
  }).pipe(Effect.ensuring(Effect.ignore(session.query("rollback"))))

/** What was applied is what is here: nothing was edited, nothing is missing. */
const judgeFiles = Effect.fnUntraced(function* (
  files: ReadonlyArray<MigrationFile>,
  known: ReadonlyMap<string, string>
) {
  for (const file of files) {
    const sha256 = known.get(file.name)
    if (sha256 === undefined || sha256 === file.sha256) continue
    return yield* new MigrationFailed({
      file: file.name,
      message: `${file.name} was edited after it was applied: put its text back, and say what is new in a file of its own`
    })
  }
  const names = new Set(files.map((file) => file.name))
  const [missing] = [...known.keys()].filter((name) => !names.has(name)).sort()
  if (missing !== undefined) {
    return yield* new MigrationFailed({
      file: missing,
      message: `${missing} was applied to this database and is unknown here: this Velocity is older than the one that migrated it`
    })
  }
})

/** Applies files in one transaction and records them; answers whether anything was written. */
const apply = (session: Session, files: ReadonlyArray<MigrationFile>) =>
  Effect.gen(function* () {
    yield* session.query("begin")
    for (const file of files) {
      for (const sql of statementsOf(file.text)) yield* session.query(sql, [], file.name)
      yield* session.query("select platform.migrate_record($1, $2)", [file.name, file.sha256], file.name)
    }
    const [row] = yield* session.query("select pg_current_xact_id_if_assigned() is not null as wrote")
    yield* session.query("commit", [], files.at(-1)?.name)
    return row?.wrote === true
  }).pipe(Effect.tapError(() => Effect.ignore(session.query("rollback"))))

/** What PostgreSQL says of an error, beside its SQLSTATE. */
interface Said {
  readonly message?: string
  readonly detail?: string
  readonly hint?: string
}

const failed = (file: string | undefined, error: SqlError): MigrationFailed => {
  const said = (error.reason as { readonly cause?: Said }).cause
  const lines = [said?.message ?? error.message, said?.detail, said?.hint].filter((line) => line !== undefined)
  const sqlstate = sqlStateOf(error)
  const message = `${file === undefined ? "" : `${file}: `}${lines.join(". ")}`
  return new MigrationFailed({
    file,
    message: sqlstate === "55P03" ? `${message} (somebody holds a lock that it needs; nothing was changed)` : message,
    sqlstate,
    cause: error
  })
}

/** Two databases of one server make the same roles at once: the loser begins again and finds them made. */
const isRace = (failure: MigrationFailed): boolean =>
  failure.sqlstate === "40P01" ||
  failure.sqlstate === "42710" ||
  (failure.sqlstate === "23505" && /pg_(authid|auth_members|db_role_setting)/u.test(failure.message)) ||
  /tuple concurrently (updated|deleted)/u.test(failure.message)
