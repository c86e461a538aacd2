/**
 * `deletionPolicy: Delete` in a cluster: an object holds its finalizer until its records are gone, under a legal hold as long as
 * that stands, and what was not deleted under our finalizer loses nothing.
 */
import { layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { application, definition, domain, namespacesOf, organisation } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, force, isGone, read, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

layer(Layer.empty, { excludeTestServices: true })("deletionPolicy: Delete", (it) => {
  it.effect("drops with the objects, each held by its finalizer until then, across operators", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const schema = `${org}_shop_eu`
      const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
      const fill = (object: string) =>
        look(
          `insert into ${schema}.${object}_v1 (id, created_at, created_by, updated_at, updated_by, a)
           select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 3) n`
        )
      const tables = Effect.map(
        look("select relname from pg_class where relnamespace = to_regnamespace($1) and relkind = 'r' order by 1", [
          schema
        ]),
        (rows) => rows.map((row) => row.relname)
      )
      const [dom, thing, other, orphan] = [
        domain(org, { deletionPolicy: "Delete" }),
        definition(org, "thing"),
        definition(org, "other"),
        definition(org, "orphan")
      ]
      yield* startReplica(database)
      yield* apply(...namespacesOf(org), organisation(org), application(org), dom, thing, other, orphan)
      const life = yield* Scope.fork(yield* Scope.Scope)
      const first = yield* startOperator({ database, kubeconfig: cluster.kubeconfig }).pipe(Scope.provide(life))
      for (const one of [thing, other, orphan]) yield* ready(one)
      for (const object of ["thing", "other", "orphan"]) yield* fill(object)

      // one that nobody deleted under our finalizer is served on, with its records
      yield* force(orphan)
      yield* Effect.promise(() =>
        until("the orphan is known", async () =>
          first.resources().some(({ conditions }) => conditions.some(({ reason }) => reason === "Orphaned"))
        )
      )
      yield* remove(other)
      yield* isGone(other)
      expect(yield* tables).toEqual(["orphan_v1", "thing_v1"])

      const [hold] = yield* query(
        database.operatorUrl,
        "select platform.hold_place($1, 'a case', 'court')::text as id",
        [`${org}/shop/eu`]
      )
      yield* remove(thing)
      const held = yield* readyIs(thing, "is held", ({ reason }) => reason === "LegalHold")
      expect(held).toMatchObject({
        status: "False",
        message: `${org}/shop/eu is under a legal hold: a case`
      })
      expect((yield* read(thing))?.metadata.finalizers).toHaveLength(1)
      // the domain waits for its children, and for what is on its way out
      yield* apply(orphan)
      yield* ready(orphan)
      yield* remove(dom)
      yield* readyIs(dom, "waits", ({ message, reason }) => reason === "HasChildren" && message.includes("/thing"))
      expect(yield* tables).toEqual(["orphan_v1", "thing_v1"])

      // lifted while no operator is at work: the next finds what is to be done
      yield* Scope.close(life, Exit.void)
      yield* query(database.operatorUrl, "select platform.hold_lift($1::uuid, 'settled', 'court')", [hold?.id])
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* isGone(thing)
      expect(yield* tables).toEqual(["orphan_v1"])
      yield* remove(orphan)
      yield* isGone(orphan)
      yield* isGone(dom)
      expect(
        yield* look(
          "select to_regnamespace($1) is null as gone, (select count(*)::int4 from pg_roles where rolname like $2) as roles",
          [schema, `${schema}\\_%`]
        )
      ).toEqual([{ gone: true, roles: 0 }])
    })
  )
})
