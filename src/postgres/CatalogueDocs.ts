/**
 * The generated parts of `docs/architecture/`: what a migrated database holds, read from its catalogue. Used by
 * `npm run generate`; the reasons around the parts are written by hand.
 *
 * Months are named `YYYY_MM` and the migrator is left out, so that the text is the same whenever and by whomever it is
 * made.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import { type DatabaseFailure, fromSqlError } from "./DatabaseFailure.ts"
import type { MigrationFile } from "./Migrations.ts"

/** The text of each generated part, by its name. */
export type Blocks = Readonly<Record<string, string>>

type Row = Readonly<Record<string, unknown>>

const queries = {
  tables: `
    select c.relname::text as name, obj_description(c.oid, 'pg_class') as what, pg_get_partkeydef(c.oid) as parted,
      (select json_agg(json_build_object('name', a.attname, 'type', format_type(a.atttypid, a.atttypmod), 'required', a.attnotnull,
         'default', case a.attidentity when 'a' then 'identity' else pg_get_expr(d.adbin, d.adrelid) end) order by a.attnum)
       from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
       where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped) as columns,
      (select json_agg(pg_get_constraintdef(k.oid) order by k.contype <> 'p', pg_get_constraintdef(k.oid) collate "C") from pg_constraint k
       where k.conrelid = c.oid and k.contype in ('p', 'u', 'f', 'c')) as constraints,
      (select json_agg(regexp_replace(pg_get_indexdef(i.indexrelid), '^CREATE (UNIQUE )?INDEX (\\S+) ON (ONLY )?\\S+ USING ', '\\2: \\1') order by i.indexrelid::regclass::text collate "C")
       from pg_index i where i.indrelid = c.oid and not exists (select from pg_constraint k where k.conindid = i.indexrelid and k.contype in ('p', 'u'))) as indexes
    from pg_class c where c.relnamespace = 'platform'::regnamespace and c.relkind in ('r', 'p') and not c.relispartition
    order by c.relname collate "C"`,
  sequences: `
    select c.relname::text as name, obj_description(c.oid, 'pg_class') as what from pg_class c
    where c.relnamespace = 'platform'::regnamespace and c.relkind = 'S' and obj_description(c.oid, 'pg_class') is not null order by 1`,
  functions: `
    select p.proname::text as name, pg_get_function_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result, l.lanname::text as language,
      case p.provolatile when 'i' then 'immutable' when 's' then 'stable' else 'volatile' end as volatility, p.prosecdef as definer,
      array_to_string(p.proconfig, '; ') as settings, obj_description(p.oid, 'pg_proc') as what,
      (select string_agg(g.rolname, ', ' order by g.rolname collate "C") from aclexplode(p.proacl) a join pg_roles g on g.oid = a.grantee
       where a.grantee <> p.proowner) as callers
    from pg_proc p join pg_language l on l.oid = p.prolang where p.pronamespace = 'platform'::regnamespace order by p.proname collate "C"`,
  roles: `
    select rolname::text as name, rolcanlogin as login, rolinherit as inherit, rolcreaterole as createrole, rolsuper or rolbypassrls or rolreplication or rolcreatedb as strong
    from pg_roles where rolname ~ '^velocity_' order by rolname collate "C"`,
  memberships: `
    select pg_get_userbyid(roleid)::text as role, pg_get_userbyid(member)::text as member, inherit_option as inherit, set_option as set, admin_option as admin
    from pg_auth_members where pg_get_userbyid(roleid) ~ '^velocity_' and pg_get_userbyid(member) ~ '^velocity_' order by 1, 2`,
  grants: `
    select object, grantee, string_agg(lower(privilege), ', ' order by privilege) as privileges from (
      select 'database' as object, pg_get_userbyid(a.grantee)::text as grantee, a.privilege_type as privilege, 0 as sort
      from pg_database d, aclexplode(d.datacl) a where d.datname = current_database() and a.grantee <> d.datdba
      union all select 'schema platform', pg_get_userbyid(a.grantee)::text, a.privilege_type, 1
      from pg_namespace n, aclexplode(n.nspacl) a where n.nspname = 'platform' and a.grantee <> n.nspowner
      union all select case c.relkind when 'S' then 'sequence ' else 'table ' end || c.relname, pg_get_userbyid(a.grantee)::text, a.privilege_type, case c.relkind when 'S' then 3 else 2 end
      from pg_class c, aclexplode(c.relacl) a where c.relnamespace = 'platform'::regnamespace and a.grantee <> c.relowner) g
    group by sort, object, grantee order by sort, object collate "C", grantee collate "C"`,
  policies: `
    select regexp_replace(tablename::text, '_\\d{4}_\\d\\d$', '_YYYY_MM') as "table", policyname::text as name, lower(cmd) as command, array_to_string(roles, ', ') as roles, qual, with_check
    from pg_policies where schemaname = 'platform' order by 1, 2`,
  triggers: `
    select distinct regexp_replace(pg_get_triggerdef(t.oid), '_\\d{4}_\\d\\d ', '_YYYY_MM ') as definition, t.tgenabled = 'A' as always
    from pg_trigger t join pg_class c on c.oid = t.tgrelid where c.relnamespace = 'platform'::regnamespace and not t.tgisinternal order by 1`,
  partitions: `
    select parent, bool_and(c.relrowsecurity) as rls, bool_and(c.relacl is null or not exists (select from aclexplode(c.relacl) a where a.grantee <> c.relowner)) as bare
    from platform.partitions() p join pg_class c on c.relname = p.name and c.relnamespace = 'platform'::regnamespace group by parent order by parent`
}

const code = (text: unknown): string => `\`${String(text).replaceAll("|", "\\|")}\``
const cell = (text: unknown): string => (text === null || text === undefined ? "" : String(text).replaceAll("|", "\\|"))
const table = (head: ReadonlyArray<string>, rows: ReadonlyArray<ReadonlyArray<string>>): string =>
  [head, head.map(() => "---"), ...rows].map((row) => `| ${row.join(" | ")} |`).join("\n")
const list = (value: unknown): ReadonlyArray<string> => (value === null ? [] : (value as ReadonlyArray<string>))

interface Column {
  readonly name: string
  readonly type: string
  readonly required: boolean
  readonly default: string | null
}

const tableSection = (row: Row): string => {
  const columns = (row.columns as ReadonlyArray<Column>).map((column) => [
    code(column.name),
    cell(column.type),
    column.required ? "" : "yes",
    column.default === null ? "" : code(column.default)
  ])
  const lines = [
    ...list(row.constraints).map((one) => `- ${code(one)}`),
    ...list(row.indexes).map((one) => `- index ${code(one)}`),
    ...(row.parted === null
      ? []
      : [`- partitioned by ${code(row.parted)}, a month each: ${code(`${row.name}_YYYY_MM`)}, no default partition`])
  ]
  const head = table(["column", "type", "null", "default"], columns)
  return `### ${row.name}\n${row.what}\n\n${head}\n${lines.length === 0 ? "" : `\n${lines.join("\n")}\n`}`
}

const functionSection = (row: Row): string => {
  const rights = row.definer === true ? "SECURITY DEFINER" : "SECURITY INVOKER"
  const settings = row.settings === null ? "" : `; ${code(row.settings)}`
  const callers = row.callers === null ? "nobody but velocity_owner" : String(row.callers)
  return (
    `### ${row.name}\n${row.what}\n\n` +
    `- ${code(`platform.${row.name}(${row.arguments}) returns ${row.result}`)}\n` +
    `- ${row.language}, ${row.volatility}, ${rights}${settings}\n` +
    `- called by: ${callers}\n`
  )
}

const isGuard = (row: Row): boolean => String(row.name).startsWith("migrate_")
const yes = (value: unknown): string => (value === true ? "yes" : "no")

/** Reads a migrated database as its superuser or owner. */
export const read = (url: Redacted.Redacted): Effect.Effect<Blocks, DatabaseFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url, applicationName: "velocity generate" })
      yield* connection.query("set search_path = pg_catalog")
      const found = {} as Record<keyof typeof queries, ReadonlyArray<Row>>
      for (const [name, sql] of Object.entries(queries)) {
        found[name as keyof typeof queries] = (yield* connection.query(sql)).rows
      }
      return {
        tables: found.tables.map(tableSection).join("\n"),
        sequences: found.sequences.map((row) => `- ${code(row.name)}: ${row.what}`).join("\n"),
        functions: found.functions
          .filter((row) => !isGuard(row))
          .map(functionSection)
          .join("\n"),
        guards: found.functions.filter(isGuard).map(functionSection).join("\n"),
        roles: table(
          ["role", "logs in", "inherits", "makes roles", "superuser, BYPASSRLS, replication or CREATEDB"],
          found.roles.map((row) => [
            code(row.name),
            yes(row.login),
            yes(row.inherit),
            yes(row.createrole),
            yes(row.strong)
          ])
        ),
        memberships: table(
          ["role", "member", "INHERIT", "SET", "ADMIN"],
          found.memberships.map((row) => [
            code(row.role),
            code(row.member),
            yes(row.inherit),
            yes(row.set),
            yes(row.admin)
          ])
        ),
        grants: table(
          ["object", "role", "privileges"],
          found.grants.map((row) => [code(row.object), code(row.grantee), cell(row.privileges)])
        ),
        policies: table(
          ["table", "policy", "command", "roles", "USING", "WITH CHECK"],
          found.policies.map((row) => [
            code(row.table),
            code(row.name),
            cell(row.command),
            cell(row.roles),
            row.qual === null ? "" : code(row.qual),
            row.with_check === null ? "" : code(row.with_check)
          ])
        ),
        triggers: found.triggers
          .map((row) => `- ${code(row.definition)}${row.always === true ? ", ENABLE ALWAYS" : ""}`)
          .join("\n"),
        partitions: table(
          ["partitions of", "row-level security", "grants to others than the owner"],
          found.partitions.map((row) => [code(row.parent), yes(row.rls), row.bare === true ? "none" : "some"])
        )
      }
    })
  ).pipe(Effect.mapError(fromSqlError))

/** The index of the migrations: each file's name and the comment that it opens with. */
export const ofFiles = (files: ReadonlyArray<MigrationFile>): Blocks => ({
  migrations: files
    .map((file) => {
      const opening: Array<string> = []
      for (const line of file.text.split("\n")) {
        if (!line.startsWith("--")) break
        opening.push(line.slice(2).trim())
      }
      const [title = "", ...rest] = opening
      const body = rest
        .join("\n")
        .trim()
        .replaceAll(/\n(?!\n)/g, " ")
      return `### ${file.name}\n${title.replace(/^\d{4} /, "")}\n${body === "" ? "" : `\n${body}\n`}`
    })
    .join("\n")
})

const marker = (edge: "begin" | "end", name: string): string => `<!-- generated:${edge} ${name} -->`

/** A page with its generated parts put in; throws on a part that nobody makes or that does not end. */
export const fill = (page: string, blocks: Blocks): string =>
  page.replaceAll(
    /<!-- generated:begin (\S+) -->\n([\s\S]*?)(?=<!-- generated:(?:begin|end) )(<!-- generated:(?:begin|end) \S+ -->)?/g,
    (_, name: string, _old: string, end: string | undefined) => {
      const text = blocks[name]
      if (text === undefined) throw new Error(`nothing makes the part ${name}`)
      if (end !== marker("end", name)) throw new Error(`the part ${name} has no end`)
      return `${marker("begin", name)}\n${text.trimEnd()}\n${end}`
    }
  )
