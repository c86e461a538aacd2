-- 0007 Evidence: the tree over the log, its checkpoints, and what keeps both from being anything else (audit.md).
--
-- The tree is RFC 6962's, one a database, its leaves the hashes of the log's entries. Nobody hands hashes in:
-- audit_seal_append takes them from the log itself, so a second sealer, or one with a defect, cannot put in a leaf that
-- is no entry, leave one out, or fork the tree. What it is handed is the size it believes in, and that must be so.

-- one row a run: the leaves index … index + count - 1 are the entries seq … seq + count - 1 of a lane. The times are the
-- run's first and last, so that its entries are looked for in their own months alone.
select platform.migrate_relation('audit_leaves', $ddl$
create table platform.audit_leaves (
  index bigint primary key check (index >= 0),
  chain text not null,
  lane smallint not null,
  seq bigint not null,
  count integer not null check (count > 0),
  first_at timestamptz not null,
  last_at timestamptz not null,
  unique (chain, lane, seq)
)$ddl$);

-- C2SP tlog-tiles: up to 256 hashes; those of level 0 are leaves, a full tile is one hash of the level above. Hashes do
-- not compress, so no time is spent on trying.
select platform.migrate_relation('audit_tiles', $ddl$
create table platform.audit_tiles (
  level smallint not null check (level between 0 and 7),
  index bigint not null check (index >= 0),
  hashes bytea storage external not null check (length(hashes) between 32 and 8192 and length(hashes) % 32 = 0),
  primary key (level, index)
)$ddl$);

-- an epoch is a life of the log between two restores; its first checkpoint says what it was restored from
select platform.migrate_relation('audit_checkpoints', $ddl$
create table platform.audit_checkpoints (
  epoch integer not null check (epoch > 0),
  size bigint not null check (size >= 0),
  origin text not null,
  root bytea not null check (length(root) = 32),
  note text not null,
  cosignatures text not null default '',
  created_at timestamptz not null default now(),
  published_at timestamptz,
  primary key (epoch, size)
)$ddl$);

select platform.migrate_relation('audit_checkpoints_origin', 'create index audit_checkpoints_origin on platform.audit_checkpoints (origin, size)');
select platform.migrate_relation('audit_checkpoints_published', 'create index audit_checkpoints_published on platform.audit_checkpoints (epoch, size) where published_at is not null');

-- what a partition held, lane by lane, kept when it goes; size is a checkpoint that covers it
select platform.migrate_relation('audit_seals', $ddl$
create table platform.audit_seals (
  partition text not null,
  chain text not null,
  lane smallint not null,
  first_seq bigint not null,
  first_hash bytea not null,
  last_seq bigint not null,
  last_hash bytea not null,
  last_at timestamptz not null,
  size bigint not null,
  sealed_at timestamptz not null default now(),
  primary key (partition, chain, lane)
)$ddl$);
select platform.migrate_relation('audit_seals_lane', 'create index audit_seals_lane on platform.audit_seals (chain, lane, last_seq)');

-- Evidence only grows, for whoever has the privilege too: a tile by hashes behind those it has, a checkpoint by signature
-- lines, of the log's other key and of witnesses, and the time of its publication.
select platform.migrate_function($ddl$create or replace function platform.evidence_guard() returns trigger language plpgsql set search_path = pg_catalog, pg_temp as $fn$
begin
  if tg_op = 'UPDATE' then
    if tg_table_name = 'audit_tiles' then
      if new.level = old.level and new.index = old.index and length(new.hashes) > length(old.hashes)
        and substr(new.hashes, 1, length(old.hashes)) = old.hashes then
        return new;
      end if;
    elsif tg_table_name = 'audit_checkpoints' then
      if (new.epoch, new.size, new.origin, new.root, new.created_at) = (old.epoch, old.size, old.origin, old.root, old.created_at)
        and starts_with(new.note, old.note) and substr(new.note, length(old.note) + 1) ~ E'^(?:— [^[:space:]+]+ (?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?\n)*$'
        and starts_with(new.cosignatures, old.cosignatures)
        and (old.published_at is null or new.published_at = old.published_at) then
        return new;
      end if;
    end if;
  end if;
  raise exception '% is append-only', tg_table_name using errcode = 'VL001';
end
$fn$;$ddl$);

select platform.migrate_triggers(name, array[
  format('CREATE TRIGGER refuse_row BEFORE DELETE OR UPDATE ON platform.%I FOR EACH ROW EXECUTE FUNCTION platform.evidence_guard()', name),
  format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON platform.%I FOR EACH STATEMENT EXECUTE FUNCTION platform.evidence_guard()', name)
]) from unnest(array['audit_leaves', 'audit_tiles', 'audit_checkpoints', 'audit_seals']) as t(name);

-- Eight levels up: the heads over every 256 hashes, side by side; an odd last one is handed up (RFC 6962, 2.1).
select platform.migrate_function($ddl$create or replace function platform.audit_fold(p_hashes bytea) returns bytea language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_hashes bytea := p_hashes;
  v_count int4;
begin
  for i in 1 .. 8 loop
    v_count := length(v_hashes) / 32;
    exit when v_count < 2;
    select string_agg(case when 2 * k + 1 < v_count then sha256('\x01'::bytea || substr(v_hashes, k * 64 + 1, 64)) else substr(v_hashes, k * 64 + 1, 32) end, ''::bytea order by k)
      into v_hashes from generate_series(0, (v_count - 1) / 2) as k;
  end loop;
  return v_hashes;
end
$fn$;$ddl$);

-- the head over any number of hashes; over none it is SHA-256 of nothing
select platform.migrate_function($ddl$create or replace function platform.audit_head(p_hashes bytea) returns bytea language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
declare
  v_hashes bytea := p_hashes;
begin
  if length(v_hashes) = 0 then
    return sha256(''::bytea);
  end if;
  while length(v_hashes) > 32 loop
    v_hashes := platform.audit_fold(v_hashes);
  end loop;
  return v_hashes;
end
$fn$;$ddl$);

select platform.migrate_function($ddl$create or replace function platform.audit_tree_size() returns bigint language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  return coalesce((select l.index + l.count from platform.audit_leaves l order by l.index desc limit 1), 0);
end
$fn$;$ddl$);

-- The head of the tree's first p_size leaves, from the partial tiles of their right edge: at each level what is there, and
-- the head of what is below. NULL where a tile is not as long as that needs.
select platform.migrate_function($ddl$create or replace function platform.audit_root_at(p_size bigint) returns bytea language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_count int8 := p_size;
  v_level int4 := 0;
  v_edge bytea;
  v_below bytea := ''::bytea;
begin
  while v_count > 0 loop
    if v_count % 256 > 0 then
      select substr(t.hashes, 1, (v_count % 256 * 32)::int4) into v_edge from platform.audit_tiles t where t.level = v_level and t.index = v_count / 256;
      if v_edge is null or length(v_edge) <> v_count % 256 * 32 then
        return null;
      end if;
      v_below := platform.audit_head(v_edge || v_below);
    end if;
    v_count := v_count / 256;
    v_level := v_level + 1;
  end loop;
  return platform.audit_head(v_below);
end
$fn$;$ddl$);

select platform.migrate_function($ddl$create or replace function platform.audit_tree_root() returns bytea language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_size constant int8 := platform.audit_tree_size();
  v_root constant bytea := platform.audit_root_at(v_size);
begin
  if v_root is null then
    raise exception 'a tile is not as long as the tree of % leaves needs it', v_size using errcode = 'VL041';
  end if;
  return v_root;
end
$fn$;$ddl$);

-- the leaf that an entry is; NULL where the tree has none
select platform.migrate_function($ddl$create or replace function platform.audit_leaf(p_chain text, p_lane smallint, p_seq bigint) returns bytea language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_index int8;
begin
  select l.index + p_seq - l.seq into v_index from platform.audit_leaves l
    where l.chain = p_chain and l.lane = p_lane and l.seq <= p_seq and p_seq < l.seq + l.count order by l.seq desc limit 1;
  return (select nullif(substr(t.hashes, (v_index % 256)::int4 * 32 + 1, 32), ''::bytea) from platform.audit_tiles t where t.level = 0 and t.index = v_index / 256);
end
$fn$;$ddl$);

-- Appends up to p_limit entries that are not in the tree yet, of all lanes in (chain, lane, seq) order, beginning with
-- p_chain and p_lane, and answers where it stopped for want of room: NULL when every lane was seen to its end.
--
-- VL040: the tree has not the size the caller believes it has: somebody else appended. VL041: a tile is not as it must be.
-- A lane is looked at behind its last leaf, however late its next entry was committed, and taken as far as it goes on
-- without a gap; one that does not is named in `broken` and waits, and no other waits for it.
select platform.migrate_function($ddl$create or replace function platform.audit_seal_append(p_size bigint, p_limit integer, p_chain text, p_lane smallint) returns TABLE(size bigint, taken integer, chain text, lane smallint, broken jsonb) language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_size int8;
  v_hashes bytea := ''::bytea;
  v_level int2 := 0;
  v_before int4;
  v_tile bytea;
  l record;
  r record;
begin
  if p_limit is null or p_limit not between 1 and 100000 then
    raise exception 'a limit of % entries', p_limit using errcode = 'VL012';
  end if;
  perform pg_advisory_xact_lock(hashtextextended('velocity/seal', 0));
  v_size := platform.audit_tree_size();
  if v_size is distinct from p_size then
    raise exception 'the tree has % leaves and not %', v_size, p_size using errcode = 'VL040', detail = v_size::text;
  end if;
  taken := 0;
  broken := '[]';
  for l in
    select d.chain, n.lane::int2 as lane, b.next, b.after, f.seq
    from platform.domains d cross join generate_series(0, 31) as n(lane)
    left join lateral (
      select a.seq + a.count as next, a.last_at as after from platform.audit_leaves a
      where a.chain = d.chain and a.lane = n.lane order by a.seq desc limit 1) e on true
    left join platform.audit_heads h on e.next is null and h.chain = d.chain and h.lane = n.lane
    cross join lateral (values (coalesce(e.next, h.seq + 1, 1), coalesce(e.after, h.occurred_at, '-infinity'))) as b(next, after)
    cross join lateral (
      select a.seq from platform.audit_log a
      where a.chain = d.chain and a.lane = n.lane and a.seq >= b.next and a.occurred_at > b.after order by a.seq limit 1) f
    where (d.chain, n.lane) >= (coalesce(p_chain, ''), coalesce(p_lane, 0))
    order by d.chain, n.lane
  loop
    if taken >= p_limit then
      chain := l.chain;
      lane := l.lane;
      exit;
    end if;
    select count(*)::int4 as count, min(s.occurred_at) as first_at, max(s.occurred_at) as last_at, string_agg(s.hash, ''::bytea order by s.seq) as hashes
      into r
      from (
        select e.*, bool_and(e.seq = l.next + e.n - 1) over (order by e.n) as sound
        from (
          select a.seq, a.occurred_at, a.hash, row_number() over (order by a.seq, a.occurred_at) as n
          from (
            select o.seq, o.occurred_at, o.hash from platform.audit_log o
            where o.chain = l.chain and o.lane = l.lane and o.seq >= l.next and o.occurred_at > l.after
            order by o.seq, o.occurred_at limit p_limit - taken + 1) a) e) s
      where s.sound and s.n <= p_limit - taken;
    if r.count > 0 then
      if length(r.hashes) <> r.count * 32 then
        raise exception 'a hash of %, lane %, has not 32 bytes', l.chain, l.lane using errcode = 'VL041';
      end if;
      insert into platform.audit_leaves values (v_size + taken, l.chain, l.lane, l.next, r.count, r.first_at, r.last_at);
      v_hashes := v_hashes || r.hashes;
      taken := taken + r.count;
    end if;
    if exists (
      select from platform.audit_log o where o.chain = l.chain and o.lane = l.lane and o.seq >= l.next + r.count
        and o.occurred_at > coalesce(r.last_at, l.after)) then
      if taken >= p_limit then
        chain := l.chain;
        lane := l.lane;
        exit;
      end if;
      -- what is there does not follow; an entry that was committed since does, and is taken next time
      if not exists (select from platform.audit_log o where o.chain = l.chain and o.lane = l.lane and o.seq = l.next + r.count
                     and o.occurred_at > coalesce(r.last_at, l.after)) then
        broken := broken || jsonb_build_object('chain', l.chain, 'lane', l.lane, 'seq', l.next + r.count);
      end if;
    end if;
  end loop;
  size := v_size + taken;
  -- the tiles, level by level: what the last one holds, and behind it what is new
  while length(v_hashes) > 0 loop
    v_before := v_size % 256;
    if v_before > 0 then
      select t.hashes into v_tile from platform.audit_tiles t where t.level = v_level and t.index = v_size / 256;
      if v_tile is null or length(v_tile) <> v_before * 32 then
        raise exception 'tile % of level % is not as long as the tree needs it', v_size / 256, v_level using errcode = 'VL041';
      end if;
      v_hashes := v_tile || v_hashes;
    end if;
    insert into platform.audit_tiles as t (level, index, hashes)
      select v_level, v_size / 256 + k, substr(v_hashes, k * 8192 + 1, 8192) from generate_series(0, (length(v_hashes) - 1) / 8192) as k
      on conflict on constraint audit_tiles_pkey do update set hashes = excluded.hashes;
    v_hashes := case when length(v_hashes) < 8192 then ''::bytea else platform.audit_fold(substr(v_hashes, 1, length(v_hashes) / 8192 * 8192)) end;
    v_size := v_size / 256;
    v_level := v_level + 1;
  end loop;
  return next;
end
$fn$;$ddl$);

-- Of signature lines those whose key (name and id) has none in p_has: the first of each, p_most of both together. A witness
-- signs the time with the checkpoint, so each time that it is asked the line is another one and says no more; a note of
-- more than a hundred could not be read (SignedNote.ts).
select platform.migrate_function($ddl$create or replace function platform.audit_signatures_new(p_has text, p_lines text, p_most integer) returns text language plpgsql immutable set search_path = pg_catalog, pg_temp as $fn$
begin
  return (
    with line as (
      select l.n, l.line, split_part(l.line, ' ', 2) as name, substr(decode(split_part(l.line, ' ', 3), 'base64'), 1, 4) as key
      from unnest(string_to_array(p_has || p_lines, E'\n')) with ordinality as l(line, n)
      where l.line ~ '^— [^[:space:][:cntrl:]+]+ (?:[A-Za-z0-9+/]{4})+(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$' and length(l.line) <= 8192
    ), first as (
      select distinct on (i.name, i.key) i.n, i.line from line i order by i.name, i.key, i.n
    )
    select coalesce(string_agg(f.line || E'\n', '' order by f.n), '')
    from (select o.n, o.line, row_number() over (order by o.n) as nth from first o) f
    where f.n >= cardinality(string_to_array(p_has || 'x', E'\n')) and f.nth <= p_most);
end
$fn$;$ddl$);

-- Keeps a signed checkpoint of the tree as it is now. What is signed must be what is stored: size and head are computed
-- here, and the note must begin with them. An epoch goes on with its origin; a new one is the next, and says in its first
-- checkpoint what it was restored from. To one that is there it adds the lines of keys that had not signed it, 16 at most
-- with those that had, since keys may change while nothing is written; false if there are none.
select platform.migrate_function($ddl$create or replace function platform.audit_checkpoint_add(p_epoch integer, p_size bigint, p_origin text, p_root bytea, p_note text) returns boolean language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_last platform.audit_checkpoints;
  v_lines text;
begin
  perform pg_advisory_xact_lock(hashtextextended('velocity/seal', 0));
  if p_size is distinct from platform.audit_tree_size() or p_root is distinct from platform.audit_tree_root() then
    raise exception 'the tree is not the one of % leaves that was signed', p_size
      using errcode = 'VL040', detail = platform.audit_tree_size()::text;
  end if;
  if not starts_with(p_note, format(E'%s\n%s\n%s\n', p_origin, p_size, encode(p_root, 'base64'))) then
    raise exception 'the note is of another checkpoint' using errcode = 'VL012';
  end if;
  select * into v_last from platform.audit_checkpoints c order by c.epoch desc, c.size desc limit 1;
  if p_epoch = v_last.epoch and p_size = v_last.size then
    v_lines := platform.audit_signatures_new(split_part(v_last.note, E'\n\n', 2), split_part(p_note, E'\n\n', 2), 16);
    if v_lines = '' or split_part(v_last.note, E'\n\n', 1) is distinct from split_part(p_note, E'\n\n', 1) then
      return false;
    end if;
    update platform.audit_checkpoints c set note = c.note || v_lines where c.epoch = v_last.epoch and c.size = v_last.size;
    return true;
  end if;
  if p_epoch is distinct from coalesce(v_last.epoch, 1) then
    if p_epoch is null or p_epoch < coalesce(v_last.epoch, 1) or p_note !~ E'^[^\n]+\n[^\n]+\n[^\n]+\nrestored [^\n ]+ \\d+ [^\n ]+ [^\n]+\n\n' then
      raise exception 'epoch % does not follow %', p_epoch, coalesce(v_last.epoch, 1) using errcode = 'VL042';
    end if;
    if exists (select from platform.audit_checkpoints c where c.origin = p_origin) then
      raise exception 'a new epoch needs an origin of its own, and % is taken', p_origin using errcode = 'VL042';
    end if;
  elsif v_last.origin is distinct from coalesce(p_origin, '') and v_last.origin is not null then
    raise exception 'the origin of epoch % is %, not %', p_epoch, v_last.origin, p_origin using errcode = 'VL042';
  end if;
  insert into platform.audit_checkpoints (epoch, size, origin, root, note) values (p_epoch, p_size, p_origin, p_root, p_note);
  return true;
end
$fn$;$ddl$);

-- a checkpoint was put into the folder of publication
select platform.migrate_function($ddl$create or replace function platform.audit_checkpoint_published(p_epoch integer, p_size bigint) returns void language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
begin
  update platform.audit_checkpoints set published_at = now() where epoch = p_epoch and size = p_size and published_at is null;
end
$fn$;$ddl$);

-- Adds the lines of witnesses to those that a checkpoint has, one for a key and 32 in all, and answers what it has then.
select platform.migrate_function($ddl$create or replace function platform.audit_checkpoint_cosigned(p_epoch integer, p_size bigint, p_lines text) returns text language plpgsql security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_has text;
  v_new text;
begin
  select c.cosignatures into v_has from platform.audit_checkpoints c where c.epoch = p_epoch and c.size = p_size for update;
  v_new := platform.audit_signatures_new(v_has, p_lines, 32);
  if v_new <> '' then
    update platform.audit_checkpoints set cosignatures = cosignatures || v_new where epoch = p_epoch and size = p_size;
  end if;
  return v_has || v_new;
end
$fn$;$ddl$);

-- Retired months and what vouches for them. A seal's digest is over the month's seals and over the digest and the end of
-- the month before it (seal_digest), so the entry of the newest seal vouches for all of them, whichever months have taken the older
-- entries with them; it has to be a leaf. What became of the newest month its own entry says.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_seals() returns TABLE(lane smallint, seq bigint, occurred_at timestamp with time zone, wanted bytea, computed bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set plan_cache_mode = force_custom_plan as $fn$
#variable_conflict use_column
declare
  v_sealed text;
  v_retired text;
  v_entry platform.audit_log;
  v_leaf bytea;
  m record;
begin
  select max(r.name) filter (where r.sealed_at is not null), max(r.name) filter (where r.retired_at is not null)
    into v_sealed, v_retired from platform.retirements r where r.parent = 'audit_log';
  for m in
    select r.*, platform.seal_digest(r.name) as computed from platform.retirements r where r.parent = 'audit_log' order by r.name
  loop
    lane := m.seal_lane;
    seq := m.seal_seq;
    occurred_at := m.sealed_at;
    wanted := m.digest;
    computed := m.computed;
    if m.digest is distinct from m.computed then
      note := format('the seals of %s are not what their digest is over', m.name);
      return next;
    end if;
    if m.name = v_sealed then
      select a.* into v_entry from platform.audit_log a where a.chain = 'platform' and a.lane = m.seal_lane and a.seq = m.seal_seq order by a.occurred_at limit 1;
      v_leaf := platform.audit_leaf('platform', m.seal_lane, m.seal_seq);
      if (v_entry.action = 'operator.partition.seal' and v_entry.payload ->> 'partition' = m.name and v_entry.payload ->> 'digest' = encode(m.digest, 'hex')
          and v_entry.hash = platform.audit_hash(v_entry) and (v_leaf = v_entry.hash or (v_leaf is null and m.retired_at is null))) is not true then
        note := format('no sealed entry of the log says that %s was sealed so', m.name);
        return next;
      end if;
    end if;
    if m.name = v_retired and not exists (
        select from platform.audit_log a where a.occurred_at >= m.retired_at and a.occurred_at < m.retired_at + interval '1 day' and a.chain = 'platform'
          and a.action = 'operator.partition.retire' and a.payload ->> 'partition' = m.name and a.payload ->> 'disposition' = m.disposition
          and a.payload ->> 'digest' = encode(m.digest, 'hex') and a.hash = platform.audit_hash(a)) then
      note := format('no entry of the log says that %s was retired so', m.name);
      return next;
    end if;
  end loop;
  return query
    select null::int2, null::int8, null::timestamptz, null::bytea, null::bytea, format('%s has seals, and was never sealed', s.partition)
    from (select distinct q.partition from platform.audit_seals q) s
    where not exists (select from platform.retirements r where r.name = s.partition and r.sealed_at is not null) order by s.partition;
end
$fn$;$ddl$);

-- What is to be checked of a lane as a whole, by a few looks at each. `tail_missing`: a lane ends before its last leaf, where no
-- retired month was sealed with that; of lanes that break off before p_to (NULL: of all). `head_mismatch`: where the next
-- entry goes on from is not the last entry that was sealed. `seal_mismatch`: seals that excuse what is gone, and for which
-- no entry of the log vouches.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_lanes(p_to timestamp with time zone) returns TABLE(chain text, lane smallint, seq bigint, index bigint, occurred_at timestamp with time zone, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
begin
  return query
    with recursive lanes as (
      (select a.chain, a.lane from platform.audit_leaves a order by a.chain, a.lane limit 1)
      union all
      select n.chain, n.lane from lanes l cross join lateral (
        select a.chain, a.lane from platform.audit_leaves a where (a.chain, a.lane) > (l.chain, l.lane) order by a.chain, a.lane limit 1) n
    ), ends as (
      select l.chain, l.lane, e.last, e.index, e.last_at
      from lanes l cross join lateral (
        select a.seq + a.count - 1 as last, a.index + a.count - 1 as index, a.last_at from platform.audit_leaves a
        where a.chain = l.chain and a.lane = l.lane order by a.seq desc limit 1) e
      -- the limits keep it one look at each lane, whatever the planner thinks of the log
      left join lateral (
        select o.seq from platform.audit_log o
        where o.chain = l.chain and o.lane = l.lane and o.seq >= e.last and o.occurred_at >= e.last_at order by o.seq limit 1) o on true
      where o.seq is null
        and not exists (
          select from platform.audit_seals s join platform.retirements r on r.name = s.partition
          where r.retired_at is not null and s.chain = l.chain and s.lane = l.lane and s.last_seq >= e.last and s.first_seq <= e.last)
    )
    select e.chain, e.lane, e.last, e.index, e.last_at, 'tail_missing', null::bytea, null::bytea, null::text
    from ends e
    where p_to is null or (
      -- the run in which it breaks off
      select a.first_at from platform.audit_leaves a where a.chain = e.chain and a.lane = e.lane and a.seq <= 1 + greatest(
        (select o.seq from platform.audit_log o where o.chain = e.chain and o.lane = e.lane order by o.seq desc limit 1),
        (select s.last_seq from platform.audit_seals s where s.chain = e.chain and s.lane = e.lane order by s.last_seq desc limit 1), 0)
      order by a.seq desc limit 1) < p_to
    order by e.chain, e.lane;
  return query
    select coalesce(h.chain, s.chain), coalesce(h.lane, s.lane), coalesce(h.seq, s.last_seq), null::int8, coalesce(h.occurred_at, s.last_at),
      'head_mismatch', s.last_hash, h.hash, null::text
    from platform.audit_heads h
    full join (
      select distinct on (q.chain, q.lane) q.chain, q.lane, q.last_seq, q.last_hash, q.last_at
      from platform.audit_seals q join platform.retirements r on r.name = q.partition
      where r.retired_at is not null order by q.chain, q.lane, q.last_seq desc) s on s.chain = h.chain and s.lane = h.lane
    where (h.seq, h.hash, h.occurred_at) is distinct from (s.last_seq, s.last_hash, s.last_at)
    order by 1, 2;
  return query
    select 'platform', v.lane, v.seq, null::int8, v.occurred_at, 'seal_mismatch', v.wanted, v.computed, v.note from platform.audit_verify_seals() v;
end
$fn$;$ddl$);

-- A retired month: what it was sealed with are leaves; one that was kept is there, with as many entries as it had. That
-- each of those is its leaf is seen slice by slice, as of the log.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_retired(p_partition text) returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_sealed int8;
  v_kept int8;
begin
  return query
    select s.chain, s.lane, b.seq, null::int8, 'seal_mismatch', l.hash, b.hash, format('%s was not sealed with this', p_partition)
    from platform.audit_seals s
    cross join lateral (values (s.first_seq, s.first_hash), (s.last_seq, s.last_hash)) as b(seq, hash)
    cross join lateral platform.audit_leaf(s.chain, s.lane, b.seq) as l(hash)
    where s.partition = p_partition and l.hash is distinct from b.hash
    order by s.chain, s.lane, b.seq;
  if not exists (select from platform.retirements r where r.name = p_partition and r.disposition = 'keep') then
    return;
  end if;
  if to_regclass(format('platform_archive.%I', p_partition)) is null then
    note := format('%s was kept, and is gone', p_partition);
  else
    v_sealed := (select coalesce(sum(s.last_seq - s.first_seq + 1), 0) from platform.audit_seals s where s.partition = p_partition);
    execute format('select count(*) from platform_archive.%I', p_partition) into v_kept;
    if v_sealed = v_kept then
      return;
    end if;
    note := format('%s was kept with %s entries, and has %s', p_partition, v_sealed, v_kept);
  end if;
  problem := 'seal_mismatch';
  return next;
end
$fn$;$ddl$);

-- The leaves p_from … p_to - 1 (both multiples of 256) against each other, against the entries that they are, and against
-- the hashes over them. `rewritten`: an entry's hash is not its leaf. `seq_gap`: a sealed entry is gone from the middle; at a lane's
-- end audit_verify_lanes tells it. `tree_broken`: the tree does not agree with itself. Entries of months that were dropped are known by
-- their leaves alone; those of months that were kept are looked for there, and their hashes made anew, which
-- audit_verify_window does for the log.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_leaves(p_from bigint, p_to bigint) returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp set work_mem = 65536 as $fn$
#variable_conflict use_column
declare
  v_first constant int8 := coalesce((select max(b.index) from platform.audit_leaves b where b.index <= p_from), p_from);
  v_kept text[];
  v_entries text;
begin
  -- runs follow each other, in the tree and in their lanes
  return query
    select r.chain, r.lane, r.seq, r.index, 'tree_broken', null::bytea, null::bytea, null::text
    from platform.audit_leaves r
    left join lateral (
      select b.index + b.count as index from platform.audit_leaves b where b.index < r.index order by b.index desc limit 1) t on true
    left join lateral (
      select b.seq + b.count as seq from platform.audit_leaves b where b.chain = r.chain and b.lane = r.lane and b.seq < r.seq order by b.seq desc limit 1) n on true
    where r.index >= p_from and r.index < p_to and (r.index <> coalesce(t.index, 0) or r.seq <> coalesce(n.seq, r.seq))
    order by r.index;
  select array_agg(r.name), string_agg(format($q$
      union all
      select r.index + o.seq - r.seq, o.hash, platform.audit_hash(row(o.*)::platform.audit_log)
      from run r join platform_archive.%I o on o.chain = r.chain and o.lane = r.lane and o.seq >= r.seq + r.low - r.index
        and o.seq < r.seq + r.high - r.index and o.occurred_at >= r.first_at and o.occurred_at <= r.last_at$q$, r.name), '')
    into v_kept, v_entries
    from platform.retirements r
    where r.parent = 'audit_log' and r.disposition = 'keep' and to_regclass(format('platform_archive.%I', r.name)) is not null
      and exists (
        select from platform.audit_leaves a where a.index >= v_first and a.index < p_to and a.first_at < r."to" and a.last_at >= r."from");
  return query execute format($q$
    with run as materialized (
      select a.*, greatest(a.index, $1) as low, least(a.index + a.count, $2) as high
      from platform.audit_leaves a where a.index >= $3 and a.index < $2
    ), expected as (
      select i as index, r.chain, r.lane, r.seq + i - r.index as seq from run r cross join lateral generate_series(r.low, r.high - 1) as i
    ), tile as materialized (
      -- in one piece, so that it is fetched once
      select t.index, t.hashes || ''::bytea as hashes from platform.audit_tiles t
      where t.level = 0 and t.index >= $1 / 256 and t.index < $2 / 256
    ), leaf as materialized (
      -- by itself, so that what is sorted is the hash and not its tile
      select t.index * 256 + k as index, substr(t.hashes, k * 32 + 1, 32) as hash
      from tile t cross join lateral generate_series(0, length(t.hashes) / 32 - 1) as k
    ), entry as (
      select r.index + o.seq - r.seq as index, o.hash, o.hash as computed
      from run r join platform.audit_log o on o.chain = r.chain and o.lane = r.lane and o.seq >= r.seq + r.low - r.index
        and o.seq < r.seq + r.high - r.index and o.occurred_at >= r.first_at and o.occurred_at <= r.last_at%s
    ), place as (
      select coalesce(l.index, x.index) as index, x.chain, x.lane, x.seq, l.hash as leaf, e.hash as entry, e.computed
      from leaf l full join expected x on x.index = l.index left join entry e on e.index = coalesce(l.index, x.index)
      where l.hash is null or x.chain is null or l.hash is distinct from e.hash or e.computed <> e.hash
    ), told as (
      select p.*, case when p.leaf is null or p.chain is null then 'tree_broken' when p.entry is null then 'seq_gap' else 'rewritten' end as problem
      from place p
    )
    select t.chain, t.lane, t.seq, t.index, t.problem, t.leaf, case when t.entry = t.leaf then t.computed else t.entry end, null::text
    from told t
    left join lateral (
      -- what has no entry may be of a month that was retired
      select s.partition, r.retired_at is not null and r.name <> all ($4) as gone
      from platform.audit_seals s left join platform.retirements r on r.name = s.partition
      where t.problem = 'seq_gap' and s.chain = t.chain and s.lane = t.lane and s.last_seq >= t.seq and s.first_seq <= t.seq
      order by s.last_seq limit 1) z on true
    where t.problem <> 'seq_gap' or (z.gone is not true and (z.partition is not null
      or exists (select from platform.audit_log o where o.chain = t.chain and o.lane = t.lane and o.seq > t.seq)))
    order by t.index$q$, v_entries) using p_from, p_to, v_first, coalesce(v_kept, '{}');
  -- the hashes over full tiles
  return query
    select null::text, null::int2, null::int8, f.index * 256, 'tree_broken', substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32), f.head, null::text
    from (
      select t.index, platform.audit_fold(t.hashes) as head from platform.audit_tiles t
      where t.level = 0 and t.index >= p_from / 256 and t.index < p_to / 256 and length(t.hashes) = 8192) f
    left join platform.audit_tiles u on u.level = 1 and u.index = f.index / 256
    where substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32) is distinct from f.head
    order by f.index;
end
$fn$;$ddl$);

-- the levels above
select platform.migrate_function($ddl$create or replace function platform.audit_verify_nodes() returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
begin
  return query
    select null::text, null::int2, null::int8, f.index * (256::int8 ^ (f.level + 1))::int8, 'tree_broken', substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32), f.head, null::text
    from (
      select t.level, t.index, platform.audit_fold(t.hashes) as head from platform.audit_tiles t where t.level > 0 and length(t.hashes) = 8192) f
    left join platform.audit_tiles u on u.level = f.level + 1 and u.index = f.index / 256
    where substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32) is distinct from f.head
    order by f.level, f.index;
end
$fn$;$ddl$);

-- The tree against a checkpoint from outside; without one, against the newest there is. The head is that of the tiles, which
-- the slices and audit_verify_nodes find to be over the leaves. `tail_missing`: the checkpoint is past the tree.
-- `rewritten`: the tree's head is another. `unknown_origin`: it is of no epoch of this log. `restored`: it lies in a gap that a
-- restore note accounts for, by the sizes that the note itself says (a column is not signed), and the tree has what was
-- restored: the head that the note was signed with. Whether the log's key signed the note is for the reader to see.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_outside(p_origin text, p_size bigint, p_root bytea) returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_tree constant int8 := platform.audit_tree_size();
  v_index int8 := p_size;
  v_wanted bytea := p_root;
  v_found bytea;
  f record;
begin
  if p_size is null then
    select c.size, c.root into v_index, v_wanted from platform.audit_checkpoints c order by c.epoch desc, c.size desc limit 1;
  end if;
  v_found := case when v_index <= v_tree then platform.audit_root_at(v_index) end;
  if v_index is null or v_found = v_wanted then
    return;
  end if;
  for f in
    select n.note, m.said[2]::int8 as size, m.said[3] as root
    from generate_series(2, (select max(c.epoch) from platform.audit_checkpoints c)) as e(epoch)
    cross join lateral (select c.note from platform.audit_checkpoints c where c.epoch = e.epoch order by c.size limit 1) n
    cross join lateral regexp_match(n.note, E'^([^\n]+)\n(\\d{1,16})\n([A-Za-z0-9+/]{43}=)\nrestored ([^\n ]+) (\\d{1,16}) ') as m(said)
    where m.said[4] = p_origin and p_size > m.said[2]::int8 and p_size <= m.said[5]::int8
    order by e.epoch desc
  loop
    v_index := f.size;
    v_wanted := decode(f.root, 'base64');
    v_found := case when f.size <= v_tree then platform.audit_root_at(f.size) end;
    if v_found = v_wanted then
      return query select null::text, null::int2, null::int8, p_size, 'restored', p_root, null::bytea, f.note;
      return;
    end if;
    -- what was restored is not what is there
  end loop;
  if p_origin is not null and not exists (select from platform.audit_checkpoints c where c.origin = p_origin) then
    return query select null::text, null::int2, null::int8, v_index, 'unknown_origin', v_wanted, null::bytea, null::text;
    return;
  end if;
  return query select null::text, null::int2, null::int8, v_index, case when v_index > v_tree then 'tail_missing' else 'rewritten' end, v_wanted, v_found, null::text;
end
$fn$;$ddl$);

-- All of it in one statement; no rows when it is sound. Larger trees are verified slice by slice (VerifyTree.ts).
select platform.migrate_function($ddl$create or replace function platform.audit_verify_tree(p_origin text, p_size bigint, p_root bytea) returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_tree constant int8 := platform.audit_tree_size();
  v_step constant int8 := 65536;
  v_from int8 := 0;
begin
  return query select l.chain, l.lane, l.seq, l.index, l.problem, l.wanted, l.found, l.note from platform.audit_verify_lanes(null) l;
  return query
    select v.* from platform.retirements r cross join lateral platform.audit_verify_retired(r.name) v
    where r.parent = 'audit_log' and r.retired_at is not null order by r.name;
  while v_from < v_tree loop
    return query select * from platform.audit_verify_leaves(v_from, v_from + v_step);
    v_from := v_from + v_step;
  end loop;
  return query select * from platform.audit_verify_nodes();
  return query select * from platform.audit_verify_outside(p_origin, p_size, p_root);
end
$fn$;$ddl$);

select platform.migrate_grants('table', 'audit_leaves', 'velocity_auditor=select; velocity_sealer=select');
select platform.migrate_grants('table', 'audit_tiles', 'velocity_auditor=select; velocity_sealer=select');
select platform.migrate_grants('table', 'audit_checkpoints', 'velocity_auditor=select; velocity_sealer=select');
select platform.migrate_grants('table', 'audit_seals', 'velocity_auditor=select');
select platform.migrate_grants('function', 'evidence_guard', '');
select platform.migrate_grants('function', 'audit_fold', '');
select platform.migrate_grants('function', 'audit_head', '');
select platform.migrate_grants('function', 'audit_tree_size', 'velocity_auditor=execute; velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_tree_root', 'velocity_sealer=execute');
select platform.migrate_grants('function', name, '')
from unnest(array['audit_root_at', 'audit_leaf', 'audit_verify_seals']) as t(name);
select platform.migrate_grants('function', 'audit_seal_append', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_checkpoint_add', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_signatures_new', '');
select platform.migrate_grants('function', 'audit_checkpoint_published', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_checkpoint_cosigned', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_verify_lanes', 'velocity_auditor=execute; velocity_operator=execute');
select platform.migrate_grants('function', name, 'velocity_auditor=execute')
from unnest(array['audit_verify_retired', 'audit_verify_leaves', 'audit_verify_nodes', 'audit_verify_outside', 'audit_verify_tree']) as t(name);

select platform.migrate_comment('table', name, what) from (values
  ('audit_leaves', 'The leaves of the tree, a run a row: which entries of which lane they are.'),
  ('audit_tiles', 'The hashes of the tree, in C2SP tiles of 256: level 0 are the leaves, a full tile is one hash of the level above.'),
  ('audit_checkpoints', 'Signed heads of the tree (C2SP tlog-checkpoint), with the cosignatures of witnesses. An epoch begins when the log is restored.'),
  ('audit_seals', 'What a partition of the log held, lane by lane, kept when it goes.')
) as t(name, what);
select platform.migrate_comment('function', name, what) from (values
  ('evidence_guard', 'Trigger: refuses every change of evidence but its growth (VL001): a tile''s hashes behind those it has, a checkpoint''s signature lines and the time of its publication.'),
  ('audit_fold', 'The RFC 6962 heads over every 256 hashes, side by side.'),
  ('audit_head', 'The RFC 6962 head over any number of hashes.'),
  ('audit_tree_size', 'How many leaves the tree has.'),
  ('audit_root_at', 'The head of the tree''s first leaves, from their right edge; NULL if a tile is not as long as it must be.'),
  ('audit_tree_root', 'The head of the tree, from its right edge; VL041 if a tile is not as long as it must be.'),
  ('audit_leaf', 'The leaf that an entry is.'),
  ('audit_seal_append', 'Appends entries that are not in the tree yet, taken from the log itself: the tree''s one writer. VL040 if the tree has not the size the caller believes, VL041 if a tile is not as it must be.'),
  ('audit_checkpoint_add', 'Keeps a signed checkpoint of the tree as it is, or adds signatures to the one that is there; false if it has them. VL040 if another tree was signed, VL042 if its epoch or origin does not follow.'),
  ('audit_signatures_new', 'Of signature lines the first of each key that has none yet.'),
  ('audit_checkpoint_published', 'Says that a checkpoint was put into the folder of publication.'),
  ('audit_checkpoint_cosigned', 'Adds the signature lines of witnesses to a checkpoint, one for a key, and answers what it has.'),
  ('audit_verify_seals', 'Retired months whose seals are not what their entries in the log say: seal_mismatch.'),
  ('audit_verify_lanes', 'Lanes that do not end where the tree or a retired month says: tail_missing, head_mismatch; and seals that nothing vouches for: seal_mismatch.'),
  ('audit_verify_retired', 'A retired month: seals whose hashes are no leaves, and a kept month that has not the entries it was sealed with: seal_mismatch.'),
  ('audit_verify_leaves', 'A slice of the tree against the log and the kept months: rewritten, seq_gap, tree_broken.'),
  ('audit_verify_nodes', 'The tree''s upper levels: tree_broken.'),
  ('audit_verify_outside', 'The tree against a checkpoint from outside: tail_missing, rewritten, unknown_origin; and restored, which a restore note accounts for.'),
  ('audit_verify_tree', 'Everything that is wrong between log, retired months, tree and a checkpoint from outside, in one statement.')
) as t(name, what);

select platform.migrate_end();
