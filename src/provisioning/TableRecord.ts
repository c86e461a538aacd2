/**
 * What was made of a table, kept as the table's COMMENT: by it the table as it is and the table that is wanted are
 * compared. Pure.
 *
 * What Postgres prints of an expression is otherwise than it was written, so it is never compared (fine print 44).
 */
import { Schema } from "effect"
import { quoteText } from "./SqlText.ts"

const ColumnRecord = Schema.Struct({
  /** The field's type in the definition; of a ref its target too. */
  type: Schema.String,
  /** In Postgres, as written here. */
  sql: Schema.String,
  required: Schema.Boolean,
  default: Schema.optionalKey(Schema.String)
})
const CheckRecord = Schema.Struct({
  field: Schema.String,
  purpose: Schema.Literals(["min", "max", "minLength", "maxLength", "pattern", "enum"]),
  /** What is compared with, as text; of an enum its values. */
  says: Schema.Array(Schema.String)
})
const IndexRecord = Schema.Struct({ fields: Schema.Array(Schema.String), unique: Schema.Boolean })

/** What was made of a table, as its COMMENT says it. */
export const TableRecord = Schema.Struct({
  path: Schema.String,
  columns: Schema.Record(Schema.String, ColumnRecord),
  checks: Schema.Record(Schema.String, CheckRecord),
  indexes: Schema.Record(Schema.String, IndexRecord),
  /** Name of the constraint to ref field. */
  foreignKeys: Schema.Record(Schema.String, Schema.String),
  /** A digest of policies and history view; `withdrawn` while domain roles are shut out. */
  access: Schema.String
})
export type TableRecord = typeof TableRecord.Type
export type CheckRecord = typeof CheckRecord.Type

/** What stands in `access` of a table whose definition was deleted. */
export const withdrawn = "withdrawn"

const preamble = "Velocity record type"

/** The COMMENT of a table. */
export const commentOnTable = (table: string, record: TableRecord): string =>
  `comment on table ${table} is ${quoteText(`${preamble} ${record.path}\n${JSON.stringify(record)}`)}`

const decodeRecord = Schema.decodeUnknownOption(Schema.fromJsonString(TableRecord))

/** The record in a COMMENT; undefined where it is none of ours. */
export const recordOf = (comment: string | null): TableRecord | undefined => {
  const at = comment?.indexOf("\n") ?? -1
  if (comment === null || !comment.startsWith(preamble) || at < 0) return undefined
  const found = decodeRecord(comment.slice(at + 1))
  return found._tag === "Some" ? found.value : undefined
}
