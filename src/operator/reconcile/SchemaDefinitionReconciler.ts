/** A definition: its table, and that it is served. */
import { Effect } from "effect"
import { chainOf, formatPath } from "../../domain/Names.ts"
import type { ResourceOf } from "../../domain/Resource.ts"
import { pathOfDefinition } from "../../domain/SchemaDefinition.ts"
import { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { statement } from "../../postgres/Statement.ts"
import * as Evolution from "../../provisioning/Evolution.ts"
import * as Locks from "../../provisioning/Locks.ts"
import * as Provision from "../../provisioning/Provision.ts"
import { renderStep } from "../../provisioning/plan/Plan.ts"
import * as PlanStore from "../../provisioning/plan/PlanStore.ts"
import { servingOf, someOf } from "../../provisioning/ServingState.ts"
import type { Origin } from "../../provisioning/table/Origin.ts"
import { type ProvisionRefused, refused } from "../../provisioning/table/ProvisionRefused.ts"
import { giveUp, withdraw } from "../../provisioning/Withdrawal.ts"
import { backfillFaults, compileBackfill, ruleFaults } from "../../records/type/Rules.ts"
import { ready, stalled, waiting } from "../state/Conditions.ts"
import type { Superseded } from "../state/Fence.ts"
import { domainOf, parentVerdict } from "../state/Parents.ts"
import { concluded, type Reconciled, type Reconciler, type World, wordsOf } from "../state/Reconciler.ts"
import { verdictOf } from "../state/Refusals.ts"
import { judge, type Serving } from "../state/Serving.ts"
import { planStatus } from "./DefinitionStatus.ts"
import * as DriftWatch from "./DriftWatch.ts"
import * as RecordsWatch from "./RecordsWatch.ts"

/** How long a plan is carried on with before other resources have their turn, in milliseconds. */
const slice = 1_000
/** How often it is looked how far an index has come. */
const buildAgain = 500
/** How often it is looked whether somebody approved. */
const askAgain = 5_000

/** What the manifest says of an approval; who may write the folder is trusted as a whole. */
const approvalOf = ({ metadata }: ResourceOf<"SchemaDefinition">) => {
  const hash = metadata.annotations?.["velocity.sh/approve-plan"]
  return hash === undefined ? undefined : { hash, by: metadata.annotations?.["velocity.sh/approved-by"] ?? "manifest" }
}

/** What a plan comes to, in the words of a status. */
const planText = ({ hash, steps }: Provision.Planned): string =>
  `plan ${hash}: ${steps
    .filter((one) => one.lock !== "none")
    .map(renderStep)
    .join("; ")}`

const progressText = ({ building, does, estimate, position, rows, steps }: Evolution.Evolving): string => {
  const done = estimate === undefined || rows === 0 ? "" : `, ${rows} of about ${estimate} records`
  const waits = (building?.waitsFor ?? []).length === 0 ? "" : `; it waits for ${building?.waitsFor.join(" and ")}`
  return `step ${position} of ${steps.length}: ${does}${done}${waits}`
}

/** The conclusion of what provisioning came to. */
const conclusionOf = (text: string, outcome: Evolution.Result, ownRows: boolean): Reconciled => {
  const status = { path: text }
  switch (outcome._tag) {
    case "Conflicting": {
      const conclusion = concluded(stalled("DataConflict", outcome.message), status)
      // what only the step tells, which may be an index of hours, is tried again when everything is
      return outcome.isFound ? { ...conclusion, again: 60_000 } : conclusion
    }
    case "Evolving":
      return {
        ...concluded(waiting("Evolving", progressText(outcome), true), {
          ...status,
          plan: planStatus({ hash: outcome.hash, state: "Running", step: outcome.position, steps: outcome.steps })
        }),
        again: outcome.building === undefined ? 0 : buildAgain
      }
    case "Planned": {
      const table = `${outcome.pgSchema}.${outcome.pgTable}`
      const verdict = stalled(
        outcome.overtaken ? "PlanOvertaken" : "ApprovalRequired",
        `${outcome.overtaken ? "another plan was approved, and is no more; " : ""}${planText(outcome)}; what was served is served on until velocity.sh/approve-plan is ${outcome.hash}`
      )
      return { ...concluded(verdict, { ...status, pgTable: table, plan: planStatus(outcome) }), again: askAgain }
    }
    case "Applied":
    case "Unchanged": {
      const { generation, missing, notes, pgSchema, pgTable, rowsOf } = outcome
      const table = `${pgSchema}.${pgTable}`
      const rows =
        rowsOf !== undefined
          ? [`its records are those of ${pgSchema}.${rowsOf}`]
          : ownRows
            ? ["its records are its own, and no other version shows them"]
            : []
      const verdict =
        missing.length > 0
          ? waiting("RefMissing", `${missing.join(", ")} not there; served without that foreign key`)
          : ready([`${table} is served in generation ${generation}`, ...rows, ...notes].join("; "), "Provisioned")
      return concluded(verdict, { ...status, pgTable: table, generation }, outcome._tag === "Applied")
    }
  }
}

/** Who holds the lock that did not come, and which step of a plan it was that failed. */
const failing: NonNullable<Reconciler<"SchemaDefinition">["failing"]> = (world, resource, error) =>
  world.fence.read((tx) =>
    Effect.gen(function* () {
      const { spec } = resource
      const plan = yield* PlanStore.open(tx, formatPath(pathOfDefinition(spec)))
      const steps = plan?.state === "Running" ? yield* PlanStore.steps(tx, plan.id) : []
      const step = steps.find((one) => one.state !== "Done")
      const at = step === undefined ? "" : `step ${step.position} of ${steps.length}: ${step.does}; `
      const before = world.stateOf(resource)?.status ?? { path: formatPath(pathOfDefinition(spec)) }
      const { plan: _, ...others } = before
      const status =
        plan === undefined || step === undefined
          ? others
          : { ...others, plan: planStatus({ hash: plan.hash, state: "Running", step: step.position, steps }) }
      if (!(error instanceof DatabaseFailure) || error.reason._tag !== "LockTimeout") {
        return { reason: "Retrying", message: `${at}${wordsOf(error)}`, status }
      }
      const holders = yield* Locks.heldBy(tx, spec)
      const waits = holders.length === 0 ? "a lock that others hold" : holders.join(" and ")
      return { reason: "WaitsForLock", message: `${at}it waits for ${waits}`, status }
    })
  )

/** What a definition asks for and does not get: said as long as it is so. */
const leftOut = "search is kept with the definition and is not built: nothing can be searched by it"

/** A conclusion, about how many records there are, and what is left out. */
const described = Effect.fnUntraced(function* (
  world: World,
  { spec }: ResourceOf<"SchemaDefinition">,
  one: Reconciled
) {
  const records = yield* RecordsWatch.recordsAbout(world, formatPath(pathOfDefinition(spec)))
  const { message, reason } = one.verdict
  const verdict =
    one.verdict._tag === "Ready" && spec.search !== undefined ? ready(`${message}; ${leftOut}`, reason) : one.verdict
  const status = records === undefined ? one.status : { ...one.status, records }
  return { ...one, verdict, status } satisfies Reconciled
})

/** Whether what is served is what the resource says, in its newest generation. */
const isAsWanted = ({ status, verdict }: Reconciled): boolean =>
  status.generation !== undefined && (verdict._tag === "Ready" || verdict.reason === "RefMissing")

const isOf = (one: Origin, other: Origin): boolean =>
  one.source === other.source && one.namespace === other.namespace && one.name === other.name

const conclusionWithDrift = (conclusion: Reconciled, { differences, repaired }: DriftWatch.Found): Reconciled => {
  const { again = DriftWatch.lookAgain, verdict } = conclusion
  const told = `the table was changed by hand: ${differences.join("; ")}`
  // what keeps it from being served as wanted comes first
  if (differences.length > 0 && !isAsWanted(conclusion)) {
    return { ...conclusion, verdict: { ...verdict, message: `${verdict.message}; meanwhile ${told}` }, again }
  }
  if (differences.length > 0) return { ...conclusion, verdict: stalled("Drifted", told), again: DriftWatch.lookAgain }
  if (repaired.length === 0 || verdict._tag !== "Ready") return conclusion
  return { ...conclusion, verdict: ready(`${verdict.message}; put right: ${repaired.join(", ")}`, "DriftRepaired") }
}

export const schemaDefinitionReconciler: Reconciler<"SchemaDefinition"> = {
  kind: "SchemaDefinition",
  failing,
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const path = pathOfDefinition(resource.spec)
      const text = formatPath(path)
      const early = parentVerdict(`domain ${chainOf(path)}`, domainOf(world, chainOf(path)))
      if (early !== undefined) return concluded(early, { path: text })
      const wanted = {
        spec: resource.spec,
        origin: world.originOf(resource),
        approval: approvalOf(resource)
      }
      // what a rule may cost is decided here: no engine can be interrupted while it judges a record
      const rules = [...ruleFaults(resource.spec), ...backfillFaults(resource.spec)].map((one) => ({
        ...one,
        pointer: `/spec${one.pointer}`
      }))
      /** What is served on is looked after while something else is wanted. */
      const refusedAs = Effect.fnUntraced(function* (refusal: ProvisionRefused) {
        const conclusion = concluded(verdictOf(refusal), { path: text })
        const state = yield* world.fence.read((tx) => servingOf(tx, text))
        if (state?.served !== true || !isOf(state.origin, wanted.origin)) return conclusion
        return yield* DriftWatch.watch(world, text, { isWanted: false, now: false }).pipe(
          Effect.map((drift) => conclusionWithDrift(conclusion, drift)),
          Effect.catchTag("ProvisionRefused", () => Effect.succeed(conclusion))
        )
      })
      if (rules.length > 0) return yield* refusedAs(refused("Invalid", "a rule cannot be admitted", rules))
      const provisioned = Evolution.provision<Superseded>(
        { ...world.fence, builds: world.builds, backfill: compileBackfill },
        wanted,
        slice
      )
      return yield* Effect.gen(function* () {
        const known = yield* world.fence.read((tx) => Provision.current(tx, wanted))
        const outcome = known ?? (yield* provisioned)
        if (outcome._tag === "Applied") yield* DriftWatch.settled(world, text)
        const ownRows = resource.spec.sharesRowsWith === "none"
        if (outcome._tag !== "Unchanged" && outcome._tag !== "Planned") return conclusionOf(text, outcome, ownRows)
        const isWaiting = outcome._tag === "Planned"
        const drift = yield* DriftWatch.watch(world, text, {
          isWanted: !isWaiting,
          // nobody is shown a plan for a table that is about to be put right
          now: isWaiting && known === undefined
        })
        // an index is built as any other is
        const settled = drift.planned || (isWaiting && drift.repaired.length > 0) ? yield* provisioned : outcome
        const conclusion = conclusionOf(text, settled, ownRows)
        return settled._tag === "Evolving" || settled._tag === "Conflicting"
          ? conclusion
          : conclusionWithDrift(conclusion, drift)
      }).pipe(Effect.catchTag("ProvisionRefused", refusedAs))
    }).pipe(Effect.flatMap((one) => described(world, resource, one))),
  serving: (world, resource, conclusion) =>
    Effect.map(
      world.fence.read((tx) => servingOf(tx, formatPath(pathOfDefinition(resource.spec)))),
      (state): Serving => {
        const mine = state !== undefined && isOf(state.origin, world.originOf(resource)) ? state : undefined
        return { ...judge(mine), generation: isAsWanted(conclusion) ? undefined : mine?.origin.generation }
      }
    ),
  remove: (world, { name, namespace }) =>
    Effect.gen(function* () {
      const origin = { source: world.fence.source, namespace, name }
      const { rows } = yield* world.fence.read((tx) =>
        tx.query(
          statement(
            `select path, serving is not null or state = 'Withdrawing' as served from platform.schema_defs s
             where source = $1 and namespace = $2 and name = $3 and (serving is not null or state = 'Withdrawing'
               or exists (select from platform.plans p where p.path = s.path and p.state in ('Waiting', 'Running')))`,
            [origin.source, namespace, name]
          )
        )
      )
      for (const row of rows) {
        yield* world.builds.stop(String(row.path))
        if (row.served !== true) {
          yield* world.fence.transaction((tx) => giveUp(tx, String(row.path)))
          continue
        }
        const refusal = yield* world.fence
          .transaction((tx) => withdraw(tx, { path: String(row.path), origin, leaving: world.leaving() }))
          .pipe(
            Effect.map((outcome) => {
              if (outcome._tag === "Waits") {
                return waiting("Withdrawing", `served no longer; waits for ${someOf(outcome.for)} to know it`)
              }
              return outcome._tag === "Referred"
                ? waiting(
                    "Withdrawing",
                    `served no longer; waits for ${someOf(outcome.by)}, which refer to it, to go too`
                  )
                : undefined
            }),
            Effect.catchTag("ProvisionRefused", (one) => Effect.succeed(verdictOf(one)))
          )
        if (refusal !== undefined) return refusal
      }
      return undefined
    }),
  forsake: (world, { name, namespace }) =>
    Effect.gen(function* () {
      const { rows } = yield* world.fence.read((tx) =>
        tx.query(
          statement(
            `select s.path from platform.schema_defs s join platform.plans p on p.path = s.path
             where s.source = $1 and s.namespace = $2 and s.name = $3 and p.state = 'Running'`,
            [world.fence.source, namespace, name]
          )
        )
      )
      for (const { path } of rows) {
        yield* world.builds.stop(String(path))
        yield* world.fence.transaction((tx) => giveUp(tx, String(path)))
      }
      return rows.length > 0
    }),
  dependents: (world, { spec }) =>
    world.resources("SchemaDefinition").filter(
      (one) =>
        chainOf(one.spec) === chainOf(spec) &&
        // another version may show its records, or wait to
        ((one.spec.object === spec.object && one.spec.version !== spec.version) ||
          one.spec.fields.some(
            ({ ref }) => ref !== undefined && ref.object === spec.object && ref.version === spec.version
          ))
    )
}
