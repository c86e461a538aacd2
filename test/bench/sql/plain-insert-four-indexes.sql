-- The audit log's own columns in a table with four indexes and no chain: what an INSERT costs here without audit.
\set n random(1, 2000000000)
insert into plain_log (chain, lane, seq, occurred_at, id, actor, action, outcome, schema_path, entity_id, payload, request_id, db_login, db_role, prev_hash, hash)
values ('acme/geo/atlas', 1, :n::int8, clock_timestamp(), gen_random_uuid(), 'bench', 'operator.bench', 'ok', 'acme/geo/atlas/city/v1',
  gen_random_uuid(), '{"event":"0198f2a0-0000-7000-8000-000000000000","version":1,"fields":["name","population"]}'::jsonb, 'r-bench',
  'velocity_operator', 'none', '\x0000000000000000000000000000000000000000000000000000000000000000', '\x0000000000000000000000000000000000000000000000000000000000000000');
