/**
 * What a reconciler is: from a resource and what is there to a verdict, level-based. It may be called any number of
 * times, and does nothing when nothing is to do.
 */
import type { Effect } from "effect"
import type { Kind, Resource, ResourceOf } from "../../domain/Resource.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Builds } from "../../provisioning/Builds.ts"
import type { Origin } from "../../provisioning/table/Origin.ts"
import type { Verdict } from "./Conditions.ts"
import type { Fence, Superseded } from "./Fence.ts"
import type { ResourceState } from "./ResourceStatus.ts"
import type { Serving } from "./Serving.ts"
import type { KeyDelivery, SourceFailure } from "./Source.ts"

/** What reconcilers see of the world. */
export interface World {
  readonly fence: Fence["Service"]
  /** Index builds that go on beside the reconcilers. */
  readonly builds: Builds
  /** The resources that there are, of a kind. */
  readonly resources: <K extends Kind>(kind: K) => ReadonlyArray<ResourceOf<K>>
  /**
   * Of a kind that children stand on: what is not there any more and has not ended, as it was last. It was deleted and waits
   * for them, or its manifest went bad while nobody looked (fine print 27).
   */
  readonly held: <K extends Kind>(kind: K) => ReadonlyArray<ResourceOf<K>>
  readonly stateOf: (resource: Resource) => ResourceState | undefined
  readonly originOf: (resource: Resource) => Origin
  /** Definition paths whose manifests are gone and that are not withdrawn yet. */
  readonly leaving: () => ReadonlySet<string>
  /** The id of the strategy that Domains trust which name none: in `velocity dev` alone. */
  readonly fallbackStrategy: string | undefined
  /** What minted keys say behind `vel_`. */
  readonly keyEnvironment: string
  /** How minted keys get to their owners; undefined where there is no place for them. */
  readonly delivery: KeyDelivery | undefined
}

export interface Reconciled {
  readonly verdict: Verdict
  /** What is said beside the conditions. */
  readonly status: Readonly<Record<string, unknown>>
  /** Whether something was changed in Postgres. */
  readonly applied: boolean
  /** After which time it is to be looked at again, in milliseconds: there is more to do, or somebody may have decided. */
  readonly again?: number | undefined
}

/** What is left of a resource whose manifest is gone. */
export interface Departed {
  readonly identity: string
  readonly namespace: string
  readonly name: string
  readonly state: ResourceState | undefined
  /** As it was last; undefined where nobody remembers. */
  readonly resource: Resource | undefined
  /** Why it ends, where its object is still there. */
  readonly why?: string | undefined
}

export type Failures = DatabaseFailure | Superseded

/** What is said of a resource that fails again and again. */
export interface Failing {
  readonly reason: string
  readonly message: string
  /** What is said beside the conditions, where that is another than before. */
  readonly status?: Readonly<Record<string, unknown>> | undefined
}

/** A failure in its own words. */
export const wordsOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** See the module. */
export interface Reconciler<K extends Kind> {
  readonly kind: K
  readonly reconcile: (world: World, resource: ResourceOf<K>) => Effect.Effect<Reconciled, Failures | SourceFailure>
  /** How the API serves it, whatever was concluded of it. */
  readonly serving?: (world: World, resource: ResourceOf<K>, conclusion: Reconciled) => Effect.Effect<Serving, Failures>
  /** Ends what the resource had; a verdict where it cannot go yet. */
  readonly remove: (world: World, departed: Departed) => Effect.Effect<Verdict | undefined, Failures>
  /** What is said of one that fails again and again, where there is more to say than how. */
  readonly failing?: (world: World, resource: ResourceOf<K>, error: unknown) => Effect.Effect<Failing, Failures>
  /**
   * Lets go of what others would wait for of a resource that is absent and that nobody deleted; what it has stays. Answers
   * whether there was anything.
   */
  readonly forsake?: (world: World, departed: Departed) => Effect.Effect<boolean, Failures>
  /** The resources that may have waited for this one, or depend on what it says. */
  readonly dependents: (world: World, resource: ResourceOf<K>) => ReadonlyArray<Resource>
}

/** A verdict with nothing beside it. */
export const concluded = (
  verdict: Verdict,
  status: Readonly<Record<string, unknown>> = {},
  applied = false
): Reconciled => ({ verdict, status, applied })
