/**
 * Tells alerts to the endpoints of `VELOCITY_ANOMALY_WEBHOOKS`, as Standard Webhooks has it: the same `webhook-id` and body
 * on every attempt, signed anew, until the endpoint answers 2xx or the alert is given up, loudly.
 *
 * An attempt is claimed in the database before it is made: whoever takes over waits until the claim is over and makes it
 * again. So an endpoint hears of every alert at least once, and of some twice, under one id. Each endpoint has a fiber of
 * its own: one that hangs holds up no other.
 */
import { Clock, Effect, Layer, Metric, Random, Redacted, Schedule } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence, roundOf, type Superseded } from "../state/Fence.ts"
import type { AnomalySettings, Endpoint } from "./AnomalySettings.ts"
import { signed } from "./WebhookSignature.ts"

/** How long an endpoint may take to answer. */
export const answerWithin = 10_000
/** Attempts of one round for an endpoint, and how many of them at once. */
const roundSize = 20
const atOnce = 4
/** When a claimed attempt may be made by somebody else: after a round's longest time. */
const claimMillis = 60_000 + (roundSize / atOnce) * answerWithin
const firstDelay = 5_000
const longestDelay = 60 * 60_000

const deliveriesCounter = Metric.counter("velocity_anomaly_deliveries_total", {
  description: "Attempts to tell an alert, by endpoint and result: delivered, failed, given_up",
  incremental: true
})
const pendingGauge = Metric.gauge("velocity_anomaly_deliveries_pending", {
  description: "Alerts that an endpoint has not taken yet"
})

/** How an attempt went. */
export interface Attempted {
  /** Undefined where there was no answer. */
  readonly status: number | undefined
  readonly error: string | undefined
  /** Milliseconds that the endpoint asked us to wait. */
  readonly retryAfter: number | undefined
}

const counted = (endpoint: string, result: string) =>
  Metric.update(Metric.withAttributes(deliveriesCounter, { endpoint, result }), 1)

/** What has not happened yet is 0 and not absent: the first time is an increase. */
const neverGivenUp = (endpoint: string) =>
  Metric.update(Metric.withAttributes(deliveriesCounter, { endpoint, result: "given_up" }), 0)

const iso = (millis: number): string => new Date(millis).toISOString()

/** Retry-After (RFC 9110, 10.2.3) in milliseconds from now: seconds, or a date. */
export const retryAfterOf = (header: string | null, now: number): number | undefined => {
  if (header === null) return undefined
  if (/^[0-9]{1,9}$/u.test(header.trim())) return Number(header) * 1000
  const date = Date.parse(header)
  return Number.isNaN(date) ? undefined : Math.max(0, date - now)
}

/** How long to wait after so many attempts: doubling from 5 s to an hour, half of it by chance. `chance` is 0 to 1. */
export const delayAfter = (attempts: number, chance: number): number =>
  Math.min(longestDelay, firstDelay * 2 ** Math.min(attempts - 1, 20)) * (0.5 + chance / 2)

interface Claimed {
  readonly alert: string
  readonly attempts: number
  readonly webhookId: string
  /** When it was told, or told anew: milliseconds since 1970. */
  readonly since: number
  readonly body: string
}

const utc = (column: string): string => `to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

const claimSql = `with due as (
    select d.alert_id from platform.anomaly_deliveries d
    where d.endpoint = $1 and d.delivered_at is null and d.given_up_at is null and d.next_attempt_at <= $2::timestamptz
    order by d.next_attempt_at limit ${roundSize})
  update platform.anomaly_deliveries d set attempts = d.attempts + 1, next_attempt_at = $3::timestamptz
  from due, platform.anomaly_alerts a
  where d.endpoint = $1 and d.alert_id = due.alert_id and a.id = d.alert_id
  returning d.alert_id::text as alert, d.attempts, a.webhook_id, d.since, json_build_object('type', 'audit.anomaly', 'timestamp', ${utc("d.since")},
    'data', json_build_object('id', a.id, 'rule', a.rule, 'title', a.title, 'severity', a.severity, 'chain', a.chain,
      'actor', a.actor, 'address', a.address, 'window', json_build_object('from', ${utc("a.window_from")}, 'to', ${utc("a.window_to")}),
      'count', a.count, 'threshold', a.threshold, 'entries', a.explanation))::text as body`

const dueSql = `select count(*)::int4 as pending, count(*) filter (where next_attempt_at <= $2::timestamptz)::int4 as due,
  exists (select from platform.anomaly_endpoints e where e.endpoint = $1 and e.url_hash = $3) as gone
  from platform.anomaly_deliveries where endpoint = $1 and delivered_at is null and given_up_at is null`

// where it was told anew meanwhile, the claim is over and the attempt is to be made again
const endSql = `update platform.anomaly_deliveries set status = $3::int4, error = $4, delivered_at = $5::timestamptz,
  given_up_at = $6::timestamptz, next_attempt_at = $7::timestamptz
  where alert_id = $1::uuid and endpoint = $2 and delivered_at is null and given_up_at is null and next_attempt_at = $8::timestamptz`

const goneSql = `insert into platform.anomaly_endpoints (endpoint, url_hash, gone_at) values ($1, $2, $3::timestamptz)
  on conflict (endpoint) do update set url_hash = excluded.url_hash, gone_at = excluded.gone_at`

const giveUpSql = `update platform.anomaly_deliveries set given_up_at = $2::timestamptz, error = $3
  where endpoint = $1 and delivered_at is null and given_up_at is null returning alert_id::text as alert`

/** Sends once. Redirects are not followed; what the endpoint says beside its status is not read. */
const send = (
  { secrets, url }: Endpoint,
  { body, webhookId }: Claimed,
  now: number,
  within: number
): Effect.Effect<Attempted> =>
  Effect.tryPromise({
    try: async (signal): Promise<Attempted> => {
      const message = { id: webhookId, timestamp: Math.floor(now / 1000), body }
      const response = await fetch(url, {
        method: "POST",
        headers: {
          "content-type": "application/json",
          "user-agent": "velocity",
          ...signed(
            secrets.map((secret) => Redacted.value(secret)),
            message
          )
        },
        body,
        redirect: "manual",
        signal: AbortSignal.any([signal, AbortSignal.timeout(within)])
      })
      await response.body?.cancel()
      return {
        status: response.status,
        error: response.ok ? undefined : `answered ${response.status}`,
        retryAfter: retryAfterOf(response.headers.get("retry-after"), now)
      }
    },
    catch: (cause) => cause as Error & { readonly cause?: unknown }
  }).pipe(
    Effect.catch((error) =>
      Effect.succeed({
        status: undefined,
        error:
          error.name === "TimeoutError"
            ? `no answer within ${within} ms`
            : String((error.cause as Error | undefined)?.message ?? error.message).slice(0, 500),
        retryAfter: undefined
      })
    )
  )

/** What a round is done with. */
export interface Round extends Pick<AnomalySettings, "giveUp"> {
  /** Milliseconds since 1970. */
  readonly now: number
  /** Milliseconds that an endpoint may take (`answerWithin`). */
  readonly within?: number
}

const giveUpAll = Effect.fnUntraced(function* (endpoint: string, now: number, why: string) {
  const fence = yield* Fence
  const { rows } = yield* fence.transaction((tx) => tx.query(statement(giveUpSql, [endpoint, iso(now), why])))
  for (const { alert } of rows) {
    yield* counted(endpoint, "given_up")
    yield* Effect.logError(`alert ${alert} is given up for ${endpoint}: ${why}`)
  }
})

const attempt = Effect.fnUntraced(function* (endpoint: Endpoint, claimed: Claimed, round: Round) {
  const fence = yield* Fence
  const { name } = endpoint
  const { giveUp, now } = round
  const { error, retryAfter, status } = yield* send(endpoint, claimed, now, round.within ?? answerWithin)
  const end = (ended: { readonly delivered?: boolean; readonly givenUp?: boolean; readonly next?: number }) =>
    fence.transaction((tx) =>
      tx.query(
        statement(endSql, [
          claimed.alert,
          name,
          status ?? null,
          error ?? null,
          ended.delivered === true ? iso(now) : null,
          ended.givenUp === true ? iso(now) : null,
          iso(ended.next ?? now),
          iso(now + claimMillis)
        ])
      )
    )
  if (error === undefined) {
    yield* end({ delivered: true })
    return yield* counted(name, "delivered")
  }
  yield* counted(name, "failed")
  const deadline = claimed.since + giveUp
  if (status === 410) {
    yield* fence.transaction((tx) => tx.query(statement(goneSql, [name, endpoint.urlHash, iso(now)])))
    yield* end({ next: now })
    return yield* giveUpAll(name, now, "the endpoint is gone (410)")
  }
  if (now >= deadline) {
    yield* end({ givenUp: true })
    yield* counted(name, "given_up")
    return yield* Effect.logError(
      `alert ${claimed.alert} is given up for ${name} after ${claimed.attempts} attempts: ${error}`
    )
  }
  const delay = Math.max(delayAfter(claimed.attempts, yield* Random.next), retryAfter ?? 0)
  yield* Effect.logWarning(`alert ${claimed.alert} was not taken by ${name} (attempt ${claimed.attempts}): ${error}`)
  // the last attempt is made when the time is up
  yield* end({ next: Math.min(now + delay, deadline) })
})

/** One round for an endpoint: whatever is due. Answers how many attempts were made. */
export const deliver = Effect.fnUntraced(function* (
  endpoint: Endpoint,
  round: Round
): Effect.fn.Return<number, DatabaseFailure | Superseded, Fence> {
  const fence = yield* Fence
  const { name, urlHash } = endpoint
  const { rows } = yield* fence.read((tx) => tx.query(statement(dueSql, [name, iso(round.now), urlHash])))
  const [state] = rows
  yield* Metric.update(Metric.withAttributes(pendingGauge, { endpoint: name }), Number(state?.pending ?? 0))
  if (state?.gone === true) {
    if (Number(state.pending) > 0) yield* giveUpAll(name, round.now, "the endpoint is gone (410)")
    return 0
  }
  if (state === undefined || Number(state.due) === 0) return 0
  const claims = yield* fence.transaction((tx) =>
    tx.query(statement(claimSql, [name, iso(round.now), iso(round.now + claimMillis)]))
  )
  const claimed = claims.rows.map(
    (row): Claimed => ({
      alert: String(row.alert),
      attempts: Number(row.attempts),
      webhookId: String(row.webhook_id),
      since: (row.since as Date).getTime(),
      body: String(row.body)
    })
  )
  yield* Effect.forEach(claimed, (one) => attempt(endpoint, one, round), { concurrency: atOnce, discard: true })
  return claimed.length
})

const strandedSql = `update platform.anomaly_deliveries d set given_up_at = $1::timestamptz, error = 'the endpoint is not configured'
  where d.delivered_at is null and d.given_up_at is null and d.endpoint <> all ($2::text[]) and d.since <= $3::timestamptz
  returning d.alert_id::text as alert, d.endpoint`

/** Gives up what is for endpoints that nobody configures any more, once its time is over. */
export const giveUpStranded = Effect.fnUntraced(function* (
  names: ReadonlyArray<string>,
  { giveUp, now }: Round
): Effect.fn.Return<void, DatabaseFailure | Superseded, Fence> {
  const fence = yield* Fence
  const { rows } = yield* fence.transaction((tx) =>
    tx.query(statement(strandedSql, [iso(now), names, iso(now - giveUp)]))
  )
  for (const { alert, endpoint } of rows) {
    yield* counted(String(endpoint), "given_up")
    yield* Effect.logError(`alert ${alert} is given up for ${endpoint}: the endpoint is not configured`)
  }
})

const forever = (
  every: "5 seconds" | "10 minutes",
  what: string,
  round: Effect.Effect<unknown, DatabaseFailure | Superseded, Fence>
) =>
  roundOf(what, round).pipe(
    Effect.repeat(Schedule.spaced(every)),
    Effect.catchCause((cause) => Effect.logError(`${what} stopped`, cause)),
    Effect.forkScoped
  )

/** Looks for what is due every five seconds, each endpoint for itself. */
export const layer = ({ endpoints, giveUp }: AnomalySettings): Layer.Layer<never, never, Fence> => {
  const now = (f: (round: Round) => Effect.Effect<unknown, DatabaseFailure | Superseded, Fence>) =>
    Effect.flatMap(Clock.currentTimeMillis, (at) => f({ giveUp, now: at }))
  const names = endpoints.map(({ name }) => name)
  return Layer.effectDiscard(
    Effect.andThen(
      Effect.forEach(
        endpoints,
        (endpoint) =>
          Effect.andThen(
            neverGivenUp(endpoint.name),
            forever(
              "5 seconds",
              `delivery to ${endpoint.name}`,
              now((round) => deliver(endpoint, round))
            )
          ),
        { discard: true }
      ),
      forever(
        "10 minutes",
        "giving up of stranded alerts",
        now((round) => giveUpStranded(names, round))
      )
    )
  )
}
