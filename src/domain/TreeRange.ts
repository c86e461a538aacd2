/**
 * How RFC 6962 (section 2.1) cuts a tree of n leaves: at the largest power of two below n, again and again. A proof is a
 * list of ranges of leaves, each stood for by the head over it, and a range is a few complete subtrees, which are what a
 * store keeps. Pure arithmetic, no hashes. Numbers to 2^53, so by division: bit operators would cut at 32.
 */

/** The leaves from `begin` up to `end`, cut off the whole tree by RFC 6962. */
export interface TreeRange {
  readonly begin: number
  readonly end: number
}

/** The complete subtree over the leaves from index * 2^height on, 2^height of them. */
export interface TreeNode {
  readonly height: number
  readonly index: number
}

export const isTreeSize = (size: number): boolean => Number.isSafeInteger(size) && size >= 0
export const isLeafIndex = (index: number, size: number): boolean =>
  isTreeSize(index) && isTreeSize(size) && index < size

/** The largest power of two below `n`, for n of 2 or more. */
const split = (n: number): number => {
  let k = 1
  while (k * 2 < n) k *= 2
  return k
}

/** PATH(index, D[size]) of RFC 6962, section 2.1.1: the leaf's sibling first, the root's child last. */
export const inclusionRanges = (index: number, size: number): ReadonlyArray<TreeRange> => {
  if (!isLeafIndex(index, size)) throw new RangeError(`a tree of ${size} leaves has none at ${index}`)
  const path: Array<TreeRange> = []
  let begin = 0
  let end = size
  while (end - begin > 1) {
    const middle = begin + split(end - begin)
    if (index < middle) {
      path.push({ begin: middle, end })
      end = middle
    } else {
      path.push({ begin, end: middle })
      begin = middle
    }
  }
  return path.reverse()
}

/**
 * PROOF(from, D[to]) of RFC 6962, section 2.1.2. Empty from nothing, and from a size to itself: there is nothing to show
 * that the two heads do not show.
 */
export const consistencyRanges = (from: number, to: number): ReadonlyArray<TreeRange> => {
  if (!(isTreeSize(from) && isTreeSize(to) && from <= to)) {
    throw new RangeError(`no tree of ${from} leaves grows to one of ${to}`)
  }
  if (from === 0 || from === to) return []
  const proof: Array<TreeRange> = []
  let begin = 0
  let end = to
  // the smaller tree's whole head is known to the verifier as long as nothing was cut off its left
  while (end !== from) {
    const middle = begin + split(end - begin)
    if (from <= middle) {
      proof.push({ begin: middle, end })
      end = middle
    } else {
      proof.push({ begin, end: middle })
      begin = middle
    }
  }
  if (begin > 0) proof.push({ begin, end })
  return proof.reverse()
}

/** The complete subtrees of a range, from the left, which is from the largest. */
export const nodesOf = ({ begin, end }: TreeRange): ReadonlyArray<TreeNode> => {
  const nodes: Array<TreeNode> = []
  let at = begin
  while (at < end) {
    let width = 1
    let height = 0
    while (width * 2 <= end - at) {
      width *= 2
      height++
    }
    nodes.push({ height, index: at / width })
    at += width
  }
  return nodes
}
