/**
 * The operator of a cluster: one of several that stand by, elected by a Lease, with reconcilers fed from the API server.
 * Taking the Lease takes a term in Postgres, so that a leader which was stopped and goes on can write nothing.
 */
import { randomUUID } from "node:crypto"
import { hostname } from "node:os"
import { Config, type Duration, Effect, Layer } from "effect"
import { keyEnvironmentConfig } from "../access/KeyAuthenticator.ts"
import { velocityNamespace } from "../domain/AuthStrategy.ts"
import { Kube, type KubeError } from "../kubernetes/Kube.ts"
import { Leadership } from "../kubernetes/Leadership.ts"
import * as AnomalyEvents from "./anomaly/AnomalyEvents.ts"
import * as Controller from "./control/Controller.ts"
import { schedules } from "./Operator.ts"
import * as ClusterSource from "./source/ClusterSource.ts"
import { Fence } from "./state/Fence.ts"
import { OperatorStatus } from "./state/OperatorStatus.ts"

export interface ClusterOperatorOptions {
  /** Watched beside Velocity's own; undefined: all. */
  readonly namespaces: ReadonlyArray<string> | undefined
  /** How long its Lease lasts (15 s). */
  readonly lease?: Duration.Duration | undefined
}

/** `VELOCITY_WATCH_NAMESPACES`: a list; all where it says nothing. */
export const watchedNamespaces: Config.Config<ReadonlyArray<string> | undefined> = Config.String(
  "VELOCITY_WATCH_NAMESPACES"
).pipe(
  Config.withDefault(""),
  Config.map((text) => {
    const names = text
      .split(",")
      .map((one) => one.trim())
      .filter((one) => one !== "")
    return names.length === 0 ? undefined : names
  })
)

/** What tells this cluster from every other: the uid of its kube-system, which lives as long as it does. */
const clusterId: Effect.Effect<string, KubeError, Kube> = Effect.flatMap(Kube, (kube) =>
  Effect.map(kube.request({ method: "GET", path: "/api/v1/namespaces/kube-system" }), (found) =>
    String((found as { readonly metadata?: { readonly uid?: string } }).metadata?.uid)
  )
)

/** Builds for as long as it leads: one that loses its Lease while it waits for a database ends, and does not go on waiting. */
const whileLeading = <A, E, R>(layer: Layer.Layer<A, E, R>) =>
  Layer.effectContext(
    Effect.gen(function* () {
      const { lost } = yield* Leadership
      return yield* Effect.raceFirst(Layer.build(layer), lost)
    })
  )

/** See the module. Waits until it is elected; needs a `Kube`. */
export const layer = ({ lease, namespaces }: ClusterOperatorOptions) => {
  const holder = `${hostname()}_${randomUUID()}`
  const leadership = Leadership.layerOf({
    namespace: velocityNamespace,
    name: "velocity-operator",
    identity: holder,
    duration: lease
  })
  const fence = Layer.unwrap(
    Effect.gen(function* () {
      const { isTrusted } = yield* Leadership
      return Fence.layerOf({ holder, source: yield* clusterId, isTrusted })
    })
  )
  const status = Layer.effect(
    OperatorStatus,
    Effect.gen(function* () {
      const kube = yield* Kube
      return yield* Controller.make({
        source: (known) => ClusterSource.make({ namespaces, known }).pipe(Effect.provideService(Kube, kube)),
        fallbackStrategy: undefined,
        keyEnvironment: yield* keyEnvironmentConfig,
        generations: "server"
      })
    })
  )
  const work = Layer.merge(status, schedules.pipe(Layer.provide(AnomalyEvents.layer))).pipe(Layer.provide(fence))
  return whileLeading(work).pipe(Layer.provideMerge(leadership))
}
