-- 0008 Retention: how long months are kept, what holds them longer, and how one goes.
--
-- No login may detach or drop a month. The operator calls functions that judge for themselves whether it may go, say by a
-- stable code why not, and leave an entry in the log: of the seal, which so becomes a leaf of the tree, and of the end.
-- Needs the tables of 0007.

-- months that are kept whole; NULL: nobody has said so, and nothing goes
select platform.migrate_relation('retention', $ddl$
create table platform.retention (
  singleton boolean primary key default true check (singleton),
  audit_months integer check (audit_months between 1 and 1200),
  event_months integer check (event_months between 1 and 1200),
  updated_at timestamptz not null default now(),
  updated_by text
)$ddl$);

select platform.migrate_relation('legal_holds', $ddl$
create table platform.legal_holds (
  id uuid primary key default gen_random_uuid(),
  chain text not null references platform.domains (chain),
  reason text not null,
  placed_by text not null,
  placed_at timestamptz not null default now(),
  lifted_by text,
  lifted_at timestamptz,
  check ((lifted_by is null) = (lifted_at is null))
)$ddl$);

-- what became of each month that was sealed or retired
select platform.migrate_relation('retirements', $ddl$
create table platform.retirements (
  name text primary key,
  parent text not null,
  "from" timestamptz not null,
  "to" timestamptz not null,
  entries bigint,
  digest bytea,
  sealed_at timestamptz,
  seal_lane smallint,
  seal_seq bigint,
  manifest text,
  manifest_hash bytea,
  exported_at timestamptz,
  disposition text check (disposition in ('drop', 'keep', 'export')),
  retired_at timestamptz
)$ddl$);

-- one row: how far the verification in the background is, and what it found
select platform.migrate_relation('audit_verification', $ddl$
create table platform.audit_verification (
  singleton boolean primary key default true check (singleton),
  "from" timestamptz not null,
  "to" timestamptz not null,
  started_at timestamptz not null,
  finished_at timestamptz not null,
  entries bigint not null,
  problems bigint not null,
  findings jsonb not null default '[]'
)$ddl$);

-- detached months that are kept: nobody's but the auditor's to read
do $$
begin
  if not exists (select from pg_namespace where nspname = 'platform_archive') then
    if not pg_has_role(current_user, 'velocity_owner', 'SET') then
      execute format('grant velocity_owner to %I with inherit false, set true', current_user);
    end if;
    create schema platform_archive authorization velocity_owner;
  end if;
end
$$;
select platform.migrate_grants('schema', 'platform_archive', 'velocity_auditor=usage');

-- Whether a month that ends then is past what is kept. History is kept as well for as long as any definition asks for
-- (timeMachine.hotRetention).
select platform.migrate_function($ddl$create or replace function platform.partition_due(p_parent text, p_to timestamp with time zone) returns boolean language plpgsql stable security definer set search_path = pg_catalog, pg_temp set TimeZone = utc as $fn$
declare
  v_months integer;
begin
  select case p_parent when 'audit_log' then r.audit_months else r.event_months end into v_months from platform.retention r;
  return coalesce(p_to + make_interval(months => v_months) <= now(), false)
    and (p_parent = 'audit_log' or not exists (
      select from platform.schema_defs d, lateral (values (d.wanted), (d.serving)) as s(spec), lateral (
        select regexp_match(s.spec #>> '{timeMachine,hotRetention}', '^([0-9]{1,6})(d|w|mo|y)$') as part) t
      where p_to + (t.part[1] || case t.part[2] when 'mo' then ' mon' when 'y' then ' year' when 'w' then ' week' else ' day' end)::interval > now()));
end
$fn$;$ddl$);

-- the months that are past what is kept, oldest first
select platform.migrate_function($ddl$create or replace function platform.partitions_due() returns TABLE(name text, parent text, "from" timestamp with time zone, "to" timestamp with time zone, sealed boolean, exported boolean) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return query
  select p.name, p.parent, p."from", p."to", r.sealed_at is not null, r.exported_at is not null
  from platform.partitions() p left join platform.retirements r on r.name = p.name
  where p."from" is not null and platform.partition_due(p.parent, p."to")
  order by p.parent, p."from";
end
$fn$;$ddl$);

-- A month, if it may be touched at all: it is there, past what is kept, the oldest of its log, and no chain in it is held.
-- Oldest first, because a lane goes on from its last entry that is there.
select platform.migrate_function($ddl$create or replace function platform.partition_free(p_name text) returns TABLE(parent text, "from" timestamp with time zone, "to" timestamp with time zone) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_older text;
  h record;
  v_held boolean;
begin
  select p.parent, p."from", p."to" into parent, "from", "to" from platform.partitions() p where p.name = p_name and p."from" is not null;
  if not found then
    raise exception '% is no month of audit_log or event_log', p_name using errcode = 'VL012';
  end if;
  if not platform.partition_due(parent, "to") then
    raise exception '% is not past what is kept of %', p_name, parent using errcode = 'VL060';
  end if;
  select p.name into v_older from platform.partitions() p
    where p.parent = partition_free.parent and p."from" < partition_free."from" order by p."from" limit 1;
  if found then
    raise exception '% is older than % and has to go first', v_older, p_name using errcode = 'VL061';
  end if;
  for h in select l.chain, l.reason from platform.legal_holds l where l.lifted_at is null order by l.placed_at loop
    execute format('select exists (select from platform.%I where chain = $1)', p_name) into v_held using h.chain;
    if v_held then
      raise exception '% has entries of %, which is held: %', p_name, h.chain, h.reason using errcode = 'VL062';
    end if;
  end loop;
  return next;
end
$fn$;$ddl$);

-- the first and last entry of each lane of a month of the log, by its index alone
select platform.migrate_function($ddl$create or replace function platform.partition_lanes(p_name text) returns TABLE(chain text, lane smallint, first_seq bigint, first_hash bytea, last_seq bigint, last_hash bytea, last_at timestamp with time zone) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return query execute format($q$
    with recursive l as (
      (select a.chain, a.lane from platform.%1$I a order by a.chain, a.lane limit 1)
      union all
      select n.chain, n.lane from l cross join lateral (
        select a.chain, a.lane from platform.%1$I a where (a.chain, a.lane) > (l.chain, l.lane) order by a.chain, a.lane limit 1) n
    )
    select l.chain, l.lane, f.seq, f.hash, t.seq, t.hash, t.occurred_at from l
    cross join lateral (select a.seq, a.hash from platform.%1$I a
      where a.chain = l.chain and a.lane = l.lane order by a.seq, a.occurred_at limit 1) f
    cross join lateral (select a.seq, a.hash, a.occurred_at from platform.%1$I a
      where a.chain = l.chain and a.lane = l.lane order by a.seq desc, a.occurred_at desc limit 1) t$q$, p_name);
end
$fn$;$ddl$);

-- What of a lane from p_first to p_last the tree lacks or has otherwise: 'not_covered', 'rewritten', or NULL where each
-- entry is a leaf with its hash; and the size of the first checkpoint that covers them.
select platform.migrate_function($ddl$create or replace function platform.lane_in_tree(p_chain text, p_lane smallint, p_first bigint, p_last bigint, OUT problem text, OUT size bigint) returns record language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_seq bigint := p_first;
  v_count bigint;
  v_index bigint;
  v_size bigint := 0;
  v_tree bytea;
  v_log bytea;
  r record;
begin
  for r in
    select l.index, l.seq, l.count, l.first_at, l.last_at from platform.audit_leaves l
    where l.chain = p_chain and l.lane = p_lane and l.seq <= p_last
      and l.seq >= coalesce((select max(m.seq) from platform.audit_leaves m where m.chain = p_chain and m.lane = p_lane and m.seq <= p_first), p_first)
    order by l.seq
  loop
    continue when r.seq + r.count <= v_seq;
    exit when r.seq > v_seq;
    v_index := r.index + v_seq - r.seq;
    v_count := least(r.seq + r.count - 1, p_last) - v_seq + 1;
    select string_agg(substr(t.hashes, (1 + 32 * (greatest(v_index, t.index * 256) - t.index * 256))::int4,
        (32 * (least(v_index + v_count, (t.index + 1) * 256) - greatest(v_index, t.index * 256)))::int4), ''::bytea order by t.index)
      into v_tree from platform.audit_tiles t
      where t.level = 0 and t.index between v_index / 256 and (v_index + v_count - 1) / 256;
    select string_agg(a.hash, ''::bytea order by a.seq) into v_log from platform.audit_log a
      where a.chain = p_chain and a.lane = p_lane and a.seq between v_seq and v_seq + v_count - 1
        and a.occurred_at between r.first_at and r.last_at;
    if v_tree is distinct from v_log then
      problem := 'rewritten';
      return;
    end if;
    v_seq := v_seq + v_count;
    v_size := greatest(v_size, v_index + v_count);
  end loop;
  select min(c.size) into size from platform.audit_checkpoints c
    where c.epoch = (select max(n.epoch) from platform.audit_checkpoints n) and c.size >= v_size;
  if v_seq <= p_last or size is null then
    problem := 'not_covered';
  end if;
end
$fn$;$ddl$);

-- What the log says of the seals of a month, in one hash; and of what became of the month before it, so that the newest
-- seal's entry vouches for all seals, also when the months that held the older ones' entries are gone.
select platform.migrate_function($ddl$create or replace function platform.seal_digest(p_name text) returns bytea language plpgsql stable security definer set search_path = pg_catalog, pg_temp set DateStyle = iso set TimeZone = utc as $fn$
begin
  return (select sha256(convert_to(coalesce((
      select format(E'%s %s\n', encode(r.digest, 'hex'), r.disposition) from platform.retirements r
      where r.parent = 'audit_log' and r.sealed_at is not null and r.name < p_name order by r.name desc limit 1), '')
    || coalesce(string_agg(format(E'%s %s %s %s %s %s\n', s.chain, s.lane, s.first_seq, encode(s.first_hash, 'hex'),
      s.last_seq, encode(s.last_hash, 'hex')), '' order by s.chain collate "C", s.lane), ''), 'UTF8'))
    from platform.audit_seals s where s.partition = p_name);
end
$fn$;$ddl$);

-- Seals a month of the log: the first and last entry of each lane, and an entry that holds their digest. False if it was
-- sealed. Refuses a month that may not be touched (partition_free), and one that the tree does not cover (VL065).
select platform.migrate_function($ddl$create or replace function platform.partition_seal(p_name text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_month record;
  v_size bigint := 0;
  v_tree record;
  v_entries bigint;
  v_lanes bigint;
  v_id uuid;
  v_lane smallint;
  v_seq bigint;
  l record;
begin
  select * into v_month from platform.partition_free(p_name);
  if v_month.parent <> 'audit_log' then
    raise exception 'history is not sealed: each event is committed to by an entry of the log' using errcode = 'VL012';
  end if;
  -- a lock of its own: a seal may take a minute, and making months does not wait for it
  perform pg_advisory_xact_lock(hashtextextended('velocity/seal', 0));
  if exists (select from platform.retirements r where r.name = p_name and r.sealed_at is not null) then
    return false;
  end if;
  for l in select * from platform.partition_lanes(p_name) loop
    select * into v_tree from platform.lane_in_tree(l.chain, l.lane, l.first_seq, l.last_seq);
    if v_tree.problem = 'rewritten' then
      raise exception 'the tree has other hashes than % for %, lane %', p_name, l.chain, l.lane using errcode = 'VL064';
    elsif v_tree.problem is not null then
      raise exception 'no checkpoint covers % of %, lane %', p_name, l.chain, l.lane using errcode = 'VL065';
    end if;
    v_size := greatest(v_size, v_tree.size);
    insert into platform.audit_seals (partition, chain, lane, first_seq, first_hash, last_seq, last_hash, last_at, size)
    values (p_name, l.chain, l.lane, l.first_seq, l.first_hash, l.last_seq, l.last_hash, l.last_at, v_tree.size);
  end loop;
  select coalesce(sum(s.last_seq - s.first_seq + 1), 0), count(*) into v_entries, v_lanes from platform.audit_seals s where s.partition = p_name;
  v_id := platform.audit_insert('platform', 'operator/partition-manager', 'operator.partition.seal', 'ok', null, null,
    jsonb_build_object('partition', p_name, 'from', v_month."from", 'to', v_month."to", 'lanes', v_lanes, 'entries', v_entries,
      'digest', encode(platform.seal_digest(p_name), 'hex'), 'size', v_size), null, null, null, null);
  select a.lane, a.seq into strict v_lane, v_seq from platform.audit_log a where a.occurred_at >= now() and a.chain = 'platform' and a.id = v_id;
  insert into platform.retirements (name, parent, "from", "to", entries, digest, sealed_at, seal_lane, seal_seq)
  values (p_name, v_month.parent, v_month."from", v_month."to", v_entries, platform.seal_digest(p_name), now(), v_lane, v_seq);
  return true;
end
$fn$;$ddl$);

-- A page of a month that may go, a row a line: every column, JSON and times as text. p_after is the last row's place.
select platform.migrate_function($ddl$create or replace function platform.partition_export(p_name text, p_after jsonb, p_limit integer) returns TABLE(line text, place jsonb) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set TimeZone = utc set DateStyle = iso as $fn$
declare
  v_month record;
begin
  select * into v_month from platform.partition_free(p_name);
  if v_month.parent = 'audit_log' then
    if not exists (select from platform.retirements r where r.name = p_name and r.sealed_at is not null) then
      raise exception '% is not sealed', p_name using errcode = 'VL063';
    end if;
    return query execute format($q$
      select json_build_object('chain', a.chain, 'lane', a.lane, 'seq', a.seq::text,
          'occurred_at', to_char(a.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'), 'id', a.id, 'actor', a.actor,
          'action', a.action, 'outcome', a.outcome, 'schema_path', a.schema_path, 'entity_id', a.entity_id, 'payload', a.payload::text,
          'request_id', a.request_id, 'reason', a.reason, 'ticket_ref', a.ticket_ref, 'fail_modes', a.fail_modes::text,
          'db_login', a.db_login, 'db_role', a.db_role, 'prev_hash', encode(a.prev_hash, 'hex'), 'hash', encode(a.hash, 'hex'))::text,
        jsonb_build_object('chain', a.chain, 'lane', a.lane, 'seq', a.seq)
      from platform.%I a
      where $1 is null or (a.chain, a.lane, a.seq) > ($1 ->> 'chain', ($1 ->> 'lane')::int2, ($1 ->> 'seq')::int8)
      order by a.chain, a.lane, a.seq limit $2$q$, p_name) using p_after, p_limit;
  else
    return query execute format($q$
      select json_build_object('id', e.id, 'chain', e.chain, 'storage_id', e.storage_id, 'def_id', e.def_id, 'entity_id', e.entity_id,
          'version', e.version, 'op', e.op, 'occurred_at', to_char(e.occurred_at at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"'),
          'actor', e.actor, 'request_id', e.request_id, 'changed', to_json(e.changed),
          'state', case when e.state is not null then coalesce((select json_object_agg(s.key, s.value::text) from jsonb_each(e.state) s), '{}') end,
          'salt', encode(e.salt, 'hex'), 'hash', encode(e.hash, 'hex'))::text,
        jsonb_build_object('id', e.id)
      from platform.%I e
      where $1 is null or e.id > ($1 ->> 'id')::uuid
      order by e.id limit $2$q$, p_name) using p_after, p_limit;
  end if;
end
$fn$;$ddl$);

-- Puts the export of a month on record, whose file was read back: its manifest must name as many rows as the month has,
-- and for the log the lanes as they were sealed.
select platform.migrate_function($ddl$create or replace function platform.partition_exported(p_name text, p_manifest text) returns bytea language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_month record;
  v_manifest constant jsonb := p_manifest::jsonb;
  v_rows bigint;
begin
  select * into v_month from platform.partition_free(p_name);
  execute format('select count(*) from platform.%I', p_name) into v_rows;
  if v_manifest ->> 'partition' is distinct from p_name or (v_manifest ->> 'rows')::int8 is distinct from v_rows
     or v_manifest ->> 'sha256' !~ '^[0-9a-f]{64}$' then
    raise exception 'the manifest is not one of % with its % rows', p_name, v_rows using errcode = 'VL066';
  end if;
  if v_month.parent = 'audit_log' and exists (
      with lanes as (
        select m ->> 'chain' as chain, (m ->> 'lane')::int2 as lane, (m ->> 'first_seq')::int8 as first_seq, m ->> 'first_hash' as first_hash,
          (m ->> 'last_seq')::int8 as last_seq, m ->> 'last_hash' as last_hash
        from jsonb_array_elements(v_manifest -> 'lanes') m
      ), seals as (
        select s.chain, s.lane, s.first_seq, encode(s.first_hash, 'hex') as first_hash, s.last_seq, encode(s.last_hash, 'hex') as last_hash
        from platform.audit_seals s where s.partition = p_name)
      (select * from lanes except select * from seals) union all (select * from seals except select * from lanes)) then
    raise exception 'the lanes of the manifest are not as % was sealed', p_name using errcode = 'VL066';
  end if;
  insert into platform.retirements (name, parent, "from", "to", entries, manifest, manifest_hash, exported_at)
  values (p_name, v_month.parent, v_month."from", v_month."to", v_rows, p_manifest, sha256(convert_to(p_manifest, 'UTF8')), now())
  on conflict (name) do update set manifest = excluded.manifest, manifest_hash = excluded.manifest_hash, exported_at = excluded.exported_at;
  return sha256(convert_to(p_manifest, 'UTF8'));
end
$fn$;$ddl$);

-- A month that is to go must be as it was written: raises VL063 to VL065 for what stands in the way.
select platform.migrate_function($ddl$create or replace function platform.partition_sound(p_name text, p_parent text, p_from timestamp with time zone, p_to timestamp with time zone) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_done platform.retirements;
  v_bad record;
  v_tree record;
  s record;
begin
  if p_parent = 'event_log' then
    -- what was erased has neither contents nor salt, and its hash stands alone
    execute format($q$select e.entity_id, e.version from platform.%I e where e.state is not null and e.salt is not null
      and platform.event_hash(e.salt, format('%%s/%%s/%%s/%%s', e.storage_id, e.entity_id, e.version, e.op), e.state) <> e.hash limit 1$q$, p_name) into v_bad;
    if v_bad.entity_id is not null then
      raise exception '% is not sound: version % of % is not what its hash says', p_name, v_bad.version, v_bad.entity_id using errcode = 'VL064';
    end if;
    return;
  end if;
  select * into v_done from platform.retirements r where r.name = p_name;
  if v_done.sealed_at is null then
    raise exception '% is not sealed', p_name using errcode = 'VL063';
  end if;
  -- the seals are what their entry in the log says of them
  if platform.seal_digest(p_name) is distinct from v_done.digest or not exists (
      select from platform.audit_log a where a.chain = 'platform' and a.lane = v_done.seal_lane and a.seq = v_done.seal_seq
        and a.action = 'operator.partition.seal' and a.payload ->> 'partition' = p_name and a.payload ->> 'digest' = encode(v_done.digest, 'hex'))
     or exists (
      (select l.chain, l.lane, l.first_seq, l.first_hash, l.last_seq, l.last_hash from platform.partition_lanes(p_name) l
       except select q.chain, q.lane, q.first_seq, q.first_hash, q.last_seq, q.last_hash from platform.audit_seals q where q.partition = p_name)
      union all
      (select q.chain, q.lane, q.first_seq, q.first_hash, q.last_seq, q.last_hash from platform.audit_seals q where q.partition = p_name
       except select l.chain, l.lane, l.first_seq, l.first_hash, l.last_seq, l.last_hash from platform.partition_lanes(p_name) l)) then
    raise exception '% is not sound: it is not as it was sealed', p_name using errcode = 'VL064';
  end if;
  select v.chain, v.lane, v.seq, v.problem into v_bad from platform.audit_verify_window(p_from, p_to) v limit 1;
  if found then
    raise exception '% is not sound: % at %, lane %, seq %', p_name, v_bad.problem, v_bad.chain, v_bad.lane, v_bad.seq using errcode = 'VL064';
  end if;
  for s in
    select q.chain, q.lane, q.first_seq, q.last_seq from platform.audit_seals q where q.partition = p_name
    union all select 'platform', v_done.seal_lane, v_done.seal_seq, v_done.seal_seq
  loop
    select * into v_tree from platform.lane_in_tree(s.chain, s.lane, s.first_seq, s.last_seq);
    if v_tree.problem = 'rewritten' then
      raise exception '% is not sound: the tree has other hashes for %, lane %', p_name, s.chain, s.lane using errcode = 'VL064';
    elsif v_tree.problem is not null then
      raise exception 'no checkpoint covers % up to seq % of %, lane %', p_name, s.last_seq, s.chain, s.lane using errcode = 'VL065';
    end if;
  end loop;
end
$fn$;$ddl$);

-- Judges a month for the last time, in the transaction that has detached it: nothing may have been said since it was judged
-- that keeps it. What keeps months cannot change from here on until that transaction ends; somebody who is changing it now
-- has to be let through first (55P03), since his entry waits for the log that we hold. p_holds are the holds that were
-- there when the month was judged. A newer one keeps it whatever chain it is on: to look for that in the month would take
-- time that readers and writers do not have.
select platform.migrate_function($ddl$create or replace function platform.partition_still_free(p_name text, p_parent text, p_to timestamp with time zone, p_holds uuid[]) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  h record;
begin
  lock table platform.retention, platform.legal_holds in share mode nowait;
  if p_parent = 'event_log' then
    lock table platform.schema_defs in share mode nowait;
  end if;
  if not platform.partition_due(p_parent, p_to) then
    raise exception '% is not past what is kept of % any more', p_name, p_parent using errcode = 'VL060';
  end if;
  select l.chain, l.reason into h from platform.legal_holds l where l.lifted_at is null and l.id <> all (p_holds) order by l.placed_at limit 1;
  if found then
    raise exception '% was about to go when % was held, and is judged anew: %', p_name, h.chain, h.reason using errcode = 'VL062';
  end if;
end
$fn$;$ddl$);

-- Detaches a month, if it may still go (partition_still_free). Readers and writers wait behind us for a third of a second at
-- most; then we let them go on and come again, five times, and leave the rest to the schedule (55P03). The term is held from
-- here on only.
select platform.migrate_function($ddl$create or replace function platform.partition_detach(p_parent text, p_name text, p_to timestamp with time zone, p_holds uuid[], p_epoch bigint) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = 300 as $fn$
begin
  for i in 1 .. 5 loop
    begin
      if p_epoch is not null then
        perform platform.term_check(p_epoch);
      end if;
      execute format('alter table platform.%I detach partition platform.%I', p_parent, p_name);
      perform platform.partition_still_free(p_name, p_parent, p_to, p_holds);
      return;
    exception when lock_not_available then
      if i = 5 then
        raise;
      end if;
    end;
    perform pg_sleep(0.1 + random() * 0.4);
  end loop;
end
$fn$;$ddl$);

-- The last event of each record that has no later one, of a month that goes and of the months before it: a partition from
-- the beginning of time on, so that history is read as before and under the same policies. Filled before anything is
-- locked; answers its name. A record that is touched meanwhile has one row more than it needs.
select platform.migrate_function($ddl$create or replace function platform.event_heads_build(p_name text, p_to timestamp with time zone) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_source text;
begin
  execute 'create table platform.event_log_heads_next (like platform.event_log including defaults including constraints including indexes)';
  execute 'alter table platform.event_log_heads_next enable row level security';
  execute 'alter table platform.event_log_heads_next alter column state set statistics 0, alter column salt set statistics 0';
  execute format('alter table platform.event_log_heads_next add constraint month check (occurred_at < %L)', p_to);
  foreach v_source in array array[p_name, 'event_log_heads'] loop
    continue when v_source = 'event_log_heads' and not exists (
      select from pg_class c where c.relnamespace = 'platform'::regnamespace and c.relname = v_source);
    execute format($q$insert into platform.event_log_heads_next select e.* from platform.%I e where not exists (
      select from platform.event_log f where f.storage_id = e.storage_id and f.entity_id = e.entity_id and f.version > e.version)
      or exists (select from platform.legal_holds h where h.chain = e.chain and h.lifted_at is null)$q$, v_source);
  end loop;
  return 'event_log_heads_next';
end
$fn$;$ddl$);

-- A detached month that is kept: in a schema of its own, guarded as it was. History's contents are for nobody to read.
select platform.migrate_function($ddl$create or replace function platform.partition_archive(p_parent text, p_name text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  execute format('alter table platform.%I set schema platform_archive', p_name);
  if p_parent = 'audit_log' then
    -- what was the parent's trigger went with it
    execute format('create trigger refuse_row before delete or update on platform_archive.%I for each row execute function platform.audit_refuse()', p_name);
    execute format('alter table platform_archive.%I enable always trigger refuse_row', p_name);
    execute format('grant select on platform_archive.%I to velocity_auditor', p_name);
  end if;
end
$fn$;$ddl$);

-- Ends a month: detached, and dropped or kept. Judges everything for itself, before any lock is taken, and what people may
-- have said meanwhile (a hold, a longer retention) again once it is detached; p_epoch is the term that must be in force when
-- it is done (NULL: the transaction holds its term). Raises VL060 to VL066 for what stands in the way, 55P03 where the lock
-- did not come.
select platform.migrate_function($ddl$create or replace function platform.partition_retire(p_name text, p_disposition text, p_epoch bigint) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_month record;
  v_heads text;
  v_done platform.retirements;
  v_holds uuid[];
begin
  if p_disposition is null or p_disposition not in ('drop', 'keep', 'export') then
    raise exception '% is not drop, keep or export', p_disposition using errcode = 'VL012';
  end if;
  -- before they are judged: one that comes between is none of these
  v_holds := array(select l.id from platform.legal_holds l where l.lifted_at is null);
  select * into v_month from platform.partition_free(p_name);
  perform platform.partition_sound(p_name, v_month.parent, v_month."from", v_month."to");
  select * into v_done from platform.retirements r where r.name = p_name;
  if p_disposition = 'export' and v_done.manifest_hash is null then
    raise exception 'no export of % is on record', p_name using errcode = 'VL066';
  end if;
  if v_month.parent = 'event_log' then
    -- what is erased from here on is erased from the copy: an erasure holds the lock shared (0009)
    perform pg_advisory_xact_lock(hashtextextended('velocity/history', 0));
    v_heads := platform.event_heads_build(p_name, v_month."to");
  end if;

  perform platform.partition_detach(v_month.parent, p_name, v_month."to", v_holds, p_epoch);
  if v_month.parent = 'audit_log' then
    insert into platform.audit_heads (chain, lane, seq, occurred_at, hash)
    select s.chain, s.lane, s.last_seq, s.last_at, s.last_hash from platform.audit_seals s where s.partition = p_name
    on conflict (chain, lane) do update set seq = excluded.seq, occurred_at = excluded.occurred_at, hash = excluded.hash;
  else
    if exists (select from pg_class c where c.relnamespace = 'platform'::regnamespace and c.relname = 'event_log_heads') then
      execute 'drop table platform.event_log_heads';
    end if;
    execute format('alter table platform.event_log attach partition platform.%I for values from (minvalue) to (%L)', v_heads, v_month."to");
    execute format('alter table platform.%I drop constraint month', v_heads);
    execute format('alter table platform.%I rename to event_log_heads', v_heads);
  end if;
  if p_disposition = 'keep' then
    perform platform.partition_archive(v_month.parent, p_name);
  else
    execute format('drop table platform.%I', p_name);
  end if;
  insert into platform.retirements (name, parent, "from", "to", disposition, retired_at)
  values (p_name, v_month.parent, v_month."from", v_month."to", p_disposition, now())
  on conflict (name) do update set disposition = excluded.disposition, retired_at = excluded.retired_at;
  perform platform.audit_insert('platform', 'operator/partition-manager', 'operator.partition.retire', 'ok', null, null,
    jsonb_build_object('partition', p_name, 'disposition', p_disposition, 'digest', encode(v_done.digest, 'hex'),
      'export', encode(v_done.manifest_hash, 'hex')), null, null, null, null);
end
$fn$;$ddl$);

-- Says how long months are kept; NULL leaves it as it is. Longer at any time, shorter only by a superuser (VL067).
select platform.migrate_function($ddl$create or replace function platform.retention_set(p_audit_months integer, p_event_months integer, OUT audit_months integer, OUT event_months integer) returns record language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_now platform.retention;
begin
  select * into strict v_now from platform.retention for update;
  if (p_audit_months < v_now.audit_months or p_event_months < v_now.event_months)
     and not (select r.rolsuper from pg_roles r where r.rolname = session_user) then
    raise exception 'months are kept for % (audit log) and % (history), and are not kept shorter', v_now.audit_months, v_now.event_months
      using errcode = 'VL067', hint = 'As a superuser: SELECT platform.retention_set(…)';
  end if;
  retention_set.audit_months := coalesce(p_audit_months, v_now.audit_months);
  retention_set.event_months := coalesce(p_event_months, v_now.event_months);
  if row(v_now.audit_months, v_now.event_months) is not distinct from row(retention_set.audit_months, retention_set.event_months) then
    return;
  end if;
  update platform.retention r set audit_months = retention_set.audit_months, event_months = retention_set.event_months,
    updated_at = now(), updated_by = session_user;
  if session_user = 'velocity_operator' then
    perform platform.audit_insert('platform', 'operator', 'operator.retention.set', 'ok', null, null,
      jsonb_build_object('audit_months', retention_set.audit_months, 'event_months', retention_set.event_months), null, null, null, null);
  end if;
end
$fn$;$ddl$);

-- a hold keeps every month in which its chain has entries or history, whatever the retention, until it is lifted
select platform.migrate_function($ddl$create or replace function platform.hold_place(p_chain text, p_reason text, p_actor text) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_id uuid;
begin
  if coalesce(p_reason, '') = '' or coalesce(p_actor, '') = '' then
    raise exception 'a hold says who placed it and why' using errcode = 'VL012';
  end if;
  if not exists (select from platform.domains d where d.chain = p_chain) then
    raise exception 'no chain %', p_chain using errcode = 'VL003';
  end if;
  insert into platform.legal_holds (chain, reason, placed_by) values (p_chain, p_reason, p_actor) returning id into v_id;
  perform platform.audit_insert(p_chain, p_actor, 'operator.hold.place', 'ok', null, null, jsonb_build_object('hold', v_id), null, null, p_reason, null);
  return v_id;
end
$fn$;$ddl$);
select platform.migrate_function($ddl$create or replace function platform.hold_lift(p_hold uuid, p_reason text, p_actor text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_chain text;
begin
  if coalesce(p_reason, '') = '' or coalesce(p_actor, '') = '' then
    raise exception 'lifting a hold says who does it and why' using errcode = 'VL012';
  end if;
  update platform.legal_holds set lifted_at = now(), lifted_by = p_actor where id = p_hold and lifted_at is null returning chain into v_chain;
  if not found then
    return false;
  end if;
  perform platform.audit_insert(v_chain, p_actor, 'operator.hold.lift', 'ok', null, null, jsonb_build_object('hold', p_hold), null, null, p_reason, null);
  -- what waited for it is looked at again
  perform pg_notify('velocity_serving', 'decided');
  return true;
end
$fn$;$ddl$);

-- The next slice of a window, in the order of time: where it ends and how many entries it has. A window is verified slice by
-- slice: each by audit_verify_window, on as many connections as one likes, and again from any slice's end on.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_slice(p_from timestamp with time zone, p_to timestamp with time zone, p_limit integer, OUT until timestamp with time zone, OUT entries bigint) returns record language plpgsql stable security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $fn$
begin
  select a.occurred_at into until from platform.audit_log a
    where a.occurred_at >= p_from and a.occurred_at < p_to order by a.occurred_at offset p_limit limit 1;
  if until = p_from then
    -- more of one moment than a slice holds
    until := (select min(a.occurred_at) from platform.audit_log a where a.occurred_at > p_from and a.occurred_at < p_to);
  end if;
  until := coalesce(until, p_to);
  entries := (select count(*) from platform.audit_log a where a.occurred_at >= p_from and a.occurred_at < until);
end
$fn$;$ddl$);

select platform.migrate_function($ddl$create or replace function platform.migrate_retention() returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  if not exists (select from platform.retention) then
    insert into platform.retention default values;
  end if;
end
$fn$;$ddl$);
select platform.migrate_grants('function', 'migrate_retention', 'pg_database_owner=execute');
select platform.migrate_retention();

select platform.migrate_grants('table', 'retention', 'velocity_auditor=select; velocity_operator=select');
select platform.migrate_grants('table', 'legal_holds', 'velocity_auditor=select; velocity_operator=select');
select platform.migrate_grants('table', 'retirements', 'velocity_auditor=select; velocity_operator=select');
select platform.migrate_grants('table', 'audit_verification', 'velocity_auditor=select; velocity_operator=select,insert,update');
select platform.migrate_grants('function', name, 'velocity_operator=execute')
from unnest(array['partitions_due', 'partition_seal', 'partition_export', 'partition_exported', 'partition_retire',
                  'retention_set', 'hold_place', 'hold_lift']) as t(name);
select platform.migrate_grants('function', name, '')
from unnest(array['partition_due', 'partition_free', 'partition_lanes', 'lane_in_tree', 'seal_digest', 'partition_sound',
                  'partition_still_free', 'partition_detach', 'event_heads_build', 'partition_archive']) as t(name);
select platform.migrate_grants('function', 'audit_verify_slice', 'velocity_auditor=execute; velocity_operator=execute');

-- months that are kept stay guarded as partition_archive left them
do $$
declare
  t record;
begin
  for t in
    with kept as (
      select c.oid, c.relname, c.relname ~ '^audit_log_' as log, c.relrowsecurity as rls, c.relacl, c.relowner
      from pg_class c where c.relnamespace = (select oid from pg_namespace where nspname = 'platform_archive') and c.relkind = 'r'
    )
    select format('revoke all on platform_archive.%I from %s cascade', k.relname, case a.grantee when 0 then 'public' else a.grantee::regrole::text end) as sql
    from kept k, aclexplode(k.relacl) a
    where a.grantee <> k.relowner and not (k.log and a.grantee = 'velocity_auditor'::regrole and a.privilege_type = 'SELECT' and not a.is_grantable)
    union all
    select format('grant select on platform_archive.%I to velocity_auditor', k.relname) from kept k
    where k.log and not has_table_privilege('velocity_auditor', k.oid, 'SELECT')
    union all
    select format('create trigger %s %s on platform_archive.%I for each %s execute function platform.audit_refuse()', w.name, w.event, k.relname, w.what)
    from kept k, (values ('refuse_row', 'before delete or update', 'row'), ('refuse_truncate', 'before truncate', 'statement')) as w(name, event, what)
    where k.log and not exists (select from pg_trigger g where g.tgrelid = k.oid and g.tgname = w.name)
    union all
    select format('alter table platform_archive.%I enable always trigger %s', k.relname, w.name)
    from kept k, (values ('refuse_row'), ('refuse_truncate')) as w(name)
    where k.log and not exists (select from pg_trigger g where g.tgrelid = k.oid and g.tgname = w.name and g.tgenabled = 'A')
    union all
    select format('alter table platform_archive.%I enable row level security', k.relname) from kept k where not k.log and not k.rls
  loop
    perform platform.migrate_as_owner(t.sql);
  end loop;
end
$$;

select platform.migrate_comment('table', name, what) from (values
  ('retention', 'One row: how many months of the log and of history are kept whole. NULL: nobody has said so, and nothing goes.'),
  ('legal_holds', 'Chains whose months stay, whatever the retention, until the hold is lifted.'),
  ('retirements', 'What became of each month that was sealed, exported or retired.'),
  ('audit_verification', 'One row: what the last verification in the background found.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('partition_due', 'Whether a month that ends then is past what is kept.'),
  ('partitions_due', 'The months that are past what is kept, oldest first.'),
  ('partition_free', 'A month, if it may be touched at all: VL060 not past what is kept, VL061 an older one is there, VL062 held.'),
  ('partition_lanes', 'The first and last entry of each lane of a month of the log.'),
  ('lane_in_tree', 'What of a run of a lane the tree lacks (not_covered) or has otherwise (rewritten), NULL where all of it is there; and the first checkpoint that covers it.'),
  ('seal_digest', 'The seals of a month and of those before it, in one hash.'),
  ('partition_seal', 'Seals a month of the log, and leaves an entry with the digest of its seals. VL065 where no checkpoint covers the month.'),
  ('partition_export', 'A page of a month that may go, a row a line.'),
  ('partition_exported', 'Puts the manifest of a month''s export on record, after comparing it with the month and its seals (VL066).'),
  ('partition_sound', 'Judges a month that is to go: VL063 not sealed, VL064 not as it was written, VL065 not covered by a checkpoint.'),
  ('partition_still_free', 'Judges a detached month for the last time: VL060 or VL062 where retention or a hold was changed since it was judged, 55P03 where one is being changed.'),
  ('partition_detach', 'Detaches a month that may still go (partition_still_free), with a short lock_timeout and five tries.'),
  ('event_heads_build', 'The last events of records that nobody touched since, for the partition that keeps them.'),
  ('partition_archive', 'Moves a detached month to schema platform_archive, guarded as it was.'),
  ('partition_retire', 'Ends a month: detached, and dropped or kept, after judging everything for itself (VL060 to VL066).'),
  ('retention_set', 'Says how many months are kept: longer at any time, shorter by a superuser only (VL067).'),
  ('hold_place', 'Places a legal hold on a chain, and leaves an entry there.'),
  ('hold_lift', 'Lifts a legal hold, and leaves an entry; false if there is none.'),
  ('audit_verify_slice', 'The next slice of a window that is to be verified: its end and how many entries it has.'),
  ('migrate_retention', 'Makes the row of platform.retention.')
) as t(name, what);

select platform.migrate_end();
