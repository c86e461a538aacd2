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

-- the tree's head, from the partial tiles of its right edge: at each level what is there, and the head of what is below
select platform.migrate_function($ddl$create or replace function platform.audit_tree_root() returns bytea language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
declare
  v_count int8 := platform.audit_tree_size();
  v_level int4 := 0;
  v_edge bytea;
  v_below bytea := ''::bytea;
begin
  while v_count > 0 loop
    if v_count % 256 > 0 then
      select t.hashes into v_edge from platform.audit_tiles t where t.level = v_level and t.index = v_count / 256;
      if v_edge is null or length(v_edge) <> v_count % 256 * 32 then
        raise exception 'tile % of level % is not as long as the tree needs it', v_count / 256, v_level using errcode = 'VL041';
      end if;
      v_below := platform.audit_head(v_edge || v_below);
    end if;
    v_count := v_count / 256;
    v_level := v_level + 1;
  end loop;
  return platform.audit_head(v_below);
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

-- Log and tree against each other, and the tree against an outside checkpoint; without one, against the newest there is.
-- No rows when all of it is sound. `tail_missing`: what was sealed last of a lane is past its last entry, or the outside
-- checkpoint is past the tree. `rewritten`: an entry's hash is not its leaf, or the tree's head, computed anew from its
-- leaves, is not the outside checkpoint's. `seq_gap`: a sealed entry is gone from the middle. `tree_broken`: the tree does
-- not agree with itself. `restored`: the outside checkpoint lies in a gap that a restore note accounts for.
-- `unknown_origin`: it is of no epoch of this log. Entries of dropped partitions are known by their leaves alone.
select platform.migrate_function($ddl$create or replace function platform.audit_verify_tree(p_origin text, p_size bigint, p_root bytea) returns TABLE(chain text, lane smallint, seq bigint, index bigint, problem text, wanted bytea, found bytea, note text) language plpgsql stable security definer set search_path = pg_catalog, pg_temp as $fn$
#variable_conflict use_column
declare
  v_tree constant int8 := platform.audit_tree_size();
  v_size int8 := p_size;
  v_root bytea := p_root;
  v_heads bytea := ''::bytea;
  v_note text;
  v_step constant int8 := 65536;
  v_from int8 := 0;
begin
  if v_size is null then
    select c.size, c.root into v_size, v_root from platform.audit_checkpoints c order by c.epoch desc, c.size desc limit 1;
  end if;
  -- runs follow each other, in the tree and in their lanes
  return query
    select r.chain, r.lane, r.seq, r.index, 'tree_broken', null::bytea, null::bytea, null::text
    from (
      select a.*, lag(a.index + a.count) over (order by a.index) as wanted_index, lag(a.seq + a.count) over (partition by a.chain, a.lane order by a.seq) as wanted_seq
      from platform.audit_leaves a) r
    where r.index <> coalesce(r.wanted_index, 0) or r.seq <> coalesce(r.wanted_seq, r.seq)
    order by r.index;
  -- lanes end where their leaves do, or later
  return query
    select s.chain, s.lane, s.last, s.index, 'tail_missing', null::bytea, null::bytea, null::text
    from (
      select distinct on (a.chain, a.lane) a.chain, a.lane, a.seq + a.count - 1 as last, a.index + a.count - 1 as index
      from platform.audit_leaves a order by a.chain, a.lane, a.seq desc) s
    left join platform.audit_heads h on h.chain = s.chain and h.lane = s.lane
    where not exists (select from platform.audit_log o where o.chain = s.chain and o.lane = s.lane and o.seq >= s.last)
      and coalesce(h.seq, 0) < s.last
    order by s.chain, s.lane;
  while v_from < v_tree loop
    -- entries and their leaves
    return query
      with run as materialized (
        select a.*, greatest(a.index, v_from) as low, least(a.index + a.count, v_from + v_step) as high
        from platform.audit_leaves a
        where a.index >= (select max(b.index) from platform.audit_leaves b where b.index <= v_from) and a.index < v_from + v_step
      ), tile as materialized (
        -- in one piece, so that it is fetched once
        select t.index, t.hashes || ''::bytea as hashes from platform.audit_tiles t
        where t.level = 0 and t.index >= v_from / 256 and t.index < (v_from + v_step) / 256
      ), leaf as (
        select t.index * 256 + k as index, substr(t.hashes, k * 32 + 1, 32) as hash
        from tile t cross join lateral generate_series(0, length(t.hashes) / 32 - 1) as k
      ), entry as (
        select r.index + o.seq - r.seq as index, o.hash
        from run r join platform.audit_log o on o.chain = r.chain and o.lane = r.lane and o.seq >= r.seq + r.low - r.index
          and o.seq < r.seq + r.high - r.index and o.occurred_at >= r.first_at and o.occurred_at <= r.last_at
      ), place as (
        select coalesce(l.index, e.index) as index, l.hash as leaf, e.hash as entry from leaf l full join entry e on e.index = l.index
        where l.hash is distinct from e.hash
      )
      select r.chain, r.lane, r.seq + p.index - r.index, p.index,
        case when p.leaf is null or r.index is null then 'tree_broken' when p.entry is null then 'seq_gap' else 'rewritten' end, p.leaf, p.entry, null::text
      from place p
      left join run r on p.index >= r.low and p.index < r.high
      left join platform.audit_heads h on h.chain = r.chain and h.lane = r.lane
      where not (p.entry is null and r.index is not null and (r.seq + p.index - r.index <= coalesce(h.seq, 0)
        -- a tail, or a whole lane, was told above
        or not exists (select from platform.audit_log o where o.chain = r.chain and o.lane = r.lane and o.seq > r.seq + p.index - r.index)))
      order by p.index;
    -- tiles and the hashes over them
    return query
      select null::text, null::int2, null::int8, f.index * 256, 'tree_broken', substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32), f.head, null::text
      from (
        select t.index, platform.audit_fold(t.hashes) as head from platform.audit_tiles t
        where t.level = 0 and t.index >= v_from / 256 and t.index < (v_from + v_step) / 256 and length(t.hashes) = 8192) f
      left join platform.audit_tiles u on u.level = 1 and u.index = f.index / 256
      where substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32) is distinct from f.head
      order by f.index;
    if v_from < v_size then
      v_heads := v_heads || coalesce((
        select string_agg(platform.audit_fold(substr(t.hashes, 1, least(8192, (v_size - t.index * 256) * 32)::int4)), ''::bytea order by t.index)
        from platform.audit_tiles t
        where t.level = 0 and t.index >= v_from / 256 and t.index < (v_from + v_step) / 256 and t.index * 256 < v_size), ''::bytea);
    end if;
    v_from := v_from + v_step;
  end loop;
  -- the levels above
  return query
    select null::text, null::int2, null::int8, f.index * (256::int8 ^ (f.level + 1))::int8, 'tree_broken', substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32), f.head, null::text
    from (
      select t.level, t.index, platform.audit_fold(t.hashes) as head from platform.audit_tiles t where t.level > 0 and length(t.hashes) = 8192) f
    left join platform.audit_tiles u on u.level = f.level + 1 and u.index = f.index / 256
    where substr(u.hashes, (f.index % 256)::int4 * 32 + 1, 32) is distinct from f.head
    order by f.level, f.index;
  if v_size is null then
    return;
  end if;
  -- the outside checkpoint
  if v_size > v_tree or platform.audit_head(v_heads) is distinct from v_root then
    -- the first checkpoints of later epochs say what was restored, to which size, and what was lost by it; whether the
    -- log's key signed that is for the reader to see
    select f.note into v_note
    from generate_series(2, (select max(c.epoch) from platform.audit_checkpoints c)) as e(n)
    cross join lateral (select c.size, c.note from platform.audit_checkpoints c where c.epoch = e.n order by c.size limit 1) f
    cross join lateral regexp_match(f.note, E'\nrestored ([^\n ]+) (\\d+) ') as m(said)
    where m.said[1] = p_origin and v_size > f.size and v_size <= m.said[2]::int8
    order by e.n desc limit 1;
    if v_note is not null then
      return query select null::text, null::int2, null::int8, v_size, 'restored', v_root, null::bytea, v_note;
      return;
    end if;
    if p_origin is not null and not exists (select from platform.audit_checkpoints c where c.origin = p_origin) then
      return query select null::text, null::int2, null::int8, v_size, 'unknown_origin', v_root, null::bytea, null::text;
      return;
    end if;
    return query select null::text, null::int2, null::int8, v_size,
      case when v_size > v_tree then 'tail_missing' else 'rewritten' end, v_root, case when v_size > v_tree then null else platform.audit_head(v_heads) end, null::text;
  end if;
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
select platform.migrate_grants('function', 'audit_seal_append', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_checkpoint_add', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_signatures_new', '');
select platform.migrate_grants('function', 'audit_checkpoint_published', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_checkpoint_cosigned', 'velocity_sealer=execute');
select platform.migrate_grants('function', 'audit_verify_tree', 'velocity_auditor=execute');

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
  ('audit_tree_root', 'The head of the tree, from its right edge; VL041 if a tile is not as long as it must be.'),
  ('audit_seal_append', 'Appends entries that are not in the tree yet, taken from the log itself: the tree''s one writer. VL040 if the tree has not the size the caller believes, VL041 if a tile is not as it must be.'),
  ('audit_checkpoint_add', 'Keeps a signed checkpoint of the tree as it is, or adds signatures to the one that is there; false if it has them. VL040 if another tree was signed, VL042 if its epoch or origin does not follow.'),
  ('audit_signatures_new', 'Of signature lines the first of each key that has none yet.'),
  ('audit_checkpoint_published', 'Says that a checkpoint was put into the folder of publication.'),
  ('audit_checkpoint_cosigned', 'Adds the signature lines of witnesses to a checkpoint, one for a key, and answers what it has.'),
  ('audit_verify_tree', 'What is wrong between log, tree and an outside checkpoint: tail_missing, rewritten, seq_gap, tree_broken, unknown_origin; and restored, which a restore note accounts for.')
) as t(name, what);

select platform.migrate_end();
