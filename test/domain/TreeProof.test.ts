/** Inclusion and consistency: the classical vectors, the definition at random sizes, and every way to break a proof. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { hex } from "../../src/domain/Sha256.ts"
import { appendToTiles, type TileSource } from "../../src/domain/Tiles.ts"
import {
  consistencyProof,
  inclusionProof,
  rootFromInclusion,
  verifyConsistency,
  verifyInclusion
} from "../../src/domain/TreeProof.ts"
import {
  brokenConsistencies,
  brokenInclusions,
  type Consistency,
  files,
  type Inclusion,
  proofsFolder,
  soundConsistency,
  soundInclusion
} from "./BrokenProofs.ts"
import { classicalLeaves, naiveRoot, numbered, sha } from "./NaiveTree.ts"

const tilesOf = (leaves: ReadonlyArray<Uint8Array>): TileSource => {
  const { tiles } = appendToTiles(0, leaves, () => undefined)
  const all = new Map(tiles.map(({ level, index, hashes }) => [`${level}/${index}`, hashes]))
  return (level, index) => all.get(`${level}/${index}`)
}
const included = ({ index, size, leaf, path, root }: Inclusion) => verifyInclusion(index, size, leaf, path, root)
const consistent = ({ from, fromRoot, to, toRoot, path }: Consistency) =>
  verifyConsistency(from, fromRoot, to, toRoot, path)

const classical = tilesOf(classicalLeaves)
const leaves = (size: number) => classicalLeaves.slice(0, size)
const upTo = (n: number) => Array.from({ length: n }, (_, at) => at + 1)
const places = upTo(8).flatMap((size) => upTo(size).map((at) => [at - 1, size] as const))
const pairs = upTo(8).flatMap((to) => upTo(to).map((from) => [from, to] as const))

/** transparency-dev/merkle, proof/verify_test.go. */
const inclusions: ReadonlyArray<readonly [number, number, ReadonlyArray<string>]> = [
  [0, 1, []],
  [
    0,
    8,
    [
      "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
    ]
  ],
  [
    5,
    8,
    [
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
    ]
  ],
  [2, 3, ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"]],
  [
    1,
    5,
    [
      "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
    ]
  ]
]
const consistencies: ReadonlyArray<readonly [number, number, ReadonlyArray<string>]> = [
  [1, 1, []],
  [
    1,
    8,
    [
      "96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7",
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"
    ]
  ],
  [
    6,
    8,
    [
      "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
    ]
  ],
  [
    2,
    5,
    [
      "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e",
      "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"
    ]
  ],
  [
    6,
    7,
    [
      "0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a",
      "b08693ec2e721597130641e8211e7eedccb4c26413963eee6c1e2ed16ffb1a5f",
      "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"
    ]
  ]
]

describe("inclusion", () => {
  it.each(inclusions)("leaf %i of %i, as certificate-transparency has it", (index, size, path) => {
    expect(inclusionProof(index, size, classical).map(hex)).toEqual(path)
    expect(included(soundInclusion(index, leaves(size)))).toBe(true)
  })

  it.each(places)("leaf %i of %i is proved, and by nothing else", (index, size) => {
    const sound = soundInclusion(index, leaves(size))
    expect(inclusionProof(index, size, classical)).toEqual(sound.path)
    expect(included(sound)).toBe(true)
    const broken = [...brokenInclusions(sound)]
    expect(broken.length).toBeGreaterThan(15)
    expect(broken.filter(included).map((one) => one.change)).toEqual([])
  })

  it("at random sizes: each leaf by its own path, and by no other leaf's", () => {
    const all = numbered(700)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700 }), fc.nat(), fc.nat(), (size, a, b) => {
        const [index, wrong] = [a % size, b % size]
        const sound = soundInclusion(index, all.slice(0, size))
        expect(included(sound)).toBe(true)
        expect([...brokenInclusions(sound)].filter(included).map((one) => one.change)).toEqual([])
        if (wrong !== index) expect(included({ ...sound, index: wrong, leaf: all[wrong] as Uint8Array })).toBe(false)
      }),
      { numRuns: 40 }
    )
  })

  it("a path says nothing of the size where the sides are the same: that is the checkpoint's word", () => {
    const { index, leaf, path, root } = soundInclusion(0, leaves(3))
    expect(verifyInclusion(index, 4, leaf, path, root)).toBe(true)
    expect(naiveRoot(leaves(4))).not.toEqual(root)
  })

  it("of the empty tree there is none", () => {
    expect(rootFromInclusion(0, 0, sha(), [])).toBeUndefined()
    expect(verifyInclusion(0, 0, sha(), [], sha())).toBe(false)
  })

  it("sizes beyond 32 bits keep their bits", () => {
    const size = 2 ** 33 + 1
    const last = sha(Buffer.from("last"))
    const left = sha(Buffer.from("left"))
    const root = sha(Uint8Array.of(1), left, last)
    expect(verifyInclusion(size - 1, size, last, [left], root)).toBe(true)
    expect(verifyInclusion(0, size, last, [left], root)).toBe(false)
    expect(verifyConsistency(size - 1, left, size, root, [last])).toBe(true)
    expect(verifyConsistency(2 ** 31, left, size, root, [last])).toBe(false)
  })
})

describe("consistency", () => {
  it.each(consistencies)("%i to %i, as certificate-transparency has it", (from, to, path) => {
    expect(consistencyProof(from, to, classical).map(hex)).toEqual(path)
    expect(consistent(soundConsistency(from, leaves(to)))).toBe(true)
  })

  it.each(pairs)("%i to %i is proved, and by nothing else", (from, to) => {
    const sound = soundConsistency(from, leaves(to))
    expect(consistencyProof(from, to, classical)).toEqual(sound.path)
    expect(consistent(sound)).toBe(true)
    expect([...brokenConsistencies(sound)].filter(consistent).map((one) => one.change)).toEqual([])
  })

  it("at random sizes: a log that grew, and none that was rewritten below", () => {
    const all = numbered(700)
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 700 }), fc.nat(), fc.nat(), (to, a, b) => {
        const from = 1 + (a % to)
        const sound = soundConsistency(from, all.slice(0, to))
        expect(consistent(sound)).toBe(true)
        expect([...brokenConsistencies(sound)].filter(consistent).map((one) => one.change)).toEqual([])
        // the owner of the log rewrote one old entry, and proves as well as he can
        const rewritten = all.slice(0, to).with(b % from, sha(Buffer.from("rewritten")))
        expect(consistent({ ...soundConsistency(from, rewritten), fromRoot: sound.fromRoot })).toBe(false)
        expect(consistent({ ...sound, toRoot: naiveRoot(rewritten) })).toBe(false)
      }),
      { numRuns: 40 }
    )
  })

  it("from nothing only the empty tree grows, and never backwards", () => {
    const root = naiveRoot(classicalLeaves)
    expect(consistencyProof(0, 8, classical)).toEqual([])
    expect(verifyConsistency(0, sha(), 8, root, [])).toBe(true)
    expect(verifyConsistency(0, sha(), 0, sha(), [])).toBe(true)
    expect(verifyConsistency(0, root, 8, root, [])).toBe(false)
    expect(verifyConsistency(0, root, 0, root, [])).toBe(false)
    expect(verifyConsistency(0, sha(), 8, root, [root])).toBe(false)
    expect(verifyConsistency(8, root, 0, sha(), [])).toBe(false)
    expect(verifyConsistency(8, root, 7, naiveRoot(leaves(7)), [])).toBe(false)
  })
})

describe("the files of test/domain/proofs", () => {
  const names = readdirSync(proofsFolder).sort()
  const fromBase64 = (text: string) => new Uint8Array(Buffer.from(text, "base64"))
  /** Numbers and hashes as `written` of BrokenProofs.ts wrote them. */
  const read = (name: string, value: unknown): unknown => {
    if (Array.isArray(value)) return value.map((one) => fromBase64(one as string))
    if (name === "change" || typeof value !== "string") return value
    return value === "NaN" ? Number.NaN : fromBase64(value)
  }
  const members = (object: object) =>
    Object.fromEntries(Object.entries(object).map(([name, value]) => [name, read(name, value)]))

  it("are those that BrokenProofs.ts writes", () => {
    expect(names).toEqual(files.map((file) => file.name).sort())
    for (const { name, text } of files) {
      expect(JSON.parse(readFileSync(join(proofsFolder, name), "utf8"))).toEqual(JSON.parse(text))
    }
  })

  it.each(names)("%s: the sound one is proved, each broken one refused", (name) => {
    const { broken, sound } = JSON.parse(readFileSync(join(proofsFolder, name), "utf8")) as {
      readonly sound: object
      readonly broken: ReadonlyArray<object>
    }
    const judge = (given: object) =>
      name.startsWith("inclusion") ? included(given as Inclusion) : consistent(given as Consistency)
    expect(judge(members(sound))).toBe(true)
    expect(broken.length).toBeGreaterThan(15)
    expect(broken.filter((one) => judge({ ...members(sound), ...members(one) }))).toEqual([])
  })
})
