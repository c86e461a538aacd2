/**
 * What a plan asks of the rows that are there: how many have no value, break a bound, are doubled, refer to nothing. Answers
 * name records by their ids and never show a value, because whoever reads a status may not read the record.
 */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { qualified } from "../table/SqlText.ts"

/** A question: a SELECT of one text column `hit`, a row for each record (or group) it is about. */
export interface Question {
  readonly key: string
  readonly select: string
}

export interface Finding {
  readonly count: number
  /** At most ten. */
  readonly samples: ReadonlyArray<string>
}

export interface Facts {
  readonly filled: boolean
  /** About how many rows, at least one where there is one. */
  readonly rows: number
  readonly findings: ReadonlyMap<string, Finding>
}

export const none: Finding = { count: 0, samples: [] }

/** `3 records (id, id, id)`. */
export const renderFinding = ({ count, samples }: Finding, what = "record"): string =>
  `${count} ${what}${count === 1 ? "" : "s"} (${samples.join(", ")}${count > samples.length ? ", …" : ""})`

interface Explained {
  readonly Plan: { readonly "Plan Rows": number }
}

/** Tables up to this size are counted, and of larger ones it is said about how many rows they have. */
const counted = 10_000

/**
 * How many rows a table has, or about how many: what the planner takes it for, by the statistics' density and the pages that
 * there are now. Statistics alone say nothing before the first ANALYZE, and of a small table the planner says nothing then.
 */
export const estimateOf = Effect.fnUntraced(function* (
  owner: Tx,
  schema: string,
  table: string
): Effect.fn.Return<number, DatabaseFailure> {
  const name = qualified(schema, table)
  const { rows } = yield* owner.query(
    statement(`select count(*)::int4 as rows from (select from ${name} limit ${counted}) as counted`)
  )
  const some = Number(rows[0]?.rows ?? 0)
  if (some < counted) return some
  const explained = yield* owner.query(statement(`explain (format json) select from ${name}`))
  const plans = explained.rows[0]?.["QUERY PLAN"] as ReadonlyArray<Explained> | undefined
  return Math.max(counted, plans?.[0]?.Plan["Plan Rows"] ?? counted)
})

/** Asks, as the domain's owner. */
export const ask = (
  owner: Tx,
  schema: string,
  table: string,
  questions: ReadonlyArray<Question>
): Effect.Effect<Facts, DatabaseFailure> =>
  Effect.gen(function* () {
    const rows = yield* estimateOf(owner, schema, table)
    const filled = rows > 0
    const findings = new Map<string, Finding>()
    // an empty table contradicts nothing
    for (const { key, select } of filled ? questions : []) {
      const answer = yield* owner.query(
        statement(
          `with hits as (${select}) select (select count(*)::text from hits) as count,
             array(select h.hit from (select hit from hits order by hit collate "C" limit 10) h) as samples`
        )
      )
      const row = answer.rows[0]
      const samples = Array.isArray(row?.samples) ? row.samples.map(String) : []
      findings.set(key, { count: Number(row?.count ?? 0), samples })
    }
    return { filled, rows, findings }
  })
