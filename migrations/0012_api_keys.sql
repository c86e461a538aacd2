-- 0012 API keys: what minting, rotation and revocation must know of a key beside its hash. Keys are never deleted: which key
-- was whose, from when and until when, is asked long after.

select platform.migrate_column('api_keys', w.name, w.type) from (values
  -- counts the keys of one resource, and so names their Secrets
  ('serial', 'integer not null default 1'),
  -- the Secret, or without a cluster the file, that the key was put into
  ('secret_name', 'text'),
  -- what velocity.sh/rotate said when the key was minted
  ('rotation', 'text'),
  -- of a key that was rotated out: when it ends
  ('retires_at', 'timestamptz'),
  -- its resource is gone: one of the same name begins anew
  ('departed', 'boolean not null default false'),
  ('created_at', 'timestamptz not null default now()')
) as w(name, type);

-- one key of a resource is in force, and one at most is being minted: two operators cannot mint two
select platform.migrate_relation('api_keys_active', $ddl$
create unique index api_keys_active on platform.api_keys (source, namespace, name) where state = 'Active'$ddl$);
select platform.migrate_relation('api_keys_pending', $ddl$
create unique index api_keys_pending on platform.api_keys (source, namespace, name) where state = 'Pending'$ddl$);

select platform.migrate_end();
