/**
 * The tree against a checkpoint that has left the database: what nobody who owns the database can take back.
 *
 * A tree that does not extend it was restored from an older copy, lost its last seconds in a fail-over, or was rewritten.
 * To sign on would be to sign two trees under one origin, which is what a log must never do (C2SP tlog-checkpoint).
 */
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { Data, Effect, Result } from "effect"
import { type Checkpoint, verifyCheckpoint } from "../../domain/Checkpoint.ts"
import { accountsFor, epochOf } from "../../domain/Restored.ts"
import { rootFromTiles, tilesForRoot } from "../../domain/Tiles.ts"
import { sameHash } from "../../domain/TreeProof.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import {
  epochs,
  type KeptCheckpoint,
  lastPublished,
  newestCheckpoint,
  tilesOf,
  treeSize
} from "../../postgres/Evidence.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { type AuditKeys, verifiersOf } from "./AuditKeys.ts"

/** A checkpoint that is outside, and where it was found. */
export interface Outside {
  readonly source: string
  readonly note: string
}

/** The tree does not extend a checkpoint that is outside. */
export class RolledBack extends Data.TaggedError("RolledBack")<{ readonly message: string }> {}

/** There is a checkpoint outside and it cannot be told what it says: whoever signs on regardless may sign a fork. */
export class OutsideUnreadable extends Data.TaggedError("OutsideUnreadable")<{ readonly message: string }> {}

/** The file in a folder of publication that is the newest checkpoint. */
export const publishedName = "checkpoint"

const read = (source: string, path: string, required: boolean) =>
  Effect.tryPromise({
    try: async (): Promise<Outside | undefined> => ({ source, note: await readFile(path, "utf8") }),
    catch: (cause) => cause as NodeJS.ErrnoException
  }).pipe(
    Effect.catch((error) =>
      error.code === "ENOENT" && !required
        ? Effect.succeed(undefined)
        : Effect.fail(new OutsideUnreadable({ message: `${source} cannot be read (${error.message})` }))
    )
  )

/** The newest checkpoint in a folder of publication. */
export const publishedIn = (folder: string) => {
  const path = join(folder, publishedName)
  return read(path, path, false)
}

/** The checkpoints in files: of the folder of publication, and the one that somebody has put beside the key. */
export const outsideFiles = Effect.fnUntraced(function* (settings: {
  readonly publishDir: string | undefined
  readonly outside: string | undefined
}) {
  return {
    published: settings.publishDir === undefined ? undefined : yield* publishedIn(settings.publishDir),
    given: settings.outside === undefined ? undefined : yield* read(settings.outside, settings.outside, true)
  }
})

/**
 * Fails where checkpoints were put into the folder and none is there: not mounted, emptied, or another folder. To take that
 * for a beginning is to forget what a restored database is held against. As the sealer.
 */
export const requirePublished = Effect.fnUntraced(function* (tx: Tx, folder: string, there: Outside | undefined) {
  if (there !== undefined) return
  const last = yield* lastPublished(tx)
  if (last === undefined) return
  const message = `${join(folder, publishedName)} is not there, and the checkpoint of ${last.size} leaves of ${last.origin} was published to such a folder: mount it again, or put the newest checkpoint that is known outside there`
  return yield* new OutsideUnreadable({ message })
})

/** The tree's root when it had `size` leaves; undefined where it has fewer, or tiles that should be there are not. */
export const rootAt = Effect.fnUntraced(function* (tx: Tx, size: number) {
  if (size > (yield* treeSize(tx))) return undefined
  const tiles = yield* tilesOf(tx, tilesForRoot(size))
  return yield* Effect.try({ try: () => rootFromTiles(size, tiles), catch: () => undefined }).pipe(
    Effect.catch(() => Effect.succeed(undefined))
  )
})

/**
 * Whether restore notes account for a checkpoint that the tree does not extend: it lies in what one says was lost. A note
 * counts that our key signed; whoever owns the database could put another one there. And the tree must have what was
 * restored: what is below the gap is accounted for by no note.
 */
const isAccountedFor = Effect.fnUntraced(function* (
  tx: Tx,
  keys: AuditKeys,
  checkpoint: Checkpoint,
  firsts: ReadonlyArray<KeptCheckpoint>
) {
  for (const { note } of firsts) {
    const verified = yield* Effect.promise(() => verifyCheckpoint(note, verifiersOf(keys)))
    if (Result.isFailure(verified)) continue
    const restored = verified.success.checkpoint
    if (!accountsFor(restored, checkpoint)) continue
    const root = yield* rootAt(tx, restored.size)
    if (root !== undefined && sameHash(root, restored.root)) return true
  }
  return false
})

/** Reads an outside checkpoint that must be ours. */
export const verifiedOutside = Effect.fnUntraced(function* (keys: AuditKeys, { note, source }: Outside) {
  const verified = yield* Effect.promise(() => verifyCheckpoint(note, verifiersOf(keys)))
  if (Result.isFailure(verified)) {
    const message = `${source} is no checkpoint that the audit key signed: ${verified.failure.message}. Give the key that did, or take the file away if it is another log's`
    return yield* new OutsideUnreadable({ message })
  }
  const { checkpoint } = verified.success
  if (epochOf(keys.name, checkpoint.origin) === undefined) {
    const message = `${source} is of the log ${checkpoint.origin}, and this is ${keys.name}: each log has a folder and a key of its own`
    return yield* new OutsideUnreadable({ message })
  }
  return checkpoint
})

/** Fails with `RolledBack` unless the tree, or a restore note, has everything that the checkpoint says. As the sealer. */
export const extendsOutside = Effect.fnUntraced(function* (
  tx: Tx,
  keys: AuditKeys,
  outside: Outside
): Effect.fn.Return<void, RolledBack | OutsideUnreadable | DatabaseFailure> {
  const checkpoint = yield* verifiedOutside(keys, outside)
  const newest = yield* newestCheckpoint(tx)
  const firsts = yield* epochs(tx)
  const known =
    firsts.length === 0 ? checkpoint.origin === keys.name : firsts.some((one) => one.origin === checkpoint.origin)
  const root = yield* rootAt(tx, checkpoint.size)
  if (known && root !== undefined && sameHash(root, checkpoint.root)) return
  if (yield* isAccountedFor(tx, keys, checkpoint, firsts)) return
  const size = yield* treeSize(tx)
  const what =
    size < checkpoint.size
      ? `the tree has ${size} leaves, and the checkpoint has ${checkpoint.size}`
      : known
        ? `the tree's first ${checkpoint.size} leaves are not those of the checkpoint`
        : `its epoch ${checkpoint.origin} is unknown here, where ${newest?.origin ?? keys.name} is in force`
  return yield* new RolledBack({
    message: `this database does not extend the checkpoint of ${outside.source}: ${what}`
  })
})
