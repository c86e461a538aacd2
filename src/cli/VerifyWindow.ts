/**
 * A window of the audit log as the API verifies it, of any size: with a bar, and resumable. With `--resume FILE` the place
 * that was reached and what was found so far are kept in a file after each slice, and the same command goes on from there;
 * the file goes when there is a verdict.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises"
import { Effect, Option, Schema, Stream } from "effect"
import { type ExactObject, isExactObject, parse } from "../domain/ExactJson.ts"
import { send } from "./ApiCall.ts"
import { makeProgress, type Progress } from "./Progress.ts"
import { type CommandFailed, failed, type Target } from "./Settings.ts"

/** Findings that are shown; all of them are counted. */
const maxShown = 1_000

export interface VerifyOptions {
  readonly from: string
  readonly to: string
  /** Where the place is kept that was reached. */
  readonly resume: Option.Option<string>
}

/** What is told in the end. */
export interface Verdict {
  readonly from: string
  readonly to: string
  readonly sound: boolean
  readonly entries: number
  readonly findings: ReadonlyArray<ExactObject>
  readonly found: number
  /** Months that were retired. */
  readonly sealed: ReadonlyArray<ExactObject>
}

const Place = Schema.Struct({
  from: Schema.String,
  to: Schema.String,
  until: Schema.String,
  entries: Schema.Int,
  found: Schema.Int,
  /** As the API wrote them. */
  findings: Schema.Array(Schema.String)
})
type Place = typeof Place.Type

const cannotTell = (message: string) => failed(message, 2)

const readPlace = Effect.fnUntraced(function* (file: string) {
  const text = yield* Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => cause as NodeJS.ErrnoException
  }).pipe(
    Effect.catch((cause) =>
      cause.code === "ENOENT" ? Effect.succeed(undefined) : Effect.fail(cannotTell(`${file}: ${cause.message}`))
    )
  )
  if (text === undefined) return undefined
  return yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Place))(text).pipe(
    Effect.mapError(() => cannotTell(`${file} is not what velocity audit verify --resume left`))
  )
})

const writePlace = (file: string, place: Place) =>
  Effect.tryPromise({
    try: async () => {
      await writeFile(`${file}.part`, JSON.stringify(place), { mode: 0o600 })
      await rename(`${file}.part`, file)
    },
    catch: (cause) => cannotTell(`${file} cannot be written: ${(cause as Error).message}`)
  })

/** Lines of a stream that is read as it comes; the last one may lack its newline. */
const lines = async function* (body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = ""
  for await (const text of body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
    const parts = (rest + text).split("\n")
    rest = parts.pop() ?? ""
    yield* parts.filter((line) => line !== "")
  }
  if (rest !== "") yield rest
}

const numberAt = (row: ExactObject, name: string): number => Number(row[name] ?? 0)

/** What is known after each line. */
class Reading {
  entries: number
  found: number
  until: string
  readonly findings: Array<string>
  verdict: ExactObject | undefined
  progress: Progress | undefined
  /** Entries of slices that were verified before this reading. */
  readonly before: number

  constructor(from: string, place: Place | undefined) {
    this.before = place?.entries ?? 0
    this.entries = this.before
    this.found = place?.found ?? 0
    this.findings = [...(place?.findings ?? [])]
    this.until = place?.until ?? from
  }
}

/** Reads findings, places and the last line, which says that the whole window was seen. */
const read = (reading: Reading, keep: (reading: Reading) => Effect.Effect<void, CommandFailed>) =>
  Effect.fnUntraced(function* (line: string) {
    const said = yield* Effect.try({ try: () => parse(line), catch: () => cannotTell("a line is no JSON") })
    if (!isExactObject(said)) return yield* cannotTell("a line is no object")
    if (typeof said.sound === "boolean") {
      reading.verdict = said
      reading.entries = reading.before + numberAt(said, "entries")
      return
    }
    if (isExactObject(said.verified)) {
      const { verified } = said
      const seen = reading.before + numberAt(verified, "entries")
      reading.progress ??= yield* makeProgress({
        label: "verified",
        total: reading.before + numberAt(verified, "total"),
        unit: "entries"
      })
      yield* reading.progress.advance(seen - reading.entries)
      reading.entries = seen
      reading.until = String(verified.until)
      return yield* keep(reading)
    }
    reading.found += 1
    if (reading.findings.length < maxShown) reading.findings.push(line)
  })

/** Verifies a window. Whatever keeps it from an answer fails with status 2: it is no tampering. */
export const verifyWindow = Effect.fnUntraced(function* (target: Target, options: VerifyOptions) {
  const file = Option.getOrUndefined(options.resume)
  const place = file === undefined ? undefined : yield* readPlace(file)
  const { from, to } = place ?? options
  const reading = new Reading(from, place)
  const response = yield* send(target, {
    path: "/api/platform/audit/verify",
    params: [
      ["from", reading.until],
      ["to", to]
    ],
    headers: { accept: "application/x-ndjson" }
  }).pipe(Effect.mapError((error) => cannotTell(error.message)))
  const keep = ({ entries, findings, found, until }: Reading) =>
    file === undefined ? Effect.void : writePlace(file, { from, to, until, entries, found, findings })
  const onward = () =>
    file === undefined
      ? reading.until === from
        ? "say it again"
        : `--from ${reading.until} --to ${to} goes on from where it was`
      : `the same command goes on from ${reading.until}`
  yield* Stream.fromAsyncIterable(lines(response.body ?? new ReadableStream()), (cause) =>
    cannotTell((cause as Error).message)
  ).pipe(
    Stream.runForEach(read(reading, keep)),
    Effect.andThen(
      Effect.suspend(() =>
        reading.verdict === undefined ? Effect.fail(cannotTell("it ends before its verdict")) : Effect.void
      )
    ),
    Effect.mapError(({ message }) => cannotTell(`the API's answer cannot be read to its end (${message}); ${onward()}`))
  )
  if (reading.progress !== undefined) yield* reading.progress.finish(reading.entries)
  if (file !== undefined) yield* Effect.promise(() => rm(file, { force: true }))
  const { entries, findings, found, verdict } = reading
  const sealed = Array.isArray(verdict?.sealed) ? verdict.sealed.filter(isExactObject) : []
  return {
    from,
    to,
    sound: verdict?.sound === true && found === 0,
    entries,
    findings: findings.map((text) => parse(text) as ExactObject),
    found,
    sealed
  } satisfies Verdict
})
