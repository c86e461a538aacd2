/**
 * The log against its tree, slice by slice (`audit_verify_leaves`), then once what is no slice's: where the lanes end, the
 * retired months, the tree's upper levels, and a checkpoint from outside. Each is a statement of its own, so that a tree of
 * any size is verified, says how far it is, and can be gone on with from any slice's end.
 */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { treeSize } from "./Evidence.ts"
import { type Statement, statement } from "./Statement.ts"
import type { Run } from "./VerifySlices.ts"

/** Leaves of a slice: 256 tiles, which is one hash two levels above. Slices begin at multiples of it. */
export const sliceLeaves = 65_536

/** A checkpoint from outside, to compare with. */
export interface OutsideRoot {
  readonly origin: string
  readonly size: number
  /** Hexadecimal. */
  readonly root: string
}

/** A part that was verified. */
export interface VerifiedPart {
  /** How far the leaves are verified: where the next slice begins, or all of them. */
  readonly until: number
  /** The tree's leaves when it was begun. */
  readonly total: number
  /** What is wrong in it, as JSON texts with their kind. */
  readonly findings: ReadonlyArray<{ readonly problem: string; readonly finding: string }>
}

const findings = (call: string, params: ReadonlyArray<unknown>): Statement =>
  statement(
    `select json_build_object('chain', v.chain, 'lane', v.lane, 'seq', v.seq::text, 'index', v.index::text, 'problem', v.problem,
       'wanted', encode(v.wanted, 'hex'), 'found', encode(v.found, 'hex'), 'note', v.note)::text as finding, v.problem
     from platform.${call} v`,
    params
  )

const retiredSql =
  "select name from platform.retirements where parent = 'audit_log' and retired_at is not null order by name"

/** What is no slice's: each part as a statement. */
const wholes = (months: ReadonlyArray<string>, outside: OutsideRoot | undefined): ReadonlyArray<Statement> => [
  findings("audit_verify_lanes(null)", []),
  ...months.map((month) => findings("audit_verify_retired($1)", [month])),
  findings("audit_verify_nodes()", []),
  findings("audit_verify_outside($1, $2::int8, decode($3, 'hex'))", [
    outside?.origin ?? null,
    outside === undefined ? null : String(outside.size),
    outside?.root ?? null
  ])
]

/** Verifies from a slice's beginning on, `connections` parts at a time; answers come in the order of the tree. */
export const verifiedTree = (
  run: Run,
  outside: OutsideRoot | undefined,
  from: number,
  connections: number,
  size = sliceLeaves
): Stream.Stream<VerifiedPart, DatabaseFailure> =>
  Stream.unwrap(
    Effect.gen(function* () {
      const total = yield* run(treeSize)
      const months = yield* run((tx) =>
        Effect.map(tx.query(statement(retiredSql)), ({ rows }) => rows.map((row) => String(row.name)))
      )
      const slices = Array.from({ length: Math.max(0, Math.ceil((total - from) / size)) }, (_, n) => {
        const first = from + n * size
        return {
          until: Math.min(first + size, total),
          asked: findings("audit_verify_leaves($1::int8, $2::int8)", [String(first), String(first + size)])
        }
      })
      return Stream.fromIterable([
        ...slices,
        ...wholes(months, outside).map((asked) => ({ until: total, asked }))
      ]).pipe(
        Stream.mapEffect(
          ({ asked, until }) =>
            Effect.map(
              run((tx) => tx.query(asked)),
              ({ rows }): VerifiedPart => ({
                until,
                total,
                findings: rows.map((row) => ({ problem: String(row.problem), finding: String(row.finding) }))
              })
            ),
          { concurrency: connections }
        )
      )
    })
  )
