/** What a source has told: which resources there are, which are on their way out, and what of its files cannot be read. */
import type { Resource } from "../../domain/Resource.ts"
import type { ManifestProblem } from "../state/Manifests.ts"
import type { Reading } from "../state/Source.ts"

/** By identity. The controller moves on what leaves: from absent to orphan or departed, and from departed to nothing. */
export interface Inventory {
  /** What there is. */
  readonly store: Map<string, Resource>
  /** What is not in the store and has not ended, as it was last; of what was there before this operator, only parents. */
  readonly remembered: Map<string, Resource>
  /** What can be read no longer, and why; it stays what its last good version made of it. */
  readonly spoiled: Map<string, string>
  /** Deleted, or given up; what it had has not ended yet. */
  readonly departed: Set<string>
  /** Gone without having been deleted; it is not decided yet what becomes of it. */
  readonly absent: Set<string>
  /** Gone without having been deleted, and served on until somebody decides. */
  readonly orphans: Set<string>
  readonly problems: () => ReadonlyArray<ManifestProblem>
  /** Takes a reading in; answers which resources are to be looked at, and the problems that were not there before. */
  readonly take: (reading: Reading) => {
    readonly touched: ReadonlySet<string>
    readonly problems: ReadonlyArray<ManifestProblem>
  }
}

/** `isKnown`: whether there is a reconciler for an identity's kind. */
export const make = (
  isKnown: (identity: string) => boolean,
  before: Iterable<readonly [string, Resource]>
): Inventory => {
  const store = new Map<string, Resource>()
  const remembered = new Map<string, Resource>(before)
  const spoiled = new Map<string, string>()
  const [departed, absent, orphans] = [new Set<string>(), new Set<string>(), new Set<string>()]
  let problems: ReadonlyArray<ManifestProblem> = []

  /** It is not there any more; what stands on it is not to notice before it has ended. */
  const leave = (identity: string, said?: Resource) => {
    const last = said ?? store.get(identity)
    store.delete(identity)
    if (last !== undefined) remembered.set(identity, last)
  }

  const take: Inventory["take"] = (reading) => {
    const touched = new Set<string>()
    for (const [identity, { resource }] of reading.resources) {
      const known = store.get(identity)
      if (known !== undefined && JSON.stringify(known) === JSON.stringify(resource)) continue
      store.set(identity, resource)
      remembered.delete(identity)
      for (const one of [departed, absent, orphans]) one.delete(identity)
      touched.add(identity)
    }
    for (const identity of reading.again ?? []) if (store.has(identity)) touched.add(identity)
    for (const identity of reading.deleted) {
      if (!isKnown(identity)) continue
      leave(identity, reading.last?.get(identity))
      departed.add(identity)
      touched.add(identity)
    }
    for (const identity of reading.vanished ?? []) {
      leave(identity)
      absent.add(identity)
      touched.add(identity)
    }
    // what is whole again is looked at as what has gone bad is
    for (const identity of spoiled.keys()) touched.add(identity)
    spoiled.clear()
    for (const [identity, message] of reading.spoiled) {
      if (!isKnown(identity)) continue
      spoiled.set(identity, message)
      touched.add(identity)
    }
    const told = new Set(problems.map((one) => JSON.stringify(one)))
    problems = reading.problems
    return { touched, problems: problems.filter((one) => !told.has(JSON.stringify(one))) }
  }

  return { store, remembered, spoiled, departed, absent, orphans, problems: () => problems, take }
}
