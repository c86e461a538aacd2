/** Which resource a mirror row is of. */
import { type ProvisionRefused, refused } from "./ProvisionRefused.ts"

/** Where a resource comes from, and which of its states it is. */
export interface Origin {
  /** The cluster (uid of kube-system), or `folder`. */
  readonly source: string
  readonly namespace: string
  readonly name: string
  readonly uid?: string | undefined
  readonly generation?: number | undefined
  /** The source whose row it may take over (`velocity.sh/adopt`). */
  readonly adopts?: string | undefined
}

type Row = Readonly<Record<string, unknown>>

/** Why a resource may not take over a mirror row: another one of its source keeps the path, or it is of another source. */
export const foreignOrigin = (row: Row, origin: Origin, path: string): ProvisionRefused | undefined => {
  const { name, namespace, source } = row
  if (typeof source !== "string") return undefined
  if (source !== origin.source) {
    if (source === origin.adopts) return undefined
    return refused(
      "NotAdopted",
      `${path} belongs to the source ${source}; this is ${origin.source}: velocity.sh/adopt: ${source} takes it over`
    )
  }
  if (namespace !== origin.namespace || name !== origin.name) {
    return refused("PathConflict", `${path} is kept by ${namespace}/${name}`)
  }
  return undefined
}

/** The values of a mirror row's columns source, namespace, name, uid, resource_generation, in this order. */
export const originParams = (origin: Origin): ReadonlyArray<unknown> => [
  origin.source,
  origin.namespace,
  origin.name,
  origin.uid ?? null,
  origin.generation ?? null
]

/** Who the audit log says did it. */
export const actorOf = (origin: Origin): string => `operator/${origin.source}`
