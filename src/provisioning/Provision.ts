/**
 * From a definition to its table, served. What one transaction can do is done in it: DDL (tables as the domain's owner),
 * mirror rows, audit entry and notification. A change of a table with rows that takes more becomes a plan, which
 * `Evolution` carries out; one that can lose data or break clients waits for an approval of just that plan.
 *
 * The same definition again does nothing at all: one row is read and no lock taken. What cannot be provisioned changes
 * nothing and says why, by field.
 */
import { Effect } from "effect"
import { admit } from "../domain/Admission.ts"
import { chainOf, formatPath, pgTableOf } from "../domain/Names.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import {
  insertRow,
  keepFingerprint,
  missingOf,
  type Row,
  rowSql,
  serve,
  servedAmong,
  type WantedDefinition,
  want,
  wantedHash
} from "./MirrorRow.ts"
import { isAtOnce, losesData, needsApproval, type Plan } from "./plan/Plan.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Catalogue from "./table/Catalogue.ts"
import * as FaceStore from "./table/FaceStore.ts"
import type { KnownVersion } from "./table/Faces.ts"
import { refuseHeld } from "./table/LegalHold.ts"
import { lockDomain, reserveName, setLockTimeout } from "./table/Names.ts"
import { actorOf, foreignOrigin } from "./table/Origin.ts"
import { refused } from "./table/ProvisionRefused.ts"
import { inOneBlock } from "./table/SqlText.ts"
import { compare, creation, namesOf, planOfDiff, refusalOfFaults } from "./WantedSteps.ts"

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
    // another's plan is nothing to wait for
    if (foreignOrigin(row, wanted.origin, path) !== undefined) return undefined
    const plan = yield* PlanStore.byId(tx, row.plan)
    if (plan?.state !== "Waiting" || plan.specHash !== wantedHash(wanted.spec) || plan.age > freshFor) return undefined
    if (plan.approvedBy !== undefined || wanted.approval?.hash === plan.hash) return undefined
    const overtaken = yield* isOvertaken(tx, path, plan.specHash, wanted)
    return plannedOf(plan, yield* PlanStore.steps(tx, plan.id), row, overtaken)
  }
  return yield* unchanged(tx, wanted, row)
})

/** Whether a plan that waits has taken the place of one that was approved. */
const isOvertaken = (tx: Tx, path: string, specHash: string, { approval }: WantedDefinition) =>
  PlanStore.isOvertaken(tx, path, specHash, approval?.hash)

/** What the domain and its other definitions have against this one. */
const refusalOf = Effect.fnUntraced(function* (tx: Tx, wanted: WantedDefinition, row: Row | undefined) {
  const path = pathOfDefinition(wanted.spec)
  const text = formatPath(path)
  const { rows: domains } = yield* tx.query(
    statement("select pg_schema from platform.domains where chain = $1", [chainOf(path)])
  )
  const [domain] = domains
  if (domain === undefined) return yield* refused("ParentMissing", `the domain ${chainOf(path)} is not there`)
  // nothing is served by a withdrawn definition, and nothing made for it: whoever comes next may have its path, and not sooner:
  // a plan that is made while replicas still serve it would be the path's under the name of who leaves
  const isKept =
    row !== undefined && (row.serving === true || row.state === "Withdrawing" || typeof row.plan === "string")
  const conflict = isKept ? foreignOrigin(row, wanted.origin, text) : undefined
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

/** The version that owns the table of another. */
const ownerOf = (known: ReadonlyArray<KnownVersion>, version: KnownVersion): KnownVersion =>
  known.find((one) => one.id === version.owner) ?? version

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
  const plan = planOfDiff(text, hash, Number(row?.approvals ?? 0), made.actual, made.diff)
  const names = { pg_schema: schema, pg_table: table }
  const isApproved = approval?.hash === plan.hash || (open?.hash === plan.hash && open.approvedBy !== undefined)
  const state = needsApproval(plan) && !isApproved ? "Waiting" : "Running"
  const stored = (id: string) =>
    plannedOf({ ...plan, id, state, message: undefined, approvedBy: undefined, age: 0 }, plan.steps, names)
  if (shown) return stored("")
  // an approval does not reach past a hold: what waits goes on waiting
  if (state === "Running" && losesData(plan)) yield* refuseHeld(tx, chain)

  if (state === "Waiting" || !isAtOnce(plan) || needsApproval(plan)) {
    const entry = (action: string, payload: object) =>
      AuditChain.insert(tx, { chain, actor: actorOf(origin), action, outcome: "ok", schemaPath: text, payload })
    const by = approval?.hash === plan.hash ? approval.by : open?.hash === plan.hash ? open.approvedBy : undefined
    yield* want(tx, wanted, ids.id)
    if (open !== undefined && open.hash === plan.hash && open.state === "Waiting") {
      if (state === "Running") {
        yield* PlanStore.approve(tx, open.id, by ?? "")
        yield* entry("operator.plan.approve", { plan: plan.hash, by })
      } else if (open.age > freshFor) yield* PlanStore.renew(tx, open.id)
      return { ...stored(open.id), overtaken: yield* isOvertaken(tx, text, hash, wanted) }
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
    return { ...stored(id), overtaken: state === "Waiting" && (yield* isOvertaken(tx, text, hash, wanted)) }
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
