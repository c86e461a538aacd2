/** Rules of the isolation check about a domain's schema: its tables, views, policies and grants. See `IsolationRules` for what they are selected from. */
import type { Rule } from "./IsolationRule.ts"

export const tenantRules: ReadonlyArray<Rule> = [
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
  }
]
