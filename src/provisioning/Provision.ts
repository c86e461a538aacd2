/**
 * From a definition to its table, served: DDL, mirror rows, audit entry and notification in one transaction, as
 * `velocity_operator` (tables as the domain's owner).
 *
 * The same definition again does nothing at all: one row is read and no lock taken. What cannot be provisioned changes
 * nothing and says why, by field.
 */
import { Effect } from "effect"
import { grantsOf } from "../domain/Access.ts"
import { admit } from "../domain/Admission.ts"
import { chainOf, formatPath, storageOf } from "../domain/Names.ts"
import { operations } from "../domain/Operation.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { lockDomain, reserveName, setLockTimeout } from "./Names.ts"
import { actorOf, foreignOrigin, type Origin, originParams } from "./Origin.ts"
import { type ProvisionRefused, refused } from "./ProvisionRefused.ts"
import { rolePrefixOf } from "./RolePrefixOf.ts"
import { specHash } from "./SpecHash.ts"
import { inOneBlock } from "./SqlText.ts"
import { changeTable, foreignKeySql } from "./TableChange.ts"
import { commentOnTable, recordOf, type TableRecord } from "./TableRecord.ts"
import { accessSql, createTable, type WantedTable, wantedTable } from "./WantedTable.ts"

/** A definition as it is wanted. */
export interface WantedDefinition {
  readonly spec: SchemaDefinitionSpec
  readonly origin: Origin
}

export interface Outcome {
  readonly _tag: "Unchanged" | "Applied"
  readonly path: string
  readonly pgSchema: string
  readonly pgTable: string
  /** Of what is served now. */
  readonly generation: number
  /** What was done to the table, in a few words each. */
  readonly steps: ReadonlyArray<string>
  /** Paths that refs point to and that are not served: their foreign keys are not there yet. */
  readonly missing: ReadonlyArray<string>
}

type Row = Readonly<Record<string, unknown>>

export const rowSql = `select id, storage_id, wanted_hash, serving is not null as serving, generation::text as generation, foreign_keys, pg_schema, pg_table,
  source, namespace, name from platform.schema_defs where path = $1`

/** The paths that a definition's refs point to, each once. */
const targetsOf = (spec: SchemaDefinitionSpec): ReadonlyArray<string> => [
  ...new Set(
    spec.fields.flatMap(({ ref }) =>
      ref === undefined ? [] : [formatPath({ ...pathOfDefinition(spec), object: ref.object, version: ref.version })]
    )
  )
]

/** Which of these paths are served, so that a foreign key can point to them. */
const servedAmong = (tx: Tx, paths: ReadonlyArray<string>) =>
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

/**
 * Raised when tables that are there need something that no definition says: each is then provisioned once more. 2: the
 * rights that erasure needs.
 */
const form = 2

/** By which it is told whether a definition is to be provisioned. */
const wantedHash = (spec: SchemaDefinitionSpec): string => specHash({ form, spec })

const textsOf = (value: unknown): ReadonlyArray<string> => (Array.isArray(value) ? value.map(String) : [])

/** What is in the mirror, if it says that nothing is to do. */
const unchanged = Effect.fnUntraced(function* (tx: Tx, { origin, spec }: WantedDefinition, row: Row | undefined) {
  if (row === undefined || row.serving !== true || row.wanted_hash !== wantedHash(spec)) return undefined
  if (row.source !== origin.source || row.namespace !== origin.namespace || row.name !== origin.name) return undefined
  const path = formatPath(pathOfDefinition(spec))
  const served = yield* servedAmong(tx, targetsOf(spec))
  const inForce = new Set(textsOf(row.foreign_keys))
  const missing = new Set<string>()
  for (const { name, ref } of spec.fields) {
    if (ref === undefined) continue
    const target = formatPath({ ...pathOfDefinition(spec), object: ref.object, version: ref.version })
    if (!served.has(target)) missing.add(target)
    else if (!inForce.has(name)) return undefined
  }
  return {
    _tag: "Unchanged",
    path,
    pgSchema: String(row.pg_schema),
    pgTable: String(row.pg_table),
    generation: Number(row.generation),
    steps: [],
    missing: [...missing]
  } satisfies Outcome
})

/** What `apply` would answer where there is nothing to do, else undefined. Takes no lock and writes nothing. */
export const current = (tx: Tx, wanted: WantedDefinition): Effect.Effect<Outcome | undefined, DatabaseFailure> =>
  Effect.flatMap(tx.query(statement(rowSql, [formatPath(pathOfDefinition(wanted.spec))])), ({ rows: [row] }) =>
    unchanged(tx, wanted, row)
  )

/** What the domain and its other definitions have against this one. */
const refusalOf = Effect.fnUntraced(function* (tx: Tx, wanted: WantedDefinition, row: Row | undefined) {
  const path = pathOfDefinition(wanted.spec)
  const text = formatPath(path)
  const { rows: domains } = yield* tx.query(
    statement("select pg_schema from platform.domains where chain = $1", [chainOf(path)])
  )
  const [domain] = domains
  if (domain === undefined) return yield* refused("ParentMissing", `the domain ${chainOf(path)} is not there`)
  // nothing is served by a withdrawn definition, so whoever comes next may have its path
  const conflict = row === undefined || row.serving !== true ? undefined : foreignOrigin(row, wanted.origin, text)
  if (conflict !== undefined) return yield* conflict
  const { rows: others } = yield* tx.query(
    statement("select path from platform.schema_defs where storage = $1 and path <> $2 order by path limit 1", [
      storageOf(path),
      text
    ])
  )
  if (others.length > 0) {
    return yield* refused(
      "VersionsNotYet",
      `${String(others[0]?.path)} has these records; a second version of an object is not there yet`,
      [{ pointer: "/spec/version", code: "versions_not_yet", detail: `${String(others[0]?.path)} is there` }]
    )
  }
  return String(domain.pg_schema)
})

/** The record that the table's COMMENT keeps; undefined where there is no table. */
const readTable = Effect.fnUntraced(function* (tx: Tx, wanted: WantedTable) {
  const { rows } = yield* tx.query(
    statement(
      `select obj_description(c.oid, 'pg_class') as comment from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace
       where n.nspname = $1 and c.relname = $2`,
      [wanted.schema, wanted.name]
    )
  )
  const [row] = rows
  if (row === undefined) return undefined
  const record = recordOf(typeof row.comment === "string" ? row.comment : null)
  if (record === undefined || record.path !== wanted.path) {
    return yield* refused("NotOurs", `the table ${wanted.schema}.${wanted.name} is there, and Velocity did not make it`)
  }
  return record
})

interface MirrorIds {
  readonly id: number
  readonly storage: number
}

/** The row of a new definition, which gives it its ids. It is served when the transaction commits. */
const insertRow = Effect.fnUntraced(function* (tx: Tx, wanted: WantedTable, spec: SchemaDefinitionSpec) {
  const path = pathOfDefinition(spec)
  const { rows } = yield* tx.query(
    statement(
      `insert into platform.schema_defs (path, chain, storage, pg_schema, pg_table) values ($1, $2, $3, $4, $5) returning id, storage_id`,
      [wanted.path, chainOf(path), storageOf(path), wanted.schema, wanted.name]
    )
  )
  return { id: Number(rows[0]?.id), storage: Number(rows[0]?.storage_id) } satisfies MirrorIds
})

const serve = Effect.fnUntraced(function* (
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
      `update platform.schema_defs set wanted = $2::jsonb, wanted_hash = $3, serving = $2::jsonb, generation = nextval('platform.generation_seq'),
         grants = $4::jsonb, foreign_keys = $5::text[], state = 'Serving', source = $6, namespace = $7, name = $8, uid = $9,
         resource_generation = $10, updated_at = now()
       where id = $1 returning generation::text as generation`,
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
  return Number(rows[0]?.generation)
})

/** What rows that are there have against DDL, in words. */
const dataConflict =
  (wanted: WantedTable) =>
  (error: DatabaseFailure): Effect.Effect<never, DatabaseFailure | ProvisionRefused> => {
    const { reason } = error
    if (reason._tag !== "ForeignKey" && reason._tag !== "Check" && reason._tag !== "Unique") return Effect.fail(error)
    const part = [...wanted.checks, ...wanted.indexes, ...wanted.foreignKeys].find(
      (one) => one.name === reason.constraint
    )
    const comment = part?.comment ?? reason.constraint
    return Effect.fail(refused("DataConflict", `records that are there contradict: ${comment}`))
  }

/**
 * Makes a definition's table what it says and serves it. Fails with `ProvisionRefused` where that cannot be, and then the
 * transaction is to be given up.
 */
export const apply = Effect.fn("Provision.apply")(function* (tx: Tx, wanted: WantedDefinition) {
  const { origin, spec } = wanted
  const faults = admit(spec).map((one) => ({ ...one, pointer: `/spec${one.pointer}` }))
  if (faults.length > 0) return yield* refused("Invalid", "the definition contradicts itself", faults)
  const path = pathOfDefinition(spec)
  const chain = chainOf(path)
  const text = formatPath(path)
  const look = tx.query(statement(rowSql, [text]))
  const before = yield* unchanged(tx, wanted, (yield* look).rows[0])
  if (before !== undefined) return before

  yield* lockDomain(tx, chain)
  const [row] = (yield* look).rows
  const meanwhile = yield* unchanged(tx, wanted, row)
  if (meanwhile !== undefined) return meanwhile
  const schema = yield* refusalOf(tx, wanted, row)
  const table = wantedTable(spec, schema)
  const actual = yield* readTable(tx, table)
  const { change, faults: notYet } =
    actual === undefined
      ? { change: { statements: createTable(table), steps: ["create"] }, faults: [] }
      : changeTable(table, actual)
  if (notYet.length > 0) {
    return yield* refused(
      "EvolutionNotYet",
      "this change to a table that is there cannot be made yet (take back what it says here, or start over as another object)",
      notYet
    )
  }

  yield* tx.query(setLockTimeout)
  yield* reserveName(tx, `${schema}.${table.name}`, text)
  const ids =
    row === undefined ? yield* insertRow(tx, table, spec) : { id: Number(row.id), storage: Number(row.storage_id) }
  const served = yield* servedAmong(tx, targetsOf(spec))
  const made = new Set(Object.keys(actual?.foreignKeys ?? {}))
  const possible = table.foreignKeys.filter(
    (key) => made.has(key.name) || key.target === text || served.has(key.target)
  )
  const fresh = possible.filter((key) => !made.has(key.name))
  const access = accessSql(table, spec, ids.id, ids.storage, yield* rolePrefixOf(tx))
  const isOpen = actual?.access === access.digest
  const record: TableRecord = {
    ...table.record,
    foreignKeys: Object.fromEntries(possible.map((key) => [key.name, key.field])),
    access: access.digest
  }
  const statements = [
    ...change.statements,
    ...fresh.flatMap((key) => foreignKeySql(table, key)),
    ...(isOpen ? [] : access.statements)
  ]
  const steps = [
    ...change.steps,
    ...fresh.map((key) => `foreign key ${key.field}`),
    ...(isOpen || actual === undefined ? [] : ["access"])
  ]
  if (statements.length > 0) {
    yield* asOwner(tx, schema, (owner) =>
      owner.query(inOneBlock([...statements, commentOnTable(table.table, record)]))
    ).pipe(Effect.catch(dataConflict(table)))
  }
  const generation = yield* serve(
    tx,
    wanted,
    ids.id,
    possible.map((key) => key.field)
  )
  yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`def:${text}`]))
  yield* AuditChain.insert(tx, {
    chain,
    actor: actorOf(origin),
    action: "operator.schema.apply",
    outcome: "ok",
    schemaPath: text,
    payload: { generation, specHash: specHash(spec), steps: steps.slice(0, 100) }
  })
  return {
    _tag: "Applied",
    path: text,
    pgSchema: schema,
    pgTable: table.name,
    generation,
    steps,
    missing: targetsOf(spec).filter((target) => target !== text && !served.has(target))
  } satisfies Outcome
})
