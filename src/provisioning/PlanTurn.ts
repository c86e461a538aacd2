/**
 * One turn of a plan: the next step that a transaction may hold, or the plan's end, in one transaction. Between turns the
 * catalogue must be as the one before left it; else the plan is overtaken.
 */
import { Effect } from "effect"
import { chainOf, formatPath } from "../domain/Names.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { statement } from "../postgres/Statement.ts"
import * as MirrorRow from "./MirrorRow.ts"
import type { Planned } from "./Provision.ts"
import * as Backfill from "./plan/Backfill.ts"
import { leftovers } from "./plan/Leftovers.ts"
import { losesData } from "./plan/Plan.ts"
import type { StoredStep } from "./plan/PlanStore.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Catalogue from "./table/Catalogue.ts"
import { refuseHeld } from "./table/LegalHold.ts"
import { lockDomain, setLockTimeout } from "./table/Names.ts"
import { actorOf } from "./table/Origin.ts"
import { inOneBlock } from "./table/SqlText.ts"
import * as WantedSteps from "./WantedSteps.ts"

/** Rows of one batch of a backfill. */
const batchRows = 1_000

/** A plan that is carried out. */
export interface Work {
  readonly wanted: MirrorRow.WantedDefinition
  readonly planned: Planned
  readonly compute: (field: string) => Backfill.Compute
  /** The step that is tried: told when it fails, and its transaction with it. */
  trying: StoredStep | undefined
}

export type Turn =
  | { readonly _tag: "Went"; readonly step: StoredStep }
  | { readonly _tag: "Build"; readonly step: StoredStep }
  | { readonly _tag: "Done"; readonly generation: number; readonly steps: ReadonlyArray<StoredStep> }
  | Overtaken

export interface Overtaken {
  readonly _tag: "Overtaken"
}

export const overtaken: Overtaken = { _tag: "Overtaken" }

const buildingOf = (steps: ReadonlyArray<StoredStep>): ReadonlySet<string> =>
  new Set(steps.flatMap((one) => (one.object === undefined ? [] : [one.object])))

const entry = (tx: Tx, { wanted }: Work, action: string, payload: object, outcome: "ok" | "failed" = "ok") => {
  const path = pathOfDefinition(wanted.spec)
  return AuditChain.insert(tx, {
    chain: chainOf(path),
    actor: actorOf(wanted.origin),
    action,
    outcome,
    schemaPath: formatPath(path),
    payload
  })
}

/** Whether what a step makes outside transactions is there: its index, or that its constraint is proved. */
const isMade = ({ constraints, indexes }: Catalogue.Catalogue, { object = "" }: StoredStep): boolean =>
  indexes[object]?.valid === true || constraints[object]?.validated === true

/** The next step, if it is one for a transaction; one outside is only marked as begun. */
export const turn = Effect.fnUntraced(function* (tx: Tx, work: Work, built: StoredStep | undefined) {
  const { planned, wanted } = work
  const { id, path, pgSchema, pgTable } = planned
  yield* lockDomain(tx, chainOf(pathOfDefinition(wanted.spec)))
  const plan = yield* PlanStore.byId(tx, id)
  if (plan?.state !== "Running") return overtaken
  const steps = yield* PlanStore.steps(tx, id)
  const building = buildingOf(steps)
  const actual = yield* Catalogue.read(tx, pgSchema, pgTable)
  const overtake = (why: string) => Effect.as(endAndClear(tx, work, "Overtaken", why), overtaken)
  if (actual === undefined) return yield* overtake("the table is gone")
  if (Catalogue.fingerprint(actual, building) !== plan.fingerprint) {
    return yield* overtake("the table is not as the last step left it")
  }
  if (built !== undefined) {
    // whoever took it away meanwhile has overtaken the plan
    if (!isMade(actual, built)) return yield* overtake(`${built.object} is gone`)
    yield* PlanStore.mark(tx, id, [built.position], "Done")
    yield* entry(tx, work, "operator.plan.step", { plan: planned.hash, step: built.position, does: built.does })
    return { _tag: "Went", step: built } satisfies Turn
  }
  const next = steps.find((one) => one.state !== "Done")
  if (next === undefined) {
    yield* PlanStore.end(tx, id, "Done")
    yield* MirrorRow.keepFingerprint(tx, path, pgSchema, pgTable)
    const { rows } = yield* tx.query(
      statement("select generation::text as generation from platform.schema_defs where path = $1", [path])
    )
    yield* entry(tx, work, "operator.plan.finish", { plan: planned.hash })
    return { _tag: "Done", generation: Number(rows[0]?.generation), steps } satisfies Turn
  }
  work.trying = next
  yield* tx.query(setLockTimeout)
  if (next.concurrently) {
    yield* PlanStore.mark(tx, id, [next.position], "Running")
    return { _tag: "Build", step: next } satisfies Turn
  }
  if (next.batched) {
    const { count, last } = yield* asOwner(tx, pgSchema, (owner) => oneBatch(owner, work, next))
    if (typeof last === "string") yield* PlanStore.progress(tx, id, next.position, last, count)
    const isBehindIndex = steps.some((one) => one.concurrently && one.position < next.position)
    if (count < batchRows && isBehindIndex && next.after !== Backfill.beginning) {
      // records have come behind it meanwhile: only a pass of less than one batch leaves the switch little to do
      yield* PlanStore.progress(tx, id, next.position, Backfill.beginning, 0)
    } else if (count < batchRows) {
      yield* PlanStore.mark(tx, id, [next.position], "Done")
      const done = next.rowsDone + count
      yield* entry(tx, work, "operator.plan.step", {
        plan: planned.hash,
        step: next.position,
        does: next.does,
        rows: done
      })
    }
    return { _tag: "Went", step: { ...next, rowsDone: next.rowsDone + count } } satisfies Turn
  }
  // what is served changes with everything that belongs to it
  const together =
    next.phase === "switch" ? steps.filter((one) => one.phase === "switch" && one.state !== "Done") : [next]
  // placed since it was approved
  if (losesData({ steps: together })) yield* refuseHeld(tx, chainOf(pathOfDefinition(wanted.spec)))
  yield* asOwner(tx, pgSchema, (owner) => carryOut(owner, work, together))
  if (next.phase === "switch") {
    const { rows } = yield* tx.query(
      statement("select id, storage_id from platform.schema_defs where path = $1", [path])
    )
    const ids = { id: Number(rows[0]?.id), storage: Number(rows[0]?.storage_id) }
    yield* MirrorRow.serve(tx, wanted, ids.id, yield* foreignKeysOf(tx, work, ids))
  }
  yield* PlanStore.mark(
    tx,
    id,
    together.map((one) => one.position),
    "Done"
  )
  const left = yield* Catalogue.read(tx, pgSchema, pgTable)
  if (left !== undefined) yield* PlanStore.leave(tx, id, Catalogue.fingerprint(left, building))
  yield* entry(tx, work, "operator.plan.step", {
    plan: planned.hash,
    step: next.position,
    does: together.map((one) => one.does).slice(0, 100)
  })
  return { _tag: "Went", step: next } satisfies Turn
})

/** One batch of a step: how many rows it was, and the last of them. */
const oneBatch = Effect.fnUntraced(function* (owner: Tx, { compute }: Work, { after, computes, sql }: StoredStep) {
  if (computes !== undefined) {
    const { last, rows } = yield* Backfill.batch(owner, sql, compute(computes), after, batchRows)
    return { count: rows, last }
  }
  const { rows } = yield* owner.query(statement(sql, [after, batchRows]))
  return { count: Number(rows[0]?.rows ?? 0), last: rows[0]?.last }
})

/** Steps in their order, as few statements as it takes: what is computed stands between those before and behind it. */
const carryOut = Effect.fnUntraced(function* (owner: Tx, work: Work, steps: ReadonlyArray<StoredStep>) {
  let statements: Array<string> = []
  const flush = Effect.suspend(() => {
    const block = statements
    statements = []
    return block.length === 0 ? Effect.void : owner.query(inOneBlock(block))
  })
  for (const one of steps) {
    if (one.computes === undefined) {
      if (one.sql !== "") statements.push(one.sql)
      continue
    }
    yield* flush
    work.trying = one
    yield* Backfill.all(owner, one.sql, work.compute(one.computes), batchRows)
  }
  yield* flush
})

/** The ref fields whose foreign keys are in the table. */
const foreignKeysOf = Effect.fnUntraced(function* (tx: Tx, { planned, wanted }: Work, ids: MirrorRow.MirrorIds) {
  const actual = yield* Catalogue.read(tx, planned.pgSchema, planned.pgTable)
  return actual === undefined ? [] : yield* WantedSteps.keysInForce(tx, wanted.spec, planned.pgSchema, actual, ids)
})

/**
 * Ends a plan that cannot go on, and clears away in the same transaction what it has made for itself: nothing of it may be in
 * the way of what is served until there is another plan, which may have to wait.
 */
export const endAndClear = Effect.fnUntraced(function* (
  tx: Tx,
  work: Work,
  state: "Overtaken" | "Conflict",
  why: string
) {
  const { hash, id, pgSchema, pgTable } = work.planned
  yield* lockDomain(tx, chainOf(pathOfDefinition(work.wanted.spec)))
  const plan = yield* PlanStore.byId(tx, id)
  if (plan?.state !== "Running") return
  const steps = yield* PlanStore.steps(tx, id)
  const actual = yield* Catalogue.read(tx, pgSchema, pgTable)
  const isSwitched = steps.some((one) => one.phase === "switch" && one.state === "Done")
  if (actual !== undefined && !isSwitched) {
    const built = new Set(
      steps.flatMap((one) => (one.object !== undefined && one.state === "Done" ? [one.object] : []))
    )
    const statements = leftovers(actual, pgSchema, pgTable, built)
    yield* tx.query(setLockTimeout)
    if (statements.length > 0) yield* asOwner(tx, pgSchema, (owner) => owner.query(inOneBlock(statements)))
  }
  yield* PlanStore.end(tx, id, state, why)
  const payload = { plan: hash, step: work.trying?.position, does: work.trying?.does }
  yield* state === "Conflict"
    ? entry(tx, work, "operator.plan.fail", payload, "failed")
    : entry(tx, work, "operator.plan.overtake", { ...payload, why })
})
