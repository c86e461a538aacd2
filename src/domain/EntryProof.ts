/**
 * The proof of one entry of the audit log, verified by whoever holds it and the log's public key: no database, no network.
 *
 * The document is what `GET /api/platform/audit/{id}/proof` answers: `{"entry": …, "proof": "<C2SP tlog-proof>"}`. Its
 * entry is hashed anew from its columns, the path leads from that hash to a root, and a key that is trusted has signed the
 * root. A document may come from anywhere: a column counts only in the one form in which it is exported, since two texts
 * with the same hash would let a reader believe the one that was never written.
 */
import { Data, Result } from "effect"
import { type AuditEntry, entryHash } from "./AuditEntry.ts"
import { type Checkpoint, type CheckpointFault, verifyCheckpoint } from "./Checkpoint.ts"
import { type Cosigned, verifyCosignatures } from "./Cosignature.ts"
import { ExactJsonError, ExactNumber, parse } from "./ExactJson.ts"
import { isSameKey, keyLabel, type NoteVerifier } from "./NoteKey.ts"
import { hex } from "./Sha256.ts"
import type { NoteFault } from "./SignedNote.ts"
import { parseTlogProof } from "./TlogProof.ts"
import { rootFromInclusion, sameHash } from "./TreeProof.ts"

/** An entry with its hash, as the API answers it; the hash may be left out. */
export interface ExportedEntry extends AuditEntry {
  readonly hash?: string | undefined
}

export interface EntryProofDocument {
  readonly entry: ExportedEntry
  /** C2SP tlog-proof. */
  readonly proof: string
}

/** The steps of a verification, in their order. */
export type EntryProofStep = "document" | "entry" | "hash" | "proof" | "signer" | "signature" | "witness" | "path"

export class EntryProofFault extends Data.TaggedError("EntryProofFault")<{
  /** The step that failed. */
  readonly step: EntryProofStep
  /** `refuted`: it is shown to be false. `unknown`: it cannot be read, or nobody who is trusted has signed it. */
  readonly verdict: "refuted" | "unknown"
  /** One sentence for people. */
  readonly message: string
}> {}

/** What was proved: at this place of this log there is this entry, with each of its columns. */
export interface ProvedEntry {
  readonly entry: AuditEntry
  /** Hexadecimal. */
  readonly hash: string
  readonly index: number
  readonly checkpoint: Checkpoint
  /** The keys that are trusted and that signed the checkpoint. */
  readonly signers: ReadonlyArray<NoteVerifier>
  readonly witnesses: ReadonlyArray<Cosigned>
}

export interface EntryProofOptions {
  /** Witnesses each of which must have cosigned the checkpoint. */
  readonly witnesses?: ReadonlyArray<NoteVerifier>
}

const fault = (step: EntryProofStep, verdict: EntryProofFault["verdict"], message: string) =>
  Result.fail(new EntryProofFault({ step, verdict, message }))

const uuid = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/u
const hash = /^[0-9a-f]{64}$/u
const utcTime = /^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{6}Z$/u

const isText = (value: unknown): value is string => typeof value === "string" && value.isWellFormed()
const isNull = (value: unknown): boolean => value === null
const like = (pattern: RegExp) => (value: unknown) => typeof value === "string" && pattern.test(value)
const nullOr = (test: (value: unknown) => boolean) => (value: unknown) => isNull(value) || test(value)
const isLane = (value: unknown) => typeof value === "number" && Number.isInteger(value) && value >= 0 && value < 32
const isSeq = (value: unknown) => like(/^[1-9][0-9]{0,18}$/u)(value) && BigInt(value as string) < 2n ** 63n
/** A day and a time that exist: Date would make the 31st of February into another day. */
const isTime = (value: unknown) =>
  like(utcTime)(value) && new Date(value as string).toJSON()?.slice(0, 19) === (value as string).slice(0, 19)

/** Each column in the form in which it is exported, and in no other. */
const columns: { readonly [K in keyof AuditEntry]-?: (value: unknown) => boolean } = {
  chain: isText,
  lane: isLane,
  seq: isSeq,
  occurred_at: isTime,
  id: like(uuid),
  actor: isText,
  action: isText,
  outcome: isText,
  schema_path: nullOr(isText),
  entity_id: nullOr(like(uuid)),
  payload: nullOr(isText),
  request_id: nullOr(isText),
  reason: nullOr(isText),
  ticket_ref: nullOr(isText),
  fail_modes: nullOr(isText),
  db_login: isText,
  db_role: isText,
  prev_hash: like(hash)
}

type Members = Readonly<Record<string, unknown>>
const isMembers = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ExactNumber)
/** JSON's numbers as floats: the only one of an entry is its lane. */
const plain = (value: unknown): unknown => (value instanceof ExactNumber ? value.toNumber() : value)

/** An entry in the form that is exported, or what is wrong with it. */
const readEntry = (value: unknown): Result.Result<ExportedEntry, EntryProofFault> => {
  if (!isMembers(value)) return fault("entry", "unknown", "The document has no entry.")
  const members = Object.fromEntries(Object.entries(value).map(([name, member]) => [name, plain(member)]))
  for (const [name, fits] of Object.entries(columns)) {
    if (!Object.hasOwn(members, name)) return fault("entry", "unknown", `The entry lacks its column ${name}.`)
    if (!fits(members[name])) {
      return fault("entry", "unknown", `The entry's ${name} is not in the form in which it is exported.`)
    }
  }
  const unknown = Object.keys(members).find((name) => !Object.hasOwn(columns, name) && name !== "hash")
  if (unknown !== undefined) {
    return fault("entry", "unknown", "The entry has a member that is no column, which nothing would prove.")
  }
  if (members.hash !== undefined && !like(hash)(members.hash)) {
    return fault("entry", "unknown", "The entry's hash is not 64 hexadecimal digits.")
  }
  return Result.succeed(members as unknown as ExportedEntry)
}

const readJson = (text: string, what: string): Result.Result<unknown, EntryProofFault> => {
  try {
    return Result.succeed(parse(text))
  } catch (error) {
    if (!(error instanceof ExactJsonError)) throw error
    return fault("document", "unknown", `${what} is not JSON that can be read in one way only (${error.reason}).`)
  }
}

/** Reads an entry's text. */
export const parseEntry = (text: string): Result.Result<ExportedEntry, EntryProofFault> =>
  Result.flatMap(readJson(text, "The entry"), readEntry)

const readDocument = (value: unknown): Result.Result<EntryProofDocument, EntryProofFault> => {
  if (!isMembers(value)) return fault("document", "unknown", "A proof is an object with an entry and a proof.")
  const { entry, proof } = value
  if (typeof proof !== "string") return fault("document", "unknown", "The document has no proof.")
  return Result.map(readEntry(entry), (read) => ({ entry: read, proof }))
}

/** Reads a document's text. */
export const parseEntryProof = (text: string): Result.Result<EntryProofDocument, EntryProofFault> =>
  Result.flatMap(readJson(text, "The document"), readDocument)

const sentence = (message: string): string => `${message.charAt(0).toUpperCase()}${message.slice(1)}.`

const noteFault = (cause: NoteFault | CheckpointFault): EntryProofFault => {
  const message = sentence(cause.message)
  if (cause._tag === "CheckpointFault" || cause.reason === "malformed") {
    return new EntryProofFault({ step: "proof", verdict: "unknown", message })
  }
  return cause.reason === "unknown_key"
    ? new EntryProofFault({ step: "signer", verdict: "unknown", message })
    : new EntryProofFault({ step: "signature", verdict: "refuted", message })
}

/**
 * Verifies a document, as it was parsed from JSON, against the keys that are trusted; any of several will do, as while keys
 * rotate. Rejects only where the platform has no Ed25519.
 */
export const verifyEntryProof = async (
  document: unknown,
  verifiers: ReadonlyArray<NoteVerifier>,
  options: EntryProofOptions = {}
): Promise<Result.Result<ProvedEntry, EntryProofFault>> => {
  const read = readDocument(document)
  if (Result.isFailure(read)) return Result.fail(read.failure)
  const { hash: said, ...entry } = read.success.entry
  const leaf = entryHash(entry)
  if (said !== undefined && said !== hex(leaf)) {
    return fault("hash", "refuted", "The entry's columns do not have the hash that stands beside them.")
  }

  const proof = parseTlogProof(read.success.proof)
  if (Result.isFailure(proof)) return fault("proof", "unknown", sentence(proof.failure.message))
  const verified = await verifyCheckpoint(proof.success.checkpoint, verifiers)
  if (Result.isFailure(verified)) return Result.fail(noteFault(verified.failure))
  const { checkpoint, signers } = verified.success

  const wanted = options.witnesses ?? []
  const cosigned = await verifyCosignatures(verified.success, wanted)
  if (Result.isFailure(cosigned)) {
    return fault("witness", "refuted", sentence(cosigned.failure.message))
  }
  const missing = wanted.find((one) => !cosigned.success.some(({ witness }) => isSameKey(witness, one)))
  if (missing !== undefined) {
    return fault("witness", "unknown", `The witness ${keyLabel(missing)} has not cosigned the checkpoint.`)
  }

  const { index, path } = proof.success
  const root = rootFromInclusion(index, checkpoint.size, leaf, path)
  if (root === undefined) {
    return fault("path", "refuted", `The path is not one from leaf ${index} of a tree of ${checkpoint.size}.`)
  }
  if (!sameHash(root, checkpoint.root)) {
    const log = `${checkpoint.origin} of ${checkpoint.size} entries`
    return fault(
      "path",
      "refuted",
      `This entry is not what stands at ${index} of the log ${log}: another root follows.`
    )
  }
  return Result.succeed({
    entry,
    hash: hex(leaf),
    index,
    checkpoint,
    signers,
    witnesses: cosigned.success
  })
}
