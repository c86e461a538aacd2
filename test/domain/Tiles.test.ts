/** The stored tree: C2SP tlog-tiles, against RFC 6962 by recursion. */
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { hex } from "../../src/domain/Sha256.ts"
import {
  appendToTiles,
  MissingTile,
  rootFromTiles,
  type TileId,
  type TileSource,
  tileCount,
  tileLength,
  tilePath,
  tilesForAll,
  tilesForConsistency,
  tilesForInclusion,
  tilesForRoot
} from "../../src/domain/Tiles.ts"
import { consistencyProof, inclusionProof } from "../../src/domain/TreeProof.ts"
import { type Hash, naiveConsistency, naivePath, naiveRoot, numbered } from "./NaiveTree.ts"

const key = ({ level, index }: TileId) => `${level}/${index}`

/** A store of tiles that answers only for what was said to be needed, so that a need left unsaid is found. */
class Store {
  size = 0
  readonly tiles = new Map<string, Uint8Array>()

  only(needed: ReadonlyArray<TileId>): TileSource {
    const allowed = new Set(needed.map(key))
    return (level, index) => {
      if (!allowed.has(key({ level, index }))) throw new Error(`tile ${level}/${index} was not asked for`)
      return this.tiles.get(key({ level, index }))
    }
  }

  append(leaves: ReadonlyArray<Hash>) {
    const appended = appendToTiles(this.size, leaves, this.only(tilesForRoot(this.size)))
    for (const tile of appended.tiles) this.tiles.set(key(tile), tile.hashes)
    this.size = appended.size
    return appended
  }
}

const filled = (...batches: ReadonlyArray<ReadonlyArray<Hash>>): Store => {
  const store = new Store()
  for (const batch of batches) store.append(batch)
  return store
}

const many = numbered(70_000)

describe("tiles", () => {
  it("a tree of 70,000: the widths that the specification's own example gives", () => {
    const store = filled(many)
    const widths = (level: number) =>
      [...store.tiles].filter(([id]) => id.startsWith(`${level}/`)).map(([, hashes]) => hashes.length / 32)
    expect(widths(0)).toEqual([...Array<number>(273).fill(256), 112])
    expect(widths(1)).toEqual([256, 17])
    expect(widths(2)).toEqual([1])
    expect(widths(3)).toEqual([])
    expect([0, 1, 2, 3].map((level) => tileCount(level, 70_000))).toEqual([70_000, 273, 1, 0])
    expect(tileLength({ level: 0, index: 273 }, 70_000)).toBe(112)
    expect(tileLength({ level: 1, index: 2 }, 70_000)).toBe(0)
    expect(hex(rootFromTiles(70_000, store.only(tilesForRoot(70_000))))).toBe(hex(naiveRoot(many)))
  })

  it("a tree of 256: one full tile, and one hash above", () => {
    const store = filled(many.slice(0, 256))
    expect([...store.tiles].map(([id, hashes]) => [id, hashes.length / 32])).toEqual([
      ["0/0", 256],
      ["1/0", 1]
    ])
  })

  it("an append says only what changed, and leaves the rest as it was", () => {
    const store = filled(many.slice(0, 600))
    expect(store.append(many.slice(600, 601)).tiles.map(key)).toEqual(["0/2"])
    expect(store.append([]).tiles).toEqual([])
    expect(store.append(many.slice(601, 1025)).tiles.map(key)).toEqual(["0/2", "0/3", "0/4", "1/0"])
  })

  it("however the leaves come, the tiles and the head are the same", () => {
    const size = fc.integer({ min: 0, max: 1_400 })
    fc.assert(
      fc.property(fc.array(size, { maxLength: 5 }), (cuts) => {
        const sorted = [0, ...cuts.sort((a, b) => a - b), 1_400]
        const store = new Store()
        for (const [at, to] of sorted.entries()) {
          const { size, root } = store.append(many.slice(sorted[at - 1] ?? 0, to))
          expect(size).toBe(to)
          expect(hex(root)).toBe(hex(naiveRoot(many.slice(0, to))))
        }
        expect(store.tiles).toEqual(filled(many.slice(0, 1_400)).tiles)
      }),
      { numRuns: 30 }
    )
  })

  it("proofs for any earlier size come from the tiles of a later one, and from those that were named alone", () => {
    const store = filled(many.slice(0, 1_100))
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 1_100 }), fc.nat(), fc.nat(), (size, leaf, from) => {
        const leaves = many.slice(0, size)
        const index = leaf % size
        expect(inclusionProof(index, size, store.only(tilesForInclusion(index, size)))).toEqual(
          naivePath(index, leaves)
        )
        const smaller = 1 + (from % size)
        expect(consistencyProof(smaller, size, store.only(tilesForConsistency(smaller, size)))).toEqual(
          naiveConsistency(smaller, leaves)
        )
        expect(hex(rootFromTiles(size, store.only(tilesForRoot(size))))).toBe(hex(naiveRoot(leaves)))
      }),
      { numRuns: 100 }
    )
  })

  it("a proof needs few tiles, whatever the size", () => {
    expect(tilesForInclusion(123_456, 1_000_000).map(key)).toEqual(["0/482", "0/3906", "1/1", "1/15", "2/0"])
    expect(tilesForInclusion(2 ** 52, 2 ** 53 - 1).length).toBeLessThan(16)
    expect(tilesForInclusion(0, 1)).toEqual([])
    expect(tilesForConsistency(0, 9)).toEqual([])
    expect(tilesForRoot(0)).toEqual([])
    expect(tilesForAll([{ level: 0, index: 1 }], [{ level: 0, index: 1 }])).toEqual([{ level: 0, index: 1 }])
  })

  it("a tile that is missing, or shorter than the tree, is named, and nothing is made from it", () => {
    const store = filled(many.slice(0, 600))
    const tile = store.tiles.get("0/2") as Uint8Array
    store.tiles.set("0/2", tile.subarray(0, tile.length - 1))
    const all: TileSource = (level, index) => store.tiles.get(key({ level, index }))
    for (const attempt of [
      () => rootFromTiles(600, all),
      () => inclusionProof(3, 600, all),
      () => consistencyProof(512, 600, all),
      () => appendToTiles(600, numbered(1), all)
    ]) {
      expect(attempt).toThrow(MissingTile)
    }
    expect(() => rootFromTiles(600, () => undefined)).toThrow("tile 0 of level 1 has 0 hashes where 2 are needed")
    // the same store still proves what lies to the left of the damage
    expect(inclusionProof(3, 512, all)).toEqual(naivePath(3, many.slice(0, 512)))
  })

  it("a size that is none is refused", () => {
    for (const size of [-1, 1.5, 2 ** 53, Number.NaN]) expect(() => tilesForRoot(size)).toThrow(RangeError)
    expect(() => tilesForInclusion(5, 5)).toThrow(RangeError)
    expect(() => tilesForConsistency(6, 5)).toThrow(RangeError)
    expect(() => appendToTiles(0, [new Uint8Array(31)], () => undefined)).toThrow(RangeError)
  })

  it("a proof keeps its hashes when the tile is written over", () => {
    const store = filled(many.slice(0, 10))
    const tile = store.tiles.get("0/0") as Uint8Array
    const proof = inclusionProof(0, 10, () => tile)
    tile.fill(0)
    expect(proof).toEqual(naivePath(0, many.slice(0, 10)))
  })

  it.each([
    [{ level: 0, index: 0 }, 256, "tile/0/000"],
    [{ level: 1, index: 1_234_067 }, 256, "tile/1/x001/x234/067"],
    [{ level: 0, index: 273 }, 112, "tile/0/273.p/112"],
    [{ level: 2, index: 1_000 }, 1, "tile/2/x001/000.p/1"]
  ] as const)("%j of %i is filed as %s", (tile, width, path) => expect(tilePath(tile, width)).toBe(path))
})
