-- The same in one round trip.
\startpipeline
begin;
select set_config('role', :role, true), set_config('velocity.ctx', :ctx, true);
{{read}};
commit;
\endpipeline
