-- The row alone, into the same table under the same policies and as the same role: no gate, no history, no audit entry.
\set n random(1000000000, 1000000000000)
insert into {{table}} (id, version, created_at, created_by, updated_at, updated_by, geoname_id, name, country, feature_code, population, longitude, latitude)
values (uuidv7(), 1, now(), 'bench', now(), 'bench', :n::int8, 'Bench', :country::uuid, 'PPL', 1000, 12.5, 41.9);
