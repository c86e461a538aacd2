/**
 * What verification finds of the audit log, as alerts: of what the scanner has read, and of lanes that no longer hold what it
 * read last.
 */
import { Effect } from "effect"
import { type AnomalyRule, minuteMillis } from "../../domain/AnomalyRule.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { sliceEntries } from "../../postgres/VerifySlices.ts"
import { type Alert, type Cause, causeOf, iso, raise, type Scan, utc } from "./AnomalyAlerts.ts"

/** The rule about what verification finds, where there is one in force; the most severe of several. */
const verificationRules = (rules: ReadonlyArray<AnomalyRule>) =>
  rules.filter(({ enabled, source }) => enabled && source === "verification")

interface Found {
  readonly chain: string
  readonly count: number
  readonly causes: ReadonlyArray<Cause>
}

const broken = (found: ReadonlyArray<Found>, from: string, to: string, { now, rules }: Scan): ReadonlyArray<Alert> =>
  verificationRules(rules).flatMap((rule) =>
    found
      .filter(({ count }) => count >= rule.threshold)
      .map(({ causes, chain, count }) => ({
        rule,
        chain,
        actor: "",
        address: "",
        at: now,
        from,
        to,
        counted: count,
        causes
      }))
  )

/** Lanes that no longer hold what was read last. */
export const rewound = Effect.fnUntraced(function* (tx: Tx, scan: Scan) {
  const { rows } = yield* tx.query(
    statement(
      `select chain, lane::int4 as lane, seq::text as seq, null as id, ${utc("occurred_at")} as occurred_at, problem from platform.anomaly_rewound()`
    )
  )
  const chains = Map.groupBy(rows, (row) => String(row.chain))
  const found = [...chains].map(([chain, lanes]) => ({
    chain,
    count: lanes.length,
    causes: lanes.slice(0, 100).map(causeOf)
  }))
  return yield* raise(tx, broken(found, iso(scan.now - minuteMillis), iso(scan.now), scan), scan)
})

// a slice of so many entries ends in time, however many a second has; a window of time that did not would be tried for ever
const sliceSql = `select s.unverified_from::text as "from", slice.until::text as "to"
  from (select unverified_from, unverified_to from platform.anomaly_scanner where unverified_from is not null for update) s
    cross join lateral platform.audit_verify_slice(s.unverified_from, s.unverified_to + interval '1 microsecond', $1::int4) slice`

const findingsSql = `with found as materialized (
    select v.*, row_number() over (partition by v.chain order by v.lane, v.seq) as place from platform.audit_verify_window($1::timestamptz, $2::timestamptz) v)
  select chain, count(*)::int4 as count, json_agg(json_build_object('chain', chain, 'lane', lane, 'seq', seq::text, 'id', id,
    'occurred_at', ${utc("occurred_at")}, 'problem', problem) order by place) filter (where place <= 100)::text as causes
  from found group by chain order by chain`

const verifiedSql = `update platform.anomaly_scanner set
  unverified_from = case when $1::timestamptz > unverified_to then null else $1::timestamptz end,
  unverified_to = case when $1::timestamptz > unverified_to then null else unverified_to end`

/** Verifies a slice of what was read, of so many entries; undefined where all of it is. */
export const verify = Effect.fnUntraced(function* (tx: Tx, scan: Scan, size = sliceEntries) {
  const { rows } = yield* tx.query(statement(sliceSql, [size]))
  const [slice] = rows
  if (slice === undefined) return undefined
  const [from, to] = [String(slice.from), String(slice.to)]
  const found = yield* tx.query(statement(findingsSql, [from, to]))
  yield* tx.query(statement(verifiedSql, [to]))
  const chains = found.rows.map((row) => ({
    chain: String(row.chain),
    count: Number(row.count),
    causes: JSON.parse(String(row.causes)) as ReadonlyArray<Cause>
  }))
  return yield* raise(tx, broken(chains, from, to, scan), scan)
})
