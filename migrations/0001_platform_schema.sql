-- 0001 The platform schema: roles, the guards that every migration uses, and the tables that mirror resources.
--
-- Safe to apply again: each object is compared with the catalogue first, so a sound database is only read. Applied by
-- the owner of the database, who needs CREATEROLE and not superuser. What is made here belongs to velocity_owner, whom
-- the migrator enters only where something is missing, and only until the end of the file.

do $$
begin
  if current_setting('server_version_num')::int4 < 160000 then
    raise exception 'PostgreSQL % is too old: Velocity needs 16 or later', current_setting('server_version')
      using errcode = 'feature_not_supported',
            detail = 'Before 16 a role with CREATEROLE can grant itself any role that is not a superuser, velocity_owner and pg_execute_server_program included.';
  end if;
  if current_setting('server_encoding') <> 'UTF8' then
    raise exception 'the encoding of this database is %, and the hashes of the audit log need UTF8', current_setting('server_encoding')
      using errcode = 'feature_not_supported';
  end if;
end
$$;

-- Roles belong to the whole server, so another database's migration may have made them. Attributes are never restated:
-- who is not a superuser may not even say NOSUPERUSER. The isolation check complains of what is wrong with them.
do $$
declare
  r record;
begin
  for r in
    select name, attributes
    from (values
      ('velocity_owner', 'nologin'),      -- owns the schema platform
      ('velocity_tenant', 'nologin'),     -- what every domain role inherits
      ('velocity_history', 'nologin'),    -- what every domain's owner inherits: reads event_log, by domain
      ('velocity_gateway', 'nologin'),    -- from velocity_api: mirrors, keys, bindings; entries of what was denied
      ('velocity_auditor', 'nologin'),    -- from velocity_api: reads and verifies the log
      ('velocity_privacy', 'nologin'),    -- from velocity_api: erasure
      ('velocity_sealer', 'nologin'),     -- from velocity_operator: seals and checkpoints
      ('velocity_api', 'login noinherit'),
      ('velocity_operator', 'login noinherit createrole')
    ) as wanted(name, attributes)
  loop
    if not exists (select from pg_roles where rolname = r.name) then
      execute format('create role %I %s', r.name, r.attributes);
    elsif not pg_has_role(current_user, r.name, 'MEMBER WITH ADMIN OPTION') then
      raise exception 'role % was made by somebody else, and % may not grant it', r.name, current_user
        using errcode = 'insufficient_privilege',
              hint = format('As the role that made it, or a superuser: GRANT %I TO %I WITH ADMIN TRUE, INHERIT FALSE, SET FALSE', r.name, current_user);
    end if;
  end loop;
end
$$;

-- The schema, and the guards: functions that compare and mend. They are SECURITY INVOKER and only the database's owner
-- may call them, so they give nobody a right that he has not. An intact guard is left alone.
do $guards$
declare
  v_before constant text := current_setting('role');
  v_ddl text;
  v_oid oid;
begin
  if not exists (select from pg_namespace where nspname = 'platform') then
    if not pg_has_role(current_user, 'velocity_owner', 'SET') then
      execute format('grant velocity_owner to %I with inherit false, set true', current_user);
    end if;
    create schema platform authorization velocity_owner;
  end if;
  if not has_schema_privilege('pg_database_owner', 'platform', 'USAGE') then
    if not pg_has_role(current_user, 'velocity_owner', 'SET') then
      execute format('grant velocity_owner to %I with inherit false, set true', current_user);
    end if;
    perform set_config('role', 'velocity_owner', true);
    grant usage on schema platform to pg_database_owner;
    perform set_config('role', v_before, true);
  end if;
  foreach v_ddl in array array[

-- runs a statement as velocity_owner
$ddl$create or replace function platform.migrate_as_owner(p_sql text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_before constant text := current_setting('role');
begin
  if not pg_has_role(current_user, 'velocity_owner', 'SET') then
    execute format('grant velocity_owner to %I with inherit false, set true', current_user);
  end if;
  perform set_config('role', 'velocity_owner', true);
  execute p_sql;
  perform set_config('role', v_before, true);
end
$fn$;$ddl$,

-- gives back what migrate_as_owner took: no login is a member of velocity_owner outside a migration
$ddl$create or replace function platform.migrate_end() returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if exists (select from pg_auth_members where roleid = 'velocity_owner'::regrole and member = quote_ident(current_user)::regrole
             and grantor = quote_ident(current_user)::regrole) then
    execute format('revoke velocity_owner from %I', current_user);
  end if;
end
$fn$;$ddl$,

-- makes a table, index or sequence of schema platform that is not there
$ddl$create or replace function platform.migrate_relation(p_name text, p_ddl text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if not exists (select from pg_class where relname = p_name and relnamespace = 'platform'::regnamespace) then
    perform platform.migrate_as_owner(p_ddl);
  end if;
end
$fn$;$ddl$,

-- makes a column of a table of schema platform that is not there
$ddl$create or replace function platform.migrate_column(p_table text, p_name text, p_type text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if not exists (select from pg_attribute a
                 where a.attrelid = (select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = p_table)
                   and a.attname = p_name and not a.attisdropped) then
    perform platform.migrate_as_owner(format('alter table platform.%I add column %I %s', p_table, p_name, p_type));
  end if;
end
$fn$;$ddl$,

-- makes or replaces a function whose text, as the catalogue has it, is not p_ddl's; one function a name
$ddl$create or replace function platform.migrate_function(p_ddl text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_name constant text := substring(p_ddl from 'function platform\.(\w+)\(');
  v_header constant text := regexp_replace(split_part(p_ddl, '$fn' || '$', 1), '\s+', ' ', 'g');
  v_same boolean := false;
  f record;
begin
  for f in
    select p.oid, p.proowner,
      p.prosrc = split_part(p_ddl, '$fn' || '$', 2) and not p.proisstrict and not p.proleakproof and p.proparallel = 'u'
      and v_header = format('create or replace function platform.%s(%s) returns %s language %s%s%s%s as ',
        p.proname, pg_get_function_arguments(p.oid), pg_get_function_result(p.oid), l.lanname,
        case p.provolatile when 'i' then ' immutable' when 's' then ' stable' else '' end,
        case when p.prosecdef then ' security definer' else '' end,
        (select string_agg(format(' set %s = %s', split_part(c, '=', 1), substr(c, strpos(c, '=') + 1)), '' order by n)
         from unnest(p.proconfig) with ordinality as t(c, n))) as same
    from pg_proc p join pg_language l on l.oid = p.prolang
    where p.pronamespace = 'platform'::regnamespace and p.proname = v_name
  loop
    if f.proowner <> 'velocity_owner'::regrole then
      execute format('alter function %s owner to velocity_owner', f.oid::regprocedure);
    end if;
    v_same := v_same or f.same;
  end loop;
  if not v_same then
    perform platform.migrate_as_owner(p_ddl);
  end if;
end
$fn$;$ddl$,

-- makes the grants of an object exactly p_wanted, e.g. 'velocity_gateway=select; velocity_operator=select,insert':
-- what is missing is granted, what is more (to PUBLIC, on a column, with grant option) is revoked
$ddl$create or replace function platform.migrate_grants(p_kind text, p_name text, p_wanted text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_owner oid;
  v_acl aclitem[];
  v_all aclitem[];
  v_object text;
  g record;
begin
  if p_kind = 'schema' then
    select n.nspowner, n.nspacl, acldefault('n', n.nspowner), format('schema %I', n.nspname)
      into strict v_owner, v_acl, v_all, v_object from pg_namespace n where n.nspname = p_name;
  elsif p_kind = 'function' then
    select p.proowner, p.proacl, acldefault('f', p.proowner), format('function %s', p.oid::regprocedure)
      into strict v_owner, v_acl, v_all, v_object
      from pg_proc p where p.pronamespace = 'platform'::regnamespace and p.proname = p_name;
  else
    select c.relowner, c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::"char", c.relowner),
           format('%s platform.%I', p_kind, c.relname)
      into strict v_owner, v_acl, v_all, v_object
      from pg_class c where c.relnamespace = 'platform'::regnamespace and c.relname = p_name;
  end if;
  for g in
    with wanted as (
      select trim(split_part(item, '=', 1)) as grantee, lower(trim(privilege)) as privilege
      from string_to_table(p_wanted, ';') as item, string_to_table(split_part(item, '=', 2), ',') as privilege
      where item like '%=%'
      union
      select 'velocity_owner', lower(privilege_type) from aclexplode(v_all) where grantee = v_owner
    ), actual as (
      select case when a.grantee = 0 then 'public' else pg_get_userbyid(a.grantee)::text end as grantee,
             lower(a.privilege_type) as privilege, a.is_grantable
      from aclexplode(coalesce(v_acl, v_all)) a
    )
    select false as give, grantee, privilege from actual
    where not exists (select from wanted w where w.grantee = actual.grantee and w.privilege = actual.privilege)
       or (is_grantable and grantee <> 'velocity_owner')
    union all
    select true, grantee, privilege from wanted
    where not exists (select from actual a where a.grantee = wanted.grantee and a.privilege = wanted.privilege
                      and (not a.is_grantable or wanted.grantee = 'velocity_owner'))
    order by 1
  loop
    perform platform.migrate_as_owner(case
      when g.give then format('grant %s on %s to %I', g.privilege, v_object, g.grantee)
      when g.grantee = 'public' then format('revoke %s on %s from public cascade', g.privilege, v_object)
      else format('revoke %s on %s from %I cascade', g.privilege, v_object, g.grantee) end);
  end loop;
  if p_kind = 'table' then
    for g in
      select distinct format('%s (%I)', a.privilege_type, t.attname) as privilege,
             case when a.grantee = 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end as grantee
      from pg_attribute t, aclexplode(t.attacl) a
      where t.attrelid = (select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = p_name)
    loop
      perform platform.migrate_as_owner(format('revoke %s on %s from %s cascade', g.privilege, v_object, g.grantee));
    end loop;
  end if;
end
$fn$;$ddl$,

-- makes the triggers of a table exactly p_wanted, as pg_get_triggerdef prints them, each ENABLE ALWAYS; rules go
$ddl$create or replace function platform.migrate_triggers(p_table text, p_wanted text[]) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_table constant oid := (select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = p_table);
  t record;
begin
  for t in
    select tgname from pg_trigger
    where tgrelid = v_table and not tgisinternal and tgparentid = 0 and pg_get_triggerdef(oid) <> all (p_wanted)
  loop
    perform platform.migrate_as_owner(format('drop trigger %I on platform.%I', t.tgname, p_table));
  end loop;
  for t in
    select wanted from unnest(p_wanted) as wanted
    where not exists (select from pg_trigger where tgrelid = v_table and pg_get_triggerdef(oid) = wanted)
  loop
    perform platform.migrate_as_owner(t.wanted);
  end loop;
  for t in select tgname from pg_trigger where tgrelid = v_table and not tgisinternal and tgenabled <> 'A' loop
    perform platform.migrate_as_owner(format('alter table platform.%I enable always trigger %I', p_table, t.tgname));
  end loop;
  for t in select rulename from pg_rewrite where ev_class = v_table loop
    perform platform.migrate_as_owner(format('drop rule %I on platform.%I', t.rulename, p_table));
  end loop;
end
$fn$;$ddl$,

-- enables row-level security on a table and makes its policies exactly p_wanted: rows of
-- {name, command, roles, using, with check}, expressions as pg_policies prints them
$ddl$create or replace function platform.migrate_policies(p_table text, p_wanted text[]) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  p record;
begin
  if not (select relrowsecurity from pg_class where relnamespace = 'platform'::regnamespace and relname = p_table) then
    perform platform.migrate_as_owner(format('alter table platform.%I enable row level security', p_table));
  end if;
  for p in
    select policyname from pg_policies
    where schemaname = 'platform' and tablename = p_table and not exists (
      select from generate_subscripts(p_wanted, 1) as n
      where p_wanted[n][1] = policyname and p_wanted[n][2] = lower(cmd) and p_wanted[n][3] = array_to_string(roles, ', ')
        and p_wanted[n][4] is not distinct from qual and p_wanted[n][5] is not distinct from with_check
        and permissive = 'PERMISSIVE')
  loop
    perform platform.migrate_as_owner(format('drop policy %I on platform.%I', p.policyname, p_table));
  end loop;
  for i in 1 .. coalesce(array_length(p_wanted, 1), 0) loop
    if not exists (select from pg_policies where schemaname = 'platform' and tablename = p_table and policyname = p_wanted[i][1]) then
      perform platform.migrate_as_owner(format('create policy %I on platform.%I for %s to %s', p_wanted[i][1], p_table, p_wanted[i][2], p_wanted[i][3])
        || coalesce(' using (' || p_wanted[i][4] || ')', '') || coalesce(' with check (' || p_wanted[i][5] || ')', ''));
    end if;
  end loop;
end
$fn$;$ddl$,

-- what the catalogue says a table or function is for, which docs/architecture/ is made from
$ddl$create or replace function platform.migrate_comment(p_kind text, p_name text, p_text text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if p_kind = 'function' then
    if obj_description((select oid from pg_proc where pronamespace = 'platform'::regnamespace and proname = p_name), 'pg_proc') is distinct from p_text then
      perform platform.migrate_as_owner(format('comment on function platform.%I is %L', p_name, p_text));
    end if;
  elsif obj_description((select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = p_name), 'pg_class') is distinct from p_text then
    perform platform.migrate_as_owner(format('comment on %s platform.%I is %L', p_kind, p_name, p_text));
  end if;
end
$fn$;$ddl$,

-- writes down that a file was applied
$ddl$create or replace function platform.migrate_record(p_file text, p_sha256 text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if not exists (select from platform.schema_migrations where file = p_file) then
    perform platform.migrate_as_owner(format('insert into platform.schema_migrations (file, sha256, applied_by) values (%L, %L, %L)',
      p_file, p_sha256, session_user));
    perform platform.migrate_end();
  end if;
end
$fn$;$ddl$

  ] loop
    select p.oid into v_oid from pg_proc p
    where p.pronamespace = 'platform'::regnamespace and p.proname = substring(v_ddl from 'function platform\.(\w+)\(')
      and p.prosrc = split_part(v_ddl, '$fn' || '$', 2) and not p.prosecdef and p.proowner = 'velocity_owner'::regrole
      and p.proconfig = '{"search_path=pg_catalog, pg_temp"}'
      and (select array_agg(format('%s=%s', a.grantee::regrole, a.privilege_type) order by a.grantee <> 'pg_database_owner'::regrole)
           from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a)
        = array['pg_database_owner=EXECUTE', 'velocity_owner=EXECUTE'];
    if not found then
      if not pg_has_role(current_user, 'velocity_owner', 'SET') then
        execute format('grant velocity_owner to %I with inherit false, set true', current_user);
      end if;
      perform set_config('role', 'velocity_owner', true);
      execute v_ddl;
      select p.oid into strict v_oid from pg_proc p
      where p.pronamespace = 'platform'::regnamespace and p.proname = substring(v_ddl from 'function platform\.(\w+)\(');
      execute format('revoke all on function %s from public', v_oid::regprocedure);
      execute format('grant execute on function %s to pg_database_owner, velocity_owner', v_oid::regprocedure);
      perform set_config('role', v_before, true);
    end if;
  end loop;
end
$guards$;

-- a function that anybody may run is a hole that nobody opened: new ones begin with their owner alone
do $$
begin
  if not exists (select from pg_default_acl where defaclrole = 'velocity_owner'::regrole and defaclnamespace = 0
                 and defaclobjtype = 'f' and not exists (select from aclexplode(defaclacl) where grantee = 0)) then
    perform platform.migrate_as_owner('alter default privileges revoke execute on functions from public');
  end if;
end
$$;

select platform.migrate_relation('schema_migrations', $ddl$
create table platform.schema_migrations (
  file text primary key,
  sha256 text not null,
  applied_at timestamptz not null default now(),
  applied_by text not null
)$ddl$);
select platform.migrate_grants('table', 'schema_migrations', 'pg_database_owner=select; velocity_gateway=select; velocity_operator=select');

-- one row: which installation this database belongs to
select platform.migrate_relation('installation', $ddl$
create table platform.installation (
  singleton boolean primary key default true check (singleton),
  id uuid not null default gen_random_uuid(),
  source text,
  created_at timestamptz not null default now()
)$ddl$);

-- the first path to use a Postgres name keeps it until its data is dropped
select platform.migrate_relation('names', $ddl$
create table platform.names (
  pg_name text primary key,
  path text not null,
  created_at timestamptz not null default now()
)$ddl$);

-- the fence: an operator's transaction holds this row FOR SHARE with the epoch it was elected in
select platform.migrate_relation('operator_term', $ddl$
create table platform.operator_term (
  singleton boolean primary key default true check (singleton),
  epoch bigint not null default 0,
  holder text,
  cluster text,
  taken_at timestamptz
)$ddl$);

-- what every replica must share (keys of cursors); read through functions only
select platform.migrate_relation('secrets', $ddl$
create table platform.secrets (
  name text primary key,
  value bytea not null,
  created_at timestamptz not null default now(),
  retired_at timestamptz
)$ddl$);

-- one number for every change of what is served, of strategies and of bindings
select platform.migrate_relation('generation_seq', 'create sequence platform.generation_seq as bigint');
select platform.migrate_relation('storage_id_seq', 'create sequence platform.storage_id_seq as integer');

select platform.migrate_relation('domains', $ddl$
create table platform.domains (
  chain text primary key,
  pg_schema text not null unique,
  chain_no integer generated always as identity unique,
  auth_strategy text,
  deletion_policy text not null default 'Retain' check (deletion_policy in ('Retain', 'Delete')),
  spec jsonb,
  source text,
  namespace text,
  name text,
  uid text,
  resource_generation bigint,
  spec_hash text,
  updated_at timestamptz not null default now()
)$ddl$);

-- wanted is what was asked for, serving what the API may rely on
select platform.migrate_relation('schema_defs', $ddl$
create table platform.schema_defs (
  id integer generated always as identity primary key,
  path text not null unique,
  chain text not null references platform.domains (chain),
  storage text not null,
  storage_id integer not null default nextval('platform.storage_id_seq'),
  pg_schema text not null,
  pg_table text not null,
  wanted jsonb,
  wanted_hash text,
  serving jsonb,
  generation bigint not null default nextval('platform.generation_seq'),
  grants jsonb not null default '{}',
  foreign_keys text[] not null default '{}',
  state text not null default 'Pending',
  source text,
  namespace text,
  name text,
  uid text,
  resource_generation bigint,
  updated_at timestamptz not null default now(),
  unique (pg_schema, pg_table)
)$ddl$);
select platform.migrate_relation('schema_defs_generation', 'create index schema_defs_generation on platform.schema_defs (generation)');
select platform.migrate_relation('schema_defs_storage', 'create index schema_defs_storage on platform.schema_defs (storage)');

select platform.migrate_relation('field_defs', $ddl$
create table platform.field_defs (
  def_id integer not null references platform.schema_defs (id) on delete cascade,
  name text not null,
  position integer not null,
  spec jsonb not null,
  primary key (def_id, name)
)$ddl$);

-- what is known of each resource: its last good spec and its status; Organisation and Application live here alone
select platform.migrate_relation('resource_status', $ddl$
create table platform.resource_status (
  kind text not null,
  namespace text not null,
  name text not null,
  source text,
  uid text,
  generation bigint,
  observed_generation bigint,
  spec jsonb,
  spec_hash text,
  conditions jsonb not null default '[]',
  status jsonb not null default '{}',
  updated_at timestamptz not null default now(),
  primary key (kind, namespace, name)
)$ddl$);

-- a plan that was approved, as it was approved, and how far it has been carried out
select platform.migrate_relation('plans', $ddl$
create table platform.plans (
  id uuid primary key default gen_random_uuid(),
  path text not null,
  plan_hash text not null,
  spec_hash text not null,
  fingerprint text not null,
  state text not null default 'Pending',
  message text,
  approved_by text,
  approved_at timestamptz,
  created_at timestamptz not null default now(),
  finished_at timestamptz
)$ddl$);
select platform.migrate_relation('plans_path', 'create index plans_path on platform.plans (path, created_at desc)');
select platform.migrate_relation('plan_steps', $ddl$
create table platform.plan_steps (
  plan_id uuid not null references platform.plans (id) on delete cascade,
  position integer not null,
  phase text not null,
  sql text not null,
  lock text,
  rewrites boolean not null default false,
  loses_data boolean not null default false,
  state text not null default 'Pending',
  message text,
  started_at timestamptz,
  finished_at timestamptz,
  primary key (plan_id, position)
)$ddl$);

-- 32 bytes from the server's strong random source, which gen_random_uuid draws 122 bits a time from
select platform.migrate_function($ddl$create or replace function platform.cursor_key_add() returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_name constant text := format('cursor/%s', gen_random_uuid());
begin
  insert into platform.secrets (name, value)
  values (v_name, sha256(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())));
  return v_name;
end
$fn$;$ddl$);

-- a new key for cursors; older ones open what they sealed for a day more
select platform.migrate_function($ddl$create or replace function platform.cursor_key_rotate() returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  delete from platform.secrets where name like 'cursor/%' and retired_at < now() - interval '1 day';
  update platform.secrets set retired_at = now() where name like 'cursor/%' and retired_at is null;
  return platform.cursor_key_add();
end
$fn$;$ddl$);

-- the keys of cursors, newest first: the first seals, all of them open
select platform.migrate_function($ddl$create or replace function platform.cursor_keys() returns TABLE(name text, value bytea, created_at timestamp with time zone) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return query select s.name, s.value, s.created_at from platform.secrets s
    where s.name like 'cursor/%' and (s.retired_at is null or s.retired_at > now() - interval '1 day')
    order by s.retired_at is not null, s.created_at desc, s.name;
end
$fn$;$ddl$);

-- a new term: every transaction of the terms before it fails from here on
select platform.migrate_function($ddl$create or replace function platform.term_take(p_holder text, p_cluster text) returns bigint language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_epoch bigint;
begin
  update platform.operator_term set epoch = epoch + 1, holder = p_holder, cluster = p_cluster, taken_at = now()
  returning epoch into v_epoch;
  return v_epoch;
end
$fn$;$ddl$);

-- holds the term until the transaction ends; another one in force raises VL030
select platform.migrate_function($ddl$create or replace function platform.term_check(p_epoch bigint) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_term platform.operator_term;
begin
  select * into v_term from platform.operator_term for share;
  if v_term.epoch is distinct from p_epoch then
    raise exception 'term % is over: % holds term %', p_epoch, v_term.holder, v_term.epoch using errcode = 'VL030';
  end if;
end
$fn$;$ddl$);

-- rows without which nothing works; SECURITY DEFINER, because the migrator may not read these tables otherwise
select platform.migrate_function($ddl$create or replace function platform.migrate_rows() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  if not exists (select from platform.domains where chain = 'platform') then
    insert into platform.domains (chain, pg_schema) values ('platform', 'platform');
  end if;
  if not exists (select from platform.installation) then
    insert into platform.installation default values;
  end if;
  if not exists (select from platform.operator_term) then
    insert into platform.operator_term default values;
  end if;
  if not exists (select from platform.secrets where name like 'cursor/%' and retired_at is null) then
    perform platform.cursor_key_add();
  end if;
end
$fn$;$ddl$);
select platform.migrate_grants('function', 'migrate_rows', 'pg_database_owner=execute');
select platform.migrate_rows();

select platform.migrate_comment('table', name, what) from (values
  ('schema_migrations', 'The files of migrations/ that were applied, by name and SHA-256.'),
  ('installation', 'One row: which installation this database belongs to. An operator of another refuses to start.'),
  ('names', 'Which path owns a Postgres schema or table name. The first path to use a name keeps it until its data is dropped.'),
  ('operator_term', 'One row, the fence: every transaction of an operator holds it with the epoch that the operator was elected in.'),
  ('secrets', 'What replicas share: the keys that seal cursors. Read through functions only.'),
  ('domains', 'Mirror of Domain: its schema, the number that its audit lanes are locked by, its strategy. Row platform is the chain of acts outside a domain.'),
  ('schema_defs', 'Mirror of SchemaDefinition: wanted as asked for, serving as the API may rely on it, and the generation that a tenant statement names.'),
  ('field_defs', 'The fields of a definition, one a row.'),
  ('resource_status', 'What is known of each resource: last good spec, conditions, status. Organisation and Application live here alone.'),
  ('plans', 'Plans of changes that were approved, as they were approved.'),
  ('plan_steps', 'The steps of a plan and how far each has been carried out.')
) as t(name, what);
select platform.migrate_comment('sequence', name, what) from (values
  ('generation_seq', 'Numbers every change of what is served, of strategies and of bindings.'),
  ('storage_id_seq', 'Numbers the storages that history is kept by.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('cursor_keys', 'The keys of cursors, newest first: the first seals, all of them open.'),
  ('cursor_key_add', 'Adds a key for cursors, of 32 random bytes.'),
  ('cursor_key_rotate', 'Begins a new key for cursors; older ones open what they sealed for a day more.'),
  ('term_take', 'Begins a new term of the operator and returns its epoch; transactions of earlier terms fail from then on.'),
  ('term_check', 'Holds the term until the transaction ends; VL030 if another one is in force.'),
  ('migrate_as_owner', 'Runs a statement as velocity_owner; the migrator is its member until migrate_end.'),
  ('migrate_end', 'Ends the migrator''s membership in velocity_owner.'),
  ('migrate_relation', 'Makes a table, index or sequence that is missing.'),
  ('migrate_column', 'Makes a column that a table lacks.'),
  ('migrate_function', 'Makes or replaces a function that is not as written.'),
  ('migrate_grants', 'Makes the grants of an object exactly as written.'),
  ('migrate_triggers', 'Makes the triggers of a table exactly as written, ENABLE ALWAYS, and removes rules.'),
  ('migrate_policies', 'Enables row-level security and makes the policies of a table exactly as written.'),
  ('migrate_comment', 'Says what a table, sequence or function is for.'),
  ('migrate_record', 'Records that a file was applied.'),
  ('migrate_rows', 'Makes the rows without which nothing works.')
) as t(name, what);

select platform.migrate_end();
