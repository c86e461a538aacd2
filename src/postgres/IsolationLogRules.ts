/** Rules of the isolation check about the audit log, the tree over it and history: who writes, who reads, and what guards their months. See `IsolationRules` for what they are selected from. */
import type { Rule } from "./IsolationRule.ts"
import { partitionFaults } from "./PartitionFaults.ts"

export const logRules: ReadonlyArray<Rule> = [
  {
    why: "the audit log has one writer, and so has the tree over it",
    sql: `select 'audit_log_privilege', l.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, l.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from log l, aclexplode(l.relacl) a
    where a.grantee <> to_regrole('velocity_owner') and a.privilege_type <> 'SELECT'
    union all
    select 'audit_log_privilege', l.oid::regclass::text, format('%s may %s column %I', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type, t.attname),
      format('REVOKE %s (%I) ON %s FROM %s CASCADE', a.privilege_type, t.attname, l.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from log l join pg_attribute t on t.attrelid = l.oid, aclexplode(t.attacl) a
    where a.privilege_type <> 'SELECT'
    union all
    select 'audit_log_owner', l.oid::regclass::text, format('it belongs to %s', l.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', l.oid::regclass)
    from log l where l.relowner <> to_regrole('velocity_owner')`
  },
  {
    why: "the log refuses change by triggers that fire whatever the session says, and by no others",
    sql: `select 'audit_log_trigger', l.oid::regclass::text, format('trigger %s is missing', w.name), '-- velocity migrate'
    from log l, (values ('refuse_row'), ('refuse_truncate')) as w(name)
    where not exists (select from pg_trigger t where t.tgrelid = l.oid and t.tgname = w.name)
    union all
    select 'audit_log_trigger', l.oid::regclass::text, format('trigger %I is not ENABLE ALWAYS', t.tgname),
      format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %I', l.oid::regclass, t.tgname)
    from log l join pg_trigger t on t.tgrelid = l.oid where t.tgname in ('refuse_row', 'refuse_truncate') and t.tgenabled <> 'A'
    union all
    select 'audit_log_trigger', l.oid::regclass::text, format('trigger %I is not one of ours', t.tgname), format('DROP TRIGGER %I ON %s', t.tgname, l.oid::regclass)
    from log l join pg_trigger t on t.tgrelid = l.oid
    where not t.tgisinternal and t.tgparentid = 0
      and (t.tgname not in ('refuse_row', 'refuse_truncate') or t.tgfoid::regproc::text not in ('platform.audit_refuse', 'platform.evidence_guard'))
    union all
    select 'audit_log_rule', l.oid::regclass::text, format('rule %I rewrites statements on it', w.rulename), format('DROP RULE %I ON %s', w.rulename, l.oid::regclass)
    from log l join pg_rewrite w on w.ev_class = l.oid`
  },
  {
    why: "history is kept apart by domain: two policies, on the parent and its months",
    sql: `select 'event_log_rls', c.oid::regclass::text, 'row-level security is not enabled', format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY', c.oid::regclass)
    from pg_class c
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform') and c.relkind in ('r', 'p') and not c.relrowsecurity
      and (c.relname = 'event_log' or exists (select from pg_inherits i join pg_class p on p.oid = i.inhparent where i.inhrelid = c.oid and p.relname = 'event_log'))
    union all
    select 'event_log_policy', p.polrelid::regclass::text, format('policy %I is not one of ours', p.polname), format('DROP POLICY %I ON %s', p.polname, p.polrelid::regclass)
    from pg_policy p join pg_class c on c.oid = p.polrelid
    where c.relnamespace = (select oid from pg_namespace where nspname = 'platform')
      and not (c.relname = 'event_log' and (
        (p.polname = 'history' and p.polcmd = 'r' and p.polroles = array[to_regrole('velocity_history')::oid] and pg_get_expr(p.polqual, p.polrelid) ~ '^\\(chain = \\( SELECT platform\\.current_chain\\(\\) AS current_chain\\)\\)$')
        or (p.polname = 'append' and p.polcmd = 'a' and p.polroles = array[to_regrole('velocity_tenant')::oid] and pg_get_expr(p.polwithcheck, p.polrelid) ~ '^\\(chain = \\( SELECT platform\\.current_chain\\(\\) AS current_chain\\)\\)$')))`
  },
  {
    why: "history is added to by domain roles, read by their views' owners, and changed by nobody but the erasure's function",
    sql: `select 'event_log_privilege', c.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, c.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from history c, aclexplode(c.relacl) a
    where a.grantee <> to_regrole('velocity_owner') and a.grantee <> 0 and a.grantee <> to_regrole('velocity_api') and not (c.relname = 'event_log' and (
      (a.grantee = to_regrole('velocity_tenant') and a.privilege_type = 'INSERT') or (a.grantee = to_regrole('velocity_history') and a.privilege_type = 'SELECT')))
    union all
    select 'event_log_privilege', c.oid::regclass::text, format('%s may %s column %I', a.grantee::regrole, a.privilege_type, t.attname),
      format('REVOKE %s (%I) ON %s FROM %s CASCADE', a.privilege_type, t.attname, c.oid::regclass, a.grantee::regrole)
    from history c join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a where a.grantee <> 0 and a.grantee <> to_regrole('velocity_api')
    union all
    select 'event_log_owner', c.oid::regclass::text, format('it belongs to %s', c.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', c.oid::regclass)
    from history c where c.relowner <> to_regrole('velocity_owner')`
  },
  {
    why: "a month of either log is guarded as its parent is",
    sql: `select 'partition_fault', f.partition, f.detail, f.repair from (${partitionFaults}) as f`
  },
  {
    why: "months that were retired and kept are the auditor's to read, and nobody's to change",
    sql: `select 'archive_privilege', c.oid::regclass::text, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON %s FROM %s CASCADE', a.privilege_type, c.oid::regclass, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, aclexplode(c.relacl) a
    where n.nspname = 'platform_archive' and a.grantee not in (0, c.relowner)
      and not (c.relname like 'audit\\_log\\_%' and a.grantee = to_regrole('velocity_auditor') and a.privilege_type = 'SELECT' and not a.is_grantable)
    union all
    select 'archive_owner', c.oid::regclass::text, format('it belongs to %s', c.relowner::regrole), format('ALTER TABLE %s OWNER TO velocity_owner', c.oid::regclass)
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    where n.nspname = 'platform_archive' and c.relkind = 'r' and c.relowner <> to_regrole('velocity_owner')
    union all
    select 'archive_trigger', c.oid::regclass::text, format('trigger %s is missing or not ENABLE ALWAYS', w.name),
      case when exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = w.name)
        then format('ALTER TABLE %s ENABLE ALWAYS TRIGGER %s', c.oid::regclass, w.name) else '-- velocity migrate' end
    from pg_class c join pg_namespace n on n.oid = c.relnamespace, (values ('refuse_row'), ('refuse_truncate')) as w(name)
    where n.nspname = 'platform_archive' and c.relkind = 'r' and c.relname like 'audit\\_log\\_%'
      and not exists (select from pg_trigger t where t.tgrelid = c.oid and t.tgname = w.name and t.tgenabled = 'A')`
  }
]
