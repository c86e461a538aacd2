-- The same in sixteen chains.
\set n random(1, 16)
select platform.audit_insert('bench/bench/d' || :n::int4, 'bench', 'operator.bench', 'ok', 'acme/geo/atlas/city/v1', gen_random_uuid(),
  '{"event":"0198f2a0-0000-7000-8000-000000000000","version":1,"fields":["name","population"]}'::jsonb, null, 'r-bench', null, null);
