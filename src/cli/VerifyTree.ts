/**
 * The second half of `velocity audit verify --checkpoint FILE`: the log against its tree, and the tree against a checkpoint
 * that was kept outside. It finds what a chain alone cannot: a tail that was cut off, a lane that is gone, and a log that
 * was rewritten with all its hashes made anew. Of any size: slice by slice, and so that it can be gone on with.
 */
import { Effect, Result, Stream } from "effect"
import { type Checkpoint, parseCheckpoint, verifyCheckpoint } from "../domain/Checkpoint.ts"
import { type ExactObject, isExactObject, parse } from "../domain/ExactJson.ts"
import { accountsFor } from "../domain/Restored.ts"
import { hex } from "../domain/Sha256.ts"
import { type NoteVerifier, parseNote } from "../domain/SignedNote.ts"
import { linesOf, send } from "./ApiCall.ts"
import { makeProgress, type Progress } from "./Progress.ts"
import { type CommandFailed, failed, type Target } from "./Settings.ts"
import { maxShown, parsed, type TreePlace } from "./VerifyPlace.ts"

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

/** What is known after each line. */
class Reading {
  found: number
  until: number
  readonly findings: Array<string>
  verdict: ExactObject | undefined
  progress: Progress | undefined
  total = 0

  constructor(place: TreePlace | undefined) {
    this.found = place?.found ?? 0
    this.until = place?.until ?? 0
    this.findings = [...(place?.findings ?? [])]
  }
}

/**
 * Fails unless a signed note accounts for a gap that is said to be restored. Whoever owns the database can put a note there; only the
 * key's holder can sign one, and it accounts for the gap that its text says, wherever it stands.
 */
const mustBeSigned = Effect.fnUntraced(function* (
  { note, problem }: ExactObject,
  outside: Pick<Checkpoint, "origin" | "size">,
  keys: ReadonlyArray<NoteVerifier>
) {
  if (problem !== "restored") return
  if (keys.length === 0)
    return yield* failed("a restore note accounts for the difference: say --key KEY to see who signed it", 2)
  const verified = yield* Effect.promise(() => verifyCheckpoint(String(note), keys))
  if (Result.isFailure(verified)) {
    return yield* failed(`tampered: a restore note that the log's key did not sign (${verified.failure.message})`, 1)
  }
  if (!accountsFor(verified.success.checkpoint, outside)) {
    return yield* failed("tampered: the restore note accounts for another gap than the checkpoint's", 1)
  }
})

export interface TreeOptions {
  readonly outside: Checkpoint
  readonly keys: ReadonlyArray<NoteVerifier>
  /** Where an earlier sitting was. */
  readonly place: TreePlace | undefined
  /** Keeps the place that is reached; undefined where nothing is kept. */
  readonly keep: ((place: TreePlace) => Effect.Effect<void, CommandFailed>) | undefined
}

/** Which checkpoint a place is of. */
export const treeName = ({ origin, root, size }: Checkpoint): string => `${origin} ${size} ${hex(root)}`

/** Asks the API. Whatever keeps it from an answer fails with status 2, a restore note that no such key signed with 1. */
export const verifyTree = Effect.fnUntraced(function* (target: Target, { keep, keys, outside, place }: TreeOptions) {
  const { origin, root, size } = outside
  const reading = new Reading(place)
  const response = yield* send(target, {
    path: "/api/platform/audit/tree",
    params: [
      ["origin", origin],
      ["size", String(size)],
      ["root", hex(root)],
      ["from", String(reading.until)]
    ],
    headers: { accept: "application/x-ndjson" }
  }).pipe(Effect.mapError((error) => failed(error.message, 2)))
  const read = Effect.fnUntraced(function* (line: string) {
    const said = yield* Effect.try({ try: () => parse(line), catch: () => failed("a line is no JSON", 2) })
    if (!isExactObject(said)) return yield* failed("a line is no object", 2)
    if (typeof said.sound === "boolean") {
      reading.verdict = said
      return
    }
    if (isExactObject(said.verified)) {
      const until = Number(said.verified.until)
      reading.total = Number(said.verified.total)
      if (reading.progress === undefined) {
        reading.progress = yield* makeProgress({ label: "tree", total: reading.total, unit: "leaves" })
        yield* reading.progress.advance(until)
      } else {
        yield* reading.progress.advance(until - reading.until)
      }
      reading.until = until
      if (keep === undefined) return
      const { findings, found } = reading
      return yield* keep({ against: treeName(outside), until, found, findings: [...findings] })
    }
    reading.found += said.problem === "restored" ? 0 : 1
    if (reading.findings.length < maxShown) reading.findings.push(line)
  })
  yield* Stream.fromAsyncIterable(linesOf(response), (cause) => failed((cause as Error).message, 2)).pipe(
    Stream.runForEach(read),
    Effect.andThen(
      Effect.suspend(() =>
        reading.verdict === undefined ? Effect.fail(failed("it ends before its verdict", 2)) : Effect.void
      )
    ),
    Effect.mapError(({ message }) =>
      failed(
        `the API's answer cannot be read to its end (${message}); ${keep === undefined ? "say it again" : `the same command goes on from leaf ${reading.until}`}`,
        2
      )
    )
  )
  if (reading.progress !== undefined) yield* reading.progress.finish(reading.total)
  const findings = parsed(reading.findings)
  for (const finding of findings) yield* mustBeSigned(finding, outside, keys)
  return {
    sound: reading.verdict?.sound === true && reading.found === 0,
    findings,
    origin,
    size
  } satisfies TreeVerdict
})
