/**
 * The audit log for those who read it: entries, newest first, and verification of a window; both as `velocity_auditor`.
 *
 * Entries leave as the JSON that Postgres makes, with payload and times as the text that it prints, so that whoever gets
 * one can compute its hash anew without a database (audit.md).
 */
import { Context, Effect, Layer, type Stream } from "effect"
import { AuditorTx } from "../postgres/AuditorTx.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { type Statement, statement } from "../postgres/Statement.ts"
import { lanesStatement, type Verified, verified, verifyStatement } from "../postgres/VerifySlices.ts"

/** What entries are asked for. Times are RFC 3339. */
export interface AuditQuery {
  readonly chain?: string | undefined
  readonly actor?: string | undefined
  readonly action?: string | undefined
  readonly outcome?: string | undefined
  readonly entity?: string | undefined
  /** Inclusive. */
  readonly from?: string | undefined
  /** Exclusive. */
  readonly to?: string | undefined
  readonly limit: number
  /** The place behind which the page begins. */
  readonly after?: AuditPlace | undefined
}

/** Where an entry stands in the order of the list. */
export interface AuditPlace {
  readonly occurredAt: string
  readonly id: string
}

/** A page: entries as JSON texts, and where the next one begins. */
export interface AuditPage {
  readonly items: ReadonlyArray<string>
  readonly next: AuditPlace | undefined
}

/** A window; without `from` and `to` everything. */
export interface AuditWindow {
  readonly from: string
  readonly to: string
}

/** What a verification found. */
export interface AuditVerification {
  /** JSON texts. */
  readonly findings: ReadonlyArray<string>
  readonly truncated: boolean
  readonly entries: number
}

/** The most findings of an answer that is not a stream. */
export const maxFindings = 1_000

const utc = (column: string): string =>
  `pg_catalog.to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

/** An entry as the JSON that is exported, from a row of `audit_log`. */
export const entryJson = `json_build_object('id', id, 'chain', chain, 'lane', lane, 'seq', seq::text, 'occurred_at', ${utc("occurred_at")},
 'actor', actor, 'action', action, 'outcome', outcome, 'schema_path', schema_path, 'entity_id', entity_id,
 'payload', payload::text, 'request_id', request_id, 'reason', reason, 'ticket_ref', ticket_ref,
 'fail_modes', fail_modes::text, 'db_login', db_login, 'db_role', db_role,
 'prev_hash', encode(prev_hash, 'hex'), 'hash', encode(hash, 'hex'))::text`

const filters = {
  chain: "chain = ",
  actor: "actor = ",
  action: "action = ",
  outcome: "outcome = ",
  entity: "entity_id = ",
  from: "occurred_at >= ",
  to: "occurred_at < "
} as const
const casts: Partial<Record<keyof typeof filters, string>> = {
  entity: "::uuid",
  from: "::timestamptz",
  to: "::timestamptz"
}

const listStatement = (query: AuditQuery): Statement => {
  const params: Array<unknown> = []
  const bind = (value: unknown, cast = "") => `$${params.push(value)}${cast}`
  const conditions: Array<string> = []
  for (const name of Object.keys(filters) as ReadonlyArray<keyof typeof filters>) {
    const value = query[name]
    if (value !== undefined) conditions.push(`${filters[name]}${bind(value, casts[name])}`)
  }
  if (query.after !== undefined) {
    const at = bind(query.after.occurredAt, "::timestamptz")
    // the first condition is what the index on occurred_at can use
    conditions.push(`occurred_at <= ${at} and (occurred_at, id) < (${at}, ${bind(query.after.id, "::uuid")})`)
  }
  const where = conditions.length === 0 ? "" : `where ${conditions.join(" and ")}`
  return statement(
    `select ${entryJson} as entry, ${utc("occurred_at")} as at, id::text as id from platform.audit_log ${where}
order by occurred_at desc, id desc limit ${bind(query.limit + 1)}::int4`,
    params
  )
}

const countSql =
  "select count(*)::text as entries from platform.audit_log where occurred_at >= $1::timestamptz and occurred_at < $2::timestamptz"
const sealedSql = `select json_build_object('partition', name, 'from', ${utc('"from"')}, 'to', ${utc('"to"')}, 'entries', entries::text,
 'disposition', disposition)::text as month from platform.retirements
 where parent = 'audit_log' and retired_at is not null and "from" < $2::timestamptz and "to" > $1::timestamptz order by "from"`

/** Connections that verify one large window. */
const verifiers = 2

/** Reads and verifies the log. */
export class AuditLog extends Context.Service<
  AuditLog,
  {
    readonly list: (query: AuditQuery) => Effect.Effect<AuditPage, DatabaseFailure>
    /** Verifies a window that fits one answer; at most `maxFindings`. */
    readonly verify: (window: AuditWindow) => Effect.Effect<AuditVerification, DatabaseFailure>
    /** Verifies a window of any size, slice by slice in the order of time, on two connections. */
    readonly verified: (window: AuditWindow) => Stream.Stream<Verified, DatabaseFailure>
    /** Months of the window that were retired, as JSON texts: sealed, and known by their seals alone. */
    readonly sealed: (window: AuditWindow) => Effect.Effect<ReadonlyArray<string>, DatabaseFailure>
    readonly count: (window: AuditWindow) => Effect.Effect<number, DatabaseFailure>
  }
>()("velocity/server/AuditLog") {
  static readonly layer = Layer.effect(
    AuditLog,
    Effect.gen(function* () {
      const auditor = yield* AuditorTx
      const list = Effect.fnUntraced(function* (query: AuditQuery) {
        // interactive, so that a request that was given up ends its statement too
        const { rows } = yield* auditor.run((tx) => tx.query(listStatement(query)))
        const last = rows.length > query.limit ? rows[query.limit - 1] : undefined
        return {
          items: rows.slice(0, query.limit).map((row) => String(row.entry)),
          next: last === undefined ? undefined : { occurredAt: String(last.at), id: String(last.id) }
        }
      })
      const verify = Effect.fnUntraced(function* ({ from, to }: AuditWindow) {
        return yield* auditor.run(
          Effect.fnUntraced(function* (tx) {
            const found = yield* tx.query(verifyStatement(from, to, maxFindings + 1))
            const lanes = yield* tx.query(lanesStatement(to))
            const counted = yield* tx.query(statement(countSql, [from, to]))
            const findings = [...found.rows, ...lanes.rows].map((row) => String(row.finding))
            return {
              findings: findings.slice(0, maxFindings),
              truncated: findings.length > maxFindings,
              entries: Number(counted.rows[0]?.entries ?? 0)
            }
          })
        )
      })
      return AuditLog.of({
        list,
        verify,
        verified: (window) => verified((f) => auditor.run(f), window, verifiers),
        sealed: ({ from, to }) =>
          Effect.map(
            auditor.run((tx) => tx.query(statement(sealedSql, [from, to]))),
            ({ rows }) => rows.map((row) => String(row.month))
          ),
        count: ({ from, to }) =>
          Effect.map(
            auditor.run((tx) => tx.query(statement(countSql, [from, to]))),
            (result) => Number(result.rows[0]?.entries ?? 0)
          )
      })
    })
  )
}
