/**
 * What a definition's table needs: compared with the one that is there, or made where there is none. Reads, and asks the
 * rows; does nothing.
 */
import { Effect } from "effect"
import { fault } from "../domain/Fault.ts"
import type { SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { type MirrorIds, servedAmong } from "./MirrorRow.ts"
import { type Comparison, questionsOf } from "./plan/Comparison.ts"
import { ask } from "./plan/Facts.ts"
import { type Plan, planOf, step } from "./plan/Plan.ts"
import { type Diff, diff } from "./plan/TableDiff.ts"
import * as Catalogue from "./table/Catalogue.ts"
import * as FaceStore from "./table/FaceStore.ts"
import { type Family, goneFields } from "./table/Faces.ts"
import { familyUnder } from "./table/FaceView.ts"
import { renamesOf } from "./table/FieldChange.ts"
import { normalForm } from "./table/NormalForm.ts"
import { type ProvisionRefused, refused } from "./table/ProvisionRefused.ts"
import { rolePrefixOf } from "./table/RolePrefixOf.ts"
import {
  accessSql,
  createTable,
  familyTable,
  foreignKeySql,
  tableComment,
  type WantedTable
} from "./table/WantedTable.ts"

/** How a table that is there and a definition compare. */
export interface Compared extends Comparison {
  readonly diff: Diff
  /** The fields whose foreign keys are in force in the end. */
  readonly foreignKeys: ReadonlyArray<string>
}

/** The name of an index that another relation of the schema has: Velocity gives each table names of its own. */
const refuseTaken = Effect.fnUntraced(function* (tx: Tx, schema: string, { indexes, name }: WantedTable) {
  const { rows } = yield* tx.query(
    statement(
      `select c.relname::text as name, coalesce(t.relname, '')::text as of from pg_class c join pg_namespace n on n.oid = c.relnamespace
         left join pg_index i on i.indexrelid = c.oid left join pg_class t on t.oid = i.indrelid
       where n.nspname = $1 and c.relname = any ($3::text[]) and t.relname is distinct from $2 order by 1 limit 1`,
      [schema, name, indexes.map((one) => one.name)]
    )
  )
  const [taken] = rows
  if (taken === undefined) return
  const of = taken.of === "" ? "and is no index" : `as an index of ${schema}.${String(taken.of)}`
  return yield* refused("NotOurs", `${schema}.${String(taken.name)} is there already, ${of}`)
})

/** Compares a table that is there with a definition, and with the other versions whose rows it has. Reads, and asks the rows. */
export const compare = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec,
  schema: string,
  actual: Catalogue.Catalogue,
  ids: MirrorIds
) {
  const family = yield* FaceStore.family(tx, spec, ids, new Set(Object.keys(actual.columns)))
  const named = familyTable(family, schema)
  const path = named.path
  if (actual.comment?.split("\n")[0] !== tableComment(path)) {
    return yield* refused("NotOurs", `the table ${schema}.${named.name} is there, and Velocity did not make it`)
  }
  yield* refuseTaken(tx, schema, named)
  const { former, unclear } = renamesOf(family.spec, actual.columns)
  if (unclear.size > 0) {
    const faults = [...unclear].map(([name, there]) =>
      fault(
        ["spec", "fields", spec.fields.findIndex((field) => field.name === name), "renamedFrom"],
        "renamed_from",
        `${there.join(" and ")} are there: say which one it was`
      )
    )
    return yield* refused("CannotEvolve", "it is not clear which field has a new name", faults)
  }
  const before = familyUnder(family, former)
  const wanted = familyTable(before, schema)
  const served = yield* servedAmong(tx, FaceStore.targetsOf(family.spec))
  const keys = wanted.foreignKeys.filter(
    (key) => actual.constraints[key.name] !== undefined || key.targetTable === wanted.name || served.has(key.target)
  )
  const prefix = yield* rolePrefixOf(tx)
  const target = yield* normalForm(tx, {
    wanted,
    statements: [
      ...createTable(wanted),
      ...keys.flatMap((key) => foreignKeySql(wanted, key)),
      ...accessSql(wanted, before, prefix)
    ],
    targets: keys.map((key) => key.targetTable)
  })
  const comparison: Comparison = {
    actual,
    target,
    wanted,
    named,
    fields: new Map([...family.wanted.columns].map(([field, column]) => [column, field])),
    possible: new Set(keys.map((key) => key.name)),
    before: family.before,
    access: accessSql(named, family, prefix),
    version: spec.version,
    optional: before.optional,
    // what goes from the table, or gets another name in it, has a step of its own
    gone: goneFields(spec, family.last).filter((name) => {
      const column = columnOfLast(family, name)
      return wanted.columns.some((one) => one.name === column) && ![...former.values()].includes(column)
    })
  }
  const facts = yield* asOwner(tx, schema, (owner) => ask(owner, schema, wanted.name, questionsOf(comparison)))
  const possible = new Set(keys.map((key) => key.name))
  return {
    ...comparison,
    diff: diff(comparison, facts),
    foreignKeys: fieldsOf(
      family,
      named.foreignKeys.filter((_, index) => possible.has(wanted.foreignKeys[index]?.name ?? ""))
    )
  } satisfies Compared
})

/** The column that a field was when the version was last served. */
const columnOfLast = ({ before, wanted }: Family, name: string): string =>
  wanted.columns.get(name) ?? [...before].find(([, field]) => field.name === name)?.[0] ?? name

/** Of foreign keys, the fields that the version has for them. */
const fieldsOf = ({ wanted }: Family, keys: WantedTable["foreignKeys"]): ReadonlyArray<string> => {
  const columns = new Set(keys.map((key) => key.field))
  return wanted.spec.fields
    .filter(({ name, ref }) => ref !== undefined && columns.has(wanted.columns.get(name) ?? name))
    .map(({ name }) => name)
}

export const refusalOfFaults = ({ faults }: Diff): ProvisionRefused | undefined => {
  if (faults.length === 0) return undefined
  return faults.some((one) => one.code !== "data_conflict")
    ? refused("CannotEvolve", "this change cannot be made to a table that is there", faults)
    : refused("DataConflict", "records that are there contradict the definition", faults)
}

/** The plan of a comparison. */
export const planOfDiff = (
  path: string,
  hash: string,
  approvals: number,
  actual: Catalogue.Catalogue,
  { notes, steps }: Diff
): Plan => {
  const building = new Set(steps.flatMap((one) => (one.object === undefined ? [] : [one.object])))
  // the definition is served anew though the table needs nothing
  const all = steps.some((one) => one.phase === "switch") ? steps : withSwitch(steps)
  const fingerprint = Catalogue.fingerprint(actual, building)
  return planOf({ path, specHash: hash, fingerprint, approvals, steps: all, notes })
}

const withSwitch = (steps: Plan["steps"]): Plan["steps"] => {
  const at = steps.findIndex((one) => one.phase === "validate")
  const before = at < 0 ? steps : steps.slice(0, at)
  return [...before, step("switch", "serve the definition", [], "none"), ...steps.slice(before.length)]
}

/** What steps that change something do. */
export const namesOf = (steps: Plan["steps"]): ReadonlyArray<string> =>
  steps.filter((one) => one.sql !== "" && one.lock !== "none").map((one) => one.does)

const nothing: Catalogue.Catalogue = {
  comment: null,
  enabled: false,
  forced: false,
  columns: {},
  constraints: {},
  indexes: {},
  policies: {},
  triggers: {},
  grants: [],
  view: null,
  faces: null
}

/** A table where there is none. */
export const creation = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec,
  schema: string,
  ids: MirrorIds
) {
  const family = yield* FaceStore.family(tx, spec, ids, new Set())
  const table = familyTable(family, schema)
  yield* refuseTaken(tx, schema, table)
  const served = yield* servedAmong(tx, FaceStore.targetsOf(family.spec))
  const keys = table.foreignKeys.filter((key) => key.targetTable === table.name || served.has(key.target))
  const access = accessSql(table, family, yield* rolePrefixOf(tx))
  return {
    actual: nothing,
    diff: {
      faults: [],
      notes: [],
      steps: [
        step("switch", "create", createTable(table), "ACCESS EXCLUSIVE"),
        ...keys.map((key) =>
          step("switch", `foreign key ${key.field}`, foreignKeySql(table, key), "SHARE ROW EXCLUSIVE")
        ),
        step("switch", "access", access, "none")
      ]
    } satisfies Diff,
    foreignKeys: fieldsOf(family, keys)
  }
})

/** The ref fields of a definition whose foreign keys are in its table. */
export const keysInForce = Effect.fnUntraced(function* (
  tx: Tx,
  spec: SchemaDefinitionSpec,
  schema: string,
  actual: Catalogue.Catalogue,
  ids: MirrorIds
) {
  const family = yield* FaceStore.family(tx, spec, ids, new Set(Object.keys(actual.columns)))
  const keys = familyTable(family, schema).foreignKeys
  return fieldsOf(
    family,
    keys.filter((key) => actual.constraints[key.name] !== undefined)
  )
})
