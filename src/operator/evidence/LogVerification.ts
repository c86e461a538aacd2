/**
 * Verifies the log's last day, every hour, in the background: what came in is as it was written and every lane ends where
 * the tree says, or somebody is told.
 *
 * Slice by slice in short transactions, on one connection, so that neither the term nor a snapshot is held for long. The
 * result is a row of `platform.audit_verification`, metrics, a condition of the installation, and where it is bad an error in the log, and the anomaly
 * scanner's to tell.
 */
import { Clock, Effect, Layer, Metric, Schedule, Stream } from "effect"
import { statement } from "../../postgres/Statement.ts"
import { sliceEntries, verified } from "../../postgres/VerifySlices.ts"
import { Fence } from "../state/Fence.ts"
import { say } from "../state/InstallationConditions.ts"

/** How far back it looks. */
export const lookBack = 24 * 60 * 60 * 1000
/** Findings that are kept in the row and logged; all of them are counted. */
const maxKept = 100

const entriesGauge = Metric.gauge("velocity_audit_verified_entries", {
  description: "Entries of the last day, as the last verification in the background counted them"
})
const problemsGauge = Metric.gauge("velocity_audit_verified_problems", {
  description: "Entries of the last day, and ends of lanes, that are not as they were written"
})
const timeGauge = Metric.gauge("velocity_audit_verified_timestamp_seconds", {
  description: "When the last verification in the background ended, in seconds since 1970"
})

/** What a verification found. */
export interface LogVerified {
  readonly from: string
  readonly to: string
  readonly entries: number
  readonly problems: number
  /** The first of them. */
  readonly findings: ReadonlyArray<Finding>
}

/** A finding, as `audit_verify_window` and `audit_verify_lanes` tell it. */
export interface Finding {
  readonly chain: string
  readonly lane: number
  readonly seq: string
  /** Null where seals are meant that no month has. */
  readonly occurred_at: string | null
  readonly problem: string
}

/** What is wrong of a lane or a month as a whole. */
const ofLanes = new Set(["tail_missing", "seal_mismatch"])

const keepSql = `insert into platform.audit_verification ("from", "to", started_at, finished_at, entries, problems, findings)
  values ($1::timestamptz, $2::timestamptz, $2::timestamptz, clock_timestamp(), $3::int8, $4::int8, $5::jsonb)
  on conflict (singleton) do update set "from" = excluded."from", "to" = excluded."to", started_at = excluded.started_at,
    finished_at = excluded.finished_at, entries = excluded.entries, problems = excluded.problems, findings = excluded.findings`

/**
 * Where something is wrong the anomaly scanner verifies that time again, and raises `chain_broken` as it raises everything:
 * explained, once an hour, and delivered.
 */
const tellSql = `update platform.anomaly_scanner set unverified_from = least(unverified_from, $1::timestamptz),
  unverified_to = greatest(unverified_to, $2::timestamptz)`

/** Verifies the last day and says what it found. Fails where the database does not answer, which is no finding. */
export const verifyDay = (size = sliceEntries) =>
  Effect.gen(function* () {
    const fence = yield* Fence
    const now = yield* Clock.currentTimeMillis
    const window = { from: new Date(now - lookBack).toISOString(), to: new Date(now).toISOString() }
    let entries = 0
    let problems = 0
    const findings: Array<Finding> = []
    yield* verified((f) => fence.read(f), window, 1, size).pipe(
      Stream.runForEach((slice) =>
        Effect.sync(() => {
          entries += slice.entries
          problems += slice.findings.length
          for (const finding of slice.findings.slice(0, maxKept - findings.length)) findings.push(JSON.parse(finding))
        })
      )
    )
    const found: LogVerified = { ...window, entries, problems, findings }
    yield* fence.transaction((tx) =>
      Effect.gen(function* () {
        yield* tx.query(statement(keepSql, [window.from, window.to, entries, problems, JSON.stringify(findings)]))
        // an end that is gone is no time to verify again, and may be years old
        const times = findings
          .flatMap(({ occurred_at, problem }) => (occurred_at === null || ofLanes.has(problem) ? [] : [occurred_at]))
          .sort()
        if (times.length === 0) return
        yield* tx.query(statement(tellSql, [times[0], times.at(-1)]))
      })
    )
    yield* Metric.update(entriesGauge, entries)
    yield* Metric.update(problemsGauge, problems)
    yield* Metric.update(timeGauge, (yield* Clock.currentTimeMillis) / 1000)
    yield* say(
      problems === 0
        ? { type: "AuditVerified", status: "True", reason: "Sound", message: "the log's last day is as it was written" }
        : {
            type: "AuditVerified",
            status: "False",
            reason: "Tampered",
            message: `${problems} entries of the last day, or ends of lanes, are not as they were written: velocity audit verify names them`
          }
    )
    for (const { chain, lane, problem, seq } of findings) {
      yield* Effect.logError(`the audit log is not as it was written: ${problem} at ${chain}, lane ${lane}, seq ${seq}`)
    }
    if (problems > findings.length) yield* Effect.logError(`and at ${problems - findings.length} places more`)
    return found
  })

/** An operator that has just started has other things to do, and one that starts in a loop shall not read the log in it. */
const settling = "1 minute"

/** Verifies soon and then every hour; one that could not tell is tried again, and none ends the schedule. */
export const layer: Layer.Layer<never, never, Fence> = Layer.effectDiscard(
  verifyDay().pipe(
    Effect.retry(Schedule.exponential("2 seconds").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))),
    Effect.catchCause((cause) => Effect.logError("the last day of the log could not be verified", cause)),
    Effect.repeat(Schedule.spaced("1 hour")),
    Effect.delay(settling),
    Effect.forkScoped
  )
)
