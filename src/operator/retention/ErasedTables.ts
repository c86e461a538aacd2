/**
 * Statistics of tables that a record was erased from. ANALYZE keeps samples of values in `pg_statistic`, where those of an
 * erased record stay until the table is analysed again, which autovacuum may never do; so it is done within a minute, as
 * the domain's owner, since the erasure's own role may not.
 *
 * ANALYZE of a table without rows leaves old statistics as they are. PostgreSQL 18 can clear them; on 16 and 17 the table
 * stays marked, and is looked at again, until it has a row.
 */
import { Effect, Layer, Schedule } from "effect"
import { asOwner } from "../../postgres/OwnerTx.ts"
import { quoteName, statement } from "../../postgres/Statement.ts"
import { Fence } from "../state/Fence.ts"

const marksSql =
  "select pg_schema, pg_table, erased_at::text as at, current_setting('server_version_num')::int4 >= 180000 as clears from platform.erased_tables order by erased_at"

const thereSql =
  "select 1 from pg_catalog.pg_class c join pg_catalog.pg_namespace n on n.oid = c.relnamespace where n.nspname = $1 and c.relname = $2"

const clearSql = `select count(pg_catalog.pg_clear_attribute_stats($1, $2, a.attname::text, false)::text) as cleared from pg_catalog.pg_attribute a
  join pg_catalog.pg_class c on c.oid = a.attrelid join pg_catalog.pg_namespace n on n.oid = c.relnamespace
  where n.nspname = $1 and c.relname = $2 and a.attnum > 0 and not a.attisdropped`

// an erasure that came meanwhile has marked it anew
const doneSql =
  "delete from platform.erased_tables where pg_schema = $1 and pg_table = $2 and erased_at = $3::timestamptz"

interface Mark {
  readonly schema: string
  readonly table: string
  readonly at: string
  readonly clears: boolean
}

const renew = Effect.fnUntraced(function* ({ at, clears, schema, table }: Mark) {
  const fence = yield* Fence
  const name = `${quoteName(schema)}.${quoteName(table)}`
  yield* fence.transaction((tx) =>
    Effect.gen(function* () {
      const { rows: there } = yield* tx.query(statement(thereSql, [schema, table]))
      const clean =
        there.length === 0 ||
        (yield* asOwner(tx, schema, (owner) =>
          Effect.gen(function* () {
            if (clears) yield* owner.query(statement(clearSql, [schema, table]))
            yield* owner.query(statement(`analyze ${name}`))
            const { rows } = yield* owner.query(statement(`select exists (select from ${name}) as filled`))
            return clears || rows[0]?.filled === true
          })
        ))
      if (clean) yield* tx.query(statement(doneSql, [schema, table, at]))
    })
  )
})

/** One round: gathers anew the statistics of every marked table, each in a transaction of its own. */
export const sweep = Effect.gen(function* () {
  const fence = yield* Fence
  const { rows } = yield* fence.read((tx) => tx.query(statement(marksSql)))
  yield* Effect.forEach(
    rows,
    (row) => {
      const schema = String(row.pg_schema)
      const table = String(row.pg_table)
      return Effect.catch(renew({ schema, table, at: String(row.at), clears: row.clears === true }), (error) =>
        Effect.logError(`the statistics of ${schema}.${table} could not be gathered after an erasure`, error)
      )
    },
    { discard: true }
  )
})

/** Sweeps at once and then every minute; what fails is tried again in the next round. */
export const layer: Layer.Layer<never, never, Fence> = Layer.effectDiscard(
  sweep.pipe(
    Effect.catchCause((cause) => Effect.logError("erased tables could not be looked for", cause)),
    Effect.repeat(Schedule.spaced("1 minute")),
    Effect.forkScoped
  )
)
