/**
 * Carries a plan out, step by step, each in its own transaction (or, for an index, in none), with its state in
 * `platform.plan_steps`: whoever is stopped anywhere, and goes on or is replaced, goes on with the step that was not done.
 *
 * Between steps the catalogue must be as the step before left it; else the plan is overtaken and another is made. Locks that
 * do not come are given up quickly, because whoever comes behind a waiting ALTER TABLE waits too; the caller tries again.
 */
import { Clock, Effect, Option } from "effect"
import { chainOf, formatPath, pgTableOf, rolesOf } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { asOwner } from "../postgres/OwnerTx.ts"
import { type SqlResult, type Statement, statement } from "../postgres/Statement.ts"
import * as Builds from "./Builds.ts"
import * as MirrorRow from "./MirrorRow.ts"
import * as Provision from "./Provision.ts"
import * as Backfill from "./plan/Backfill.ts"
import { leftovers } from "./plan/Leftovers.ts"
import { losesData } from "./plan/Plan.ts"
import type { StoredStep } from "./plan/PlanStore.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Premise from "./plan/Premise.ts"
import * as Catalogue from "./table/Catalogue.ts"
import { refuseHeld } from "./table/LegalHold.ts"
import { ddlLockTimeout, lockDomain, setLockTimeout } from "./table/Names.ts"
import { actorOf } from "./table/Origin.ts"
import type { ProvisionRefused } from "./table/ProvisionRefused.ts"
import { inOneBlock, qualified, quoteName } from "./table/SqlText.ts"
import * as WantedSteps from "./WantedSteps.ts"

/** How an operator reaches its database; `X` is what else a transaction of its term may fail with. */
export interface Runner<X = never> {
  readonly transaction: <A, E>(f: (tx: Tx) => Effect.Effect<A, E>) => Effect.Effect<A, E | DatabaseFailure | X>
  readonly alone: <A, E>(
    f: (query: (statement: Statement) => Effect.Effect<SqlResult, DatabaseFailure>) => Effect.Effect<A, E>,
    options: { readonly within: number }
  ) => Effect.Effect<A, E | DatabaseFailure>
  /** Where index builds go on; in place without. */
  readonly builds?: Builds.Builds | undefined
  /** What computes a field's `backfill`; without, a plan that needs it comes to its end there. */
  readonly backfill?: ((spec: SchemaDefinitionSpec, field: string) => Backfill.Compute) | undefined
}

/** A plan that is being carried out whose next step comes with a later look. */
export interface Evolving {
  readonly _tag: "Evolving"
  readonly path: string
  readonly pgSchema: string
  readonly pgTable: string
  readonly hash: string
  /** The step it is at, of how many. */
  readonly position: number
  readonly steps: Provision.Planned["steps"]
  readonly does: string
  /** Rows that the step has done, of about how many. */
  readonly rows: number
  readonly estimate: number | undefined
  /** An index is being built meanwhile, which looking again does not hasten; and whose transactions it waits for. */
  readonly building?: { readonly waitsFor: ReadonlyArray<string> } | undefined
}

/** Records contradict what a step was to prove, or to do with them. */
export interface Conflicting {
  readonly _tag: "Conflicting"
  readonly path: string
  readonly message: string
  /** Whether it is found when a plan is made. Else nothing but the step itself tells whether it is so still. */
  readonly isFound: boolean
}

interface Contradiction extends Pick<Conflicting, "isFound"> {
  readonly how: string | undefined
}

export type Result = Provision.Outcome | Provision.Planned | Evolving | Conflicting

/** Rows of one batch of a backfill. */
export const batchRows = 1_000
/** How long building one index, or proving one constraint, may take, in milliseconds. */
const longestBuild = 6 * 60 * 60_000

interface Work {
  readonly wanted: MirrorRow.WantedDefinition
  readonly planned: Provision.Planned
  readonly compute: (field: string) => Backfill.Compute
  /** The step that is tried: told when it fails, and its transaction with it. */
  trying: StoredStep | undefined
}

type Turn =
  | { readonly _tag: "Went"; readonly step: StoredStep }
  | { readonly _tag: "Build"; readonly step: StoredStep }
  | { readonly _tag: "Done"; readonly generation: number; readonly steps: ReadonlyArray<StoredStep> }
  | Overtaken

interface Overtaken {
  readonly _tag: "Overtaken"
}

const overtaken: Overtaken = { _tag: "Overtaken" }

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
const turn = Effect.fnUntraced(function* (tx: Tx, work: Work, built: StoredStep | undefined) {
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
 * Builds an index, or proves a constraint, on a session of its own, under a lock of that session. Answers whether that is
 * done.
 */
const build = <X>(runner: Runner<X>, { planned }: Work, next: StoredStep) =>
  runner.alone(
    Effect.fnUntraced(function* (query) {
      const index = qualified(planned.pgSchema, next.object ?? "")
      yield* query(statement(`set role ${quoteName(rolesOf(planned.pgSchema).owner)}`))
      // an index waits for transactions that are older, and blocks nobody meanwhile
      yield* query(statement(`set lock_timeout = ${next.phase === "validate" ? `'${ddlLockTimeout}'` : "0"}`))
      yield* query(statement(`set statement_timeout = ${longestBuild}`))
      // a session that was left behind may still be at it: waiting here would hold a snapshot for which it waits
      const { rows: held } = yield* query(
        statement("select pg_try_advisory_lock(hashtextextended($1, 0)) as held", [`velocity/build/${planned.path}`])
      )
      if (held[0]?.held !== true) return false
      // once proved it costs nothing again
      if (next.phase === "validate") return yield* Effect.as(query(statement(next.sql)), true)
      const { rows } = yield* query(
        statement(
          "select i.indisvalid as valid from pg_index i where i.indexrelid = to_regclass($1) and i.indrelid = to_regclass($2)",
          [index, qualified(planned.pgSchema, planned.pgTable)]
        )
      )
      if (rows[0]?.valid === true) return true
      if (rows.length > 0) yield* query(statement(`drop index concurrently ${index}`))
      yield* query(statement(next.sql)).pipe(
        Effect.tapError(() => Effect.ignore(query(statement(`drop index concurrently if exists ${index}`))))
      )
      return true
    }),
    { within: longestBuild }
  )

/** How records contradict a step, which trying again would not change; in our words, since Postgres' may hold a value. */
const contradictionOf = ({ reason }: DatabaseFailure): Contradiction | undefined => {
  switch (reason._tag) {
    case "Check":
    case "ForeignKey":
    case "Unique":
    case "NotNull":
      return { how: undefined, isFound: true }
    case "OutOfRange":
      return { how: reason.tooLong === true ? "a value is too long for it" : "a value is out of range", isFound: false }
    case "InvalidText":
      return { how: "a value is none of that type", isFound: false }
    default:
      return undefined
  }
}

/**
 * Ends a plan that cannot go on, and clears away in the same transaction what it has made for itself: nothing of it may be in
 * the way of what is served until there is another plan, which may have to wait.
 */
const endAndClear = Effect.fnUntraced(function* (tx: Tx, work: Work, state: "Overtaken" | "Conflict", why: string) {
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

const evolving = ({ planned }: Work, step: StoredStep): Evolving => ({
  _tag: "Evolving",
  path: planned.path,
  pgSchema: planned.pgSchema,
  pgTable: planned.pgTable,
  hash: planned.hash,
  position: step.position,
  steps: planned.steps,
  does: step.does,
  rows: step.rowsDone,
  estimate: step.estimate
})

/** Plans of one call. */
const mostOvertakings = 2

const overtakenAgain = ({ hash, path, pgSchema, pgTable, steps }: Provision.Planned): Evolving => ({
  _tag: "Evolving",
  path,
  pgSchema,
  pgTable,
  hash,
  position: 1,
  steps,
  does: "made anew, because the table was changed meanwhile",
  rows: 0,
  estimate: undefined
})

/** Carries a plan on until it is done, contradicted or overtaken, or `until` has passed. */
const carryOn = Effect.fnUntraced(function* <X>(runner: Runner<X>, work: Work, until: number) {
  const { planned, wanted } = work
  let built: StoredStep | undefined
  const ended = (error: DatabaseFailure | ProvisionRefused | Backfill.BackfillErred | X) =>
    Effect.gen(function* () {
      const broken = Premise.brokenBy(error)
      if (broken !== undefined) {
        yield* runner.transaction((tx) => endAndClear(tx, work, "Overtaken", broken))
        return overtaken
      }
      let contradiction: Contradiction | undefined
      if (error instanceof Backfill.BackfillErred) contradiction = { how: error.message, isFound: true }
      else {
        contradiction = isFailure(error) ? contradictionOf(error) : undefined
        if (contradiction === undefined) return yield* Effect.fail(error)
      }
      const { how, isFound } = contradiction
      const does = work.trying?.does ?? "a step"
      const message = `records that are there contradict it: ${does}${how === undefined ? "" : `: ${how}`}`
      yield* runner.transaction((tx) => endAndClear(tx, work, "Conflict", message))
      return { _tag: "Conflicting", path: planned.path, message, isFound } satisfies Conflicting
    })
  for (;;) {
    const one: Turn | Conflicting = yield* runner.transaction((tx) => turn(tx, work, built)).pipe(Effect.catch(ended))
    built = undefined
    if (one._tag === "Conflicting" || one._tag === "Overtaken") return one
    if (one._tag === "Done") {
      const relation = pgTableOf(pathOfDefinition(wanted.spec))
      const missing = yield* runner.transaction((tx) => MirrorRow.missingOf(tx, wanted.spec))
      return {
        _tag: "Applied",
        path: planned.path,
        pgSchema: planned.pgSchema,
        pgTable: relation,
        rowsOf: relation === planned.pgTable ? undefined : planned.pgTable,
        generation: one.generation,
        steps: WantedSteps.namesOf(one.steps),
        missing,
        notes: (yield* runner.transaction((tx) => PlanStore.byId(tx, planned.id)))?.message?.split("; ") ?? []
      } satisfies Provision.Outcome
    }
    if (one._tag === "Build") {
      const key = `${MirrorRow.wantedHash(wanted.spec)}/${planned.id}/${one.step.position}`
      const there: Option.Option<boolean> | Conflicting | Overtaken = yield* (runner.builds ?? Builds.inPlace)
        .go(planned.path, key, build(runner, work, one.step), until)
        .pipe(Effect.catch(ended))
      if (!Option.isOption(there)) return there
      if (Option.isNone(there) || !there.value) {
        const waitsFor = yield* runner.transaction((tx) => Builds.waitsFor(tx, planned.pgSchema, planned.pgTable))
        return { ...evolving(work, one.step), building: { waitsFor } }
      }
      built = one.step
    }
    if (built === undefined && (yield* Clock.currentTimeMillis) >= until) return evolving(work, one.step)
  }
})

const isFailure = (error: unknown): error is DatabaseFailure =>
  typeof error === "object" && error !== null && (error as { readonly _tag?: unknown })._tag === "DatabaseFailure"

/**
 * Makes a definition's table what it says and serves it, as far as it comes within `budget` milliseconds. What waits, goes
 * on or is contradicted is an answer and no failure; `DatabaseFailure` is worth another try.
 */
export const provision = Effect.fn("Evolution.provision")(function* <X>(
  runner: Runner<X>,
  wanted: MirrorRow.WantedDefinition,
  budget: number = Number.POSITIVE_INFINITY
): Effect.fn.Return<Result, DatabaseFailure | ProvisionRefused | X> {
  const until = (yield* Clock.currentTimeMillis) + budget
  yield* runner.builds?.stop(formatPath(pathOfDefinition(wanted.spec)), `${MirrorRow.wantedHash(wanted.spec)}/`) ??
    Effect.void
  for (let overtakings = 1; ; overtakings += 1) {
    // where records came while it was done at once, what it has become is judged anew
    const outcome = yield* runner
      .transaction((tx) => Provision.apply(tx, wanted))
      .pipe(
        Effect.catchIf(
          (error) => overtakings < mostOvertakings && Premise.brokenBy(error) !== undefined,
          () => Effect.undefined
        )
      )
    if (outcome === undefined) continue
    if (outcome._tag !== "Planned" || outcome.state === "Waiting") return outcome
    const compute = runner.backfill ?? (() => () => ({ error: "nothing computes it here" }))
    const work = {
      wanted,
      planned: outcome,
      compute: (field: string) => compute(wanted.spec, field),
      trying: undefined
    }
    const result = yield* carryOn(runner, work, until)
    // what it has become is judged anew; one that is overtaken again and again waits for a later look
    if (result._tag !== "Overtaken") return result
    if (overtakings === mostOvertakings) return overtakenAgain(outcome)
  }
})
