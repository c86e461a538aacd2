-- A read as the API sends it, each statement in a round trip of its own.
begin;
select set_config('role', :role, true), set_config('velocity.ctx', :ctx, true);
{{read}};
commit;
