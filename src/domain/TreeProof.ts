/**
 * The two proofs about a log's tree (RFC 6962, section 2.1; verified as RFC 9162, sections 2.1.3.2 and 2.1.4.2, does):
 * that a leaf is in it, and that a later tree only grew. Made from tiles, checked from hashes alone.
 *
 * `rootFrom…` computes, `verify…` compares. What an outsider hands in is never an exception here: a path too long or too
 * short, or a size that cannot be, proves nothing.
 */
import { nodeHash, rootHash } from "./MerkleTree.ts"
import { hashLength, rangeFromTiles, type TileSource } from "./Tiles.ts"
import { consistencyRanges, inclusionRanges, isLeafIndex, isTreeSize } from "./TreeRange.ts"

const half = (n: number): number => Math.floor(n / 2)
const isOdd = (n: number): boolean => n % 2 === 1
const isHash = (hash: Uint8Array): boolean => hash.length === hashLength

export const sameHash = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, index) => byte === b[index])

/** The hashes that lead from a leaf to the head, its sibling first. Throws `MissingTile`, and RangeError beyond the tree. */
export const inclusionProof = (index: number, size: number, tiles: TileSource): ReadonlyArray<Uint8Array> =>
  inclusionRanges(index, size).map((range) => rangeFromTiles(range, tiles))

/** The hashes that join two heads of one log. Throws `MissingTile`, and RangeError where `from` is past `to`. */
export const consistencyProof = (from: number, to: number, tiles: TileSource): ReadonlyArray<Uint8Array> =>
  consistencyRanges(from, to).map((range) => rangeFromTiles(range, tiles))

/** The head that a leaf and its path lead to; undefined if the path is not one for this leaf of this tree. */
export const rootFromInclusion = (
  index: number,
  size: number,
  leafHash: Uint8Array,
  path: ReadonlyArray<Uint8Array>
): Uint8Array | undefined => {
  if (!isLeafIndex(index, size) || !isHash(leafHash) || !path.every(isHash)) return undefined
  let at = index
  let last = size - 1
  let root = leafHash
  for (const sibling of path) {
    if (last === 0) return undefined
    if (isOdd(at) || at === last) {
      root = nodeHash(sibling, root)
      // the right edge: levels at which this node had no sibling and was handed up
      while (!isOdd(at) && at !== 0) {
        at = half(at)
        last = half(last)
      }
    } else {
      root = nodeHash(root, sibling)
    }
    at = half(at)
    last = half(last)
  }
  return last === 0 ? root : undefined
}

/** Whether the leaf is at this place of the tree that has this head. */
export const verifyInclusion = (
  index: number,
  size: number,
  leafHash: Uint8Array,
  path: ReadonlyArray<Uint8Array>,
  root: Uint8Array
): boolean => {
  const computed = rootFromInclusion(index, size, leafHash, path)
  return computed !== undefined && sameHash(computed, root)
}

/** Whether the tree of `to` leaves has that of `from` leaves as its beginning. */
export const verifyConsistency = (
  from: number,
  fromRoot: Uint8Array,
  to: number,
  toRoot: Uint8Array,
  path: ReadonlyArray<Uint8Array>
): boolean => {
  if (!isTreeSize(from) || !isTreeSize(to) || from > to) return false
  if (![fromRoot, toRoot, ...path].every(isHash)) return false
  if (from === 0 && !sameHash(fromRoot, rootHash([]))) return false
  if (from === to) return path.length === 0 && sameHash(fromRoot, toRoot)
  // every log has grown from nothing
  if (from === 0) return path.length === 0

  let at = from - 1
  let last = to - 1
  while (isOdd(at)) {
    at = half(at)
    last = half(last)
  }
  // a smaller tree that is complete is its own first hash
  const [first, ...rest] = at === 0 ? [fromRoot, ...path] : path
  if (first === undefined) return false
  let old = first
  let grown = first
  for (const hash of rest) {
    if (last === 0) return false
    if (isOdd(at) || at === last) {
      old = nodeHash(hash, old)
      grown = nodeHash(hash, grown)
      while (!isOdd(at) && at !== 0) {
        at = half(at)
        last = half(last)
      }
    } else {
      grown = nodeHash(grown, hash)
    }
    at = half(at)
    last = half(last)
  }
  return last === 0 && sameHash(old, fromRoot) && sameHash(grown, toRoot)
}
