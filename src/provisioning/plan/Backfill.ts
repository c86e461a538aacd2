/**
 * Values that a field gets in the records that are there, computed by us from the record (`backfill:`, CEL) and never in SQL:
 * a batch is read under its rows' locks, computed, and written, in the transaction of its step.
 */
import { Clock, Data, Effect } from "effect"
import { type ExactValue, isExactObject, parse, stringify } from "../../domain/ExactJson.ts"
import type { Field } from "../../domain/Field.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { quoteName } from "../table/SqlText.ts"

/** Computes the value of one field from a record, as JSON has both; or says why there is none. Never quotes a value. */
export type Compute = (
  self: Readonly<Record<string, ExactValue>>,
  now: number
) => { readonly value: ExactValue } | { readonly error: string }

/** Records for which a value cannot be computed. */
export class BackfillErred extends Data.TaggedError("BackfillErred")<{ readonly message: string }> {}

/** What a column is called now, and in the definition that is wanted. */
export interface Seen {
  readonly column: string
  readonly field: Field
}

/** The two statements of a step that computes: `$1` (after) and `$2` (how many) of the first, `$1` (values) of the second. */
export const backfillSql = (
  table: string,
  target: { readonly column: string; readonly type: string },
  seen: ReadonlyArray<Seen>
): ReadonlyArray<string> => {
  const column = quoteName(target.column)
  const shown = seen.map(({ column: name, field }) => {
    const value = `t.${quoteName(name)}`
    return `${field.type === "bytes" ? `translate(encode(${value}, 'base64'), E'\\n', '')` : value} as ${quoteName(field.name)}`
  })
  const value = target.type === "bytea" ? "decode(v.value, 'base64')" : "v.value"
  return [
    `select t.id::text as id, (select row_to_json(x)::text from (select ${shown.join(", ") || "1 as _"}) x) as record from ${table} t where t.id > $1 and t.${column} is null order by t.id limit $2 for no key update of t`,
    `update ${table} t set ${column} = ${value} from jsonb_to_recordset($1::text::jsonb) as v(id uuid, value ${target.type === "bytea" ? "text" : target.type}) where t.id = v.id`
  ]
}

/** Records that are named when a value cannot be computed. */
const named = 10

/** One batch, as the domain's owner: how many records it was, and the last of them. Fails with what errs, by id. */
export const batch = (
  owner: Tx,
  sql: string,
  compute: Compute,
  after: string,
  size: number
): Effect.Effect<{ readonly rows: number; readonly last: string | undefined }, DatabaseFailure | BackfillErred> =>
  Effect.gen(function* () {
    const [read = "", write = ""] = sql.split(";\n")
    const { rows } = yield* owner.query(statement(read, [after, size]))
    const now = yield* Clock.currentTimeMillis
    const values: Array<ExactValue> = []
    const wrong: Array<string> = []
    for (const row of rows) {
      const record = parse(String(row.record))
      const result = compute(isExactObject(record) ? record : {}, now)
      if ("error" in result) wrong.push(`${String(row.id)} (${result.error})`)
      else values.push({ id: String(row.id), value: result.value })
    }
    if (wrong.length > 0) {
      const list = `${wrong.slice(0, named).join(", ")}${wrong.length > named ? ", …" : ""}`
      return yield* new BackfillErred({
        message: `it cannot be computed for ${wrong.length} of ${rows.length}: ${list}`
      })
    }
    if (values.length > 0) yield* owner.query(statement(write, [stringify(values)]))
    return { rows: rows.length, last: rows.length === 0 ? undefined : String(rows.at(-1)?.id) }
  })

/** Before every id. */
export const beginning = "00000000-0000-0000-0000-000000000000"

/** All of them, one batch after the other, in this transaction. */
export const all = Effect.fnUntraced(function* (owner: Tx, sql: string, compute: Compute, size: number) {
  let after = beginning
  for (;;) {
    const { last, rows } = yield* batch(owner, sql, compute, after, size)
    if (rows < size || last === undefined) return
    after = last
  }
})
