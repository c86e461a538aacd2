/**
 * A binding and a key that are deleted end at once, whatever else the operator is at: here every one of its other workers, a
 * Domain's among them, stands still in the middle of its work, as it would behind a lock or an API server that answers late.
 * How long it took is printed and not judged; that it came before the others went on is.
 */
import { layer } from "@effect/vitest"
import { Deferred, Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import type { Kube } from "../../src/kubernetes/Kube.ts"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import {
  apiKey,
  application,
  binding,
  definition,
  domain,
  type Manifest,
  namespace,
  namespacesOf,
  organisation,
  strategy
} from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, condition, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** Holds what an operator writes of Domains and definitions to the API server, while it is shut. */
const gateOf = () => {
  let opened: Deferred.Deferred<void> | undefined
  const held = new Set<string>()
  const holds = /\/(?:domains|schemadefinitions)\//u
  return {
    held,
    shut: Effect.sync(() => {
      opened = Deferred.makeUnsafe<void>()
    }),
    open: Effect.suspend(() => (opened === undefined ? Effect.void : Deferred.succeed(opened, undefined))),
    through: (kube: Kube["Service"]): Kube["Service"] => ({
      ...kube,
      request: (asked) =>
        Effect.suspend(() => {
          if (opened === undefined || asked.method !== "PATCH" || !holds.test(asked.path)) return kube.request(asked)
          held.add(asked.path)
          return Effect.andThen(Deferred.await(opened), kube.request(asked))
        })
    })
  }
}

layer(Layer.empty, { excludeTestServices: true })("a revocation", (it) => {
  it.effect("is in force before anything else that the operator is at comes to its end", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const names = ["eu", "us", "uk", "ch"]
      const inDomain = (name: string, one: Manifest): Manifest => ({
        ...one,
        metadata:
          one.kind === "Domain" ? { ...one.metadata, name } : { ...one.metadata, namespace: `${org}-shop-${name}` },
        spec: { ...(one.spec as object), domain: name }
      })
      const keyed = domain(org, { authStrategy: "keys" })
      const things = names.map((name) => inDomain(name, definition(org, "thing")))
      const [alice, robot] = [
        binding(org, "alice", { actorId: `${org}-shop:keys/alice` }),
        apiKey(org, "robot", { actor: `${org}-shop:keys/robot` })
      ]
      yield* apply(
        ...namespacesOf(org),
        ...names.slice(1).map((name) => namespace(`${org}-shop-${name}`, { org, app: "shop", domain: name })),
        organisation(org),
        application(org),
        ...["keys", "others"].map((name) => strategy(`${org}-shop`, name, { type: "apikey" })),
        ...names.map((name) => inDomain(name, keyed)),
        ...things,
        alice,
        robot
      )
      const gate = gateOf()
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig, through: gate.through })
      for (const one of [...things, alice, robot]) yield* ready(one)

      yield* gate.shut
      const more = [
        { name: "a", type: "string" },
        { name: "b", type: "string" }
      ]
      const held = (what: string, count: number) =>
        Effect.promise(() =>
          until(what, async () => [...gate.held].filter((path) => path.includes(`/${what}/`)).length === count)
        )
      // each definition holds its worker, the last but one that there are
      yield* apply(...names.slice(1).map((name) => inDomain(name, definition(org, "thing", { fields: more }))))
      yield* held("schemadefinitions", 3)
      yield* apply(domain(org, { authStrategy: "others" }))
      yield* held("domains", 1)
      const began = performance.now()
      yield* remove(alice)
      yield* remove(robot)
      const granted = query(
        database.superuserUrl,
        `select actor from platform.role_bindings where chain like $1 || '/%' and revoked_at is null
         union all select actor from platform.api_keys where chain like $1 || '/%' and revoked_at is null`,
        [org]
      )
      yield* Effect.promise(() => until("both have ended", async () => (await Effect.runPromise(granted)).length === 0))
      console.log(`both revoked ${Math.round(performance.now() - began)} ms after kubectl was started to delete them`)
      expect(gate.held.size).toBe(4)
      yield* gate.open
      yield* readyIs(
        domain(org),
        "goes on",
        ({ observedGeneration, status }) => status === "True" && observedGeneration === 2
      )
      for (const one of things.slice(1)) {
        yield* readyIs(one, "goes on", (found) => found.status === "True" && found.observedGeneration === 2)
      }
      expect(yield* condition(domain(org), "Ready")).toMatchObject({ message: expect.stringContaining(":others") })
    })
  )
})
