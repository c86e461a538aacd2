-- 0006 Anomalies: how far the scanner has read each lane, what it counted, what it found, and who was told.
--
-- The scanner may not read the log: it is the operator's, whom tenants' entries do not concern. It is given functions that
-- answer what a rule counts by (who, what, when, how many) and where entries stand, never a payload, a reason or a ticket.
-- Cursor and counts change in one transaction, so nothing is counted twice and nothing is missed, whenever it is killed.

-- one row: since when entries are counted, and which of those read were not verified yet
select platform.migrate_relation('anomaly_scanner', $ddl$
create table platform.anomaly_scanner (
  singleton boolean primary key default true check (singleton),
  since timestamptz not null,
  unverified_from timestamptz,
  unverified_to timestamptz
)$ddl$);

-- by (chain, lane, seq), so that no late commit is skipped; hash, so that a rewritten or shortened lane is seen
select platform.migrate_relation('anomaly_scan_state', $ddl$
create table platform.anomaly_scan_state (
  chain text not null,
  lane smallint not null,
  seq bigint not null,
  occurred_at timestamptz not null,
  hash bytea,
  primary key (chain, lane)
)$ddl$);

-- what a rule counted in a minute for a group; a window is a sum of these. rule is its name and a digest of it, so that a
-- changed rule begins anew
select platform.migrate_relation('anomaly_buckets', $ddl$
create table platform.anomaly_buckets (
  rule text not null,
  chain text not null,
  actor text not null,
  address text not null,
  minute timestamptz not null,
  count bigint not null,
  primary key (rule, chain, actor, address, minute)
)$ddl$);
select platform.migrate_relation('anomaly_buckets_minute', 'create index anomaly_buckets_minute on platform.anomaly_buckets (minute)');

-- one alert an hour for a rule and a group; '' where the rule does not group by it, and chain platform then
select platform.migrate_relation('anomaly_alerts', $ddl$
create table platform.anomaly_alerts (
  id uuid primary key default gen_random_uuid(),
  webhook_id text not null unique default 'msg_' || replace(gen_random_uuid()::text, '-', ''),
  rule text not null,
  title text not null,
  severity text not null check (severity in ('info', 'warning', 'critical')),
  chain text not null,
  actor text not null default '',
  address text not null default '',
  hour timestamptz not null,
  window_from timestamptz not null,
  window_to timestamptz not null,
  count bigint not null,
  threshold bigint not null,
  explanation jsonb not null default '[]',
  created_at timestamptz not null,
  acknowledged_by text,
  acknowledged_at timestamptz,
  comment text,
  unique (rule, chain, actor, address, hour)
)$ddl$);
select platform.migrate_relation('anomaly_alerts_created', 'create index anomaly_alerts_created on platform.anomaly_alerts (created_at, id)');

-- an alert on its way to an endpoint, since it was told or told anew
select platform.migrate_relation('anomaly_deliveries', $ddl$
create table platform.anomaly_deliveries (
  alert_id uuid not null references platform.anomaly_alerts (id),
  endpoint text not null,
  since timestamptz not null default now(),
  attempts integer not null default 0,
  next_attempt_at timestamptz not null,
  status integer,
  error text,
  delivered_at timestamptz,
  given_up_at timestamptz,
  primary key (alert_id, endpoint)
)$ddl$);
select platform.migrate_relation('anomaly_deliveries_due', 'create index anomaly_deliveries_due on platform.anomaly_deliveries (endpoint, next_attempt_at) where delivered_at is null and given_up_at is null');

-- endpoints that answered 410; url_hash, so that another address under the same name counts again
select platform.migrate_relation('anomaly_endpoints', $ddl$
create table platform.anomaly_endpoints (
  endpoint text primary key,
  url_hash text not null,
  gone_at timestamptz not null
)$ddl$);

-- Moves the cursors over at most p_max new entries and answers what they add up to, by whatever a rule may ask about.
-- p_since is where the first reading of this database begins. A lane's order of seq is its order of commits, so what lies
-- behind a cursor is complete; occurred_at rises with it and keeps older months out of the search.
select platform.migrate_function($ddl$create or replace function platform.anomaly_read(p_since timestamp with time zone, p_max integer) returns TABLE(chain text, actor text, address text, action text, outcome text, minute timestamp with time zone, entries bigint, records bigint) language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_since timestamptz;
  v_left int8 := p_max;
  v_chains text[] := '{}';
  v_lanes int2[] := '{}';
  v_ats timestamptz[] := '{}';
  v_afters int8[] := '{}';
  v_uptos int8[] := '{}';
  v_from timestamptz;
  v_to timestamptz;
  l record;
  n record;
begin
  insert into platform.anomaly_scanner (since) values (p_since) on conflict do nothing;
  -- one reader at a time
  select s.since into v_since from platform.anomaly_scanner s for update;
  -- one look at each lane, in one plan: a loop over those without news would cost ten times as much
  for l in
    select c.chain, c.lane, c.seq, c.at
    from (select d.chain, g.lane::int2 as lane, coalesce(s.seq, 0) as seq, coalesce(s.occurred_at, v_since) as at
          from platform.domains d cross join generate_series(0, 31) as g(lane)
            left join platform.anomaly_scan_state s on s.chain = d.chain and s.lane = g.lane::int2) c
      cross join lateral (select a.seq from platform.audit_log a
        where a.chain = c.chain and a.lane = c.lane and a.seq > c.seq and a.occurred_at > c.at order by a.seq limit 1) news
  loop
    select count(*) as entries, max(q.seq) as upto, min(q.occurred_at) as first, max(q.occurred_at) as last into n
    from (select a.seq, a.occurred_at from platform.audit_log a
          where a.chain = l.chain and a.lane = l.lane and a.seq > l.seq and a.occurred_at > l.at
          order by a.seq limit v_left) q;
    v_chains := v_chains || l.chain;
    v_lanes := v_lanes || l.lane;
    v_ats := v_ats || l.at;
    v_afters := v_afters || l.seq;
    v_uptos := v_uptos || n.upto;
    v_from := least(v_from, n.first);
    v_to := greatest(v_to, n.last);
    v_left := v_left - n.entries;
    exit when v_left <= 0;
  end loop;
  if cardinality(v_chains) = 0 then
    return;
  end if;
  update platform.anomaly_scanner set unverified_from = least(unverified_from, v_from), unverified_to = greatest(unverified_to, v_to);
  -- a seq that is there twice is for the verification to tell; it must not stop the scanner
  insert into platform.anomaly_scan_state as s (chain, lane, seq, occurred_at, hash)
  select distinct on (u.chain, u.lane) u.chain, u.lane, a.seq, a.occurred_at, a.hash
  from unnest(v_chains, v_lanes, v_ats, v_uptos) as u(chain, lane, at, upto)
    join platform.audit_log a on a.chain = u.chain and a.lane = u.lane and a.seq = u.upto and a.occurred_at > u.at
  order by u.chain, u.lane, a.occurred_at desc
  on conflict (chain, lane) do update set seq = excluded.seq, occurred_at = excluded.occurred_at, hash = excluded.hash;
  return query
  select a.chain, a.actor, coalesce(a.payload ->> 'address', ''), a.action, a.outcome, date_trunc('minute', a.occurred_at, 'UTC'), count(*),
    sum(case when a.payload ->> 'count' ~ '^[0-9]{1,9}$' then (a.payload ->> 'count')::int8 else 1 end)::int8
  -- the limit keeps each lane's entries a search by index, whatever the planner thinks of the log
  from unnest(v_chains, v_lanes, v_ats, v_afters, v_uptos) as u(chain, lane, at, after, upto) cross join lateral (
    select l.* from platform.audit_log l
    where l.chain = u.chain and l.lane = u.lane and l.seq > u.after and l.seq <= u.upto and l.occurred_at > u.at
    order by l.seq limit p_max) a
  group by 1, 2, 3, 4, 5, 6;
end
$fn$;$ddl$);

-- Lanes that no longer hold the entry that was read last: tail_missing where it is gone, rewritten where its hash is
-- another. The cursor is set to what is there, so that each is told once and reading goes on.
select platform.migrate_function($ddl$create or replace function platform.anomaly_rewound() returns TABLE(chain text, lane smallint, seq bigint, occurred_at timestamp with time zone, problem text) language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  s record;
  v_seq int8;
  v_hash bytea;
begin
  for s in
    select c.chain, c.lane, c.seq, c.occurred_at, a.hash as found
    from platform.anomaly_scan_state c
      left join platform.audit_log a on a.chain = c.chain and a.lane = c.lane and a.seq = c.seq and a.occurred_at = c.occurred_at
    where c.hash is not null and a.hash is distinct from c.hash and not (a.hash is null and exists (
      -- of a month that was retired
      select from platform.audit_seals z join platform.retirements r on r.name = z.partition
      where r.retired_at is not null and z.chain = c.chain and z.lane = c.lane and c.seq between z.first_seq and z.last_seq
        and (c.seq <> z.last_seq or c.hash = z.last_hash)))
    order by 1, 2
  loop
    chain := s.chain;
    lane := s.lane;
    seq := s.seq;
    occurred_at := s.occurred_at;
    problem := case when s.found is null then 'tail_missing' else 'rewritten' end;
    if s.found is null then
      select a.seq, a.hash into v_seq, v_hash from platform.audit_log a
        where a.chain = s.chain and a.lane = s.lane and a.occurred_at <= s.occurred_at order by a.seq desc limit 1;
      update platform.anomaly_scan_state c set seq = coalesce(v_seq, 0), hash = null where c.chain = s.chain and c.lane = s.lane;
    else
      update platform.anomaly_scan_state c set hash = s.found where c.chain = s.chain and c.lane = s.lane;
    end if;
    return next;
  end loop;
end
$fn$;$ddl$);

-- The newest entries of a window that a rule asks about: where they stand and what they are, not what they say. p_match says
-- which, and what it leaves out narrows nothing: chain, actor and address of a group; actions, chains, actors and exceptActors
-- as patterns of LIKE; outcomes; and spans of time by organisation. All of it is judged before the hundred are taken.
select platform.migrate_function($ddl$create or replace function platform.anomaly_entries(p_from timestamp with time zone, p_to timestamp with time zone, p_match jsonb) returns TABLE(chain text, lane smallint, seq bigint, id uuid, occurred_at timestamp with time zone) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $fn$
declare
  v_chain constant text := p_match ->> 'chain';
  v_actor constant text := p_match ->> 'actor';
  v_address constant text := p_match ->> 'address';
  v_actions constant text[] := case when p_match ? 'actions' then array(select jsonb_array_elements_text(p_match -> 'actions')) end;
  v_outcomes constant text[] := case when p_match ? 'outcomes' then array(select jsonb_array_elements_text(p_match -> 'outcomes')) end;
  v_chains constant text[] := case when p_match ? 'chains' then array(select jsonb_array_elements_text(p_match -> 'chains')) end;
  v_actors constant text[] := case when p_match ? 'actors' then array(select jsonb_array_elements_text(p_match -> 'actors')) end;
  v_except constant text[] := array(select jsonb_array_elements_text(p_match -> 'exceptActors'));
  v_spans constant jsonb := p_match -> 'spans';
begin
  return query
  select a.chain, a.lane, a.seq, a.id, a.occurred_at
  from platform.audit_log a
  where a.occurred_at >= p_from and a.occurred_at < p_to and (v_chain is null or a.chain = v_chain)
    and (v_actor is null or a.actor = v_actor) and (v_address is null or coalesce(a.payload ->> 'address', '') = v_address)
    and (v_actions is null or a.action like any (v_actions)) and (v_outcomes is null or a.outcome = any (v_outcomes))
    and (v_chains is null or a.chain like any (v_chains)) and (v_actors is null or a.actor like any (v_actors))
    and not a.actor like any (v_except)
    and (v_spans is null or exists (
      select from jsonb_to_recordset(v_spans) as s(org text, "from" timestamptz, "to" timestamptz)
      where s.org = split_part(a.chain, '/', 1) and a.occurred_at >= s."from" and a.occurred_at < s."to"))
    and a.action <> 'operator.anomaly'
  order by a.occurred_at desc, a.id desc limit 100;
end
$fn$;$ddl$);

-- The working hours that organisations have told, of the first manifest by name where two claim one organisation.
select platform.migrate_function($ddl$create or replace function platform.working_hours() returns TABLE(org text, hours jsonb) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return query
  select distinct on (r.spec ->> 'org') r.spec ->> 'org', r.spec -> 'workingHours'
  from platform.resource_status r where r.kind = 'Organisation' and r.spec ? 'org'
  order by r.spec ->> 'org', r.namespace, r.name;
end
$fn$;$ddl$);

-- Keeps an alert, what is to be delivered of it, and its entry in the chain that it is about; NULL where the hour has one.
-- What a verification finds is added to the hour's alert, which is told anew under another webhook-id and is open again: a
-- count that goes on rising is one matter, other damage is another. NULL there too where the alert knows all of it, or is
-- full: a hundred are for somebody to look.
-- A chain that takes no entry (its last one is in the future) must not keep the alert back: the platform's takes it.
select platform.migrate_function($ddl$create or replace function platform.anomaly_raise(p_alert jsonb, p_endpoints text[], p_at timestamp with time zone) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_id uuid;
  v_chain constant text := p_alert ->> 'chain';
  v_payload constant jsonb := p_alert - '{title,chain,source,explanation}'::text[];
  v_hour constant timestamptz := date_trunc('hour', (p_alert ->> 'at')::timestamptz, 'UTC');
  v_causes constant jsonb := p_alert -> 'explanation';
  v_known jsonb;
  v_new jsonb;
begin
  insert into platform.anomaly_alerts (rule, title, severity, chain, actor, address, hour, window_from, window_to, count, threshold, explanation, created_at)
  values (p_alert ->> 'rule', p_alert ->> 'title', p_alert ->> 'severity', v_chain, p_alert ->> 'actor', p_alert ->> 'address',
    v_hour, (p_alert ->> 'window_from')::timestamptz, (p_alert ->> 'window_to')::timestamptz,
    (p_alert ->> 'counted')::int8, (p_alert ->> 'threshold')::int8, v_causes, p_at)
  on conflict (rule, chain, actor, address, hour) do nothing
  returning id into v_id;
  if v_id is null then
    if p_alert ->> 'source' is distinct from 'verification' then
      return null;
    end if;
    select a.id, a.explanation into strict v_id, v_known from platform.anomaly_alerts a
      where a.rule = p_alert ->> 'rule' and a.chain = v_chain and a.actor = p_alert ->> 'actor' and a.address = p_alert ->> 'address' and a.hour = v_hour
      for update;
    v_new := (select jsonb_agg(c.cause order by c.place) from jsonb_array_elements(v_causes) with ordinality as c(cause, place)
              where not v_known @> jsonb_build_array(c.cause));
    if v_new is null or jsonb_array_length(v_known) >= 100 then
      return null;
    end if;
    update platform.anomaly_alerts a set webhook_id = default, acknowledged_by = null, acknowledged_at = null, comment = null,
      window_from = least(a.window_from, (p_alert ->> 'window_from')::timestamptz), window_to = greatest(a.window_to, (p_alert ->> 'window_to')::timestamptz),
      count = a.count + (p_alert ->> 'counted')::int8 - jsonb_array_length(v_causes) + jsonb_array_length(v_new),
      explanation = jsonb_path_query_array(v_known || v_new, '$[0 to 99]')
    where a.id = v_id;
  end if;
  insert into platform.anomaly_deliveries (alert_id, endpoint, since, next_attempt_at)
  select v_id, e.endpoint, p_at, p_at from unnest(p_endpoints) as e(endpoint)
  on conflict (alert_id, endpoint) do update set since = excluded.since, next_attempt_at = excluded.next_attempt_at, attempts = 0,
    status = null, error = null, delivered_at = null, given_up_at = null;
  begin
    perform platform.audit_insert(v_chain, 'operator/anomaly', 'operator.anomaly', 'ok', null, v_id, v_payload, null, null, null, null);
  exception when sqlstate 'VL003' or sqlstate 'VL004' then
    perform platform.audit_insert('platform', 'operator/anomaly', 'operator.anomaly', 'ok', null, v_id,
      v_payload || jsonb_build_object('chain', v_chain), null, null, null, null);
  end;
  return v_id;
end
$fn$;$ddl$);

-- Says that somebody has seen an alert, once, with its entry. True the first time, false afterwards, NULL where there is
-- no such alert.
select platform.migrate_function($ddl$create or replace function platform.anomaly_acknowledge(p_id uuid, p_actor text, p_comment text, p_request_id text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_rule text;
  v_chain text;
begin
  update platform.anomaly_alerts set acknowledged_by = p_actor, acknowledged_at = clock_timestamp(), comment = p_comment
  where id = p_id and acknowledged_at is null returning rule, chain into v_rule, v_chain;
  if found then
    perform platform.audit_insert('platform', p_actor, 'platform.acknowledge', 'ok', null, p_id,
      jsonb_build_object('rule', v_rule, 'chain', v_chain), null, p_request_id, p_comment, null);
    return true;
  end if;
  return (select false from platform.anomaly_alerts where id = p_id);
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'anomaly_scanner', 'velocity_operator=select,update');
select platform.migrate_grants('table', 'anomaly_scan_state', 'velocity_operator=select');
select platform.migrate_grants('table', 'anomaly_buckets', 'velocity_operator=select,insert,update,delete');
select platform.migrate_grants('table', 'anomaly_alerts', 'velocity_gateway=select; velocity_operator=select');
select platform.migrate_grants('table', 'anomaly_deliveries', 'velocity_gateway=select; velocity_operator=select,update');
select platform.migrate_grants('table', 'anomaly_endpoints', 'velocity_operator=select,insert,update,delete');
select platform.migrate_grants('function', 'anomaly_read', 'velocity_operator=execute');
select platform.migrate_grants('function', 'anomaly_rewound', 'velocity_operator=execute');
select platform.migrate_grants('function', 'anomaly_entries', 'velocity_operator=execute');
select platform.migrate_grants('function', 'anomaly_raise', 'velocity_operator=execute');
select platform.migrate_grants('function', 'anomaly_acknowledge', 'velocity_gateway=execute');
select platform.migrate_grants('function', 'working_hours', 'velocity_auditor=execute; velocity_operator=execute');

-- the last word: nothing in the schema, ours or not, is for everybody
do $$
declare
  o record;
begin
  for o in
    select format('%s platform.%I', case c.relkind when 'S' then 'sequence' else 'table' end, c.relname) as object
    from pg_class c where c.relnamespace = 'platform'::regnamespace and exists (select from aclexplode(c.relacl) where grantee = 0)
    union all
    select format('function %s', p.oid::regprocedure)
    from pg_proc p where p.pronamespace = 'platform'::regnamespace
      and exists (select from aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) where grantee = 0)
  loop
    perform platform.migrate_as_owner(format('revoke all on %s from public cascade', o.object));
  end loop;
end
$$;

select platform.migrate_comment('table', name, what) from (values
  ('anomaly_scanner', 'One row: since when the anomaly scanner counts, and which entries that it read are still to be verified.'),
  ('anomaly_scan_state', 'How far the anomaly scanner has read each lane, and the hash of the entry it read last.'),
  ('anomaly_buckets', 'What each rule counted, by group and minute: a window is a sum of these. Purged when no window reaches back to them.'),
  ('anomaly_alerts', 'What the scanner found: one alert an hour for a rule and its group, with at most 100 of the entries that caused it.'),
  ('anomaly_deliveries', 'An alert on its way to an endpoint: attempts, the next one, and how it ended.'),
  ('anomaly_endpoints', 'Endpoints that answered 410 and are told nothing more.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('anomaly_read', 'Moves the scanner''s cursors over new entries and answers what they add up to by actor, address, action, outcome and minute: the operator may not read the log itself.'),
  ('anomaly_rewound', 'Lanes that no longer hold the entry that was read last: tail_missing, or rewritten. Sets their cursors to what is there.'),
  ('anomaly_entries', 'Where at most 100 entries of a window stand, the newest: what an alert explains itself with. No payload, reason or ticket.'),
  ('anomaly_raise', 'Keeps an alert with its deliveries and its audit entry; NULL where its hour has one already. What a verification finds later is added to that one, which is told anew.'),
  ('anomaly_acknowledge', 'Says that somebody has seen an alert, with its audit entry: true the first time, false afterwards, NULL for no alert.'),
  ('working_hours', 'The working hours of each organisation, from the last good manifest.')
) as t(name, what);

select platform.migrate_end();
