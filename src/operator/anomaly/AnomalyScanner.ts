/**
 * Reads what is new in the audit log every minute, counts it by the rules, and raises an alert where a window holds too
 * much (`domain/AnomalyRule`). `AnomalyDelivery` tells others.
 *
 * New entries are found by (chain, lane, seq), so a commit that comes late is read late and counts in its own minute. The
 * cursors, the counts and the alerts of a batch are one transaction of the operator's term: killed anywhere, the scanner
 * goes on as if the batch had not begun. What was read is verified afterwards, in a transaction of its own that remembers
 * how far it came, and a lane that no longer holds what was read last is told too.
 */
import { Clock, Effect, Layer, Metric, Schedule } from "effect"
import {
  type AnomalyRule,
  amountOf,
  type Crossing,
  type Fact,
  factOf,
  type Group,
  groupOf,
  type Hours,
  hourMillis,
  matches,
  matchOf,
  minuteMillis,
  ruleKey,
  windowMillis
} from "../../domain/AnomalyRule.ts"
import { decodeStrictly } from "../../domain/Resource.ts"
import { WorkingHours } from "../../domain/WorkingHours.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, roundOf, type Superseded } from "../state/Fence.ts"
import { type Alert, AlertEvents, causeOf, iso, type Raised, raise, type Scan, utc } from "./AnomalyAlerts.ts"
import type { AnomalySettings } from "./AnomalySettings.ts"
import { rewound, verify } from "./AnomalyVerification.ts"

/** Entries of one transaction. */
export const batchSize = 20_000
/** Where the first scan of a database begins, and how long counts are kept beyond the longest window. */
const reach = 24 * hourMillis
const margin = hourMillis

const alertsCounter = Metric.counter("velocity_anomaly_alerts_total", {
  description: "Alerts that the anomaly scanner raised or added to, by rule and severity",
  incremental: true
})
const readCounter = Metric.counter("velocity_anomaly_entries_total", {
  description: "Entries of the audit log that the anomaly scanner read",
  incremental: true
})
const scanGauge = Metric.gauge("velocity_anomaly_last_scan_seconds", {
  description: "When the last scan ended well, in seconds since 1970"
})

/** What a scan did. */
export interface Scanned {
  readonly entries: number
  /** Ids of the alerts that it raised. */
  readonly alerts: ReadonlyArray<string>
}

/** The working hours that organisations tell; one that a newer version wrote and this one cannot read tells none. */
const readHours = Effect.fnUntraced(function* (tx: Tx) {
  const { rows } = yield* tx.query(
    statement("select org, hours::text as hours from platform.working_hours() where hours is not null")
  )
  const hours = new Map<string, WorkingHours>()
  for (const { hours: text, org } of rows) {
    const decoded = decodeStrictly(WorkingHours, JSON.parse(String(text)))
    if ("value" in decoded) hours.set(String(org), decoded.value)
  }
  return hours as Hours
})

/** What a batch added to a rule's counts. */
interface Counted extends Group {
  readonly minute: number
  count: number
}

const countedBy = (rule: AnomalyRule, facts: ReadonlyArray<Fact>, hours: Hours): ReadonlyArray<Counted> => {
  const counts = new Map<string, Counted>()
  for (const fact of facts) {
    if (!matches(rule, fact, hours)) continue
    const group = groupOf(rule, fact)
    const key = JSON.stringify([group.chain, group.actor, group.address, fact.minute])
    const known = counts.get(key)
    if (known !== undefined) known.count += amountOf(rule, fact)
    else counts.set(key, { ...group, minute: fact.minute, count: amountOf(rule, fact) })
  }
  return [...counts.values()]
}

const addSql = `insert into platform.anomaly_buckets as b (rule, chain, actor, address, minute, count)
  select t.rule, t.chain, t.actor, t.address, t.minute, t.count
  from jsonb_to_recordset($1::jsonb) as t(rule text, chain text, actor text, address text, minute timestamptz, count int8)
  on conflict (rule, chain, actor, address, minute) do update set count = b.count + excluded.count`

/** Every window that the touched minutes are part of, by its last minute; the first in each hour that has no alert yet. */
const crossingSql = `with touched as (
    select * from jsonb_to_recordset($1::jsonb) as t(chain text, actor text, address text, first timestamptz, last timestamptz)
  ), summed as (
    select t.chain, t.actor, t.address, t.first, b.minute, sum(b.count) over (
      partition by b.chain, b.actor, b.address order by b.minute range between make_interval(mins => $3::int4 - 1) preceding and current row) as total
    from touched t join platform.anomaly_buckets b on b.rule = $2 and b.chain = t.chain and b.actor = t.actor and b.address = t.address
      and b.minute > t.first - make_interval(mins => $3::int4) and b.minute < t.last + make_interval(mins => $3::int4)
  )
  select distinct on (s.chain, s.actor, s.address, date_trunc('hour', s.minute, 'UTC')) s.chain, s.actor, s.address, s.minute, s.total::text as total
  from summed s
  where s.minute >= s.first and s.total >= $4::int8 and not exists (
    select from platform.anomaly_alerts a where a.rule = $5 and a.chain = coalesce(nullif(s.chain, ''), 'platform')
      and a.actor = s.actor and a.address = s.address and a.hour = date_trunc('hour', s.minute, 'UTC'))
  order by s.chain, s.actor, s.address, date_trunc('hour', s.minute, 'UTC'), s.minute`

const crossingsOf = Effect.fnUntraced(function* (tx: Tx, rule: AnomalyRule, counted: ReadonlyArray<Counted>) {
  const touched = new Map<string, Group & { first: number; last: number }>()
  for (const { actor, address, chain, minute } of counted) {
    const key = JSON.stringify([chain, actor, address])
    const known = touched.get(key)
    if (known === undefined) touched.set(key, { chain, actor, address, first: minute, last: minute })
    else {
      known.first = Math.min(known.first, minute)
      known.last = Math.max(known.last, minute)
    }
  }
  const groups = [...touched.values()].map((one) => ({ ...one, first: iso(one.first), last: iso(one.last) }))
  const minutes = windowMillis(rule) / minuteMillis
  const { rows } = yield* tx.query(
    statement(crossingSql, [JSON.stringify(groups), ruleKey(rule), minutes, rule.threshold, rule.name])
  )
  return rows.map(
    (row): Crossing => ({
      chain: String(row.chain),
      actor: String(row.actor),
      address: String(row.address),
      minute: (row.minute as Date).getTime(),
      total: Number(row.total)
    })
  )
})

const entriesSql = `select chain, lane::int4 as lane, seq::text as seq, id::text as id, ${utc("occurred_at")} as occurred_at
  from platform.anomaly_entries($1::timestamptz, $2::timestamptz, $3::jsonb)`

/** The alert of a crossing, with the newest of the entries that caused it. */
const alertOf = Effect.fnUntraced(function* (tx: Tx, rule: AnomalyRule, crossing: Crossing, hours: Hours) {
  const to = crossing.minute + minuteMillis
  const from = to - windowMillis(rule)
  const asked = matchOf(rule, crossing, { from, to }, hours)
  const { rows } = yield* tx.query(statement(entriesSql, [iso(from), iso(to), JSON.stringify(asked)]))
  return {
    ...crossing,
    rule,
    at: crossing.minute,
    from: iso(from),
    to: iso(to),
    counted: crossing.total,
    causes: rows.map(causeOf)
  } satisfies Alert
})

/** One batch: reads, counts, and raises. */
const batch = Effect.fnUntraced(function* (tx: Tx, scan: Scan) {
  const { rows } = yield* tx.query(
    statement("select * from platform.anomaly_read($1::timestamptz, $2::int4)", [iso(scan.now - reach), batchSize])
  )
  const facts = rows.map(factOf)
  const entries = facts.reduce((sum, fact) => sum + fact.entries, 0)
  if (entries === 0) return { entries, raised: [] }
  const hours = yield* readHours(tx)
  const counted = scan.rules
    .filter(({ enabled }) => enabled)
    .map((rule) => ({ rule, counts: countedBy(rule, facts, hours) }))
    .filter(({ counts }) => counts.length > 0)
  const added = counted.flatMap(({ counts, rule }) =>
    counts.map((one) => ({ ...one, rule: ruleKey(rule), minute: iso(one.minute) }))
  )
  if (added.length > 0) yield* tx.query(statement(addSql, [JSON.stringify(added)]))
  const alerts: Array<Alert> = []
  for (const { counts, rule } of counted) {
    for (const crossing of yield* crossingsOf(tx, rule, counts)) alerts.push(yield* alertOf(tx, rule, crossing, hours))
  }
  return { entries, raised: yield* raise(tx, alerts, scan) }
})

const purgeSql = "delete from platform.anomaly_buckets where minute < $1::timestamptz or rule <> all ($2::text[])"

/** Removes counts that no window reaches back to. Only once everything was read: what comes then is of now. */
const purge = (fence: Fence["Service"], { now, rules }: Scan) => {
  const oldest = now - Math.max(...rules.map(windowMillis), 0) - margin
  const keys = rules.map(ruleKey)
  return Effect.flatMap(
    fence.read((tx) =>
      tx.query(
        statement(
          "select exists (select from platform.anomaly_buckets where minute < $1::timestamptz or rule <> all ($2::text[])) as stale",
          [iso(oldest), keys]
        )
      )
    ),
    ({ rows }) =>
      rows[0]?.stale === true
        ? Effect.asVoid(fence.transaction((tx) => tx.query(statement(purgeSql, [iso(oldest), keys]))))
        : Effect.void
  )
}

/**
 * One scan: everything that is new, in batches, then its verification. What was done before a failure stays done.
 */
export const scan = Effect.fnUntraced(function* (
  wanted: Scan
): Effect.fn.Return<Scanned, DatabaseFailure | Superseded, Fence> {
  const fence = yield* Fence
  const alerts: Array<string> = []
  const tell = yield* AlertEvents
  const told = (raised: ReadonlyArray<Raised>) =>
    Effect.forEach(
      raised,
      (one) => {
        const { id, rule } = one
        alerts.push(id)
        return Effect.all(
          [
            Metric.update(Metric.withAttributes(alertsCounter, { rule: rule.name, severity: rule.severity }), 1),
            Effect.logWarning(`anomaly ${rule.name}: ${rule.title} (alert ${id})`),
            tell(one)
          ],
          { discard: true }
        )
      },
      { discard: true }
    )
  yield* told(yield* fence.transaction((tx) => rewound(tx, wanted)))
  let entries = 0
  for (;;) {
    const read = yield* fence.transaction((tx) => batch(tx, wanted))
    entries += read.entries
    yield* Metric.update(readCounter, read.entries)
    yield* told(read.raised)
    if (read.entries < batchSize) break
  }
  yield* purge(fence, wanted)
  for (;;) {
    const raised = yield* fence.transaction((tx) => verify(tx, wanted))
    if (raised === undefined) break
    yield* told(raised)
  }
  return { entries, alerts }
})

/** Scans every minute, from a minute after the start. A scan that fails is tried again with the next. */
export const layer = (settings: AnomalySettings): Layer.Layer<never, never, Fence> =>
  Layer.effectDiscard(
    roundOf(
      "the anomaly scanner",
      Effect.gen(function* () {
        yield* scan({ ...settings, now: yield* Clock.currentTimeMillis })
        yield* Metric.update(scanGauge, Math.floor((yield* Clock.currentTimeMillis) / 1000))
      })
    ).pipe(
      Effect.schedule(Schedule.spaced("1 minute")),
      Effect.catchCause((cause) => Effect.logError("the anomaly scanner stopped", cause)),
      Effect.forkScoped
    )
  )
