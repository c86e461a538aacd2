/** What a resource stands under, and what it needs of that (fine print 27). */
import { Effect } from "effect"
import { chainOf, formatPath, isReservedOrg } from "../../domain/Names.ts"
import { identityOf, type Kind, type Resource, type ResourceOf } from "../../domain/Resource.ts"
import { pathOfDefinition } from "../../domain/SchemaDefinition.ts"
import { statement } from "../../postgres/Statement.ts"
import { holds, stalled, type Verdict, waiting } from "./Conditions.ts"
import type { World } from "./Reconciler.ts"

/** Whether a resource is as its own manifest wants it. */
export const isReady = (world: World, resource: Resource): boolean =>
  holds(world.stateOf(resource)?.conditions ?? [], "Ready")

/** Whether a domain's schema and roles are there. */
export const isProvisioned = (world: World, resource: Resource): boolean =>
  holds(world.stateOf(resource)?.conditions ?? [], "Provisioned")

/** What a child stands on, and whether that is as far as the child needs it. */
export interface Parent<K extends Kind> {
  readonly resource: ResourceOf<K>
  readonly stands: boolean
}

/**
 * The one that is there and stands; else the one that was deleted and waits for its children, which keep what they have of
 * it until they go too; else any.
 */
const parentOf = <K extends Kind>(
  world: World,
  kind: K,
  isIt: (one: ResourceOf<K>) => boolean,
  stands: (one: Resource) => boolean,
  stood: (one: Resource) => boolean
): Parent<K> | undefined => {
  const there = world.resources(kind).filter(isIt)
  const good = there.find((one) => stands(one as Resource))
  if (good !== undefined) return { resource: good, stands: true }
  const held = world.held(kind).filter(isIt)
  const last = held.find((one) => stood(one as Resource))
  if (last !== undefined) return { resource: last, stands: true }
  const any = there[0] ?? held[0]
  return any === undefined ? undefined : { resource: any, stands: false }
}

export const organisationOf = (world: World, org: string): Parent<"Organisation"> | undefined =>
  parentOf(
    world,
    "Organisation",
    (one) => one.spec.org === org,
    (one) => isReady(world, one),
    () => !isReservedOrg(org)
  )

export const applicationOf = (
  world: World,
  { app, org }: { readonly org: string; readonly app: string }
): Parent<"Application"> | undefined =>
  parentOf(
    world,
    "Application",
    (one) => one.spec.org === org && one.spec.app === app,
    (one) => isReady(world, one),
    () => organisationOf(world, org)?.stands === true
  )

export const domainOf = (world: World, chain: string): Parent<"Domain"> | undefined =>
  parentOf(
    world,
    "Domain",
    (one) => chainOf(one.spec) === chain,
    (one) => isProvisioned(world, one),
    (one) => isProvisioned(world, one)
  )

/** Why a child must wait, or nothing. */
export const parentVerdict = (what: string, parent: Parent<Kind> | undefined): Verdict | undefined => {
  if (parent === undefined) return waiting("ParentMissing", `${what} is not there`)
  return parent.stands ? undefined : waiting("ParentNotReady", `${what} is not ready`)
}

/** Whether it came so far that nobody else may have its path: of a definition, though nobody serves it now. */
const isSettled = (world: World, resource: Resource): boolean =>
  isReady(world, resource) || isProvisioned(world, resource)

/**
 * The resource that keeps a path among those of its kind that claim it: the one of which the path is by Postgres, the one
 * that is ready already, else the first by name. The others are in conflict.
 */
export const pathConflict = <R extends Resource>(
  world: World,
  resource: R,
  rivals: ReadonlyArray<R>,
  path: string,
  mirrored?: string
): Verdict | undefined => {
  const claimants = [resource, ...rivals.filter((one) => identityOf(one) !== identityOf(resource))]
  if (claimants.length === 1) return undefined
  const rank = (one: R): number => (identityOf(one) === mirrored ? 0 : isSettled(world, one) ? 1 : 2)
  const [keeper] = claimants.sort((a, b) => rank(a) - rank(b) || (identityOf(a) < identityOf(b) ? -1 : 1))
  return keeper === undefined || identityOf(keeper) === identityOf(resource)
    ? undefined
    : stalled("PathConflict", `${path} is kept by ${keeper.metadata.namespace}/${keeper.metadata.name}`)
}

/** The path that a resource claims for itself; a strategy and a binding have none. */
const claimedPath = (resource: Resource): string | undefined => {
  switch (resource.kind) {
    case "Organisation":
      return resource.spec.org
    case "Application":
      return `${resource.spec.org}/${resource.spec.app}`
    case "Domain":
      return chainOf(resource.spec)
    case "SchemaDefinition":
      return formatPath(pathOfDefinition(resource.spec))
    default:
      return undefined
  }
}

const mirrorSql: Partial<Record<Kind, string>> = {
  Domain: "select namespace, name from platform.domains where chain = $1 and source = $2 and spec is not null",
  SchemaDefinition: `select namespace, name from platform.schema_defs s where path = $1 and source = $2 and (serving is not null
    or state = 'Withdrawing' or exists (select from platform.plans p where p.path = s.path and p.state in ('Waiting', 'Running')))`
}

/** Of which resource of this source a path is by its mirror row, whatever is wrong with that resource now. */
const mirroredIdentity = Effect.fnUntraced(function* ({ fence }: World, kind: Kind, path: string) {
  const sql = mirrorSql[kind]
  if (sql === undefined) return undefined
  const { rows } = yield* fence.read((tx) => tx.query(statement(sql, [path, fence.source])))
  return rows[0] === undefined ? undefined : `${kind}/${rows[0].namespace}/${rows[0].name}`
})

/** Whether another resource keeps the path that this one claims (fine print 3). */
export const claimConflict = Effect.fnUntraced(function* (world: World, resource: Resource) {
  const path = claimedPath(resource)
  if (path === undefined) return undefined
  const rivals = (world.resources(resource.kind) as ReadonlyArray<Resource>).filter((one) => claimedPath(one) === path)
  if (rivals.every((one) => identityOf(one) === identityOf(resource))) return undefined
  return pathConflict(world, resource, rivals, path, yield* mirroredIdentity(world, resource.kind, path))
})

/** Why a parent cannot go yet: the first ten of its children, by their identities. */
export const hasChildren = (identities: Iterable<string>): Verdict | undefined => {
  const children = [...new Set(identities)]
  return children.length === 0
    ? undefined
    : stalled("HasChildren", `waits for ${children.slice(0, 10).join(", ")}${children.length > 10 ? ", …" : ""}`)
}
