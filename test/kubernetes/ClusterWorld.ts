/** An operator of a cluster over a database of its own, in this process. */
import { ConfigProvider, type Duration, Effect, Layer, Scope } from "effect"
import { configOf, Kube } from "../../src/kubernetes/Kube.ts"
import * as ClusterOperator from "../../src/operator/ClusterOperator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { configOf as databaseConfig, type TestDatabase } from "../support/Database.ts"

export interface OperatorOptions {
  readonly database: TestDatabase
  readonly kubeconfig: string
  readonly namespaces?: ReadonlyArray<string>
  readonly lease?: Duration.Duration
  /** Alters how it speaks to the API server. */
  readonly through?: (kube: Kube["Service"]) => Kube["Service"]
}

/** Runs one until the scope closes; answers when it is elected. */
export const startOperator = Effect.fnUntraced(function* (options: OperatorOptions) {
  const scope = yield* Scope.Scope
  const config = yield* Effect.promise(() => configOf(options.kubeconfig))
  const through = options.through ?? ((kube) => kube)
  const kube = Layer.effect(Kube, Effect.map(Kube, through)).pipe(Layer.provide(Kube.layerOf(config)))
  const context = yield* Layer.buildWithScope(
    ClusterOperator.layer({ namespaces: options.namespaces, lease: options.lease }).pipe(
      Layer.provide(Layer.merge(kube, OperatorSql.layer)),
      Layer.provide(ConfigProvider.layer(databaseConfig(options.database)))
    ),
    scope
  )
  return yield* OperatorStatus.pipe(Effect.provide(context))
})
