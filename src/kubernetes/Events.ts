/**
 * Kubernetes Events (events.k8s.io/v1) on what a person would want to know of an object, as `kubectl describe` shows them.
 * They are told at most once in a while: each object has a budget, and what is over it is dropped, so that a resource that
 * turns back and forth fills no etcd. An event that cannot be written is no failure of what it tells of.
 */
import { hostname } from "node:os"
import { Clock, Duration, Effect, Queue } from "effect"
import { Kube } from "./Kube.ts"

export interface Told {
  readonly regarding: {
    readonly apiVersion: string
    readonly kind: string
    readonly namespace: string
    readonly name: string
    /** Empty where it is not known any more. */
    readonly uid: string
  }
  readonly type: "Normal" | "Warning"
  /** UpperCamelCase. */
  readonly reason: string
  readonly note: string
}

/** Of one object at once, and how long until one more may come (controller-runtime's spam filter has 25 and 5 minutes). */
export const burst = 10
export const refill = Duration.minutes(5)
/** Objects whose budgets are remembered. */
const remembered = 10_000
/** The API server takes no longer note (events.k8s.io, v1). */
const maxNote = 1024

interface Budget {
  left: number
  since: number
}

/** Whether an object may tell one more at a time in milliseconds, by what it has told before. */
export const makeBudgets = () => {
  const budgets = new Map<string, Budget>()
  const every = Duration.toMillis(refill)
  return (key: string, now: number): boolean => {
    const budget = budgets.get(key) ?? { left: burst, since: now }
    const earned = Math.floor((now - budget.since) / every)
    budget.left = Math.min(burst, budget.left + earned)
    budget.since += earned * every
    budgets.delete(key)
    budgets.set(key, budget)
    const [oldest] = budgets.keys()
    if (budgets.size > remembered && oldest !== undefined) budgets.delete(oldest)
    if (budget.left === 0) return false
    budget.left -= 1
    return true
  }
}

/** Answers what tells an event; they are written one after the other until the scope closes. */
export const make = Effect.gen(function* () {
  const kube = yield* Kube
  const queue = yield* Queue.sliding<Told>(200)
  const mayTell = makeBudgets()

  const write = Effect.fnUntraced(function* ({ note, reason, regarding, type }: Told) {
    const now = yield* Clock.currentTimeMillis
    const id = `${now.toString(16)}${Math.floor(Math.random() * 0xffff).toString(16)}`
    yield* kube.request({
      method: "POST",
      path: `/apis/events.k8s.io/v1/namespaces/${regarding.namespace}/events`,
      body: {
        apiVersion: "events.k8s.io/v1",
        kind: "Event",
        metadata: { name: `${regarding.name}.${id}`, namespace: regarding.namespace },
        // microseconds, as MicroTime has them
        eventTime: new Date(now).toISOString().replace("Z", "000Z"),
        reportingController: "velocity.sh/operator",
        reportingInstance: hostname().slice(0, 128),
        action: "Reconcile",
        type,
        reason,
        note: note.length > maxNote ? `${note.slice(0, maxNote - 1)}…` : note,
        regarding
      }
    })
  })

  yield* Queue.take(queue).pipe(
    Effect.flatMap((told) =>
      Effect.catch(write(told), (error) =>
        Effect.logDebug(`the event ${told.reason} of ${told.regarding.name} could not be written: ${error.message}`)
      )
    ),
    Effect.forever,
    Effect.forkScoped
  )

  const keyOf = ({ kind, name, namespace, uid }: Told["regarding"]) =>
    uid === "" ? `${kind}/${namespace}/${name}` : uid

  return (told: Told): Effect.Effect<void> =>
    Effect.flatMap(Clock.currentTimeMillis, (now) =>
      mayTell(keyOf(told.regarding), now) ? Effect.asVoid(Queue.offer(queue, told)) : Effect.void
    )
})
