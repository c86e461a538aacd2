/** A log of entries in several chains and lanes, sealed into one tree by a key: what proofs are made of in tests. */
import { Result } from "effect"
import { type AuditEntry, entryHash, genesis } from "../../src/domain/AuditEntry.ts"
import { formatCheckpoint } from "../../src/domain/Checkpoint.ts"
import type { EntryProofDocument, ExportedEntry } from "../../src/domain/EntryProof.ts"
import { generateSignerKey, type NoteVerifier, parseVerifierKey } from "../../src/domain/NoteKey.ts"
import { hex } from "../../src/domain/Sha256.ts"
import { signNote } from "../../src/domain/SignedNote.ts"
import { appendToTiles } from "../../src/domain/Tiles.ts"
import { formatTlogProof } from "../../src/domain/TlogProof.ts"
import { inclusionProof } from "../../src/domain/TreeProof.ts"

export const origin = "velocity.example/audit"

export const right = <A, E>(result: Result.Result<A, E>): A => {
  if (Result.isFailure(result)) throw new Error(`failed: ${String(result.failure)}`)
  return result.success
}

const uuid = (n: number) => `01930000-0000-7000-9000-${n.toString(16).padStart(12, "0")}`

/** Every second entry has each nullable column, the others none. */
const entryOf = (n: number, lane: number, seq: number, prevHash: string): AuditEntry => {
  const told = n % 2 === 0
  return {
    chain: n % 3 === 0 ? "platform" : "acme/geo/atlas",
    lane,
    seq: String(seq),
    occurred_at: `2026-11-24T00:00:${String(n % 60).padStart(2, "0")}.${String(n).padStart(6, "0")}Z`,
    id: uuid(n),
    actor: "development/zoë",
    action: "create",
    outcome: "ok",
    schema_path: told ? "acme/geo/atlas/country/v1" : null,
    entity_id: told ? uuid(n + 100_000) : null,
    payload: told ? '{"v": 1.10, "fields": ["name"]}' : null,
    request_id: told ? "req-1" : null,
    reason: told ? "" : null,
    ticket_ref: told ? "T-1" : null,
    fail_modes: told ? "[]" : null,
    db_login: "velocity_api",
    db_role: "acme_geo_atlas_writer",
    prev_hash: prevHash
  }
}

export interface EntryLog {
  readonly entries: ReadonlyArray<ExportedEntry>
  /** The checkpoint's text, for whoever signs it again. */
  readonly body: string
  readonly checkpoint: string
  readonly key: NoteVerifier
  readonly signerKey: string
  readonly proof: (index: number, checkpoint?: string) => string
  readonly document: (index: number, checkpoint?: string) => EntryProofDocument
}

const entriesOf = (count: number): ReadonlyArray<ExportedEntry> => {
  const heads = new Map<string, { readonly seq: number; readonly hash: string }>()
  return Array.from({ length: count }, (_, n) => {
    const lane = n % 5
    const chain = n % 3 === 0 ? "platform" : "acme/geo/atlas"
    const head = heads.get(`${chain}/${lane}`) ?? { seq: 0, hash: hex(genesis(chain, lane)) }
    const entry = entryOf(n, lane, head.seq + 1, head.hash)
    const hash = hex(entryHash(entry))
    heads.set(`${chain}/${lane}`, { seq: head.seq + 1, hash })
    return { ...entry, hash }
  })
}

/** These entries under a new key, as the sealer does it. */
export const seal = async (entries: ReadonlyArray<ExportedEntry>): Promise<EntryLog> => {
  const size = entries.length
  const appended = appendToTiles(
    0,
    entries.map(({ hash: _, ...entry }) => entryHash(entry)),
    () => undefined
  )
  const tiles = new Map(appended.tiles.map(({ level, index, hashes }) => [`${level}/${index}`, hashes]))
  const pair = await generateSignerKey(origin)
  const body = formatCheckpoint({ origin, size, root: appended.root, extensions: [] })
  const checkpoint = await signNote(body, pair.signerKey)
  const proof = (index: number, note = checkpoint) => {
    const path = inclusionProof(index, size, (level, tile) => tiles.get(`${level}/${tile}`))
    return formatTlogProof({ index, path, checkpoint: note })
  }
  return {
    entries,
    body,
    checkpoint,
    key: right(parseVerifierKey(pair.verifierKey)),
    signerKey: pair.signerKey,
    proof,
    document: (index, note) => ({ entry: entries[index] as ExportedEntry, proof: proof(index, note) })
  }
}

export const makeEntryLog = (size: number): Promise<EntryLog> => seal(entriesOf(size))
