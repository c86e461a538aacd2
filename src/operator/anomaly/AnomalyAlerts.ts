/**
 * Alerts, whoever found what they are about: kept with their deliveries and their audit entry by one function, so that none
 * is without the others.
 */
import { Context, Effect } from "effect"
import { type AnomalyRule, chainOfGroup, type Group } from "../../domain/AnomalyRule.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import type { AnomalySettings, Endpoint } from "./AnomalySettings.ts"

/** What a scan is done with, and when. */
export interface Scan extends Pick<AnomalySettings, "rules" | "endpoints"> {
  /** Milliseconds since 1970. */
  readonly now: number
}

/** Where an entry stands, as an alert tells it. */
export interface Cause {
  readonly chain: string
  readonly lane: number
  readonly seq: string
  readonly id: string | null
  readonly occurred_at: string
  readonly problem?: string
}

export interface Alert extends Group {
  readonly rule: AnomalyRule
  /** The moment whose hour has one such alert. */
  readonly at: number
  readonly from: string
  readonly to: string
  readonly counted: number
  readonly causes: ReadonlyArray<Cause>
}

export const iso = (millis: number): string => new Date(millis).toISOString()
export const utc = (column: string): string => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

export const causeOf = (row: Readonly<Record<string, unknown>>): Cause => ({
  chain: String(row.chain),
  lane: Number(row.lane),
  seq: String(row.seq),
  id: row.id === null ? null : String(row.id),
  occurred_at: String(row.occurred_at),
  ...(row.problem === undefined ? {} : { problem: String(row.problem) })
})

/** An alert that was kept, or got more to tell: what whoever is told of it at once is told. */
export interface Raised {
  readonly id: string
  readonly rule: AnomalyRule
  readonly chain: string
  readonly actor: string | undefined
  readonly counted: number
}

/**
 * Tells of an alert beside its deliveries, once and without a promise: in a cluster by a Kubernetes Event, elsewhere by
 * nothing. What must arrive goes to the webhooks.
 */
export const AlertEvents = Context.Reference<(raised: Raised) => Effect.Effect<void>>("velocity/operator/AlertEvents", {
  defaultValue: () => () => Effect.void
})

/** Names of the endpoints that an alert goes to: those that want it and are not gone. */
const endpointsFor = (endpoints: ReadonlyArray<Endpoint>, gone: ReadonlySet<string>, rule: AnomalyRule) =>
  endpoints
    .filter(({ name, severities, urlHash }) => severities.includes(rule.severity) && !gone.has(`${name} ${urlHash}`))
    .map(({ name }) => name)

/** Keeps alerts, last in their transaction, since each holds a lane of the log until its end; answers what is to be told. */
export const raise = Effect.fnUntraced(function* (tx: Tx, alerts: ReadonlyArray<Alert>, { endpoints, now }: Scan) {
  if (alerts.length === 0) return []
  const { rows } = yield* tx.query(
    statement("select endpoint || ' ' || url_hash as gone from platform.anomaly_endpoints")
  )
  const gone = new Set(rows.map((row) => String(row.gone)))
  const raised: Array<Raised> = []
  for (const { actor, address, at, causes, counted, from, rule, to, ...group } of alerts) {
    const chain = chainOfGroup({ ...group, actor, address })
    const said = {
      rule: rule.name,
      title: rule.title,
      severity: rule.severity,
      source: rule.source,
      chain,
      actor,
      address,
      at: iso(at),
      window_from: from,
      window_to: to,
      counted,
      threshold: rule.threshold,
      explanation: causes
    }
    const kept = yield* tx.query(
      statement("select platform.anomaly_raise($1::jsonb, $2::text[], $3::timestamptz)::text as id", [
        JSON.stringify(said),
        endpointsFor(endpoints, gone, rule),
        iso(now)
      ])
    )
    const id = kept.rows[0]?.id
    if (typeof id === "string") {
      raised.push({ id, rule, chain, actor: actor || undefined, counted })
    }
  }
  return raised
})
