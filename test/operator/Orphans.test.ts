/**
 * Orphans: what a complete list of its source lacks and nobody was seen to delete is served on, told by `velocity orphan
 * list`, and ended by a person: `release` loses no record, `drop` loses them all and frees the name.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Fiber, Layer, Redacted, Schedule, Schema, Scope } from "effect"
import { describe, expect } from "vitest"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import * as Controller from "../../src/operator/control/Controller.ts"
import * as Operator from "../../src/operator/Operator.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import type { Source } from "../../src/operator/state/Source.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import { run } from "../cli/Run.ts"
import { configOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { manifest, parents, specOf } from "./FolderManifests.ts"

const config = (database: TestDatabase) => ConfigProvider.layer(configOf(database))

const a = { name: "a", type: "string" }

/**
 * A domain with `thing`, `other` and `child`, which refers to `other`; three records in `thing`. Its operator has ended.
 * `later` are other versions of `thing`.
 */
const worldWith = Effect.fnUntraced(function* (...later: ReadonlyArray<string>) {
  const database = yield* freshDatabase
  const { org } = database
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-orphans-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const namespace = `${org}-shop-eu`
  const child = { name: "up", type: "ref", ref: { object: "other", version: "v1" } }
  const definitions = [
    specOf(org, "thing", [a]),
    specOf(org, "other", [a]),
    specOf(org, "child", [child]),
    ...later.map((version) => specOf(org, "thing", [a, { name: version, type: "string" }], version))
  ]
  const all = [
    parents(org),
    ...definitions.map((spec) =>
      manifest(
        "SchemaDefinition",
        namespace,
        spec.version === "v1" ? spec.object : `${spec.object}-${spec.version}`,
        spec
      )
    )
  ]
  yield* Effect.promise(() => writeFile(join(folder, "all.yaml"), all.join("\n---\n")))
  /** The operator on the folder, until it has looked at everything once. */
  const reconciled = Effect.scoped(
    Effect.gen(function* () {
      const layer = Operator.layerWithSql({ manifests: folder, quiet: Duration.zero }).pipe(
        Layer.provide(config(database))
      )
      const context = yield* Layer.buildWithScope(layer, yield* Scope.Scope)
      const status = yield* OperatorStatus.pipe(Effect.provide(context))
      yield* status.settled
      yield* status.look
    })
  )
  /** An operator whose source has a complete list, without any of what is known, for as long as the scope is open. */
  const looking = Effect.fnUntraced(function* (variables: Readonly<Record<string, string>> = {}) {
    const empty = (known: ReadonlyArray<string>) => {
      let told = false
      return Effect.succeed<Source>({
        wait: Effect.never,
        read: Effect.sync(() => {
          if (told) return undefined
          told = true
          return { resources: new Map(), problems: [], spoiled: new Map(), deleted: [], vanished: known }
        })
      })
    }
    const context = yield* Layer.buildWithScope(
      Fence.layerOf({ holder: "tests", source: "folder" }).pipe(
        Layer.provideMerge(OperatorSql.layer),
        Layer.provide(ConfigProvider.layer(configOf(database, variables)))
      ),
      yield* Scope.Scope
    )
    const status = yield* Controller.make({
      source: empty,
      fallbackStrategy: undefined,
      keyEnvironment: "test"
    }).pipe(Effect.provide(context))
    yield* status.settled
    return status
  })
  const forsaken = Effect.scoped(looking())
  const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
  yield* reconciled
  yield* look(
    `insert into ${org}_shop_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a)
     select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 3) n`
  )
  const velocity = (...args: ReadonlyArray<string>) =>
    Effect.promise(() => run(["orphan", ...args], { VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl }))
  const listed = Effect.map(velocity("list", "-o", "json"), ({ out }) =>
    (JSON.parse(out) as ReadonlyArray<{ readonly path: string }>).map((one) => one.path.replace(`${org}/shop/eu`, "P"))
  )
  const entries = Effect.map(
    look(
      "select action, schema_path as path from platform.audit_log where action like 'operator.orphan.%' and actor like 'cli/%' order by occurred_at"
    ),
    (rows) => rows.map((row) => `${row.action} ${String(row.path ?? "").split("/")[3] ?? ""}`.trim())
  )
  const records = (object: string) =>
    Effect.map(look(`select count(*)::int4 as n from ${org}_shop_eu.${object}_v1`), (rows) => rows[0]?.n)
  const path = (object: string, version = "v1") => `${org}/shop/eu/${object}/${version}`
  return { database, org, reconciled, forsaken, look, looking, velocity, listed, entries, records, path }
})
const world = worldWith()

describe("orphans", () => {
  it.live("are listed with what they have, and are none when they are back", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, forsaken, listed, look, org, reconciled, velocity } = yield* world
        expect((yield* velocity("list")).out).toBe("no orphans\n")
        yield* forsaken
        expect(yield* listed).toEqual(["P/child/v1", "P/other/v1", "P/thing/v1", "P"])
        expect((yield* velocity("list")).out).toMatch(
          new RegExp(
            `SchemaDefinition  ${org}/shop/eu/thing/v1 +${org}-shop-eu/thing +${org}_shop_eu.thing_v1 +~\\d+`,
            "u"
          )
        )
        const doctor = yield* Effect.promise(() =>
          run(["doctor"], {
            VELOCITY_API_DATABASE_URL: database.apiUrl,
            VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl
          })
        )
        expect(doctor.out).toContain(`velocity orphan release ${org}/shop/eu/thing/v1`)
        // they are served on
        const [served] = yield* look(
          "select count(*)::int4 as n from platform.schema_defs where serving is not null and chain = $1",
          [`${org}/shop/eu`]
        )
        expect(served).toEqual({ n: 3 })
        // looked at again, nothing is said twice
        const versions = look("select xmin::text as version from platform.resource_status order by kind, name")
        const before = yield* versions
        yield* forsaken
        expect(yield* versions).toEqual(before)
        yield* reconciled
        expect(yield* listed).toEqual([])
      })
    )
  )

  it.live("are released without losing a record, and taken up again", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { entries, forsaken, listed, look, org, path, reconciled, records, velocity } = yield* world
        expect(yield* velocity("release", path("thing"))).toMatchObject({
          code: 1,
          err: expect.stringContaining("is no orphan")
        })
        yield* forsaken
        // what others stand on waits for them
        expect(yield* velocity("release", path("other"))).toMatchObject({
          code: 1,
          err: expect.stringContaining(`${path("child")} refer to it`)
        })
        expect(yield* velocity("release", `${org}/shop/eu`)).toMatchObject({
          code: 1,
          err: expect.stringContaining(`${org}/shop/eu has ${path("child")}, ${path("other")}, ${path("thing")}`)
        })
        expect(yield* velocity("release", path("thing"))).toMatchObject({
          code: 0,
          out: `${path("thing")} is served no longer; ${org}_shop_eu.thing_v1 stays, with its records\n`
        })
        expect(yield* listed).toEqual(["P/child/v1", "P/other/v1", "P"])
        const [row] = yield* look("select serving, state from platform.schema_defs where path = $1", [path("thing")])
        expect(row).toEqual({ serving: null, state: "Withdrawn" })
        expect(yield* records("thing")).toBe(3)
        for (const one of [path("child"), path("other"), `${org}/shop/eu`]) {
          expect((yield* velocity("release", one)).code).toBe(0)
        }
        expect(yield* listed).toEqual([])
        expect(yield* entries).toEqual([
          "operator.orphan.release thing",
          "operator.orphan.release child",
          "operator.orphan.release other",
          "operator.orphan.release"
        ])
        yield* reconciled
        const [again] = yield* look("select state from platform.schema_defs where path = $1", [path("thing")])
        expect(again).toEqual({ state: "Serving" })
        expect(yield* records("thing")).toBe(3)
      })
    )
  )

  it.live("are dropped with every record, by who says so, and their name is free", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { entries, forsaken, look, org, path, reconciled, records, velocity } = yield* world
        yield* forsaken
        const storage = look("select storage_id from platform.schema_defs where path = $1", [path("thing")])
        const before = yield* storage
        expect(yield* velocity("drop", path("thing"))).toMatchObject({
          code: 1,
          err: expect.stringContaining("every record of")
        })
        expect(yield* velocity("drop", path("other"), "--yes")).toMatchObject({
          code: 1,
          err: expect.stringContaining("child_v1 refer to its records")
        })
        expect(yield* velocity("drop", `${org}/shop/eu`, "--yes")).toMatchObject({ code: 1 })
        const [hold] = yield* look(
          "insert into platform.legal_holds (chain, reason, placed_by) values ($1, 'a case', 'x') returning id::text as id",
          [`${org}/shop/eu`]
        )
        expect(yield* velocity("drop", path("thing"), "--yes")).toMatchObject({
          code: 1,
          err: expect.stringContaining("legal hold: a case")
        })
        expect(yield* records("thing")).toBe(3)
        yield* look("update platform.legal_holds set lifted_by = 'x', lifted_at = now() where id = $1::uuid", [
          hold?.id
        ])
        expect((yield* velocity("drop", path("thing"), "--yes")).code).toBe(0)
        const there = look(
          `select (select count(*) from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = '${org}_shop_eu' and c.relname like 'thing%')::int4 as relations,
             (select count(*) from platform.names where path = $1)::int4 as names`,
          [path("thing")]
        )
        expect(yield* there).toEqual([{ relations: 0, names: 0 }])
        expect(yield* entries).toEqual(["operator.orphan.drop thing"])
        // what comes to the path later has neither its records nor its history
        yield* reconciled
        expect(yield* records("thing")).toBe(0)
        expect(yield* storage).not.toEqual(before)
      })
    )
  )

  it.live(
    "that a replica still serves are ended by the next operator, and are nobody's way past row-level security",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { database, forsaken, listed, look, org, path, velocity } = yield* world
          yield* forsaken
          // a replica that serves what there is, and is slow to say anything else
          const [row] = yield* look(
            "select id::int4 as id, generation::text as generation from platform.schema_defs where path = $1",
            [path("thing")]
          )
          const says = (what: string) => query(database.apiUrl, `select platform.registry_ack('slow', ${what})`)
          yield* says(`${row?.id}, ${row?.generation}, null`)
          yield* says("null, null, null")
          const state = look(
            `select state, has_table_privilege('${org}_shop_eu_reader', '${org}_shop_eu.thing_v1', 'select') as held,
             (select count(*)::int4 from platform.resource_status where kind = 'SchemaDefinition' and name = 'thing') as statuses
           from platform.schema_defs where path = $1`,
            [path("thing")]
          )
          expect((yield* velocity("release", path("thing"))).code).toBe(0)
          expect(yield* state).toEqual([{ state: "Withdrawing", held: true, statuses: 1 }])
          expect(yield* listed).not.toContain("P/thing/v1")
          expect(yield* IsolationCheck.checkAt(Redacted.make(database.apiUrl))).toEqual([])
          // it waits for the replica still, and is no orphan again
          yield* forsaken
          expect(yield* state).toEqual([{ state: "Withdrawing", held: true, statuses: 1 }])
          yield* query(database.apiUrl, "select platform.registry_leave('slow')")
          yield* forsaken
          expect(yield* state).toEqual([{ state: "Withdrawn", held: false, statuses: 0 }])
          expect(yield* IsolationCheck.checkAt(Redacted.make(database.apiUrl))).toEqual([])
        })
      )
  )

  it.live("are forgotten by an operator at work as soon as somebody ends them, whether or not it hears", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { looking, path, velocity } = yield* world
        for (const [object, variables] of [
          ["thing", {}],
          // as behind a pooler
          ["child", { VELOCITY_PREPARED: "0" }]
        ] as const) {
          yield* Effect.scoped(
            Effect.gen(function* () {
              const status = yield* looking(variables)
              const knows = () => status.resources().some((one) => one.identity.endsWith(`/${object}`))
              expect(knows()).toBe(true)
              expect((yield* velocity("release", path(object))).code).toBe(0)
              yield* Effect.sync(knows).pipe(
                Effect.repeat({ until: (isKnown) => !isKnown, schedule: Schedule.spaced("50 millis") })
              )
            })
          )
        }
      })
    )
  )

  it.live("that show another version's records are released, and forgotten when those are dropped", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { forsaken, listed, look, org, path, reconciled, records, velocity } = yield* worldWith("v2", "v3")
        yield* forsaken
        expect(yield* listed).toEqual(["P/child/v1", "P/other/v1", "P/thing/v1", "P/thing/v2", "P/thing/v3", "P"])
        expect(yield* velocity("drop", path("thing", "v2"), "--yes")).toMatchObject({
          code: 1,
          err: expect.stringContaining(`are those of ${path("thing")}: release it`)
        })
        expect(yield* velocity("drop", path("thing"), "--yes")).toMatchObject({
          code: 1,
          err: expect.stringContaining(`${path("thing", "v2")}, ${path("thing", "v3")} show its records`)
        })
        expect(yield* velocity("release", path("thing", "v2"))).toMatchObject({
          code: 0,
          out: `${path("thing", "v2")} is served no longer; ${org}_shop_eu.thing_v1 stays, with its records\n`
        })
        expect(yield* records("thing")).toBe(3)
        expect((yield* velocity("release", path("thing", "v3"))).code).toBe(0)
        expect((yield* velocity("drop", path("thing"), "--yes")).code).toBe(0)
        expect(yield* look("select path from platform.names where path like '%/thing/%'")).toEqual([])
        yield* reconciled
        // they are one again, with whichever came first
        const [shared] = yield* look(
          `select count(distinct storage_id)::int4 as storages, count(*) filter (where owner_id is null)::int4 as owners,
             count(*) filter (where serving is not null)::int4 as served from platform.schema_defs where path like '%/thing/%'`
        )
        expect(shared).toEqual({ storages: 1, owners: 1, served: 3 })
        for (const version of ["v1", "v2", "v3"]) {
          expect(yield* look(`select a from ${org}_shop_eu.thing_${version}`)).toEqual([])
        }
      })
    )
  )

  it.live("hold up no other version of their object by a plan that nobody carries on", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, forsaken, listed, look, org, path, records } = yield* worldWith("v2")
        const provision = (name: string, version: string, fields: ReadonlyArray<object>, budget?: number) =>
          Effect.gen(function* () {
            const sql = yield* OperatorSql
            return yield* Evolution.provision(
              { transaction: sql.transaction, alone: sql.alone },
              {
                spec: Schema.decodeUnknownSync(SchemaDefinitionSpec)(specOf(org, "thing", fields, version)),
                origin: { source: "folder", namespace: `${org}-shop-eu`, name }
              },
              budget
            )
          }).pipe(Effect.provide(OperatorSql.layer.pipe(Layer.provide(config(database)))))
        expect(yield* provision("thing", "v1", [{ ...a, indexed: true }], 0)).toMatchObject({ _tag: "Evolving" })
        const later = provision("thing-v2", "v2", [a, { name: "v2", type: "string" }, { name: "more", type: "string" }])
        expect(yield* Effect.flip(later)).toMatchObject({ reason: "VersionEvolving" })
        yield* forsaken
        expect(yield* listed).toContain("P/thing/v1")
        expect(
          yield* look("select state, wanted = serving as same from platform.schema_defs where path = $1", [
            path("thing")
          ])
        ).toEqual([{ state: "Serving", same: true }])
        expect(yield* later).toMatchObject({ _tag: "Applied" })
        expect(yield* records("thing")).toBe(3)
      })
    )
  )

  it.live("are served by nobody before their records go", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { forsaken, listed, look, org, path, records, velocity } = yield* world
        const said = look("select platform.registry_ack('lagging', id, generation, null) from platform.schema_defs")
        yield* forsaken
        yield* said
        yield* look("select platform.registry_ack('lagging', null, null, null)")
        const may = (object: string) =>
          Effect.map(
            look(`select has_table_privilege('${org}_shop_eu_reader', '${org}_shop_eu.${object}_v1', 'select') as may`),
            ([row]) => row?.may
          )
        const running = yield* Effect.forkChild(velocity("drop", path("thing"), "--yes"))
        yield* look(`select from platform.schema_defs where path = $1 and state = 'Withdrawing'`, [path("thing")]).pipe(
          Effect.repeat({ until: (rows) => rows.length === 1, schedule: Schedule.spaced("50 millis") })
        )
        expect(yield* may("thing")).toBe(true)
        expect(yield* records("thing")).toBe(3)
        yield* said
        expect(yield* Fiber.join(running)).toMatchObject({
          code: 0,
          err: expect.stringContaining("waits for the API's replicas to know it")
        })
        expect(yield* look(`select to_regclass('${org}_shop_eu.thing_v1')::text as there`)).toEqual([{ there: null }])
        expect(yield* listed).toEqual(["P/child/v1", "P/other/v1", "P"])
      })
    )
  )

  it.live("of another source are taken over by who names that source, and by nobody else", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { database, org, look, path } = yield* world
        const provision = (adopts?: string) =>
          Effect.gen(function* () {
            const sql = yield* OperatorSql
            return yield* Evolution.provision(
              { transaction: sql.transaction, alone: sql.alone },
              {
                spec: Schema.decodeUnknownSync(SchemaDefinitionSpec)(specOf(org, "thing", [a])),
                origin: { source: "cluster-2", namespace: "elsewhere", name: "thing", adopts }
              }
            )
          }).pipe(Effect.provide(OperatorSql.layer.pipe(Layer.provide(config(database)))))
        for (const adopts of [undefined, "cluster-3"]) {
          expect(yield* Effect.flip(provision(adopts))).toMatchObject({
            reason: "NotAdopted",
            message: expect.stringContaining("velocity.sh/adopt: folder takes it over")
          })
        }
        expect(yield* provision("folder")).toMatchObject({ _tag: "Applied", steps: [] })
        const [row] = yield* look("select source, namespace from platform.schema_defs where path = $1", [path("thing")])
        expect(row).toEqual({ source: "cluster-2", namespace: "elsewhere" })
        // it is its own from now on
        expect(yield* provision()).toMatchObject({ _tag: "Unchanged" })
      })
    )
  )
})
