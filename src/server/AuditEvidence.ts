/**
 * Evidence for those who read the log: checkpoints, the proof of an entry, consistency of two trees, and the log against
 * its tree; all as `velocity_auditor`, who may read them and nothing else.
 *
 * A proof is made from a few tiles: of a million entries it is 20 hashes from 3 of them.
 */
import { Context, Effect, Layer, type Stream } from "effect"
import { tilesForConsistency, tilesForInclusion } from "../domain/Tiles.ts"
import { formatTlogProof } from "../domain/TlogProof.ts"
import { consistencyProof, inclusionProof } from "../domain/TreeProof.ts"
import { AuditorTx } from "../postgres/AuditorTx.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { checkpointOfSize, type KeptCheckpoint, newestCheckpoint, tilesOf } from "../postgres/Evidence.ts"
import { statement } from "../postgres/Statement.ts"
import type { Tx } from "../postgres/Transaction.ts"
import { type OutsideRoot, type VerifiedPart, verifiedTree } from "../postgres/TreeSlices.ts"
import { entryJson } from "./AuditLog.ts"

/** What was found of an entry's proof. */
export type EntryEvidence =
  | { readonly _tag: "Unknown" }
  /** The entry is there, and no checkpoint covers it yet. */
  | { readonly _tag: "NotSealed" }
  /** The entry as JSON, and a C2SP tlog-proof. */
  | { readonly _tag: "Proved"; readonly entry: string; readonly proof: string }

/** The checkpoint with the cosignatures that were collected: all signature lines of one note. */
export const noteOf = ({ cosignatures, note }: KeptCheckpoint): string => `${note}${cosignatures}`

/** The milliseconds of an entry's id (UUID version 7); undefined where no entry can have it. */
export const millisOf = (id: string): number | undefined =>
  id[14] === "7" ? Number.parseInt(`${id.slice(0, 8)}${id.slice(9, 13)}`, 16) : undefined

/** The months that were kept and may have an entry of that time: two where it is the turn of a month. */
const keptMonths = (millis: number): ReadonlyArray<string> => {
  const months = [millis - 1, millis + 2].map((time) => /^([0-9]{4})-([0-9]{2})/u.exec(new Date(time).toISOString()))
  return [...new Set(months.flatMap((month) => (month === null ? [] : [`audit_log_${month[1]}_${month[2]}`])))]
}

// found by the time in its id, through the index on occurred_at: a millisecond, and one at each side for rounding
const entrySql = (table: string) => `select ${entryJson} as entry,
  (select l.index + e.seq - l.seq from platform.audit_leaves l
   where l.chain = e.chain and l.lane = e.lane and l.seq <= e.seq and e.seq < l.seq + l.count order by l.seq desc limit 1)::text as leaf
from ${table} e
where e.occurred_at >= to_timestamp(($2::float8 - 1) / 1000) and e.occurred_at < to_timestamp(($2::float8 + 2) / 1000) and e.id = $1::uuid`

/** Connections that verify one tree. */
const verifiers = 2

const entryOf = (tx: Tx, table: string, id: string, millis: number) =>
  Effect.map(tx.query(statement(entrySql(table), [id, millis])), ({ rows }) => rows[0])

/** See the module. */
export class AuditEvidence extends Context.Service<
  AuditEvidence,
  {
    /** The newest checkpoint, or the one of a size. */
    readonly checkpoint: (size?: number) => Effect.Effect<KeptCheckpoint | undefined, DatabaseFailure>
    readonly proof: (id: string) => Effect.Effect<EntryEvidence, DatabaseFailure>
    /** The proof that the tree of `to` leaves begins with that of `from`; undefined beyond the newest checkpoint. */
    readonly consistency: (
      from: number,
      to: number
    ) => Effect.Effect<ReadonlyArray<Uint8Array> | undefined, DatabaseFailure>
    /** The log against its tree, from a leaf on that a slice begins with, and the tree against a checkpoint from outside. */
    readonly tree: (outside: OutsideRoot | undefined, from: number) => Stream.Stream<VerifiedPart, DatabaseFailure>
  }
>()("velocity/server/AuditEvidence") {
  static readonly layer = Layer.effect(
    AuditEvidence,
    Effect.gen(function* () {
      const auditor = yield* AuditorTx
      const proof = Effect.fnUntraced(function* (id: string) {
        const millis = millisOf(id)
        if (millis === undefined) return { _tag: "Unknown" } as const
        return yield* auditor.run((tx) =>
          Effect.gen(function* () {
            let row = yield* entryOf(tx, "platform.audit_log", id, millis)
            for (const month of keptMonths(millis)) {
              if (row !== undefined) break
              const kept = yield* tx.query(
                statement("select to_regclass($1) is not null as there", [`platform_archive.${month}`])
              )
              if (kept.rows[0]?.there === true) row = yield* entryOf(tx, `platform_archive.${month}`, id, millis)
            }
            if (row === undefined) return { _tag: "Unknown" } as const
            const checkpoint = yield* newestCheckpoint(tx)
            const index = row.leaf === null ? Number.POSITIVE_INFINITY : Number(row.leaf)
            if (checkpoint === undefined || index >= checkpoint.size) return { _tag: "NotSealed" } as const
            const tiles = yield* tilesOf(tx, tilesForInclusion(index, checkpoint.size))
            const path = inclusionProof(index, checkpoint.size, tiles)
            const text = formatTlogProof({ index, path, checkpoint: noteOf(checkpoint) })
            return { _tag: "Proved", entry: String(row.entry), proof: text } as const
          })
        )
      })
      const consistency = Effect.fnUntraced(function* (from: number, to: number) {
        return yield* auditor.run((tx) =>
          Effect.gen(function* () {
            const newest = yield* newestCheckpoint(tx)
            if (newest === undefined || to > newest.size) return undefined
            return consistencyProof(from, to, yield* tilesOf(tx, tilesForConsistency(from, to)))
          })
        )
      })
      return AuditEvidence.of({
        checkpoint: (size) =>
          auditor.run((tx) => (size === undefined ? newestCheckpoint(tx) : checkpointOfSize(tx, size))),
        proof,
        consistency,
        tree: (outside, from) => verifiedTree((f) => auditor.run(f), outside, from, verifiers)
      })
    })
  )
}
