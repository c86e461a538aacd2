/** A stream of records into one record type, all or nothing, with a progress bar. */
import { Effect } from "effect"
import { type ExactValue, isExactObject, parse } from "../domain/ExactJson.ts"
import { send } from "./ApiCall.ts"
import { makeProgress } from "./Progress.ts"
import { failed, type Target } from "./Settings.ts"

export interface ImportOptions {
  /** org/app/domain/object/version */
  readonly path: string
  readonly label: string
  /** NDJSON. It is read no faster than the server takes it. */
  readonly lines: ReadableStream<Uint8Array>
  /** How many records there are, where it is known. */
  readonly total: number | undefined
}

export interface Imported {
  readonly created: string
  readonly firstId: string
  readonly lastId: string
}

const newline = 0x0a

const countLines = (chunk: Uint8Array): number => {
  let count = 0
  for (let at = chunk.indexOf(newline); at >= 0; at = chunk.indexOf(newline, at + 1)) count += 1
  return count
}

const text = (value: ExactValue | undefined): string => (value === undefined || value === null ? "" : String(value))

export const importRecords = Effect.fnUntraced(function* (target: Target, options: ImportOptions) {
  const progress = yield* makeProgress({ label: options.label, total: options.total, unit: "records" })
  const counted = options.lines.pipeThrough(
    new TransformStream<Uint8Array, Uint8Array>({
      transform: (chunk, controller) => {
        Effect.runSync(progress.advance(countLines(chunk)))
        controller.enqueue(chunk)
      }
    })
  )
  const response = yield* send(target, {
    method: "POST",
    path: `/api/${options.path}`,
    body: counted,
    headers: { "content-type": "application/x-ndjson" }
  })
  const answer = yield* Effect.promise(() => response.text())
  const outcome = yield* Effect.try({
    try: () => parse(answer),
    catch: () => failed("the API's answer is not JSON", 2)
  })
  if (!isExactObject(outcome)) return yield* failed("the API's answer is not an object", 2)
  yield* progress.finish(Number(text(outcome.created)))
  return {
    created: text(outcome.created),
    firstId: text(outcome.first_id),
    lastId: text(outcome.last_id)
  } satisfies Imported
})
