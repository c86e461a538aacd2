-- 0013 Serving: which API replicas are alive, and what each has acknowledged to serve.
--
-- A replica that took a definition in, compiled it and ran its statements as the domain's roles says so here; the operator
-- reads it for the condition Serving, and before it takes away what a definition that is deleted served. Calling these two
-- functions is the only privilege that velocity_api holds by itself; they write these two tables and nothing else.

select platform.migrate_relation('replicas', $ddl$
create table platform.replicas (
  replica text primary key,
  started_at timestamptz not null default now(),
  seen_at timestamptz not null default now(),
  complete boolean not null default false
)$ddl$);

-- not held to schema_defs by a foreign key, which would lock a row that the operator writes
select platform.migrate_relation('replica_acks', $ddl$
create table platform.replica_acks (
  def_id integer not null,
  replica text not null references platform.replicas (replica) on delete cascade,
  generation bigint not null,
  problem text,
  primary key (def_id, replica)
)$ddl$);
select platform.migrate_relation('replica_acks_replica', 'create index replica_acks_replica on platform.replica_acks (replica)');

-- Says that a replica is alive, and what it found of one generation of a definition; called for many in one statement, each
-- replica has one row that is written once in it. Without a definition it is the heartbeat: everything that is served has
-- been said. False where the replica was not known: it was forgotten, and says everything again. The operator is notified
-- where its conditions may change by it, which an acknowledgement of a replica that does not count yet cannot.
select platform.migrate_function($ddl$create or replace function platform.registry_ack(p_replica text, p_definition integer, p_generation bigint, p_problem text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_known boolean;
  v_complete boolean;
  v_before record;
  v_path text;
begin
  if p_replica !~ '^[!-~]{1,253}$' then
    raise exception 'a replica is named by 1 to 253 characters without spaces' using errcode = 'VL012';
  end if;
  select complete into v_complete from platform.replicas where replica = p_replica;
  v_known := found;
  if not v_known then
    insert into platform.replicas (replica) values (p_replica) on conflict do nothing;
  elsif p_definition is null and not v_complete then
    update platform.replicas set seen_at = now(), complete = true where replica = p_replica;
    perform pg_notify('velocity_serving', 'replicas');
  else
    update platform.replicas set seen_at = now() where replica = p_replica and seen_at < now();
  end if;
  if p_definition is null then
    return v_known;
  end if;
  select s.path into v_path from platform.schema_defs s where s.id = p_definition;
  if v_path is null or p_generation is null then
    return v_known;
  end if;
  select a.generation, a.problem into v_before from platform.replica_acks a where a.def_id = p_definition and a.replica = p_replica;
  if found and v_before.generation = p_generation and v_before.problem is not distinct from left(p_problem, 1000) then
    return v_known;
  end if;
  insert into platform.replica_acks as a (def_id, replica, generation, problem) values (p_definition, p_replica, p_generation, left(p_problem, 1000))
  on conflict (def_id, replica) do update set generation = excluded.generation, problem = excluded.problem;
  if p_problem is not null or v_before.problem is not null or coalesce(v_complete, false)
     or not exists (select from platform.replicas r where r.complete and r.seen_at > now() - interval '90 seconds') then
    perform pg_notify('velocity_serving', v_path);
  end if;
  return v_known;
end
$fn$;$ddl$);

-- a replica that stops, and is counted no more
select platform.migrate_function($ddl$create or replace function platform.registry_leave(p_replica text) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  delete from platform.replicas where replica = p_replica;
  if found then
    perform pg_notify('velocity_serving', 'replicas');
  end if;
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'replicas', 'velocity_operator=select,delete');
select platform.migrate_grants('table', 'replica_acks', 'velocity_operator=select');
select platform.migrate_grants('function', 'registry_ack', 'velocity_api=execute');
select platform.migrate_grants('function', 'registry_leave', 'velocity_api=execute');

select platform.migrate_comment('table', name, what) from (values
  ('replicas', 'The API replicas, by when each was last heard of; one that was not for 90 seconds is dead. A complete one has said of everything that is served what it found.'),
  ('replica_acks', 'Of each definition the generation that a replica compiled and ran as the domain''s roles, or what kept it from that.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('registry_ack', 'An API replica acknowledges one generation of a definition, or tells what is wrong with it; without a definition its heartbeat. False where it was not known, and must say everything again.'),
  ('registry_leave', 'An API replica stops: it is counted no more.')
) as t(name, what);

-- what becomes of the records of a definition whose serving has ended: its domain's policy when that began
select platform.migrate_column('schema_defs', 'deletion_policy', $$text check (deletion_policy in ('Retain', 'Delete'))$$);

select platform.migrate_end();
