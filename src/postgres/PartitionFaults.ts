/**
 * Where a month of the audit log or of history is not guarded as its parent is: asked by the partition manager of what it
 * made, and by the isolation check of all there are.
 *
 * ATTACH gives a month the parent's indexes and row triggers; owner, grants, row-level security and what fires for a
 * statement are its own, and a month whose index is missing is found by nobody until it is read.
 */

/** What is wrong with a month; `repair` is SQL, or a comment where it is a command's. */
export interface PartitionFault {
  readonly partition: string
  readonly detail: string
  readonly repair: string
}

/** A SELECT of `(partition, detail, repair)` over the catalogue, which any login may run. */
export const partitionFaults = `
  with month as (
    select c.oid, c.relname, c.relowner, c.relacl, c.relrowsecurity, c.relforcerowsecurity, p.oid as parent, p.relname as log,
      p.relowner as parent_owner, p.relrowsecurity as parent_rls, p.relforcerowsecurity as parent_forced
    from pg_inherits i join pg_class c on c.oid = i.inhrelid join pg_class p on p.oid = i.inhparent
    where p.relnamespace = (select oid from pg_namespace where nspname = 'platform') and p.relname in ('audit_log', 'event_log') and p.relkind = 'p'
  )
  select m.oid::regclass::text as partition, f.detail, f.repair from month m, lateral (
    select format('it belongs to %s', m.relowner::regrole) as detail,
      format('ALTER TABLE %s OWNER TO %s', m.oid::regclass, m.parent_owner::regrole) as repair
    where m.relowner <> m.parent_owner
    union all
    select format('%s may %s it by itself', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, m.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from aclexplode(m.relacl) a where a.grantee <> m.relowner
    union all
    select 'row-level security is not as its parent''s', '-- velocity migrate'
    where m.relrowsecurity <> m.parent_rls or m.relforcerowsecurity <> m.parent_forced
    union all
    select format('policy %I stands on it alone', y.polname), format('DROP POLICY %I ON %s', y.polname, m.oid::regclass)
    from pg_policy y where y.polrelid = m.oid
    union all
    select format('trigger %I is missing, or is enabled otherwise than its parent''s', t.tgname), '-- velocity migrate'
    from pg_trigger t where t.tgrelid = m.parent and not t.tgisinternal and not exists (
      select from pg_trigger c where c.tgrelid = m.oid and c.tgenabled = t.tgenabled and c.tgfoid = t.tgfoid and c.tgtype = t.tgtype
        and (c.tgparentid = t.oid or (c.tgname = t.tgname and t.tgtype & 1 = 0)))
    union all
    select format('index %s of its parent has none here', x.indexrelid::regclass), format('-- CREATE INDEX as %s is made, then ALTER INDEX %s ATTACH PARTITION it', x.indexrelid::regclass, x.indexrelid::regclass)
    from pg_index x where x.indrelid = m.parent and not exists (
      select from pg_inherits h join pg_index c on c.indexrelid = h.inhrelid where h.inhparent = x.indexrelid and c.indrelid = m.oid and c.indisvalid)
  ) f`
