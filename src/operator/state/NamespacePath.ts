/**
 * Whether a resource stands where its path says: a namespace belongs to the path in its labels (fine print 2). The
 * admission policy `velocity-path` says the same to whoever applies; this is the comparison that counts, since policies
 * can be taken away and labels changed.
 */
import { velocityNamespace } from "../../domain/AuthStrategy.ts"
import type { Resource } from "../../domain/Resource.ts"

export type Labels = Readonly<Record<string, string>>

const keys = ["org", "app", "domain"] as const

/** The path of a namespace, as far as its labels say one. */
const pathOf = (labels: Labels): ReadonlyArray<string> => {
  const parts = keys.map((key) => labels[`velocity.sh/${key}`] ?? "")
  const end = parts.indexOf("")
  return end < 0 ? parts : parts.slice(0, end)
}

/** How many parts of its path a resource's namespace must name; 0: it lives in Velocity's own. */
const depthOf = (resource: Resource): number => {
  switch (resource.kind) {
    case "Organisation":
      return 0
    case "Application":
      return 1
    case "Domain":
      return 2
    case "SchemaDefinition":
      return 3
    case "RoleBinding":
    case "ApiKey":
      return resource.spec.org === undefined ? 0 : 3
    case "AuthStrategy":
      return resource.metadata.namespace === velocityNamespace ? 0 : 1
  }
}

/** The reason of a resource whose namespace belongs to another path. */
export const namespaceMismatch = "NamespaceMismatch"

/** Why a resource may not stand in a namespace with these labels; undefined where it may. */
export const namespaceFault = (resource: Resource, labels: Labels | undefined): string | undefined => {
  const { namespace } = resource.metadata
  const depth = depthOf(resource)
  if (depth === 0) {
    return namespace === velocityNamespace ? undefined : `a resource like this one lives in ${velocityNamespace}`
  }
  if (labels === undefined) return `the namespace ${namespace} is not known`
  const belongs = pathOf(labels)
  const said = belongs.length === 0 ? "no organisation" : belongs.join("/")
  // a strategy has no path of its own: any namespace of an organisation will do
  const wanted =
    resource.kind === "AuthStrategy"
      ? belongs.slice(0, 1)
      : keys.slice(0, depth).map((key) => Object(resource.spec)[key])
  const fits = belongs.length >= depth && wanted.length > 0 && wanted.every((part, index) => part === belongs[index])
  return fits ? undefined : `the namespace ${namespace} belongs to ${said}, the resource says ${wanted.join("/")}`
}
