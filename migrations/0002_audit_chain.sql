-- 0002 The audit chain: the log, its only writer and its verifier (audit.md).
--
-- An entry's hash is over PostgreSQL's own binary row format and the hash before it in its lane. Secondary indexes cost
-- every act 2 to 7 per cent each, so the log has one: by time, for lists and windows.

-- append-only, for whoever has the privilege too; ENABLE ALWAYS, so that session_replication_role does not help
select platform.migrate_function($ddl$create or replace function platform.audit_refuse() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  raise exception 'audit_log is append-only' using errcode = 'VL001';
end
$fn$;$ddl$);

-- the columns stand in hash order; audit_insert judges the values, since a CHECK is parsed anew for every insert; no
-- default partition: an entry without a month of its own fails, and is seen
select platform.migrate_relation('audit_log', $ddl$
create table platform.audit_log (
  chain text not null,
  lane smallint not null,
  seq bigint not null,
  occurred_at timestamptz not null,
  id uuid not null,
  actor text not null,
  action text not null,
  outcome text not null,
  schema_path text,
  entity_id uuid,
  payload jsonb,
  request_id text,
  reason text,
  ticket_ref text,
  fail_modes jsonb,
  db_login text not null,
  db_role text not null,
  prev_hash bytea not null,
  hash bytea not null,
  primary key (chain, lane, seq, occurred_at)
) partition by range (occurred_at)$ddl$);
select platform.migrate_relation('audit_log_occurred_at', 'create index audit_log_occurred_at on platform.audit_log (occurred_at)');

-- the last dropped entry of each lane; written only when a partition is retired
select platform.migrate_relation('audit_heads', $ddl$
create table platform.audit_heads (
  chain text not null,
  lane smallint not null,
  seq bigint not null,
  occurred_at timestamptz not null,
  hash bytea not null,
  primary key (chain, lane)
)$ddl$);

select platform.migrate_triggers('audit_log', array[
  'CREATE TRIGGER refuse_row BEFORE DELETE OR UPDATE ON platform.audit_log FOR EACH ROW EXECUTE FUNCTION platform.audit_refuse()',
  'CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON platform.audit_log FOR EACH STATEMENT EXECUTE FUNCTION platform.audit_refuse()'
]);

-- A month's partition of audit_log or event_log; false if it is there. Made beside and then attached, because
-- CREATE TABLE … PARTITION OF locks every reader and writer of the parent out, and ATTACH does not (PostgreSQL 5.12.2).
select platform.migrate_function($ddl$create or replace function platform.partition_create(p_parent text, p_from date) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp set lock_timeout = 2000 as $fn$
declare
  v_name text := format('%s_%s', p_parent, to_char(p_from, 'YYYY_MM'));
  v_low timestamptz := p_from::timestamp at time zone 'UTC';
  v_high timestamptz := (p_from + interval '1 month')::timestamp at time zone 'UTC';
  v_found oid;
begin
  if p_parent is null or p_parent not in ('audit_log', 'event_log') or p_from is null or extract(day from p_from) <> 1 then
    raise exception '% is not the first day of a month', p_from using errcode = 'VL012';
  end if;
  if abs(extract(epoch from v_low - now())) > 86400 * 366 * 20 then
    raise exception '% is more than twenty years away', p_from using errcode = 'VL012';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('velocity/partition', 0));
  select c.oid into v_found from pg_class c where c.relname = v_name and c.relnamespace = 'platform'::regnamespace;
  if found then
    if not exists (select from pg_inherits where inhrelid = v_found and not inhdetachpending
                   and inhparent = format('platform.%I', p_parent)::regclass) then
      raise exception 'platform.% is there and is no partition of platform.%', v_name, p_parent using errcode = 'VL012';
    end if;
    return false;
  end if;
  execute format('create table platform.%I (like platform.%I including defaults including constraints)', v_name, p_parent);
  execute format('alter table platform.%I add constraint month check (occurred_at >= %L and occurred_at < %L)', v_name, v_low, v_high);
  execute format('alter table platform.%I attach partition platform.%I for values from (%L) to (%L)', p_parent, v_name, v_low, v_high);
  execute format('alter table platform.%I drop constraint month', v_name);
  if p_parent = 'audit_log' then
    execute format('create trigger refuse_truncate before truncate on platform.%I for each statement execute function platform.audit_refuse()', v_name);
    execute format('alter table platform.%I enable always trigger refuse_truncate, enable always trigger refuse_row', v_name);
  else
    execute format('alter table platform.%I enable row level security', v_name);
    -- a sample of contents in pg_statistic would outlive their erasure (0009)
    execute format('alter table platform.%I alter column state set statistics 0, alter column salt set statistics 0', v_name);
  end if;
  return true;
end
$fn$;$ddl$);

select platform.migrate_function($ddl$create or replace function platform.audit_partition_create(p_from date) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return platform.partition_create('audit_log', p_from);
end
$fn$;$ddl$);

-- the partitions there are, with their bounds
select platform.migrate_function($ddl$create or replace function platform.partitions() returns TABLE(name text, parent text, "from" timestamp with time zone, "to" timestamp with time zone) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set TimeZone = utc set DateStyle = iso as $fn$
declare
  p record;
  v_bounds text[];
begin
  for p in
    select c.relname::text as name, i.inhparent::regclass as parent, pg_get_expr(c.relpartbound, c.oid) as bound
    from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class t on t.oid = i.inhparent
    where t.relnamespace = 'platform'::regnamespace and t.relkind = 'p' and c.relkind = 'r'
    order by t.relname, c.relname
  loop
    v_bounds := regexp_match(p.bound, 'FROM \(''([^'']+)''\) TO \(''([^'']+)''\)');
    name := p.name;
    parent := split_part(p.parent::text, '.', 2);
    "from" := v_bounds[1]::timestamptz;
    "to" := v_bounds[2]::timestamptz;
    return next;
  end loop;
end
$fn$;$ddl$);

-- The log's one writer. See audit.md for every rule in it.
-- The lane's lock is held until commit, so the order of seq is the order of commits. The predecessor is looked for in
-- this month and later (one that is there belongs to a clock that was wrong, and is refused), then before it, then in
-- audit_heads.
select platform.migrate_function($ddl$create or replace function platform.audit_insert(p_chain text, p_actor text, p_action text, p_outcome text, p_schema_path text, p_entity_id uuid, p_payload jsonb, p_fail_modes jsonb, p_request_id text, p_reason text, p_ticket_ref text) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_login text := session_user;
  v_role text := current_setting('role');
  v_chain_no int4;
  v_allowed boolean;
  v_lane int2 := pg_backend_pid() % 32;
  v_random bytea := uuid_send(gen_random_uuid());
  v_id uuid;
  v_at timestamptz;
  v_seq int8;
  v_prev bytea;
  v_last_at timestamptz;
begin
  if current_setting('client_encoding') <> 'UTF8' or current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'audit_insert needs UTF8 and READ COMMITTED' using errcode = 'VL002';
  end if;
  select d.chain_no, case
      when v_role = 'velocity_gateway' then v_login = 'velocity_api' and (p_chain = 'platform' or p_outcome <> 'ok')
      when v_role = 'none' then v_login = 'velocity_operator' and (p_action like 'operator.%' or p_action like 'key.%')
      when v_role = 'velocity_privacy' then v_login = 'velocity_api' and p_chain <> 'platform' and p_action = 'erase' and p_outcome = 'ok'
      else v_login = 'velocity_api' and p_chain <> 'platform' and p_action <> 'erase'
        and v_role in (d.pg_schema || '_reader', d.pg_schema || '_writer', d.pg_schema || '_admin')
      end
    into v_chain_no, v_allowed from platform.domains d where d.chain = p_chain;
  if not found then
    raise exception 'no chain %', p_chain using errcode = 'VL003';
  end if;
  if v_allowed is not true then
    raise exception '% as % may not write % to %', v_login, v_role, p_action, p_chain using errcode = '42501';
  end if;
  if p_outcome not in ('ok', 'denied', 'failed', 'dry_run', 'unknown') then
    raise exception 'no outcome %', p_outcome using errcode = 'VL012';
  end if;
  if not pg_try_advisory_xact_lock(v_chain_no, v_lane) then
    for i in 1 .. 31 loop
      v_lane := (v_lane + 1) % 32;
      exit when pg_try_advisory_xact_lock(v_chain_no, v_lane);
      if i = 31 then
        v_lane := pg_backend_pid() % 32;
        perform pg_advisory_xact_lock(v_chain_no, v_lane);
      end if;
    end loop;
  end if;
  v_at := clock_timestamp();
  select a.seq, a.hash, a.occurred_at into v_seq, v_prev, v_last_at from platform.audit_log a
    where a.chain = p_chain and a.lane = v_lane and a.occurred_at >= date_trunc('month', v_at, 'UTC') order by a.seq desc limit 1;
  if not found then
    select a.seq, a.hash, a.occurred_at into v_seq, v_prev, v_last_at from platform.audit_log a
      where a.chain = p_chain and a.lane = v_lane and a.occurred_at < date_trunc('month', v_at, 'UTC') order by a.seq desc limit 1;
    if not found then
      select h.seq, h.hash, h.occurred_at into v_seq, v_prev, v_last_at from platform.audit_heads h
        where h.chain = p_chain and h.lane = v_lane;
      if not found then
        v_seq := 0;
        v_prev := sha256(convert_to(format('velocity/audit/v1/%s/%s', p_chain, v_lane), 'UTF8'));
      end if;
    end if;
  end if;
  if v_last_at >= v_at then
    if v_last_at > v_at + interval '1 minute' then
      raise exception 'the last entry of %, lane %, is of %, which is in the future', p_chain, v_lane, v_last_at using errcode = 'VL004';
    end if;
    v_at := v_last_at + interval '1 microsecond';
  end if;
  v_seq := v_seq + 1;
  -- version 7 of the entry's time: an entry is found by its id through the index on occurred_at, and needs none of its own
  v_id := encode(set_byte(overlay(v_random placing substr(int8send((extract(epoch from v_at) * 1000)::int8), 3) from 1 for 6), 6,
    get_byte(v_random, 6) | 48), 'hex')::uuid;
  insert into platform.audit_log values (p_chain, v_lane, v_seq, v_at, v_id, p_actor, p_action, p_outcome, p_schema_path,
    p_entity_id, p_payload, p_request_id, p_reason, p_ticket_ref, p_fail_modes, v_login, v_role, v_prev,
    sha256('\x00'::bytea || record_send(row(p_chain, v_lane, v_seq, v_at, v_id, p_actor, p_action, p_outcome, p_schema_path,
      p_entity_id, p_payload, p_request_id, p_reason, p_ticket_ref, p_fail_modes, v_login, v_role, v_prev))));
  return v_id;
end
$fn$;$ddl$);

-- an entry's hash, made anew
select platform.migrate_function($ddl$create or replace function platform.audit_hash(p_entry platform.audit_log) returns bytea language plpgsql stable set search_path = pg_catalog, pg_temp as $fn$
begin
  return sha256('\x00'::bytea || record_send(row(p_entry.chain, p_entry.lane, p_entry.seq, p_entry.occurred_at, p_entry.id, p_entry.actor,
    p_entry.action, p_entry.outcome, p_entry.schema_path, p_entry.entity_id, p_entry.payload, p_entry.request_id, p_entry.reason,
    p_entry.ticket_ref, p_entry.fail_modes, p_entry.db_login, p_entry.db_role, p_entry.prev_hash)));
end
$fn$;$ddl$);

-- One row for each entry of the window that is wrong, none for a sound window. An entry is judged against the one before
-- it in its lane, which may lie outside the window or be the head of what was dropped: the last entry that was sealed.
-- A window without an end is one of the lanes' ends too (audit_verify_lanes): an entry that is gone from there has none behind it.
-- Read in slices of 50,000 entries in the order of time, which is that of the heap: memory does not grow with the window,
-- and no page is read once for each lane. Where a lane's predecessor is in no earlier place of the slice it is looked up.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_window(p_from timestamp with time zone, p_to timestamp with time zone) returns TABLE(chain text, lane smallint, seq bigint, id uuid, occurred_at timestamp with time zone, stored_hash bytea, computed_hash bytea, problem text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set work_mem = 65536 set plan_cache_mode = force_custom_plan as $fn$
#variable_conflict use_column
declare
  v_at timestamptz := coalesce(p_from, '-infinity');
  v_end constant timestamptz := coalesce(p_to, 'infinity');
  v_next timestamptz;
begin
  if current_setting('client_encoding') <> 'UTF8' or current_setting('server_encoding') <> 'UTF8' then
    raise exception 'audit_verify_window needs UTF8' using errcode = 'VL002';
  end if;
  while v_at < v_end loop
    select a.occurred_at into v_next from platform.audit_log a
      where a.occurred_at >= v_at and a.occurred_at < v_end order by a.occurred_at offset 50000 limit 1;
    if not found then
      v_next := v_end;
    elsif v_next = v_at then
      -- more of one moment than a slice holds
      v_next := coalesce((select min(a.occurred_at) from platform.audit_log a where a.occurred_at > v_at and a.occurred_at < v_end), v_end);
    end if;
    return query
    with entry as (
      -- by itself (offset 0), so that what is sorted is the hash and not all that it is over
      select a.chain, a.lane, a.seq, a.id, a.occurred_at, a.prev_hash, a.hash,
        sha256('\x00'::bytea || record_send(row(a.chain, a.lane, a.seq, a.occurred_at, a.id, a.actor, a.action, a.outcome,
          a.schema_path, a.entity_id, a.payload, a.request_id, a.reason, a.ticket_ref, a.fail_modes, a.db_login, a.db_role,
          a.prev_hash))) as computed
      from platform.audit_log a
      where a.occurred_at >= v_at and a.occurred_at < v_next
      offset 0
    ), linked as (
      select e.*, lag(e.seq) over w as last_seq, lag(e.hash) over w as last_hash, lag(e.occurred_at) over w as last_at
      from entry e
      window w as (partition by e.lane, e.chain collate "C" order by e.seq, e.occurred_at)
    ), apart as (
      select l.*, l.last_seq is null or (l.last_seq <> l.seq and l.last_seq + 1 <> l.seq) as odd from linked l
    ), told as (
      select l.*, case
        when l.last_seq = l.seq then 'duplicate_seq'
        when l.computed <> l.hash then 'hash_mismatch'
        when l.odd then null
        when l.last_hash <> l.prev_hash then 'link_broken'
        when l.last_at >= l.occurred_at then 'time_reversed' end as wrong
      from apart l
    ), few as materialized (
      -- nearly every entry ends here
      select l.* from told l where l.odd or l.wrong is not null
    ), judged as (
      select l.chain, l.lane, l.seq, l.id, l.occurred_at, l.hash, l.computed, case
        when l.wrong is not null then l.wrong
        when b.seq is not null then case
          when b.seq = l.seq then 'duplicate_seq'
          when b.seq + 1 <> l.seq then 'seq_gap'
          when b.hash <> l.prev_hash then 'link_broken'
          when b.occurred_at >= l.occurred_at then 'time_reversed' end
        when h.seq is not null then case
          when h.seq + 1 <> l.seq or h.hash <> l.prev_hash or h.occurred_at >= l.occurred_at
            or (z.last_seq, z.last_hash) is distinct from (h.seq, h.hash) then 'head_mismatch' end
        when l.seq <> 1 then 'seq_gap'
        when l.prev_hash <> sha256(convert_to(format('velocity/audit/v1/%s/%s', l.chain, l.lane), 'UTF8')) then 'link_broken'
        end as problem
      from few l
      -- the month of the entry itself is one index; only where that has nothing are all of them asked. By the key of the lane:
      -- with two bounds of time that it can use, the planner would read the month up to the entry instead, for each lane
      left join lateral (
        select o.seq, o.hash, o.occurred_at from platform.audit_log o
        where l.odd and o.chain = l.chain and o.lane = l.lane and o.seq between l.seq - 1 and l.seq
          and o.occurred_at >= date_trunc('month', l.occurred_at, 'UTC') and o.occurred_at + interval '0' < l.occurred_at
        order by o.seq desc, o.occurred_at desc limit 1) n on true
      left join lateral (
        select o.seq, o.hash, o.occurred_at from platform.audit_log o
        where l.odd and n.seq is null and o.chain = l.chain and o.lane = l.lane and o.seq <= l.seq and o.occurred_at <> l.occurred_at
        order by o.seq desc, o.occurred_at desc limit 1) f on true
      left join lateral (
        select coalesce(n.seq, f.seq) as seq, coalesce(n.hash, f.hash) as hash, coalesce(n.occurred_at, f.occurred_at) as occurred_at) b on true
      left join platform.audit_heads h on h.chain = l.chain and h.lane = l.lane and l.odd
      -- the head is what the lane's last retired month was sealed with
      left join lateral (
        select s.last_seq, s.last_hash from platform.audit_seals s join platform.retirements r on r.name = s.partition
        where h.seq is not null and b.seq is null and s.chain = l.chain and s.lane = l.lane and r.retired_at is not null
        order by s.last_seq desc limit 1) z on true
    )
    select j.chain, j.lane, j.seq, j.id, j.occurred_at, j.hash, j.computed, j.problem from judged j
    where j.problem is not null
    order by j.chain, j.lane, j.seq, j.occurred_at;
    v_at := v_next;
  end loop;
  if p_to is null then
    return query select l.chain, l.lane, l.seq, null::uuid, l.occurred_at, l.found, l.wanted, l.problem from platform.audit_verify_lanes(null) l;
  end if;
end
$fn$;$ddl$);

select platform.migrate_function($ddl$create or replace function platform.migrate_partitions(p_parent text) returns void language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_month date := date_trunc('month', now() at time zone 'UTC');
  p record;
begin
  for i in 0 .. 3 loop
    if not exists (select from pg_class where relnamespace = 'platform'::regnamespace
                   and relname = format('%s_%s', p_parent, to_char(v_month + make_interval(months => i), 'YYYY_MM'))) then
      perform platform.migrate_as_owner(format('select platform.partition_create(%L, %L)', p_parent, (v_month + make_interval(months => i))::date));
    end if;
  end loop;
  for p in
    select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
    where i.inhparent = (select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = p_parent)
    order by 1
  loop
    perform platform.migrate_grants('table', p.relname, '');
    if p_parent = 'audit_log' then
      perform platform.migrate_triggers(p.relname, array[format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON platform.%I FOR EACH STATEMENT EXECUTE FUNCTION platform.audit_refuse()', p.relname)]);
    else
      perform platform.migrate_triggers(p.relname, '{}');
      perform platform.migrate_policies(p.relname, '{}');
    end if;
  end loop;
end
$fn$;$ddl$);
select platform.migrate_grants('function', 'migrate_partitions', 'pg_database_owner=execute');

select platform.migrate_partitions('audit_log');

select platform.migrate_comment('table', name, what) from (values
  ('audit_log', 'The audit log: one entry for each act, chained by hash in 32 lanes a chain. Written by audit_insert only, changed by nobody. Columns stand in hash order.'),
  ('audit_heads', 'The last entry of each lane whose partition was dropped: where its chain goes on from.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('audit_insert', 'Writes an entry: the log''s one writer. Refuses what the login and the role in force may not say (42501), another encoding or isolation level (VL002), an unknown chain (VL003), a predecessor in the future (VL004).'),
  ('audit_verify_window', 'The entries of a time window that are wrong, none for a sound one: hash_mismatch, link_broken, seq_gap, duplicate_seq, time_reversed, head_mismatch; without an end also what audit_verify_lanes tells.'),
  ('audit_hash', 'An entry''s hash, made anew from its columns.'),
  ('audit_refuse', 'Trigger: refuses every UPDATE, DELETE and TRUNCATE of the log (VL001).'),
  ('audit_partition_create', 'Makes a month of audit_log; false if it is there.'),
  ('partition_create', 'Makes a month of audit_log or event_log without locking readers or writers out.'),
  ('partitions', 'The partitions there are, with their bounds.'),
  ('migrate_partitions', 'Makes this month and the next three, and gives every partition its guards back.')
) as t(name, what);

select platform.migrate_end();
