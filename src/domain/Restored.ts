/**
 * What the first checkpoint of a new epoch says in its extension line: the log was restored (from a backup, to a replica
 * that lagged), and signs from here on as another origin, because what was lost is under the old one's signature already.
 *
 *     restored <origin> <size> <root, base64> <reason>
 *
 * The checkpoint's own size and root are what was restored to, so the leaves between the two sizes are the gap. It is a
 * checkpoint like any other: signed, published, cosigned, and part of what every later one is consistent with.
 */
import { fromBase64, toBase64 } from "./Base64.ts"
import { type Checkpoint, parseSize } from "./Checkpoint.ts"

export interface Restored {
  /** The origin, size and root of the checkpoint that was outside, and that the log does not extend. */
  readonly origin: string
  readonly size: number
  readonly root: Uint8Array
  /** Why, in a person's words: one line. */
  readonly reason: string
}

export const maxReasonLength = 500

/** Whether a text can be a reason: one line, not empty, of at most 500 characters. */
export const isReason = (text: string): boolean =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
  text.trim() !== "" && text.length <= maxReasonLength && /^[^\u0000-\u001f]+$/u.test(text)

export const restoredLine = ({ origin, size, root, reason }: Restored): string =>
  `restored ${origin} ${size} ${toBase64(root)} ${reason}`

/** What the extension lines of a checkpoint say was restored; undefined where they say nothing of it. */
export const restoredOf = (extensions: ReadonlyArray<string>): Restored | undefined => {
  for (const line of extensions) {
    const [, origin, digits, encoded, reason] = /^restored ([^ ]+) ([0-9]+) ([^ ]+) (.+)$/u.exec(line) ?? []
    if (origin === undefined || digits === undefined || encoded === undefined || reason === undefined) continue
    const size = parseSize(digits)
    const root = fromBase64(encoded)
    if (size !== undefined && root !== undefined) return { origin, size, root, reason }
  }
  return undefined
}

/**
 * Whether a note, by what its text says and not by where it was found, accounts for a checkpoint that the tree does not
 * extend: that lies in what the note says was lost, and in no other gap.
 */
export const accountsFor = (
  note: Pick<Checkpoint, "size" | "extensions">,
  { origin, size }: Pick<Checkpoint, "origin" | "size">
): boolean => {
  const lost = restoredOf(note.extensions)
  return lost !== undefined && lost.origin === origin && size > note.size && size <= lost.size
}

/** The origin of an epoch: the log's name, from the second on with the epoch's number. */
export const originOf = (name: string, epoch: number): string => (epoch === 1 ? name : `${name}/${epoch}`)

/** The epoch that an origin of this log is of; undefined where it is another log's. */
export const epochOf = (name: string, origin: string): number | undefined => {
  if (origin === name) return 1
  const digits = origin.startsWith(`${name}/`) ? origin.slice(name.length + 1) : ""
  return /^[1-9][0-9]{0,8}$/u.test(digits) && Number(digits) > 1 ? Number(digits) : undefined
}
