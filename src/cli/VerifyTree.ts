/**
 * The second half of `velocity audit verify --checkpoint FILE`: the log against its tree, and the tree against a checkpoint
 * that was kept outside. It finds what a chain alone cannot: a tail that was cut off, a lane that is gone, and a log that
 * was rewritten with all its hashes made anew.
 */
import { Effect, Result } from "effect"
import { parseCheckpoint, verifyCheckpoint } from "../domain/Checkpoint.ts"
import { type ExactObject, isExactObject, parse } from "../domain/ExactJson.ts"
import { hex } from "../domain/Sha256.ts"
import { type NoteVerifier, parseNote } from "../domain/SignedNote.ts"
import { send } from "./ApiCall.ts"
import { failed, type Target } from "./Settings.ts"

export interface TreeVerdict {
  readonly sound: boolean
  /** Everything that is wrong, and `restored`, which a signed note accounts for. */
  readonly findings: ReadonlyArray<ExactObject>
  readonly origin: string
  readonly size: number
}

/** The checkpoint a file says, its signature judged where there are keys to judge it by. */
export const outsideOf = Effect.fnUntraced(function* (file: string, note: string, keys: ReadonlyArray<NoteVerifier>) {
  if (keys.length > 0) {
    const verified = yield* Effect.promise(() => verifyCheckpoint(note, keys))
    if (Result.isSuccess(verified)) return verified.success.checkpoint
    return yield* failed(`${file}: ${verified.failure.message}`, 2)
  }
  const read = Result.flatMap(parseNote(note), ({ body }) => parseCheckpoint(body))
  if (Result.isSuccess(read)) return read.success
  return yield* failed(`${file}: ${read.failure.message}`, 2)
})

/** Asks the API. Whatever keeps it from an answer fails with status 2, a restore note that no such key signed with 1. */
export const verifyTree = Effect.fnUntraced(function* (
  target: Target,
  { origin, root, size }: { readonly origin: string; readonly size: number; readonly root: Uint8Array },
  keys: ReadonlyArray<NoteVerifier>
) {
  const response = yield* send(target, {
    path: "/api/platform/audit/tree",
    params: [
      ["origin", origin],
      ["size", String(size)],
      ["root", hex(root)]
    ],
    headers: { accept: "application/x-ndjson" }
  }).pipe(Effect.mapError((error) => failed(error.message, 2)))
  const lines = yield* Effect.tryPromise({
    try: async () =>
      (await response.text())
        .split("\n")
        .filter((line) => line !== "")
        .map((line) => parse(line)),
    catch: (cause) =>
      failed(`the API's answer cannot be read to its end (${(cause as Error).message}); say it again`, 2)
  })
  const last = lines.pop()
  if (!isExactObject(last) || typeof last.sound !== "boolean") {
    return yield* failed("the API's answer ends before its verdict; say it again", 2)
  }
  for (const { note, problem } of lines.filter(isExactObject)) {
    if (problem !== "restored" || typeof note !== "string") continue
    // whoever owns the database can put a note there; only the key's holder can sign one
    if (keys.length === 0)
      return yield* failed("a restore note accounts for the difference: say --key KEY to see who signed it", 2)
    const verified = yield* Effect.promise(() => verifyCheckpoint(note, keys))
    if (Result.isFailure(verified)) {
      return yield* failed(`tampered: a restore note that the log's key did not sign (${verified.failure.message})`, 1)
    }
  }
  return { sound: last.sound, findings: lines.filter(isExactObject), origin, size } satisfies TreeVerdict
})
