/**
 * The note of a restore (fine print 53): what a person says, signed, when the log does not extend a checkpoint that is
 * outside and it is known why.
 *
 * It is the first checkpoint of a new epoch, of the tree as it was restored, under an origin of its own; its extension line
 * names the checkpoint that was lost, and the reason (Restored.ts). Nothing of the old origin is signed any more. The act
 * leaves an entry in the log like any other.
 */
import { Data, Effect } from "effect"
import { epochOf, isReason, maxReasonLength, originOf, restoredLine } from "../../domain/Restored.ts"
import * as AuditChain from "../../postgres/AuditChain.ts"
import { newestCheckpoint, treeSize } from "../../postgres/Evidence.ts"
import { OperatorSql } from "../../postgres/OperatorSql.ts"
import { asSealer } from "../../postgres/SealerTx.ts"
import { statement } from "../../postgres/Statement.ts"
import type { AuditKeys } from "./AuditKeys.ts"
import { extendsOutside, type Outside, rootAt, verifiedOutside } from "./OutsideCheckpoint.ts"
import { keepCheckpoint } from "./Sealer.ts"

/** There is nothing to note, or it cannot be noted. */
export class RestoreRefused extends Data.TaggedError("RestoreRefused")<{ readonly message: string }> {}

/**
 * Writes the note and opens the epoch, in one transaction of the term in force. Refuses a checkpoint that the tree extends,
 * one that another key signed, and a reason that is not one line.
 */
export const noteRestore = Effect.fnUntraced(function* (keys: AuditKeys, outside: Outside, reason: string) {
  if (!isReason(reason)) {
    return yield* new RestoreRefused({ message: `a reason is one line of at most ${maxReasonLength} characters` })
  }
  const sql = yield* OperatorSql
  const lost = yield* verifiedOutside(keys, outside)
  return yield* sql.transaction((tx) =>
    Effect.gen(function* () {
      // in whichever term is in force: an operator that is stopped until it hears of this goes on in its own
      yield* tx.query(statement("select platform.term_check((select epoch from platform.operator_term))::text as held"))
      const kept = yield* asSealer(tx, (inner) =>
        Effect.gen(function* () {
          const extended = yield* Effect.result(extendsOutside(inner, keys, outside))
          if (extended._tag === "Success") {
            return yield* new RestoreRefused({
              message: "this database has everything that the checkpoint says; there is nothing to note"
            })
          }
          if (extended.failure._tag !== "RolledBack") return yield* Effect.fail(extended.failure)
          const newest = yield* newestCheckpoint(inner)
          const size = yield* treeSize(inner)
          const root = yield* rootAt(inner, size)
          if (root === undefined) {
            return yield* new RestoreRefused({ message: "the tree in this database is damaged; restore another copy" })
          }
          const epoch = Math.max(newest?.epoch ?? 1, epochOf(keys.name, lost.origin) ?? 1) + 1
          return yield* keepCheckpoint(inner, keys, epoch, {
            origin: originOf(keys.name, epoch),
            size,
            root,
            extensions: [restoredLine({ ...lost, reason })]
          })
        })
      )
      yield* AuditChain.insert(tx, {
        chain: "platform",
        actor: "operator/restore-note",
        action: "operator.audit.restore",
        outcome: "ok",
        reason,
        payload: {
          origin: kept.origin,
          size: kept.size,
          lost: { origin: lost.origin, size: lost.size, root: Buffer.from(lost.root).toString("base64") }
        }
      })
      return kept
    })
  )
})
