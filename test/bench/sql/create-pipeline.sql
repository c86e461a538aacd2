-- The same in one round trip.
\set n random(1000000000, 1000000000000)
\startpipeline
begin;
select set_config('role', :role, true), set_config('velocity.ctx', :ctx, true);
{{create}};
{{audit}};
commit;
\endpipeline
