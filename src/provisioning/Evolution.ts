/**
 * Carries a plan out, turn by turn, each in its own transaction (or, for an index, in none), with its state in
 * `platform.plan_steps`: whoever is stopped anywhere, and goes on or is replaced, goes on with the step that was not done.
 *
 * A plan that is overtaken is made anew. Locks that
 * do not come are given up quickly, because whoever comes behind a waiting ALTER TABLE waits too; the caller tries again.
 */
import { Clock, Effect, Option } from "effect"
import { formatPath, pgTableOf } from "../domain/Names.ts"
import { pathOfDefinition, type SchemaDefinitionSpec } from "../domain/SchemaDefinition.ts"
import { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Tx } from "../postgres/OperatorSql.ts"
import { type Alone, build } from "./BuildStep.ts"
import * as Builds from "./Builds.ts"
import * as MirrorRow from "./MirrorRow.ts"
import { endAndClear, type Overtaken, overtaken, type Turn, turn, type Work } from "./PlanTurn.ts"
import * as Provision from "./Provision.ts"
import * as Backfill from "./plan/Backfill.ts"
import type { StoredStep } from "./plan/PlanStore.ts"
import * as PlanStore from "./plan/PlanStore.ts"
import * as Premise from "./plan/Premise.ts"
import type { ProvisionRefused } from "./table/ProvisionRefused.ts"
import * as WantedSteps from "./WantedSteps.ts"

/** How an operator reaches its database; `X` is what else a transaction of its term may fail with. */
export interface Runner<X = never> {
  readonly transaction: <A, E>(f: (tx: Tx) => Effect.Effect<A, E>) => Effect.Effect<A, E | DatabaseFailure | X>
  readonly alone: Alone
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
        contradiction = error instanceof DatabaseFailure ? contradictionOf(error) : undefined
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
        .go(planned.path, key, build(runner.alone, planned, one.step), until)
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
