/**
 * Keeps `audit_log` and `event_log` ahead of time: this month and the next three, looked after every hour. An entry
 * without a month of its own could not be written, and with it the act that it is of.
 *
 * What there is, is compared with its parent: a month that lacks a grant's absence, a trigger, an index or row-level
 * security is told, counted, and seen by the isolation check.
 *
 * It only creates. Retiring is another schedule's, because creation that waits for a retirement which fails is how a known
 * system ran out of partitions. Months are the database's own, in UTC, since its clock says where a row belongs.
 */
import { Effect, Layer, Metric, Schedule } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { type PartitionFault, partitionFaults } from "../../postgres/PartitionFaults.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, type Superseded } from "../state/Fence.ts"
import { say } from "../state/InstallationConditions.ts"

/** How many months beside the current one are kept ready. */
export const monthsAhead = 3

const horizonGauge = Metric.gauge("velocity_partition_horizon_months", {
  description:
    "Months after the current one that a log has partitions for, without a gap; -1 where the current one is missing"
})
const createdCounter = Metric.counter("velocity_partitions_created_total", {
  description: "Partitions that the partition manager made",
  incremental: true
})

const faultsGauge = Metric.gauge("velocity_partition_faults", {
  description: "Ways in which a month is not guarded as its parent is"
})

const logs = ["audit_log", "event_log"] as const
type Log = (typeof logs)[number]

/** A log's horizon in months. */
export type Horizons = Readonly<Record<Log, number>>

const createSql: Readonly<Record<Log, string>> = {
  audit_log:
    "select platform.audit_partition_create((date_trunc('month', now() at time zone 'UTC') + make_interval(months => $1::int4))::date) as made",
  event_log:
    "select platform.event_partition_create((date_trunc('month', now() at time zone 'UTC') + make_interval(months => $1::int4))::date) as made"
}

const presentSql = `select p.parent, m.ahead
  from generate_series(0, 24) as m(ahead)
  join platform.partitions() p on p."from" = (date_trunc('month', now() at time zone 'UTC') + make_interval(months => m.ahead)) at time zone 'UTC'
  order by p.parent, m.ahead`

const missing = (present: ReadonlySet<string>): ReadonlyArray<readonly [Log, number]> =>
  logs.flatMap((log) =>
    Array.from({ length: monthsAhead + 1 }, (_, ahead) => [log, ahead] as const).filter(
      ([name, ahead]) => !present.has(`${name} ${ahead}`)
    )
  )

const horizonOf = (present: ReadonlySet<string>, log: Log): number => {
  let ahead = -1
  while (present.has(`${log} ${ahead + 1}`)) ahead += 1
  return ahead
}

const look = (fence: Fence["Service"]): Effect.Effect<ReadonlySet<string>, DatabaseFailure> =>
  Effect.map(
    fence.read((tx) => tx.query(statement(presentSql))),
    ({ rows }) => new Set(rows.map((row) => `${row.parent} ${row.ahead}`))
  )

/** Compares every month with its parent; tells what differs, with its repair. */
export const checkMonths: Effect.Effect<ReadonlyArray<PartitionFault>, DatabaseFailure, Fence> = Effect.gen(
  function* () {
    const fence = yield* Fence
    const { rows } = yield* fence.read((tx) => tx.query(statement(partitionFaults)))
    const faults = rows as unknown as ReadonlyArray<PartitionFault>
    yield* Metric.update(faultsGauge, faults.length)
    for (const { detail, partition, repair } of faults) {
      yield* Effect.logError(`${partition}: ${detail}. Repair: ${repair}`)
    }
    return faults
  }
)

/**
 * One round: makes what is missing, each month in a transaction of its own, so that one that fails stops no other, and
 * measures. Fails with the first failure after all were tried.
 */
export const sweep: Effect.Effect<Horizons, DatabaseFailure | Superseded, Fence> = Effect.gen(function* () {
  const fence = yield* Fence
  const before = yield* look(fence)
  const failures: Array<DatabaseFailure | Superseded> = []
  for (const [log, ahead] of missing(before)) {
    const made = yield* Effect.result(fence.transaction((tx) => tx.query(statement(createSql[log], [ahead]))))
    if (made._tag === "Failure") {
      failures.push(made.failure)
      yield* Effect.logError(`the partition of ${log} ${ahead} months ahead could not be made`, made.failure)
    } else if (made.success.rows[0]?.made === true) {
      yield* Metric.update(Metric.withAttributes(createdCounter, { parent: log }), 1)
      yield* Effect.logInfo(`partition of ${log} ${ahead} months ahead made`)
    }
  }
  const present = yield* look(fence)
  const horizons: Horizons = { audit_log: horizonOf(present, "audit_log"), event_log: horizonOf(present, "event_log") }
  for (const log of logs) {
    yield* Metric.update(Metric.withAttributes(horizonGauge, { parent: log }), horizons[log])
    if (horizons[log] < 1) yield* Effect.logError(`${log} has partitions for ${horizons[log]} months ahead`)
  }
  const short = logs.filter((log) => horizons[log] < 1)
  yield* say({
    type: "PartitionsAhead",
    status: short.length === 0 ? "True" : "False",
    reason: short.length === 0 ? "MonthsReady" : "HorizonShort",
    message:
      short.length === 0
        ? "the logs have a partition for the next month"
        : `${short.join(" and ")} have no partition for the next month, and writes will fail when it begins`
  })
  yield* checkMonths
  const [failure] = failures
  return failure === undefined ? horizons : yield* Effect.fail(failure)
})

/** Keys of answered requests whose time is over, and which nobody else removes. */
const purge = Effect.flatMap(Fence, (fence) =>
  fence.transaction((tx) => tx.query(statement("select platform.idempotency_purge()::int4 as purged")))
).pipe(
  Effect.map(({ rows }) => Number(rows[0]?.purged ?? 0)),
  Effect.repeat({ while: (count) => count >= 10_000 })
)

/** Sweeps at once and then every hour. A round that fails is tried again within the minute; none ends the schedule. */
export const layer: Layer.Layer<never, never, Fence> = Layer.effectDiscard(
  Effect.all([sweep, purge], { discard: true }).pipe(
    Effect.retry(Schedule.exponential("1 second").pipe(Schedule.jittered, Schedule.upTo({ times: 5 }))),
    Effect.catchCause((cause) => Effect.logError("the partition manager failed, and tries again in an hour", cause)),
    Effect.repeat(Schedule.spaced("1 hour")),
    Effect.forkScoped
  )
)
