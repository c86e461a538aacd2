/**
 * An operator on a folder with one definition that has ten records: what its statuses say, and how to change the folder. No
 * replica of the API is there, so nothing becomes Ready, and what is told is what Provisioned says.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Duration, Effect, Exit, Layer, Schedule, Scope } from "effect"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { configOf, connect, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { manifest, parents, specOf } from "./FolderManifests.ts"

/** A definition's manifest, with annotations where there are any. */
export const definition = (
  org: string,
  object: string,
  fields: ReadonlyArray<object>,
  version = "v1",
  annotations?: Readonly<Record<string, string>>
) =>
  manifest(
    "SchemaDefinition",
    `${org}-shop-eu`,
    version === "v1" ? object : `${object}-${version}`,
    specOf(org, object, fields, version),
    annotations
  )

/** The field that the definition has to begin with. */
export const a = { name: "a", type: "string" }

/** See the module. */
export const folderWorld = Effect.gen(function* () {
  const database: TestDatabase = yield* freshDatabase
  const { org } = database
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-builds-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const write = (name: string, text: string) => Effect.promise(() => writeFile(join(folder, name), text))
  yield* write("parents.yaml", parents(org))
  yield* write("thing.yaml", definition(org, "thing", [a]))
  const started = yield* Scope.Scope.pipe(Effect.flatMap(Scope.fork))
  const start = Effect.fnUntraced(function* (scope: Scope.Scope) {
    const context = yield* Layer.buildWithScope(
      Operator.layerWithSql({ manifests: folder, quiet: Duration.zero }).pipe(
        Layer.provide(ConfigProvider.layer(configOf(database)))
      ),
      scope
    )
    return yield* OperatorStatus.pipe(Effect.provide(context))
  })
  let status = yield* start(started)
  yield* status.settled
  /** Ends the operator and starts another one on the folder, when `between` has happened. */
  const restart = Effect.fnUntraced(function* <E>(between: Effect.Effect<unknown, E>) {
    yield* Scope.close(started, Exit.void)
    yield* between
    status = yield* start(yield* Scope.Scope)
  })
  const table = `${org}_shop_eu.thing_v1`
  const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
  yield* look(
    `insert into ${table} (id, created_at, created_by, updated_at, updated_by, a)
     select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 10) n`
  )
  const state = (object: string) => status.resources().find((one) => one.identity.endsWith(`/${object}`))
  const said = (object: string) =>
    Effect.sync(() => {
      const provisioned = state(object)?.conditions.find((one) => one.type === "Provisioned")
      return `${provisioned?.reason}: ${provisioned?.message}`
    })
  const until = (object: string, words: string) =>
    Effect.repeat(said(object), {
      until: (text) => text.includes(words),
      schedule: Schedule.spaced("20 millis")
    })
  /** A transaction with a snapshot, as an export has one. */
  const exporter = yield* connect(database.apiUrl)
  yield* exporter.query("set application_name = 'an export'")
  yield* exporter.query("begin isolation level repeatable read")
  const [own] = (yield* exporter.query("select pg_backend_pid()::int4 as pid")).rows
  const remove = (name: string) => Effect.promise(() => rm(join(folder, name)))
  return { database, org, table, look, write, remove, restart, until, state, exporter, pid: Number(own?.pid) }
})
