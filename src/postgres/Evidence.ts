/**
 * Reads of the tree over the log and of its checkpoints, for the sealer and for the API's auditor, who both may.
 *
 * Sizes and indexes are numbers below 2^53; they travel as text, since the driver makes bigints of int8.
 */
import * as Effect from "effect/Effect"
import type { TileId, TileSource } from "../domain/Tiles.ts"
import type { DatabaseFailure } from "./DatabaseFailure.ts"
import { type Statement, statement } from "./Statement.ts"
import type { Tx } from "./Transaction.ts"

/** A checkpoint as it is kept. */
export interface KeptCheckpoint {
  readonly epoch: number
  readonly size: number
  readonly origin: string
  readonly root: Uint8Array
  /** The note with the signatures of the log's own keys. */
  readonly note: string
  /** Signature lines of witnesses, each with its newline. */
  readonly cosignatures: string
}

const columns = "epoch, size::text as size, origin, root, note, cosignatures"

const checkpointOf = (row: Readonly<Record<string, unknown>> | undefined): KeptCheckpoint | undefined =>
  row === undefined
    ? undefined
    : {
        epoch: Number(row.epoch),
        size: Number(row.size),
        origin: String(row.origin),
        root: row.root as Uint8Array,
        note: String(row.note),
        cosignatures: String(row.cosignatures)
      }

const one = (tx: Tx, asked: Statement): Effect.Effect<KeptCheckpoint | undefined, DatabaseFailure> =>
  Effect.map(tx.query(asked), ({ rows }) => checkpointOf(rows[0]))

/** The checkpoint that stands: the largest of the last epoch. */
export const newestCheckpoint = (tx: Tx) =>
  one(tx, statement(`select ${columns} from platform.audit_checkpoints c order by c.epoch desc, c.size desc limit 1`))

/** The newest checkpoint that was put into a folder of publication. */
export const lastPublished = (tx: Tx) =>
  one(
    tx,
    statement(
      `select ${columns} from platform.audit_checkpoints c where c.published_at is not null order by c.epoch desc, c.size desc limit 1`
    )
  )

/** The checkpoint of exactly this size, of the last epoch that has one. */
export const checkpointOfSize = (tx: Tx, size: number) =>
  one(
    tx,
    statement(
      `select ${columns} from generate_series((select max(epoch) from platform.audit_checkpoints), 1, -1) as e(n)
       join platform.audit_checkpoints c on c.epoch = e.n and c.size = $1::int8 order by epoch desc limit 1`,
      [String(size)]
    )
  )

/** The first checkpoint of each epoch: from the second on they say what was restored. */
export const epochs = (tx: Tx): Effect.Effect<ReadonlyArray<KeptCheckpoint>, DatabaseFailure> =>
  Effect.map(
    tx.query(
      statement(`select f.* from generate_series(1, (select max(epoch) from platform.audit_checkpoints)) as e(n)
        cross join lateral (
          select ${columns} from platform.audit_checkpoints c where c.epoch = e.n order by c.size limit 1) f order by e.n`)
    ),
    ({ rows }) => rows.map((row) => checkpointOf(row) as KeptCheckpoint)
  )

/** How many leaves the tree has. */
export const treeSize = (tx: Tx): Effect.Effect<number, DatabaseFailure> =>
  Effect.map(tx.query(statement("select platform.audit_tree_size()::text as size")), ({ rows }) =>
    Number(rows[0]?.size ?? 0)
  )

/** Tiles that a computation needs, at once. One that is not there is missing from the source too. */
export const tilesOf = (tx: Tx, wanted: ReadonlyArray<TileId>): Effect.Effect<TileSource, DatabaseFailure> =>
  wanted.length === 0
    ? Effect.succeed(() => undefined)
    : Effect.map(
        tx.query(
          statement(
            `select t.level::int4 as level, t.index::text as index, t.hashes
             from json_to_recordset($1::json) as w(level int2, index int8)
             join platform.audit_tiles t on t.level = w.level and t.index = w.index`,
            [JSON.stringify(wanted)]
          )
        ),
        ({ rows }) => {
          const found = new Map(rows.map((row) => [`${row.level}/${row.index}`, row.hashes as Uint8Array]))
          return (level, index) => found.get(`${level}/${index}`)
        }
      )
