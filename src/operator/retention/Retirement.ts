/**
 * Ends the months that are past what is kept: sealed, exported where that is wanted, judged, and detached, an hour apart.
 *
 * A schedule of its own, so that creating months never waits for one that cannot go (PartitionManager). The database
 * decides: this asks it, month by month and oldest first, and says what it answered. A month that is refused stays, and
 * with it the later ones of its log, until the next round.
 */
import { Config, Effect, Layer, Metric, Option, Schedule, Schema } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { integer } from "../../postgres/PgSettings.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, type Superseded } from "../state/Fence.ts"
import { type ExportFailed, exportMonth } from "./PartitionExport.ts"

/** What becomes of a month that is retired: gone, kept in schema `platform_archive`, or gone once its files are read back. */
export type Disposition = "drop" | "keep" | "export"

export interface RetirementSettings {
  /** Months that the audit log is kept for; what is in force stays where it is not said. */
  readonly audit: number | undefined
  /** The same of history. */
  readonly history: number | undefined
  readonly disposition: Disposition
  /** Where exported months go. */
  readonly folder: string | undefined
}

const months = (name: string): Config.Config<number | undefined> =>
  integer(name, 0, 1, 1_200).pipe(Config.map((count) => (count === 0 ? undefined : count)))

/** `VELOCITY_RETENTION_AUDIT`, `VELOCITY_RETENTION_HISTORY`, `VELOCITY_RETIRE` (keep), `VELOCITY_EXPORT_DIR`. */
export const settings: Effect.Effect<RetirementSettings, Config.ConfigError> = Effect.gen(function* () {
  const disposition = yield* Config.schema(Schema.Literals(["drop", "keep", "export"]), "VELOCITY_RETIRE").pipe(
    Config.withDefault("keep" as const)
  )
  const folder = Config.String("VELOCITY_EXPORT_DIR")
  return {
    audit: yield* months("VELOCITY_RETENTION_AUDIT"),
    history: yield* months("VELOCITY_RETENTION_HISTORY"),
    disposition,
    folder: disposition === "export" ? yield* folder : Option.getOrUndefined(yield* Config.option(folder))
  }
})

const retiredCounter = Metric.counter("velocity_partitions_retired_total", {
  description: "Months that were retired, by log and what became of them",
  incremental: true
})
const refusedCounter = Metric.counter("velocity_partition_refusals_total", {
  description: "Times that a month could not be retired, by log and code",
  incremental: true
})
const waitingGauge = Metric.gauge("velocity_partitions_overdue", {
  description: "Months that are past what is kept and are still there, by log"
})

/** What became of a month in a round. */
export type Outcome =
  | { readonly name: string; readonly _tag: "Retired" }
  | { readonly name: string; readonly _tag: "Refused"; readonly code: string; readonly message: string }

type Failure = DatabaseFailure | Superseded | ExportFailed

/** Codes by which the database says that a month may not go, and why (docs/architecture/stored-procedures.md). */
const refusals = new Set(["VL060", "VL061", "VL062", "VL063", "VL064", "VL065", "VL066"])
/** A month that is not as it was written: somebody must look. */
const tampered = "VL064"

/** What has not happened yet is 0 and not absent: the first time is an increase. */
const unrefused = (log: string) =>
  Metric.update(Metric.withAttributes(refusedCounter, { parent: log, code: tampered }), 0)

interface Due {
  readonly name: string
  readonly parent: string
  readonly sealed: boolean
  readonly exported: boolean
}

const retireSql = "select platform.partition_retire($1, $2, $3::int8)::text as done"

/** Seals, exports and retires one month; what was done of it before is not done again. */
const retire = Effect.fnUntraced(function* (month: Due, { disposition, folder }: RetirementSettings) {
  const fence = yield* Fence
  if (month.parent === "audit_log" && !month.sealed) {
    yield* fence.transaction((tx) => tx.query(statement("select platform.partition_seal($1) as sealed", [month.name])))
  }
  if (disposition === "export" && !month.exported && folder !== undefined) yield* exportMonth(folder, month.name)
  yield* fence.long((tx) => tx.query(statement(retireSql, [month.name, disposition, fence.epoch])))
})

const refusalOf = (failure: Failure): { readonly code: string; readonly message: string } | undefined =>
  failure._tag === "DatabaseFailure" && failure.reason._tag === "Platform" && refusals.has(failure.reason.code)
    ? { code: failure.reason.code, message: failure.reason.message }
    : undefined

/** Retires the months of one log, oldest first, until one may not go. */
const retireLog = Effect.fnUntraced(function* (log: string, due: ReadonlyArray<Due>, options: RetirementSettings) {
  const outcomes: Array<Outcome> = []
  let failure: Failure | undefined
  for (const month of due) {
    const { name } = month
    const done = yield* Effect.result(retire(month, options))
    if (done._tag === "Success") {
      outcomes.push({ name, _tag: "Retired" })
      yield* Metric.update(Metric.withAttributes(retiredCounter, { parent: log, disposition: options.disposition }), 1)
      yield* Effect.logInfo(`${name} is retired: ${options.disposition}`)
      continue
    }
    const refusal = refusalOf(done.failure)
    if (refusal === undefined) {
      failure = done.failure
      yield* Effect.logWarning(`${name} could not be retired`, done.failure)
    } else {
      outcomes.push({ name, _tag: "Refused", ...refusal })
      yield* Metric.update(Metric.withAttributes(refusedCounter, { parent: log, code: refusal.code }), 1)
      const line = `${name} stays: ${refusal.message} (${refusal.code})`
      yield* refusal.code === tampered ? Effect.logError(line) : Effect.logInfo(line)
    }
    break
  }
  const gone = outcomes.filter((outcome) => outcome._tag === "Retired").length
  yield* Metric.update(Metric.withAttributes(waitingGauge, { parent: log }), due.length - gone)
  return { outcomes, failure }
})

/**
 * One round over both logs; what goes wrong with one does not keep the other. Fails with the first failure that is no
 * refusal (a lock that did not come, a disk that is full), after all was tried.
 */
export const round = Effect.fnUntraced(function* (options: RetirementSettings) {
  const fence = yield* Fence
  const { rows } = yield* fence.read((tx) =>
    tx.query(statement("select name, parent, sealed, exported from platform.partitions_due()"))
  )
  const due = rows as unknown as ReadonlyArray<Due>
  const outcomes: Array<Outcome> = []
  const failures: Array<Failure> = []
  for (const log of ["audit_log", "event_log"]) {
    yield* unrefused(log)
    const ended = yield* retireLog(
      log,
      due.filter((month) => month.parent === log),
      options
    )
    outcomes.push(...ended.outcomes)
    if (ended.failure !== undefined) failures.push(ended.failure)
  }
  const [failure] = failures
  return failure === undefined ? (outcomes as ReadonlyArray<Outcome>) : yield* Effect.fail(failure)
})

/** Says what is kept, where that was configured; what would be shorter than what is in force is refused and told. */
export const keep = Effect.fnUntraced(function* ({ audit, history }: RetirementSettings) {
  if (audit === undefined && history === undefined) return
  const fence = yield* Fence
  yield* fence.transaction((tx) =>
    tx.query(
      statement("select audit_months, event_months from platform.retention_set($1::int4, $2::int4)", [
        audit ?? null,
        history ?? null
      ])
    )
  )
})

/** Configured shorter than what is in force: tried again, it would be refused again. */
const isShorter = (failure: DatabaseFailure | Superseded): boolean =>
  failure._tag === "DatabaseFailure" && failure.reason._tag === "Platform" && failure.reason.code === "VL067"

/** Rounds at once and then every hour; a round that fails is tried again a few times, and none ends the schedule. */
export const layer: Layer.Layer<never, Config.ConfigError, Fence> = Layer.effectDiscard(
  Effect.gen(function* () {
    const options = yield* settings
    const again = Schedule.exponential("2 seconds").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))
    const kept = keep(options).pipe(
      Effect.retry({ while: (error) => !isShorter(error), schedule: again }),
      Effect.catchCause((cause) => Effect.logError("what is kept is not as configured", cause))
    )
    yield* Effect.andThen(
      kept,
      round(options).pipe(
        Effect.retry(again),
        Effect.catchCause((cause) => Effect.logError("months could not be retired; again in an hour", cause)),
        Effect.repeat(Schedule.spaced("1 hour"))
      )
    ).pipe(Effect.forkScoped)
  })
)
