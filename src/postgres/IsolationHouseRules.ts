/** Rules of the isolation check about the database as a whole: what everybody has, settings, sessions, functions. See `IsolationRules` for what they are selected from. */
import type { Rule } from "./IsolationRule.ts"

export const houseRules: ReadonlyArray<Rule> = [
  {
    why: "nothing is for everybody: the database, schemas, tables, columns, functions, and what is made later",
    sql: `select 'public', format('database %I', d.datname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON DATABASE %I FROM PUBLIC', a.privilege_type, d.datname)
    from pg_database d, aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) a where d.datname = current_database() and a.grantee = 0
    union all
    select 'public', format('schema %I', s.nspname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON SCHEMA %I FROM PUBLIC', a.privilege_type, s.nspname)
    from code_schema s join pg_namespace n using (oid), aclexplode(coalesce(n.nspacl, acldefault('n', n.nspowner))) a where a.grantee = 0
    union all
    select 'public', c.oid::regclass::text, format('PUBLIC may %s', a.privilege_type), format('REVOKE %s ON %s FROM PUBLIC CASCADE', a.privilege_type, c.oid::regclass)
    from pg_class c join code_schema s on s.oid = c.relnamespace, aclexplode(c.relacl) a
    where a.grantee = 0 and not exists (select from of_extension e where e.classid = 'pg_class'::regclass and e.objid = c.oid)
    union all
    select 'public', format('%s.%I', c.oid::regclass, t.attname), format('PUBLIC may %s', a.privilege_type), format('REVOKE %s (%I) ON %s FROM PUBLIC CASCADE', a.privilege_type, t.attname, c.oid::regclass)
    from pg_class c join code_schema s on s.oid = c.relnamespace join pg_attribute t on t.attrelid = c.oid, aclexplode(t.attacl) a where a.grantee = 0
    union all
    select 'public', p.oid::regprocedure::text, 'PUBLIC may execute it', format('REVOKE EXECUTE ON ROUTINE %s FROM PUBLIC CASCADE', p.oid::regprocedure)
    from pg_proc p join code_schema s on s.oid = p.pronamespace, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a
    where a.grantee = 0 and not exists (select from of_extension e where e.classid = 'pg_proc'::regclass and e.objid = p.oid)
    union all
    select 'public', format('default privileges of %s', d.defaclrole::regrole), format('PUBLIC will %s what it makes', a.privilege_type),
      format('ALTER DEFAULT PRIVILEGES FOR ROLE %s %sREVOKE ALL ON %s FROM PUBLIC', d.defaclrole::regrole,
        case when d.defaclnamespace = 0 then '' else format('IN SCHEMA %s ', d.defaclnamespace::regnamespace) end,
        case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'FUNCTIONS' when 'n' then 'SCHEMAS' else 'TYPES' end)
    from pg_default_acl d, aclexplode(d.defaclacl) a where a.grantee = 0 and d.defaclobjtype <> 'T'`
  },
  {
    why: "settings that a role of ours could turn against triggers and constraints",
    sql: `select 'parameter_privilege', p.parname, format('%s may %s it', case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end, a.privilege_type),
      format('REVOKE %s ON PARAMETER %s FROM %s', a.privilege_type, p.parname, case a.grantee when 0 then 'PUBLIC' else a.grantee::regrole::text end)
    from pg_parameter_acl p, aclexplode(p.paracl) a where a.grantee = 0 or a.grantee in (select oid from ours)`
  },
  {
    why: "a session begins as its login and under the rules of the house, whatever a role or the database was told to set",
    sql: `select 'role_setting', coalesce(r.rolname::text, format('database %I', d.datname)), format('every session of it begins with %s', c.setting),
      case when r.rolname is null then format('ALTER DATABASE %I RESET %I', d.datname, split_part(c.setting, '=', 1))
        else format('ALTER ROLE %I%s RESET %I', r.rolname, ' IN DATABASE ' || quote_ident(d.datname), split_part(c.setting, '=', 1)) end
    from pg_db_role_setting s
      left join pg_roles r on r.oid = s.setrole left join pg_database d on d.oid = s.setdatabase, unnest(s.setconfig) as c(setting)
    where (s.setdatabase = 0 or d.datname = current_database()) and (
      (r.oid in (select oid from ours) and c.setting !~ '^(log_.*|.*_timeout|work_mem|temp_file_limit|application_name)=')
      or (r.oid is null and c.setting ~ '^(role|session_authorization|row_security|session_replication_role|(session|local)_preload_libraries)='))`
  },
  {
    why: "a function with its owner's rights finds what its owner meant, and the owner is no more than velocity_owner",
    sql: `select 'search_path', p.oid::regprocedure::text, 'SECURITY DEFINER without a search_path of its own', format('ALTER ROUTINE %s SET search_path = pg_catalog, pg_temp', p.oid::regprocedure)
    from pg_proc p join code_schema s on s.oid = p.pronamespace
    where p.prosecdef and not exists (select from unnest(p.proconfig) c where c = 'search_path=pg_catalog, pg_temp' or (c like 'search_path=%' and s.nspname <> 'platform'))
    union all
    select 'definer_owner', p.oid::regprocedure::text, format('it runs with the rights of %s', p.proowner::regrole), format('ALTER ROUTINE %s OWNER TO velocity_owner', p.oid::regprocedure)
    from pg_proc p where p.pronamespace = (select oid from pg_namespace where nspname = 'platform') and p.proowner <> to_regrole('velocity_owner')`
  },
  {
    why: "a prepared transaction keeps its lane, its locks and its role beyond the session that made it",
    sql: `select 'prepared_transactions', 'max_prepared_transactions', format('it is %s', current_setting('max_prepared_transactions')), 'ALTER SYSTEM SET max_prepared_transactions = 0'
    where current_setting('max_prepared_transactions') <> '0'`
  }
]
