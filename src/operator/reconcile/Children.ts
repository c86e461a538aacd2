/**
 * What stands on an organisation, an application or a domain, and keeps it from going (fine print 27): resources, and what
 * Postgres has of those that are not there any more. An orphan is served on, what is being withdrawn is not gone yet, and of
 * what does not decode any more nothing but its rows is known.
 */
import { Effect } from "effect"
import { identityOf, type Kind, type Resource } from "../../domain/Resource.ts"
import { statement } from "../../postgres/Statement.ts"
import { hasChildren, isProvisioned, isReady } from "../state/Parents.ts"
import type { World } from "../state/Reconciler.ts"

/** `org`, `org/app` or `org/app/domain`: as far as a resource names it. */
const pathOf = ({ spec }: Resource): string => {
  const { app, domain, org } = spec as { readonly org?: string; readonly app?: string; readonly domain?: string }
  return [org, app, domain].filter((one) => one !== undefined).join("/")
}

const all = (world: World, kind: Kind) => world.resources(kind) as unknown as ReadonlyArray<Resource>

const identity = (kind: Kind): string => `'${kind}/' || namespace || '/' || name as identity`

const domainsSql = `select ${identity("Domain")} from platform.domains
  where spec is not null and name is not null and starts_with(chain, $1 || '/') order by 1 limit 11`

const inDomainSql = `select ${identity("SchemaDefinition")} from platform.schema_defs s where chain = $1 and name is not null
    and (serving is not null or state = 'Withdrawing'
      or exists (select from platform.plans p where p.path = s.path and p.state in ('Waiting', 'Running')))
  union all select ${identity("RoleBinding")} from platform.role_bindings where chain = $1 and revoked_at is null
  union all select distinct ${identity("ApiKey")} from platform.api_keys
    where chain = $1 and state <> 'Revoked' and not departed and name is not null
  order by 1 limit 11`

/** What the names of a path are of, and what stands on each directly. */
const kindsBelow: Readonly<Record<"Organisation" | "Application" | "Domain", ReadonlyArray<Kind>>> = {
  Organisation: ["Application"],
  Application: ["Domain"],
  Domain: ["SchemaDefinition", "RoleBinding", "ApiKey"]
}

/**
 * Why a parent that was deleted must wait. Nothing waits for one whose path another of its kind keeps; where nobody knows
 * its path it has made nothing.
 */
export const childrenVerdict = Effect.fnUntraced(function* (
  world: World,
  kind: keyof typeof kindsBelow,
  resource: Resource | undefined,
  known: unknown
) {
  const path = resource === undefined ? known : pathOf(resource)
  if (typeof path !== "string") return undefined
  const isKept = (one: Resource) => pathOf(one) === path && (isReady(world, one) || isProvisioned(world, one))
  if (all(world, kind).some(isKept)) return undefined
  const resources = kindsBelow[kind]
    .flatMap((below) => [...all(world, below), ...(world.held(below) as unknown as ReadonlyArray<Resource>)])
    .filter((one) => `${pathOf(one)}/`.startsWith(`${path}/`))
  const { rows } = yield* world.fence.read((tx) =>
    tx.query(statement(kind === "Domain" ? inDomainSql : domainsSql, [path]))
  )
  return hasChildren([...resources.map(identityOf), ...rows.map((row) => String(row.identity))])
})
