-- 0014 Faces: versions of one object that show the same rows. The first version owns the table; each later one is a view over
-- it, and says here whose table that is and which column each of its fields is.

do $$
declare
  c record;
begin
  for c in
    select w.name, w.type
    from (values
      -- the definition whose table this one is a view over; NULL where the table is its own
      ('owner_id', 'integer references platform.schema_defs (id)'),
      -- the columns and constraints of the shared rows as this version has them; NULL where the rows are no other version's
      ('face', 'jsonb')
    ) as w(name, type)
    where not exists (
      select from pg_attribute a
      where a.attrelid = (select oid from pg_class where relnamespace = 'platform'::regnamespace and relname = 'schema_defs')
        and a.attname = w.name and not a.attisdropped)
  loop
    perform platform.migrate_as_owner(format('alter table platform.schema_defs add column %I %s', c.name, c.type));
  end loop;
end
$$;

select platform.migrate_end();
