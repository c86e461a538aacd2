/** Alerts are seen where people look in a cluster: on the Domain whose log they are about, and on Velocity's namespace. */
import { it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer } from "effect"
import { afterAll, beforeAll, describe, expect } from "vitest"
import { builtinRules } from "../../src/domain/AnomalyRule.ts"
import { configOf, Kube } from "../../src/kubernetes/Kube.ts"
import * as AnomalyEvents from "../../src/operator/anomaly/AnomalyEvents.ts"
import * as AnomalyScanner from "../../src/operator/anomaly/AnomalyScanner.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { wrote } from "../operator/AnomalyWorld.ts"
import { configOf as databaseConfig, freshDatabase, query } from "../support/Database.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { namespacesOf, parents } from "./Manifests.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

describe("an alert", () => {
  it.live("is an Event on its Domain, or on velocity-system where it is the platform's", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const chain = `${org}/shop/eu`
        yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...parents(org)]))
        const domain = ["vdom/eu", "-n", `${org}-shop`]
        yield* Effect.scoped(
          Effect.andThen(
            startOperator({ database, kubeconfig: cluster.kubeconfig }),
            Effect.promise(() => cluster.ok(["wait", "--for=condition=Ready", ...domain, "--timeout=60s"]))
          )
        )
        // a lane of their own: what is in another is later than they are
        const [free] = yield* query(
          database.superuserUrl,
          "select n::int4 as lane from generate_series(0, 31) n where n not in (select lane from platform.audit_log) limit 1"
        )
        const denials = (of: string) =>
          Array.from({ length: 25 }, (_, index) => ({
            chain: of,
            lane: Number(free?.lane),
            actor: "dev/eve",
            outcome: "denied",
            at: Date.now() - 120_000 + index
          }))
        yield* wrote(database, [...denials(chain), ...denials("platform")])
        const [installation] = yield* query(database.superuserUrl, "select source from platform.installation")
        const kube = Kube.layerOf(yield* Effect.promise(() => configOf(cluster.kubeconfig)))
        const services = AnomalyEvents.layer.pipe(
          Layer.provideMerge(Fence.layerOf({ holder: "test", source: String(installation?.source) })),
          Layer.provide(OperatorSql.layer),
          Layer.provide(kube),
          Layer.provide(ConfigProvider.layer(databaseConfig(database)))
        )
        const told = Effect.gen(function* () {
          const { alerts } = yield* AnomalyScanner.scan({ rules: builtinRules, endpoints: [], now: Date.now() })
          expect(alerts).toHaveLength(2)
          yield* Effect.promise(() =>
            until("describe shows the alert", async () =>
              /Warning +AnomalyAlert .*repeated_denials: .*dev\/eve in .*\/shop\/eu, counted 25 of 20 allowed/u.test(
                await cluster.ok(["describe", ...domain])
              )
            )
          )
          yield* Effect.promise(() =>
            until("the platform's is on its namespace", async () =>
              (await cluster.ok(["get", "events", "-n", "velocity-system"])).includes("dev/eve in platform")
            )
          )
          // it was told; the next scan finds nothing new
          const again = yield* AnomalyScanner.scan({ rules: builtinRules, endpoints: [], now: Date.now() })
          expect(again.alerts).toEqual([])
        })
        yield* told.pipe(Effect.provide(services))
      })
    )
  )
})
