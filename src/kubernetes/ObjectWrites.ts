/**
 * What the operator writes to objects of Velocity's kinds: its finalizer and their status. Neither can bring back what is
 * gone (fine print 26): a finalizer travels as a JSON patch that tests uid and version; a status as a server-side apply,
 * which of what is gone is 404. The API server does not compare its uid (measured, against what fine print 26 expects): an
 * object made anew under a name may get the status of the one before it, until its own reconciliation, which follows,
 * writes its own.
 */
import { Effect } from "effect"
import type { Kind } from "../domain/Resource.ts"
import { group, pluralOf } from "./CustomResources.ts"
import { Kube, type KubeError, patches } from "./Kube.ts"
import type { KubeObject } from "./ListWatch.ts"

/** Holds an object until what it had in Postgres has ended. */
export const finalizer = "velocity.sh/operator"
/** Who owns the fields of a status. */
const fieldManager = "velocity-operator"

/** All objects of a kind, of one namespace or of all. */
export const collectionOf = (kind: Kind, namespace?: string): string =>
  `/apis/${group}/v1${namespace === undefined ? "" : `/namespaces/${namespace}`}/${pluralOf(kind)}`

const pathOf = (kind: Kind, { metadata }: KubeObject): string =>
  `${collectionOf(kind, metadata.namespace)}/${metadata.name}`

export const hasFinalizer = ({ metadata }: KubeObject): boolean => metadata.finalizers?.includes(finalizer) === true

type Patch = ReadonlyArray<{ readonly op: string; readonly path: string; readonly value?: unknown }>

const patched = Effect.fnUntraced(function* (kind: Kind, object: KubeObject, body: Patch) {
  const kube = yield* Kube
  const answer = yield* kube.request({
    method: "PATCH",
    path: pathOf(kind, object),
    body: [{ op: "test", path: "/metadata/uid", value: object.metadata.uid }, ...body],
    contentType: patches.json
  })
  return answer as KubeObject
})

/** Puts our finalizer on an object that is as we know it; fails where it has changed meanwhile, or is gone. */
export const addFinalizer = (kind: Kind, object: KubeObject): Effect.Effect<KubeObject, KubeError, Kube> => {
  const { finalizers, resourceVersion } = object.metadata
  return patched(kind, object, [
    { op: "test", path: "/metadata/resourceVersion", value: resourceVersion },
    finalizers === undefined || finalizers.length === 0
      ? { op: "add", path: "/metadata/finalizers", value: [finalizer] }
      : { op: "add", path: "/metadata/finalizers/-", value: finalizer }
  ])
}

/** Takes our finalizer away; an object that is gone has none. Answers what the server has left of it. */
export const removeFinalizer = (kind: Kind, object: KubeObject): Effect.Effect<KubeObject, KubeError, Kube> => {
  const index = object.metadata.finalizers?.indexOf(finalizer) ?? -1
  if (index < 0) return Effect.succeed(object)
  const path = `/metadata/finalizers/${index}`
  return patched(kind, object, [
    { op: "test", path, value: finalizer },
    { op: "remove", path }
  ]).pipe(
    Effect.catchIf(
      (error) => error.reason === "NotFound",
      () => Effect.succeed(object)
    )
  )
}

/** Makes an object's status what is given, whole; keys of ours that are not given any more go. */
export const applyStatus = Effect.fnUntraced(function* (
  kind: Kind,
  object: KubeObject,
  status: Readonly<Record<string, unknown>>
) {
  const kube = yield* Kube
  const { name, namespace, uid } = object.metadata
  const answer = yield* kube.request({
    method: "PATCH",
    path: `${pathOf(kind, object)}/status`,
    query: { fieldManager, force: "true" },
    body: { apiVersion: `${group}/v1`, kind, metadata: { name, namespace, uid }, status },
    contentType: patches.apply
  })
  return answer as KubeObject
})
