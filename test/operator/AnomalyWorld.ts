/**
 * A log to scan. Entries of the past are written by a superuser, since `audit_insert` knows only the present, with the
 * sequence and the hashes that it would have given them; everything else here is done under the real logins.
 */
import * as Effect from "effect/Effect"
import type { AnomalyRule } from "../../src/domain/AnomalyRule.ts"
import { decodeRule } from "../../src/domain/AnomalyRule.ts"
import { connect, query, type TestDatabase } from "../support/Database.ts"

export interface Past {
  readonly chain: string
  readonly lane?: number
  readonly actor?: string
  readonly action?: string
  readonly outcome?: string
  readonly payload?: unknown
  /** Milliseconds since 1970; rising in a lane. */
  readonly at: number
}

const pastSql = `with previous as (
    select a.seq, a.hash from platform.audit_log a where a.chain = $1 and a.lane = $2::int2 order by a.seq desc limit 1
  ), entry as (
    select $1::text as chain, $2::int2 as lane, coalesce((select seq from previous), 0) + 1 as seq, $3::timestamptz as occurred_at, gen_random_uuid() as id,
      $4::text as actor, $5::text as action, $6::text as outcome, null::text as schema_path, null::uuid as entity_id, $7::jsonb as payload,
      null::text as request_id, null::text as reason, null::text as ticket_ref, null::jsonb as fail_modes, 'velocity_api'::text as db_login, 'none'::text as db_role,
      coalesce((select hash from previous), sha256(convert_to(format('velocity/audit/v1/%s/%s', $1::text, $2::int2), 'UTF8'))) as prev_hash
  )
  insert into platform.audit_log
  select e.*, sha256('\\x00'::bytea || record_send(row(e.chain, e.lane, e.seq, e.occurred_at, e.id, e.actor, e.action, e.outcome, e.schema_path,
    e.entity_id, e.payload, e.request_id, e.reason, e.ticket_ref, e.fail_modes, e.db_login, e.db_role, e.prev_hash)))
  from entry e returning id::text as id`

/** Writes entries of the past, in the order they are given. */
export const wrote = (database: TestDatabase, entries: ReadonlyArray<Past>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(database.superuserUrl)
      const ids: Array<string> = []
      for (const { action = "read", actor = "dev/ann", at, chain, lane = 0, outcome = "ok", payload = {} } of entries) {
        const { rows } = yield* connection.query(pastSql, [
          chain,
          lane,
          new Date(at).toISOString(),
          actor,
          action,
          outcome,
          JSON.stringify(payload)
        ])
        ids.push(String(rows[0]?.id))
      }
      return ids
    })
  )

/** Denials of the last minutes in the platform's chain, which an operator that starts alerts to. */
export const deniedOften = (database: TestDatabase, actor: string) =>
  wrote(
    database,
    Array.from({ length: 25 }, (_, index) => ({
      chain: "platform",
      actor,
      outcome: "denied",
      at: Date.now() - 120_000 + index
    }))
  )

/** A domain's row, which is all that a chain needs, and the month before this one, so that the past has a place. */
export const chainIn = Effect.fnUntraced(function* (database: TestDatabase, name: string, org = database.org) {
  const chain = `${org}/shop/${name}`
  yield* query(database.operatorUrl, "insert into platform.domains (chain, pg_schema) values ($1, $2)", [
    chain,
    `${org}_shop_${name}`
  ])
  yield* query(
    database.operatorUrl,
    "select platform.audit_partition_create((date_trunc('month', now() at time zone 'UTC') - interval '1 month')::date)"
  )
  return chain
})

/** A rule, whole. */
export const ruleOf = (value: object): AnomalyRule => {
  const rule = decodeRule({ name: "probe", title: "A probe", severity: "info", threshold: 3, window: "5m", ...value })
  if ("faults" in rule) throw new Error(JSON.stringify(rule.faults))
  return rule.value
}

export const minutes = (count: number): number => count * 60_000
/** An hour's beginning, long enough ago that the whole test fits before now, and within the scanner's reach. */
export const hourAgo = (hours: number): number => Math.floor(Date.now() / 3_600_000) * 3_600_000 - hours * 3_600_000

/** What is known of the alerts of a chain. */
export const alertsOf = (database: TestDatabase, chain: string) =>
  query(
    database.operatorUrl,
    `select rule, severity, chain, actor, address, hour, window_from, window_to, count::int4 as count, threshold::int4 as threshold, explanation, id::text as id
     from platform.anomaly_alerts where chain = $1 order by hour, rule, actor, address`,
    [chain]
  )

/** The entries that the first of these alerts explains itself with. */
export const causesOf = (
  alerts: ReadonlyArray<Readonly<Record<string, unknown>>>
): ReadonlyArray<Readonly<Record<string, unknown>>> =>
  (alerts[0]?.explanation ?? []) as ReadonlyArray<Readonly<Record<string, unknown>>>
