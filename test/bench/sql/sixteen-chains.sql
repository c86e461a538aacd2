-- Sixteen domains to write entries to; as velocity_operator.
insert into platform.domains (chain, pg_schema) select 'bench/bench/d' || n, 'bench_bench_d' || n from generate_series(1, 16) n on conflict do nothing;
