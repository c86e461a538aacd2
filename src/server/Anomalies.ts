/**
 * Alerts for those who read them, as `velocity_gateway`; and a rule tried over the past, as `velocity_auditor`, with the
 * rule's own words (`domain/AnomalyWindow`) and nothing written.
 */
import { Context, Effect, Layer, Stream } from "effect"
import {
  type AnomalyRule,
  alertAction,
  type Crossing,
  chainOfGroup,
  factOf,
  minuteMillis,
  windowMillis
} from "../domain/AnomalyRule.ts"
import { SlidingWindows } from "../domain/AnomalyWindow.ts"
import { decodeStrictly } from "../domain/Resource.ts"
import { WorkingHours } from "../domain/WorkingHours.ts"
import { AuditorTx } from "../postgres/AuditorTx.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { GatewayTx } from "../postgres/GatewayTx.ts"
import { type Statement, statement } from "../postgres/Statement.ts"
import type { AuditPlace } from "./AuditLog.ts"

/** Which alerts are asked for. */
export interface AnomalyQuery {
  readonly chain?: string | undefined
  readonly rule?: string | undefined
  readonly severity?: string | undefined
  readonly acknowledged?: boolean | undefined
  readonly limit: number
  /** The place behind which the page begins. */
  readonly after?: AuditPlace | undefined
}

/** A page: alerts as JSON texts, and where the next one begins. */
export interface AnomalyPage {
  readonly items: ReadonlyArray<string>
  readonly next: AuditPlace | undefined
}

/** What a rule would have raised. */
export interface AnomalyTrial {
  readonly alerts: ReadonlyArray<Readonly<Record<string, unknown>>>
  readonly truncated: boolean
}

/** The most alerts that a trial answers. */
export const maxTrialAlerts = 1_000

const utc = (column: string): string =>
  `pg_catalog.to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

const alertJson = `json_build_object('id', a.id, 'rule', a.rule, 'title', a.title, 'severity', a.severity, 'chain', a.chain,
 'actor', nullif(a.actor, ''), 'address', nullif(a.address, ''), 'window', json_build_object('from', ${utc("a.window_from")}, 'to', ${utc("a.window_to")}),
 'count', a.count, 'threshold', a.threshold, 'entries', a.explanation, 'created_at', ${utc("a.created_at")},
 'acknowledged', case when a.acknowledged_at is not null then
   json_build_object('by', a.acknowledged_by, 'at', ${utc("a.acknowledged_at")}, 'comment', a.comment) end,
 'deliveries', (select coalesce(json_agg(json_build_object('endpoint', d.endpoint, 'attempts', d.attempts, 'status', d.status, 'error', d.error,
   'next_attempt_at', case when d.delivered_at is null and d.given_up_at is null then ${utc("d.next_attempt_at")} end,
   'delivered_at', ${utc("d.delivered_at")}, 'given_up_at', ${utc("d.given_up_at")}) order by d.endpoint), '[]')
   from platform.anomaly_deliveries d where d.alert_id = a.id))::text as alert`

const listStatement = ({ acknowledged, after, chain, limit, rule, severity }: AnomalyQuery): Statement => {
  const params: Array<unknown> = []
  const bind = (value: unknown, cast = "") => `$${params.push(value)}${cast}`
  const conditions: Array<string> = []
  for (const [column, value] of Object.entries({ chain, rule, severity })) {
    if (value !== undefined) conditions.push(`a.${column} = ${bind(value)}`)
  }
  if (acknowledged !== undefined) conditions.push(`a.acknowledged_at is ${acknowledged ? "not " : ""}null`)
  if (after !== undefined) {
    conditions.push(`(a.created_at, a.id) < (${bind(after.occurredAt, "::timestamptz")}, ${bind(after.id, "::uuid")})`)
  }
  const where = conditions.length === 0 ? "" : `where ${conditions.join(" and ")}`
  return statement(
    `select ${alertJson}, ${utc("a.created_at")} as at, a.id::text as id from platform.anomaly_alerts a ${where}
order by a.created_at desc, a.id desc limit ${bind(limit + 1)}::int4`,
    params
  )
}

const acknowledgeSql = "select platform.anomaly_acknowledge($1::uuid, $2, $3, $4) as done"
const oneSql = `select ${alertJson} from platform.anomaly_alerts a where a.id = $1::uuid`

const hoursSql = "select org, hours::text as hours from platform.working_hours() where hours is not null"

/** What `platform.anomaly_read` answers of new entries, of a time. */
const factsSql = `select a.chain, a.actor, coalesce(a.payload ->> 'address', '') as address, a.action, a.outcome,
  date_trunc('minute', a.occurred_at, 'UTC') as minute, count(*) as entries,
  sum(case when a.payload ->> 'count' ~ '^[0-9]{1,9}$' then (a.payload ->> 'count')::int8 else 1 end)::int8 as records
from platform.audit_log a
where a.occurred_at >= $1::timestamptz and a.occurred_at < $2::timestamptz and a.action <> '${alertAction}'
  and ($3::text[] is null or a.action = any ($3::text[])) and ($4::text[] is null or a.outcome = any ($4::text[]))
group by 1, 2, 3, 4, 5, 6 order by 6`

/** Names without a `*` are looked for by Postgres, the others by the rule itself. */
const named = (patterns: ReadonlyArray<string> | undefined): ReadonlyArray<string> | null =>
  patterns === undefined || patterns.some((pattern) => pattern.endsWith("*")) ? null : patterns

const iso = (millis: number): string => new Date(millis).toISOString()

/** See the module. */
export class Anomalies extends Context.Service<
  Anomalies,
  {
    readonly list: (query: AnomalyQuery) => Effect.Effect<AnomalyPage, DatabaseFailure>
    /** Says that an alert was seen; the alert as JSON, undefined where there is none. */
    readonly acknowledge: (said: {
      readonly id: string
      readonly actor: string
      readonly comment: string
      readonly requestId: string
    }) => Effect.Effect<string | undefined, DatabaseFailure>
    /** Tries a rule over the time from `from` to `to`, in milliseconds since 1970. */
    readonly trial: (
      rule: AnomalyRule,
      time: { readonly from: number; readonly to: number }
    ) => Effect.Effect<AnomalyTrial, DatabaseFailure>
  }
>()("velocity/server/Anomalies") {
  static readonly layer = Layer.effect(
    Anomalies,
    Effect.gen(function* () {
      const gateway = yield* GatewayTx
      const auditor = yield* AuditorTx

      const list = Effect.fnUntraced(function* (query: AnomalyQuery) {
        const { rows } = yield* gateway.run((tx) => tx.query(listStatement(query)), { end: "read" })
        const last = rows.length > query.limit ? rows[query.limit - 1] : undefined
        return {
          items: rows.slice(0, query.limit).map((row) => String(row.alert)),
          next: last === undefined ? undefined : { occurredAt: String(last.at), id: String(last.id) }
        }
      })

      const acknowledge = Effect.fnUntraced(function* ({
        actor,
        comment,
        id,
        requestId
      }: Parameters<Anomalies["Service"]["acknowledge"]>[0]) {
        const [, found] = yield* gateway.bundle([
          statement(acknowledgeSql, [id, actor, comment, requestId]),
          statement(oneSql, [id])
        ])
        const alert = found?.rows[0]?.alert
        return alert === undefined ? undefined : String(alert)
      })

      const hours = Effect.map(
        auditor.run((tx) => tx.query(statement(hoursSql))),
        ({ rows }) =>
          new Map(
            rows.flatMap((row) => {
              const decoded = decodeStrictly(WorkingHours, JSON.parse(String(row.hours)))
              return "value" in decoded ? [[String(row.org), decoded.value] as const] : []
            })
          )
      )

      const trial = Effect.fnUntraced(function* (
        rule: AnomalyRule,
        { from, to }: { readonly from: number; readonly to: number }
      ) {
        const windows = new SlidingWindows(rule, yield* hours)
        const width = windowMillis(rule)
        // the first windows reach back behind `from`
        const asked = statement(factsSql, [
          iso(from - width),
          iso(to),
          named(rule.match.actions),
          rule.match.outcomes ?? null
        ])
        const crossed = auditor.stream(asked).pipe(
          Stream.map((row) => windows.add(factOf(row))),
          Stream.concat(Stream.suspend(() => Stream.make(windows.end()))),
          Stream.flatMap((crossings: ReadonlyArray<Crossing>) => Stream.fromIterable(crossings)),
          Stream.filter(({ minute }) => minute + minuteMillis > from),
          Stream.take(maxTrialAlerts + 1)
        )
        const found = yield* Stream.runCollect(crossed)
        return {
          truncated: found.length > maxTrialAlerts,
          alerts: found.slice(0, maxTrialAlerts).map(({ minute, total, ...group }) => ({
            chain: chainOfGroup(group),
            actor: group.actor || null,
            address: group.address || null,
            window: { from: iso(minute + minuteMillis - width), to: iso(minute + minuteMillis) },
            count: total,
            threshold: rule.threshold
          }))
        }
      })

      return Anomalies.of({ list, acknowledge, trial })
    })
  )
}
