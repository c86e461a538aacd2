/** What is counted of reconciling, under the names that controller-runtime gives it. Labels: kinds and results only. */
import { Effect, Metric } from "effect"
import { kinds } from "../../domain/Resource.ts"
import { holds } from "../state/Conditions.ts"
import type { ResourceState } from "../state/ResourceStatus.ts"

const seconds = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60]

const total = Metric.counter("controller_runtime_reconcile_total", {
  description: "Reconciliations by controller and result",
  incremental: true
})
const errors = Metric.counter("controller_runtime_reconcile_errors_total", {
  description: "Reconciliations that failed and are tried again, by controller",
  incremental: true
})
const time = Metric.histogram("controller_runtime_reconcile_time_seconds", {
  description: "How long reconciliations took, by controller",
  boundaries: seconds
})
const depthGauge = Metric.gauge("workqueue_depth", { description: "Keys that stand in the queue" })
const addsCounter = Metric.counter("workqueue_adds_total", {
  description: "Keys that came into the queue",
  incremental: true
})
const retriesCounter = Metric.counter("workqueue_retries_total", {
  description: "Keys that came into the queue again after a failure",
  incremental: true
})
const queueTime = Metric.histogram("workqueue_queue_duration_seconds", {
  description: "How long keys stood in the queue",
  boundaries: seconds
})
const workTime = Metric.histogram("workqueue_work_duration_seconds", {
  description: "How long keys were at work",
  boundaries: seconds
})
const unfinishedGauge = Metric.gauge("workqueue_unfinished_work_seconds", {
  description: "How long the keys that are at work have been so, taken together"
})
const longestGauge = Metric.gauge("workqueue_longest_running_processor_seconds", {
  description: "How long the key has been at work that has been so longest"
})
const activeGauge = Metric.gauge("controller_runtime_active_workers", {
  description: "Keys at work, by controller"
})
const problemsGauge = Metric.gauge("velocity_manifest_problems", {
  description: "Manifests that cannot be read or decoded"
})

const orphansGauge = Metric.gauge("velocity_orphans", {
  description: "What is served, or stood on, and has no resource in the cluster any more"
})

const resourcesGauge = Metric.gauge("velocity_resources", {
  description: "Resources by kind and state: ready, progressing, stalled"
})
const resourceStates = ["ready", "progressing", "stalled"] as const

const name = { name: "velocity" }

/** What has not happened yet is 0 and not absent: the first time is an increase. */
export const began = Effect.all(
  [addsCounter, retriesCounter].map((one) => Metric.update(Metric.withAttributes(one, name), 0)),
  { discard: true }
)

/** One whose manifest went bad is stalled, whatever else holds of what it was. */
const resourceStateOf = ({ conditions }: ResourceState): (typeof resourceStates)[number] =>
  holds(conditions, "Stalled") ? "stalled" : holds(conditions, "Ready") ? "ready" : "progressing"

/** Counts all resources anew. */
export const resources = (states: ReadonlyArray<ResourceState>): Effect.Effect<void> => {
  const counts = new Map(kinds.flatMap((kind) => resourceStates.map((state) => [`${kind} ${state}`, 0])))
  for (const one of states) {
    const key = `${one.identity.split("/")[0]} ${resourceStateOf(one)}`
    counts.set(key, (counts.get(key) ?? 0) + 1)
  }
  return Effect.forEach(
    counts,
    ([key, count]) => {
      const [kind = "", state = ""] = key.split(" ")
      return Metric.update(Metric.withAttributes(resourcesGauge, { kind, state }), count)
    },
    { discard: true }
  )
}

/** Counts a reconciliation; one that failed is tried again. */
export const reconciled = (controller: string, result: "success" | "error", milliseconds: number) =>
  Metric.update(Metric.withAttributes(total, { controller, result }), 1).pipe((counted) => [
    counted,
    Metric.update(Metric.withAttributes(time, { controller }), milliseconds / 1000),
    Metric.update(Metric.withAttributes(workTime, name), milliseconds / 1000),
    ...(result === "error"
      ? [
          Metric.update(Metric.withAttributes(errors, { controller }), 1),
          Metric.update(Metric.withAttributes(retriesCounter, name), 1)
        ]
      : [])
  ])

/** Counts what is at work anew: when each key was taken up, by key. */
export const working = (since: ReadonlyMap<string, number>, now: number): Effect.Effect<void> => {
  const ages = [...since.values()].map((one) => (now - one) / 1000)
  const active = (kind: string) => [...since.keys()].filter((key) => key.startsWith(`${kind}/`)).length
  return Effect.all(
    [
      Metric.update(
        Metric.withAttributes(unfinishedGauge, name),
        ages.reduce((sum, one) => sum + one, 0)
      ),
      Metric.update(Metric.withAttributes(longestGauge, name), Math.max(0, ...ages)),
      ...kinds.map((controller) =>
        Metric.update(Metric.withAttributes(activeGauge, { controller }), active(controller))
      )
    ],
    { discard: true }
  )
}

export const depth = (value: number) => Metric.update(Metric.withAttributes(depthGauge, name), value)
export const added = Metric.update(Metric.withAttributes(addsCounter, name), 1)
export const waited = (milliseconds: number) =>
  Metric.update(Metric.withAttributes(queueTime, name), milliseconds / 1000)
export const problems = (count: number) => Metric.update(problemsGauge, count)
export const orphans = (count: number) => Metric.update(orphansGauge, count)
