-- 0014 Faces: versions of one object that show the same rows. The first version owns the table; each later one is a view over
-- it, and says here whose table that is and which column each of its fields is.

select platform.migrate_column('schema_defs', w.name, w.type) from (values
  -- the definition whose table this one is a view over; NULL where the table is its own
  ('owner_id', 'integer references platform.schema_defs (id)'),
  -- the columns and constraints of the shared rows as this version has them; NULL where the rows are no other version's
  ('face', 'jsonb')
) as w(name, type);

select platform.migrate_end();
