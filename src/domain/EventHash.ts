/**
 * The hash of a history event, as `platform.event_hash` makes it: over one salted hash for each field, so that a proof can
 * show some fields and hide the others, and erasure drops contents and salt while every proof stays valid.
 *
 *     leaf  = SHA-256(0x00 || SHA-256(salt || name) || name || 0x00 || value)
 *     event = SHA-256(0x01 || SHA-256(head) || leaf || …)     leaves in the order of the names' code points
 *
 * `value` is the text that Postgres prints for the jsonb value; head is `{storage_id}/{entity_id}/{version}/{op}`.
 */
import { concatBytes, sha256, utf8 } from "./Sha256.ts"

const leafPrefix = Uint8Array.of(0)
const eventPrefix = Uint8Array.of(1)

/** The salt of one field, which can be shown without the event's own. */
export const fieldSalt = (salt: Uint8Array, name: string): Uint8Array => sha256(concatBytes(salt, utf8(name)))

export const fieldLeaf = (ofField: Uint8Array, name: string, value: string): Uint8Array =>
  sha256(concatBytes(leafPrefix, ofField, utf8(name), leafPrefix, utf8(value)))

export const eventHead = (storageId: number, entityId: string, version: number, op: string): string =>
  `${storageId}/${entityId}/${version}/${op}`

/** The hash of an event from the leaves of its fields, in the order of their names. */
export const eventHashOf = (head: string, leaves: ReadonlyArray<Uint8Array>): Uint8Array =>
  sha256(concatBytes(eventPrefix, sha256(utf8(head)), ...leaves))

/** @param values the text of each field's jsonb value, by name */
export const eventHash = (salt: Uint8Array, head: string, values: ReadonlyMap<string, string>): Uint8Array => {
  const names = [...values.keys()].sort((a, b) => (a < b ? -1 : a > b ? 1 : 0))
  const leaves = names.map((name) => fieldLeaf(fieldSalt(salt, name), name, values.get(name) ?? ""))
  return eventHashOf(head, leaves)
}
