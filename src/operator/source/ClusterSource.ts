/**
 * Resources from a Kubernetes API server, kept by list and watch.
 *
 * Absence is not deletion (fine print 8): a resource is deleted when it has a deletionTimestamp and our finalizer, which it
 * gets before its first side effect and loses when what it had has ended. One that is absent from a complete list without
 * that has vanished. Status is written where it says something else than the API server has, and nothing otherwise.
 */
import { Duration, Effect, Queue, Schedule } from "effect"
import { velocityNamespace } from "../../domain/AuthStrategy.ts"
import { type Condition, decodeResource, type Kind, kinds, type Resource } from "../../domain/Resource.ts"
import { statusKeysOf } from "../../kubernetes/CustomResources.ts"
import * as Events from "../../kubernetes/Events.ts"
import { createKeySecret } from "../../kubernetes/KeySecret.ts"
import { Kube, type KubeError } from "../../kubernetes/Kube.ts"
import type { KubeObject } from "../../kubernetes/ListWatch.ts"
import * as ListWatch from "../../kubernetes/ListWatch.ts"
import {
  addFinalizer,
  applyStatus,
  collectionOf,
  hasFinalizer,
  removeFinalizer
} from "../../kubernetes/ObjectWrites.ts"
import { canonicalJson } from "../../provisioning/table/SpecHash.ts"
import { orphaned } from "../reconcile/Orphans.ts"
import { stalled } from "../state/Conditions.ts"
import { type Labels, namespaceFault, namespaceMismatch } from "../state/NamespacePath.ts"
import { claimConflict } from "../state/Parents.ts"
import type { ResourceState } from "../state/ResourceStatus.ts"
import { type Delivered, type KeyDelivery, type Reading, type Source, SourceFailure } from "../state/Source.ts"

export interface ClusterOptions {
  /** Those that are watched beside Velocity's own; undefined: all. */
  readonly namespaces: ReadonlyArray<string> | undefined
  /** Identities that the database knows from this cluster. */
  readonly known: ReadonlyArray<string>
}

/** After an event others are waited for: an apply of many comes as many. */
const settling = Duration.millis(20)
/** How often the labels of single namespaces are read where they may not be watched. */
const namespacePoll = Duration.seconds(30)

const identityOf = (kind: Kind, { metadata }: KubeObject): string =>
  `${kind}/${metadata.namespace ?? ""}/${metadata.name}`
const kindOf = (identity: string): Kind => identity.split("/")[0] as Kind
const namespaceOf = (identity: string): string => identity.split("/")[1] ?? ""

const asFailure = (error: KubeError): SourceFailure => new SourceFailure({ message: error.message })

/** Whether one of two answers about the same object came before the other. */
const isOlder = (a: KubeObject, b: KubeObject): boolean =>
  a.metadata.uid === b.metadata.uid && BigInt(a.metadata.resourceVersion) < BigInt(b.metadata.resourceVersion)

/** What a status says, without when it began to. */
const comparable = (status: Readonly<Record<string, unknown>>): string => {
  const conditions = (status.conditions ?? []) as ReadonlyArray<Condition>
  return canonicalJson({
    ...status,
    conditions: conditions.map(({ lastTransitionTime: _, ...rest }) => rest).sort((a, b) => (a.type < b.type ? -1 : 1))
  })
}

const statusOf = (kind: Kind, state: ResourceState, generation: number | undefined): Record<string, unknown> => ({
  observedGeneration: generation ?? 0,
  ...Object.fromEntries(
    statusKeysOf(kind)
      .map((key) => [key, state.status[key]] as const)
      .filter(([, value]) => value !== undefined && value !== null)
  ),
  conditions: state.conditions
})

const readyOf = (status: unknown): Condition | undefined =>
  (status as { readonly conditions?: ReadonlyArray<Condition> } | undefined)?.conditions?.find(
    (one) => one.type === "Ready"
  )

/** Watches a cluster until the scope closes. The first reading comes when everything has been listed once. */
export const make = Effect.fnUntraced(function* ({ known, namespaces }: ClusterOptions) {
  const kube = yield* Kube
  const tell = yield* Events.make
  const nudges = yield* Queue.sliding<void>(1)
  const nudge = Queue.offer(nudges, undefined)

  /** As the API server has them: what a list, the watch or the answer to a write of ours said last. */
  const objects = new Map<string, KubeObject>()
  /** Answers to writes of ours that the watch has not come to yet. */
  const ahead = new Map<string, KubeObject>()
  /** The uids of those that vanished, which their Events name. */
  const lost = new Map<string, string>()
  const labels = new Map<string, Labels>()
  /** By uid: nothing is left of them, and they may go. */
  const released = new Set<string>()
  const spoiled = new Map<string, string>()
  let changed = new Map<string, { readonly resource: Resource }>()
  let deleted = new Set<string>()
  let last = new Map<string, Resource>()
  let vanished = new Set<string>()
  let again = new Set<string>()

  const scopes: ReadonlyArray<string | undefined> =
    namespaces === undefined ? [undefined] : [...new Set([velocityNamespace, ...namespaces])]
  const isWatched = (identity: string) => namespaces === undefined || scopes.includes(namespaceOf(identity))
  /** What has not been listed yet. */
  const unlisted = new Set<string>()

  const gone = (identity: string) => {
    const last = objects.get(identity)
    objects.delete(identity)
    ahead.delete(identity)
    changed.delete(identity)
    spoiled.delete(identity)
    if (last !== undefined && released.delete(last.metadata.uid)) return
    if (last !== undefined) lost.set(identity, last.metadata.uid)
    vanished.add(identity)
  }

  const take = (kind: Kind, object: KubeObject, from: "list" | "watch") => {
    const identity = identityOf(kind, object)
    const before = objects.get(identity)
    const written = ahead.get(identity)
    // the watch tells what came before our own write; a list is always how things are, though etcd has gone back in time
    if (from === "watch" && written !== undefined && isOlder(object, written)) return
    ahead.delete(identity)
    objects.set(identity, object)
    lost.delete(identity)
    vanished.delete(identity)
    if (object.metadata.deletionTimestamp !== undefined) {
      changed.delete(identity)
      spoiled.delete(identity)
      if (hasFinalizer(object)) {
        deleted.add(identity)
        const was = decodeResource({ ...object, apiVersion: "velocity.sh/v1", kind })
        if ("resource" in was) last.set(identity, was.resource)
      }
      // others' finalizers hold it; ours was taken away by somebody else
      else if (!released.has(object.metadata.uid) && before !== undefined) vanished.add(identity)
      return
    }
    deleted.delete(identity)
    const decoded = decodeResource({ ...object, apiVersion: "velocity.sh/v1", kind })
    if ("faults" in decoded) {
      changed.delete(identity)
      spoiled.set(identity, decoded.faults.map((one) => `${one.pointer}: ${one.detail}`).join("; "))
      return
    }
    spoiled.delete(identity)
    changed.set(identity, { resource: decoded.resource })
  }

  /** Takes the answer to a write of ours, unless something later was told meanwhile. */
  const wrote = (identity: string, object: KubeObject) => {
    const before = objects.get(identity)
    if (before === undefined || before.metadata.uid !== object.metadata.uid || isOlder(object, before)) return
    objects.set(identity, object)
    ahead.set(identity, object)
  }

  const listed = (what: string) =>
    Effect.suspend(() => {
      unlisted.delete(what)
      return nudge
    })

  for (const kind of kinds) {
    for (const scope of scopes) {
      const path = collectionOf(kind, scope)
      unlisted.add(path)
      yield* ListWatch.run({
        path,
        onChange: (key, object, from) =>
          Effect.suspend(() => {
            if (object === undefined) gone(`${kind}/${key}`)
            else take(kind, object, from)
            return nudge
          }),
        onListed: listed(path)
      }).pipe(Effect.forkScoped)
    }
  }

  const takeLabels = (name: string, now: Labels | undefined) => {
    const before = labels.get(name)
    if (JSON.stringify(before) === JSON.stringify(now)) return
    if (now === undefined) labels.delete(name)
    else labels.set(name, now)
    for (const identity of objects.keys()) if (namespaceOf(identity) === name) again.add(identity)
  }

  const namespacesPath = "/api/v1/namespaces"
  unlisted.add(namespacesPath)
  if (namespaces === undefined) {
    yield* ListWatch.run({
      path: namespacesPath,
      onChange: (key, object) =>
        Effect.suspend(() => {
          takeLabels(key.slice(1), object === undefined ? undefined : (object.metadata.labels ?? {}))
          return nudge
        }),
      onListed: listed(namespacesPath)
    }).pipe(Effect.forkScoped)
  } else {
    yield* Effect.forEach(
      namespaces,
      (name) =>
        kube.request({ method: "GET", path: `${namespacesPath}/${name}` }).pipe(
          Effect.match({
            onSuccess: (found) => takeLabels(name, (found as KubeObject).metadata.labels ?? {}),
            onFailure: (error) => {
              if (error.reason === "NotFound") takeLabels(name, undefined)
            }
          })
        ),
      { discard: true }
    ).pipe(Effect.andThen(listed(namespacesPath)), Effect.repeat(Schedule.spaced(namespacePoll)), Effect.forkScoped)
  }

  let isFirst = true
  const read: Source["read"] = Effect.sync((): Reading | undefined => {
    if (unlisted.size > 0) return undefined
    if (isFirst) {
      isFirst = false
      for (const identity of known) if (!objects.has(identity) && isWatched(identity)) vanished.add(identity)
    } else if (changed.size + deleted.size + vanished.size + again.size === 0 && spoiled.size === 0) return undefined
    const reading: Reading = {
      resources: changed,
      problems: [],
      spoiled: new Map(spoiled),
      deleted: [...deleted],
      last,
      vanished: [...vanished],
      again: [...again]
    }
    changed = new Map()
    deleted = new Set()
    last = new Map()
    vanished = new Set()
    again = new Set()
    return reading
  })

  const claim: Source["claim"] = (identity, resource, world) =>
    Effect.gen(function* () {
      const object = objects.get(identity)
      if (object === undefined) return yield* new SourceFailure({ message: "it is gone from the cluster" })
      const belongs = labels.get(resource.metadata.namespace)
      const fault = namespaceFault(resource, belongs)
      if (fault !== undefined) return stalled(belongs === undefined ? "NamespaceUnknown" : namespaceMismatch, fault)
      // who does not keep the path holds no finalizer, and may drop nothing
      const conflict = yield* claimConflict(world, resource)
      if (conflict !== undefined) return conflict
      if (!hasFinalizer(object)) {
        wrote(identity, yield* addFinalizer(resource.kind, object).pipe(Effect.mapError(asFailure)))
      }
      return undefined
    }).pipe(Effect.provideService(Kube, kube))

  const report: Source["report"] = (state) =>
    Effect.gen(function* () {
      const object = objects.get(state.identity)
      if (object === undefined) return
      const kind = kindOf(state.identity)
      // what cannot be decoded was seen all the same; of anything else the conditions say which generation they are of
      const judged = state.conditions.find((one) => one.type === "Ready")?.observedGeneration
      const generation = spoiled.has(state.identity) ? object.metadata.generation : judged
      const status = statusOf(kind, state, generation ?? object.metadata.generation)
      const before = (object.status ?? {}) as Record<string, unknown>
      if (comparable(before) === comparable(status)) return
      const written = yield* applyStatus(kind, object, status).pipe(
        // gone, or another of its name: the watch says so
        Effect.catchIf(
          (error) => error.reason === "NotFound" || error.reason === "Conflict",
          () => Effect.succeed(undefined)
        ),
        Effect.mapError(asFailure)
      )
      if (written === undefined) return
      wrote(state.identity, written)
      const [was, is] = [readyOf(before), readyOf(status)]
      if (is === undefined || (was?.status === is.status && was.reason === is.reason)) return
      // over in a moment, and of no use to know afterwards
      if (is.reason === "Acknowledging") return
      const { name, namespace = "", uid } = object.metadata
      yield* tell({
        regarding: { apiVersion: "velocity.sh/v1", kind, namespace, name, uid },
        type:
          is.status === "True" || state.conditions.some((one) => one.type === "Reconciling" && one.status === "True")
            ? "Normal"
            : "Warning",
        reason: is.reason,
        note: is.message
      })
    }).pipe(Effect.provideService(Kube, kube))

  const forsaken: Source["forsaken"] = (identity, note) => {
    const [, namespace = "", name = ""] = identity.split("/")
    // where nobody looked when it went, its uid went with it
    const uid = lost.get(identity) ?? ""
    lost.delete(identity)
    const regarding = { apiVersion: "velocity.sh/v1", kind: kindOf(identity), namespace, name, uid }
    return tell({ regarding, type: "Warning", reason: orphaned, note })
  }

  const delivery: KeyDelivery = {
    place: "the Secret",
    put: ({ metadata }, minted) =>
      createKeySecret({ ...metadata, uid: metadata.uid ?? "" }, minted).pipe(
        Effect.map((): Delivered => ({ _tag: "Delivered" })),
        Effect.catch((error): Effect.Effect<Delivered, SourceFailure> => {
          if (error.reason === "Conflict") return Effect.succeed({ _tag: "Taken" })
          return error.reason === "Forbidden" || error.reason === "Invalid"
            ? Effect.succeed({ _tag: "Refused", message: error.message })
            : Effect.fail(asFailure(error))
        }),
        Effect.provideService(Kube, kube)
      )
  }

  const release: Source["release"] = (identity) =>
    Effect.gen(function* () {
      lost.delete(identity)
      const object = objects.get(identity)
      if (object === undefined) return
      released.add(object.metadata.uid)
      yield* removeFinalizer(kindOf(identity), object).pipe(
        Effect.tapError(() => Effect.sync(() => released.delete(object.metadata.uid))),
        Effect.mapError(asFailure)
      )
    }).pipe(Effect.provideService(Kube, kube))

  const wait = Effect.gen(function* () {
    yield* Queue.take(nudges)
    yield* Effect.sleep(settling)
    yield* Queue.clear(nudges)
  })

  return { read, wait, claim, report, forsaken, release, delivery } satisfies Source
})
