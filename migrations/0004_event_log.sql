-- 0004 History: one row for each change of a record, and what ties it to the audit log.
--
-- Domain roles may insert and not read: they read through a view per record type that holds its row filters. One policy to
-- read and one to insert, both by domain: a policy per definition would sit in every backend's relation cache.

select platform.migrate_relation('event_log', $ddl$
create table platform.event_log (
  id uuid not null,
  chain text not null,
  storage_id integer not null,
  def_id integer not null,
  entity_id uuid not null,
  version integer not null,
  op text not null,
  occurred_at timestamptz not null,
  actor text not null,
  request_id text,
  changed text[] not null default '{}',
  state jsonb,
  salt bytea,
  hash bytea not null,
  primary key (id, occurred_at)
) partition by range (occurred_at)$ddl$);
select platform.migrate_relation('event_log_entity', 'create index event_log_entity on platform.event_log (storage_id, entity_id, version desc)');

select platform.migrate_policies('event_log', array[
  ['history', 'select', 'velocity_history', '(chain = ( SELECT platform.current_chain() AS current_chain))', null],
  ['append', 'insert', 'velocity_tenant', null, '(chain = ( SELECT platform.current_chain() AS current_chain))']
]);
select platform.migrate_triggers('event_log', '{}');

select platform.migrate_function($ddl$create or replace function platform.event_partition_create(p_from date) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return platform.partition_create('event_log', p_from);
end
$fn$;$ddl$);

-- The hash of an event, over a hash for each field with a salt of its own, so that one field can be shown and the others
-- not; erasing contents and salt leaves it as it is. p_head is {storage_id}/{entity_id}/{version}/{op}.
select platform.migrate_function($ddl$create or replace function platform.event_hash(p_salt bytea, p_head text, p_state jsonb) returns bytea language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_leaves bytea;
begin
  select string_agg(sha256('\x00'::bytea || sha256(p_salt || f.name) || f.name || '\x00'::bytea || convert_to(f.value, 'UTF8')), ''::bytea order by f.name)
  into v_leaves
  from (select convert_to(key, 'UTF8') as name, value::text as value from jsonb_each(p_state)) f;
  return sha256('\x01'::bytea || sha256(convert_to(p_head, 'UTF8')) || coalesce(v_leaves, ''::bytea));
end
$fn$;$ddl$);

-- RFC 6962's tree over these leaves' data: pairs of a level are joined, and an odd last node goes up as it is, which gives
-- the same root as splitting at the largest power of two
select platform.migrate_function($ddl$create or replace function platform.merkle_root(p_leaves bytea[]) returns bytea language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_level bytea[];
begin
  if coalesce(cardinality(p_leaves), 0) = 0 then
    return sha256(''::bytea);
  end if;
  select array_agg(sha256('\x00'::bytea || leaf) order by n) into v_level from unnest(p_leaves) with ordinality as t(leaf, n);
  while cardinality(v_level) > 1 loop
    select array_agg(case when v_level[i + 1] is null then v_level[i] else sha256('\x01'::bytea || v_level[i] || v_level[i + 1]) end order by i)
    into v_level
    from generate_series(1, cardinality(v_level), 2) as i;
  end loop;
  return v_level[1];
end
$fn$;$ddl$);

-- The entry of one act, by the event that this transaction wrote of it: NULL and no entry if it wrote none.
select platform.migrate_function($ddl$create or replace function platform.audit_event(p_entity uuid, p_event uuid) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ctx constant jsonb := platform.ctx();
  v_def record;
  v_event record;
begin
  select s.path, s.chain, s.storage_id into v_def from platform.schema_defs s where s.id = (v_ctx ->> 'def')::int4;
  -- within a day of now, which is one partition or two; a row whose clock was ahead is looked for everywhere
  select e.id, e.hash, e.version, e.changed into v_event from platform.event_log e
  where e.storage_id = v_def.storage_id and e.entity_id = p_entity and e.occurred_at >= now() and e.occurred_at < now() + interval '1 day'
  order by e.version desc limit 1;
  if v_event.id is distinct from p_event then
    select e.id, e.hash, e.version, e.changed into v_event from platform.event_log e
    where e.storage_id = v_def.storage_id and e.entity_id = p_entity and e.occurred_at >= now() and e.id = p_event;
    if not found then
      return null;
    end if;
  end if;
  return platform.audit_insert(v_def.chain, v_ctx ->> 'actor', v_ctx ->> 'op', 'ok', v_def.path, p_entity,
    jsonb_build_object('event', v_event.id, 'hash', encode(v_event.hash, 'hex'), 'version', v_event.version, 'fields', v_event.changed),
    null, v_ctx ->> 'request_id', v_ctx ->> 'reason', v_ctx ->> 'ticket');
end
$fn$;$ddl$);

-- One entry for at most 500 records that this transaction created. Each must have its event, so that the entry says no more
-- than was done.
select platform.migrate_function($ddl$create or replace function platform.audit_events(p_entities uuid[]) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ctx constant jsonb := platform.ctx();
  v_def record;
  v_hashes bytea[];
  v_ids uuid[];
begin
  if coalesce(cardinality(p_entities), 0) = 0 then
    return null;
  end if;
  if cardinality(p_entities) > 500 then
    raise exception 'an entry covers at most 500 records, not %', cardinality(p_entities) using errcode = 'VL012';
  end if;
  select s.path, s.chain, s.storage_id into v_def from platform.schema_defs s where s.id = (v_ctx ->> 'def')::int4;
  select array_agg(e.hash order by e.entity_id), array_agg(e.entity_id order by e.entity_id) into v_hashes, v_ids
  from platform.event_log e
  where e.storage_id = v_def.storage_id and e.entity_id = any (p_entities) and e.version = 1 and e.occurred_at >= now();
  if cardinality(v_ids) is distinct from cardinality(p_entities) then
    raise exception '% of % records have an event of this transaction', coalesce(cardinality(v_ids), 0), cardinality(p_entities) using errcode = 'VL012';
  end if;
  return platform.audit_insert(v_def.chain, v_ctx ->> 'actor', v_ctx ->> 'op', 'ok', v_def.path, null,
    jsonb_build_object('count', cardinality(v_ids), 'first_id', v_ids[1], 'last_id', v_ids[cardinality(v_ids)],
                       'root', encode(platform.merkle_root(v_hashes), 'hex')),
    null, v_ctx ->> 'request_id', v_ctx ->> 'reason', v_ctx ->> 'ticket');
end
$fn$;$ddl$);

-- The entry of an act that changes nothing, where a definition asks for that (audit.reads).
select platform.migrate_function($ddl$create or replace function platform.audit_act(p_entity uuid, p_action text, p_payload jsonb) returns uuid language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ctx constant jsonb := platform.ctx();
  v_def record;
begin
  select s.path, s.chain into v_def from platform.schema_defs s where s.id = (v_ctx ->> 'def')::int4;
  return platform.audit_insert(v_def.chain, v_ctx ->> 'actor', p_action, 'ok', v_def.path, p_entity, p_payload, null,
    v_ctx ->> 'request_id', v_ctx ->> 'reason', v_ctx ->> 'ticket');
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'event_log', 'velocity_tenant=insert; velocity_history=select');
select platform.migrate_grants('function', 'event_partition_create', 'velocity_operator=execute');
select platform.migrate_grants('function', 'event_hash', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'merkle_root', 'velocity_tenant=execute; velocity_auditor=execute');
select platform.migrate_grants('function', 'audit_event', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'audit_events', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'audit_act', 'velocity_tenant=execute');

select platform.migrate_partitions('event_log');

select platform.migrate_comment('table', name, what) from (values
  ('event_log', 'History: one row for each change of a record, with its state. Domain roles insert; they read through the history view of the record type.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('event_partition_create', 'Makes a month of event_log; false if it is there.'),
  ('event_hash', 'The hash of an event, over a salted hash for each field.'),
  ('merkle_root', 'The root of RFC 6962s tree over these leaves.'),
  ('audit_event', 'Writes the entry of an act, by the event this transaction wrote of it; NULL and no entry if it wrote none.'),
  ('audit_events', 'Writes one entry for at most 500 records that this transaction created, with the root over their events.'),
  ('audit_act', 'Writes the entry of an act that changes nothing, where a definition asks for it.')
) as t(name, what);

select platform.migrate_end();
