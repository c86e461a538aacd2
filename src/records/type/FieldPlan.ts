/** What the statements know of a column. */
import type { Field, FieldType } from "../../domain/Field.ts"
import type { QueryOperator } from "../../domain/Query.ts"

/** A column that a query may name: a field, or a system column. */
export interface FieldPlan {
  readonly name: string
  /** Quoted. */
  readonly column: string
  readonly type: FieldType
  /** The type that values are compared as; a number's without precision, so that none is rounded to the column's. */
  readonly cast: string
  readonly field: Field
  readonly system: boolean
  readonly nullable: boolean
  readonly filterable: boolean
  /** There is an order of json and bytes in Postgres, but none that means anything. */
  readonly sortable: boolean
  readonly operators: ReadonlySet<QueryOperator>
  /** The path that a ref points to. */
  readonly target: string | undefined
  /** The members of a state in history that hold it: today's first, then those of before. */
  readonly keys: ReadonlyArray<string>
}
