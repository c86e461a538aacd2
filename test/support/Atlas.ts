/**
 * A domain `{org}/geo/atlas` as provisioning leaves one, made with plain SQL as `velocity_operator`, for tests of what
 * the database itself promises: `country_v1` with row filters, `city_v1` without, and a second domain beside them.
 */
import type * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import { connect } from "./Database.ts"

/** Ids in `platform.schema_defs` of what was made. */
export interface Atlas {
  readonly schema: string
  readonly other: string
  readonly chain: string
  readonly country: { readonly id: number; readonly generation: number; readonly storage: number }
  readonly city: { readonly id: number; readonly generation: number; readonly storage: number }
}

const roles = ["_owner", "_reader", "_writer", "_admin"]

/** The statements that make a domain's roles and schema. */
const domainSql = (schema: string, chain: string): ReadonlyArray<string> => [
  ...roles.map((suffix) => `create role ${schema}${suffix} nologin`),
  `grant ${schema}_reader, ${schema}_writer, ${schema}_admin to velocity_api with inherit false, set true, admin false`,
  `grant ${schema}_owner to velocity_operator with inherit false, set true, admin false`,
  `insert into platform.domains (chain, pg_schema) values ('${chain}', '${schema}')`,
  `select platform.domain_admit('${schema}')`,
  `create schema ${schema} authorization ${schema}_owner`,
  `set local role ${schema}_owner`,
  `grant usage on schema ${schema} to ${schema}_reader, ${schema}_writer, ${schema}_admin`,
  "reset role"
]

const system =
  "id uuid primary key, version int not null default 1, created_at timestamptz not null, deleted_at timestamptz, _live boolean generated always as (deleted_at is null) stored, unique (id, _live)"

const tableSql = (schema: string, table: string, columns: string): ReadonlyArray<string> => [
  `create table ${schema}.${table} (${system}, ${columns})`,
  `alter table ${schema}.${table} enable row level security, force row level security`,
  `create policy velocity_ddl on ${schema}.${table} to ${schema}_owner using (true) with check (true)`,
  `grant select on ${schema}.${table} to ${schema}_reader, ${schema}_writer, ${schema}_admin`,
  `grant insert, update on ${schema}.${table} to ${schema}_writer, ${schema}_admin`,
  `create policy velocity_erase on ${schema}.${table} to velocity_owner using (true) with check (false)`,
  `grant usage on schema ${schema} to velocity_owner`,
  `grant select (id), delete on ${schema}.${table} to velocity_owner`
]

const openPolicies = (schema: string, table: string): ReadonlyArray<string> => [
  `create policy velocity_select on ${schema}.${table} for select to ${schema}_reader, ${schema}_writer, ${schema}_admin using (true)`,
  `create policy velocity_insert on ${schema}.${table} for insert to ${schema}_writer, ${schema}_admin with check (true)`,
  `create policy velocity_update on ${schema}.${table} for update to ${schema}_writer, ${schema}_admin using (true) with check (true)`
]

const grantsJson =
  '{"create":["buyer","clerk"],"read":["buyer","store"],"update":["buyer"],"delete":["buyer"],"restore":["buyer"],"history":["buyer"]}'

const access = (filtered: boolean): string =>
  JSON.stringify({
    access: {
      roles: [
        { role: "buyer", operations: ["create", "read", "update", "delete", "restore", "history"] },
        { role: "store", operations: ["read"] },
        { role: "clerk", operations: ["create"] }
      ],
      rowFilters: filtered
        ? [{ role: "store", filter: { field: "store_id", op: "eq", identity: "attributes.store_id" } }]
        : []
    }
  })

/** Makes both domains; `org` must be the database's own, since roles are the server's. */
export const provisionAtlas = (operatorUrl: string, org: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const schema = `${org}_geo_atlas`
      const chain = `${org}/geo/atlas`
      const connection = yield* connect(operatorUrl)
      const define = (object: string, filtered: boolean) =>
        connection.query(
          `insert into platform.schema_defs (path, chain, storage, pg_schema, pg_table, wanted, serving, grants, state)
           values ($1, $2, $3, $4, $5, $6::jsonb, $6::jsonb, $7::jsonb, 'Serving') returning id, generation::int4, storage_id as storage`,
          [`${chain}/${object}/v1`, chain, `${chain}/${object}`, schema, `${object}_v1`, access(filtered), grantsJson]
        )
      yield* connection.query("begin")
      for (const sql of [...domainSql(schema, chain), ...domainSql(`${org}_geo_other`, `${org}/geo/other`)]) {
        yield* connection.query(sql)
      }
      const [country] = (yield* define("country", true)).rows
      const [city] = (yield* define("city", false)).rows
      yield* connection.query(`set local role ${schema}_owner`)
      const domainRoles = `${schema}_reader, ${schema}_writer, ${schema}_admin`
      for (const sql of [
        ...tableSql(schema, "country_v1", "name text not null, store_id text"),
        `create policy velocity_select on ${schema}.country_v1 for select to ${domainRoles} using (
           (select platform.has_role('{buyer}')) or ((select platform.has_role('{store}')) and store_id = (select platform.attr('store_id')))
           or ((select platform.op(${country?.id}, 'create')) and (select platform.has_role('{clerk}'))))`,
        `create policy velocity_insert on ${schema}.country_v1 for insert to ${schema}_writer, ${schema}_admin with check (true)`,
        `create policy velocity_update on ${schema}.country_v1 for update to ${schema}_writer, ${schema}_admin
           using ((select platform.has_role('{buyer}'))) with check ((select platform.has_role('{buyer}')))`,
        ...tableSql(
          schema,
          "city_v1",
          `name text not null default 'x', country uuid, population int8 check (population >= 0),
           _live_country boolean generated always as (case when country is not null and deleted_at is null then true end) stored,
           foreign key (country, _live_country) references ${schema}.country_v1 (id, _live)`
        ),
        ...openPolicies(schema, "city_v1"),
        `create view ${schema}.city_v1_history with (security_barrier = true) as
           select id as event_id, entity_id, version, op, occurred_at, actor, request_id, changed, state
           from platform.event_log where storage_id = ${city?.storage}`,
        `grant select on ${schema}.city_v1_history to ${domainRoles}`
      ]) {
        yield* connection.query(sql)
      }
      yield* connection.query("reset role")
      yield* connection.query(
        "select platform.audit_insert($1, 'operator', 'operator.schema.apply', 'ok', null, null, '{}', null, null, null, null)",
        [chain]
      )
      yield* connection.query("commit")
      return { schema, chain, other: `${org}_geo_other`, country, city } as unknown as Atlas
    })
  )

/** A city created as the API creates one: gate, row with its event, audit entry, one transaction. */
export const createCity = (apiUrl: string, atlas: Atlas, name: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(apiUrl)
      const ctx = JSON.stringify({
        op: "create",
        def: atlas.city.id,
        actor: "dev/alice",
        roles: ["buyer"],
        attributes: {},
        request_id: "r-1"
      })
      const entity = crypto.randomUUID()
      const event = crypto.randomUUID()
      yield* connection.query("begin")
      yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
        `${atlas.schema}_writer`,
        ctx
      ])
      yield* connection.query(
        `with made as (
           insert into ${atlas.schema}.city_v1 (id, name, created_at) select $1::uuid, $2, clock_timestamp() where (select platform.enter($3::int4, $4::int8, 'create'))
           returning id, name, created_at
         ), event as (
           insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, changed, state, salt, hash)
           select $5::uuid, $6, $7::int4, $3::int4, id, 1, 'create', created_at, 'dev/alice', '{name}', jsonb_build_object('name', name), '\\x01',
             platform.event_hash('\\x01', format('%s/%s/1/create', $7::int4, id), jsonb_build_object('name', name))
           from made)
         select id::text from made`,
        [entity, name, atlas.city.id, atlas.city.generation, event, atlas.chain, atlas.city.storage]
      )
      const audited = yield* connection.query("select platform.audit_event($1::uuid, $2::uuid)::text as id", [
        entity,
        event
      ])
      yield* connection.query("commit")
      return { entity, event, entry: audited.rows[0]?.id as string | null }
    })
  )

/** A record erased as the API erases one, over a connection that is given. */
export const eraseCity = Effect.fnUntraced(function* (
  connection: PgConnection.PgConnection,
  atlas: Atlas,
  entity: string
) {
  yield* connection.query("begin")
  yield* connection.query("select set_config('role', 'velocity_privacy', true), set_config('velocity.ctx', $1, true)", [
    '{"actor":"platform/olga","request_id":"r-2","reason":"asked for","ticket":"T-2"}'
  ])
  yield* connection.query("select platform.erase_record($1, $2::uuid)", [`${atlas.chain}/city/v1`, entity])
  yield* connection.query("commit")
})
