-- The table of plain-insert-four-indexes.sql, in a database of its own on the same server.
create table plain_log (
  chain text not null, lane smallint not null, seq bigint not null, occurred_at timestamptz not null, id uuid not null,
  actor text not null, action text not null, outcome text not null, schema_path text, entity_id uuid, payload jsonb,
  request_id text, reason text, ticket_ref text, fail_modes jsonb, db_login text not null, db_role text not null,
  prev_hash bytea not null, hash bytea not null,
  primary key (id)
);
create index on plain_log (chain, lane, seq);
create index on plain_log (occurred_at);
create index on plain_log (entity_id);
grant insert on plain_log to velocity_operator;
