/** A record type as it is served: a row of `platform.schema_defs`, decoded. */
import { Schema } from "effect"
import { Face } from "./Face.ts"
import { SchemaDefinitionSpec } from "./SchemaDefinition.ts"

export const ServedDefinition = Schema.Struct({
  /** `platform.schema_defs.id`. */
  id: Schema.Int,
  path: Schema.String,
  chain: Schema.String,
  storage: Schema.String,
  /** The id of the definition that owns the rows; history is keyed by it. */
  storageId: Schema.Int,
  /** Changes with everything that is served; `platform.enter` refuses another. */
  generation: Schema.Int,
  pgSchema: Schema.String,
  pgTable: Schema.String,
  spec: SchemaDefinitionSpec,
  /** The ref fields whose foreign key is in force. */
  foreignKeys: Schema.Array(Schema.String),
  /** Where its rows are shared with other versions. */
  face: Schema.optionalKey(Face)
})
export type ServedDefinition = typeof ServedDefinition.Type

/** The table that holds the rows. */
export const tableNameOf = ({ face, pgTable }: ServedDefinition): string => face?.table ?? pgTable
