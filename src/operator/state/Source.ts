/**
 * Where resources come from. A source says what there is, level-based, and (where it can) is asked before a resource's
 * first side effect and told what became of each.
 */
import { Data, type Effect } from "effect"
import type { Resource, ResourceOf } from "../../domain/Resource.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Verdict } from "./Conditions.ts"
import type { ManifestProblem } from "./Manifests.ts"
import type { World } from "./Reconciler.ts"
import type { ResourceState } from "./ResourceStatus.ts"

/** What a source says at one moment. */
export interface Reading {
  /** Those that are new or changed, in their last good version; others may be among them. */
  readonly resources: ReadonlyMap<string, { readonly resource: Resource }>
  readonly problems: ReadonlyArray<ManifestProblem>
  /** What is wrong with a resource's manifest, by identity; all of them. */
  readonly spoiled: ReadonlyMap<string, string>
  /** Identities that were known and are gone for good. */
  readonly deleted: ReadonlyArray<string>
  /** What those were, as far as the source can say it. */
  readonly last?: ReadonlyMap<string, Resource>
  /** Identities that are absent and of which nobody said that they are deleted (fine print 8). */
  readonly vanished?: ReadonlyArray<string>
  /** Identities to look at again although their manifests are the same. */
  readonly again?: ReadonlyArray<string>
}

/** The source could not be told or asked: tried again. */
export class SourceFailure extends Data.TaggedError("SourceFailure")<{ readonly message: string }> {}

/** What became of a key that was to be delivered. */
export type Delivered =
  | { readonly _tag: "Delivered" }
  /** Something of that name is there already: it is another's, or of a key that was never put in force. */
  | { readonly _tag: "Taken" }
  | { readonly _tag: "Refused"; readonly message: string }

/** How minted keys get to their owners: put where they find them, never over what is there, and never read again. */
export interface KeyDelivery {
  /** What a key lies in, as a status tells it: `the Secret`. */
  readonly place: string
  readonly put: (
    resource: ResourceOf<"ApiKey">,
    minted: { readonly id: string; readonly key: string; readonly secretName: string }
  ) => Effect.Effect<Delivered, SourceFailure>
}

export interface Source {
  /** Looks at everything; answers nothing where all is as it was. */
  readonly read: Effect.Effect<Reading | undefined>
  /** Waits until it is time to look again. */
  readonly wait: Effect.Effect<void>
  /** Asked before each reconciliation: sees to what must be so before a side effect, or says why there may be none. */
  readonly claim?: (
    identity: string,
    resource: Resource,
    world: World
  ) => Effect.Effect<Verdict | undefined, SourceFailure | DatabaseFailure>
  /** Told what is known of a resource after each reconciliation. */
  readonly report?: (state: ResourceState) => Effect.Effect<void, SourceFailure>
  readonly delivery?: KeyDelivery | undefined
  /** Told, once, that a resource has become an orphan, and what that means. */
  readonly forsaken?: (identity: string, message: string) => Effect.Effect<void>
  /** Told that nothing is left of a resource that was deleted. */
  readonly release?: (identity: string) => Effect.Effect<void, SourceFailure>
}
