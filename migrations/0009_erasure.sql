-- 0009 Erasure: the contents of one record leave the database, and what was proved of it stays proved.
--
-- velocity_privacy may call one function and touch no table. The function runs as velocity_owner, who owns history and
-- whom provisioning lets delete from a tenant's table (policy velocity_erase); so nobody whom a login can become holds
-- DELETE on a tenant's table, and no record leaves without its entry.

-- ANALYZE keeps samples of values in pg_statistic, which would outlive their erasure. Nobody plans by these two columns.
do $$
declare
  c record;
begin
  for c in
    select t.relname, a.attname
    from pg_class t join pg_attribute a on a.attrelid = t.oid
    where t.relnamespace = 'platform'::regnamespace and a.attname in ('state', 'salt') and a.attstattarget is distinct from 0
      and (t.relname = 'event_log' or exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent
                                              where i.inhrelid = t.oid and p.relname = 'event_log' and p.relnamespace = t.relnamespace))
    order by 1, 2
  loop
    perform platform.migrate_as_owner(format('alter table only platform.%I alter column %I set statistics 0', c.relname, c.attname));
  end loop;
end
$$;

-- Tables from which a record was erased since their domain's owner last analysed them: of these the operator must
-- gather statistics anew, since velocity_owner may not.
select platform.migrate_relation('erased_tables', $ddl$
create table platform.erased_tables (
  pg_schema text not null,
  pg_table text not null,
  erased_at timestamptz not null,
  primary key (pg_schema, pg_table)
)$ddl$);

select platform.migrate_function($ddl$create or replace function platform.refuse_held(p_chain text) returns void language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  if exists (select from platform.legal_holds h where h.chain = p_chain and h.lifted_at is null) then
    raise exception 'the records of % are held', p_chain using errcode = 'VL083';
  end if;
end
$fn$;$ddl$);

-- Removes a record's contents: its row, the state, salt and changed fields of each of its events, and the answers kept for
-- idempotency keys that name it. Events, hashes and entries stay. The row first: once it is gone no other transaction can
-- add an event, and whoever was changing it has ended.
-- VL080: there is no such record, or nothing of it is left. VL081: its definition demands a ticket. VL082: the operator has
-- not yet provisioned its table for erasure. VL083: a legal hold keeps its domain's records. 23503: live records refer to it.
-- Who copies history elsewhere (a month that retires) must hold the lock velocity/history exclusively from before it reads
-- until it commits; or what is erased meanwhile would come back with the copy.
select platform.migrate_function($ddl$create or replace function platform.erase_record(p_path text, p_entity uuid) returns jsonb language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_ctx constant jsonb := platform.ctx();
  v_reason constant text := v_ctx ->> 'reason';
  v_ticket constant text := v_ctx ->> 'ticket';
  v_def record;
  v_table oid;
  v_rows int4 := 0;
  v_versions int4;
  v_answers int4;
  v_entry uuid;
  v_count int4;
  t record;
begin
  if p_path is null or p_entity is null or v_ctx ->> 'actor' is null or coalesce(btrim(v_reason), '') = '' then
    raise exception 'an erasure is of a record, by an actor, for a reason' using errcode = 'VL012';
  end if;
  -- the row is that of every version that shows it: its table is the first one's, and any of them may demand a ticket
  select s.chain, s.storage_id, s.pg_schema, coalesce(o.pg_table, s.pg_table) as pg_table,
    (select array_agg('/api/' || f.path) from platform.schema_defs f where f.storage_id = s.storage_id) as calls,
    exists (select from platform.schema_defs f where f.storage_id = s.storage_id
            and coalesce(f.serving #> '{audit,requireTicketRef}' ? 'erase', false)) as ticketed
    into v_def from platform.schema_defs s left join platform.schema_defs o on o.id = s.owner_id where s.path = p_path;
  if not found then
    raise exception 'no record type %', p_path using errcode = 'VL080';
  end if;
  if v_def.ticketed and coalesce(btrim(v_ticket), '') = '' then
    raise exception 'erasing a record of % demands a ticket', p_path using errcode = 'VL081';
  end if;
  perform platform.refuse_held(v_def.chain);
  perform pg_advisory_xact_lock_shared(hashtextextended('velocity/history', 0));
  select c.oid into v_table from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where n.nspname = v_def.pg_schema and c.relname = v_def.pg_table;
  if found then
    -- without the policy a DELETE would find nothing, silently
    if not has_schema_privilege(v_def.pg_schema, 'USAGE') or not has_table_privilege(v_table, 'DELETE') or not exists (
      select from pg_policy p where p.polrelid = v_table and p.polname = 'velocity_erase' and 'velocity_owner'::regrole = any (p.polroles)) then
      raise exception '%.% is not provisioned for erasure', v_def.pg_schema, v_def.pg_table using errcode = 'VL082';
    end if;
    execute format('delete from %I.%I where id = $1', v_def.pg_schema, v_def.pg_table) using p_entity;
    get diagnostics v_rows = row_count;
  end if;
  update platform.event_log e set state = null, salt = null, changed = '{}'
  where e.storage_id = v_def.storage_id and e.entity_id = p_entity and (e.state is not null or e.salt is not null);
  get diagnostics v_versions = row_count;
  -- months that were retired and kept
  for t in
    select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'platform_archive' and c.relkind = 'r' and c.relname like 'event\_log\_%' order by 1
  loop
    execute format('update platform_archive.%I set state = null, salt = null, changed = ''{}'' where storage_id = $1 and entity_id = $2 and (state is not null or salt is not null)', t.relname)
      using v_def.storage_id, p_entity;
    get diagnostics v_count = row_count;
    v_versions := v_versions + v_count;
  end loop;
  if v_rows + v_versions = 0 then
    raise exception 'nothing of the record is left' using errcode = 'VL080';
  end if;
  -- the hash of a request is over its body, without salt; of an import only the first and the last id are kept
  delete from platform.idempotency_keys k
  where k.chain = v_def.chain and (k.result -> 'ids' ? p_entity::text or strpos(k.path, p_entity::text) > 0
    or (k.path = any (v_def.calls) and k.result ? 'created'
        and p_entity between (k.result #>> '{ids,0}')::uuid and (k.result #>> '{ids,1}')::uuid));
  get diagnostics v_answers = row_count;
  -- everything that was waited for has come: a hold that came meanwhile undoes it all, and one that comes now waits for us
  lock table platform.legal_holds in share mode;
  perform platform.refuse_held(v_def.chain);
  if v_rows > 0 then
    insert into platform.erased_tables as t (pg_schema, pg_table, erased_at) values (v_def.pg_schema, v_def.pg_table, clock_timestamp())
    on conflict (pg_schema, pg_table) do update set erased_at = excluded.erased_at;
  end if;
  v_entry := platform.audit_insert(v_def.chain, v_ctx ->> 'actor', 'erase', 'ok', p_path, p_entity,
    jsonb_build_object('rows', v_rows, 'versions', v_versions, 'answers', v_answers), null, v_ctx ->> 'request_id', v_reason, v_ticket);
  return jsonb_build_object('id', p_entity, 'entry', v_entry, 'rows', v_rows, 'versions', v_versions, 'answers', v_answers);
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'erased_tables', 'velocity_operator=select,delete');
select platform.migrate_grants('function', 'refuse_held', '');
select platform.migrate_grants('function', 'erase_record', 'velocity_privacy=execute');

select platform.migrate_comment('table', name, what) from (values
  ('erased_tables', 'Tables from which a record was erased and whose statistics the operator has still to gather anew.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('refuse_held', 'Raises VL083 where a legal hold keeps the records of a chain.'),
  ('erase_record', 'Removes the contents of one record (row, history, kept answers) and leaves the entry of it, in one transaction; VL080 nothing there, VL081 a ticket is demanded, VL082 the table is not provisioned for it, VL083 a legal hold keeps it.')
) as t(name, what);

select platform.migrate_end();
