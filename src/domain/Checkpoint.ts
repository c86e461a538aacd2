/**
 * C2SP tlog-checkpoint: the tree's head as the text of a signed note. Origin, size and root, a line each, then extension
 * lines, which say nothing that anybody could check.
 */
import { Data, Result } from "effect"
import { fromBase64, toBase64 } from "./Base64.ts"
import { type NoteFault, type NoteVerifier, type VerifiedNote, verifyNote } from "./SignedNote.ts"
import { hashLength } from "./Tiles.ts"
import { isTreeSize } from "./TreeRange.ts"

export interface Checkpoint {
  /** Which log: not empty, one line. */
  readonly origin: string
  /** Leaves of the tree, below 2^53. */
  readonly size: number
  readonly root: Uint8Array
  readonly extensions: ReadonlyArray<string>
}

export class CheckpointFault extends Data.TaggedError("CheckpointFault")<{ readonly message: string }> {}

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
const line = /^[^\u0000-\u001f]+$/u
const isLine = (text: string): boolean => text.isWellFormed() && line.test(text)

/** The text to sign. Throws RangeError on what no checkpoint can say. */
export const formatCheckpoint = ({ origin, size, root, extensions }: Checkpoint): string => {
  if (![origin, ...extensions].every(isLine)) throw new RangeError("a line of a checkpoint is not empty, and one line")
  if (!isTreeSize(size)) throw new RangeError(`no tree has ${size} leaves`)
  if (root.length !== hashLength) throw new RangeError("a root has 32 bytes")
  return [origin, String(size), toBase64(root), ...extensions].map((text) => `${text}\n`).join("")
}

const failed = (message: string) => Result.fail(new CheckpointFault({ message }))

/** ASCII digits without leading zeros, below 2^53. */
export const parseSize = (text: string): number | undefined => {
  const size = /^(?:0|[1-9][0-9]{0,15})$/u.test(text) ? Number(text) : Number.NaN
  return isTreeSize(size) ? size : undefined
}

/** Reads the text of a note (`SignedNote.body`). */
export const parseCheckpoint = (body: string): Result.Result<Checkpoint, CheckpointFault> => {
  const lines = body.split("\n")
  if (lines.pop() !== "" || lines.length < 3 || !lines.every(isLine)) {
    return failed("a checkpoint is an origin, a size and a root, a line each")
  }
  const [origin = "", digits = "", encoded = "", ...extensions] = lines
  const size = parseSize(digits)
  if (size === undefined) return failed("the checkpoint's second line is not a tree's size")
  const root = fromBase64(encoded)
  if (root?.length !== hashLength) return failed("the checkpoint's third line is not a root hash in base64")
  return Result.succeed({ origin, size, root, extensions })
}

export interface VerifiedCheckpoint extends VerifiedNote {
  readonly checkpoint: Checkpoint
}

/** Verifies the note, and only then reads what it says. */
export const verifyCheckpoint = async (
  note: string,
  verifiers: ReadonlyArray<NoteVerifier>
): Promise<Result.Result<VerifiedCheckpoint, NoteFault | CheckpointFault>> => {
  const verified = await verifyNote(note, verifiers)
  if (Result.isFailure(verified)) return Result.fail(verified.failure)
  return Result.map(parseCheckpoint(verified.success.body), (checkpoint) => ({ ...verified.success, checkpoint }))
}
