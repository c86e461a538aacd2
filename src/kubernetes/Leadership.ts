/**
 * Which of several operators works: the holder of a Lease (coordination.k8s.io). Leadership is a value that is trusted
 * only until some time before the Lease ends, as this process's own clock counts from when it asked for it; so no two
 * trust theirs at once, whatever their clocks say. It keeps the others idle and is no fence: a process that is stopped
 * between its last look and a COMMIT is kept from writing by the term in Postgres (fine print 7).
 *
 * Another's Lease is over when it has not changed for its whole length while we watched, whatever time it names
 * (client-go, leaderelection).
 */
import { Context, Data, Deferred, Duration, Effect, Layer, Metric, Random } from "effect"
import { Kube, type KubeError } from "./Kube.ts"

/** It was ours and cannot be trusted any more. */
export class LeadershipLost extends Data.TaggedError("LeadershipLost")<{ readonly message: string }> {}

export interface LeadershipOptions {
  readonly namespace: string
  readonly name: string
  /** Distinguishes this process from every other. */
  readonly identity: string
  /** How long a Lease lasts (15 s); trusted for two thirds of it, renewed at each sixth. */
  readonly duration?: Duration.Duration | undefined
}

interface LeaseSpec {
  readonly holderIdentity?: string | undefined
  readonly leaseDurationSeconds?: number | undefined
  readonly acquireTime?: string | undefined
  readonly renewTime?: string | undefined
  readonly leaseTransitions?: number | undefined
}

interface Lease {
  readonly metadata: { readonly name: string; readonly namespace: string; readonly resourceVersion?: string }
  readonly spec?: LeaseSpec
}

const status = Metric.gauge("leader_election_master_status", {
  description: "Whether this process is the leader (1) or stands by (0)"
})
const told = (name: string, value: 0 | 1) => Metric.update(Metric.withAttributes(status, { name }), value)

/** MicroTime. */
const now = () => new Date().toISOString().replace("Z", "000Z")

/** Of a leader. */
export class Leadership extends Context.Service<
  Leadership,
  {
    /** Milliseconds since 1970. */
    readonly electedAt: number
    /** On the clock of `performance.now()`. */
    readonly trustedUntil: () => number
    readonly isTrusted: () => boolean
    /** Never succeeds. */
    readonly lost: Effect.Effect<never, LeadershipLost>
  }
>()("velocity/kubernetes/Leadership") {
  /** Waits until it is ours, renews it until the scope closes, and gives it up then. */
  static readonly layerOf = (options: LeadershipOptions) => Layer.effect(Leadership, lead(options))
}

const lead = Effect.fnUntraced(function* (options: LeadershipOptions) {
  const kube = yield* Kube
  const { identity, name, namespace } = options
  const length = Duration.toMillis(options.duration ?? Duration.seconds(15))
  const collection = `/apis/coordination.k8s.io/v1/namespaces/${namespace}/leases`
  const path = `${collection}/${name}`
  let trustedUntil = Number.NEGATIVE_INFINITY
  /** What was seen of another's Lease, and since when it has been so. */
  let seen: { readonly text: string; readonly since: number } | undefined

  const read = kube.request({ method: "GET", path }).pipe(
    Effect.map((found) => found as Lease | undefined),
    Effect.catchIf(
      (error) => error.reason === "NotFound",
      () => Effect.succeed(undefined)
    )
  )

  const write = (before: Lease | undefined, spec: LeaseSpec): Effect.Effect<void, KubeError> => {
    const lease = {
      apiVersion: "coordination.k8s.io/v1",
      kind: "Lease",
      metadata: { name, namespace, resourceVersion: before?.metadata.resourceVersion },
      spec
    }
    return Effect.asVoid(
      before === undefined
        ? kube.request({ method: "POST", path: collection, body: lease })
        : kube.request({ method: "PUT", path, body: lease })
    )
  }

  /** Whether another holds it still. */
  const isHeld = (spec: LeaseSpec | undefined): boolean => {
    const holder = spec?.holderIdentity ?? ""
    if (holder === "" || holder === identity) return false
    const text = JSON.stringify(spec)
    if (seen?.text !== text) seen = { text, since: performance.now() }
    return performance.now() - seen.since < (spec?.leaseDurationSeconds ?? length / 1000) * 1000
  }

  /** One try to take or renew it. The trust counts from before the request left. */
  const grasp = Effect.gen(function* () {
    const asked = performance.now()
    const lease = yield* read
    const { spec } = lease ?? {}
    if (isHeld(spec)) return false
    const isRenewal = spec?.holderIdentity === identity
    yield* write(lease, {
      holderIdentity: identity,
      leaseDurationSeconds: Math.ceil(length / 1000),
      acquireTime: isRenewal ? (spec.acquireTime ?? now()) : now(),
      renewTime: now(),
      leaseTransitions: (spec?.leaseTransitions ?? 0) + (isRenewal ? 0 : 1)
    })
    trustedUntil = asked + (length * 2) / 3
    return true
  })

  const pause = Effect.flatMap(Random.next, (chance) =>
    Effect.sleep(Duration.millis((length / 6) * (0.8 + 0.4 * chance)))
  )
  const tried = Effect.catch(grasp, (error) =>
    // a conflict is another who was faster
    Effect.as(
      error.reason === "Conflict" ? Effect.void : Effect.logWarning(`the Lease ${name}: ${error.message}`),
      false
    )
  )

  yield* told(name, 0)
  yield* tried.pipe(
    Effect.tap((isOurs) => (isOurs ? Effect.void : pause)),
    Effect.repeat({ until: (isOurs) => isOurs })
  )
  const electedAt = Date.now()
  yield* told(name, 1)
  yield* Effect.logInfo(`leader by the Lease ${namespace}/${name}, as ${identity}`)

  const lost = yield* Deferred.make<never, LeadershipLost>()
  const isTrusted = () => performance.now() < trustedUntil
  const lose = (message: string) => Effect.andThen(told(name, 0), Deferred.fail(lost, new LeadershipLost({ message })))

  const renewing = Effect.gen(function* () {
    yield* pause
    if (!isTrusted()) return yield* Effect.as(lose("the Lease could not be renewed in time"), false)
    const renewed = yield* Effect.result(grasp)
    if (renewed._tag === "Success" && !renewed.success) {
      trustedUntil = Number.NEGATIVE_INFINITY
      return yield* Effect.as(lose("the Lease is another's"), false)
    }
    if (renewed._tag === "Failure") yield* Effect.logWarning(`the Lease is not renewed: ${renewed.failure.message}`)
    return true
  }).pipe(Effect.repeat({ while: (goesOn) => goesOn }))

  yield* Effect.addFinalizer(() =>
    Effect.suspend(() => {
      const wasOurs = isTrusted()
      trustedUntil = Number.NEGATIVE_INFINITY
      if (!wasOurs) return Effect.void
      // whoever stands by need not wait for its end
      return read.pipe(
        Effect.flatMap((lease) =>
          lease?.spec?.holderIdentity === identity
            ? write(lease, { ...lease.spec, holderIdentity: "", leaseDurationSeconds: 1, renewTime: now() })
            : Effect.void
        ),
        Effect.timeout("3 seconds"),
        Effect.ignore
      )
    })
  )
  yield* Effect.forkScoped(renewing)
  // a process that was stopped finds out as soon as it goes on, and not at the next renewal
  yield* Effect.suspend(() => Effect.sleep(Duration.millis(Math.max(1, trustedUntil - performance.now())))).pipe(
    Effect.repeat({ while: isTrusted }),
    Effect.andThen(lose("the Lease has run out")),
    Effect.forkScoped
  )

  return Leadership.of({ electedAt, trustedUntil: () => trustedUntil, isTrusted, lost: Deferred.await(lost) })
})
