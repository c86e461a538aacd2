/**
 * What the isolation check looks for, as one query over the catalogue that any login may run: a rule is a SELECT of
 * `(code, object, detail, repair)`, with no rows when it holds. `repair` is SQL for a superuser, or for whoever granted
 * or owns what is to go.
 *
 * The catalogue knows tenants by what provisioning makes: a domain's schema is one whose owner is `{schema}_owner`, a
 * domain role is a member of `velocity_tenant`.
 */
import { partitionFaults } from "./PartitionFaults.ts"

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

/** Our roles that belong to no domain. */
const platformRoles =
  "'velocity_owner', 'velocity_tenant', 'velocity_history', 'velocity_gateway', 'velocity_auditor', 'velocity_privacy', 'velocity_sealer', 'velocity_api', 'velocity_operator'"

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

/** One thing that must be so. */
interface Rule {
  /** What the rule is for. */
  readonly why: string
  readonly sql: string
}

const rules: ReadonlyArray<Rule> = [
  {
    why: "without the migrations there is nothing to judge",
    sql: `select 'not_migrated', name, 'it is missing', '-- velocity migrate' from (
      select r.name from unnest(array[${platformRoles}]) as r(name) where to_regrole(r.name) is null
      union all select 'schema platform' where not exists (select from pg_namespace where nspname = 'platform')
      union all select format('platform.%s', t.name) from unnest(array['schema_defs', 'audit_log', 'event_log']) as t(name)
        where not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = 'platform' and c.relname = t.name)
      ) as missing(name)`
  },
  {
    why: "the check says something only of the login that it is run as",
    sql: `select 'wrong_login', session_user::text, format('the API logs in as %s, and not as velocity_api', session_user),
      '-- set the user of VELOCITY_API_DATABASE_URL to velocity_api'
    where session_user <> 'velocity_api'`
  },
  {
    why: "and without its roles the API can do nothing",
    sql: `select 'missing_membership', r.name, 'velocity_api may not take it on', format('GRANT %s TO velocity_api WITH INHERIT FALSE, SET TRUE, ADMIN FALSE', r.name)
    from unnest(array['velocity_gateway', 'velocity_auditor', 'velocity_privacy']) as r(name)
    where not exists (select from pg_auth_members m where m.roleid = to_regrole(r.name) and m.member = to_regrole('velocity_api') and m.set_option)`
  },
  {
    why: "attributes that step over everything else",
    sql: `select case when what = 'SUPERUSER' then 'superuser' when what = 'BYPASSRLS' then 'bypassrls' else 'role_attribute' end,
      r.rolname::text, format('role %s is %s', r.rolname, what), format('ALTER ROLE %I NO%s', r.rolname, what)
    from pg_roles r join ours o on o.oid = r.oid, lateral (values
      ('SUPERUSER', r.rolsuper), ('BYPASSRLS', r.rolbypassrls), ('REPLICATION', r.rolreplication), ('CREATEDB', r.rolcreatedb),
      ('CREATEROLE', r.rolcreaterole and r.rolname <> 'velocity_operator'),
      ('LOGIN', r.rolcanlogin and r.rolname not in ('velocity_api', 'velocity_operator')),
      ('INHERIT', r.rolinherit and r.rolname in ('velocity_api', 'velocity_operator'))) as a(what, held)
    where a.held`
  },
  {
    why: "no way through memberships to a role that is not meant for the API, by whichever of the three options",
    sql: `select distinct 'membership', r.role::regrole::text,
      format('velocity_api can become %s: %s', r.role::regrole,
        (select string_agg(p::regrole::text, ' > ' order by n) from unnest(r.path) with ordinality as t(p, n))),
      format('REVOKE %s FROM %s GRANTED BY %s CASCADE', m.roleid::regrole, m.member::regrole, m.grantor::regrole)
    from reach r join pg_auth_members m on m.roleid = r.role and m.member = r.path[cardinality(r.path) - 1]
    where not r.allowed and (m.inherit_option or m.set_option or m.admin_option)`
  },
  {
    why: "the API takes a role on, and neither inherits it nor hands it out",
    sql: `select 'membership_options', m.roleid::regrole::text,
      format('velocity_api is a member of %s with INHERIT %s, SET %s, ADMIN %s', m.roleid::regrole, m.inherit_option, m.set_option, m.admin_option),
      format('GRANT %s TO velocity_api WITH INHERIT FALSE, SET TRUE, ADMIN FALSE GRANTED BY %s', m.roleid::regrole, m.grantor::regrole)
    from pg_auth_members m
    where m.member = to_regrole('velocity_api') and (m.inherit_option or m.admin_option)
      and (m.roleid::regrole::text in ('velocity_gateway', 'velocity_auditor', 'velocity_privacy') or exists (select from tenant_role t where t.oid = m.roleid))`
  },
  {
    why: "only velocity_api enters a domain role; the operator holds ADMIN on what it made, and enters a domain's owner",
    sql: `select 'domain_role_member', m.roleid::regrole::text,
      format('%s is a member of domain role %s with INHERIT %s, SET %s, ADMIN %s', m.member::regrole, m.roleid::regrole, m.inherit_option, m.set_option, m.admin_option),
      format('REVOKE %s FROM %s GRANTED BY %s CASCADE', m.roleid::regrole, m.member::regrole, m.grantor::regrole)
    from pg_auth_members m join ours o on o.oid = m.roleid and o.rolname not in (${platformRoles})
    where not (m.member = to_regrole('velocity_api') and exists (select from tenant_role t where t.oid = m.roleid))
      and not (m.member = to_regrole('velocity_operator') and m.admin_option and not m.inherit_option and not m.set_option and m.grantor = 10)
      and not (m.member = to_regrole('velocity_operator') and not m.admin_option and not m.inherit_option and m.set_option
               and not exists (select from tenant_role t where t.oid = m.roleid))
      and not (m.member = to_regrole('velocity_api') and exists (select from reach r where r.role = m.roleid))`
  },
  {
    why: "nobody is a member of velocity_owner outside a migration, nor the operator of anything but what it needs",
    sql: `select 'platform_role_member', m.roleid::regrole::text,
      format('%s is a member of %s with INHERIT %s, SET %s, ADMIN %s', m.member::regrole, m.roleid::regrole, m.inherit_option, m.set_option, m.admin_option),
      format('REVOKE %s FROM %s GRANTED BY %s CASCADE', m.roleid::regrole, m.member::regrole, m.grantor::regrole)
    from pg_auth_members m
    where m.member <> to_regrole('velocity_api')
      and (m.roleid::regrole::text in (${platformRoles}) or m.member in (select oid from ours where rolname in (${platformRoles})))
      and not exists (select from ours o where o.oid = m.roleid and o.rolname not in (${platformRoles}))
      -- what CREATE ROLE gives to whoever ran it, the migrator
      and not (m.admin_option and not m.inherit_option and not m.set_option and m.grantor = 10
               and m.member not in (select oid from ours) and m.roleid in (select oid from ours))
      and not (m.roleid::regrole::text in ('velocity_tenant', 'velocity_history') and m.member = to_regrole('velocity_owner')
               and m.admin_option and not m.inherit_option and not m.set_option)
      and not (m.roleid::regrole::text in ('velocity_tenant', 'velocity_history') and m.inherit_option and not m.set_option and not m.admin_option
               and m.member in (select oid from ours where rolname not in (${platformRoles})))
      and not (m.roleid = to_regrole('velocity_sealer') and m.member = to_regrole('velocity_operator') and m.set_option
               and not m.inherit_option and not m.admin_option)`
  },
  {
    why: "an owner may do everything with what it owns, and RLS does not bind it",
    sql: `select 'owns', case when d.dbid in (0, (select oid from pg_database where datname = current_database()))
        then pg_describe_object(d.classid, d.objid, d.objsubid) else format('something in database %s', (select datname from pg_database where oid = d.dbid)) end,
      format('%s owns it', d.refobjid::regrole), format('REASSIGN OWNED BY %s TO velocity_owner', d.refobjid::regrole)
    from pg_shdepend d
    where d.refclassid = 'pg_authid'::regclass and d.deptype = 'o'
      and d.refobjid in (select oid from ours where rolname in ('velocity_api', 'velocity_tenant', 'velocity_gateway', 'velocity_auditor', 'velocity_privacy')
                         union select oid from tenant_role)`
  },
  {
    why: "what the login holds by itself is not given back with a role; it may say what it serves, and nothing else",
    sql: `select 'own_privilege', o.object, format('velocity_api holds a privilege on %s by itself', o.object), o.repair
    from pg_shdepend d, lateral (select
      case when d.dbid in (0, (select oid from pg_database where datname = current_database()))
        then pg_describe_object(d.classid, d.objid, d.objsubid) else format('something in database %s', (select datname from pg_database where oid = d.dbid)) end,
      case d.classid
        when 'pg_class'::regclass then format('REVOKE ALL ON %s FROM velocity_api CASCADE', d.objid::regclass)
        when 'pg_proc'::regclass then format('REVOKE ALL ON FUNCTION %s FROM velocity_api CASCADE', d.objid::regprocedure)
        when 'pg_namespace'::regclass then format('REVOKE ALL ON SCHEMA %s FROM velocity_api CASCADE', d.objid::regnamespace)
        when 'pg_database'::regclass then format('REVOKE CREATE, TEMPORARY ON DATABASE %I FROM velocity_api CASCADE', (select datname from pg_database where oid = d.objid))
        else 'DROP OWNED BY velocity_api' end) as o(object, repair)
    where d.refclassid = 'pg_authid'::regclass and d.refobjid = to_regrole('velocity_api') and d.deptype = 'a'
      and not (d.classid = 'pg_database'::regclass and not exists (
        select from pg_database b, aclexplode(b.datacl) a where b.oid = d.objid and a.grantee = d.refobjid and (a.privilege_type <> 'CONNECT' or a.is_grantable)))
      and not (d.classid = 'pg_namespace'::regclass and exists (select from pg_namespace n where n.oid = d.objid and n.nspname = 'platform')
        and not exists (select from pg_namespace n, aclexplode(n.nspacl) a where n.oid = d.objid and a.grantee = d.refobjid and (a.privilege_type <> 'USAGE' or a.is_grantable)))
      and not (d.classid = 'pg_proc'::regclass and d.objid::regprocedure::text in ('platform.registry_ack(text,integer,bigint,text)', 'platform.registry_leave(text)')
        and not exists (select from pg_proc p, aclexplode(p.proacl) a where p.oid = d.objid and a.grantee = d.refobjid and a.is_grantable))`
  },
  {
    why: "the audit log has one writer, and so has the tree over it",
    sql: `select 'audit_log_privilege', l.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, l.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from log l, aclexplode(l.relacl) a
    where a.grantee <> to_regrole('velocity_owner') and a.privilege_type <> 'SELECT'
    union all
    select 'audit_log_privilege', l.oid::regclass::text, format('%s may %s column %I', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type, t.attname),
      format('REVOKE %s (%I) ON %s FROM %s CASCADE', a.privilege_type, t.attname, l.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from log l join pg_attribute t on t.attrelid = l.oid, aclexplode(t.attacl) a
    where a.privilege_type <> 'SELECT'
    union all
    select 'audit_log_owner', l.oid::regclass::text, format('it belongs to %s', l.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', l.oid::regclass)
    from log l where l.relowner <> to_regrole('velocity_owner')`
  },
  {
    why: "the log refuses change by triggers that fire whatever the session says, and by no others",
    sql: `select 'audit_log_trigger', l.oid::regclass::text, format('trigger %s is missing', w.name), '-- velocity migrate'
    from log l, (values ('refuse_row'), ('refuse_truncate')) as w(name)
    where not exists (select from pg_trigger t where t.tgrelid = l.oid and t.tgname = w.name)
    union all
    select 'audit_log_trigger', l.oid::regclass::text, format('trigger %I is not ENABLE ALWAYS', t.tgname),
      format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', l.oid::regclass, t.tgname)
    from log l join pg_trigger t on t.tgrelid = l.oid where t.tgname in ('refuse_row', 'refuse_truncate') and t.tgenabled <> 'A'
    union all
    select 'audit_log_trigger', l.oid::regclass::text, format('trigger %I is not one of ours', t.tgname), format('DROP TRIGGER %I ON %s', t.tgname, l.oid::regclass)
    from log l join pg_trigger t on t.tgrelid = l.oid
    where not t.tgisinternal and t.tgparentid = 0
      and (t.tgname not in ('refuse_row', 'refuse_truncate') or t.tgfoid::regproc::text not in ('platform.audit_refuse', 'platform.evidence_guard'))
    union all
    select 'audit_log_rule', l.oid::regclass::text, format('rule %I rewrites statements on it', w.rulename), format('DROP RULE %I ON %s', w.rulename, l.oid::regclass)
    from log l join pg_rewrite w on w.ev_class = l.oid`
  },
  {
    why: "history is kept apart by domain: two policies, on the parent and its months",
    sql: `select 'event_log_rls', c.oid::regclass::text, 'row-level security is not enabled', format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.oid::regclass)
    from pg_class c
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform') and c.relkind in ('r', 'p') and not c.relrowsecurity
      and (c.relname = 'event_log' or exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid and p.relname = 'event_log'))
    union all
    select 'event_log_policy', p.polrelid::regclass::text, format('policy %I is not one of ours', p.polname), format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass)
    from pg_policy p join pg_class c on c.oid = p.polrelid
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform')
      and not (c.relname = 'event_log' and (
        (p.polname = 'history' and p.polcmd = 'r' and p.polroles = array[to_regrole('velocity_history')::oid] and pg_get_expr(p.polqual, p.polrelid) ~ '^\\(chain = \\( SELECT platform\\.current_chain\\(\\) AS current_chain\\)\\)$')
        or (p.polname = 'append' and p.polcmd = 'a' and p.polroles = array[to_regrole('velocity_tenant')::oid] and pg_get_expr(p.polwithcheck, p.polrelid) ~ '^\\(chain = \\( SELECT platform\\.current_chain\\(\\) AS current_chain\\)\\)$')))`
  },
  {
    why: "history is added to by domain roles, read by their views' owners, and changed by nobody but the erasure's function",
    sql: `select 'event_log_privilege', c.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, c.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from history c, aclexplode(c.relacl) a
    where a.grantee <> to_regrole('velocity_owner') and a.grantee <> 0 and a.grantee <> to_regrole('velocity_api') and not (c.relname = 'event_log' and (
      (a.grantee = to_regrole('velocity_tenant') and a.privilege_type = 'INSERT') or (a.grantee = to_regrole('velocity_history') and a.privilege_type = 'SELECT')))
    union all
    select 'event_log_privilege', c.oid::regclass::text, format('%s may %s column %I', a.grantee::regrole, a.privilege_type, t.attname),
      format('REVOKE %s (%I) ON %s FROM %s CASCADE', a.privilege_type, t.attname, c.oid::regclass, a.grantee::regrole)
    from history c join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a where a.grantee <> 0 and a.grantee <> to_regrole('velocity_api')
    union all
    select 'event_log_owner', c.oid::regclass::text, format('it belongs to %s', c.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', c.oid::regclass)
    from history c where c.relowner <> to_regrole('velocity_owner')`
  },
  {
    why: "a month of either log is guarded as its parent is",
    sql: `select 'partition_fault', f.partition, f.detail, f.repair from (${partitionFaults}) as f`
  },
  {
    why: "months that were retired and kept are the auditor's to read, and nobody's to change",
    sql: `select 'archive_privilege', c.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, c.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
    where n.nspname = 'platform_archive' and a.grantee not in (0, c.relowner)
      and not (c.relname like 'audit\\_log\\_%' and a.grantee = to_regrole('velocity_auditor') and a.privilege_type = 'SELECT' and not a.is_grantable)
    union all
    select 'archive_owner', c.oid::regclass::text, format('it belongs to %s', c.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', c.oid::regclass)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'platform_archive' and c.relkind = 'r' and c.relowner <> to_regrole('velocity_owner')
    union all
    select 'archive_trigger', c.oid::regclass::text, format('trigger %s is missing or not ENABLE ALWAYS', w.name),
      case when exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = w.name)
        then format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', c.oid::regclass, w.name) else '-- velocity migrate' end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, (values ('refuse_row'), ('refuse_truncate')) as w(name)
    where n.nspname = 'platform_archive' and c.relkind = 'r' and c.relname like 'audit\\_log\\_%'
      and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = w.name and t.tgenabled = 'A')`
  },
  {
    why: "a tenant's table holds its rows back even from its owner",
    sql: `select 'rls', format('%I.%I', nspname, relname), case when relrowsecurity then 'row-level security is not forced' else 'row-level security is not enabled' end,
      format('ALTER TABLE %I.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', nspname, relname)
    from tenant_table where not relrowsecurity or not relforcerowsecurity
    union all
    select 'tenant_owner', format('%I.%I', nspname, relname), format('it belongs to %s', relowner::regrole), format('ALTER TABLE %I.%I OWNER TO %I', nspname, relname, nspname || '_owner')
    from tenant_table where relowner::regrole::text not in (nspname || '_owner', quote_ident(nspname || '_owner'))`
  },
  {
    why: "beside its tables a tenant's schema holds history views, plain views of one table that its caller's rights are asked for, and nothing that runs",
    sql: `select 'unexpected_object', c.oid::regclass::text, format('a %s that no definition asks for', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table' else 'sequence' end),
      format('DROP %s %s', case c.relkind when 'v' then 'VIEW' when 'm' then 'MATERIALIZED VIEW' when 'f' then 'FOREIGN TABLE' else 'SEQUENCE' end, c.oid::regclass)
    from pg_class c join tenant_schema s on s.oid = c.relnamespace
    where c.relkind in ('v', 'm', 'f', 'S') and not (c.relkind = 'v' and c.relname like '%\\_history'
      and c.relowner::regrole::text in (s.nspname || '_owner', quote_ident(s.nspname || '_owner'))
      and coalesce('security_barrier=true' = any (c.reloptions), false))
      -- a version that shows another's rows: columns of one table, and nothing computed
      and not (c.relkind = 'v' and c.relowner::regrole::text in (s.nspname || '_owner', quote_ident(s.nspname || '_owner'))
        and c.reloptions = array['security_invoker=true']
        and (select count(distinct d.refobjid) = 1 and bool_and(d.refobjid in (select t.oid from tenant_table t where t.nspname = s.nspname))
             from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
             where w.ev_class = c.oid and d.deptype <> 'i' and d.refclassid = 'pg_class'::regclass and d.refobjid <> c.oid)
        and not exists (select from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
             where w.ev_class = c.oid and d.deptype <> 'i' and d.refclassid <> 'pg_class'::regclass)
        and (select count(*) from pg_rewrite w where w.ev_class = c.oid) = 1)
    union all
    select 'unexpected_function', p.oid::regprocedure::text, 'a function that no definition asks for', format('DROP ROUTINE %s', p.oid::regprocedure)
    from pg_proc p join tenant_schema s on s.oid = p.pronamespace
    union all
    select 'unexpected_trigger', format('%I on %s', t.tgname, t.tgrelid::regclass), 'a trigger that no definition asks for', format('DROP TRIGGER %I ON %s', t.tgname, t.tgrelid::regclass)
    from pg_trigger t join pg_class c on c.oid = t.tgrelid join tenant_schema s on s.oid = c.relnamespace
    where not t.tgisinternal and not (t.tgname like 'velocity\\_copy\\_%' and t.tgtype = 23
      -- into the successor of a column, which nothing reads before it takes the column's place
      and split_part(encode(t.tgargs, 'escape'), '\\000', 2) ~ '^_n_[0-9a-f]{8}$' and exists (
      select from pg_proc p join pg_namespace n on n.oid = p.pronamespace where p.oid = t.tgfoid and p.proname = 'evolve_copy' and n.nspname = 'platform'))
    union all
    select 'disabled_constraint', c.oid::regclass::text, 'the triggers of its foreign keys are disabled', format('ALTER TABLE %s ENABLE TRIGGER ALL', c.oid::regclass)
    from tenant_table c where exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgisinternal and t.tgenabled <> 'O')
    union all
    select 'unexpected_rule', format('%I on %s', w.rulename, w.ev_class::regclass), 'a rule that no definition asks for', format('DROP RULE %I ON %s', w.rulename, w.ev_class::regclass)
    from pg_rewrite w join pg_class c on c.oid = w.ev_class join tenant_schema s on s.oid = c.relnamespace
    where c.relkind <> 'v' or w.rulename <> '_RETURN'
    union all
    select 'unexpected_default', format('%s.%I', d.adrelid::regclass, a.attname), format('its default is no constant: %s', pg_get_expr(d.adbin, d.adrelid)),
      format('ALTER TABLE %s ALTER COLUMN %I DROP %s', d.adrelid::regclass, a.attname, case when a.attgenerated <> '' then 'EXPRESSION' else 'DEFAULT' end)
    from pg_attrdef d join tenant_table c on c.oid = d.adrelid join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    where d.adbin::text ~ '\\{(SQLVALUEFUNCTION|NEXTVALUEEXPR)'
      or exists (select from regexp_matches(d.adbin::text, ':(?:func|opfunc)id (\\d+)', 'g') as f(id) join pg_proc p on p.oid = f.id[1]::oid
                 where p.provolatile <> 'i' or p.pronamespace <> 'pg_catalog'::regnamespace)
    union all
    select 'unexpected_default', format('%s.%I', d.adrelid::regclass, a.attname), 'a default of a view', format('ALTER VIEW %s ALTER COLUMN %I DROP DEFAULT', d.adrelid::regclass, a.attname)
    from pg_attrdef d join pg_class c on c.oid = d.adrelid join tenant_schema s on s.oid = c.relnamespace
      join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where c.relkind = 'v'
    union all
    select 'unexpected_default', format('%s.%I', a.attrelid::regclass, a.attname), 'an identity column', format('ALTER TABLE %s ALTER COLUMN %I DROP IDENTITY', a.attrelid::regclass, a.attname)
    from pg_attribute a join tenant_table c on c.oid = a.attrelid where a.attidentity <> '' and not a.attisdropped`
  },
  {
    why: "policies are ours by name, for the domain's own roles, and ask nothing but what the transaction says of its caller",
    sql: `select 'unexpected_policy', format('%I on %s', p.polname, p.polrelid::regclass), w.what,
      format(case when p.polname = 'velocity_erase' and p.polcmd = '*' and p.polpermissive
        then 'ALTER POLICY %I ON %s TO velocity_owner USING (true) WITH CHECK (false)' else 'DROP POLICY %I ON %s' end, p.polname, p.polrelid::regclass)
    from pg_policy p join tenant_table c on c.oid = p.polrelid, lateral (values
      (p.polname !~ '^velocity_', 'a policy that no definition asks for'),
      (not p.polpermissive, 'a restrictive policy'),
      (p.polname <> 'velocity_erase' and exists (select from unnest(p.polroles) r where r = 0 or (pg_get_userbyid(r) <> c.nspname || '_owner' and pg_get_userbyid(r) not in
        (c.nspname || '_reader', c.nspname || '_writer', c.nspname || '_admin'))), 'a policy for roles of somebody else'),
      (p.polname <> 'velocity_ddl' and exists (select from unnest(p.polroles) r where pg_get_userbyid(r) = c.nspname || '_owner'), 'a second policy for the owner'),
      (p.polname = 'velocity_ddl' and (p.polcmd <> '*' or exists (select from unnest(p.polroles) r where pg_get_userbyid(r) <> c.nspname || '_owner')), 'velocity_ddl is for the owner alone'),
      (p.polname = 'velocity_erase' and not (p.polcmd = '*' and p.polroles = array[to_regrole('velocity_owner')::oid]
        -- the constants true and false; to print them Postgres would open the table, which migrations must not
        and p.polqual::text ~ '^\\{CONST :consttype 16 [^{}]*:constvalue 1 \\[( 0)* 1( 0)* \\]\\}$'
        and p.polwithcheck::text ~ '^\\{CONST :consttype 16 [^{}]*:constvalue 1 \\[( 0)+ \\]\\}$'), 'velocity_erase is for velocity_owner alone, to delete'),
      (exists (select from pg_depend d where d.classid = 'pg_policy'::regclass and d.objid = p.oid and (
        (d.refclassid = 'pg_class'::regclass and d.refobjid <> p.polrelid)
        or (d.refclassid = 'pg_proc'::regclass and d.refobjid::regproc::text not in ('platform.has_role', 'platform.attr', 'platform.attrs', 'platform.op', 'platform.ctx')))),
        'a policy that asks other tables or functions')
    ) as w(wrong, what)
    where w.wrong
    union all
    select 'missing_policy', format('%I.%I', c.nspname, c.relname), 'no policy velocity_ddl: foreign keys would validate nothing',
      format('CREATE POLICY velocity_ddl ON %I.%I TO %I USING (true) WITH CHECK (true)', c.nspname, c.relname, c.nspname || '_owner')
    from tenant_table c where not exists (select from pg_policy p where p.polrelid = c.oid and p.polname = 'velocity_ddl')`
  },
  {
    why: "a domain's tables are for its own roles, and none may delete or truncate; erasure, by a function of velocity_owner's, deletes by id",
    sql: `select 'tenant_privilege', format('%I.%I', c.nspname, c.relname), format('%s may %s', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %I.%I FROM %s CASCADE', a.privilege_type, c.nspname, c.relname, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from (select k.relname, k.relowner, k.relacl, k.relkind = 'v' as is_view, s.nspname from pg_class k join tenant_schema s on s.oid = k.relnamespace
          where k.relkind in ('r', 'p', 'v')) c, aclexplode(c.relacl) a
    where a.grantee <> c.relowner and a.grantee <> 0 and a.grantee <> to_regrole('velocity_api') and not (
      (pg_get_userbyid(a.grantee) in (c.nspname || '_reader', c.nspname || '_writer', c.nspname || '_admin') and a.privilege_type = 'SELECT')
      or (pg_get_userbyid(a.grantee) in (c.nspname || '_writer', c.nspname || '_admin') and a.privilege_type in ('INSERT', 'UPDATE')
          and not (c.is_view and c.relname like '%\\_history'))
      or (a.grantee = to_regrole('velocity_owner') and a.privilege_type = 'DELETE' and not a.is_grantable and not c.is_view))
    union all
    select 'tenant_privilege', format('%I.%I', c.nspname, c.relname), format('%s may %s column %I', a.grantee::regrole, a.privilege_type, t.attname),
      format('REVOKE %s (%I) ON %I.%I FROM %s CASCADE', a.privilege_type, t.attname, c.nspname, c.relname, a.grantee::regrole)
    from tenant_table c join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a
    where a.grantee <> c.relowner and a.grantee <> 0 and a.grantee <> to_regrole('velocity_api')
      and not (a.grantee = to_regrole('velocity_owner') and a.privilege_type = 'SELECT' and t.attname = 'id' and not a.is_grantable)`
  },
  {
    why: "nothing is for everybody: the database, schemas, tables, columns, functions, and what is made later",
    sql: `select 'public', format('database %I', d.datname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON DATABASE %I FROM PUBLIC', a.privilege_type, d.datname)
    from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a where d.datname = current_database() and a.grantee = 0
    union all
    select 'public', format('schema %I', s.nspname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON SCHEMA %I FROM PUBLIC', a.privilege_type, s.nspname)
    from code_schema s join pg_namespace n using (oid), aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a where a.grantee = 0
    union all
    select 'public', c.oid::regclass::text, format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON %s FROM PUBLIC CASCADE', a.privilege_type, c.oid::regclass)
    from pg_class c join code_schema s on s.oid = c.relnamespace, aclexplode(c.relacl) a
    where a.grantee = 0 and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
    union all
    select 'public', format('%s.%I', c.oid::regclass, t.attname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s (%I) ON %s FROM PUBLIC CASCADE', a.privilege_type, t.attname, c.oid::regclass)
    from pg_class c join code_schema s on s.oid = c.relnamespace join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a where a.grantee = 0
    union all
    select 'public', p.oid::regprocedure::text, 'PUBLIC may execute it', format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC CASCADE', p.oid::regprocedure)
    from pg_proc p join code_schema s on s.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    where a.grantee = 0 and not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all
    select 'public', format('default privileges of %s', d.defaclrole::regrole), format('PUBLIC will %s what it makes', a.privilege_type),
      format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %sREVOKE ALL ON %s FROM PUBLIC', d.defaclrole::regrole,
        case when d.defaclnamespace = 0 then '' else format('IN SCHEMA %s ', d.defaclnamespace::regnamespace) end,
        case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'FUNCTIONS' when 'n' then 'SCHEMAS' else 'TYPES' end)
    from pg_default_acl d, aclexplode(d.defaclacl) a where a.grantee = 0 and d.defaclobjtype <> 'T'`
  },
  {
    why: "settings that a role of ours could turn against triggers and constraints",
    sql: `select 'parameter_privilege', p.parname, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON PARAMETER %s FROM %s', a.privilege_type, p.parname, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from pg_parameter_acl p, aclexplode(p.paracl) a where a.grantee = 0 or a.grantee in (select oid from ours)`
  },
  {
    why: "a session begins as its login and under the rules of the house, whatever a role or the database was told to set",
    sql: `select 'role_setting', coalesce(r.rolname::text, format('database %I', d.datname)), format('every session of it begins with %s', c.setting),
      case when r.rolname is null then format('ALTER DATABASE %I RESET %I', d.datname, split_part(c.setting, '=', 1))
        else format('ALTER ROLE %I%s RESET %I', r.rolname, ' IN DATABASE ' || quote_ident(d.datname), split_part(c.setting, '=', 1)) end
    from pg_db_role_setting s
      left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) as c(setting)
    where (s.setdatabase = 0 or d.datname = current_database()) and (
      (r.oid in (select oid from ours) and c.setting !~ '^(log_.*|.*_timeout|work_mem|temp_file_limit|application_name)=')
      or (r.oid is null and c.setting ~ '^(role|session_authorization|row_security|session_replication_role|(session|local)_preload_libraries)='))`
  },
  {
    why: "a function with its owner's rights finds what its owner meant, and the owner is no more than velocity_owner",
    sql: `select 'search_path', p.oid::regprocedure::text, 'SECURITY DEFINER without a search_path of its own', format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp', p.oid::regprocedure)
    from pg_proc p join code_schema s on s.oid = p.pronamespace
    where p.prosecdef and not exists (select from unnest(p.proconfig) c where c = 'search_path=pg_catalog, pg_temp' or (c like 'search_path=%' and s.nspname <> 'platform'))
    union all
    select 'definer_owner', p.oid::regprocedure::text, format('it runs with the rights of %s', p.proowner::regrole), format('ALTER ROUTINE %s OWNER TO velocity_owner', p.oid::regprocedure)
    from pg_proc p where p.pronamespace = (select oid from pg_namespace where nspname = 'platform') and p.proowner <> to_regrole('velocity_owner')`
  },
  {
    why: "a prepared transaction keeps its lane, its locks and its role beyond the session that made it",
    sql: `select 'prepared_transactions', 'max_prepared_transactions', format('it is %s', current_setting('max_prepared_transactions')), 'ALTER SYSTEM SET max_prepared_transactions = 0'
    where current_setting('max_prepared_transactions') <> '0'`
  }
]

/** Every rule at once; columns `code`, `object`, `detail`, `repair`, in a fixed order. */
export const catalogueRules = `${common}
select * from (
${rules.map((rule) => `  -- ${rule.why}\n  (${rule.sql})`).join("\n  union all\n")}
) as violation(code, object, detail, repair)
order by code, object, detail`
