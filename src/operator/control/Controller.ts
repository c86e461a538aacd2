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
import { apiKeyReconciler } from "../reconcile/ApiKeyReconciler.ts"
import { applicationReconciler } from "../reconcile/ApplicationReconciler.ts"
import { authStrategyReconciler } from "../reconcile/AuthStrategyReconciler.ts"
import { domainReconciler } from "../reconcile/DomainReconciler.ts"
import { organisationReconciler } from "../reconcile/OrganisationReconciler.ts"
import { orphaned } from "../reconcile/Orphans.ts"
import { roleBindingReconciler } from "../reconcile/RoleBindingReconciler.ts"
import { schemaDefinitionReconciler } from "../reconcile/SchemaDefinitionReconciler.ts"
import { holds, stalled, waiting } from "../state/Conditions.ts"
import { Fence, Superseded } from "../state/Fence.ts"
import { namespaceMismatch } from "../state/NamespacePath.ts"
import { OperatorStatus, type StatusChange } from "../state/OperatorStatus.ts"
import { isReady } from "../state/Parents.ts"
import {
  concluded,
  type Departed,
  type Failing,
  type Failures,
  type Reconciler,
  type World,
  wordsOf
} from "../state/Reconciler.ts"
import { type Generations, ResourceStatuses } from "../state/ResourceStatus.ts"
import { type KeyDelivery, type Reading, type Source, SourceFailure } from "../state/Source.ts"
import * as ControllerMetrics from "./ControllerMetrics.ts"
import * as Inventory from "./Inventory.ts"
import * as ServingWatch from "./ServingWatch.ts"
import * as WorkQueue from "./WorkQueue.ts"

/** Any of them, seen as one that takes any resource; a key's kind decides which. */
const reconcilers = Object.fromEntries(
  [
    organisationReconciler,
    authStrategyReconciler,
    applicationReconciler,
    domainReconciler,
    schemaDefinitionReconciler,
    roleBindingReconciler,
    apiKeyReconciler
  ].map((one) => [one.kind, one])
) as unknown as Readonly<Record<string, Reconciler<Kind> | undefined>>

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

const kindOf = (identity: string): string => identity.split("/")[0] ?? ""

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

/** How long a status waits for the API's replicas, which mostly say at once that they serve what was just provisioned. */
const acknowledgedWithin = Duration.seconds(1)

/** What is revoked, or only forgotten, when its resource is absent and nobody said that it is deleted (fine print 8). */
const endsWithAbsence: ReadonlySet<string> = new Set<Kind>(["RoleBinding", "ApiKey", "Organisation", "Application"])

/** What a person ends by lifting a legal hold, or by dropping what is kept. */
const awaitsPerson: ReadonlySet<string> = new Set(["LegalHold", "Referenced", "NameConflict"])

/**
 * What opens something ends where its namespace belongs to another path by now: who may write there, and read its Secrets, is
 * not who was trusted with it. A definition is served on, as an orphan is.
 */
const grants: ReadonlySet<string> = new Set<Kind>(["RoleBinding", "ApiKey"])

const forsaken =
  "is gone from its source and was not deleted: what it made stays, an orphan, until it is applied again or velocity orphan release|drop decides"

/** Runs a controller until the scope closes, and answers what it tells. Fails only where it cannot begin. */
export const make = Effect.fnUntraced(function* (options: ControllerOptions) {
  const fence = yield* Fence
  const statuses = yield* ResourceStatuses.load(fence, options.generations)
  const inventory = Inventory.make((identity) => reconcilers[kindOf(identity)] !== undefined, statuses.remembered)
  const { absent, departed, orphans, remembered, spoiled, store } = inventory
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
  /** Provisioned, and not told before a replica has spoken or its time is up. */
  const unspoken = new Set<string>()
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

  const report = (identity: string): Effect.Effect<void, SourceFailure> => {
    const state = statuses.get(identity)
    return state === undefined ? Effect.void : (source.report?.(state) ?? Effect.void)
  }

  const departedOf = (identity: string): Departed => {
    const [, namespace = "", name = ""] = identity.split("/")
    return { identity, namespace, name, state: statuses.get(identity), resource: remembered.get(identity) }
  }

  /** Decides what becomes of a resource that is absent and that nobody deleted. */
  const forsake = Effect.fnUntraced(
    function* (identity: string) {
      if (endsWithAbsence.has(kindOf(identity)) || !(yield* statuses.hasMirror(identity))) {
        departed.add(identity)
        return
      }
      const known = orphans.has(identity)
      orphans.add(identity)
      yield* ControllerMetrics.orphans(orphans.size)
      const { changed } = yield* statuses.conclude(identity, undefined, stalled(orphaned, `${identity} ${forsaken}`))
      // an operator that starts again finds it as it was told
      if (changed) yield* source.forsaken?.(identity, `${identity} ${forsaken}`) ?? Effect.void
      if (!known) yield* Effect.logWarning(`${identity} ${forsaken}`)
      const left =
        (yield* reconcilers[kindOf(identity)]?.forsake?.(world, departedOf(identity)) ?? Effect.undefined) === true
      // whoever waited for what it was at
      if (left) yield* addAll(store.keys())
    },
    (decided, identity) => Effect.tapError(decided, () => Effect.sync(() => absent.add(identity)))
  )

  const reconcile = (identity: string): Effect.Effect<void, Failures | SourceFailure> =>
    Effect.gen(function* () {
      const reconciler = reconcilers[kindOf(identity)]
      if (reconciler === undefined) return
      const wasUnspoken = unspoken.delete(identity)
      const wrong = spoiled.get(identity)
      if (wrong !== undefined) {
        // it stays what its last good version made of it
        if (yield* statuses.spoil(identity, wrong)) {
          const state = statuses.get(identity)
          if (state !== undefined) yield* tell({ _tag: "Resource", state })
        }
        yield* report(identity)
        return
      }
      const resource = store.get(identity)
      if (resource !== undefined) {
        const before = statuses.get(identity)
        const refused = yield* source.claim?.(identity, resource, world) ?? Effect.undefined
        if (
          refused?.reason === namespaceMismatch &&
          grants.has(resource.kind) &&
          (yield* statuses.hasMirror(identity))
        ) {
          const { name, namespace } = resource.metadata
          const why = refused.message
          yield* reconciler.remove(world, { identity, namespace, name, state: before, resource, why })
        }
        const conclusion =
          refused === undefined
            ? yield* reconciler.reconcile(world, resource as ResourceOf<Kind>)
            : concluded(refused, before?.status ?? {})
        const serving = yield* reconciler.serving?.(world, resource as ResourceOf<Kind>, conclusion) ?? Effect.undefined
        const { again, applied, status, verdict } = conclusion
        const wake = Effect.suspend(() => {
          const woken = reconciler.dependents(world, resource as ResourceOf<Kind>).map(identityOf)
          return addAll(new Set(woken.filter((one) => one !== identity)))
        })
        if (serving?.reason === "Acknowledging" && !wasUnspoken && verdict._tag === "Ready") {
          // one status in place of two
          unspoken.add(identity)
          if (applied) yield* wake
          yield* queue.later(identity, acknowledgedWithin)
          return
        }
        const { changed, state } = yield* statuses.conclude(identity, resource, verdict, status, serving)
        if (changed) yield* tell({ _tag: "Resource", state })
        yield* report(identity)
        const turned = (type: "Ready" | "Provisioned") =>
          holds(before?.conditions ?? [], type) !== holds(state.conditions, type)
        if (applied || turned("Ready") || turned("Provisioned")) yield* wake
        if (again !== undefined) yield* queue.later(identity, Duration.millis(again))
        return
      }
      if (absent.delete(identity)) yield* forsake(identity)
      // somebody decided what becomes of it
      else if (orphans.has(identity) && !(yield* statuses.hasMirror(identity))) {
        departed.add(identity)
        orphans.delete(identity)
        yield* ControllerMetrics.orphans(orphans.size)
      }
      if (!departed.has(identity)) return
      const leaving = departedOf(identity)
      const verdict = yield* reconciler.remove(world, leaving)
      if (verdict !== undefined) {
        const left = yield* statuses.conclude(identity, undefined, verdict)
        if (left.changed) yield* tell({ _tag: "Resource", state: left.state })
        yield* report(identity)
        return
      }
      yield* statuses.remove(identity)
      yield* source.release?.(identity) ?? Effect.void
      departed.delete(identity)
      remembered.delete(identity)
      if (orphans.delete(identity)) yield* ControllerMetrics.orphans(orphans.size)
      yield* tell({ _tag: "Removed", identity })
      // whoever waited for it to go, or for anything; and whoever stood on it
      const last = leaving.resource
      const others = last === undefined ? [...store.values()] : reconciler.dependents(world, last as ResourceOf<Kind>)
      const unready = [...store.values()].filter((one) => !isReady(world, one))
      yield* addAll(new Set([...departed, ...[...unready, ...others].map(identityOf)]))
    })

  /**
   * Says of a resource what fails, which would else be in the log alone. Once is not told: what passes by itself in half a
   * second would be two writes for nothing. Where it is the database that fails there is no place to say it.
   */
  const sayFailure = (identity: string, error: unknown) =>
    Effect.gen(function* () {
      const reconciler = reconcilers[kindOf(identity)]
      const resource = store.get(identity)
      if (reconciler === undefined || spoiled.has(identity)) return
      if (resource === undefined && !departed.has(identity)) return
      const before = statuses.get(identity)
      const retrying: Failing = { reason: "Retrying", message: wordsOf(error) }
      const { message, reason, status } =
        resource === undefined
          ? retrying
          : yield* reconciler.failing?.(world, resource as ResourceOf<Kind>, error) ?? Effect.succeed(retrying)
      const isSame = resource !== undefined && statuses.generationOf(identity, resource) === before?.generation
      const verdict = waiting(
        reason,
        `${message}; it is tried again`,
        isSame && holds(before?.conditions ?? [], "Provisioned")
      )
      const conclusion = concluded(verdict, status ?? before?.status ?? {})
      const serving =
        resource === undefined
          ? undefined
          : yield* reconciler.serving?.(world, resource as ResourceOf<Kind>, conclusion) ?? Effect.undefined
      const said = yield* statuses.conclude(identity, resource, verdict, conclusion.status, serving)
      if (said.changed) yield* tell({ _tag: "Resource", state: said.state })
      yield* report(identity)
    }).pipe(Effect.catchCause((cause) => Effect.logWarning(`what failed of ${identity} could not be said`, cause)))

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
