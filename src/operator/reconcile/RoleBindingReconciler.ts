/** A binding's mirror row: roles for an actor, in a domain or on the platform. Gone from the folder, it grants nothing. */
import { Effect } from "effect"
import { velocityNamespace } from "../../domain/AuthStrategy.ts"
import type { RoleBindingSpec } from "../../domain/RoleBinding.ts"
import * as AuditChain from "../../postgres/AuditChain.ts"
import { statement } from "../../postgres/Statement.ts"
import { actorOf, foreignOrigin, originParams } from "../../provisioning/table/Origin.ts"
import { specHash } from "../../provisioning/table/SpecHash.ts"
import { ready, stalled, waiting } from "../state/Conditions.ts"
import { isPast, nextEnd } from "../state/Ends.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"
import { verdictOf } from "../state/Refusals.ts"

/** The domain that a binding is for; null for the platform; undefined where it names half of one. */
const chainOfBinding = ({ app, domain, org }: RoleBindingSpec): string | null | undefined => {
  if (org === undefined && app === undefined && domain === undefined) return null
  return org === undefined || app === undefined || domain === undefined ? undefined : `${org}/${app}/${domain}`
}

const faultOf = (spec: RoleBindingSpec, namespace: string): string | undefined => {
  const chain = chainOfBinding(spec)
  if (chain === undefined) return "/spec: a binding names org, app and domain, or none of them"
  const isPlatform = chain === null
  if (isPlatform && namespace !== velocityNamespace) {
    return `/metadata/namespace: a binding without a domain belongs to ${velocityNamespace}`
  }
  const reserved = spec.roles.filter((role) => role.startsWith("platform-"))
  if (!isPlatform && reserved.length > 0) {
    return `/spec/roles: ${reserved.join(", ")} are given by bindings without a domain alone`
  }
  if (isPlatform && reserved.length < spec.roles.length) {
    return "/spec/roles: a binding without a domain gives roles that begin with platform-"
  }
  return spec.expiresAt !== undefined && Number.isNaN(Date.parse(spec.expiresAt))
    ? "/spec/expiresAt: no such time"
    : undefined
}

const notified = (chain: string | null) =>
  statement("select pg_notify('velocity_registry', $1)::text as sent", [`bindings:${chain ?? "platform"}`])

const upsertSql = `insert into platform.role_bindings
    (actor, chain, roles, scopes, expires_at, granted_by, spec_hash, source, namespace, name, uid, resource_generation)
  select $1, $2, array(select jsonb_array_elements_text($3::jsonb)), $4::jsonb, $5::text::timestamptz, $6, $7, $8, $9, $10, $11, $12
  on conflict (namespace, name) do update set actor = excluded.actor, chain = excluded.chain, roles = excluded.roles,
    scopes = excluded.scopes, expires_at = excluded.expires_at, granted_by = excluded.granted_by, spec_hash = excluded.spec_hash,
    revoked_at = null, source = excluded.source, uid = excluded.uid, resource_generation = excluded.resource_generation,
    generation = nextval('platform.generation_seq'), updated_at = now()`

export const roleBindingReconciler: Reconciler<"RoleBinding"> = {
  kind: "RoleBinding",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const { metadata, spec } = resource
      const fault = faultOf(spec, metadata.namespace)
      if (fault !== undefined) return concluded(stalled("Invalid", fault))
      const chain = chainOfBinding(spec) ?? null
      const hash = specHash(spec)
      const found = yield* world.fence.read((tx) =>
        Effect.gen(function* () {
          const domains = yield* tx.query(
            statement("select chain from platform.domains where chain = $1", [chain ?? "platform"])
          )
          const rows = yield* tx.query(
            statement(
              "select spec_hash, source, namespace, name, chain, revoked_at is not null as revoked from platform.role_bindings where namespace = $1 and name = $2",
              [metadata.namespace, metadata.name]
            )
          )
          return { isDomain: domains.rows.length > 0, row: rows.rows[0] }
        })
      )
      if (!found.isDomain) return concluded(waiting("ParentMissing", `the domain ${chain} is not there`))
      const origin = world.originOf(resource)
      const conflict =
        found.row === undefined
          ? undefined
          : foreignOrigin(found.row, origin, `the binding ${metadata.namespace}/${metadata.name}`)
      if (conflict !== undefined) return concluded(verdictOf(conflict))
      const isDone = found.row?.spec_hash === hash && found.row.source === origin.source && found.row.revoked !== true
      const was = found.row?.chain
      if (!isDone) {
        yield* world.fence.transaction((tx) =>
          Effect.gen(function* () {
            yield* tx.query(
              statement(upsertSql, [
                spec.actorId,
                chain,
                JSON.stringify(spec.roles),
                spec.scopes === undefined ? null : JSON.stringify(spec.scopes),
                spec.expiresAt ?? null,
                spec.grantedBy ?? null,
                hash,
                ...originParams(origin)
              ])
            )
            yield* tx.query(notified(chain))
            if (was !== undefined && was !== chain) yield* tx.query(notified(was === null ? null : String(was)))
            yield* AuditChain.insert(tx, {
              chain: chain ?? "platform",
              actor: actorOf(origin),
              action: "operator.binding.apply",
              outcome: "ok",
              payload: { actor: spec.actorId, roles: spec.roles, expiresAt: spec.expiresAt ?? null }
            })
          })
        )
      }
      const until = spec.expiresAt === undefined ? "" : ` until ${spec.expiresAt}`
      const verdict = isPast(spec.expiresAt)
        ? stalled("Expired", `the binding ended at ${spec.expiresAt}; let expiresAt be later`)
        : ready(`${spec.actorId} has ${spec.roles.join(", ")}${until}`)
      return { ...concluded(verdict, { chain: chain ?? "platform" }, !isDone), again: nextEnd([spec.expiresAt]) }
    }),
  remove: (world, { name, namespace }) =>
    world.fence.transaction((tx) =>
      Effect.gen(function* () {
        const { source } = world.fence
        const { rows } = yield* tx.query(
          statement(
            "delete from platform.role_bindings where source = $1 and namespace = $2 and name = $3 returning actor, chain, roles",
            [source, namespace, name]
          )
        )
        for (const row of rows) {
          const chain = row.chain === null ? null : String(row.chain)
          yield* tx.query(notified(chain))
          yield* AuditChain.insert(tx, {
            chain: chain ?? "platform",
            actor: actorOf({ source, namespace, name }),
            action: "operator.binding.revoke",
            outcome: "ok",
            payload: { actor: row.actor, roles: row.roles }
          })
        }
        return undefined
      })
    ),
  dependents: () => []
}
