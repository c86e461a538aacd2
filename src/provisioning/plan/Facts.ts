/**
 * What a plan asks of the rows that are there: how many have no value, break a bound, are doubled, refer to nothing. Answers
 * name records by their ids and never show a value, because whoever reads a status may not read the record.
 */
import { Effect } from "effect"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { qualified, quoteText } from "../table/SqlText.ts"

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
  /** About how many rows; what the statistics say, at least one where there is one. */
  readonly rows: number
  readonly findings: ReadonlyMap<string, Finding>
}

export const none: Finding = { count: 0, samples: [] }

/** `3 records (id, id, id)`. */
export const renderFinding = ({ count, samples }: Finding, what = "record"): string =>
  `${count} ${what}${count === 1 ? "" : "s"} (${samples.join(", ")}${count > samples.length ? ", …" : ""})`

/** Asks, as the domain's owner. */
export const ask = (
  owner: Tx,
  schema: string,
  table: string,
  questions: ReadonlyArray<Question>
): Effect.Effect<Facts, DatabaseFailure> =>
  Effect.gen(function* () {
    const name = qualified(schema, table)
    const { rows } = yield* owner.query(
      statement(
        `select exists (select from ${name}) as filled, (select greatest(c.reltuples, 0)::int8::text from pg_class c where c.oid = ${quoteText(name)}::regclass) as rows`
      )
    )
    const filled = rows[0]?.filled === true
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
    return { filled, rows: filled ? Math.max(1, Number(rows[0]?.rows ?? 0)) : 0, findings }
  })
