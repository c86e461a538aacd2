-- A create as the API sends it (row, history row and audit entry), each statement in a round trip of its own.
\set n random(1000000000, 1000000000000)
begin;
select set_config('role', :role, true), set_config('velocity.ctx', :ctx, true);
{{create}};
{{audit}};
commit;
