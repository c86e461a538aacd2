-- 0003 Grants: who may become whom, what each role may touch, and the functions that a tenant's transaction enters by.
--
-- Wanted is written as a whole, so what somebody added by hand is revoked as what is missing is granted. Every membership
-- says all three options: the attribute NOINHERIT protects nothing once a grant was made.

-- A membership can be revoked only by its grantor, or by whoever holds the grantor's rights: what a superuser granted, the
-- database's owner cannot take back. It is then left, said in a warning, and found by the isolation check.
do $$
declare
  m record;
begin
  for m in
    with wanted(role, member, inherits, sets, admins) as (values
      ('velocity_gateway', 'velocity_api', false, true, false),
      ('velocity_auditor', 'velocity_api', false, true, false),
      ('velocity_privacy', 'velocity_api', false, true, false),
      ('velocity_sealer', 'velocity_operator', false, true, false),
      ('velocity_tenant', 'velocity_owner', false, false, true),
      ('velocity_history', 'velocity_owner', false, false, true)
    ), actual as (
      select a.roleid::regrole::text as role, a.member::regrole::text as member, a.grantor, a.inherit_option as inherits,
             a.set_option as sets, a.admin_option as admins
      from pg_auth_members a
      where a.roleid::regrole::text in ('velocity_owner', 'velocity_tenant', 'velocity_history', 'velocity_gateway',
                                        'velocity_auditor', 'velocity_privacy', 'velocity_sealer', 'velocity_api', 'velocity_operator')
         or a.member::regrole::text in ('velocity_owner', 'velocity_tenant', 'velocity_history', 'velocity_gateway',
                                        'velocity_auditor', 'velocity_privacy', 'velocity_sealer')
    )
    select 'revoke' as act, role, member, grantor, false as inherits, false as sets, false as admins
    from actual a
    where not exists (select from wanted w where (w.role, w.member, w.inherits, w.sets, w.admins) = (a.role, a.member, a.inherits, a.sets, a.admins))
      -- what CREATE ROLE gives to whoever ran it
      and not (a.admins and not a.inherits and not a.sets and a.grantor = 10 and a.member !~ '^velocity_(api|operator|owner|tenant|history|gateway|auditor|privacy|sealer)$')
      -- a migrator that is in the middle of this file
      and not (a.role = 'velocity_owner' and a.member = current_user and a.grantor = current_user::regrole and not a.inherits)
      -- domains, this database's and those of others on the server
      and not (a.role = 'velocity_tenant' and a.member ~ '_(reader|writer|admin)"?$' and a.inherits and not a.sets and not a.admins)
      and not (a.role = 'velocity_history' and a.member ~ '_owner"?$' and a.inherits and not a.sets and not a.admins)
    union all
    select 'grant', role, member, null, inherits, sets, admins
    from wanted w
    where not exists (select from actual a where (w.role, w.member, w.inherits, w.sets, w.admins) = (a.role, a.member, a.inherits, a.sets, a.admins))
    order by act desc
  loop
    if m.act = 'revoke' then
      begin
        if m.grantor = 'velocity_owner'::regrole then
          perform platform.migrate_as_owner(format('revoke %s from %s cascade', m.role, m.member));
        else
          execute format('revoke %s from %s granted by %s cascade', m.role, m.member, m.grantor::regrole);
        end if;
      exception when insufficient_privilege then
        raise warning '% is a member of %, by grant of %: as %, REVOKE % FROM % CASCADE', m.member, m.role, m.grantor::regrole, m.grantor::regrole, m.role, m.member;
      end;
    else
      execute format('grant %s to %s with inherit %s, set %s, admin %s', m.role, m.member, m.inherits::text, m.sets::text, m.admins::text);
    end if;
  end loop;
end
$$;

-- the database itself and the schema public
do $$
declare
  g record;
begin
  for g in
    with wanted(grantee, privilege) as (values
      ('velocity_api', 'CONNECT'), ('velocity_operator', 'CONNECT'), ('velocity_operator', 'CREATE')
    ), actual as (
      select case when a.grantee = 0 then 'public' else pg_get_userbyid(a.grantee)::text end as grantee, a.privilege_type as privilege
      from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a
      where d.datname = current_database()
    )
    select format('revoke %s on database %I from %s', privilege, current_database(), grantee) as sql from actual
    where (grantee = 'public' or grantee ~ '^velocity_(api|operator|owner|tenant|history|gateway|auditor|privacy|sealer)$')
      and not exists (select from wanted w where (w.grantee, w.privilege) = (actual.grantee, actual.privilege))
    union all
    select format('grant %s on database %I to %s', privilege, current_database(), grantee) from wanted
    where not exists (select from actual a where (a.grantee, a.privilege) = (wanted.grantee, wanted.privilege))
    union all
    select distinct format('revoke all on schema %I from public', n.nspname)
    from pg_namespace n, aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a
    where n.nspname = 'public' and a.grantee = 0
  loop
    execute g.sql;
  end loop;
end
$$;

-- What the transaction knows of its caller: one transaction-local setting, '' and not NULL after a COMMIT. These are
-- written with every operator and function named in full and without SET, so that the planner writes them out in place.
select platform.migrate_function($ddl$create or replace function platform.ctx() returns jsonb language sql stable as $fn$
  select case when pg_catalog.current_setting('velocity.ctx', true) operator(pg_catalog.<>) '' then pg_catalog.current_setting('velocity.ctx', true)::pg_catalog.jsonb end
$fn$;$ddl$);
select platform.migrate_function($ddl$create or replace function platform.has_role(p_roles text[]) returns boolean language sql stable as $fn$
  select coalesce(case when pg_catalog.current_setting('velocity.ctx', true) operator(pg_catalog.<>) '' then pg_catalog.current_setting('velocity.ctx', true)::pg_catalog.jsonb end operator(pg_catalog.->) 'roles' operator(pg_catalog.?|) p_roles, false)
$fn$;$ddl$);
select platform.migrate_function($ddl$create or replace function platform.attr(p_name text) returns text language sql stable as $fn$
  select case when pg_catalog.current_setting('velocity.ctx', true) operator(pg_catalog.<>) '' then pg_catalog.current_setting('velocity.ctx', true)::pg_catalog.jsonb end operator(pg_catalog.->) 'attributes' operator(pg_catalog.->>) p_name
$fn$;$ddl$);
-- an attribute's values: of a list all, of a text the one, of none an empty array
select platform.migrate_function($ddl$create or replace function platform.attrs(p_name text) returns text[] language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_value constant jsonb := platform.ctx() -> 'attributes' -> p_name;
begin
  return case jsonb_typeof(v_value)
    when 'array' then array(select jsonb_array_elements_text(v_value))
    when 'string' then array[v_value #>> '{}']
    else '{}'
  end;
end
$fn$;$ddl$);
select platform.migrate_function($ddl$create or replace function platform.op(p_def integer, p_op text) returns boolean language sql stable as $fn$
  select coalesce(
    case when pg_catalog.current_setting('velocity.ctx', true) operator(pg_catalog.<>) '' then pg_catalog.current_setting('velocity.ctx', true)::pg_catalog.jsonb end operator(pg_catalog.->) 'def' operator(pg_catalog.=) pg_catalog.to_jsonb(p_def)
    and case when pg_catalog.current_setting('velocity.ctx', true) operator(pg_catalog.<>) '' then pg_catalog.current_setting('velocity.ctx', true)::pg_catalog.jsonb end operator(pg_catalog.->>) 'op' operator(pg_catalog.=) p_op, false)
$fn$;$ddl$);

-- the chain of the domain role in force; NULL outside one
select platform.migrate_function($ddl$create or replace function platform.current_chain() returns text language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_chain text;
begin
  select d.chain into v_chain from platform.domains d
  where d.pg_schema = regexp_replace(current_setting('role'), '_(reader|writer|admin|owner)$', '') and d.chain <> 'platform'
    and current_setting('role') ~ '_(reader|writer|admin|owner)$';
  return v_chain;
end
$fn$;$ddl$);

-- The gate of a tenant's statement. True, or VL010: another generation of the definition is in force, or none is served;
-- VL011: none of the caller's roles grants the operation, or the role in force is not the operation's.
select platform.migrate_function($ddl$create or replace function platform.enter(p_def integer, p_generation bigint, p_op text) returns boolean language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_role constant text := current_setting('role');
  v_ctx constant jsonb := platform.ctx();
  v_roles constant jsonb := v_ctx -> 'roles';
  v_granted boolean;
  v_def record;
begin
  select s.generation, s.serving is not null as serving, s.grants -> p_op as granted, s.pg_schema into v_def
  from platform.schema_defs s where s.id = p_def;
  if not found or not v_def.serving or v_def.generation is distinct from p_generation then
    raise exception 'definition % is not served in generation %', p_def, p_generation
      using errcode = 'VL010', detail = coalesce(v_def.generation::text, '');
  end if;
  -- one by one, since a subquery would cost as much as the look-up above
  for i in 0 .. coalesce(jsonb_array_length(v_roles), 0) - 1 loop
    v_granted := v_def.granted ? (v_roles ->> i);
    exit when v_granted;
  end loop;
  if v_granted is not true then
    raise exception 'no role of the caller grants %', p_op using errcode = 'VL011';
  end if;
  if not coalesce(case
      when p_op in ('read', 'history') then v_role in (v_def.pg_schema || '_reader', v_def.pg_schema || '_writer', v_def.pg_schema || '_admin')
      when p_op in ('create', 'update') then v_role in (v_def.pg_schema || '_writer', v_def.pg_schema || '_admin')
      when p_op in ('delete', 'restore') then v_role = v_def.pg_schema || '_admin'
      end, false) then
    raise exception 'role % is not one for % of definition %', v_role, p_op, p_def using errcode = 'VL011';
  end if;
  -- what the policies and the audit entry will take the operation to be
  if v_ctx -> 'def' = to_jsonb(p_def) and p_op <> 'read' and v_ctx ->> 'op' is distinct from p_op then
    raise exception 'entered for %, not for %', v_ctx ->> 'op', p_op using errcode = 'VL011';
  end if;
  return true;
end
$fn$;$ddl$);

-- Makes a domain's four roles members of velocity_tenant and velocity_history. They must be the operator's own making, bear
-- the domain's name and be nothing more: so no other role can be let in by its name.
select platform.migrate_function($ddl$create or replace function platform.domain_admit(p_schema text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  r record;
begin
  if not exists (select from platform.domains where pg_schema = p_schema and chain <> 'platform') then
    raise exception 'no domain has schema %', p_schema using errcode = 'VL012';
  end if;
  for r in
    select p_schema || suffix as name, parent, o.oid
    from (values ('_owner', 'velocity_history'), ('_reader', 'velocity_tenant'), ('_writer', 'velocity_tenant'), ('_admin', 'velocity_tenant')) as wanted(suffix, parent)
    left join pg_roles o on o.rolname = p_schema || suffix and not o.rolcanlogin and not o.rolsuper and not o.rolbypassrls
      and not o.rolcreaterole and not o.rolcreatedb and not o.rolreplication
  loop
    if r.oid is null then
      raise exception 'role % is not there, or is more than a domain''s role may be', r.name using errcode = 'VL012';
    end if;
    if not exists (select from pg_auth_members where roleid = r.oid and member = 'velocity_operator'::regrole and admin_option and grantor = 10) then
      raise exception 'role % was not made by velocity_operator', r.name using errcode = 'VL012';
    end if;
    if exists (select from pg_auth_members where member = r.oid and roleid <> r.parent::regrole) then
      raise exception 'role % is a member of another role', r.name using errcode = 'VL012';
    end if;
    if not exists (select from pg_auth_members where member = r.oid and roleid = r.parent::regrole
                   and inherit_option and not set_option and not admin_option) then
      execute format('grant %I to %I with inherit true, set false, admin false', r.parent, r.name);
    end if;
  end loop;
end
$fn$;$ddl$);

select platform.migrate_grants('schema', 'platform', 'pg_database_owner=usage; velocity_tenant=usage; velocity_history=usage; velocity_gateway=usage; velocity_auditor=usage; velocity_privacy=usage; velocity_sealer=usage; velocity_operator=usage; velocity_api=usage');

select platform.migrate_grants('table', 'schema_migrations', 'pg_database_owner=select; velocity_gateway=select; velocity_operator=select');
select platform.migrate_grants('table', 'installation', 'velocity_gateway=select; velocity_operator=select,update');
select platform.migrate_grants('table', 'names', 'velocity_gateway=select; velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'operator_term', 'velocity_operator=select');
select platform.migrate_grants('table', 'secrets', '');
select platform.migrate_grants('sequence', 'generation_seq', 'velocity_operator=usage');
select platform.migrate_grants('sequence', 'storage_id_seq', 'velocity_operator=usage');
select platform.migrate_grants('sequence', 'schema_defs_id_seq', '');
select platform.migrate_grants('sequence', 'domains_chain_no_seq', '');
select platform.migrate_grants('table', 'domains', 'velocity_gateway=select; velocity_auditor=select; velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'schema_defs', 'velocity_gateway=select; velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'field_defs', 'velocity_gateway=select; velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'resource_status', 'velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'plans', 'velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'plan_steps', 'velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'audit_log', 'velocity_auditor=select');
select platform.migrate_grants('table', 'audit_heads', 'velocity_auditor=select');

select platform.migrate_grants('function', 'cursor_key_add', '');
select platform.migrate_grants('function', 'cursor_key_rotate', 'velocity_operator=execute');
select platform.migrate_grants('function', 'cursor_keys', 'velocity_gateway=execute');
select platform.migrate_grants('function', 'term_take', 'velocity_operator=execute');
select platform.migrate_grants('function', 'term_check', 'velocity_operator=execute');
select platform.migrate_grants('function', 'audit_refuse', '');
select platform.migrate_grants('function', 'audit_hash', '');
select platform.migrate_grants('function', 'partition_create', '');
select platform.migrate_grants('function', 'audit_partition_create', 'velocity_operator=execute');
select platform.migrate_grants('function', 'partitions', 'velocity_gateway=execute; velocity_operator=execute');
select platform.migrate_grants('function', 'audit_insert', 'velocity_tenant=execute; velocity_gateway=execute; velocity_operator=execute');
select platform.migrate_grants('function', 'audit_verify_window', 'velocity_auditor=execute; velocity_operator=execute');
select platform.migrate_grants('function', 'ctx', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'has_role', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'attr', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'attrs', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'op', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'current_chain', 'velocity_tenant=execute; velocity_history=execute');
select platform.migrate_grants('function', 'enter', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'domain_admit', 'velocity_operator=execute');

-- the domains of this database keep what provisioning gave them; one whose roles are wrong stays shut, and is said; one
-- that was dropped has none
select platform.migrate_function($ddl$create or replace function platform.migrate_domains() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_schema text;
begin
  for v_schema in select d.pg_schema from platform.domains d where d.chain <> 'platform' and exists (select from pg_namespace n where n.nspname = d.pg_schema) order by 1 loop
    begin
      perform platform.domain_admit(v_schema);
    exception when sqlstate 'VL012' then
      raise warning 'domain %: %', v_schema, sqlerrm;
    end;
  end loop;
end
$fn$;$ddl$);
select platform.migrate_grants('function', 'migrate_domains', 'pg_database_owner=execute');
select platform.migrate_domains();

select platform.migrate_comment('function', name, what) from (values
  ('ctx', 'What the transaction says of its caller (velocity.ctx), NULL outside one.'),
  ('has_role', 'Whether the caller has one of these record roles.'),
  ('attr', 'An attribute of the caller, as text.'),
  ('attrs', 'An attribute of the caller, as its list of values.'),
  ('op', 'Whether the transaction was entered for this operation of this definition.'),
  ('current_chain', 'The chain of the domain role in force; NULL outside one.'),
  ('enter', 'The gate of a tenant''s statement: true, or VL010 (another generation is served), VL011 (not granted, or not this role).'),
  ('domain_admit', 'Lets the roles of a new domain in: membership in velocity_tenant and velocity_history, after judging who made them.'),
  ('migrate_domains', 'Gives the domains of this database back what provisioning gave them.')
) as t(name, what);

select platform.migrate_end();
