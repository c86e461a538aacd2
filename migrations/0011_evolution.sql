-- 0011 Evolution: plans that are carried out step by step, what each table was left as, and the copy that keeps a column and
-- its successor equal while a type changes.

select platform.migrate_column(w.relation, w.name, w.type) from (values
  -- of what is served; wanted_hash is of what is asked for
  ('schema_defs', 'serving_hash', 'text'),
  -- the table's catalogue as provisioning left it, and the server's version that printed it
  ('schema_defs', 'fingerprint', 'text'),
  ('schema_defs', 'fingerprint_version', 'text'),
  -- how many plans were approved; each hash is over it, so that an approval has one effect
  ('schema_defs', 'approvals', 'integer not null default 0'),
  -- when one that waits was last found to be what would be made now
  ('plans', 'looked_at', 'timestamptz'),
  ('plan_steps', 'does', 'text not null default '''''),
  ('plan_steps', 'why', 'text'),
  ('plan_steps', 'needs_approval', 'boolean not null default false'),
  ('plan_steps', 'is_concurrent', 'boolean not null default false'),
  ('plan_steps', 'batched', 'boolean not null default false'),
  -- the field whose values are computed in us: the first statement reads a batch, the second writes it
  ('plan_steps', 'computes', 'text'),
  -- the index that a concurrent step builds
  ('plan_steps', 'object', 'text'),
  ('plan_steps', 'estimate', 'bigint'),
  -- where a step in batches goes on, and how many rows it has done
  ('plan_steps', 'after', 'uuid'),
  ('plan_steps', 'rows_done', 'bigint not null default 0')
) as w(relation, name, type);

-- one plan of a path at a time waits or is carried out
select platform.migrate_relation('plans_open', $ddl$
create unique index plans_open on platform.plans (path) where state in ('Waiting', 'Running')$ddl$);

-- Copies one column into another of another type, before each write: TG_ARGV is from, to and the type. What the type does not
-- hold as it is is not copied, and no error: what is served admits it, and whether it may be rounded is the plan's to say. So an
-- update that leaves the one leaves the other. It runs with the rights of whoever writes and touches nothing but the row.
select platform.migrate_function($ddl$create or replace function platform.evolve_copy() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_value text := to_jsonb(new) ->> tg_argv[0];
begin
  if tg_op = 'UPDATE' and v_value is not distinct from to_jsonb(old) ->> tg_argv[0] then
    return new;
  end if;
  if pg_input_is_valid(v_value, tg_argv[2]) then
    new := jsonb_populate_record(new, jsonb_build_object(tg_argv[1], v_value));
    if (to_jsonb(new) ->> tg_argv[1])::numeric = v_value::numeric then
      return new;
    end if;
  end if;
  return jsonb_populate_record(new, jsonb_build_object(tg_argv[1], null));
end
$fn$;$ddl$);

-- executing is asked of whoever makes the trigger, a domain's owner, and of nobody who writes
select platform.migrate_grants('function', 'evolve_copy', 'velocity_history=execute');

select platform.migrate_comment('function', name, what) from (values
  ('evolve_copy', 'Trigger of a table whose field changes its type: copies the column into its successor before each write.')
) as t(name, what);

select platform.migrate_end();
