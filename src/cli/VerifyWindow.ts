/**
 * A window of the audit log as the API verifies it, of any size: with a bar, and so that it can be gone on with from where it
 * was. What is kept of it after each slice the caller says (VerifyPlace.ts).
 */
import { Effect, Stream } from "effect"
import { type ExactObject, isExactObject, parse } from "../domain/ExactJson.ts"
import { linesOf, send } from "./ApiCall.ts"
import { makeProgress, type Progress } from "./Progress.ts"
import { type CommandFailed, failed, type Target } from "./Settings.ts"
import { maxShown, parsed, type WindowPlace } from "./VerifyPlace.ts"

export interface VerifyOptions {
  readonly from: string
  readonly to: string
  /** Where an earlier sitting was. */
  readonly place: WindowPlace | undefined
  /** Keeps the place that is reached; undefined where nothing is kept. */
  readonly keep: ((place: WindowPlace) => Effect.Effect<void, CommandFailed>) | undefined
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

const cannotTell = (message: string) => failed(message, 2)

const numberAt = (row: ExactObject, name: string): number => Number(row[name] ?? 0)

/** What is known after each line. */
class Reading {
  entries: number
  found: number
  until: string
  readonly findings: Array<string>
  /** The last line. */
  verdict: string | undefined
  progress: Progress | undefined
  /** Entries of slices that were verified before this reading. */
  readonly before: number

  constructor(from: string, place: WindowPlace | undefined) {
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
      reading.verdict = line
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

const verdictOf = ({ entries, findings, found, from, to, verdict = "{}" }: WindowPlace): Verdict => {
  const said = parse(verdict) as ExactObject
  return {
    from,
    to,
    sound: said.sound === true && found === 0,
    entries,
    findings: parsed(findings),
    found,
    sealed: Array.isArray(said.sealed) ? said.sealed.filter(isExactObject) : []
  }
}

/** Verifies a window. Whatever keeps it from an answer fails with status 2: it is no tampering. */
export const verifyWindow = Effect.fnUntraced(function* (target: Target, options: VerifyOptions) {
  const { keep, place } = options
  if (place?.verdict !== undefined) return verdictOf(place)
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
  const placeOf = ({ entries, findings, found, until }: Reading): WindowPlace => ({
    from,
    to,
    until,
    entries,
    found,
    findings: [...findings]
  })
  const onward = () =>
    keep === undefined
      ? reading.until === from
        ? "say it again"
        : `--from ${reading.until} --to ${to} goes on from where it was`
      : `the same command goes on from ${reading.until}`
  yield* Stream.fromAsyncIterable(linesOf(response), (cause) => cannotTell((cause as Error).message)).pipe(
    Stream.runForEach(read(reading, (now) => keep?.(placeOf(now)) ?? Effect.void)),
    Effect.andThen(
      Effect.suspend(() =>
        reading.verdict === undefined ? Effect.fail(cannotTell("it ends before its verdict")) : Effect.void
      )
    ),
    Effect.mapError(({ message }) => cannotTell(`the API's answer cannot be read to its end (${message}); ${onward()}`))
  )
  if (reading.progress !== undefined) yield* reading.progress.finish(reading.entries)
  const done: WindowPlace = {
    ...placeOf(reading),
    ...(reading.verdict === undefined ? {} : { verdict: reading.verdict })
  }
  if (keep !== undefined) yield* keep(done)
  return verdictOf(done)
})
