/**
 * Applies the files under `migrations/` with a database owner's credentials, which need CREATEROLE but not superuser.
 *
 * Each file is one transaction when it is new. Where all are known, all are applied again in one transaction, so that no
 * older version of a function is ever visible: this is how drift is repaired. Two runners wait for each other on an
 * advisory lock; a lock that does not come within 2 s ends the attempt, so that traffic goes on. `schema_migrations` keeps
 * each file's name and SHA-256, and a file that was edited after it was applied is refused by name.
 */
import { createHash } from "node:crypto"
import { existsSync } from "node:fs"
import { readdir, readFile } from "node:fs/promises"
import { dirname, join } from "node:path"
import { fileURLToPath } from "node:url"
import * as PgConnection from "@effect/sql-pg/PgConnection"
import { Data, Effect, type Redacted, Schedule } from "effect"
import type { SqlError } from "effect/sql/SqlError"
import { statementsOf } from "./SqlScript.ts"

/** A migration could not be applied; nothing of its file is left. The message is for a person. */
export class MigrationFailed extends Data.TaggedError("MigrationFailed")<{
  readonly file: string | undefined
  readonly message: string
  readonly cause?: unknown
}> {}

export interface MigrationFile {
  readonly name: string
  readonly text: string
  /** Hexadecimal, of the file's bytes. */
  readonly sha256: string
}

export interface Applied {
  /** Files that the database did not know before. */
  readonly added: ReadonlyArray<string>
  /** Files that were applied again. */
  readonly repeated: ReadonlyArray<string>
}

export interface MigrateOptions {
  /** The owner's connection. */
  readonly url: Redacted.Redacted
  /** Where the files are; the package's own unless said. */
  readonly folder?: string | undefined
}

/** `VLCT` as a number: whoever migrates this database holds it. */
const runnerLock = 0x564c4354
const lockTimeout = "2s"
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

const explain = (file: string | undefined, error: SqlError): MigrationFailed => {
  const pg = (error.reason as { readonly cause?: { readonly message?: string; readonly hint?: string } }).cause
  const place = file === undefined ? "" : `${file}: `
  const hint = pg?.hint === undefined ? "" : ` (${pg.hint})`
  return new MigrationFailed({ file, message: `${place}${pg?.message ?? error.message}${hint}`, cause: error })
}

/** Two databases of one server change the same roles; the loser of such a race repeats. */
const isRace = (failure: MigrationFailed): boolean =>
  /tuple concurrently (updated|deleted)|duplicate key value violates unique constraint "pg_(authid|auth_members)/u.test(
    failure.message
  )

/** Applies everything; answers what was new and what was repeated. Fails with `MigrationFailed`. */
export const run = (options: MigrateOptions): Effect.Effect<Applied, MigrationFailed> =>
  Effect.scoped(attempt(options)).pipe(
    Effect.retry({
      while: isRace,
      schedule: Schedule.exponential("50 millis").pipe(Schedule.jittered, Schedule.upTo({ times: 8 }))
    })
  )

const attempt = Effect.fnUntraced(function* (options: MigrateOptions) {
  const files = yield* Effect.tryPromise({
    try: () => readMigrations(options.folder ?? migrationsFolder()),
    catch: (cause) => new MigrationFailed({ file: undefined, message: "the migrations cannot be read", cause })
  })
  const connection = yield* PgConnection.make({
    url: options.url,
    applicationName: "velocity-migrate",
    startupParameters: { TimeZone: "UTC", client_encoding: "UTF8", client_min_messages: "warning" }
  }).pipe(Effect.mapError((error) => explain(undefined, error)))

  const query = (file: string | undefined, sql: string, params: ReadonlyArray<unknown> = []) =>
    connection.query(sql, params, false).pipe(Effect.mapError((error) => explain(file, error)))

  const version = yield* query(undefined, "select current_setting('server_version_num')::int4 as n, current_setting('server_version') as text")
  const row = version.rows[0]
  if (Number(row?.n) < oldestVersion) {
    return yield* new MigrationFailed({
      file: undefined,
      message:
        `PostgreSQL ${row?.text} is too old: 16 or later is needed, because in 15 a CREATEROLE login can grant itself ` +
        "pg_execute_server_program and velocity_owner"
    })
  }
  yield* query(undefined, `select pg_advisory_lock(${runnerLock})`)
  const known = yield* knownFiles(query)
  for (const file of files) {
    const sha256 = known.get(file.name)
    if (sha256 !== undefined && sha256 !== file.sha256) {
      return yield* new MigrationFailed({
        file: file.name,
        message: `${file.name} was edited after it was applied: put the released text back and add a new file for the change`
      })
    }
  }
  const added = files.filter((file) => !known.has(file.name)).map((file) => file.name)
  const repeated = files.filter((file) => known.has(file.name)).map((file) => file.name)
  const steps = added.length === 0 ? [files] : files.map((file) => [file])
  for (const step of steps) yield* transaction(query, step)
  return { added, repeated } satisfies Applied
})

type Query = (
  file: string | undefined,
  sql: string,
  params?: ReadonlyArray<unknown>
) => Effect.Effect<PgConnection.Result, MigrationFailed>

const knownFiles = Effect.fnUntraced(function* (query: Query) {
  const there = yield* query(undefined, "select to_regclass('platform.schema_migrations') is not null as there")
  if (there.rows[0]?.there !== true) return new Map<string, string>()
  // the owner of the database need not be able to read the table outside a migration
  const rows = yield* asOwner(query, query(undefined, "select file, sha256 from platform.schema_migrations"))
  return new Map(rows.rows.map((row) => [String(row.file), String(row.sha256)]))
})

/** For the length of a transaction; the first file of all, which makes the role, says it again for itself. */
const becomeOwner = `do $$ begin
  if exists (select from pg_catalog.pg_roles where rolname = 'velocity_owner') and not pg_catalog.pg_has_role(current_user, 'velocity_owner', 'SET') then
    execute format('grant velocity_owner to %I with set true, inherit false', current_user);
  end if;
end $$`

/** What the migrator granted itself for this transaction goes before it ends; ADMIN, which came with creating it, stays. */
const giveBack = `do $$ declare r record; begin
  for r in select g.rolname as grantor from pg_catalog.pg_auth_members a join pg_catalog.pg_roles g on g.oid = a.grantor
    where a.roleid = 'velocity_owner'::regrole and a.member = current_user::regrole and (a.set_option or a.inherit_option)
  loop
    execute format('revoke velocity_owner from %I granted by %I', current_user, r.grantor);
  end loop;
end $$`

const asOwner = <A>(query: Query, effect: Effect.Effect<A, MigrationFailed>) =>
  Effect.gen(function* () {
    yield* query(undefined, "begin")
    yield* query(undefined, becomeOwner)
    yield* query(undefined, "set local role velocity_owner")
    const result = yield* effect
    // undone, and with it the membership
    yield* query(undefined, "rollback")
    return result
  })

const transaction = Effect.fnUntraced(function* (query: Query, files: ReadonlyArray<MigrationFile>) {
  const work = Effect.gen(function* () {
    yield* query(undefined, "begin")
    yield* query(undefined, `set local lock_timeout = '${lockTimeout}'`)
    yield* query(undefined, becomeOwner)
    for (const file of files) {
      for (const sql of statementsOf(file.text)) yield* query(file.name, sql)
      yield* query(file.name, "set local role velocity_owner")
      yield* query(
        file.name,
        "insert into platform.schema_migrations (file, sha256) select $1, $2 where not exists (select from platform.schema_migrations where file = $1)",
        [file.name, file.sha256]
      )
      yield* query(file.name, "reset role")
    }
    yield* query(undefined, giveBack)
    yield* query(files.at(-1)?.name, "commit")
  })
  yield* work.pipe(Effect.tapError(() => Effect.ignore(query(undefined, "rollback"))))
})
