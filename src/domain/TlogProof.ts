/**
 * C2SP tlog-proof: one leaf's index, its path and the checkpoint that it leads to, in one text that is verified offline.
 *
 *     c2sp.org/tlog-proof@v1
 *     [extra <base64>]
 *     index <n>
 *     <base64 hash>, the leaf's sibling first
 *     …
 *
 *     <the checkpoint, a signed note, as it is>
 */
import { Data, Result } from "effect"
import { fromBase64, toBase64 } from "./Base64.ts"
import { parseSize } from "./Checkpoint.ts"
import { maxNoteLength } from "./SignedNote.ts"
import { hashLength } from "./Tiles.ts"
import { isTreeSize } from "./TreeRange.ts"

export interface TlogProof {
  readonly index: number
  readonly path: ReadonlyArray<Uint8Array>
  /** The note, verbatim. */
  readonly checkpoint: string
  /** Opaque, and signed by nobody: never to be believed. */
  readonly extra?: Uint8Array | undefined
}

export class TlogProofFault extends Data.TaggedError("TlogProofFault")<{ readonly message: string }> {}

export const tlogProofHeader = "c2sp.org/tlog-proof@v1"
/** Hashes of a path: a tree of 2^53 leaves has 53. */
export const maxPathLength = 64
/** Characters that are read of a proof: its extra data, its path and its checkpoint. */
export const maxProofLength = maxNoteLength + 100_000

/** Throws RangeError on an index or a hash that cannot be. */
export const formatTlogProof = ({ index, path, checkpoint, extra }: TlogProof): string => {
  if (!isTreeSize(index)) throw new RangeError(`no leaf is at ${index}`)
  if (path.length > maxPathLength || path.some((hash) => hash.length !== hashLength)) {
    throw new RangeError(`a path is at most ${maxPathLength} hashes of 32 bytes`)
  }
  return [
    tlogProofHeader,
    ...(extra === undefined ? [] : [`extra ${toBase64(extra)}`]),
    `index ${index}`,
    ...path.map(toBase64),
    "",
    checkpoint
  ].join("\n")
}

const failed = (message: string) => Result.fail(new TlogProofFault({ message }))

/** Takes a proof apart and believes nothing of it. */
export const parseTlogProof = (text: string): Result.Result<TlogProof, TlogProofFault> => {
  if (text.length > maxProofLength) return failed(`a proof of more than ${maxProofLength} characters`)
  const end = text.indexOf("\n\n")
  const [header, ...lines] = text.slice(0, Math.max(0, end)).split("\n")
  if (header !== tlogProofHeader) return failed(`a proof begins with the line ${tlogProofHeader}`)
  let extra: Uint8Array | undefined
  if (lines[0]?.startsWith("extra ")) {
    extra = fromBase64((lines.shift() as string).slice("extra ".length))
    if (extra === undefined) return failed("the proof's extra data is not base64")
  }
  const indexLine = lines.shift() ?? ""
  const index = indexLine.startsWith("index ") ? parseSize(indexLine.slice("index ".length)) : undefined
  if (index === undefined) return failed("the proof does not say at which index its leaf is")
  if (lines.length > maxPathLength) return failed(`a path of more than ${maxPathLength} hashes`)
  const path: Array<Uint8Array> = []
  for (const line of lines) {
    const hash = fromBase64(line)
    if (hash?.length !== hashLength) return failed("a line of the proof's path is not a hash in base64")
    path.push(hash)
  }
  const proof = { index, path, checkpoint: text.slice(end + 2) }
  return Result.succeed(extra === undefined ? proof : { ...proof, extra })
}
