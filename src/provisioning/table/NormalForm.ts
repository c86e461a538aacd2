/**
 * The catalogue that a wanted table would have: it is made in a scratch schema, read, and undone, within the transaction of
 * whoever asks. Foreign keys point to stand-ins, so no lock is taken on any table that is there.
 *
 * Kept by the server's version and the statements, because the same statements have the same normal form.
 */
import { Effect } from "effect"
import { rolesOf } from "../../domain/Names.ts"
import { sha256Hex } from "../../domain/Sha256.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { asOwner } from "../../postgres/OwnerTx.ts"
import { statement } from "../../postgres/Statement.ts"
import { type Catalogue, read } from "./Catalogue.ts"
import { inOneBlock, qualified, quoteName } from "./SqlText.ts"
import type { WantedTable } from "./WantedTable.ts"

const kept = new Map<string, Catalogue>()
/** About 20 KB each. */
const maxKept = 500

/** The statements that make a table whole, as they are run where there is none. */
export interface Making {
  readonly wanted: WantedTable
  readonly statements: ReadonlyArray<string>
  /** The tables of the same schema that its foreign keys point to. */
  readonly targets: ReadonlyArray<string>
}

/** What of the making is about a schema as a whole, and not about the table. */
const isOfSchema = (sql: string): boolean => /^grant \w+ on schema /u.test(sql)

/** See the module. */
export const normalForm = Effect.fnUntraced(function* (tx: Tx, { statements, targets, wanted }: Making) {
  const { name, schema } = wanted
  const { rows } = yield* tx.query(
    statement("select current_setting('server_version_num') as version, pg_backend_pid()::text as pid")
  )
  const key = sha256Hex([String(rows[0]?.version), schema, name, ...targets, ...statements].join("\n"))
  const known = kept.get(key)
  if (known !== undefined) return known
  const scratch = `velocity_scratch_${String(rows[0]?.pid)}`
  const moved = (sql: string) => sql.replaceAll(`${quoteName(schema)}.`, `${quoteName(scratch)}.`)
  const stands = [...new Set(targets)]
    .filter((target) => target !== name)
    .map((target) => `create table ${qualified(scratch, target)} (id uuid, _live boolean, unique (id, _live))`)
  yield* tx.query(statement("savepoint velocity_scratch"))
  yield* tx.query(statement(`create schema ${quoteName(scratch)} authorization ${quoteName(rolesOf(schema).owner)}`))
  yield* asOwner(tx, schema, (owner) =>
    owner.query(inOneBlock([...stands, ...statements.filter((sql) => !isOfSchema(sql)).map(moved)]))
  )
  const made = yield* read(tx, scratch, name, schema)
  yield* tx.query(statement("rollback to savepoint velocity_scratch"))
  yield* tx.query(statement("release savepoint velocity_scratch"))
  if (made === undefined) return yield* Effect.die(new Error(`${schema}.${name} was not made in the scratch schema`))
  if (kept.size >= maxKept) kept.clear()
  kept.set(key, made)
  return made
})
