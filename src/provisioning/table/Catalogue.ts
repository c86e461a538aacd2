/**
 * A record type's table as the catalogue has it, in Postgres's own normal form: what is there and what is wanted are both
 * read by this one query, so no expression is ever parsed, or compared as we wrote it (fine print 44).
 *
 * NOT NULL is read from the column and never as a constraint, because 18 lists it among them and 16 does not. Everything is
 * in an order of its own and never in the one in which Postgres came by it: that changes with the statistics, and the hash of
 * a plan, by which it is approved, is over its steps in their order.
 */
import { Effect, Schema } from "effect"
import { sha256Hex } from "../../domain/Sha256.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { canonicalJson } from "./SpecHash.ts"

const text = Schema.NullOr(Schema.String)

export const CatalogueColumn = Schema.Struct({
  type: Schema.String,
  /** Only where it is not the type's own. */
  collation: text,
  notNull: Schema.Boolean,
  default: text,
  /** The expression of a generated column. */
  generated: text
})
export type CatalogueColumn = typeof CatalogueColumn.Type

export const CatalogueConstraint = Schema.Struct({
  kind: Schema.Literals(["c", "f", "p", "u", "x", "t"]),
  definition: Schema.String,
  validated: Schema.Boolean,
  comment: text
})

export const CatalogueIndex = Schema.Struct({ definition: Schema.String, valid: Schema.Boolean, comment: text })

const Policy = Schema.Struct({
  command: Schema.String,
  permissive: Schema.Boolean,
  roles: Schema.Array(Schema.String),
  using: text,
  check: text
})

const View = Schema.Struct({
  definition: Schema.String,
  options: Schema.Array(Schema.String),
  comment: text,
  grants: Schema.Array(Schema.String)
})

/** See the module. */
export const Catalogue = Schema.Struct({
  comment: text,
  enabled: Schema.Boolean,
  forced: Schema.Boolean,
  columns: Schema.Record(Schema.String, CatalogueColumn),
  constraints: Schema.Record(Schema.String, CatalogueConstraint),
  /** Those of no constraint. */
  indexes: Schema.Record(Schema.String, CatalogueIndex),
  policies: Schema.Record(Schema.String, Policy),
  triggers: Schema.Record(Schema.String, Schema.String),
  /** `role privilege`, of a column `role privilege (column)`, but for the owner's own. */
  grants: Schema.Array(Schema.String),
  /** The history view. */
  view: Schema.NullOr(View),
  /** The views over it, those of other versions that share its rows, each with its history view; null where there are none. */
  faces: Schema.NullOr(Schema.Record(Schema.String, Schema.Struct({ ...View.fields, history: Schema.NullOr(View) })))
})
export type Catalogue = typeof Catalogue.Type

const grantsOf = (relation: string) =>
  `(select coalesce(json_agg(line order by line collate "C"), '[]') from (
    select case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee)::text end || ' ' || a.privilege_type as line
      from aclexplode(${relation}.relacl) a where a.grantee <> ${relation}.relowner
    union all
    select case a.grantee when 0 then 'PUBLIC' else pg_get_userbyid(a.grantee)::text end || ' ' || a.privilege_type || ' (' || t.attname || ')'
      from pg_attribute t, aclexplode(t.attacl) a where t.attrelid = ${relation}.oid and not t.attisdropped) g)`

const viewFacts = (view: string) =>
  `'definition', pg_get_viewdef(${view}.oid), 'options', coalesce(array_to_json(${view}.reloptions), '[]'),
      'comment', obj_description(${view}.oid, 'pg_class'), 'grants', ${grantsOf(view)}`

const sql = `select json_build_object(
  'comment', obj_description(c.oid, 'pg_class'), 'enabled', c.relrowsecurity, 'forced', c.relforcerowsecurity,
  'columns', (select coalesce(json_object_agg(a.attname, json_build_object(
      'type', format_type(a.atttypid, a.atttypmod),
      'collation', (select l.collname from pg_collation l join pg_type y on y.oid = a.atttypid where l.oid = a.attcollation and l.oid <> y.typcollation),
      'notNull', a.attnotnull,
      'default', case when a.attgenerated = '' then pg_get_expr(d.adbin, d.adrelid) end,
      'generated', case when a.attgenerated <> '' then a.attgenerated::text || ' ' || pg_get_expr(d.adbin, d.adrelid) end) order by a.attnum), '{}')
    from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
    where a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped),
  'constraints', (select coalesce(json_object_agg(k.conname, json_build_object('kind', k.contype,
      'definition', regexp_replace(pg_get_constraintdef(k.oid), ' NOT VALID$', ''), 'validated', k.convalidated,
      'comment', obj_description(k.oid, 'pg_constraint')) order by k.conname collate "C"), '{}')
    from pg_constraint k where k.conrelid = c.oid and k.contype <> 'n'),
  'indexes', (select coalesce(json_object_agg(i.relname, json_build_object('definition', pg_get_indexdef(i.oid), 'valid', x.indisvalid,
      'comment', obj_description(i.oid, 'pg_class')) order by i.relname collate "C"), '{}')
    from pg_index x join pg_class i on i.oid = x.indexrelid
    where x.indrelid = c.oid and not exists (select from pg_constraint k where k.conindid = i.oid and k.contype in ('p', 'u', 'x') and k.conrelid = c.oid)),
  'policies', (select coalesce(json_object_agg(p.polname, json_build_object('command', p.polcmd, 'permissive', p.polpermissive,
      'roles', (select json_agg(case r when 0 then 'PUBLIC' else pg_get_userbyid(r)::text end order by pg_get_userbyid(r)::text collate "C") from unnest(p.polroles) r),
      'using', pg_get_expr(p.polqual, p.polrelid), 'check', pg_get_expr(p.polwithcheck, p.polrelid)) order by p.polname collate "C"), '{}')
    from pg_policy p where p.polrelid = c.oid),
  'triggers', (select coalesce(json_object_agg(t.tgname, pg_get_triggerdef(t.oid) || ' ' || t.tgenabled::text order by t.tgname collate "C"), '{}')
    from pg_trigger t where t.tgrelid = c.oid and not t.tgisinternal),
  'grants', ${grantsOf("c")},
  'view', (select json_build_object(${viewFacts("v")})
    from pg_class v where v.relnamespace = c.relnamespace and v.relname = $2 || '_history' and v.relkind = 'v'),
  'faces', (select json_object_agg(f.relname, json_build_object(${viewFacts("f")},
      'history', (select json_build_object(${viewFacts("v")})
        from pg_class v where v.relnamespace = c.relnamespace and v.relname = f.relname || '_history' and v.relkind = 'v')) order by f.relname)
    from pg_class f where f.relnamespace = c.relnamespace and f.relkind = 'v' and f.oid in (
      select w.ev_class from pg_rewrite w join pg_depend d on d.classid = 'pg_rewrite'::regclass and d.objid = w.oid
      where d.refclassid = 'pg_class'::regclass and d.refobjid = c.oid))
)::text as catalogue
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where n.nspname = $1 and c.relname = $2 and c.relkind = 'r'`

const decode = Schema.decodeUnknownSync(Schema.fromJsonString(Catalogue))

/** Without what every object of JavaScript has: a field may be called `constructor`. */
const plain = <A>(record: Readonly<Record<string, A>>): Readonly<Record<string, A>> =>
  Object.assign(Object.create(null) as Record<string, A>, record)

/** The catalogue's text of a table, with another name for its schema where one is given; undefined where there is none. */
export const read = (
  tx: Tx,
  schema: string,
  table: string,
  as: string = schema
): Effect.Effect<Catalogue | undefined, DatabaseFailure> =>
  Effect.map(tx.query(statement(sql, [schema, table])), ({ rows: [row] }) =>
    row === undefined ? undefined : ofText(String(row.catalogue).replaceAll(schema, as))
  )

const ofText = (json: string): Catalogue => {
  const { columns, constraints, indexes, policies, triggers, ...rest } = decode(json)
  return {
    ...rest,
    columns: plain(columns),
    constraints: plain(constraints),
    indexes: plain(indexes),
    policies: plain(policies),
    triggers: plain(triggers)
  }
}

/**
 * A digest of a catalogue. `building` are what a plan makes outside transactions: whether its indexes are there, and whether
 * its constraints are proved, says nothing of whether somebody else was at the table.
 */
export const fingerprint = (catalogue: Catalogue, building: ReadonlySet<string> = new Set()): string =>
  sha256Hex(
    canonicalJson({
      ...catalogue,
      // one without views of other versions is as it was before there were any
      faces: catalogue.faces ?? undefined,
      constraints: Object.fromEntries(
        Object.entries(catalogue.constraints).map(([name, one]) => [
          name,
          building.has(name) ? { ...one, validated: undefined } : one
        ])
      ),
      indexes: Object.fromEntries(
        Object.entries(catalogue.indexes).filter(([name, { valid }]) => valid && !building.has(name))
      )
    })
  ).slice(0, 32)

const show = (value: unknown): string =>
  typeof value === "string" ? value : value === null ? "none" : canonicalJson(value)

/** What two catalogues differ in, in words, each line beginning with what it is of. */
export const differences = (actual: Catalogue, wanted: Catalogue): ReadonlyArray<string> => {
  const lines: Array<string> = []
  const say = (what: string, is: unknown, want: unknown) => {
    if (canonicalJson(is ?? null) === canonicalJson(want ?? null)) return
    if (want === undefined) lines.push(`${what} is there and is not asked for`)
    else if (is === undefined) lines.push(`${what} is missing`)
    else lines.push(`${what} is ${show(is)} and should be ${show(want)}`)
  }
  const each = <A extends object>(
    what: string,
    is: Readonly<Record<string, A>>,
    want: Readonly<Record<string, A>>,
    keys: ReadonlyArray<keyof A & string>
  ) => {
    for (const name of [...new Set([...Object.keys(is), ...Object.keys(want)])].sort()) {
      const a = is[name]
      const w = want[name]
      if (a === undefined || w === undefined) say(`${what} ${name}`, a, w)
      else for (const key of keys) say(`${what} ${name}: ${key}`, a[key], w[key])
    }
  }
  say("row-level security", actual.enabled && actual.forced, wanted.enabled && wanted.forced)
  say("comment", actual.comment, wanted.comment)
  each("column", actual.columns, wanted.columns, ["type", "collation", "notNull", "default", "generated"])
  each("constraint", actual.constraints, wanted.constraints, ["definition", "validated", "comment"])
  each("index", actual.indexes, wanted.indexes, ["definition", "valid", "comment"])
  each("policy", actual.policies, wanted.policies, ["command", "permissive", "roles", "using", "check"])
  for (const name of new Set([...Object.keys(actual.triggers), ...Object.keys(wanted.triggers)]))
    say(`trigger ${name}`, actual.triggers[name], wanted.triggers[name])
  for (const grant of actual.grants) if (!wanted.grants.includes(grant)) say(`grant ${grant}`, grant, undefined)
  for (const grant of wanted.grants) if (!actual.grants.includes(grant)) say(`grant ${grant}`, undefined, grant)
  if (actual.view === null || wanted.view === null)
    say("history view", actual.view ?? undefined, wanted.view ?? undefined)
  else each("history view", { "": actual.view }, { "": wanted.view }, ["definition", "options", "comment", "grants"])
  each("view", actual.faces ?? {}, wanted.faces ?? {}, ["definition", "options", "comment", "grants", "history"])
  return lines
}
