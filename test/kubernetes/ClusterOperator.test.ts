/**
 * The operator on a real API server and a real Postgres: what is applied, in whatever order, becomes Ready; what is deleted
 * goes through its finalizer; what vanishes is no deletion; and where nothing changes nothing is written.
 */
import { layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
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
  application,
  binding,
  definition,
  domain,
  isOurs,
  type Manifest,
  namespacesOf,
  organisation,
  parents,
  samples
} from "./Manifests.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const named = (one: Manifest) => [
  `${one.kind.toLowerCase()}.velocity.sh/${one.metadata.name}`,
  "-n",
  String(one.metadata.namespace)
]

interface Read {
  readonly metadata: {
    readonly generation: number
    readonly resourceVersion: string
    readonly finalizers?: ReadonlyArray<string>
    readonly deletionTimestamp?: string
  }
  readonly status?: {
    readonly observedGeneration?: number
    readonly pgTable?: string
    readonly conditions?: ReadonlyArray<{
      readonly type: string
      readonly status: string
      readonly reason: string
      readonly message: string
      readonly observedGeneration: number
    }>
  }
}

const get = async (one: Manifest): Promise<Read | undefined> => {
  const { code, err, out } = await cluster.kubectl(["get", ...named(one), "-o", "json"])
  if (code !== 0 && err.includes("NotFound")) return undefined
  if (code !== 0) throw new Error(err)
  return JSON.parse(out) as Read
}
const conditionOf = (read: Read | undefined, type: string) => read?.status?.conditions?.find((one) => one.type === type)

const promise = <A>(f: () => Promise<A>) => Effect.promise(f)
const apply = (...manifests: ReadonlyArray<Manifest>) => promise(() => cluster.apply(manifests))
const ready = (one: Manifest) =>
  promise(() => cluster.ok(["wait", "--for=condition=Ready", "--timeout=60s", ...named(one)]))
const reasonIs = (one: Manifest, reason: string) =>
  promise(async () => {
    await until(
      `${one.kind} ${one.metadata.name} is ${reason}`,
      async () => conditionOf(await get(one), "Ready")?.reason === reason
    )
    return conditionOf(await get(one), "Ready")
  })
const remove = (one: Manifest) => promise(() => cluster.ok(["delete", "--wait=false", ...named(one)]))
const isGone = (one: Manifest) =>
  promise(() => until(`${one.metadata.name} is gone`, async () => (await get(one)) === undefined))

/** Kinds in an order that a seed gives. */
const shuffled = <A>(items: ReadonlyArray<A>, seed: number): ReadonlyArray<A> => {
  let state = seed
  const next = () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
  return items
    .map((item) => [next(), item] as const)
    .sort((a, b) => a[0] - b[0])
    .map(([, item]) => item)
}

layer(Layer.empty, { excludeTestServices: true })("the operator of a cluster", (it) => {
  it.effect("makes the samples Ready in any order of kinds, restarted in between, and deletes them in any order", () =>
    Effect.gen(function* () {
      const ours = samples.filter(isOurs)
      yield* apply(...samples.filter((one) => !isOurs(one)))
      const kinds = [...new Set(ours.map((one) => one.kind))]
      for (const seed of [1, 2, 3]) {
        const database = yield* freshDatabase
        const order = shuffled(kinds, seed)
        console.log(`seed ${seed}: ${order.join(", ")}`)
        const start = Effect.fnUntraced(function* () {
          // ends with the test, if not before
          const scope = yield* Scope.fork(yield* Scope.Scope)
          yield* startOperator({ database, kubeconfig: cluster.kubeconfig }).pipe(Scope.provide(scope))
          return Scope.close(scope, Exit.void)
        })
        let stop = yield* start()
        for (const [index, kind] of order.entries()) {
          yield* apply(
            ...shuffled(
              ours.filter((one) => one.kind === kind),
              seed
            )
          )
          if (index === 1) {
            yield* stop
            stop = yield* start()
          }
        }
        // nothing is Ready that nobody serves: the API comes last
        const types = ours.filter((one) => one.kind === "SchemaDefinition")
        for (const one of types) yield* reasonIs(one, "NoReplica")
        const served = yield* Scope.fork(yield* Scope.Scope)
        yield* startReplica(database).pipe(Scope.provide(served))
        for (const one of ours) yield* ready(one)
        for (const one of ours) {
          const read = yield* promise(() => get(one))
          expect(read?.metadata.finalizers).toEqual([finalizer])
          expect(read?.status?.observedGeneration).toBe(read?.metadata.generation)
        }
        for (const one of shuffled(ours, seed + 10)) yield* remove(one)
        for (const one of ours) yield* isGone(one)
        expect(
          yield* query(
            database.operatorUrl,
            "select count(*)::int4 as n from platform.resource_status where kind <> 'Installation'"
          )
        ).toEqual([{ n: 0 }])
        yield* stop
        yield* Scope.close(served, Exit.void)
      }
    })
  )

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
      expect((yield* promise(() => get(thing)))?.status?.pgTable).toBe(`${org}_shop_eu.thing_v1`)
      expect(yield* promise(() => cluster.ok(["get", "vsd", "-n", `${org}-shop-eu`]))).toMatch(
        new RegExp(`thing +${org}/shop/eu/thing/v1 +True +Provisioned`, "u")
      )
      // a change that cannot be made: Ready turns, with the reason, for the new generation
      yield* apply(definition(org, "thing", { fields: [{ name: "a", type: "integer" }] }))
      yield* promise(() =>
        until("the change is judged", async () => conditionOf(await get(thing), "Ready")?.observedGeneration === 2)
      )
      const read = yield* promise(() => get(thing))
      expect(conditionOf(read, "Ready")).toMatchObject({ status: "False" })
      expect(read?.status?.observedGeneration).toBe(2)
      yield* promise(() =>
        until("describe shows the events", async () => {
          const text = await cluster.ok(["describe", ...named(thing)])
          return (
            /Provisioned/u.test(text) &&
            /Warning|Normal/u.test(text) &&
            text.includes(String(conditionOf(read, "Ready")?.reason))
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
      expect((yield* promise(() => get(dom)))?.metadata.deletionTimestamp).toBeDefined()
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
      /** Gone from etcd without our doing: somebody takes our finalizer away and deletes it. */
      const force = (one: Manifest) =>
        promise(async () => {
          await cluster.ok([
            "patch",
            ...named(one),
            "--type=json",
            "-p",
            '[{"op":"remove","path":"/metadata/finalizers"}]'
          ])
          await cluster.ok(["delete", ...named(one)])
        })
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
      const refused = yield* promise(async () => {
        isOver = true
        await storming
        return (await Promise.all(things.map(get))).filter((one) => one?.metadata.finalizers?.[0] !== finalizer)
      })
      expect(refused).toEqual([])
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
      expect((yield* promise(() => get(second)))?.metadata.finalizers).toBeUndefined()
      yield* remove(second)
      yield* isGone(second)
      expect(conditionOf(yield* promise(() => get(first)), "Ready")?.status).toBe("True")
      expect(
        yield* query(
          database.operatorUrl,
          "select path from platform.schema_defs where serving is not null and path like $1 || '/%'",
          [org]
        )
      ).toHaveLength(1)
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
        expect((yield* promise(() => get(thing)))?.metadata.finalizers).toBeUndefined()
        expect(
          yield* query(database.operatorUrl, "select path from platform.schema_defs where path like $1 || '/%'", [org])
        ).toEqual([])
        yield* label("eu")
        yield* ready(thing)
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
      yield* promise(() =>
        until("it is stalled", async () => conditionOf(await get(alice({})), "Stalled")?.status === "True")
      )
      const read = yield* promise(() => get(alice({})))
      expect(read?.status?.observedGeneration).toBe(3)
      expect(conditionOf(read, "Ready")).toMatchObject({ status: "True", observedGeneration: 2 })
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
      expect((yield* promise(() => get(application(other))))?.status).toBeUndefined()
    })
  )
})
