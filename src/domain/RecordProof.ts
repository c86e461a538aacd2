/**
 * The proof of a record's state, verified by whoever holds it and the log's public key: no database, no network.
 *
 * The document is what `GET P/{id}/proof` answers: the fields that its reader sees, each with its value and salt, and of the
 * others their leaf hash alone; from these the hash of the record's last event follows (`EventHash`). The audit entry of
 * that act names this hash, or, where many records were created at once, the root of an RFC 6962 tree over at most 500 of
 * them, to which `batch` is the path. That the entry stands in the log is proved as any entry's is (`EntryProof`).
 *
 * It proves the state that the record had after the act of that entry; that nothing came later, no proof can show.
 */
import { Data, Result } from "effect"
import { type EntryProofOptions, type EntryProofStep, type ProvedEntry, verifyEntryProof } from "./EntryProof.ts"
import { eventHashOf, eventHead, fieldLeaf } from "./EventHash.ts"
import { ExactJsonError, ExactNumber, isExactObject, parse } from "./ExactJson.ts"
import { leafHash } from "./MerkleTree.ts"
import type { NoteVerifier } from "./NoteKey.ts"
import { fromHex, hex } from "./Sha256.ts"
import { rootFromInclusion } from "./TreeProof.ts"

/** Which version of which record. */
export interface ProvedRecordHead {
  /** `acme/geo/atlas/city/v1`. */
  readonly path: string
  readonly storage_id: number
  readonly entity_id: string
  readonly version: number
  readonly op: string
}

/** A field that is shown: its value as the text that Postgres prints of the jsonb value, and its salt in hexadecimal. */
export interface ShownField {
  readonly name: string
  readonly value: string
  readonly salt: string
}

/** A field that is not shown: its leaf in hexadecimal. */
export interface HiddenField {
  readonly leaf: string
}

/** In a tree over the events of one entry: where the event's leaf is, and the way to the root, in hexadecimal. */
export interface BatchPath {
  readonly index: number
  readonly size: number
  readonly path: ReadonlyArray<string>
}

/** See the module. */
export interface RecordProofDocument {
  readonly record: ProvedRecordHead
  /** In the order of the names' code points, those of hidden fields included. */
  readonly fields: ReadonlyArray<ShownField | HiddenField>
  readonly batch?: BatchPath
  readonly entry: unknown
  /** C2SP tlog-proof. */
  readonly proof: string
}

/** What was proved. */
export interface ProvedRecord {
  readonly record: ProvedRecordHead
  /** The texts of the fields that are shown, by name. */
  readonly values: ReadonlyMap<string, string>
  /** How many fields there are besides. */
  readonly hidden: number
  /** The event's hash, hexadecimal. */
  readonly event: string
  readonly entry: ProvedEntry
}

/** The steps of a verification; those of the entry are its own. */
export type RecordProofStep = EntryProofStep | "record" | "commitment"

export class RecordProofFault extends Data.TaggedError("RecordProofFault")<{
  readonly step: RecordProofStep
  /** `refuted`: it is shown to be false. `unknown`: it cannot be read, or nobody who is trusted has signed it. */
  readonly verdict: "refuted" | "unknown"
  readonly message: string
}> {}

/** Records that one entry may be of (fine print 14). */
export const maxBatch = 500
const maxFields = 1_000

const fault = (step: RecordProofStep, verdict: RecordProofFault["verdict"], message: string) =>
  Result.fail(new RecordProofFault({ step, verdict, message }))
const unreadable = (message: string) => fault("record", "unknown", message)

type Members = Readonly<Record<string, unknown>>
const isMembers = (value: unknown): value is Members =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ExactNumber)
const hasOnly = (members: Members, ...names: ReadonlyArray<string>): boolean =>
  Object.keys(members).length === names.length && names.every((name) => Object.hasOwn(members, name))
const whole = (value: unknown, least: number): number | undefined => {
  const number = value instanceof ExactNumber ? value.toNumber() : value
  return typeof number === "number" && Number.isSafeInteger(number) && number >= least ? number : undefined
}
const isHash = (value: unknown): value is string => typeof value === "string" && /^[0-9a-f]{64}$/u.test(value)
const isText = (value: unknown): value is string => typeof value === "string" && value.isWellFormed()
/** As definitions name fields; no name has a byte that could be taken for what is beside it. */
const isFieldName = (value: unknown): value is string => isText(value) && /^[A-Za-z_][A-Za-z0-9_]{0,62}$/u.test(value)
const uuid = /^[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}$/u

const readHead = (value: unknown): ProvedRecordHead | undefined => {
  if (!isMembers(value) || !hasOnly(value, "path", "storage_id", "entity_id", "version", "op")) return undefined
  const storage = whole(value.storage_id, 1)
  const version = whole(value.version, 1)
  const { entity_id: entity, op, path } = value
  if (storage === undefined || version === undefined || !isText(path)) return undefined
  if (typeof entity !== "string" || !uuid.test(entity) || typeof op !== "string" || !/^[a-z]{1,20}$/u.test(op)) {
    return undefined
  }
  return { path, storage_id: storage, entity_id: entity, version, op }
}

const readField = (value: unknown): ShownField | HiddenField | undefined => {
  if (!isMembers(value)) return undefined
  if (hasOnly(value, "leaf")) return isHash(value.leaf) ? { leaf: value.leaf } : undefined
  const { name, salt, value: text } = value
  return hasOnly(value, "name", "value", "salt") && isFieldName(name) && isText(text) && isHash(salt)
    ? { name, value: text, salt }
    : undefined
}

const readBatch = (value: unknown): BatchPath | undefined => {
  if (!isMembers(value) || !hasOnly(value, "index", "size", "path") || !Array.isArray(value.path)) return undefined
  const index = whole(value.index, 0)
  const size = whole(value.size, 1)
  return index !== undefined && size !== undefined && size <= maxBatch && value.path.every(isHash)
    ? { index, size, path: value.path }
    : undefined
}

interface Read {
  readonly record: ProvedRecordHead
  readonly fields: ReadonlyArray<ShownField | HiddenField>
  readonly batch: BatchPath | undefined
  readonly members: Members
}

const readDocument = (value: unknown): Result.Result<Read, RecordProofFault> => {
  if (!isMembers(value)) return fault("document", "unknown", "A proof of a record is an object.")
  const names = ["record", "fields", "entry", "proof", ...(value.batch === undefined ? [] : ["batch"])]
  if (!hasOnly(value, ...names)) {
    return fault("document", "unknown", "The document lacks a member, or has one that nothing would prove.")
  }
  const record = readHead(value.record)
  if (record === undefined) return unreadable("The record is not named in the form in which it is exported.")
  if (!Array.isArray(value.fields) || value.fields.length > maxFields) return unreadable("The document has no fields.")
  const fields: Array<ShownField | HiddenField> = []
  let last = ""
  for (const one of value.fields) {
    const field = readField(one)
    if (field === undefined) return unreadable("A field is not in the form in which it is exported.")
    if ("name" in field) {
      if (field.name <= last) return unreadable("The fields are not in their order, or one is there twice.")
      last = field.name
    }
    fields.push(field)
  }
  const batch = value.batch === undefined ? undefined : readBatch(value.batch)
  if (value.batch !== undefined && batch === undefined) {
    return unreadable("The path within the entry is not in the form in which it is exported.")
  }
  return Result.succeed({ record, fields, batch, members: value })
}

/** Reads a document's text. */
export const parseRecordProof = (text: string): Result.Result<unknown, RecordProofFault> => {
  try {
    return Result.succeed(parse(text))
  } catch (error) {
    if (!(error instanceof ExactJsonError)) throw error
    return fault("document", "unknown", `The document is not JSON that can be read in one way only (${error.reason}).`)
  }
}

/** Whether a document is of a record, and not of an entry alone. */
export const isRecordProof = (document: unknown): boolean => isMembers(document) && Object.hasOwn(document, "record")

const leafOf = (field: ShownField | HiddenField): Uint8Array =>
  "leaf" in field ? fromHex(field.leaf) : fieldLeaf(fromHex(field.salt), field.name, field.value)

const payloadOf = (text: string | null): Members => {
  try {
    const value = text === null ? undefined : parse(text)
    return value !== undefined && isExactObject(value) ? value : {}
  } catch {
    return {}
  }
}

/** Whether an entry commits to this event; what speaks against it, else. */
const contradiction = ({ batch, record }: Read, event: Uint8Array, { entry }: ProvedEntry): string | undefined => {
  if (entry.outcome !== "ok" || entry.action !== record.op) return "The entry is of another act."
  if (entry.schema_path !== record.path || !record.path.startsWith(`${entry.chain}/`)) {
    return "The entry is of another record type."
  }
  const payload = payloadOf(entry.payload)
  if (batch === undefined) {
    if (entry.entity_id !== record.entity_id) return "The entry is of another record."
    if (whole(payload.version, 1) !== record.version) return "The entry is of another version."
    return payload.hash === hex(event) ? undefined : "The entry names another hash than follows from the fields."
  }
  if (entry.entity_id !== null || record.version !== 1 || whole(payload.count, 1) !== batch.size) {
    return "The entry is not of as many records."
  }
  const root = rootFromInclusion(batch.index, batch.size, leafHash(event), batch.path.map(fromHex))
  return root !== undefined && payload.root === hex(root)
    ? undefined
    : "The entry names another root than follows from the fields and the path."
}

/**
 * Verifies a document, as it was parsed from JSON, against the keys that are trusted. Rejects only where the platform has
 * no Ed25519.
 */
export const verifyRecordProof = async (
  document: unknown,
  verifiers: ReadonlyArray<NoteVerifier>,
  options: EntryProofOptions = {}
): Promise<Result.Result<ProvedRecord, RecordProofFault>> => {
  const read = readDocument(document)
  if (Result.isFailure(read)) return Result.fail(read.failure)
  const { fields, members, record } = read.success
  const { entity_id: entity, op, storage_id: storage, version } = record
  const event = eventHashOf(eventHead(storage, entity, version, op), fields.map(leafOf))
  const entry = await verifyEntryProof({ entry: members.entry, proof: members.proof }, verifiers, options)
  if (Result.isFailure(entry)) {
    const { message, step, verdict } = entry.failure
    return fault(step, verdict, message)
  }
  const against = contradiction(read.success, event, entry.success)
  if (against !== undefined) return fault("commitment", "refuted", against)
  const shown = fields.filter((field): field is ShownField => "name" in field)
  return Result.succeed({
    record,
    values: new Map(shown.map(({ name, value }) => [name, value])),
    hidden: fields.length - shown.length,
    event: hex(event),
    entry: entry.success
  })
}
