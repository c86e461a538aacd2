/** Hundreds of definitions at once: how long until all are Ready is printed, and that nothing is written afterwards is kept. */
import { layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import type { KubeRequest } from "../../src/kubernetes/Kube.ts"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { versionsOf } from "../support/Shape.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { definition, namespacesOf, parents } from "./Manifests.ts"

/** The bench asks for a thousand. */
const count = Number(process.env.VELOCITY_SCALE ?? 300)

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

layer(Layer.empty, { excludeTestServices: true })("many definitions", (it) => {
  it.effect(
    `${count} become Ready, and then nothing is written, not when the operator starts again either`,
    () =>
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
        const things = Array.from({ length: count }, (_, index) => definition(org, `thing${index}`))
        yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...parents(org), ...things]))
        const before = process.memoryUsage.rss()
        const since = performance.now()
        const life = yield* Scope.make()
        const operator = yield* startOperator({ database, kubeconfig: cluster.kubeconfig, through }).pipe(
          Scope.provide(life)
        )
        yield* Effect.promise(() =>
          until(
            "all are Ready",
            async () => {
              const shown = await cluster.ok([
                ...["get", "vsd", "-n", `${org}-shop-eu`, "-o"],
                'jsonpath={.items[*].status.conditions[?(@.type=="Ready")].status}'
              ])
              return shown.split(" ").filter((one) => one === "True").length === count
            },
            1_000 * count
          )
        )
        const seconds = (performance.now() - since) / 1000
        const grown = (process.memoryUsage.rss() - before) / 1024 / 1024
        console.log(
          `${count} definitions Ready after ${seconds.toFixed(1)} s; ${grown.toFixed(0)} MiB more; ${writes.length} writes to the API server`
        )
        yield* operator.look
        const tables = "select count(*)::int4 as n from pg_catalog.pg_tables where schemaname = $1"
        expect(yield* query(database.operatorUrl, tables, [`${org}_shop_eu`])).toEqual([{ n: count }])

        yield* Scope.close(life, Exit.void)
        writes.length = 0
        const {
          "platform.operator_term": _,
          "platform.replicas": beats,
          ...one
        } = yield* versionsOf(database.superuserUrl, org)
        const again = yield* startOperator({ database, kubeconfig: cluster.kubeconfig, through })
        yield* again.settled
        yield* again.look
        const {
          "platform.operator_term": __,
          "platform.replicas": ___,
          ...two
        } = yield* versionsOf(database.superuserUrl, org)
        expect(writes).toEqual([])
        expect(beats).toBeDefined()
        expect(two).toEqual(one)
      }),
    2_000 * count
  )
})
