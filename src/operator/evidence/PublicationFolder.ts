/**
 * The folder of publication: `checkpoint`, replaced whole, and `history/{epoch}/{size}`.
 *
 * A restored database is held against what is there, so nothing in it goes back: a checkpoint gives way to one of its own
 * log that is no older, under the operator's term, and a folder that lost what was put there is not begun anew.
 */
import { mkdir, open, rename, rm } from "node:fs/promises"
import { dirname, join } from "node:path"
import { Data, Effect, Result } from "effect"
import { parseCheckpoint } from "../../domain/Checkpoint.ts"
import { epochOf } from "../../domain/Restored.ts"
import { parseNote } from "../../domain/SignedNote.ts"
import { sameHash } from "../../domain/TreeProof.ts"
import type { KeptCheckpoint } from "../../postgres/Evidence.ts"
import { asSealer } from "../../postgres/SealerTx.ts"
import { statement } from "../../postgres/Statement.ts"
import { Fence } from "../state/Fence.ts"
import { publishedIn, publishedName, requirePublished } from "./OutsideCheckpoint.ts"

/** A target did not take a checkpoint: it is tried again. */
export class PublicationFailed extends Data.TaggedError("PublicationFailed")<{ readonly message: string }> {}

/** The checkpoint with all its signatures: a note's signature lines come last, so more are put behind. */
export const wholeNote = ({ cosignatures, note }: Pick<KeptCheckpoint, "note" | "cosignatures">): string =>
  `${note}${cosignatures}`

/** Why what is in the folder does not give way to a checkpoint; undefined where it does. Signatures were verified at the start. */
const refusal = (there: string, { epoch, origin, root, size }: KeptCheckpoint): string | undefined => {
  const read = Result.flatMap(parseNote(there), ({ body }) => parseCheckpoint(body))
  if (Result.isFailure(read)) return `what is there is no checkpoint (${read.failure.message})`
  const held = read.success
  const name = epoch === 1 ? origin : origin.slice(0, origin.lastIndexOf("/"))
  const heldEpoch = epochOf(name, held.origin)
  if (heldEpoch === undefined) return `what is there is of the log ${held.origin}`
  const isNewer = heldEpoch > epoch || (heldEpoch === epoch && held.size > size)
  if (isNewer) return `what is there is newer, of ${held.size} leaves under ${held.origin}`
  const isOther = heldEpoch === epoch && held.size === size && !sameHash(held.root, root)
  return isOther ? `what is there is another tree of ${size} leaves` : undefined
}

interface Draft {
  readonly draft: string
  readonly place: string
}

const onDisk = <A>(folder: string, promise: () => Promise<A>): Effect.Effect<A, PublicationFailed> =>
  Effect.tryPromise({
    try: promise,
    catch: (cause) => new PublicationFailed({ message: `${folder}: ${(cause as Error).message}` })
  })

/** Writes a file beside its place, to the disk; with the scope it goes, unless it was put in its place. */
const drafted = Effect.fnUntraced(function* (folder: string, place: string, text: string) {
  const draft = `${place}.${crypto.randomUUID()}.draft`
  yield* Effect.addFinalizer(() => Effect.promise(() => rm(draft, { force: true })))
  yield* onDisk(folder, async () => {
    await mkdir(dirname(place), { recursive: true })
    const handle = await open(draft, "wx", 0o644)
    try {
      await handle.writeFile(text)
      await handle.sync()
    } finally {
      await handle.close()
    }
  })
  return { draft, place } satisfies Draft
})

const put = async ({ draft, place }: Draft): Promise<void> => {
  await rename(draft, place)
  const folder = await open(dirname(place), "r")
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

const publishedSql = "select platform.audit_checkpoint_published($1::int4, $2::int8)::text as done"

/** Puts a checkpoint into the folder, history first, and says so in the database. */
export const publishToFolder = Effect.fnUntraced(function* (folder: string, checkpoint: KeptCheckpoint) {
  const fence = yield* Fence
  const { epoch, size } = checkpoint
  const before = yield* publishedIn(folder)
  yield* fence.read((tx) => asSealer(tx, (inner) => requirePublished(inner, folder, before)))
  const places = [join(folder, "history", String(epoch), String(size)), join(folder, publishedName)]
  // what takes long comes first: the term is held for a look and two renames
  const drafts = yield* Effect.forEach(places, (place) => drafted(folder, place, wholeNote(checkpoint)))
  yield* fence.transaction((tx) =>
    Effect.gen(function* () {
      // an operator that was stopped since its commit, and goes on, is told here that another has the term; while it is
      // held no other publishes
      const there = yield* publishedIn(folder)
      const fault = there === undefined ? undefined : refusal(there.note, checkpoint)
      if (fault !== undefined) return yield* new PublicationFailed({ message: `${folder}: ${fault}` })
      yield* Effect.forEach(drafts, (one) => onDisk(folder, () => put(one)))
      yield* asSealer(tx, (inner) => inner.query(statement(publishedSql, [epoch, String(size)])))
    })
  )
}, Effect.scoped)
