-- 0005 Access: strategies, bindings, keys, revocations, and requests that must not happen twice.

-- id: {name} in Velocity's own namespace, else {namespace}:{name}
select platform.migrate_relation('auth_strategies', $ddl$
create table platform.auth_strategies (
  id text primary key,
  spec jsonb not null,
  generation bigint not null default nextval('platform.generation_seq'),
  source text,
  namespace text,
  name text,
  uid text,
  resource_generation bigint,
  spec_hash text,
  updated_at timestamptz not null default now()
)$ddl$);

-- chain NULL: a binding of platform roles
select platform.migrate_relation('role_bindings', $ddl$
create table platform.role_bindings (
  id uuid primary key default gen_random_uuid(),
  actor text not null,
  chain text references platform.domains (chain),
  roles text[] not null,
  scopes jsonb,
  expires_at timestamptz,
  revoked_at timestamptz,
  granted_by text,
  generation bigint not null default nextval('platform.generation_seq'),
  source text,
  namespace text not null,
  name text not null,
  uid text,
  resource_generation bigint,
  spec_hash text,
  updated_at timestamptz not null default now(),
  unique (namespace, name)
)$ddl$);
select platform.migrate_relation('role_bindings_live', 'create index role_bindings_live on platform.role_bindings (chain, actor) where revoked_at is null');

-- of a key only its SHA-256 is kept
select platform.migrate_relation('api_keys', $ddl$
create table platform.api_keys (
  id uuid primary key default gen_random_uuid(),
  key_hash bytea not null unique check (length(key_hash) = 32),
  actor text not null,
  chain text references platform.domains (chain),
  roles text[] not null default '{}',
  scopes jsonb,
  ip_allowlist text[] not null default '{}',
  state text not null default 'Pending' check (state in ('Pending', 'Active', 'Retiring', 'Revoked')),
  expires_at timestamptz,
  revoked_at timestamptz,
  generation bigint not null default nextval('platform.generation_seq'),
  source text,
  namespace text,
  name text,
  uid text,
  resource_generation bigint,
  spec_hash text,
  updated_at timestamptz not null default now()
)$ddl$);
select platform.migrate_relation('api_keys_actor', 'create index api_keys_actor on platform.api_keys (actor) where revoked_at is null');

select platform.migrate_relation('revoked_actors', $ddl$
create table platform.revoked_actors (
  actor text primary key,
  reason text,
  at timestamptz not null default now()
)$ddl$);

-- what was answered to a request with an Idempotency-Key: status, ids and versions, never contents
select platform.migrate_relation('idempotency_keys', $ddl$
create table platform.idempotency_keys (
  chain text not null,
  actor text not null,
  method text not null,
  path text not null,
  key text not null,
  request_hash bytea not null,
  status integer not null,
  result jsonb not null default '{}',
  created_at timestamptz not null default now(),
  expires_at timestamptz not null default now() + interval '24 hours',
  primary key (chain, actor, method, path, key)
)$ddl$);
select platform.migrate_relation('idempotency_keys_expiry', 'create index idempotency_keys_expiry on platform.idempotency_keys (expires_at)');

-- Takes the key for this transaction. VL020: another one has it now; VL021: it was used for another request; VL022: it was
-- answered, with {status, ids, versions} as DETAIL. Raising ends the rest of the bundle. The lock comes first, since an
-- insert would wait for the other transaction instead of telling.
select platform.migrate_function($ddl$create or replace function platform.idempotency_begin(p_method text, p_path text, p_key text, p_request_hash bytea) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_chain constant text := platform.current_chain();
  v_actor constant text := platform.ctx() ->> 'actor';
  v_row platform.idempotency_keys;
begin
  if v_chain is null or v_actor is null or p_method is null or p_path is null or p_key is null or p_request_hash is null then
    raise exception 'a key belongs to a caller in a domain' using errcode = 'VL012';
  end if;
  if not pg_try_advisory_xact_lock(hashtextextended(jsonb_build_array(v_chain, v_actor, p_method, p_path, p_key)::text, 0)) then
    raise exception 'a request with this key is in flight' using errcode = 'VL020';
  end if;
  select * into v_row from platform.idempotency_keys k
  where (k.chain, k.actor, k.method, k.path, k.key) = (v_chain, v_actor, p_method, p_path, p_key);
  if not found then
    return true;
  end if;
  if v_row.expires_at <= now() then
    delete from platform.idempotency_keys k
    where (k.chain, k.actor, k.method, k.path, k.key) = (v_chain, v_actor, p_method, p_path, p_key);
    return true;
  end if;
  if v_row.request_hash <> p_request_hash then
    raise exception 'this key was used for another request' using errcode = 'VL021';
  end if;
  raise exception 'this request was answered' using errcode = 'VL022',
    detail = (v_row.result || jsonb_build_object('status', v_row.status))::text;
end
$fn$;$ddl$);

-- Keeps the answer with the act: a transaction that is rolled back reserves nothing.
select platform.migrate_function($ddl$create or replace function platform.idempotency_end(p_method text, p_path text, p_key text, p_request_hash bytea, p_status integer, p_result jsonb) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  insert into platform.idempotency_keys (chain, actor, method, path, key, request_hash, status, result)
  values (platform.current_chain(), platform.ctx() ->> 'actor', p_method, p_path, p_key, p_request_hash, p_status, coalesce(p_result, '{}'));
end
$fn$;$ddl$);

-- Removes keys whose time is over, at most 10,000 a call; returns how many.
select platform.migrate_function($ddl$create or replace function platform.idempotency_purge() returns integer language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_count int4;
begin
  delete from platform.idempotency_keys where ctid = any (array(
    select ctid from platform.idempotency_keys where expires_at <= now() limit 10000 for update skip locked));
  get diagnostics v_count = row_count;
  return v_count;
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'auth_strategies', 'velocity_gateway=select; velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'role_bindings', 'velocity_gateway=select; velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'api_keys', 'velocity_gateway=select; velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'revoked_actors', 'velocity_gateway=select; velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'idempotency_keys', '');
select platform.migrate_grants('function', 'idempotency_begin', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'idempotency_end', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'idempotency_purge', 'velocity_operator=execute');

select platform.migrate_comment('table', name, what) from (values
  ('auth_strategies', 'Mirror of AuthStrategy: how a token or key is judged.'),
  ('role_bindings', 'Mirror of RoleBinding: the roles of an actor in a domain, or on the platform where chain is NULL.'),
  ('api_keys', 'API keys, by their SHA-256; the key itself is nowhere.'),
  ('revoked_actors', 'Actors whose tokens and keys count no longer.'),
  ('idempotency_keys', 'What was answered to a request with an Idempotency-Key, for 24 hours: status, ids and versions, never contents.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('idempotency_begin', 'Takes a key for this transaction, or raises: VL020 in flight, VL021 used for another request, VL022 answered (DETAIL says what).'),
  ('idempotency_end', 'Keeps the answer, in the transaction of the act.'),
  ('idempotency_purge', 'Removes keys whose time is over; returns how many.')
) as t(name, what);

select platform.migrate_end();
