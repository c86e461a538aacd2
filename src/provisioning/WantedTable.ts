/**
 * The table that a definition asks for: columns, constraints and indexes, each with its SQL, and a record of them that is
 * kept as the table's COMMENT. Pure.
 *
 * What is there is compared with what is wanted through that record and never through what Postgres prints of an
 * expression, because it prints it otherwise than it was written (fine print 44).
 */
import { decimalOf, type Field, pgType } from "../domain/Field.ts"
import { constraintName, historyViewOf, liveColumn, pgTableOf, rolesOf } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import { sha256Hex } from "../domain/Sha256.ts"
import { historyConditionOf, policiesOf } from "./Policies.ts"
import { nameList, qualified, quoteName, quoteText } from "./SqlText.ts"
import type { CheckRecord, TableRecord } from "./TableRecord.ts"

/** Where in the spec something was asked for. */
export type Path = ReadonlyArray<PropertyKey>

export interface WantedColumn {
  readonly name: string
  /** `"name" type`, and for a new table NOT NULL. */
  readonly sql: string
  /** A default's literal, which is set apart from adding the column, so that rows that are there stay as they are. */
  readonly defaultSql: string | undefined
  /** The generated column beside a ref. */
  readonly live: string | undefined
  readonly at: Path
}

/** A CHECK, index or foreign key. */
export interface WantedPart {
  readonly name: string
  readonly fields: ReadonlyArray<string>
  /** The statement that makes it, or for a CHECK its condition. */
  readonly sql: string
  /** For the catalogue's COMMENT. */
  readonly comment: string
  readonly at: Path
}

export interface WantedForeignKey extends WantedPart {
  readonly field: string
  /** The path that the field points to. */
  readonly target: string
  readonly targetTable: string
}

/** See the module. */
export interface WantedTable {
  readonly path: string
  readonly schema: string
  readonly name: string
  /** Quoted, with its schema. */
  readonly table: string
  readonly view: string
  readonly columns: ReadonlyArray<WantedColumn>
  readonly checks: ReadonlyArray<WantedPart>
  readonly indexes: ReadonlyArray<WantedPart>
  /** All that the definition asks for, whether their targets are there or not. */
  readonly foreignKeys: ReadonlyArray<WantedForeignKey>
  readonly record: Omit<TableRecord, "foreignKeys" | "access">
}

/** The literal of a default or of a value that a column is compared with. */
export const literalOf = (field: Field, text: string): string => {
  if (field.type === "bytes") return `${quoteText(`\\x${Buffer.from(text, "base64").toString("hex")}`)}::bytea`
  return `${quoteText(text)}::${pgType(field)}`
}

/** Texts compare by code points, so that an index serves equality, ranges and order alike. */
const columnType = (field: Field): string => (pgType(field) === "text" ? 'text collate "C"' : pgType(field))

const columnOf = (field: Field, index: number): WantedColumn => ({
  name: field.name,
  sql: `${quoteName(field.name)} ${columnType(field)}`,
  defaultSql: field.default === undefined ? undefined : literalOf(field, String(field.default)),
  live:
    field.type === "ref"
      ? `${quoteName(liveColumn(field.name))} boolean generated always as (case when ${quoteName(field.name)} is not null and deleted_at is null then true end) stored`
      : undefined,
  at: ["fields", index]
})

interface Check {
  readonly purpose: CheckRecord["purpose"]
  readonly says: ReadonlyArray<string>
  readonly sql: string
}

const checksOf = (field: Field): ReadonlyArray<Check> => {
  const column = quoteName(field.name)
  const bound = (text: string) =>
    `${quoteText(text)}::${field.type === "integer" ? "int8" : field.float === true ? "float8" : "numeric"}`
  const length = field.type === "bytes" ? `octet_length(${column})` : `char_length(${column})`
  const checks: Array<Check> = []
  if (field.min !== undefined) {
    const text = decimalOf(field.min)
    checks.push({ purpose: "min", says: [text], sql: `${column} >= ${bound(text)}` })
  }
  if (field.max !== undefined) {
    const text = decimalOf(field.max)
    checks.push({ purpose: "max", says: [text], sql: `${column} <= ${bound(text)}` })
  }
  if (field.minLength !== undefined) {
    checks.push({ purpose: "minLength", says: [String(field.minLength)], sql: `${length} >= ${field.minLength}` })
  }
  if (field.maxLength !== undefined) {
    checks.push({ purpose: "maxLength", says: [String(field.maxLength)], sql: `${length} <= ${field.maxLength}` })
  }
  if (field.pattern !== undefined) {
    checks.push({ purpose: "pattern", says: [field.pattern], sql: `${column} ~ ${quoteText(field.pattern)}` })
  }
  if (field.enum !== undefined) {
    checks.push({ purpose: "enum", says: field.enum, sql: `${column} in (${field.enum.map(quoteText).join(", ")})` })
  }
  return checks
}

/** The type of a field as it must stay. */
const typeOf = (field: Field): string =>
  field.ref === undefined ? field.type : `ref ${field.ref.object}/${field.ref.version}`

/** The table of a definition. */
export const wantedTable = (spec: SchemaDefinitionSpec, schema: string): WantedTable => {
  const path = pathOfDefinition(spec)
  const pathText = `${spec.org}/${spec.app}/${spec.domain}/${spec.object}/${spec.version}`
  const name = pgTableOf(path)
  const table = qualified(schema, name)
  const checks = spec.fields.flatMap((field, index) =>
    checksOf(field).map((check) => ({
      name: constraintName("ck", name, [field.name], check.purpose),
      fields: [field.name],
      sql: check.sql,
      comment: `${check.purpose} of ${field.name}`,
      at: ["fields", index, check.purpose],
      record: { field: field.name, purpose: check.purpose, says: check.says }
    }))
  )
  const index = (fields: ReadonlyArray<string>, unique: boolean, at: Path) => {
    const indexName = constraintName(unique ? "uq" : "ix", name, fields)
    const isRef = !unique && spec.fields.some((field) => field.type === "ref" && fields[0] === field.name)
    // an order ends in id; a foreign key is looked up among deleted rows too, the rest only among those that live
    const columns = unique ? nameList(fields) : `${nameList(fields)}, id`
    return {
      name: indexName,
      fields,
      sql: `create ${unique ? "unique " : ""}index ${quoteName(indexName)} on ${table} (${columns})${isRef ? "" : " where deleted_at is null"}`,
      comment: `${unique ? "unique" : "index"} ${fields.join(", ")}`,
      at,
      record: { fields, unique }
    }
  }
  const indexes = [
    ...spec.fields.flatMap((field, position) => [
      ...(field.unique ? [index([field.name], true, ["fields", position, "unique"])] : []),
      ...(field.type === "ref" || (field.indexed && !field.unique)
        ? [index([field.name], false, ["fields", position, "indexed"])]
        : [])
    ]),
    ...(spec.uniqueConstraints ?? []).map(({ fields }, position) =>
      index(fields, true, ["uniqueConstraints", position])
    )
  ]
  const foreignKeys = spec.fields.flatMap((field, position): ReadonlyArray<WantedForeignKey> => {
    if (field.ref === undefined) return []
    const { object, version } = field.ref
    const target = { ...path, object, version }
    const targetTable = pgTableOf(target)
    const constraint = constraintName("fk", name, [field.name])
    return [
      {
        name: constraint,
        fields: [field.name],
        field: field.name,
        target: `${spec.org}/${spec.app}/${spec.domain}/${object}/${version}`,
        targetTable,
        sql: `alter table ${table} add constraint ${quoteName(constraint)} foreign key (${quoteName(field.name)}, ${quoteName(liveColumn(field.name))}) references ${qualified(schema, targetTable)} (id, _live) not valid`,
        comment: `${field.name} refers to ${object}/${version}`,
        at: ["fields", position, "ref"]
      }
    ]
  })
  const entries = <A extends { readonly name: string; readonly record: B }, B>(parts: ReadonlyArray<A>) =>
    Object.fromEntries(parts.map((part) => [part.name, part.record]))
  return {
    path: pathText,
    schema,
    name,
    table,
    view: qualified(schema, historyViewOf(name)),
    columns: spec.fields.map(columnOf),
    checks,
    indexes,
    foreignKeys,
    record: {
      path: pathText,
      columns: Object.fromEntries(
        spec.fields.map((field) => [
          field.name,
          {
            type: typeOf(field),
            sql: pgType(field),
            required: field.required,
            ...(field.default === undefined ? {} : { default: String(field.default) })
          }
        ])
      ),
      checks: entries(checks),
      indexes: entries(indexes)
    }
  }
}

/** The columns that every table has, and its keys. */
const systemSql = (name: string): ReadonlyArray<string> => [
  `id uuid not null constraint ${quoteName(constraintName("pk", name, ["id"]))} primary key`,
  "version int4 not null default 1",
  "created_at timestamptz not null",
  'created_by text collate "C" not null',
  "updated_at timestamptz not null",
  'updated_by text collate "C" not null',
  "deleted_at timestamptz",
  "_live boolean generated always as (deleted_at is null) stored",
  `constraint ${quoteName(constraintName("uq", name, ["id", "_live"]))} unique (id, _live)`
]

/** The statements that make the table without its foreign keys, run as the domain's owner. */
export const createTable = (wanted: WantedTable): ReadonlyArray<string> => {
  const owner = quoteName(rolesOf(wanted.schema).owner)
  const columns = wanted.columns.flatMap((column) => [
    [
      column.sql,
      ...(wanted.record.columns[column.name]?.required === true ? ["not null"] : []),
      ...(column.defaultSql === undefined ? [] : [`default ${column.defaultSql}`])
    ].join(" "),
    ...(column.live === undefined ? [] : [column.live])
  ])
  const checks = wanted.checks.map(({ name, sql }) => `constraint ${quoteName(name)} check (${sql})`)
  return [
    `create table ${wanted.table} (\n  ${[...systemSql(wanted.name), ...columns, ...checks].join(",\n  ")}\n)`,
    `alter table ${wanted.table} enable row level security, force row level security`,
    // without it adding a foreign key would validate nothing, and a backfill touch no row
    `create policy velocity_ddl on ${wanted.table} to ${owner} using (true) with check (true)`,
    ...wanted.checks.map((check) => commentOnConstraint(wanted, check)),
    ...wanted.indexes.flatMap((index) => [index.sql, commentOnIndex(wanted, index)])
  ]
}

export const commentOnConstraint = (wanted: WantedTable, part: WantedPart): string =>
  `comment on constraint ${quoteName(part.name)} on ${wanted.table} is ${quoteText(part.comment)}`

export const commentOnIndex = (wanted: WantedTable, part: WantedPart): string =>
  `comment on index ${qualified(wanted.schema, part.name)} is ${quoteText(part.comment)}`

/**
 * What lets `platform.erase_record` delete a row, which runs as `velocity_owner`: the right to find one by its id and to
 * delete it. No login can become `velocity_owner`; whoever else could delete would leave no entry (migrations/0009).
 */
const erasureSql = ({ schema, table }: WantedTable, prefix: string): ReadonlyArray<string> => [
  `drop policy if exists velocity_erase on ${table}`,
  `create policy velocity_erase on ${table} to ${prefix}velocity_owner using (true) with check (false)`,
  `grant usage on schema ${quoteName(schema)} to ${prefix}velocity_owner`,
  `grant select (id), delete on ${table} to ${prefix}velocity_owner`
]

/**
 * The policies and the history view, and their digest. `storage` is the id that history is keyed by, `prefix` that of the
 * installation's roles.
 */
export const accessSql = (
  wanted: WantedTable,
  spec: SchemaDefinitionSpec,
  definition: number,
  storage: number,
  prefix = ""
): { readonly statements: ReadonlyArray<string>; readonly digest: string } => {
  const roles = rolesOf(wanted.schema)
  const all = nameList([roles.reader, roles.writer, roles.admin])
  const writers = nameList([roles.writer, roles.admin])
  const { insert, select, update } = policiesOf(spec, definition)
  const history = historyConditionOf(spec)
  const statements = [
    `drop policy if exists velocity_select on ${wanted.table}`,
    `drop policy if exists velocity_insert on ${wanted.table}`,
    `drop policy if exists velocity_update on ${wanted.table}`,
    `create policy velocity_select on ${wanted.table} for select to ${all} using (${select})`,
    `create policy velocity_insert on ${wanted.table} for insert to ${writers} with check (${insert})`,
    `create policy velocity_update on ${wanted.table} for update to ${writers} using (${update}) with check (${update})`,
    `create or replace view ${wanted.view} with (security_barrier = true) as
  select id as event_id, entity_id, version, op, occurred_at, actor, request_id, changed, state
  from platform.event_log where storage_id = ${storage}${history === undefined ? "" : ` and (${history})`}`,
    `comment on view ${wanted.view} is ${quoteText(`The past of ${wanted.path}`)}`,
    `grant select on ${wanted.table}, ${wanted.view} to ${all}`,
    `grant insert, update on ${wanted.table} to ${writers}`,
    ...erasureSql(wanted, prefix)
  ]
  return { statements, digest: sha256Hex(statements.join("\n")).slice(0, 16) }
}

/** The statements that shut domain roles out; rows, constraints, the owner's policy and what erasure needs stay. */
export const withdrawSql = (schema: string, table: string): ReadonlyArray<string> => {
  const roles = rolesOf(schema)
  const all = nameList([roles.reader, roles.writer, roles.admin])
  const name = qualified(schema, table)
  return [
    ...["velocity_select", "velocity_insert", "velocity_update"].map(
      (policy) => `drop policy if exists ${policy} on ${name}`
    ),
    `revoke all on ${name}, ${qualified(schema, historyViewOf(table))} from ${all}`
  ]
}
