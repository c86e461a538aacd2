/**
 * The tree as it is stored: C2SP tlog-tiles. A tile is up to 256 consecutive hashes; those of level 0 are leaf hashes, and
 * a full tile is summarised by one hash of the level above. So a million entries take 32 MB and an eighth of one per
 * cent, an append touches only the right edge, and every proof is made from a few tiles.
 *
 * Hashes go in as RFC 6962 leaf hashes, never as leaf data: an audit entry's own hash is one already (AuditEntry.ts). A
 * tile may hold more hashes than the tree of the asked size has: the tree may have grown since. All sizes are below 2^53.
 */
import { nodeHash, rootHash } from "./MerkleTree.ts"
import { concatBytes } from "./Sha256.ts"
import { consistencyRanges, inclusionRanges, isTreeSize, nodesOf, type TreeNode, type TreeRange } from "./TreeRange.ts"

export const tileWidth = 256
const tileHeight = 8
export const hashLength = 32

export interface TileId {
  readonly level: number
  readonly index: number
}

export interface Tile extends TileId {
  /** The concatenated hashes, 32 bytes each, 1 to 256 of them. */
  readonly hashes: Uint8Array
}

/** The concatenated hashes of a tile as far as there are any; undefined where there is no such tile. */
export type TileSource = (level: number, index: number) => Uint8Array | undefined

/** A tile that the tree's size says must be there is missing, or too short: the store is damaged or was not asked for it. */
export class MissingTile extends Error {
  override readonly name = "MissingTile"
  readonly level: number
  readonly index: number
  constructor(level: number, index: number, wanted: number, found: number) {
    super(`tile ${index} of level ${level} has ${found} hashes where ${wanted} are needed`)
    this.level = level
    this.index = index
  }
}

/** How many hashes a tree of this size has at a level: floor(treeSize / 256^level). */
export const tileCount = (level: number, treeSize: number): number => Math.floor(treeSize / tileWidth ** level)

/** How many hashes one tile has in a tree of this size: 256 if full, 0 if there is no such tile yet. */
export const tileLength = ({ level, index }: TileId, treeSize: number): number =>
  Math.max(0, Math.min(tileWidth, tileCount(level, treeSize) - index * tileWidth))

/** Where a complete subtree is found: it is one hash of a tile, or the head over 2, 4, … 128 that lie side by side. */
const place = ({ height, index }: TreeNode): TileId & { readonly first: number; readonly width: number } => {
  const level = Math.floor(height / tileHeight)
  const width = 2 ** (height % tileHeight)
  const first = index * width
  const tile = Math.floor(first / tileWidth)
  return { level, index: tile, first: first - tile * tileWidth, width }
}

const tilesFor = (ranges: ReadonlyArray<TreeRange>): ReadonlyArray<TileId> => {
  const tiles = new Map<string, TileId>()
  for (const { level, index } of ranges.flatMap(nodesOf).map(place)) tiles.set(`${level}/${index}`, { level, index })
  return [...tiles.values()].sort((a, b) => a.level - b.level || a.index - b.index)
}

const whole = (size: number): TreeRange => {
  if (!isTreeSize(size)) throw new RangeError(`no tree has ${size} leaves`)
  return { begin: 0, end: size }
}

/** The tiles that `inclusionProof` reads. */
export const tilesForInclusion = (index: number, size: number): ReadonlyArray<TileId> =>
  tilesFor(inclusionRanges(index, size))

/** The tiles that `consistencyProof` reads. */
export const tilesForConsistency = (from: number, to: number): ReadonlyArray<TileId> =>
  tilesFor(consistencyRanges(from, to))

/** The tiles that `rootFromTiles` and `appendToTiles` read: the partial ones of the right edge, one a level at most. */
export const tilesForRoot = (size: number): ReadonlyArray<TileId> => tilesFor([whole(size)])

/** Any of several needs at once, each tile named once. */
export const tilesForAll = (...needs: ReadonlyArray<ReadonlyArray<TileId>>): ReadonlyArray<TileId> => [
  ...new Map(needs.flat().map((tile) => [`${tile.level}/${tile.index}`, tile])).values()
]

const hashesOf = (tile: Uint8Array, first: number, width: number): ReadonlyArray<Uint8Array> =>
  Array.from({ length: width }, (_, n) => tile.subarray((first + n) * hashLength, (first + n + 1) * hashLength))

const nodeFromTiles = (node: TreeNode, tiles: TileSource): Uint8Array => {
  const { level, index, first, width } = place(node)
  const tile = tiles(level, index)
  const found = tile === undefined ? 0 : Math.floor(tile.length / hashLength)
  if (tile === undefined || found < first + width) throw new MissingTile(level, index, first + width, found)
  // a copy: a proof must not keep the tile alive, nor change with it
  return width === 1 ? (hashesOf(tile, first, 1)[0] as Uint8Array).slice() : rootHash(hashesOf(tile, first, width))
}

/** The head over a range that RFC 6962 cuts. Throws `MissingTile`. */
export const rangeFromTiles = (range: TreeRange, tiles: TileSource): Uint8Array =>
  nodesOf(range)
    .map((node) => nodeFromTiles(node, tiles))
    .reduceRight((right, left) => nodeHash(left, right))

/** The tree's head (RFC 6962 MTH). Throws `MissingTile`. */
export const rootFromTiles = (size: number, tiles: TileSource): Uint8Array =>
  size === 0 ? rootHash([]) : rangeFromTiles(whole(size), tiles)

export interface Appended {
  readonly size: number
  readonly root: Uint8Array
  /** What is new or has grown, each with all its hashes, in order of level and index. Nothing else changes. */
  readonly tiles: ReadonlyArray<Tile>
}

/** The tree of `size` leaves with more after it. Reads `tilesForRoot(size)`; throws `MissingTile`. */
export const appendToTiles = (size: number, leafHashes: ReadonlyArray<Uint8Array>, tiles: TileSource): Appended => {
  const grown = size + leafHashes.length
  whole(grown)
  if (leafHashes.some((hash) => hash.length !== hashLength)) throw new RangeError("a leaf hash has 32 bytes")
  const changed: Array<Tile> = []
  let added = leafHashes
  for (let level = 0; added.length > 0; level++) {
    const above: Array<Uint8Array> = []
    const count = tileCount(level, size)
    let index = Math.floor(count / tileWidth)
    const before = count - index * tileWidth
    let kept: Uint8Array | undefined
    if (before > 0) {
      const tile = tiles(level, index)
      const found = tile === undefined ? 0 : Math.floor(tile.length / hashLength)
      if (tile === undefined || found < before) throw new MissingTile(level, index, before, found)
      kept = tile.subarray(0, before * hashLength)
    }
    for (let from = 0; from < added.length; index++) {
      const room = tileWidth - (kept === undefined ? 0 : before)
      const taken = added.slice(from, from + room)
      const hashes = kept === undefined ? concatBytes(...taken) : concatBytes(kept, ...taken)
      if (hashes.length === tileWidth * hashLength) above.push(rootHash(hashesOf(hashes, 0, tileWidth)))
      changed.push({ level, index, hashes })
      from += room
      kept = undefined
    }
    added = above
  }
  const own = new Map(changed.map((tile) => [`${tile.level}/${tile.index}`, tile.hashes]))
  const root = rootFromTiles(grown, (level, index) => own.get(`${level}/${index}`) ?? tiles(level, index))
  return { size: grown, root, tiles: changed }
}

/** The path of a tile as C2SP serves and files it: `tile/0/x001/x234/067`, a partial one with `.p/` and its width. */
export const tilePath = ({ level, index }: TileId, width: number = tileWidth): string => {
  const digits = String(index)
  const groups = digits.padStart(Math.ceil(digits.length / 3) * 3, "0").match(/.{3}/gu) as Array<string>
  const path = groups.map((group, at) => (at === groups.length - 1 ? group : `x${group}`)).join("/")
  return `tile/${level}/${path}${width < tileWidth ? `.p/${width}` : ""}`
}
