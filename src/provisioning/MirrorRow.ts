/**
 * The row of a definition in `platform.schema_defs`: what it is found by, how a new one gets its ids, and what serves a
 * definition from a transaction's end on.
 */
import { Effect } from "effect"
import { grantsOf } from "../domain/Access.ts"
import { chainOf, formatPath, pgTableOf } from "../domain/Names.ts"
import { operations } from "../domain/Operation.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as Catalogue from "./table/Catalogue.ts"
import * as FaceStore from "./table/FaceStore.ts"
import { type Origin, originParams } from "./table/Origin.ts"
import { specHash } from "./table/SpecHash.ts"

/** A definition as it is wanted. */
export interface WantedDefinition {
  readonly spec: SchemaDefinitionSpec
  readonly origin: Origin
  /** The plan that somebody approved, and who. */
  readonly approval?: { readonly hash: string; readonly by: string } | undefined
}

export type Row = Readonly<Record<string, unknown>>

export const rowSql = `select id, storage_id, owner_id, (select o.pg_table from platform.schema_defs o where o.id = schema_defs.owner_id) as owner_table, serving_hash, (select p.id::text from platform.plans p where p.path = schema_defs.path and p.state in ('Waiting', 'Running')) as plan,
  serving is not null as serving, generation::text as generation, foreign_keys, pg_schema, pg_table, approvals,
  state, source, namespace, name from platform.schema_defs where path = $1`

/** Which of these paths are served, so that a foreign key can point to them. */
export const servedAmong = (tx: Tx, paths: ReadonlyArray<string>) =>
  paths.length === 0
    ? Effect.succeed<ReadonlySet<string>>(new Set())
    : Effect.map(
        tx.query(
          statement("select path from platform.schema_defs where serving is not null and path = any ($1::text[])", [
            paths
          ])
        ),
        ({ rows }): ReadonlySet<string> => new Set(rows.map((row) => String(row.path)))
      )

/** The paths that a definition refers to and that are not served. */
export const missingOf = (tx: Tx, spec: SchemaDefinitionSpec): Effect.Effect<ReadonlyArray<string>, DatabaseFailure> =>
  Effect.map(servedAmong(tx, FaceStore.targetsOf(spec)), (served) =>
    FaceStore.targetsOf(spec).filter((target) => target !== formatPath(pathOfDefinition(spec)) && !served.has(target))
  )

/**
 * Raised when tables that are there need something that no definition says: each is then provisioned once more. 2: the
 * rights that erasure needs. 3: the table's COMMENT says no more than whose it is.
 */
const form = 3

/** By which it is told whether a definition is to be provisioned. */
export const wantedHash = (spec: SchemaDefinitionSpec): string => specHash({ form, spec })

export interface MirrorIds {
  readonly id: number
  readonly storage: number
}

/**
 * The row of a new definition, which gives it its ids; one whose records were dropped is new again. It is served when the
 * transaction commits.
 */
export const insertRow = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec,
  schema: string,
  with_: number | undefined
) {
  const path = pathOfDefinition(spec)
  const { rows } = yield* tx.query(
    statement(
      `insert into platform.schema_defs (path, chain, pg_schema, pg_table, storage, storage_id, owner_id)
       select $1, $2, $3, $4, coalesce(w.storage, $5), coalesce(w.storage_id, nextval('platform.storage_id_seq')), coalesce(w.owner_id, w.id)
       from (select 1) one left join platform.schema_defs w on w.id = $6
       on conflict (path) do update set storage = excluded.storage, storage_id = excluded.storage_id, owner_id = excluded.owner_id, state = excluded.state
       returning id, storage_id`,
      [formatPath(path), chainOf(path), schema, pgTableOf(path), FaceStore.storageText(spec), with_ ?? null]
    )
  )
  return { id: Number(rows[0]?.id), storage: Number(rows[0]?.storage_id) } satisfies MirrorIds
})

/**
 * Keeps what a plan leads to. A row that nothing is served by becomes its resource's with that: whose plan it is must be
 * known to an operator that starts when the resource has gone, or the plan holds the object's other versions up for ever.
 */
export const want = Effect.fnUntraced(function* (tx: Tx, { origin, spec }: WantedDefinition, id: number) {
  yield* tx.query(
    statement(
      `update platform.schema_defs set wanted = $2::jsonb, wanted_hash = $3, updated_at = now()
       where id = $1 and wanted_hash is distinct from $3`,
      [id, JSON.stringify(spec), wantedHash(spec)]
    )
  )
  yield* tx.query(
    statement(
      `update platform.schema_defs set source = $2, namespace = $3, name = $4, uid = $5, resource_generation = $6
       where id = $1 and serving is null and state <> 'Withdrawing'
         and (source, namespace, name, uid, resource_generation) is distinct from ($2, $3, $4, $5, $6::int8)`,
      [id, ...originParams(origin)]
    )
  )
})

/** Serves a definition from this transaction's end on, and tells it. Answers its generation. */
export const serve = Effect.fnUntraced(function* (
  tx: Tx,
  { origin, spec }: WantedDefinition,
  id: number,
  foreignKeys: ReadonlyArray<string>
) {
  const grants = Object.fromEntries(
    operations.map((operation) => [operation, grantsOf(spec, operation).map((grant) => grant.role)])
  )
  const { rows } = yield* tx.query(
    statement(
      `update platform.schema_defs set wanted = $2::jsonb, wanted_hash = $3, serving = $2::jsonb, serving_hash = $3, fingerprint = null, generation = nextval('platform.generation_seq'),
         grants = $4::jsonb, foreign_keys = $5::text[], state = 'Serving', source = $6, namespace = $7, name = $8, uid = $9,
         resource_generation = $10, updated_at = now()
       where id = $1 returning generation::text as generation, storage_id, pg_schema, pg_table,
         (select o.pg_table from platform.schema_defs o where o.id = schema_defs.owner_id) as owner_table`,
      [
        id,
        JSON.stringify(spec),
        wantedHash(spec),
        JSON.stringify(grants),
        `{${foreignKeys.join(",")}}`,
        ...originParams(origin)
      ]
    )
  )
  yield* tx.query(statement("delete from platform.field_defs where def_id = $1", [id]))
  yield* tx.query(
    statement(
      `insert into platform.field_defs (def_id, name, position, spec)
       select $1, f.spec ->> 'name', f.position, f.spec from jsonb_array_elements($2::jsonb) with ordinality as f(spec, position)`,
      [id, JSON.stringify(spec.fields)]
    )
  )
  yield* tx.query(
    statement("select pg_notify('velocity_registry', $1)::text as sent", [`def:${formatPath(pathOfDefinition(spec))}`])
  )
  const { owner_table, pg_schema, pg_table, storage_id } = rows[0] ?? {}
  const schema = String(pg_schema)
  const columns = yield* FaceStore.columnsOf(tx, schema, String(owner_table ?? pg_table))
  const made = yield* FaceStore.family(tx, spec, { id, storage: Number(storage_id) }, columns)
  yield* FaceStore.keep(tx, made, schema, id)
  return Number(rows[0]?.generation)
})

/** Keeps what a table was left as, so that drift is told by one comparison. */
export const keepFingerprint = Effect.fnUntraced(function* (tx: Tx, path: string, schema: string, table: string) {
  const actual = yield* Catalogue.read(tx, schema, table)
  yield* tx.query(
    statement(
      "update platform.schema_defs set fingerprint = $2, fingerprint_version = current_setting('server_version_num') where storage_id = (select s.storage_id from platform.schema_defs s where s.path = $1)",
      [path, actual === undefined ? null : Catalogue.fingerprint(actual)]
    )
  )
})
