/**
 * An entry of the audit log and the bytes that its hash is over: PostgreSQL's `record_send` of its columns, so that an
 * exported entry is verified without a database.
 *
 * The format (PostgreSQL 16 to 18, src/backend/utils/adt/rowtypes.c): a 4-byte count of columns; for each the type's OID, a
 * 4-byte length (-1 for NULL) and the value in its type's binary form. All numbers are big-endian.
 */
import { concatBytes, sha256, utf8 } from "./Sha256.ts"

/** An entry as it is exported: JSON columns as the text Postgres prints, times as text with microseconds in UTC. */
export interface AuditEntry {
  readonly chain: string
  readonly lane: number
  /** int8, in digits. */
  readonly seq: string
  /** `2026-11-24T00:16:00.123456Z`, or with +00 or +00:00. */
  readonly occurred_at: string
  readonly id: string
  readonly actor: string
  readonly action: string
  readonly outcome: string
  readonly schema_path: string | null
  readonly entity_id: string | null
  readonly payload: string | null
  readonly request_id: string | null
  readonly reason: string | null
  readonly ticket_ref: string | null
  readonly fail_modes: string | null
  readonly db_login: string
  readonly db_role: string
  /** Hexadecimal. */
  readonly prev_hash: string
}

const oid = { int2: 21, int8: 20, text: 25, bytea: 17, uuid: 2950, timestamptz: 1184, jsonb: 3802 } as const

const int = (size: 2 | 4 | 8, value: bigint): Uint8Array => {
  const bytes = new Uint8Array(size)
  let rest = BigInt.asUintN(size * 8, value)
  for (let index = size - 1; index >= 0; index--) {
    bytes[index] = Number(rest & 0xffn)
    rest >>= 8n
  }
  return bytes
}

const fromHex = (text: string): Uint8Array =>
  Uint8Array.from({ length: text.length / 2 }, (_, index) => Number.parseInt(text.slice(index * 2, index * 2 + 2), 16))

const time = /^(\d{4,})-(\d\d)-(\d\d)[T ](\d\d):(\d\d):(\d\d)(?:\.(\d{1,6}))?(?:Z|\+00(?::?00)?)$/u

/** Microseconds since 2000-01-01 UTC, PostgreSQL's epoch. Throws on a text that is not a UTC time. */
const microseconds = (text: string): bigint => {
  const match = time.exec(text)
  if (match === null) throw new RangeError(`not a time in UTC: ${text}`)
  const [, year, month, day, hour, minute, second, fraction = ""] = match
  const millis = Date.UTC(Number(year), Number(month) - 1, Number(day), Number(hour), Number(minute), Number(second))
  return BigInt(millis - Date.UTC(2000, 0, 1)) * 1000n + BigInt(fraction.padEnd(6, "0"))
}

const column = (type: keyof typeof oid, value: Uint8Array | null): Uint8Array =>
  value === null
    ? concatBytes(int(4, BigInt(oid[type])), int(4, -1n))
    : concatBytes(int(4, BigInt(oid[type])), int(4, BigInt(value.length)), value)

const text = (value: string | null) => column("text", value === null ? null : utf8(value))
const uuid = (value: string | null) => column("uuid", value === null ? null : fromHex(value.replaceAll("-", "")))
/** jsonb's binary form is its version, 1, and its text. */
const jsonb = (value: string | null) =>
  column("jsonb", value === null ? null : concatBytes(Uint8Array.of(1), utf8(value)))
const bytea = (value: string) => column("bytea", fromHex(value))

/** `record_send` of the row that an entry's hash is over. */
export const entryBytes = (entry: AuditEntry): Uint8Array =>
  concatBytes(
    int(4, 18n),
    text(entry.chain),
    column("int2", int(2, BigInt(entry.lane))),
    column("int8", int(8, BigInt(entry.seq))),
    column("timestamptz", int(8, microseconds(entry.occurred_at))),
    uuid(entry.id),
    text(entry.actor),
    text(entry.action),
    text(entry.outcome),
    text(entry.schema_path),
    uuid(entry.entity_id),
    jsonb(entry.payload),
    text(entry.request_id),
    text(entry.reason),
    text(entry.ticket_ref),
    jsonb(entry.fail_modes),
    text(entry.db_login),
    text(entry.db_role),
    bytea(entry.prev_hash)
  )

/** SHA-256(0x00 || record_send(row)): also the entry's leaf in the RFC 6962 tree. */
export const entryHash = (entry: AuditEntry): Uint8Array => sha256(concatBytes(Uint8Array.of(0), entryBytes(entry)))

/** `prev_hash` of a lane's first entry. */
export const genesis = (chain: string, lane: number): Uint8Array => sha256(utf8(`velocity/audit/v1/${chain}/${lane}`))
