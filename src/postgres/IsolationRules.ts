/**
 * What the isolation check looks for, as one query over the catalogue that any login may run: a rule is a SELECT of
 * `(code, object, detail, repair)`, with no rows when it holds. `repair` is SQL for a superuser, or for whoever granted
 * or owns what is to go.
 *
 * The catalogue knows tenants by what provisioning makes: a domain's schema is one whose owner is `{schema}_owner`, a
 * domain role is a member of `velocity_tenant`.
 */
import { houseRules } from "./IsolationHouseRules.ts"
import { logRules } from "./IsolationLogRules.ts"
import { roleRules } from "./IsolationRoleRules.ts"
import { platformRoles } from "./IsolationRule.ts"
import { tenantRules } from "./IsolationTenantRules.ts"

/** Something that must not be so. */
export interface Violation {
  /** Which rule: stable, for metrics and documents. */
  readonly code: string
  /** What it is about: a role, a table, a function. */
  readonly object: string
  /** What is wrong with it, for a person. */
  readonly detail: string
  /** The SQL that puts it right, for a superuser or whoever granted it; a comment where it is no SQL. */
  readonly repair: string
}

/** A row of `catalogueRules`. */
export const violationOf = (row: Readonly<Record<string, unknown>>): Violation => ({
  code: String(row.code),
  object: String(row.object),
  detail: String(row.detail),
  repair: String(row.repair)
})

const common = `with recursive
  tenant_role as (
    select m.member as oid from pg_auth_members m
    where m.roleid = to_regrole('velocity_tenant') and m.inherit_option and pg_get_userbyid(m.member) ~ '_(reader|writer|admin)$'
  ),
  -- whoever velocity_api can be, or make itself, by a way through memberships; beyond a role that it may not be the way
  -- is not followed
  reach(role, path, allowed) as (
    select oid, array[oid], true from pg_roles where rolname = 'velocity_api'
    union all
    select m.roleid, r.path || m.roleid,
      pg_get_userbyid(m.roleid) in ('velocity_gateway', 'velocity_auditor', 'velocity_privacy')
      or m.roleid in (select t.oid from tenant_role t)
      or (m.roleid = to_regrole('velocity_tenant') and r.role in (select t.oid from tenant_role t))
    from reach r join pg_auth_members m on m.member = r.role
    where r.allowed and (m.inherit_option or m.set_option or m.admin_option) and m.roleid <> all (r.path)
  ),
  ours as (
    select r.oid, r.rolname from pg_roles r where r.rolname in (${platformRoles})
    union select r.oid, r.rolname from pg_roles r join tenant_role t on t.oid = r.oid
    union select r.oid, r.rolname from pg_roles r join pg_auth_members m on m.member = r.oid
      where m.roleid = to_regrole('velocity_history') and m.inherit_option and r.rolname ~ '_owner$' and r.rolname <> 'velocity_owner'
  ),
  -- schemas that hold tenants' tables
  tenant_schema as (
    select n.oid, n.nspname, n.nspowner from pg_namespace n
    where n.nspname <> 'platform' and n.nspname !~ '^pg_' and n.nspname <> 'information_schema' and (
      n.nspowner::regrole::text in (n.nspname || '_owner', quote_ident(n.nspname || '_owner'))
      or exists (select from aclexplode(n.nspacl) a join tenant_role t on t.oid = a.grantee))
  ),
  tenant_table as (
    select c.oid, c.relname, c.relowner, c.relrowsecurity, c.relforcerowsecurity, s.nspname, s.nspowner
    from pg_class c join tenant_schema s on s.oid = c.relnamespace where c.relkind in ('r', 'p')
  ),
  log as (
    select c.oid, c.relacl, c.relowner from pg_class c
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform') and c.relkind in ('r', 'p')
      and (c.relname in ('audit_log', 'audit_leaves', 'audit_tiles', 'audit_checkpoints', 'audit_seals') or exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent
                                              where i.inhrelid = c.oid and p.relname = 'audit_log' and p.relnamespace = c.relnamespace))
  ),
  history as (
    select c.oid, c.relname, c.relacl, c.relowner from pg_class c
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform') and c.relkind in ('r', 'p')
      and (c.relname = 'event_log' or exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent
                                              where i.inhrelid = c.oid and p.relname = 'event_log' and p.relnamespace = c.relnamespace))
  ),
  of_extension as (select classid, objid from pg_depend where deptype = 'e'),
  code_schema as (select oid, nspname from pg_namespace where nspname !~ '^pg_' and nspname <> 'information_schema')`

const rules = [...roleRules, ...logRules, ...tenantRules, ...houseRules]

/** Every rule at once; columns `code`, `object`, `detail`, `repair`, in a fixed order. */
export const catalogueRules = `${common}
select * from (
${rules.map((rule) => `  -- ${rule.why}\n  (${rule.sql})`).join("\n  union all\n")}
) as violation(code, object, detail, repair)
order by code, object, detail`
