/**
 * The place that `velocity audit verify --resume FILE` has reached, and what was found so far: a file that is written after
 * each slice, from which the same command goes on, and that goes when there is a verdict.
 */
import { readFile, rename, rm, writeFile } from "node:fs/promises"
import { Effect, Schema } from "effect"
import { type ExactObject, parse } from "../domain/ExactJson.ts"
import { failed } from "./Settings.ts"

/** Findings that are shown; all of them are counted. */
export const maxShown = 1_000

/** Lines as the API wrote them. */
const Findings = Schema.Array(Schema.String)

const Place = Schema.Struct({
  /** What the command said of the window; "" where it said nothing. */
  asked: Schema.Struct({ from: Schema.String, to: Schema.String }),
  window: Schema.Struct({
    from: Schema.String,
    to: Schema.String,
    until: Schema.String,
    entries: Schema.Int,
    found: Schema.Int,
    findings: Findings,
    /** The API's last line, once the whole window was seen. */
    verdict: Schema.optionalKey(Schema.String)
  }),
  /** Of the tree, against which checkpoint, and the leaf that was reached. */
  tree: Schema.optionalKey(
    Schema.Struct({ against: Schema.String, until: Schema.Int, found: Schema.Int, findings: Findings })
  )
})
export type Place = typeof Place.Type
export type WindowPlace = Place["window"]
export type TreePlace = NonNullable<Place["tree"]>

export const readPlace = Effect.fnUntraced(function* (file: string) {
  const text = yield* Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => cause as NodeJS.ErrnoException
  }).pipe(
    Effect.catch((cause) =>
      cause.code === "ENOENT" ? Effect.succeed(undefined) : Effect.fail(failed(`${file}: ${cause.message}`, 2))
    )
  )
  if (text === undefined) return undefined
  return yield* Schema.decodeUnknownEffect(Schema.fromJsonString(Place))(text).pipe(
    Effect.mapError(() => failed(`${file} is not what velocity audit verify --resume left`, 2))
  )
})

export const writePlace = (file: string, place: Place) =>
  Effect.tryPromise({
    try: async () => {
      await writeFile(`${file}.part`, JSON.stringify(place), { mode: 0o600 })
      await rename(`${file}.part`, file)
    },
    catch: (cause) => failed(`${file} cannot be written: ${(cause as Error).message}`, 2)
  })

export const removePlace = (file: string) => Effect.promise(() => rm(file, { force: true }))

export const parsed = (findings: ReadonlyArray<string>): ReadonlyArray<ExactObject> =>
  findings.map((text) => parse(text) as ExactObject)
