/**
 * An etcd that is restored from an older copy: its versions are lower than those that the operator has seen. What the API
 * server says then is how things are, and what is deleted then is ended.
 */
import { cp, rm } from "node:fs/promises"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { binding, definition, namespacesOf, parents } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, isGone, read, ready, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const fields = (...names: ReadonlyArray<string>) => ({ fields: names.map((name) => ({ name, type: "string" })) })

layer(Layer.empty, { excludeTestServices: true })("an etcd that is restored from an older copy", (it) => {
  it.effect("is believed: a change is carried out, and a binding that is deleted is revoked", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const alice = binding(org, "alice")
      yield* apply(...namespacesOf(org), ...parents(org), definition(org, "thing", fields("a")), alice)
      // longer than everything here: the Lease is not what this is about
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig, lease: Duration.minutes(30) })
      yield* ready(definition(org, "thing"))
      yield* ready(alice)
      const copy = join(cluster.folder, "etcd.copy")
      yield* Effect.promise(() => cluster.whileDown((data) => cp(data, copy, { recursive: true })))

      // versions that will not have been
      yield* apply({ ...alice, spec: { ...(alice.spec as object), roles: ["buyer", "auditor"] } })
      for (const name of ["b", "c", "d"]) {
        yield* apply(definition(org, "thing", fields("a", name)))
        yield* Effect.promise(() =>
          until(`${name} is a column`, async () => {
            const object = await Effect.runPromise(read(definition(org, "thing")))
            return object?.status?.observedGeneration === object?.metadata.generation
          })
        )
      }
      const seen = Number((yield* read(definition(org, "thing")))?.metadata.resourceVersion)
      yield* Effect.promise(() =>
        cluster.whileDown(async (data) => {
          await rm(data, { recursive: true })
          await cp(copy, data, { recursive: true })
        })
      )

      yield* apply(definition(org, "thing", { ...fields("a"), description: "as it was, and a word more" }))
      const changed = yield* read(definition(org, "thing"))
      expect(Number(changed?.metadata.resourceVersion)).toBeLessThan(seen)
      yield* remove(alice)
      yield* isGone(alice)
      expect(
        yield* query(database.superuserUrl, "select actor from platform.role_bindings where revoked_at is null")
      ).toEqual([])
      yield* Effect.promise(() =>
        until("the change was seen", async () => {
          const object = await Effect.runPromise(read(definition(org, "thing")))
          return object?.status?.observedGeneration === object?.metadata.generation
        })
      )
    })
  )
})
