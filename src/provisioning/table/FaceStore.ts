/**
 * Versions that share rows, as `platform.schema_defs` has them: whose table each is over, and how each is served.
 */
import { Effect, Schema } from "effect"
import { Face } from "../../domain/Face.ts"
import type { Field } from "../../domain/Field.ts"
import { chainOf, formatPath, storageOf } from "../../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { type Family, familyOf, type KnownVersion, type Sharing, sharingOf } from "./Faces.ts"
import { faceOf } from "./FaceView.ts"
import { refused } from "./ProvisionRefused.ts"
import { canonicalJson } from "./SpecHash.ts"
import { familyTable } from "./WantedTable.ts"

const decodeFace = Schema.decodeUnknownSync(Schema.fromJsonString(Face))

/** The versions of a definition's object, itself among them where it was provisioned once; none whose records were dropped. */
export const versions = (
  tx: Tx,
  spec: SchemaDefinitionSpec
): Effect.Effect<ReadonlyArray<KnownVersion>, DatabaseFailure> => {
  const path = pathOfDefinition(spec)
  return Effect.map(
    tx.query(
      statement(
        `select id, path, owner_id, storage_id, pg_table, serving::text as serving, face::text as face,
           (select coalesce(json_agg(f.spec order by f.position), '[]')::text from platform.field_defs f where f.def_id = s.id) as fields
         from platform.schema_defs s where s.chain = $1 and split_part(s.path, '/', 4) = $2 and s.state <> 'Dropped' order by s.id`,
        [chainOf(path), path.object]
      )
    ),
    ({ rows }) =>
      rows.map(
        (row): KnownVersion => ({
          id: Number(row.id),
          path: String(row.path),
          owner: typeof row.owner_id === "number" ? row.owner_id : undefined,
          storage: Number(row.storage_id),
          relation: String(row.pg_table),
          serving: typeof row.serving === "string" ? (JSON.parse(row.serving) as SchemaDefinitionSpec) : undefined,
          fields: JSON.parse(String(row.fields)) as ReadonlyArray<Field>,
          face: typeof row.face === "string" ? decodeFace(row.face) : undefined
        })
      )
  )
}

/** With whom a definition shares its rows; refused where that cannot be. */
export const sharing = (
  spec: SchemaDefinitionSpec,
  known: ReadonlyArray<KnownVersion>
): Effect.Effect<Extract<Sharing, { readonly _tag: "Own" | "With" }>, ReturnType<typeof refused>> => {
  const found = sharingOf(spec, known)
  if (found._tag === "Absent") return Effect.fail(refused("VersionMissing", found.detail))
  if (found._tag === "Fixed") {
    const { detail } = found
    return Effect.fail(
      refused("CannotEvolve", "whose records a version shows is said once", [
        { pointer: "/spec/sharesRowsWith", code: "shares_rows", detail }
      ])
    )
  }
  return Effect.succeed(found)
}

/** The tables behind some paths. */
const tablesOf = (tx: Tx, paths: ReadonlyArray<string>): Effect.Effect<ReadonlyMap<string, string>, DatabaseFailure> =>
  paths.length === 0
    ? Effect.succeed(new Map())
    : Effect.map(
        tx.query(
          statement(
            `select s.path, coalesce(o.pg_table, s.pg_table) as name
             from platform.schema_defs s left join platform.schema_defs o on o.id = s.owner_id where s.path = any ($1::text[])`,
            [paths]
          )
        ),
        ({ rows }) => new Map(rows.map((row) => [String(row.path), String(row.name)]))
      )

/** The paths that a definition's refs point to, each once. */
export const targetsOf = (spec: SchemaDefinitionSpec): ReadonlyArray<string> => [
  ...new Set(
    spec.fields.flatMap(({ ref }) =>
      ref === undefined ? [] : [formatPath({ ...pathOfDefinition(spec), object: ref.object, version: ref.version })]
    )
  )
]

/** The family of a definition whose row is there. Refused where what its versions say of the rows cannot all be. */
export const family = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec,
  ids: { readonly id: number; readonly storage: number },
  actual: ReadonlySet<string>
) {
  const known = yield* versions(tx, spec)
  const shares = yield* sharing(spec, known)
  const targets = new Set(targetsOf(spec))
  for (const { serving } of known)
    for (const target of serving === undefined ? [] : targetsOf(serving)) targets.add(target)
  const made = familyOf({
    spec,
    id: ids.id,
    versions: known,
    sharing: shares,
    storage: ids.storage,
    actual,
    tables: yield* tablesOf(tx, [...targets])
  })
  if (made.faults.length > 0) {
    return yield* refused("CannotEvolve", "versions that share their rows contradict each other", made.faults)
  }
  return made.family
})

/** The columns that a table has. */
export const columnsOf = (tx: Tx, schema: string, table: string): Effect.Effect<ReadonlySet<string>, DatabaseFailure> =>
  Effect.map(
    tx.query(
      statement(
        `select a.attname from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
         where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped`,
        [schema, table]
      )
    ),
    ({ rows }) => new Set(rows.map((row) => String(row.attname)))
  )

/**
 * Keeps how each version is served, once the table is what all of them want; a version that is served otherwise than before
 * gets another generation, so that no replica writes or reads the rows as they were. `own` has its new one already.
 */
export const keep = Effect.fnUntraced(function* (tx: Tx, made: Family, schema: string, own: number) {
  if (made.alone) return
  const table = familyTable(made, schema)
  for (const member of made.members) {
    const { rows } = yield* tx.query(
      statement(
        `update platform.schema_defs set face = $2::jsonb,
           generation = case when id = $3 then generation else nextval('platform.generation_seq') end, updated_at = now()
         where id = $1 and face is distinct from $2::jsonb returning path`,
        [member.id, canonicalJson(faceOf(table, made, member)), own]
      )
    )
    if (rows.length > 0 && member.id !== own) {
      yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`def:${member.path}`]))
    }
  }
  // what a version that is gone had keeps its columns, whatever they are called
  for (const one of yield* versions(tx, made.wanted.spec)) {
    if (one.face === undefined || one.serving !== undefined || one.storage !== made.storage) continue
    const columns = one.face.columns.map((column) => {
      const name = made.nameNow(column.name)
      return name === column.name ? column : { ...column, name, formerly: [column.name, ...column.formerly] }
    })
    if (columns.every((column, index) => column === one.face?.columns[index])) continue
    yield* tx.query(
      statement("update platform.schema_defs set face = $2::jsonb where id = $1", [
        one.id,
        canonicalJson({ ...one.face, columns })
      ])
    )
  }
})

/** The text by which rows are told apart: an object's, or where they are one version's alone that one's. */
export const storageText = (spec: SchemaDefinitionSpec): string => {
  const path = pathOfDefinition(spec)
  return spec.sharesRowsWith === "none" ? formatPath(path) : storageOf(path)
}
