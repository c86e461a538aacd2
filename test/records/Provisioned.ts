/**
 * A domain as provisioning leaves it, from decoded definitions: roles, tables, constraints, policies, history
 * views and mirror rows, made as `velocity_operator`.
 */
import * as Effect from "effect/Effect"
import { grantsOf, isUnfiltered } from "../../src/domain/Access.ts"
import { type Field, pgType } from "../../src/domain/Field.ts"
import { constraintName, liveColumn } from "../../src/domain/Names.ts"
import { type Operation, operations } from "../../src/domain/Operation.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import type { ServedDefinition } from "../../src/domain/ServedDefinition.ts"
import { quoteName } from "../../src/postgres/Statement.ts"
import { connect } from "../support/Database.ts"

const tiers = ["reader", "writer", "admin"] as const

const columnSql = (table: string, field: Field): string => {
  const name = quoteName(field.name)
  const checks = [
    ...(field.min === undefined ? [] : [["min", `${name} >= ${field.min}`]]),
    ...(field.max === undefined ? [] : [["max", `${name} <= ${field.max}`]]),
    ...(field.enum === undefined ? [] : [["enum", `${name} in (${field.enum.map((one) => `'${one}'`).join(", ")})`]]),
    ...(field.pattern === undefined ? [] : [["pattern", `${name} ~ '${field.pattern.replaceAll("'", "''")}'`]])
  ]
  return [
    `${name} ${pgType(field)}${pgType(field) === "text" ? ' collate "C"' : ""}${field.required ? " not null" : ""}`,
    ...checks.map(([purpose, sql]) => `constraint ${constraintName("ck", table, [field.name], purpose)} check (${sql})`)
  ].join(", ")
}

const predicate = (spec: SchemaDefinitionSpec, operation: Operation): string =>
  grantsOf(spec, operation)
    .map(({ filters, role }) =>
      [
        `(select platform.has_role('{${role}}'))`,
        ...filters.map(({ field, identity, value }) =>
          identity === undefined
            ? `${quoteName(field)}::text = '${value}'`
            : `${quoteName(field)} = (select platform.attr('${identity.slice("attributes.".length)}'))`
        )
      ].join(" and ")
    )
    .map((all) => `(${all})`)
    .join(" or ") || "false"

/** Provisions one domain with these definitions, which name no other domain. */
export const provision = (
  operatorUrl: string,
  specs: ReadonlyArray<SchemaDefinitionSpec>
): Effect.Effect<ReadonlyMap<string, ServedDefinition>, unknown> =>
  Effect.scoped(
    Effect.gen(function* () {
      const [{ app, domain, org }] = specs as [SchemaDefinitionSpec]
      const chain = `${org}/${app}/${domain}`
      const schema = chain.replaceAll("/", "_").replaceAll("-", "_")
      const connection = yield* connect(operatorUrl)
      const run = (sql: string, params: ReadonlyArray<unknown> = []) => connection.query(sql, params)
      const domainRoles = tiers.map((tier) => `${schema}_${tier}`).join(", ")
      const writers = `${schema}_writer, ${schema}_admin`
      yield* run("begin")
      for (const suffix of ["owner", ...tiers]) yield* run(`create role ${schema}_${suffix} nologin`)
      yield* run(`grant ${domainRoles} to velocity_api with inherit false, set true, admin false`)
      yield* run(`grant ${schema}_owner to velocity_operator with inherit false, set true, admin false`)
      yield* run("insert into platform.domains (chain, pg_schema) values ($1, $2)", [chain, schema])
      yield* run("select platform.domain_admit($1)", [schema])
      yield* run(`create schema ${schema} authorization ${schema}_owner`)
      const defs = new Map<string, ServedDefinition>()
      for (const spec of specs) {
        const storage = `${chain}/${spec.object}`
        const path = `${storage}/${spec.version}`
        const pgTable = `${spec.object}_${spec.version}`.replaceAll("-", "_")
        const grants = Object.fromEntries(
          operations.map((operation) => [operation, grantsOf(spec, operation).map((grant) => grant.role)])
        )
        const foreignKeys = spec.fields.filter((field) => field.type === "ref").map((field) => field.name)
        const { rows } = yield* run(
          `insert into platform.schema_defs (path, chain, storage, pg_schema, pg_table, wanted, serving, grants, foreign_keys, state)
           values ($1, $2, $3, $4, $5, $6::jsonb, $6::jsonb, $7::jsonb, $8::text[], 'Serving')
           returning id, generation::int4 as generation, storage_id`,
          [
            path,
            chain,
            storage,
            schema,
            pgTable,
            JSON.stringify(spec),
            JSON.stringify(grants),
            `{${foreignKeys.join(",")}}`
          ]
        )
        const [row] = rows
        defs.set(path, {
          id: Number(row?.id),
          path,
          chain,
          storage,
          storageId: Number(row?.storage_id),
          generation: Number(row?.generation),
          pgSchema: schema,
          pgTable,
          spec,
          foreignKeys
        })
      }
      yield* run(`set local role ${schema}_owner`)
      yield* run(`grant usage on schema ${schema} to ${domainRoles}`)
      for (const { id, pgTable, spec, storageId } of defs.values()) {
        const table = `${schema}.${quoteName(pgTable)}`
        yield* run(
          `create table ${table} (id uuid primary key, version int4 not null default 1, created_at timestamptz not null,
             updated_at timestamptz not null, created_by text collate "C" not null, updated_by text collate "C" not null, deleted_at timestamptz,
             _live boolean generated always as (deleted_at is null) stored, unique (id, _live),
             ${spec.fields.map((field) => columnSql(pgTable, field)).join(", ")})`
        )
        for (const field of spec.fields.filter((one) => one.unique)) {
          yield* run(
            `create unique index ${constraintName("uq", pgTable, [field.name])} on ${table} (${quoteName(field.name)}) where deleted_at is null`
          )
        }
        for (const { fields } of spec.uniqueConstraints ?? []) {
          yield* run(
            `create unique index ${constraintName("uq", pgTable, fields)} on ${table} (${fields.map(quoteName).join(", ")}) where deleted_at is null`
          )
        }
        yield* run(`alter table ${table} enable row level security, force row level security`)
        yield* run(`create policy velocity_ddl on ${table} to ${schema}_owner using (true) with check (true)`)
        const open = operations.every((operation) => isUnfiltered(grantsOf(spec, operation)))
        const gated = (...list: ReadonlyArray<Operation>) =>
          list.map((one) => `((select platform.op(${id}, '${one}')) and (${predicate(spec, one)}))`).join(" or ")
        const read = open ? "true" : `${predicate(spec, "read")} or ${gated("create", "update", "delete", "restore")}`
        const insert = open ? "true" : gated("create")
        const update = open ? "true" : gated("update", "delete", "restore")
        yield* run(`create policy velocity_select on ${table} for select to ${domainRoles} using (${read})`)
        yield* run(`create policy velocity_insert on ${table} for insert to ${writers} with check (${insert})`)
        yield* run(
          `create policy velocity_update on ${table} for update to ${writers} using (${update}) with check (${update})`
        )
        yield* run(`grant select on ${table} to ${domainRoles}`)
        yield* run(`grant insert, update on ${table} to ${writers}`)
        yield* run(
          `create view ${schema}.${quoteName(`${pgTable}_history`)} with (security_barrier = true) as
             select id as event_id, entity_id, version, op, occurred_at, actor, request_id, changed, state
             from platform.event_log where storage_id = ${storageId}`
        )
        yield* run(`grant select on ${schema}.${quoteName(`${pgTable}_history`)} to ${domainRoles}`)
      }
      for (const { pgTable, spec } of defs.values()) {
        const table = `${schema}.${quoteName(pgTable)}`
        for (const field of spec.fields) {
          if (field.ref === undefined) continue
          const column = quoteName(field.name)
          const live = quoteName(liveColumn(field.name))
          const target = `${field.ref.object}_${field.ref.version}`.replaceAll("-", "_")
          yield* run(
            `alter table ${table} add column ${live} boolean
               generated always as (case when ${column} is not null and deleted_at is null then true end) stored`
          )
          yield* run(
            `alter table ${table} add constraint ${constraintName("fk", pgTable, [field.name])}
               foreign key (${column}, ${live}) references ${schema}.${quoteName(target)} (id, _live)`
          )
        }
      }
      yield* run("commit")
      return defs
    })
  )
