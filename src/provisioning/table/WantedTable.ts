/**
 * The table that a definition asks for: columns, constraints and indexes, each with its SQL. Pure.
 *
 * What is there is compared with it through the catalogue alone (`Catalogue`), never through this SQL.
 */
import { decimalOf, type Field, pgType } from "../../domain/Field.ts"
import { constraintName, formatPath, historyViewOf, liveColumn, pgTableOf, rolesOf } from "../../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import type { Family } from "./Faces.ts"
import { faceSql, facesOf, historyCondition, historySql, sharedPolicies } from "./FaceView.ts"
import { nameList, qualified, quoteName, quoteText } from "./SqlText.ts"

/** Where in the spec something was asked for. */
export type Path = ReadonlyArray<PropertyKey>

export interface WantedColumn {
  readonly name: string
  readonly field: Field
  /** As SQL writes it, collation included. */
  readonly type: string
  /** A default's literal, which is set apart from adding the column, so that rows that are there stay as they are. */
  readonly defaultSql: string | undefined
  /** The generated column beside a ref, with its type and expression. */
  readonly live: string | undefined
  readonly at: Path
}

/** A CHECK, index or foreign key. */
export interface WantedPart {
  readonly name: string
  readonly fields: ReadonlyArray<string>
  /** For the catalogue's COMMENT. */
  readonly comment: string
  readonly at: Path
}

export type CheckPurpose = "min" | "max" | "minLength" | "maxLength" | "pattern" | "enum"

export interface WantedCheck extends WantedPart {
  readonly field: string
  /** The field that says it. */
  readonly bound: Field
  readonly purpose: CheckPurpose
  /** Its condition. */
  readonly condition: string
}

export interface WantedIndex extends WantedPart {
  readonly unique: boolean
  /** Over live rows only. */
  readonly partial: boolean
}

export interface WantedForeignKey extends WantedPart {
  readonly field: string
  /** The path that the field points to. */
  readonly target: string
  readonly targetTable: string
  /** The statement that adds it, without looking at the rows that are there. */
  readonly sql: string
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
  readonly checks: ReadonlyArray<WantedCheck>
  readonly indexes: ReadonlyArray<WantedIndex>
  /** All that the definition asks for, whether their targets are there or not. */
  readonly foreignKeys: ReadonlyArray<WantedForeignKey>
}

/** The literal of a default or of a value that a column is compared with. */
export const literalOf = (field: Field, text: string): string => {
  if (field.type === "bytes") return `${quoteText(`\\x${Buffer.from(text, "base64").toString("hex")}`)}::bytea`
  return `${quoteText(text)}::${pgType(field)}`
}

/** Texts compare by code points, so that an index serves equality, ranges and order alike. */
export const columnType = (field: Field): string => (pgType(field) === "text" ? 'text collate "C"' : pgType(field))

/** The generated column beside a ref: whether the row is live and the ref is set, else NULL. */
export const liveSql = (name: string): string =>
  `${quoteName(liveColumn(name))} boolean generated always as (case when ${quoteName(name)} is not null and deleted_at is null then true end) stored`

const columnOf = (field: Field, at: Path): WantedColumn => ({
  name: field.name,
  field,
  type: columnType(field),
  defaultSql: field.default === undefined ? undefined : literalOf(field, String(field.default)),
  live: field.type === "ref" ? liveSql(field.name) : undefined,
  at
})

interface Check {
  readonly purpose: CheckPurpose
  readonly condition: string
}

const checksOf = (field: Field): ReadonlyArray<Check> => {
  const column = quoteName(field.name)
  const bound = (text: string) =>
    `${quoteText(text)}::${field.type === "integer" ? "int8" : field.float === true ? "float8" : "numeric"}`
  const length = field.type === "bytes" ? `octet_length(${column})` : `char_length(${column})`
  const checks: Array<Check> = []
  if (field.min !== undefined) {
    checks.push({ purpose: "min", condition: `${column} >= ${bound(decimalOf(field.min))}` })
  }
  if (field.max !== undefined) {
    checks.push({ purpose: "max", condition: `${column} <= ${bound(decimalOf(field.max))}` })
  }
  if (field.minLength !== undefined) {
    checks.push({ purpose: "minLength", condition: `${length} >= ${field.minLength}` })
  }
  if (field.maxLength !== undefined) {
    checks.push({ purpose: "maxLength", condition: `${length} <= ${field.maxLength}` })
  }
  if (field.pattern !== undefined) {
    checks.push({ purpose: "pattern", condition: `${column} ~ ${quoteText(field.pattern)}` })
  }
  if (field.enum !== undefined) {
    checks.push({ purpose: "enum", condition: `${column} in (${field.enum.map(quoteText).join(", ")})` })
  }
  return checks
}

/** What other versions have to do with a table. */
export type Shared = Pick<Family, "bounds" | "tables" | "place">

/** The table of the versions that share it. */
export const familyTable = (family: Family, schema: string): WantedTable => wantedTable(family.spec, schema, family)

/** The table of a definition. */
export const wantedTable = (spec: SchemaDefinitionSpec, schema: string, shared?: Shared): WantedTable => {
  const path = pathOfDefinition(spec)
  const placeOf = shared?.place ?? ((_: string, index: number) => ["fields", index])
  const pathText = `${spec.org}/${spec.app}/${spec.domain}/${spec.object}/${spec.version}`
  const name = pgTableOf(path)
  const table = qualified(schema, name)
  const checks = spec.fields.flatMap((field, index) =>
    checksOf(field).map(
      ({ condition, purpose }): WantedCheck => ({
        name: constraintName("ck", name, [field.name], purpose),
        fields: [field.name],
        field: field.name,
        bound: field,
        purpose,
        condition,
        comment: `${purpose} of ${field.name}`,
        at: [...placeOf(field.name, index), purpose]
      })
    )
  )
  // a bound holds for every row, whichever version says it; one that two versions say alike is one
  for (const { field, version } of shared?.bounds ?? []) {
    for (const { condition, purpose } of checksOf(field)) {
      if (checks.some((one) => one.field === field.name && one.condition === condition)) continue
      const standard = constraintName("ck", name, [field.name], purpose)
      const own = checks.some((one) => one.name === standard)
        ? constraintName("ck", name, [field.name], `${purpose} ${version}`)
        : standard
      checks.push({
        name: own,
        fields: [field.name],
        field: field.name,
        bound: field,
        purpose,
        condition,
        comment: `${purpose} of ${field.name} in ${version}`,
        at: [...placeOf(field.name, 0), purpose]
      })
    }
  }
  const index = (fields: ReadonlyArray<string>, unique: boolean, at: Path): WantedIndex => ({
    name: constraintName(unique ? "uq" : "ix", name, fields),
    fields,
    unique,
    // a foreign key is looked up among deleted rows too, the rest only among those that live
    partial: unique || !spec.fields.some((field) => field.type === "ref" && fields[0] === field.name),
    comment: `${unique ? "unique" : "index"} ${fields.join(", ")}`,
    at
  })
  const indexes = [
    ...spec.fields.flatMap((field, position) => [
      ...(field.unique ? [index([field.name], true, [...placeOf(field.name, position), "unique"])] : []),
      ...(field.type === "ref" || (field.indexed && !field.unique)
        ? [index([field.name], false, [...placeOf(field.name, position), "indexed"])]
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
    const targetTable = shared?.tables.get(formatPath(target)) ?? pgTableOf(target)
    const constraint = constraintName("fk", name, [field.name])
    return [
      {
        name: constraint,
        fields: [field.name],
        field: field.name,
        target: formatPath(target),
        targetTable,
        sql: `alter table ${table} add constraint ${quoteName(constraint)} foreign key (${quoteName(field.name)}, ${quoteName(liveColumn(field.name))}) references ${qualified(schema, targetTable)} (id, _live) not valid`,
        comment: `${field.name} refers to ${object}/${version}`,
        at: [...placeOf(field.name, position), "ref"]
      }
    ]
  })
  return {
    path: pathText,
    schema,
    name,
    table,
    view: qualified(schema, historyViewOf(name)),
    columns: spec.fields.map((field, position) => columnOf(field, placeOf(field.name, position))),
    checks,
    indexes,
    foreignKeys
  }
}

/** What an index is made under and over, where that is not what it is called and is of in the end. */
export interface IndexMaking {
  readonly name?: string | undefined
  readonly columnOf?: (field: string) => string
  readonly concurrently?: boolean
}

/** The statement that makes an index. */
export const indexSql = (
  { table }: WantedTable,
  index: WantedIndex,
  { columnOf = (field) => field, concurrently = false, name = index.name }: IndexMaking = {}
): string => {
  const columns = nameList(index.fields.map(columnOf))
  const kind = `${index.unique ? "unique " : ""}index${concurrently ? " concurrently" : ""}`
  // an order ends in id
  return `create ${kind} ${quoteName(name)} on ${table} (${index.unique ? columns : `${columns}, id`})${index.partial ? " where deleted_at is null" : ""}`
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

/** What a table of ours says of itself; a table that does not is not ours. */
export const tableComment = (path: string): string => `Velocity record type ${path}`

/** The statements that make the table without its foreign keys, run as the domain's owner. */
export const createTable = (wanted: WantedTable): ReadonlyArray<string> => {
  const columns = wanted.columns.flatMap(({ defaultSql, field, live, name, type }) => [
    [
      `${quoteName(name)} ${type}`,
      ...(field.required ? ["not null"] : []),
      ...(defaultSql === undefined ? [] : [`default ${defaultSql}`])
    ].join(" "),
    ...(live === undefined ? [] : [live])
  ])
  const checks = wanted.checks.map(({ condition, name }) => `constraint ${quoteName(name)} check (${condition})`)
  return [
    `create table ${wanted.table} (\n  ${[...systemSql(wanted.name), ...columns, ...checks].join(",\n  ")}\n)`,
    `comment on table ${wanted.table} is ${quoteText(tableComment(wanted.path))}`,
    ...wanted.checks.map((check) => commentOnConstraint(wanted, check)),
    ...wanted.indexes.flatMap((index) => [indexSql(wanted, index), commentOnIndex(wanted, index)])
  ]
}

/** A foreign key, checked against the rows that are there. */
export const foreignKeySql = (wanted: WantedTable, key: WantedForeignKey): ReadonlyArray<string> => [
  key.sql,
  `alter table ${wanted.table} validate constraint ${quoteName(key.name)}`,
  commentOnConstraint(wanted, key)
]

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
 * Row-level security, policies, grants, the history view, and the views of other versions, which must not be there; all else
 * may be run again and again. `prefix` is that of the installation's roles.
 */
export const accessSql = (wanted: WantedTable, family: Family, prefix = ""): ReadonlyArray<string> => {
  const roles = rolesOf(wanted.schema)
  const all = nameList([roles.reader, roles.writer, roles.admin])
  const writers = nameList([roles.writer, roles.admin])
  const { insert, select, update } = sharedPolicies(family)
  const [owner] = family.members
  return [
    `alter table ${wanted.table} enable row level security, force row level security`,
    // without it adding a foreign key would validate nothing, and a backfill touch no row
    `drop policy if exists velocity_ddl on ${wanted.table}`,
    `create policy velocity_ddl on ${wanted.table} to ${quoteName(roles.owner)} using (true) with check (true)`,
    `drop policy if exists velocity_select on ${wanted.table}`,
    `drop policy if exists velocity_insert on ${wanted.table}`,
    `drop policy if exists velocity_update on ${wanted.table}`,
    `create policy velocity_select on ${wanted.table} for select to ${all} using (${select})`,
    `create policy velocity_insert on ${wanted.table} for insert to ${writers} with check (${insert})`,
    `create policy velocity_update on ${wanted.table} for update to ${writers} using (${update}) with check (${update})`,
    ...historySql(wanted.view, wanted.path, family.storage, historyCondition(family, owner)),
    `grant select on ${wanted.table}, ${wanted.view} to ${all}`,
    `grant insert, update on ${wanted.table} to ${writers}`,
    ...erasureSql(wanted, prefix),
    ...facesOf(family).flatMap((member) => faceSql(wanted, family, member))
  ]
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
