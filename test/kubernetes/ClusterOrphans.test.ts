/**
 * What vanished, and what another source has: orphans are told and ended under an operator that is at work, and a row of
 * another source is taken over by an annotation and by nothing else.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Exit, Layer, Scope } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { afterAll, beforeAll, expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { run } from "../cli/Run.ts"
import { configOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { binding, definition, domain, type Manifest, namespacesOf, parents, strategy } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { annotate, apply, condition, force, isGone, ok, read, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const orphans = Effect.map(PrometheusMetrics.format(), (text) => /^velocity_orphans (\d+)$/mu.exec(text)?.[1])

/** The Events `Orphaned` of an object. */
const eventsOf = ({ metadata: { name, namespace } }: Manifest) =>
  Effect.map(
    ok(
      ...["get", "events", "-n", String(namespace), "-o", "json"],
      ...["--field-selector", `reason=Orphaned,involvedObject.name=${name}`]
    ),
    (text) =>
      (
        JSON.parse(text) as {
          readonly items: ReadonlyArray<{
            readonly type: string
            readonly message: string
            readonly involvedObject: { readonly kind: string; readonly uid?: string }
          }>
        }
      ).items
  )

const told = (one: Manifest) =>
  Effect.promise(() =>
    until(`an Event tells of ${one.metadata.name}`, async () => (await Effect.runPromise(eventsOf(one))).length > 0)
  )
const counted = (n: string) =>
  Effect.promise(() => until(`${n} orphans are counted`, async () => (await Effect.runPromise(orphans)) === n))

const velocity = (database: TestDatabase, ...args: ReadonlyArray<string>) =>
  Effect.promise(() => run(["orphan", ...args], { VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl }))

const fill = ({ org, superuserUrl }: TestDatabase, object: string) =>
  query(
    superuserUrl,
    `insert into ${org}_shop_eu.${object}_v1 (id, created_at, created_by, updated_at, updated_by, a)
     select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 3) n`
  )
const records = ({ org, superuserUrl }: TestDatabase, object: string) =>
  Effect.map(query(superuserUrl, `select count(*)::int4 as n from ${org}_shop_eu.${object}_v1`), (rows) => rows[0]?.n)

layer(Layer.empty, { excludeTestServices: true })("an orphan in a cluster", (it) => {
  it.effect("is told by condition, count and Event, and ended by a person, which the operator hears", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const [thing, other, dom] = [definition(org, "thing"), definition(org, "other"), domain(org)]
      const path = (object: string) => `${org}/shop/eu/${object}/v1`
      yield* apply(...namespacesOf(org), ...parents(org), thing, other)
      const life = yield* Scope.fork(yield* Scope.Scope)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig }).pipe(Scope.provide(life))
      yield* ready(thing)
      yield* ready(other)
      yield* fill(database, "thing")
      yield* fill(database, "other")
      const uid = (yield* read(thing))?.metadata.uid

      yield* force(thing)
      yield* counted("1")
      yield* told(thing)
      const [event] = yield* eventsOf(thing)
      expect(event).toMatchObject({ type: "Warning", involvedObject: { kind: "SchemaDefinition", uid } })
      expect(event?.message).toContain(
        `SchemaDefinition/${org}-shop-eu/thing is gone from its source and was not deleted`
      )
      const listed = Effect.map(velocity(database, "list", "-o", "json"), ({ out }) =>
        (JSON.parse(out) as ReadonlyArray<{ readonly path: string }>).map((one) => one.path)
      )
      expect(yield* listed).toEqual([path("thing")])
      // an operator that starts again finds it as it was told, and tells it to nobody twice
      yield* Scope.close(life, Exit.void)
      const operator = yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* operator.settled
      yield* counted("1")
      yield* force(other)
      yield* told(other)
      expect(yield* eventsOf(thing)).toHaveLength(1)
      expect((yield* listed).toSorted()).toEqual([path("other"), path("thing")])

      // released: the running operator takes it out of what it knows, long before it looks at everything again
      const rights = query(
        database.superuserUrl,
        `select has_table_privilege('${org}_shop_eu_reader', '${org}_shop_eu.thing_v1', 'select') as held, state
         from platform.schema_defs where path = $1`,
        [path("thing")]
      )
      expect(yield* rights).toEqual([{ held: true, state: "Serving" }])
      expect((yield* velocity(database, "release", path("thing"))).code).toBe(0)
      yield* counted("1")
      const knows = (identity: string) => operator.resources().some((one) => one.identity === identity)
      const forgotten = (object: string) =>
        Effect.promise(() =>
          until(`${object} is forgotten`, async () => !knows(`SchemaDefinition/${org}-shop-eu/${object}`))
        )
      yield* forgotten("thing")
      expect(yield* rights).toEqual([{ held: false, state: "Withdrawn" }])
      expect((yield* velocity(database, "drop", path("other"), "--yes")).code).toBe(0)
      yield* counted("0")
      yield* forgotten("other")
      expect(yield* listed).toEqual([])

      // what was released is taken up with its records, what was dropped begins anew
      yield* apply(thing, other)
      yield* ready(thing)
      yield* ready(other)
      expect([yield* records(database, "thing"), yield* records(database, "other")]).toEqual([3, 0])

      // a domain is one too, and goes when nothing stands on it
      yield* force(dom)
      yield* counted("1")
      yield* told(dom)
      expect(yield* velocity(database, "release", `${org}/shop/eu`)).toMatchObject({
        code: 1,
        err: expect.stringContaining(`${org}/shop/eu has ${path("other")}, ${path("thing")}`)
      })
      for (const one of [thing, other]) yield* remove(one)
      for (const one of [thing, other]) yield* isGone(one)
      expect((yield* velocity(database, "release", `${org}/shop/eu`)).code).toBe(0)
      yield* counted("0")
      yield* apply(dom, thing)
      yield* ready(dom)
      yield* ready(thing)
      expect(yield* records(database, "thing")).toBe(3)
    })
  )
})

/** What a folder had made, with its operator ended, and the database free for another source. */
const fromFolder = Effect.fnUntraced(function* (database: TestDatabase, manifests: ReadonlyArray<Manifest>) {
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-adopted-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  yield* Effect.promise(() =>
    writeFile(join(folder, "all.yaml"), manifests.map((one) => JSON.stringify(one)).join("\n---\n"))
  )
  yield* Effect.scoped(
    Effect.gen(function* () {
      const context = yield* Layer.buildWithScope(
        Operator.layerWithSql({ manifests: folder, quiet: Duration.zero }).pipe(
          Layer.provide(ConfigProvider.layer(configOf(database)))
        ),
        yield* Scope.Scope
      )
      const status = yield* OperatorStatus.pipe(Effect.provide(context))
      yield* status.settled
      yield* status.look
    })
  )
  yield* query(database.superuserUrl, "update platform.installation set source = null")
})

layer(Layer.empty, { excludeTestServices: true })("what another source has", (it) => {
  it.effect("is taken over by the annotation that names that source, with its records, and by nothing else", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const [thing, dom] = [definition(org, "thing"), domain(org)]
      const trust = [strategy(`${org}-shop`, "keys", { type: "apikey" }), binding(org, "alice")]
      yield* fromFolder(database, [...parents(org), thing, ...trust])
      yield* startReplica(database)
      yield* fill(database, "thing")
      const rows = query(
        database.superuserUrl,
        `select source, serving is not null as served, (pg_schema || '.' || pg_table)::regclass::oid::int8::text as oid
         from platform.schema_defs where path = $1`,
        [`${org}/shop/eu/thing/v1`]
      )
      const [before] = yield* rows
      expect(before).toMatchObject({ source: "folder", served: true })
      yield* apply(...namespacesOf(org), ...parents(org), thing, ...trust)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })

      const notAdopted = (one: Manifest) =>
        readyIs(one, "is not adopted", ({ reason, status }) => status === "False" && reason === "NotAdopted")
      expect((yield* notAdopted(dom))?.message).toBe(
        `${org}/shop/eu belongs to the source folder; this is ${yield* ok("get", "namespace", "kube-system", "-o", "jsonpath={.metadata.uid}")}: velocity.sh/adopt: folder takes it over`
      )
      yield* annotate(dom, "velocity.sh/adopt=another")
      yield* annotate(dom, "velocity.sh/adopt=folder")
      yield* ready(dom)
      yield* notAdopted(thing)
      // deleting what was never its own takes nothing away
      yield* remove(thing)
      yield* isGone(thing)
      expect(yield* rows).toEqual([before])
      yield* apply(thing)
      yield* notAdopted(thing)
      yield* annotate(thing, "velocity.sh/adopt=folder")
      yield* ready(thing)
      const [after] = yield* rows
      expect(after).toMatchObject({ served: true, oid: before?.oid })
      expect(after?.source).not.toBe("folder")
      expect(yield* records(database, "thing")).toBe(3)
      // its own from now on: the annotation may go
      const generation = (yield* condition(thing, "Ready"))?.observedGeneration
      yield* annotate(thing, "velocity.sh/adopt-")
      yield* annotate(dom, "velocity.sh/adopt-")
      yield* apply(
        definition(org, "thing", {
          fields: [
            { name: "a", type: "string" },
            { name: "b", type: "string" }
          ]
        })
      )
      yield* readyIs(
        thing,
        "is changed",
        (one) => one.status === "True" && one.observedGeneration === (generation ?? 0) + 1
      )
      // whom to trust and who may what, too: nothing is taken over by being the same
      const others = query(
        database.superuserUrl,
        `select id as of, source = 'folder' as theirs from platform.auth_strategies where source is not null
         union all select actor, source = 'folder' from platform.role_bindings where chain = $1 order by 1`,
        [`${org}/shop/eu`]
      )
      const said = (theirs: boolean) => [
        { of: "development/alice", theirs },
        { of: `${org}-shop:keys`, theirs }
      ]
      for (const one of trust) yield* notAdopted(one)
      expect(yield* others).toEqual(said(true))
      for (const one of trust) {
        yield* annotate(one, "velocity.sh/adopt=folder")
        yield* ready(one)
      }
      expect(yield* others).toEqual(said(false))
      for (const one of trust) {
        yield* remove(one)
        yield* isGone(one)
      }
      expect(yield* others).toEqual([])
      expect(yield* ok("get", "vdom", "eu", "-n", `${org}-shop`)).toMatch(/ True +Provisioned/u)
    })
  )
})
