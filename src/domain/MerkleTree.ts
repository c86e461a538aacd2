/** RFC 6962 tree heads (section 2.1): a leaf is hashed behind 0x00, a node behind 0x01, so that neither is taken for the other. */
import { concatBytes, sha256 } from "./Sha256.ts"

const leafPrefix = Uint8Array.of(0)
const nodePrefix = Uint8Array.of(1)

export const leafHash = (data: Uint8Array): Uint8Array => sha256(concatBytes(leafPrefix, data))
export const nodeHash = (left: Uint8Array, right: Uint8Array): Uint8Array =>
  sha256(concatBytes(nodePrefix, left, right))

/** The head over leaf hashes: pairs, level by level, an odd last one handed up; of none it is SHA-256 of nothing. */
export const rootHash = (leaves: ReadonlyArray<Uint8Array>): Uint8Array => {
  let level = leaves
  if (level.length === 0) return sha256(new Uint8Array(0))
  while (level.length > 1) {
    const above: Array<Uint8Array> = []
    for (let index = 0; index < level.length; index += 2) {
      const left = level[index] as Uint8Array
      const right = level[index + 1]
      above.push(right === undefined ? left : nodeHash(left, right))
    }
    level = above
  }
  return level[0] as Uint8Array
}
