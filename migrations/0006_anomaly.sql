-- 0006 Anomalies: how far the scanner has read each lane, and what it found.

-- by (chain, lane, seq), so that no late commit is skipped
select platform.migrate_relation('anomaly_scan_state', $ddl$
create table platform.anomaly_scan_state (
  chain text not null,
  lane smallint not null,
  seq bigint not null,
  updated_at timestamptz not null default now(),
  primary key (chain, lane)
)$ddl$);

-- one alert an hour for a rule, a chain and an actor
select platform.migrate_relation('anomaly_alerts', $ddl$
create table platform.anomaly_alerts (
  id uuid primary key default gen_random_uuid(),
  rule text not null,
  chain text not null,
  actor text not null default '',
  hour timestamptz not null,
  count integer not null default 1,
  details jsonb not null default '{}',
  delivered_at timestamptz,
  attempts integer not null default 0,
  created_at timestamptz not null default now(),
  unique (rule, chain, actor, hour)
)$ddl$);
select platform.migrate_relation('anomaly_alerts_undelivered', 'create index anomaly_alerts_undelivered on platform.anomaly_alerts (created_at) where delivered_at is null');

select platform.migrate_grants('table', 'anomaly_scan_state', 'velocity_operator=select,insert,update');
select platform.migrate_grants('table', 'anomaly_alerts', 'velocity_gateway=select; velocity_operator=select,insert,update');

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
  ('anomaly_scan_state', 'How far the anomaly scanner has read each lane.'),
  ('anomaly_alerts', 'What the scanner found: one alert an hour for a rule, a chain and an actor.')
) as t(name, what);

select platform.migrate_end();
