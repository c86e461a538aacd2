/**
 * Proofs broken in every way that one could be, as transparency-dev/merkle breaks them: one change each, all else as it
 * was. `node test/domain/BrokenProofs.ts` writes those of the classical tree to test/domain/proofs/, a file a proof.
 */
import { mkdirSync, writeFileSync } from "node:fs"
import { join } from "node:path"
import {
  classicalLeaves,
  type Hash,
  naiveConsistency,
  naiveConsistencySides,
  naivePath,
  naiveRoot,
  naiveSides,
  sha
} from "./NaiveTree.ts"

export interface Inclusion {
  readonly index: number
  readonly size: number
  readonly leaf: Hash
  readonly path: ReadonlyArray<Hash>
  readonly root: Hash
}

export interface Consistency {
  readonly from: number
  readonly fromRoot: Hash
  readonly to: number
  readonly toRoot: Hash
  readonly path: ReadonlyArray<Hash>
}

export type Broken<A> = A & { readonly change: string }

export const soundInclusion = (index: number, leaves: ReadonlyArray<Hash>): Inclusion => ({
  index,
  size: leaves.length,
  leaf: leaves[index] as Hash,
  path: naivePath(index, leaves),
  root: naiveRoot(leaves)
})

export const soundConsistency = (from: number, leaves: ReadonlyArray<Hash>): Consistency => ({
  from,
  fromRoot: naiveRoot(leaves.slice(0, from)),
  to: leaves.length,
  toRoot: naiveRoot(leaves),
  path: naiveConsistency(from, leaves)
})

const other = sha(Buffer.from("something else"))
const empty = sha()

/** The hash with one bit turned over. */
const turned = (hash: Hash, bit: number): Hash =>
  hash.map((byte, at) => (at === bit >> 3 ? byte ^ (1 << (bit & 7)) : byte))

function* brokenPaths(path: ReadonlyArray<Hash>, heads: ReadonlyArray<Hash>) {
  const extras: ReadonlyArray<readonly [string, Hash]> = [
    ["a strange hash", other],
    ["nothing", new Uint8Array(0)],
    ...heads.map((head, at) => [`head ${at}`, head] as const),
    ...path.slice(0, 1).map((hash) => ["its first hash", hash] as const)
  ]
  for (const [what, extra] of extras) {
    yield [`${what} added behind`, [...path, extra]] as const
    yield [`${what} added before`, [extra, ...path]] as const
  }
  for (const [at, hash] of path.entries()) {
    for (const bit of [0, 4, 131, 255])
      yield [`bit ${bit} of hash ${at} altered`, path.with(at, turned(hash, bit))] as const
    yield [`hash ${at} dropped`, path.toSpliced(at, 1)] as const
    yield [`hash ${at} doubled`, path.toSpliced(at, 0, hash)] as const
    yield [`hash ${at} cut short`, path.with(at, hash.slice(0, 31))] as const
    const next = path[at + 1]
    if (next !== undefined) yield [`hash ${at} swapped with the next`, path.with(at, next).with(at + 1, hash)] as const
  }
  if (path.length > 1) yield ["all of it dropped", []] as const
  if (path.length > 2) yield ["turned round", path.toReversed()] as const
}

/** Indexes and sizes that are near, or are none at all. */
const near = (n: number): ReadonlyArray<number> =>
  [...new Set([n - 1, n + 1, n ^ 2, n * 2, Math.floor(n / 2), n + 2 ** 32, -n, n + 0.5, Number.NaN, 2 ** 53])].filter(
    (one) => !Object.is(one, n)
  )

/**
 * Not among them is a size whose tree has the leaf's path on the same sides: the path is then one of that tree as well. A
 * path does not say how large the tree is; the checkpoint does, which is why size and root are signed together.
 */
export function* brokenInclusions(sound: Inclusion): Generator<Broken<Inclusion>> {
  for (const index of near(sound.index)) yield { ...sound, index, change: `index ${index}` }
  for (const size of near(sound.size)) {
    const isTree = Number.isSafeInteger(size) && size > sound.index
    if (isTree && naiveSides(sound.index, size) === naiveSides(sound.index, sound.size)) continue
    yield { ...sound, size, change: `size ${size}` }
  }
  // the last leaf of a half has its place in that half, and the whole tree's path is too long for it
  for (let less = 1; less <= sound.index; less *= 2) {
    const [index, size] = [sound.index - less, sound.size - less]
    if (naiveSides(index, size) === naiveSides(sound.index, sound.size)) continue
    yield { ...sound, index, size, change: `index and size less by ${less}` }
  }
  for (const [at, hash] of sound.path.slice(0, 1).entries()) {
    const [left, right] = naiveSides(sound.index, sound.size).startsWith("R") ? [sound.leaf, hash] : [hash, sound.leaf]
    const [shorter, longer] = [left.slice(0, 31), new Uint8Array([left[31] as number, ...right])]
    const [leaf, sibling] = left === hash ? [longer, shorter] : [shorter, longer]
    yield {
      ...sound,
      leaf,
      path: sound.path.with(at, sibling),
      change: "a byte moved between the leaf and its sibling"
    }
  }
  for (const [change, leaf] of [
    ["another leaf", other],
    ["no leaf", new Uint8Array(0)],
    ["a leaf with a bit altered", turned(sound.leaf, 7)]
  ] as const) {
    yield { ...sound, leaf, change }
  }
  for (const [change, root] of [
    ["another root", other],
    ["the empty tree's root", empty],
    ["no root", new Uint8Array(0)],
    ["a root with a bit altered", turned(sound.root, 250)]
  ] as const) {
    yield { ...sound, root, change }
  }
  for (const [change, path] of brokenPaths(sound.path, [sound.root])) yield { ...sound, path, change }
}

/** The same of growth; from nothing, and to itself, a proof is empty and shows nothing. */
export function* brokenConsistencies(sound: Consistency): Generator<Broken<Consistency>> {
  const sides = naiveConsistencySides(sound.from, sound.to)
  const isSame = (from: number, to: number) =>
    [from, to].every(Number.isSafeInteger) && 0 < from && from <= to && naiveConsistencySides(from, to) === sides
  for (const from of near(sound.from)) {
    if (!isSame(from, sound.to)) yield { ...sound, from, change: `from ${from}` }
  }
  for (const to of near(sound.to)) {
    if (!isSame(sound.from, to)) yield { ...sound, to, change: `to ${to}` }
  }
  for (const [change, hash] of [
    ["another", other],
    ["the empty tree's", empty],
    ["no", new Uint8Array(0)]
  ] as const) {
    yield { ...sound, fromRoot: hash, change: `${change} root of the smaller tree` }
    yield { ...sound, toRoot: hash, change: `${change} root of the larger tree` }
  }
  const [sibling] = sound.path
  if (sibling !== undefined && sides.startsWith("=R")) {
    const longer = new Uint8Array([sound.fromRoot[31] as number, ...sibling])
    const change = "a byte moved from the smaller tree's root to the hash beside it"
    yield { ...sound, fromRoot: sound.fromRoot.slice(0, 31), path: sound.path.with(0, longer), change }
  }
  yield { ...sound, fromRoot: turned(sound.fromRoot, 9), change: "a bit of the smaller tree's root altered" }
  yield { ...sound, toRoot: turned(sound.toRoot, 9), change: "a bit of the larger tree's root altered" }
  if (sound.from < sound.to) {
    yield { ...sound, fromRoot: sound.toRoot, toRoot: sound.fromRoot, change: "roots exchanged" }
    yield { ...sound, from: sound.to, to: sound.from, change: "sizes exchanged" }
  }
  for (const [change, path] of brokenPaths(sound.path, [sound.fromRoot, sound.toRoot])) {
    yield { ...sound, path, change }
  }
}

/** Hashes as base64, numbers that JSON has no word for as text. */
const written = (value: unknown): unknown => {
  if (value instanceof Uint8Array) return Buffer.from(value).toString("base64")
  if (Array.isArray(value)) return value.map(written)
  if (typeof value === "number" && !Number.isFinite(value)) return String(value)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, written(member)]))
}

/** What differs from the sound proof, by name. */
const difference = <A extends object>(sound: A, broken: Broken<A>) =>
  Object.fromEntries(
    Object.entries(broken).filter(([name, value]) => (sound as Record<string, unknown>)[name] !== value)
  )

const file = <A extends object>(name: string, sound: A, broken: Iterable<Broken<A>>) => ({
  name,
  text: `${JSON.stringify(written({ sound, broken: Array.from(broken, (one) => difference(sound, one)) }), null, 1)}\n`
})

const leaves = (size: number) => classicalLeaves.slice(0, size)

/** Those of transparency-dev/merkle, by leaf and size, and by the two sizes. */
export const files = [
  ...[
    [0, 1],
    [0, 8],
    [5, 8],
    [2, 3],
    [1, 5]
  ].map(([index = 0, size = 0]) => {
    const sound = soundInclusion(index, leaves(size))
    return file(`inclusion-${index}-of-${size}.json`, sound, brokenInclusions(sound))
  }),
  ...[
    [1, 1],
    [1, 8],
    [6, 8],
    [2, 5],
    [6, 7]
  ].map(([from = 0, to = 0]) => {
    const sound = soundConsistency(from, leaves(to))
    return file(`consistency-${from}-to-${to}.json`, sound, brokenConsistencies(sound))
  })
]

export const proofsFolder = join(import.meta.dirname, "proofs")

if (import.meta.main) {
  mkdirSync(proofsFolder, { recursive: true })
  for (const { name, text } of files) writeFileSync(join(proofsFolder, name), text)
}
