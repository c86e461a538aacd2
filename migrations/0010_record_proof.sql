-- 0010 The proof of a record: what a reader needs to compute an event's hash from the fields that he sees.
--
-- Salts and hashes of history are nobody's to read; these two functions hand out what a proof shows, within the domain and
-- the definition that the transaction entered. Contents come from the history view, under its row filters.

-- The leaves of an event in the order of their names: of a field that is shown its name and own salt, of the others the
-- hash alone. NULL where there is no such event, or it was erased.
select platform.migrate_function($ddl$create or replace function platform.event_proof(p_entity uuid, p_version integer, p_shown text[]) returns jsonb language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_storage int4;
  v_event record;
begin
  select s.storage_id into v_storage from platform.schema_defs s
  where s.id = (platform.ctx() ->> 'def')::int4 and s.chain = platform.current_chain();
  select e.id, e.op, e.hash, e.salt, e.state into v_event from platform.event_log e
  where e.storage_id = v_storage and e.entity_id = p_entity and e.version = p_version;
  if not found or v_event.state is null or v_event.salt is null then
    return null;
  end if;
  return jsonb_build_object('event', v_event.id, 'hash', encode(v_event.hash, 'hex'), 'storage_id', v_storage, 'op', v_event.op,
    'fields', (select jsonb_agg(case when f.key = any (p_shown)
        then jsonb_build_object('name', f.key, 'salt', encode(sha256(v_event.salt || convert_to(f.key, 'UTF8')), 'hex'))
        else jsonb_build_object('leaf', encode(sha256('\x00'::bytea || sha256(v_event.salt || convert_to(f.key, 'UTF8'))
          || convert_to(f.key, 'UTF8') || '\x00'::bytea || convert_to(f.value::text, 'UTF8')), 'hex')) end order by convert_to(f.key, 'UTF8'))
      from jsonb_each(v_event.state) f));
end
$fn$;$ddl$);

-- The hashes of the events that one entry of a request covers, in the order of its tree: at most 501, of which 500 can be.
select platform.migrate_function($ddl$create or replace function platform.event_batch(p_first uuid, p_last uuid, p_request text) returns TABLE(entity_id uuid, hash bytea) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
begin
  return query
  select e.entity_id, e.hash from platform.event_log e
  where e.storage_id = (select s.storage_id from platform.schema_defs s
                        where s.id = (platform.ctx() ->> 'def')::int4 and s.chain = platform.current_chain())
    and e.entity_id between p_first and p_last and e.version = 1 and e.request_id is not distinct from p_request
  order by e.entity_id limit 501;
end
$fn$;$ddl$);

select platform.migrate_grants('function', 'event_proof', 'velocity_tenant=execute');
select platform.migrate_grants('function', 'event_batch', 'velocity_tenant=execute');

select platform.migrate_comment('function', name, what) from (values
  ('event_proof', 'The leaves of an event: of the fields that are shown name and salt, of the others the hash; NULL where it is gone or erased.'),
  ('event_batch', 'The hashes of the events that one entry of a bulk request covers, in the order of its tree.')
) as t(name, what);

select platform.migrate_end();
