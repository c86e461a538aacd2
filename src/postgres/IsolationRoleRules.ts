/** Rules of the isolation check about who may be whom, what a login holds by itself, and what it may not own. See `IsolationRules` for what they are selected from. */
import { platformRoles, type Rule } from "./IsolationRule.ts"

export const roleRules: ReadonlyArray<Rule> = [
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
  }
]
