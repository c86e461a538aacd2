/**
 * The controller: readings of a source come in, keys go through the queue to their reconcilers, verdicts come out as
 * statuses, and whoever depends on what changed is woken.
 *
 * Level-based: a reconciler is given the resource as it is now, not what happened to it. One key is worked on at a time;
 * what a no-op costs is one read.
 */
import { Cause, Clock, Deferred, Duration, Effect, PubSub, Schedule, type Scope, Semaphore, Stream } from "effect"
import { formatPath } from "../../domain/Names.ts"
import { identityOf, type Kind, kinds, type ResourceOf } from "../../domain/Resource.ts"
import { pathOfDefinition } from "../../domain/SchemaDefinition.ts"
import { OperatorSql } from "../../postgres/OperatorSql.ts"
import * as Builds from "../../provisioning/Builds.ts"
import { Fence, Superseded } from "../state/Fence.ts"
import { OperatorStatus, type StatusChange } from "../state/OperatorStatus.ts"
import { type World, wordsOf } from "../state/Reconciler.ts"
import { type Generations, ResourceStatuses } from "../state/ResourceStatus.ts"
import { type KeyDelivery, type Reading, type Source, SourceFailure } from "../state/Source.ts"
import * as ControllerMetrics from "./ControllerMetrics.ts"
import * as Inventory from "./Inventory.ts"
import * as Reconciliation from "./Reconciliation.ts"
import { kindOf, reconcilers } from "./Reconciliation.ts"
import * as ServingWatch from "./ServingWatch.ts"
import * as WorkQueue from "./WorkQueue.ts"

/** Parents before children, so that a first run waits little. */
const order: ReadonlyArray<Kind> = [
  "Organisation",
  "AuthStrategy",
  "Application",
  "Domain",
  "SchemaDefinition",
  "RoleBinding",
  "ApiKey"
]

/** Keys at work at once, revocations not counted; each has a connection of the operator's, which has ten. */
const workers = 4

/**
 * What ends a right has a worker of its own, and waits for no other's work: a binding or a key that is deleted opens nothing a
 * moment later, whatever else goes on. Bindings are all there, since what a binding takes away it may take by a change; where
 * their domain is not there yet, it wakes them. A key is when it goes: a new one is made after what it is to open.
 */
const revocations = "revocations"

/** What others stand on, and may claim one name, which who came first keeps: one at a time, and before others. */
const parents = "parents"

/**
 * Of what one may be at work at once; of what belongs to a domain, of a kind in a namespace, so that an index that is built
 * for hours holds up no other domain.
 */
const groupOf = (identity: string): string => {
  const [kind = "", namespace = ""] = identity.split("/")
  return rank(identity) > rank("Domain") ? `${kind}/${namespace}` : parents
}

/** How often resources are counted by state. */
const census = Duration.seconds(5)

/** How often everything is looked at again without a reason. */
const resync = Duration.minutes(10)

const rank = (identity: string): number => order.indexOf(kindOf(identity) as Kind)

export interface ControllerOptions {
  /** Where resources come from, given what the database knows. */
  readonly source: (known: ReadonlyArray<string>) => Effect.Effect<Source, never, Scope.Scope>
  readonly fallbackStrategy: string | undefined
  /** What minted keys say behind `vel_`. */
  readonly keyEnvironment: string
  /** Who numbers the specs of a resource (counted). */
  readonly generations?: Generations | undefined
}

/** What a person ends by lifting a legal hold, or by dropping what is kept. */
const awaitsPerson: ReadonlySet<string> = new Set(["LegalHold", "Referenced", "NameConflict"])

/** Runs a controller until the scope closes, and answers what it tells. Fails only where it cannot begin. */
export const make = Effect.fnUntraced(function* (options: ControllerOptions) {
  const fence = yield* Fence
  const statuses = yield* ResourceStatuses.load(fence, options.generations)
  const inventory = Inventory.make((identity) => reconcilers[kindOf(identity)] !== undefined, statuses.remembered)
  const { departed, orphans, remembered, store } = inventory
  const laneOf = (identity: string): string | undefined => {
    const kind = kindOf(identity)
    return kind === "RoleBinding" || (kind === "ApiKey" && departed.has(identity)) ? revocations : undefined
  }
  const queue = yield* WorkQueue.make({ groupOf, first: parents, laneOf })
  const changes = yield* PubSub.sliding<StatusChange>({ capacity: 1_000, replay: 1_000 })
  const settled = yield* Deferred.make<void>()
  const superseded = yield* Deferred.make<never, Superseded>()
  /** When each key that is at work was taken up. */
  const atWork = new Map<string, number>()
  let delivery: KeyDelivery | undefined
  let isLoaded = false
  let quiet: Array<Deferred.Deferred<void>> = []

  const world: World = {
    fence,
    builds: yield* Builds.make,
    resources: <K extends Kind>(kind: K) =>
      [...store.values()].filter((one) => one.kind === kind) as unknown as ReadonlyArray<ResourceOf<K>>,
    held: <K extends Kind>(kind: K) =>
      [...remembered.values()].filter((one) => one.kind === kind) as unknown as ReadonlyArray<ResourceOf<K>>,
    stateOf: (resource) => statuses.get(identityOf(resource)),
    originOf: (resource) => ({
      source: fence.source,
      namespace: resource.metadata.namespace,
      name: resource.metadata.name,
      uid: resource.metadata.uid,
      adopts: resource.metadata.annotations?.["velocity.sh/adopt"],
      generation: statuses.generationOf(identityOf(resource), resource)
    }),
    leaving: () =>
      new Set(
        [...departed].map((identity) => statuses.get(identity)?.status.path).filter((path) => typeof path === "string")
      ),
    fallbackStrategy: options.fallbackStrategy,
    keyEnvironment: options.keyEnvironment,
    get delivery() {
      return delivery
    }
  }

  const tell = (change: StatusChange) => PubSub.publish(changes, change)

  const each = (identities: Iterable<string>, add: (identity: string) => Effect.Effect<void>) =>
    Effect.forEach(
      [...identities].sort((a, b) => rank(a) - rank(b)),
      (identity) =>
        add(identity).pipe(
          Effect.andThen(ControllerMetrics.added),
          Effect.andThen(Effect.suspend(() => ControllerMetrics.depth(queue.depth())))
        ),
      { discard: true }
    )
  const addAll = (identities: Iterable<string>) => each(identities, queue.add)

  const isIdle = () => isLoaded && queue.idle() && unspoken.size === 0
  const restIfIdle = Effect.suspend(() => {
    if (!isIdle()) return Effect.void
    const waiting = quiet
    quiet = []
    return Effect.forEach([settled, ...waiting], (one) => Deferred.succeed(one, undefined), { discard: true })
  })

  const take = Effect.fnUntraced(function* (reading: Reading) {
    const { problems, touched } = inventory.take(reading)
    yield* ControllerMetrics.problems(reading.problems.length)
    for (const problem of problems) yield* tell({ _tag: "Problem", problem })
    yield* ControllerMetrics.orphans(orphans.size)
    yield* addAll(touched)
    isLoaded = true
    yield* restIfIdle
  })

  const source = yield* options.source(
    statuses.known.filter((one) => (kinds as ReadonlyArray<string>).includes(kindOf(one)))
  )

  delivery = source.delivery

  const { reconcile, sayFailure, unspoken } = Reconciliation.make({
    inventory,
    statuses,
    source,
    world,
    addAll,
    later: queue.later,
    tell: (change) => Effect.asVoid(tell(change))
  })

  const work = Effect.fnUntraced(function* (lane?: string) {
    const { key, waited } = yield* queue.take(lane)
    yield* ControllerMetrics.waited(waited)
    yield* ControllerMetrics.depth(queue.depth())
    const started = yield* Clock.currentTimeMillis
    atWork.set(key, started)
    yield* ControllerMetrics.working(atWork, started)
    const exit = yield* Effect.exit(Effect.withSpan(reconcile(key), "Reconcile", { attributes: { key } }))
    const ended = yield* Clock.currentTimeMillis
    const took = ended - started
    atWork.delete(key)
    yield* ControllerMetrics.working(atWork, ended)
    const result = exit._tag === "Success" ? "success" : "error"
    yield* Effect.all(ControllerMetrics.reconciled(kindOf(key), result, took))
    if (exit._tag === "Success") yield* queue.done(key)
    else {
      const error = Cause.squash(exit.cause)
      if (error instanceof Superseded) {
        yield* Effect.logError("another operator has taken over; this one stops", error)
        yield* Deferred.fail(superseded, error)
        return yield* Effect.never
      }
      // what the API server refuses is told where it is asked again
      if (queue.failures(key) > 0 && !(error instanceof SourceFailure)) yield* sayFailure(key, error)
      const again = yield* queue.retry(key)
      const what = `${key} failed and is tried again in ${Duration.format(again)}`
      // a refusal of the API server says it all; anything else is told with where it came from
      yield* error instanceof SourceFailure
        ? Effect.logWarning(`${what}: ${error.message}`)
        : Effect.logWarning(what, exit.cause)
      yield* tell({ _tag: "Failure", identity: key, message: wordsOf(error) })
    }
    yield* restIfIdle
  })

  const turn = yield* Semaphore.make(1)
  const look = Effect.flatMap(source.read, (reading) => (reading === undefined ? Effect.void : take(reading))).pipe(
    turn.withPermits(1)
  )
  const drained = Effect.suspend(() => {
    if (isIdle()) return Effect.void
    const one = Deferred.makeUnsafe<void>()
    quiet.push(one)
    return Deferred.await(one)
  })

  yield* ControllerMetrics.began
  yield* Effect.flatMap(Clock.currentTimeMillis, (now) =>
    Effect.andThen(ControllerMetrics.resources(statuses.all()), ControllerMetrics.working(atWork, now))
  ).pipe(Effect.repeat(Schedule.spaced(census)), Effect.forkScoped)
  yield* Effect.forkScoped(Effect.andThen(look, Effect.forever(Effect.andThen(source.wait, look))))
  for (let worker = 0; worker < workers; worker++) yield* Effect.forkScoped(Effect.forever(work()))
  yield* Effect.forkScoped(Effect.forever(work(revocations)))
  yield* Effect.suspend(() => each([...departed, ...store.keys(), ...orphans], queue.addBehind)).pipe(
    Effect.schedule(Schedule.spaced(resync)),
    Effect.forkScoped
  )
  yield* ServingWatch.run({
    fence,
    sql: yield* OperatorSql,
    states: statuses.all,
    wake: (paths) =>
      addAll([
        ...world
          .resources("SchemaDefinition")
          .filter((one) => paths.has(formatPath(pathOfDefinition(one.spec))))
          .map(identityOf),
        ...[...departed].filter((one) => paths.has(String(statuses.get(one)?.status.path)))
      ]),
    wakeUndecided: Effect.suspend(() => {
      const held = statuses.all().filter(({ conditions }) => conditions.some((one) => awaitsPerson.has(one.reason)))
      return addAll(new Set([...orphans, ...held.map((one) => one.identity)]))
    })
  })

  return OperatorStatus.of({
    settled: Deferred.await(settled),
    look: Effect.andThen(look, drained),
    changes: Stream.fromPubSub(changes),
    resources: statuses.all,
    problems: inventory.problems,
    superseded: Deferred.await(superseded)
  })
})
