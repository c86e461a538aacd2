/**
 * The operator on a real API server and a real Postgres: what is applied, in whatever order, becomes Ready; what is deleted
 * goes through its finalizer; what vanishes is no deletion; and where nothing changes nothing is written.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { afterAll, beforeAll, expect } from "vitest"
import type { KubeRequest } from "../../src/kubernetes/Kube.ts"
import { finalizer } from "../../src/kubernetes/ObjectWrites.ts"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { versionsOf } from "../support/Shape.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import {
  apiKey,
  application,
  binding,
  definition,
  domain,
  type Manifest,
  namespacesOf,
  organisation,
  parents,
  strategy
} from "./Manifests.ts"
import { conditionIn, named, objectsOf } from "./Objects.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const { apply, conditionIs, force, isGone, ok, read: get, ready, readyIs, remove } = objectsOf(() => cluster)
const promise = <A>(f: () => Promise<A>) => Effect.promise(f)
const reasonIs = (one: Manifest, what: string) => readyIs(one, `is ${what}`, ({ reason }) => reason === what)

layer(Layer.empty, { excludeTestServices: true })("the operator of a cluster", (it) => {
  it.effect("says in status, events and describe what a person needs", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      yield* apply(...namespacesOf(org), ...parents(org), definition(org, "thing"), binding(org, "alice"))
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      const thing = definition(org, "thing")
      yield* ready(thing)
      yield* ready(binding(org, "alice"))
      expect((yield* get(thing))?.status?.pgTable).toBe(`${org}_shop_eu.thing_v1`)
      expect(yield* ok("get", "vsd", "-n", `${org}-shop-eu`)).toMatch(
        new RegExp(`thing +${org}/shop/eu/thing/v1 +True +Provisioned`, "u")
      )
      // a change that cannot be made: Ready turns, with the reason, for the new generation
      yield* apply(definition(org, "thing", { fields: [{ name: "a", type: "integer" }] }))
      yield* readyIs(thing, "is judged", ({ observedGeneration }) => observedGeneration === 2)
      const read = yield* get(thing)
      expect(conditionIn(read, "Ready")).toMatchObject({ status: "False" })
      expect(read?.status?.observedGeneration).toBe(2)
      yield* promise(() =>
        until("describe shows the events", async () => {
          const text = await cluster.ok(["describe", ...named(thing)])
          return (
            /Provisioned/u.test(text) &&
            /Warning|Normal/u.test(text) &&
            text.includes(String(conditionIn(read, "Ready")?.reason))
          )
        })
      )
    })
  )

  it.effect("writes nothing to either server where nothing has changed", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const writes: Array<string> = []
      const through = (kube: Parameters<NonNullable<Parameters<typeof startOperator>[0]["through"]>>[0]) => ({
        ...kube,
        request: (asked: KubeRequest) => {
          if (asked.method !== "GET" && !asked.path.includes("/leases")) writes.push(`${asked.method} ${asked.path}`)
          return kube.request(asked)
        }
      })
      const all = [...parents(org), definition(org, "thing"), binding(org, "alice")]
      yield* apply(...namespacesOf(org), ...all)
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* startOperator({ database, kubeconfig: cluster.kubeconfig, through })
          for (const one of all) yield* ready(one)
        })
      )
      expect(writes.length).toBeGreaterThan(0)
      writes.length = 0
      // heartbeats go on
      const {
        "platform.operator_term": _,
        "platform.replicas": beats,
        ...before
      } = yield* versionsOf(database.superuserUrl, org)
      expect(beats).toBeDefined()
      const again = yield* startOperator({ database, kubeconfig: cluster.kubeconfig, through })
      yield* again.settled
      yield* again.look
      const {
        "platform.operator_term": __,
        "platform.replicas": ___,
        ...after
      } = yield* versionsOf(database.superuserUrl, org)
      expect(writes).toEqual([])
      expect(after).toEqual(before)
    })
  )

  it.effect("holds what is deleted until its parts are gone, and keeps the data", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const [thing, dom] = [definition(org, "thing"), domain(org)]
      yield* apply(...namespacesOf(org), ...parents(org), thing)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* ready(thing)
      yield* remove(dom)
      const waiting = yield* reasonIs(dom, "HasChildren")
      expect(waiting?.message).toContain(`SchemaDefinition/${org}-shop-eu/thing`)
      expect((yield* get(dom))?.metadata.deletionTimestamp).toBeDefined()
      yield* remove(thing)
      yield* isGone(thing)
      yield* isGone(dom)
      const tables =
        "select count(*)::int4 as n from pg_catalog.pg_tables where schemaname = $1 and tablename = 'thing_v1'"
      expect(yield* query(database.operatorUrl, tables, [`${org}_shop_eu`])).toEqual([{ n: 1 }])
      expect(
        yield* query(
          database.operatorUrl,
          "select serving is null as shut from platform.schema_defs where path like $1 || '/%'",
          [org]
        )
      ).toEqual([{ shut: true }])
    })
  )

  it.effect("takes what vanishes for no deletion: bindings end at once, others are served on, and counted", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const [thing, alice] = [definition(org, "thing"), binding(org, "alice")]
      yield* apply(...namespacesOf(org), ...parents(org), thing, alice)
      const served = query(
        database.operatorUrl,
        "select path from platform.schema_defs where serving is not null and path like $1 || '/%'",
        [org]
      )
      const bound = query(
        database.operatorUrl,
        "select actor from platform.role_bindings where revoked_at is null and chain like $1 || '/%'",
        [org]
      )
      // once while it looks, once while it does not
      yield* Effect.scoped(
        Effect.gen(function* () {
          yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
          yield* ready(thing)
          yield* ready(alice)
          yield* force(alice)
          yield* promise(() => until("the binding ends", async () => (await Effect.runPromise(bound)).length === 0))
          yield* apply(alice)
          yield* ready(alice)
        })
      )
      yield* force(thing)
      yield* force(alice)
      const again = yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* again.settled
      yield* again.look
      expect(yield* bound).toEqual([])
      expect(yield* served).toEqual([{ path: `${org}/shop/eu/thing/v1` }])
      const orphans = Effect.map(PrometheusMetrics.format(), (text) => /^velocity_orphans (\d+)$/mu.exec(text)?.[1])
      expect(yield* orphans).toBe("1")
      // the same name again is the same owner, whatever its uid
      yield* apply(thing)
      yield* ready(thing)
      expect(yield* served).toEqual([{ path: `${org}/shop/eu/thing/v1` }])
      expect(yield* orphans).toBe("0")
    })
  )

  it.effect("comes through while others write the same objects all the time", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const things = Array.from({ length: 10 }, (_, index) => definition(org, `thing${index}`))
      yield* apply(...namespacesOf(org), ...parents(org), ...things)
      let isOver = false
      const storm = async () => {
        for (let turn = 0; !isOver; turn++) {
          await cluster.kubectl(["annotate", "--overwrite", "vsd", "--all", "-n", `${org}-shop-eu`, `storm=${turn}`])
        }
      }
      const storming = storm()
      yield* Effect.addFinalizer(() =>
        promise(async () => {
          isOver = true
          await storming
        })
      )
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      for (const one of things) yield* ready(one)
      yield* promise(() => {
        isOver = true
        return storming
      })
      const left = yield* Effect.forEach(things, get)
      expect(left.map((one) => one?.metadata.finalizers)).toEqual(things.map(() => [finalizer]))
    })
  )

  it.effect("gives a path to one of two, and the other no finalizer", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const first = definition(org, "thing")
      const second = { ...first, metadata: { ...first.metadata, name: "another" } }
      yield* apply(...namespacesOf(org), ...parents(org), first)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* ready(first)
      yield* apply(second)
      const refused = yield* reasonIs(second, "PathConflict")
      expect(refused?.message).toBe(`${org}/shop/eu/thing/v1 is kept by ${org}-shop-eu/thing`)
      expect((yield* get(second))?.metadata.finalizers).toBeUndefined()
      yield* remove(second)
      yield* isGone(second)
      expect(conditionIn(yield* get(first), "Ready")?.status).toBe("True")
      expect(
        yield* query(
          database.operatorUrl,
          "select path from platform.schema_defs where serving is not null and path like $1 || '/%'",
          [org]
        )
      ).toHaveLength(1)
    })
  )

  it.effect("leaves a path to the one that is served on it while it waits for an approval", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const fields = ["a", "b"].map((name) => ({ name, type: "string" }))
      const first = definition(org, "thing", { fields })
      yield* apply(...namespacesOf(org), ...parents(org), first)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* ready(first)
      yield* query(
        database.superuserUrl,
        `insert into ${org}_shop_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a, b)
         values (gen_random_uuid(), now(), 'x', now(), 'x', 'a', 'b')`
      )
      const fewer = definition(org, "thing", { fields: fields.slice(0, 1) })
      yield* apply(fewer)
      const waits = yield* reasonIs(first, "ApprovalRequired")
      // it is before the other one by name
      const second = { ...fewer, metadata: { ...fewer.metadata, name: "another" } }
      yield* apply(second)
      yield* reasonIs(second, "PathConflict")
      expect((yield* get(second))?.metadata.finalizers).toBeUndefined()
      const hash = /approve-plan is (\w+)/u.exec(waits?.message ?? "")?.[1]
      yield* ok("annotate", ...named(first), `velocity.sh/approve-plan=${hash}`, "velocity.sh/approved-by=admin")
      yield* ready(first)
      expect(conditionIn(yield* get(second), "Ready")?.reason).toBe("PathConflict")
    })
  )

  it.effect(
    "compares the namespace again, whatever a policy has let through, and looks again when its labels change",
    () =>
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        yield* startReplica(database)
        const thing = definition(org, "thing")
        yield* apply(...namespacesOf(org), ...parents(org), thing)
        const label = (value: string) =>
          promise(() =>
            cluster.ok(["label", "--overwrite", "namespace", `${org}-shop-eu`, `velocity.sh/domain=${value}`])
          )
        yield* label("us")
        yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
        const refused = yield* reasonIs(thing, "NamespaceMismatch")
        expect(refused?.message).toBe(
          `the namespace ${org}-shop-eu belongs to ${org}/shop/us, the resource says ${org}/shop/eu`
        )
        expect((yield* get(thing))?.metadata.finalizers).toBeUndefined()
        expect(
          yield* query(database.operatorUrl, "select path from platform.schema_defs where path like $1 || '/%'", [org])
        ).toEqual([])
        yield* label("eu")
        yield* ready(thing)
      })
  )

  it.effect("ends what opens something where its namespace is given to another path, and serves definitions on", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const keys = strategy(`${org}-shop`, "keys", { type: "apikey" })
      const [thing, alice] = [definition(org, "thing"), binding(org, "alice", { actorId: `${org}-shop:keys/alice` })]
      const robot = apiKey(org, "robot", { actor: `${org}-shop:keys/robot` })
      yield* apply(
        ...namespacesOf(org),
        organisation(org),
        application(org),
        keys,
        domain(org, { authStrategy: "keys" }),
        thing,
        alice,
        robot
      )
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      for (const one of [thing, alice, robot]) yield* ready(one)
      const label = (value: string) =>
        ok("label", "--overwrite", "namespace", `${org}-shop-eu`, `velocity.sh/domain=${value}`)
      const opens = Effect.map(
        query(
          database.superuserUrl,
          `select actor from platform.role_bindings where chain = $1 and revoked_at is null
           union all select actor || ' in ' || secret_name from platform.api_keys where chain = $1 and state <> 'Revoked' order by 1`,
          [`${org}/shop/eu`]
        ),
        (rows) => rows.map((row) => String(row.actor).slice(`${org}-shop:`.length))
      )
      expect(yield* opens).toEqual(["keys/alice", "keys/robot in robot"])
      yield* label("us")
      for (const one of [thing, alice, robot]) yield* reasonIs(one, "NamespaceMismatch")
      expect(yield* opens).toEqual([])
      expect((yield* get(thing))?.status?.conditions?.find(({ type }) => type === "Serving")).toMatchObject({
        status: "True"
      })
      yield* label("eu")
      for (const one of [thing, alice, robot]) yield* ready(one)
      expect(yield* opens).toEqual(["keys/alice", "keys/robot in robot-2"])
    })
  )

  it.effect("keeps what an object was when it turns bad in a way that the API server cannot see, and lets it go", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const alice = (more: object) => binding(org, "alice", more)
      const invalid = { expiresAt: "2099-02-31T12:00:00Z" }
      yield* apply(...namespacesOf(org), ...parents(org), alice(invalid))
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      const refused = yield* reasonIs(alice({}), "ManifestInvalid")
      expect(refused?.message).toContain("/spec/expiresAt: there is no such time")
      yield* apply(alice({ expiresAt: "2099-02-28T12:00:00Z" }))
      yield* ready(alice({}))
      yield* apply(alice(invalid))
      yield* conditionIs(alice({}), "Stalled", "is stalled", ({ status }) => status === "True")
      const read = yield* get(alice({}))
      expect(read?.status?.observedGeneration).toBe(3)
      expect(conditionIn(read, "Ready")).toMatchObject({ status: "True", observedGeneration: 2 })
      const bound =
        "select expires_at::text like '2099-02-28%' as kept from platform.role_bindings where chain like $1 || '/%'"
      expect(yield* query(database.operatorUrl, bound, [org])).toEqual([{ kept: true }])
      yield* remove(alice({}))
      yield* isGone(alice({}))
      expect(yield* query(database.operatorUrl, bound, [org])).toEqual([])
    })
  )

  it.effect("looks at the watched namespaces alone", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const other = `${org}b`
      yield* apply(
        ...namespacesOf(org),
        ...namespacesOf(other),
        ...parents(org),
        organisation(other),
        application(other)
      )
      yield* startOperator({
        database,
        kubeconfig: cluster.kubeconfig,
        namespaces: [org, `${org}-shop`, `${org}-shop-eu`]
      })
      yield* ready(domain(org))
      expect((yield* get(application(other)))?.status).toBeUndefined()
    })
  )
})
