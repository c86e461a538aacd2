/**
 * What some roles see of a record, as a select list: masks and field access are compiled into it, so that a value which
 * its reader may not see never leaves Postgres.
 *
 * A hidden or masked field is absent from the record and named in `_masked`, with null or with what the mask leaves of it;
 * it never carries a substitute that could be sent back (fine print 6). The select list belongs under `row_to_json`, which
 * prints numbers at their scale, timestamps as ISO 8601 with offset and jsonb as it is, and takes any number of columns.
 */
import { type Visibility, visibilityOf } from "../../domain/Access.ts"
import { stateKeys } from "../../domain/Face.ts"
import { type Field, type FieldType, systemColumns } from "../../domain/Field.ts"
import type { ServedDefinition } from "../../domain/ServedDefinition.ts"
import { sha256Hex } from "../../domain/Sha256.ts"
import { quoteName } from "../../postgres/Statement.ts"
import type { FieldPlan } from "./FieldPlan.ts"

/** A text as SQL writes it; for names of the registry's, never for a client's. */
export const quoteText = (text: string): string => `'${text.replaceAll("'", "''")}'`

/** How a projection reads a row. */
export interface Row {
  /** A system column. */
  readonly system: (name: string) => string
  /** A field's value as it stands in a record's JSON. */
  readonly value: (field: Field) => string
  /** A string field's text, for a partial mask. */
  readonly text: (field: Field) => string
}

/** A column of the row `alias` as it stands in JSON: bytes as base64. */
export const columnOf = (alias: string, name: string, type: FieldType): string => {
  const column = `${alias}.${quoteName(name)}`
  return type === "bytes" ? `translate(encode(${column}, 'base64'), E'\\n', '')` : column
}

/** The row `alias` of a table. */
export const tableRow = (alias: string): Row => ({
  system: (name) => `${alias}.${name}`,
  value: (field) => columnOf(alias, field.name, field.type),
  text: (field) => `${alias}.${quoteName(field.name)}`
})

/** A member of a state: under the name its column has, and in states from before under a former one. */
const memberOf = (state: string, keys: ReadonlyArray<string>): string =>
  keys.length === 1
    ? `${state} -> ${quoteText(keys[0] as string)}`
    : `coalesce(${keys.map((one) => `${state} -> ${quoteText(one)}`).join(", ")})`

/** The same as text. */
const textOf = (state: string, keys: ReadonlyArray<string>): string =>
  keys.length === 1 ? `(${state} ->> ${quoteText(keys[0] as string)})` : `(${memberOf(state, keys)} #>> '{}')`

/** The state of an event in history, which has the members of a record. */
export const stateRow = (state: string, def: ServedDefinition): Row => ({
  system: (name) => `${state} -> ${quoteText(name)}`,
  value: (field) => memberOf(state, stateKeys(def, field)),
  text: (field) => textOf(state, stateKeys(def, field))
})

/** Compiled for a class of callers: all who see the same of each field. */
export interface Projection {
  /** The fields that are seen as they are: these may be filtered, sorted, tested and copied by. */
  readonly clear: ReadonlySet<string>
  /** Generation and visibility: two records of one version with this in common look the same. */
  readonly fingerprint: string
  /** Eight hexadecimal digits of the fingerprint: the tag of an ETag of a record without `select` and `include`. */
  readonly tag: string
  /**
   * The select list.
   *
   * @param chosen the columns to show; all of them where it is undefined
   * @param included what stands in the place of a ref field's id
   */
  readonly columns: (row: Row, chosen?: ReadonlySet<string>, included?: ReadonlyMap<string, string>) => string
}

/** Characters that a partial mask leaves, of a text of at least twice as many. */
const shownCharacters = 4

const maskedText = (field: Field, visibility: Visibility, row: Row): string => {
  if (visibility !== "partial") return "null::text"
  const text = row.text(field)
  return `case when char_length(${text}) >= ${2 * shownCharacters} then '…' || right(${text}, ${shownCharacters}) end`
}

/** The tag of an answer that differs from the plain record by more than its version. */
export const tagOf = (fingerprint: string): string => sha256Hex(fingerprint).slice(0, 8)

/** The projection of the callers who see each of the definition's fields so. */
export const compileProjection = (def: ServedDefinition, visibility: ReadonlyArray<Visibility>): Projection => {
  const { fields } = def.spec
  const clear = new Set(fields.filter((_, index) => visibility[index] === "clear").map((field) => field.name))
  const masked = fields.flatMap((field, index) =>
    visibility[index] === "clear" ? [] : [{ field, visibility: visibility[index] as Visibility }]
  )
  const fingerprint = `${def.generation}|${visibility.join()}`
  return {
    clear,
    fingerprint,
    tag: tagOf(fingerprint),
    columns: (row, chosen, included) => {
      const wanted = (name: string) => chosen === undefined || chosen.has(name)
      const list: Array<string> = []
      // an id is always told: without it nothing could be done with the record
      for (const name of systemColumns) {
        if (name === "id" || wanted(name)) list.push(`${row.system(name)} as ${name}`)
      }
      for (const field of fields) {
        const instead = included?.get(field.name)
        if (instead !== undefined) list.push(`${instead} as ${quoteName(field.name)}`)
        else if (clear.has(field.name) && wanted(field.name)) {
          list.push(`${row.value(field)} as ${quoteName(field.name)}`)
        }
      }
      const told = masked.filter(({ field }) => wanted(field.name))
      if (told.length > 0) {
        const members = told.map(({ field, visibility }) => {
          return `${maskedText(field, visibility, row)} as ${quoteName(field.name)}`
        })
        list.push(`(select row_to_json(_m.*) from (select ${members.join(", ")}) _m) as _masked`)
      }
      return list.join(", ")
    }
  }
}

/** How much these roles see of each field, in the definition's order. */
export const visibilitiesOf = (def: ServedDefinition, roles: ReadonlyArray<string>): ReadonlyArray<Visibility> =>
  def.spec.fields.map((field) => visibilityOf(field, roles))

/** How a field is read from an event's state, as its own type. */
export const stateColumn = (plan: FieldPlan): string => {
  const text = textOf("_h.state", plan.keys)
  return plan.cast === "text" ? text : `${text}::${plan.cast}`
}
