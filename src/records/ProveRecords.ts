/**
 * What a record's proof is made of but the tree: its fields as the caller may see them, the audit entry that commits to
 * its last event, and in an entry of many the path to the root that it names. Whoever may read the record and its history
 * may have it; the entry tells him besides who acted and for which reason, since its hash is over all of it.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Caller } from "../domain/Identity.ts"
import { leafHash, rootHash } from "../domain/MerkleTree.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { type BatchPath, maxBatch } from "../domain/RecordProof.ts"
import { fromHex, hex } from "../domain/Sha256.ts"
import { appendToTiles } from "../domain/Tiles.ts"
import { inclusionProof } from "../domain/TreeProof.ts"
import { isUuid } from "../domain/Uuid.ts"
import { AuditorTx } from "../postgres/AuditorTx.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import type { Statement } from "../postgres/Statement.ts"
import { type End, TenantTx } from "../postgres/TenantTx.ts"
import * as ProofSql from "./read/ProofSql.ts"
import { ungranted } from "./read/ReadRequest.ts"
import { enterFor } from "./type/Entering.ts"
import { mapFailures, type StaleDefinition } from "./type/Failures.ts"
import type { RecordType } from "./type/RecordType.ts"

/** See the module. */
export interface RecordEvidence {
  /** `record` of the document, as JSON. */
  readonly record: string
  /** `fields` of the document, as JSON. */
  readonly fields: string
  readonly batch: BatchPath | undefined
  /** The id of the audit entry. */
  readonly entry: string
}

/** Where a hash is among those of an entry, and the path from it. */
const pathOf = (hashes: ReadonlyArray<Uint8Array>, index: number): BatchPath => {
  const leaves = hashes.map(leafHash)
  const { tiles } = appendToTiles(0, leaves, () => undefined)
  const path = inclusionProof(
    index,
    leaves.length,
    (level, at) => tiles.find((tile) => tile.level === level && tile.index === at)?.hashes
  )
  return { index, size: leaves.length, path: path.map(hex) }
}

/** See the module. */
export class ProveRecords extends Context.Service<
  ProveRecords,
  {
    /** Fails with 404 for a record that is deleted, erased or not to be seen, and with 404 where its entry was dropped. */
    readonly evidence: (
      type: RecordType,
      caller: Caller,
      id: string
    ) => Effect.Effect<RecordEvidence, Problem | StaleDefinition>
  }
>()("velocity/records/ProveRecords") {
  static readonly layerNoDeps = Layer.effect(
    ProveRecords,
    Effect.gen(function* () {
      const tenant = yield* TenantTx
      const auditor = yield* AuditorTx

      const asked = <A, R>(type: RecordType, effect: Effect.Effect<A, DatabaseFailure, R>) =>
        effect.pipe(mapFailures(type))
      const asTenant = (type: RecordType, caller: Caller, one: Statement, end: End) =>
        Effect.map(
          asked(type, tenant.bundle(enterFor(type, caller, "history"), [one], end)),
          ([result]) => result?.rows ?? []
        )

      const evidence = Effect.fnUntraced(function* (type: RecordType, caller: Caller, id: string) {
        const denied = ungranted(type, "history", caller) ?? ungranted(type, "read", caller)
        if (denied !== undefined) return yield* denied
        if (!isUuid(id)) return yield* problem("malformed_id")
        const end = type.def.spec.audit.reads === "none" ? "read" : "commit"
        const [row] = yield* asTenant(type, caller, ProofSql.proofSql(type, caller, id), end)
        if (row === undefined) return yield* problem("not_found")
        const requestId = row.request_id === null ? null : String(row.request_id)
        const found = { id, event: String(row.event), at: String(row.at), requestId }
        const [entries] = yield* asked(type, auditor.bundle([ProofSql.entriesSql(type, found)]))
        const fields = String(row.fields)
        for (const entry of entries?.rows ?? []) {
          // under the path of the version through which it was written, as the entry has it
          const record = `{"path":${JSON.stringify(String(entry.path))},${String(row.record).slice(1)}`
          const shown = { record, fields }
          if (entry.root === null) return { ...shown, batch: undefined, entry: String(entry.id) }
          const one = ProofSql.batchSql(type, String(entry.first), String(entry.last), requestId)
          const events = yield* asTenant(type, caller, one, "read")
          const hashes = events.map((event) => fromHex(String(event.hash)))
          const index = events.findIndex((event) => event.id === id)
          if (index < 0 || hashes.length > maxBatch || hex(rootHash(hashes.map(leafHash))) !== entry.root) continue
          return { ...shown, batch: pathOf(hashes, index), entry: String(entry.id) }
        }
        return yield* problem("not_found", { detail: "the audit entry of this version is no longer kept" })
      })
      return ProveRecords.of({ evidence })
    })
  )
}
