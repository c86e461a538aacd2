/**
 * A window of the audit log as slices in the order of time, each small enough for one statement and for an answer that is
 * soon: how a log of any size is verified (`audit_verify_slice`, `audit_verify_window`), and once for all of them where its
 * lanes end (`audit_verify_lanes`). What it costs grows with the entries; memory, here and in Postgres, does not.
 */
import * as Effect from "effect/Effect"
import * as Option from "effect/Option"
import * as Stream from "effect/Stream"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { type Statement, statement } from "./Statement.ts"
import type { Tx } from "./Transaction.ts"

/** Entries of a slice: a third of a second of one connection. */
export const sliceEntries = 50_000

/** Times are RFC 3339 with microseconds; `until` is exclusive. */
export interface Slice {
  readonly from: string
  readonly until: string
  readonly entries: number
}

const utc = (column: string): string =>
  `pg_catalog.to_char(${column} at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`

const findingJson = `json_build_object('chain', v.chain, 'lane', v.lane, 'seq', v.seq::text, 'id', v.id,
 'occurred_at', ${utc("v.occurred_at")}, 'stored_hash', encode(v.stored_hash, 'hex'),
 'computed_hash', encode(v.computed_hash, 'hex'), 'problem', v.problem)::text as finding`

/** The entries of a window that are wrong, each as a JSON text `finding`. */
export const verifyStatement = (from: string, to: string, most?: number): Statement =>
  statement(
    `select ${findingJson} from platform.audit_verify_window($1::timestamptz, $2::timestamptz) v${most === undefined ? "" : ` limit ${most}`}`,
    [from, to]
  )

/**
 * The lanes whose end is gone, of those that break off before `to`, and heads and seals that nothing vouches for; each as
 * a JSON text `finding`. An entry that is gone from a lane's end has none behind it, so no slice misses it.
 */
export const lanesStatement = (to: string): Statement =>
  statement(
    `select json_build_object('chain', v.chain, 'lane', v.lane, 'seq', v.seq::text, 'id', null, 'occurred_at', ${utc("v.occurred_at")},
       'stored_hash', encode(v.found, 'hex'), 'computed_hash', encode(v.wanted, 'hex'), 'problem', v.problem, 'note', v.note)::text as finding
     from platform.audit_verify_lanes($1::timestamptz) v`,
    [to]
  )

const sliceSql = `select ${utc("s.until")} as until, s.until >= $2::timestamptz as last, s.entries::text as entries
  from platform.audit_verify_slice($1::timestamptz, $2::timestamptz, $3::int4) s`

/** How a caller reads as the role that may. */
export type Run = <A, E>(f: (tx: Tx) => Effect.Effect<A, E>) => Effect.Effect<A, E | DatabaseFailure>

/** The slices of a window, each looked up when it is asked for; the last one ends where the window does. */
export const slices = (
  run: Run,
  window: { readonly from: string; readonly to: string },
  size = sliceEntries
): Stream.Stream<Slice, DatabaseFailure> =>
  Stream.paginate(window.from, (from) =>
    Effect.map(
      run((tx) => tx.query(statement(sliceSql, [from, window.to, size]))),
      ({ rows: [row] }) => {
        const isLast = row?.last !== false
        const until = isLast ? window.to : String(row?.until)
        const slice: Slice = { from, until, entries: Number(row?.entries ?? 0) }
        return [[slice], isLast ? Option.none() : Option.some(until)] as const
      }
    )
  )

/** A slice that was verified: what is wrong in it, as JSON texts. Behind the last one comes an empty one, of the lanes. */
export interface Verified extends Slice {
  readonly findings: ReadonlyArray<string>
}

/** Verifies slice after slice, `connections` at a time; answers come in the order of time. */
export const verified = (
  run: Run,
  window: { readonly from: string; readonly to: string },
  connections: number,
  size = sliceEntries
): Stream.Stream<Verified, DatabaseFailure> =>
  slices(run, window, size).pipe(
    Stream.map((slice) => ({ slice, asked: verifyStatement(slice.from, slice.until) })),
    Stream.concat(
      Stream.make({ slice: { from: window.to, until: window.to, entries: 0 }, asked: lanesStatement(window.to) })
    ),
    Stream.mapEffect(
      ({ asked, slice }) =>
        Effect.map(
          run((tx) => tx.query(asked)),
          ({ rows }): Verified => ({ ...slice, findings: rows.map((row) => String(row.finding)) })
        ),
      { concurrency: connections }
    )
  )
