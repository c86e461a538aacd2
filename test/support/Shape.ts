/**
 * What a database is made of, as a test compares it: `shapeOf` by meaning (definitions, grants, memberships), so that two
 * databases or two moments can be compared; `versionsOf` by row version, so that a write that changed nothing shows too.
 */
import * as Effect from "effect/Effect"
import { query } from "./Database.ts"

const acl = (column: string) =>
  `(select string_agg(case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee) end || '=' || a.privilege_type || case when a.is_grantable then '*' else '' end, ',' order by 1)
    from (select * from aclexplode(${column}) order by grantee::regrole::text, privilege_type) a)`

const shape = `
  select 'table ' || c.relname || ' ' || c.relkind::text || ' ' || pg_get_userbyid(c.relowner) || ' rls=' || c.relrowsecurity || c.relforcerowsecurity || ' ' || coalesce(${acl("coalesce(c.relacl, acldefault(case c.relkind when 'S' then 's' else 'r' end::\"char\", c.relowner))")}, '') as line
    from pg_class c where c.relnamespace = 'platform'::regnamespace and c.relkind in ('r', 'p', 'S', 'v', 'm')
  union all select 'column ' || c.relname || '.' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '') || ' ' || coalesce(${acl("a.attacl")}, '')
    from pg_attribute a join pg_class c on c.oid = a.attrelid left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where c.relnamespace = 'platform'::regnamespace and c.relkind in ('r', 'p') and a.attnum > 0 and not a.attisdropped
  union all select 'index ' || pg_get_indexdef(i.indexrelid) || ' ' || i.indisvalid from pg_index i join pg_class c on c.oid = i.indrelid where c.relnamespace = 'platform'::regnamespace
  union all select 'constraint ' || conrelid::regclass || ' ' || pg_get_constraintdef(oid) || ' ' || convalidated from pg_constraint where connamespace = 'platform'::regnamespace and contype <> 'n'
  union all select 'trigger ' || pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'platform'::regnamespace and not tgisinternal
  union all select 'rule ' || ev_class::regclass || ' ' || rulename from pg_rewrite w join pg_class c on c.oid = w.ev_class where c.relnamespace = 'platform'::regnamespace
  union all select 'policy ' || tablename || ' ' || policyname || ' ' || cmd || ' ' || roles::text || ' ' || coalesce(qual, '') || ' ' || coalesce(with_check, '') || permissive from pg_policies where schemaname = 'platform'
  union all select 'function ' || pg_get_functiondef(p.oid) || ' ' || pg_get_userbyid(p.proowner) || ' ' || ${acl("coalesce(p.proacl, acldefault('f', p.proowner))")} from pg_proc p where p.pronamespace = 'platform'::regnamespace
  union all select 'schema ' || nspname || ' ' || pg_get_userbyid(nspowner) || ' ' || ${acl("coalesce(nspacl, acldefault('n', nspowner))")} from pg_namespace where nspname in ('platform', 'public')
  union all select 'database ' || ${acl("coalesce(datacl, acldefault('d', datdba))")} from pg_database where datname = current_database()
  union all select 'default ' || pg_get_userbyid(defaclrole) || ' ' || defaclobjtype::text || ' ' || defaclnamespace || ' ' || ${acl("defaclacl")} from pg_default_acl
  union all select 'role ' || rolname || ' ' || rolsuper || rolinherit || rolcreaterole || rolcreatedb || rolcanlogin || rolreplication || rolbypassrls from pg_roles where rolname !~ '^pg_'
  union all select distinct 'member ' || pg_get_userbyid(member) || ' of ' || pg_get_userbyid(roleid) || ' ' || inherit_option || set_option || admin_option from pg_auth_members where pg_get_userbyid(roleid) !~ '^pg_'
  union all select 'row domains ' || chain from platform.domains where chain = 'platform'
  union all select 'row operator_term ' || count(*) from platform.operator_term
  union all select 'row installation ' || count(*) from platform.installation
  union all select 'row secrets ' || count(*) from platform.secrets`

/** The lines that say what schema `platform`, the database's grants and the server's roles are. */
export const shapeOf = (superuserUrl: string) =>
  Effect.map(query(superuserUrl, `select line from (${shape}) s order by line collate "C"`), (rows) =>
    rows.map((row) => String(row.line))
  )

const catalogues = [
  ...["pg_class", "pg_attribute", "pg_attrdef", "pg_index", "pg_constraint", "pg_trigger", "pg_rewrite", "pg_policy"],
  ...["pg_proc", "pg_namespace", "pg_database", "pg_default_acl", "pg_authid", "pg_auth_members", "pg_depend"],
  ...["pg_shdepend", "pg_inherits", "pg_type", "pg_description", "pg_db_role_setting"]
]

const named = (column: string, org: string) =>
  `(starts_with(pg_get_userbyid(${column}), 'velocity_') or starts_with(pg_get_userbyid(${column}), '${org}_'))`

/** Of the catalogues that all databases of a server share, what concerns this database and the names under `org`. */
const sharedPart = (org: string): Readonly<Record<string, string>> => ({
  pg_shdepend: "where dbid = (select oid from pg_database where datname = current_database())",
  pg_database: "where datname = current_database()",
  pg_authid: `where ${named("oid", org)}`,
  pg_auth_members: `where ${named("roleid", org)} and ${named("member", org)}`,
  pg_db_role_setting: `where setrole = 0 or ${named("setrole", org)}`
})

/**
 * For each catalogue, and each table of schema `platform`, a digest of which row versions it holds. On a server that other
 * tests use at the same time, `org` leaves out what is theirs.
 */
export const versionsOf = (superuserUrl: string, org?: string) =>
  Effect.gen(function* () {
    const tables = yield* query(
      superuserUrl,
      "select oid::regclass::text as name from pg_class where relnamespace = 'platform'::regnamespace and relkind in ('r', 'S') order by 1"
    )
    const names = [...catalogues, ...tables.map((row) => String(row.name))]
    const parts = org === undefined ? {} : sharedPart(org)
    const digests = names.map(
      (name) =>
        `select '${name}' as name, (select md5(coalesce(string_agg(ctid::text || ' ' || xmin::text, ',' order by ctid), '')) from ${name} ${parts[name] ?? ""}) as digest`
    )
    const rows = yield* query(superuserUrl, digests.join(" union all "))
    return Object.fromEntries(rows.map((row) => [String(row.name), String(row.digest)]))
  })
