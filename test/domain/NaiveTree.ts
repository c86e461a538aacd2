/**
 * RFC 6962, section 2.1, to the letter, by recursion over all the leaves: what the tiles and the proofs are compared with.
 * Hashes by node:crypto, so that nothing of what is tested stands on both sides.
 */
import { createHash } from "node:crypto"

export type Hash = Uint8Array

export const sha = (...parts: ReadonlyArray<Uint8Array>): Hash =>
  new Uint8Array(createHash("sha256").update(Buffer.concat(parts)).digest())

export const hashOfLeaf = (data: Uint8Array): Hash => sha(Uint8Array.of(0), data)
export const hashOfNode = (left: Hash, right: Hash): Hash => sha(Uint8Array.of(1), left, right)

/** The largest power of two below n. */
const split = (n: number): number => 2 ** Math.ceil(Math.log2(n) - 1)

export const naiveRoot = (leaves: ReadonlyArray<Hash>): Hash => {
  if (leaves.length === 0) return sha()
  if (leaves.length === 1) return leaves[0] as Hash
  const k = split(leaves.length)
  return hashOfNode(naiveRoot(leaves.slice(0, k)), naiveRoot(leaves.slice(k)))
}

/** PATH(m, D[n]). */
export const naivePath = (m: number, leaves: ReadonlyArray<Hash>): ReadonlyArray<Hash> => {
  if (leaves.length === 1) return []
  const k = split(leaves.length)
  return m < k
    ? [...naivePath(m, leaves.slice(0, k)), naiveRoot(leaves.slice(k))]
    : [...naivePath(m - k, leaves.slice(k)), naiveRoot(leaves.slice(0, k))]
}

const subproof = (m: number, leaves: ReadonlyArray<Hash>, known: boolean): ReadonlyArray<Hash> => {
  if (m === leaves.length) return known ? [] : [naiveRoot(leaves)]
  const k = split(leaves.length)
  return m <= k
    ? [...subproof(m, leaves.slice(0, k), known), naiveRoot(leaves.slice(k))]
    : [...subproof(m - k, leaves.slice(k), false), naiveRoot(leaves.slice(0, k))]
}

/** PROOF(m, D[n]), for 0 < m <= n. */
export const naiveConsistency = (m: number, leaves: ReadonlyArray<Hash>): ReadonlyArray<Hash> =>
  subproof(m, leaves, true)

/** The sides that the hashes of a path stand on, the leaf's first: what a path is checked by, beside its hashes. */
export const naiveSides = (m: number, n: number): string => {
  if (n === 1) return ""
  const k = split(n)
  return m < k ? `${naiveSides(m, k)}R` : `${naiveSides(m - k, n - k)}L`
}

/** The same of a consistency proof, behind `=` where it begins with the smaller tree's own head. */
export const naiveConsistencySides = (m: number, n: number, known = true): string => {
  if (m === n) return known ? "=" : ""
  const k = split(n)
  return m <= k ? `${naiveConsistencySides(m, k, known)}R` : `${naiveConsistencySides(m - k, n - k, false)}L`
}

/** The leaves of certificate-transparency's own tests. */
export const classicalData = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
  .concat("606162636465666768696a6b6c6d6e6f")
  .map((text) => new Uint8Array(Buffer.from(text, "hex")))
export const classicalLeaves = classicalData.map(hashOfLeaf)

/** Leaf hashes that tell a place by their value. */
export const numbered = (count: number, from = 0): ReadonlyArray<Hash> =>
  Array.from({ length: count }, (_, n) => hashOfLeaf(Buffer.from(String(from + n))))
