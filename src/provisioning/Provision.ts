/**
 * From a definition to its table, served. What one transaction can do is done in it: DDL (tables as the domain's owner),
 * mirror rows, audit entry and notification. A change of a table with rows that takes more becomes a plan, which
 * `Evolution` carries out; one that can lose data or break clients waits for an approval of just that plan.
 *
 * The same definition again does nothing at all: one row is read and no lock taken. What cannot be provisioned changes
 * nothing and says why, by field.
 */
import { Effect } from "effect"
import { grantsOf } from "../domain/Access.ts"
import { admit } from "../domain/Admission.ts"
import { fault } from "../domain/Fault.ts"
import { chainOf, formatPath, pgTableOf } from "../domain/Names.ts"
import { operations } from "../domain/Operation.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import { type Comparison, questionsOf } from "./plan/Comparison.ts"
import { ask } from "./plan/Facts.ts"
import { isAtOnce, needsApproval, type Plan, planOf, step } from "./plan/Plan.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import { type Diff, diff } from "./plan/TableDiff.ts"
import * as Catalogue from "./table/Catalogue.ts"
import * as FaceStore from "./table/FaceStore.ts"
import { type Family, goneFields, type KnownVersion } from "./table/Faces.ts"
import { familyUnder } from "./table/FaceView.ts"
import { renamesOf } from "./table/FieldChange.ts"
import { lockDomain, reserveName, setLockTimeout } from "./table/Names.ts"
import { normalForm } from "./table/NormalForm.ts"
import { actorOf, foreignOrigin, type Origin, originParams } from "./table/Origin.ts"
import { type ProvisionRefused, refused } from "./table/ProvisionRefused.ts"
import { rolePrefixOf } from "./table/RolePrefixOf.ts"
import { specHash } from "./table/SpecHash.ts"
import { inOneBlock } from "./table/SqlText.ts"
import {
  accessSql,
  createTable,
  familyTable,
  foreignKeySql,
  tableComment,
  type WantedTable
} from "./table/WantedTable.ts"

/** A definition as it is wanted. */
export interface WantedDefinition {
  readonly spec: SchemaDefinitionSpec
  readonly origin: Origin
  /** The plan that somebody approved, and who. */
  readonly approval?: { readonly hash: string; readonly by: string } | undefined
}

/** There is a plan that one transaction cannot carry out, or that waits. */
export interface Planned {
  readonly _tag: "Planned"
  readonly path: string
  readonly pgSchema: string
  readonly pgTable: string
  /** In `platform.plans`; empty where it was only asked for. */
  readonly id: string
  readonly hash: string
  readonly steps: Plan["steps"]
  readonly state: "Waiting" | "Running"
  /** Another plan was approved, and this is what it has become. */
  readonly overtaken: boolean
}

export interface Outcome {
  readonly _tag: "Unchanged" | "Applied"
  readonly path: string
  readonly pgSchema: string
  readonly pgTable: string
  /** The table whose rows it shows, where that is another version's. */
  readonly rowsOf: string | undefined
  /** Of what is served now. */
  readonly generation: number
  /** What was done to the table, in a few words each. */
  readonly steps: ReadonlyArray<string>
  /** Paths that refs point to and that are not served: their foreign keys are not there yet. */
  readonly missing: ReadonlyArray<string>
  /** What of the rows is not as the definition says, and stays so. */
  readonly notes: ReadonlyArray<string>
}

type Row = Readonly<Record<string, unknown>>

export const rowSql = `select id, storage_id, owner_id, (select o.pg_table from platform.schema_defs o where o.id = schema_defs.owner_id) as owner_table, serving_hash, (select p.id::text from platform.plans p where p.path = schema_defs.path and p.state in ('Waiting', 'Running')) as plan,
  serving is not null as serving, generation::text as generation, foreign_keys, pg_schema, pg_table,
  state, source, namespace, name from platform.schema_defs where path = $1`

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
 * rights that erasure needs. 3: the table's COMMENT says no more than whose it is.
 */
const form = 3

/** By which it is told whether a definition is to be provisioned. */
export const wantedHash = (spec: SchemaDefinitionSpec): string => specHash({ form, spec })

const ownerTable = (row: Row): string | undefined => (typeof row.owner_table === "string" ? row.owner_table : undefined)

const textsOf = (value: unknown): ReadonlyArray<string> => (Array.isArray(value) ? value.map(String) : [])

/** What is in the mirror, if it says that nothing is to do. */
const unchanged = Effect.fnUntraced(function* (tx: Tx, { origin, spec }: WantedDefinition, row: Row | undefined) {
  if (row === undefined || row.serving !== true || row.serving_hash !== wantedHash(spec)) return undefined
  if (typeof row.plan === "string") return undefined
  if (row.source !== origin.source || row.namespace !== origin.namespace || row.name !== origin.name) return undefined
  const path = formatPath(pathOfDefinition(spec))
  const served = yield* servedAmong(tx, FaceStore.targetsOf(spec))
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
    rowsOf: ownerTable(row),
    generation: Number(row.generation),
    steps: [],
    missing: [...missing],
    notes: []
  } satisfies Outcome
})

/** How long a plan that waits is not made anew, unless it is approved. */
const freshFor = 10 * 60_000

const plannedOf = (plan: PlanStore.StoredPlan, steps: Plan["steps"], row: Row, overtaken = false): Planned => ({
  _tag: "Planned",
  path: plan.path,
  pgSchema: String(row.pg_schema),
  pgTable: ownerTable(row) ?? String(row.pg_table),
  id: plan.id,
  hash: plan.hash,
  steps,
  state: plan.state === "Running" ? "Running" : "Waiting",
  overtaken
})

/**
 * What `apply` would answer where there is nothing to do, or nothing but to wait; else undefined. Takes no lock and writes
 * nothing.
 */
export const current = Effect.fnUntraced(function* (tx: Tx, wanted: WantedDefinition) {
  const path = formatPath(pathOfDefinition(wanted.spec))
  const { rows } = yield* tx.query(statement(rowSql, [path]))
  const [row] = rows
  if (row !== undefined && typeof row.plan === "string") {
    const plan = yield* PlanStore.byId(tx, row.plan)
    if (plan?.state !== "Waiting" || plan.specHash !== wantedHash(wanted.spec) || plan.age > freshFor) return undefined
    if (plan.approvedBy !== undefined || wanted.approval?.hash === plan.hash) return undefined
    return plannedOf(plan, yield* PlanStore.steps(tx, plan.id), row, yield* isOvertaken(tx, path, wanted, plan.hash))
  }
  return yield* unchanged(tx, wanted, row)
})

/** Whether somebody approved another plan than this, and that one was never begun. */
const isOvertaken = (tx: Tx, path: string, { approval }: WantedDefinition, hash: string) =>
  approval === undefined || approval.hash === hash
    ? Effect.succeed(false)
    : Effect.map(PlanStore.wasBegun(tx, path, approval.hash), (begun) => !begun)

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
  const { rows: evolving } = yield* tx.query(
    statement(
      `select p.path from platform.plans p join platform.schema_defs s on s.path = p.path
       where p.state = 'Running' and s.path <> $1 and s.storage_id = $2::int4 limit 1`,
      [text, row?.storage_id ?? null]
    )
  )
  if (evolving.length > 0) {
    return yield* refused(
      "VersionEvolving",
      `${String(evolving[0]?.path)}, which has the same records, is being changed`
    )
  }
  return String(domain.pg_schema)
})

export interface MirrorIds {
  readonly id: number
  readonly storage: number
}

/**
 * The row of a new definition, which gives it its ids; one whose records were dropped is new again. It is served when the
 * transaction commits.
 */
const insertRow = Effect.fnUntraced(function* (
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

/** How a table that is there and a definition compare. */
interface Compared extends Comparison {
  readonly diff: Diff
  /** The fields whose foreign keys are in force in the end. */
  readonly foreignKeys: ReadonlyArray<string>
}

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

const refusalOfFaults = ({ faults }: Diff): ProvisionRefused | undefined => {
  if (faults.length === 0) return undefined
  return faults.some((one) => one.code !== "data_conflict")
    ? refused("CannotEvolve", "this change cannot be made to a table that is there", faults)
    : refused("DataConflict", "records that are there contradict the definition", faults)
}

/** The plan of a comparison. */
export const planOfDiff = (path: string, hash: string, actual: Catalogue.Catalogue, { notes, steps }: Diff): Plan => {
  const building = new Set(steps.flatMap((one) => (one.object === undefined ? [] : [one.object])))
  // the definition is served anew though the table needs nothing
  const all = steps.some((one) => one.phase === "switch") ? steps : withSwitch(steps)
  return planOf({ path, specHash: hash, fingerprint: Catalogue.fingerprint(actual, building), steps: all, notes })
}

const withSwitch = (steps: Plan["steps"]): Plan["steps"] => {
  const at = steps.findIndex((one) => one.phase === "validate")
  const before = at < 0 ? steps : steps.slice(0, at)
  return [...before, step("switch", "serve the definition", [], "none"), ...steps.slice(before.length)]
}

/** What steps that change something do. */
export const namesOf = (steps: Plan["steps"]): ReadonlyArray<string> =>
  steps.filter((one) => one.sql !== "" && one.lock !== "none").map((one) => one.does)

/**
 * Makes a definition's table what it says and serves it, or makes a plan of it. Fails with `ProvisionRefused` where that
 * cannot be, and then the transaction is to be given up. `shown`: the plan is only asked for; nothing is done.
 */
export const apply = Effect.fn("Provision.apply")(function* (tx: Tx, wanted: WantedDefinition, shown = false) {
  const { approval, origin, spec } = wanted
  const faults = admit(spec).map((one) => ({ ...one, pointer: `/spec${one.pointer}` }))
  if (faults.length > 0) return yield* refused("Invalid", "the definition contradicts itself", faults)
  const path = pathOfDefinition(spec)
  const chain = chainOf(path)
  const text = formatPath(path)
  const hash = wantedHash(spec)
  const look = tx.query(statement(rowSql, [text]))
  const before = yield* unchanged(tx, wanted, (yield* look).rows[0])
  if (before !== undefined) return before

  yield* lockDomain(tx, chain)
  const [row] = (yield* look).rows
  const meanwhile = yield* unchanged(tx, wanted, row)
  if (meanwhile !== undefined) return meanwhile
  const schema = yield* refusalOf(tx, wanted, row)
  const known = yield* FaceStore.versions(tx, spec)
  const shares = yield* FaceStore.sharing(spec, known)
  const owner = shares._tag === "Own" ? undefined : ownerOf(known, shares.version)
  const relation = pgTableOf(path)
  const table = owner?.relation ?? relation
  const open = row === undefined || typeof row.plan !== "string" ? undefined : yield* PlanStore.byId(tx, row.plan)
  if (row !== undefined && open?.state === "Running" && open.specHash === hash && !shown) {
    return plannedOf(open, yield* PlanStore.steps(tx, open.id), row)
  }
  yield* tx.query(setLockTimeout)
  yield* reserveName(tx, `${schema}.${relation}`, text)
  const ids =
    row === undefined || row.state === "Dropped"
      ? yield* insertRow(tx, spec, schema, owner?.id)
      : { id: Number(row.id), storage: Number(row.storage_id) }
  const actual = yield* Catalogue.read(tx, schema, table)
  if (actual === undefined && owner !== undefined) {
    return yield* refused("NotOurs", `the table ${schema}.${table}, whose rows it is to show, is gone`)
  }
  const made = yield* actual === undefined
    ? creation(tx, spec, schema, ids)
    : Effect.map(compare(tx, spec, schema, actual, ids), (compared) => ({ ...compared, actual }))
  const refusal = refusalOfFaults(made.diff)
  if (refusal !== undefined) return yield* refusal
  const plan = planOfDiff(text, hash, made.actual, made.diff)
  const names = { pg_schema: schema, pg_table: table }
  const isApproved = approval?.hash === plan.hash || (open?.hash === plan.hash && open.approvedBy !== undefined)
  const state = needsApproval(plan) && !isApproved ? "Waiting" : "Running"
  const stored = (id: string) =>
    plannedOf({ ...plan, id, state, message: undefined, approvedBy: undefined, age: 0 }, plan.steps, names)
  if (shown) return stored("")

  if (state === "Waiting" || !isAtOnce(plan) || needsApproval(plan)) {
    const overtaken = yield* isOvertaken(tx, text, wanted, plan.hash)
    const entry = (action: string, payload: object) =>
      AuditChain.insert(tx, { chain, actor: actorOf(origin), action, outcome: "ok", schemaPath: text, payload })
    const by = approval?.hash === plan.hash ? approval.by : open?.hash === plan.hash ? open.approvedBy : undefined
    yield* tx.query(
      statement(
        "update platform.schema_defs set wanted = $2::jsonb, wanted_hash = $3, updated_at = now() where id = $1",
        [ids.id, JSON.stringify(spec), hash]
      )
    )
    if (open !== undefined && open.hash === plan.hash && open.state === "Waiting") {
      if (state === "Running") {
        yield* PlanStore.approve(tx, open.id, by ?? "")
        yield* entry("operator.plan.approve", { plan: plan.hash, by })
      }
      return { ...stored(open.id), overtaken }
    }
    if (open !== undefined) {
      yield* PlanStore.end(tx, open.id, "Overtaken", "another plan took its place")
      yield* entry("operator.plan.overtake", { plan: open.hash, by: plan.hash })
    }
    const id = yield* PlanStore.insert(tx, plan, state, state === "Running" && needsApproval(plan) ? by : undefined)
    yield* entry("operator.plan.make", {
      plan: plan.hash,
      state,
      approvedBy: state === "Running" && needsApproval(plan) ? by : null,
      steps: plan.steps.map((one) => one.does).slice(0, 100)
    })
    return { ...stored(id), overtaken }
  }

  if (open !== undefined) yield* PlanStore.end(tx, open.id, "Overtaken", "the definition is another")
  const statements = plan.steps.map((one) => one.sql).filter((sql) => sql !== "")
  if (statements.length > 0) yield* asOwner(tx, schema, (owner) => owner.query(inOneBlock(statements)))
  const generation = yield* serve(tx, wanted, ids.id, made.foreignKeys)
  yield* keepFingerprint(tx, text, schema, table)
  yield* AuditChain.insert(tx, {
    chain,
    actor: actorOf(origin),
    action: "operator.schema.apply",
    outcome: "ok",
    schemaPath: text,
    payload: { generation, specHash: hash, steps: namesOf(plan.steps).slice(0, 100) }
  })
  return {
    _tag: "Applied",
    path: text,
    pgSchema: schema,
    pgTable: relation,
    rowsOf: owner?.relation,
    generation,
    steps: namesOf(plan.steps),
    missing: yield* missingOf(tx, spec),
    notes: plan.notes
  } satisfies Outcome
})

/** The paths that a definition refers to and that are not served. */
export const missingOf = (tx: Tx, spec: SchemaDefinitionSpec): Effect.Effect<ReadonlyArray<string>, DatabaseFailure> =>
  Effect.map(servedAmong(tx, FaceStore.targetsOf(spec)), (served) =>
    FaceStore.targetsOf(spec).filter((target) => target !== formatPath(pathOfDefinition(spec)) && !served.has(target))
  )

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

/** The version that owns the table of another. */
const ownerOf = (known: ReadonlyArray<KnownVersion>, version: KnownVersion): KnownVersion =>
  known.find((one) => one.id === version.owner) ?? version

/** A table where there is none. */
const creation = Effect.fnUntraced(function* (tx: Tx, spec: SchemaDefinitionSpec, schema: string, ids: MirrorIds) {
  const family = yield* FaceStore.family(tx, spec, ids, new Set())
  const table = familyTable(family, schema)
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
