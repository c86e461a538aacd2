/**
 * Alerts as Kubernetes Events: on the Domain whose log they are about, so that `kubectl describe vdom` shows them, or on
 * Velocity's own namespace where they are about the platform. The alert says more, and to those alone who may read the log.
 */
import { Effect, Layer } from "effect"
import { velocityNamespace } from "../../domain/AuthStrategy.ts"
import { group } from "../../kubernetes/CustomResources.ts"
import * as Events from "../../kubernetes/Events.ts"
import { Kube } from "../../kubernetes/Kube.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence } from "../state/Fence.ts"
import { AlertEvents, type Raised } from "./AnomalyAlerts.ts"

/** Where an alert is told of; undefined where the cluster has no such object. */
const regardingOf = Effect.fnUntraced(function* (chain: string) {
  const fence = yield* Fence
  const kube = yield* Kube
  const { rows } = yield* fence.read((tx) =>
    tx.query(
      statement("select namespace, name, uid from platform.domains where chain = $1 and uid is not null", [chain])
    )
  )
  const [domain] = rows
  if (domain !== undefined) {
    const { name, namespace, uid } = domain
    return {
      apiVersion: `${group}/v1`,
      kind: "Domain",
      namespace: String(namespace),
      name: String(name),
      uid: String(uid)
    }
  }
  const path = `/api/v1/namespaces/${velocityNamespace}`
  const { metadata } = (yield* kube.request({ method: "GET", path })) as { readonly metadata: { readonly uid: string } }
  const name = velocityNamespace
  return { apiVersion: "v1", kind: "Namespace", namespace: name, name, uid: metadata.uid }
})

const noteOf = ({ actor, chain, counted, id, rule }: Raised): string =>
  `${rule.name}: ${rule.title}; ${actor ?? "several actors"} in ${chain}, counted ${counted} of ${rule.threshold} allowed (alert ${id})`

/** See the module. An event that cannot be told is no failure of the scan. */
export const layer = Layer.effect(
  AlertEvents,
  Effect.gen(function* () {
    const fence = yield* Fence
    const kube = yield* Kube
    const tell = yield* Events.make
    return (raised: Raised) =>
      regardingOf(raised.chain).pipe(
        Effect.flatMap((regarding) =>
          tell({ regarding, type: "Warning", reason: "AnomalyAlert", note: noteOf(raised) })
        ),
        Effect.provideService(Fence, fence),
        Effect.provideService(Kube, kube),
        Effect.catch((error) => Effect.logWarning(`no event of the alert ${raised.id}: ${error.message}`))
      )
  })
)
