-- 0015 Plan requests: what an API replica asks of the operator, which alone may enter a domain's owner and read its catalogue.
--
-- A request is a row that the gateway makes by a function and the operator answers by another: who may ask cannot answer, and
-- who answers cannot change what was asked. It lives for as long as its request waits, seconds, and is kept by nobody.

-- texts, parsed by whoever reads them: nothing here is asked by what is in them
select platform.migrate_relation('plan_requests', $ddl$
create table platform.plan_requests (
  id uuid primary key default gen_random_uuid(),
  chain text not null,
  actor text not null,
  manifest text not null,
  asked_at timestamptz not null default clock_timestamp(),
  wanted_until timestamptz not null,
  answer text
)$ddl$);

-- Asks for the plan of a definition of a domain, to be answered within p_within milliseconds. VL012 where it makes no sense,
-- VL090 where the actor has 4 open in the domain, or 64 are open in all.
select platform.migrate_function($ddl$create or replace function platform.plan_ask(p_chain text, p_actor text, p_manifest text, p_within integer) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_id uuid;
begin
  if p_chain is null or p_actor is null or length(p_chain) > 1000 or length(p_actor) > 1000
     or p_manifest is null or octet_length(p_manifest) not between 2 and 2097152 or p_within is null or p_within not between 1 and 300000 then
    raise exception 'a plan is asked for with a domain, an actor, a manifest of at most 2 MiB and at most five minutes' using errcode = 'VL012';
  end if;
  -- two that come at once count each other
  perform pg_advisory_xact_lock(hashtextextended('velocity/plan_ask', 0));
  delete from platform.plan_requests where wanted_until < clock_timestamp();
  if (select count(*) from platform.plan_requests) >= 64
     or (select count(*) from platform.plan_requests r where r.chain = p_chain and r.actor = p_actor) >= 4 then
    raise exception 'too many plans are being asked for' using errcode = 'VL090';
  end if;
  insert into platform.plan_requests (chain, actor, manifest, wanted_until)
  values (p_chain, p_actor, p_manifest, clock_timestamp() + make_interval(secs => p_within / 1000.0)) returning id into v_id;
  perform pg_notify('velocity_plan_asked', v_id::text);
  return v_id;
end
$fn$;$ddl$);

-- The answer, with which the request is gone; null where there is none yet. p_end: nobody waits for it any more.
select platform.migrate_function($ddl$create or replace function platform.plan_take(p_id uuid, p_end boolean) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_answer text;
begin
  delete from platform.plan_requests where id = p_id and (answer is not null or p_end) returning answer into v_answer;
  return v_answer;
end
$fn$;$ddl$);

-- Answers a request that still waits; false where it does not. Once: an operator that was overtaken changes no answer.
select platform.migrate_function($ddl$create or replace function platform.plan_answer(p_id uuid, p_answer text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  update platform.plan_requests set answer = p_answer where id = p_id and answer is null and wanted_until > clock_timestamp();
  if found then
    perform pg_notify('velocity_plan_answered', p_id::text);
  end if;
  return found;
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'plan_requests', 'velocity_operator=select');
select platform.migrate_grants('function', 'plan_ask', 'velocity_gateway=execute');
select platform.migrate_grants('function', 'plan_take', 'velocity_gateway=execute');
select platform.migrate_grants('function', 'plan_answer', 'velocity_operator=execute');

select platform.migrate_comment('table', name, what) from (values
  ('plan_requests', 'Definitions whose plan a caller of the API waits for, and what the operator answered; gone when it was taken or nobody waits any more.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('plan_ask', 'Asks the operator for the plan of a definition; VL090 where too many are being asked for.'),
  ('plan_take', 'The answer to a request, which is gone with it; with p_end the request is gone in any case.'),
  ('plan_answer', 'The operator answers a request that still waits; false where it does not.')
) as t(name, what);

select platform.migrate_end();
