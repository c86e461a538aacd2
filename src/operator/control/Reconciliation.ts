/**
 * What is done with one key: its resource as it is now goes to its reconciler, what has gone is ended or kept as an orphan, and
 * what came of it is said.
 */
import { Duration, Effect } from "effect"
import { identityOf, type Kind, type Resource, type ResourceOf } from "../../domain/Resource.ts"
import { apiKeyReconciler } from "../reconcile/ApiKeyReconciler.ts"
import { applicationReconciler } from "../reconcile/ApplicationReconciler.ts"
import { authStrategyReconciler } from "../reconcile/AuthStrategyReconciler.ts"
import { domainReconciler } from "../reconcile/DomainReconciler.ts"
import { organisationReconciler } from "../reconcile/OrganisationReconciler.ts"
import { orphaned } from "../reconcile/Orphans.ts"
import { roleBindingReconciler } from "../reconcile/RoleBindingReconciler.ts"
import { schemaDefinitionReconciler } from "../reconcile/SchemaDefinitionReconciler.ts"
import { holds, stalled, type Verdict, waiting } from "../state/Conditions.ts"
import { namespaceMismatch } from "../state/NamespacePath.ts"
import type { StatusChange } from "../state/OperatorStatus.ts"
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
import type { ResourceStatuses } from "../state/ResourceStatus.ts"
import type { Serving } from "../state/Serving.ts"
import type { Source, SourceFailure } from "../state/Source.ts"
import * as ControllerMetrics from "./ControllerMetrics.ts"
import type { Inventory } from "./Inventory.ts"

export const kindOf = (identity: string): string => identity.split("/")[0] ?? ""

/** Any of them, seen as one that takes any resource; a key's kind decides which. */
export const reconcilers = Object.fromEntries(
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

/** How long a status waits for the API's replicas, which mostly say at once that they serve what was just provisioned. */
const acknowledgedWithin = Duration.seconds(1)

/** What is revoked, or only forgotten, when its resource is absent and nobody said that it is deleted (fine print 8). */
const endsWithAbsence: ReadonlySet<string> = new Set<Kind>(["RoleBinding", "ApiKey", "Organisation", "Application"])

/**
 * What opens something ends where its namespace belongs to another path by now: who may write there, and read its Secrets, is
 * not who was trusted with it. A definition is served on, as an orphan is.
 */
const grants: ReadonlySet<string> = new Set<Kind>(["RoleBinding", "ApiKey"])

const forsaken =
  "is gone from its source and was not deleted: what it made stays, an orphan, until it is applied again or velocity orphan release|drop decides"

/** What a reconciliation stands in. */
export interface Surroundings {
  readonly inventory: Inventory
  readonly statuses: ResourceStatuses
  readonly source: Source
  readonly world: World
  /** Has keys looked at soon. */
  readonly addAll: (identities: Iterable<string>) => Effect.Effect<void>
  readonly later: (identity: string, wait: Duration.Duration) => Effect.Effect<void>
  readonly tell: (change: StatusChange) => Effect.Effect<void>
}

/** See the module. `unspoken`: provisioned, and not told before a replica has spoken or its time is up. */
export const make = ({ addAll, inventory, later, source, statuses, tell, world }: Surroundings) => {
  const { absent, departed, orphans, remembered, spoiled, store } = inventory
  const unspoken = new Set<string>()

  const report = (identity: string): Effect.Effect<void, SourceFailure> => {
    const state = statuses.get(identity)
    return state === undefined ? Effect.void : (source.report?.(state) ?? Effect.void)
  }

  /** Keeps a verdict, and tells it where it is new. */
  const say = Effect.fnUntraced(function* (
    identity: string,
    resource: Resource | undefined,
    verdict: Verdict,
    status?: Readonly<Record<string, unknown>>,
    serving?: Serving
  ) {
    const { changed, state } = yield* statuses.conclude(identity, resource, verdict, status, serving)
    if (changed) yield* tell({ _tag: "Resource", state })
    yield* report(identity)
    return state
  })

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
          yield* later(identity, acknowledgedWithin)
          return
        }
        const state = yield* say(identity, resource, verdict, status, serving)
        const turned = (type: "Ready" | "Provisioned") =>
          holds(before?.conditions ?? [], type) !== holds(state.conditions, type)
        if (applied || turned("Ready") || turned("Provisioned")) yield* wake
        if (again !== undefined) yield* later(identity, Duration.millis(again))
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
        yield* say(identity, undefined, verdict)
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
      yield* say(identity, resource, verdict, conclusion.status, serving)
    }).pipe(Effect.catchCause((cause) => Effect.logWarning(`what failed of ${identity} could not be said`, cause)))

  return { reconcile, sayFailure, unspoken }
}
