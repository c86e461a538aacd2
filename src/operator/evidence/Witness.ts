/**
 * A witness (C2SP tlog-witness): an outsider that remembers the largest checkpoint it has seen of a log, cosigns one that
 * grew from it, and tells when one did not.
 *
 * What it answers is kept as signature lines. Those of a witness whose verifier key is given are kept where they verify;
 * any other's are believed by nobody here, and one of a key that is another witness's, or the log's own, is not kept.
 */
import { Config, ConfigProvider, Data, Effect, Result } from "effect"
import { toBase64 } from "../../domain/Base64.ts"
import { parseSize } from "../../domain/Checkpoint.ts"
import { parseWitnessKey, verifyCosignature } from "../../domain/Cosignature.ts"
import { isSameKey } from "../../domain/NoteKey.ts"
import { type NoteVerifier, parseNote, parseSignatureLine } from "../../domain/SignedNote.ts"

/** Where one is asked. */
export interface Witness {
  readonly url: string
  /** The keys that it cosigns with; none where they were not given. */
  readonly keys: ReadonlyArray<NoteVerifier>
}

const parseWitness = (text: string): Result.Result<Witness, string> => {
  const [url = "", ...rest] = text.trim().split(/\s+/u)
  // not quoted: who mixes up the order may have put a key there
  if (!/^https?:$/u.test(URL.parse(url)?.protocol ?? "")) return Result.fail("one of them is not a URL, or URL KEY")
  return Result.all(rest.map(parseWitnessKey)).pipe(
    Result.map((keys) => ({ url, keys })),
    Result.mapError(({ message }) => `the key of ${url}: ${message}`)
  )
}

/** `VELOCITY_AUDIT_WITNESSES`: `URL` or `URL KEY`, with commas between; while a witness changes its key, both. */
export const witnessSettings: Config.Config<ReadonlyArray<Witness>> = Config.String("VELOCITY_AUDIT_WITNESSES").pipe(
  Config.withDefault(""),
  Config.flatMap((text) => {
    const witnesses = Result.all(text.split(",").flatMap((one) => (one.trim() === "" ? [] : [parseWitness(one)])))
    return Result.isSuccess(witnesses)
      ? Config.succeed(witnesses.success)
      : Config.fail(new ConfigProvider.SourceError({ message: `VELOCITY_AUDIT_WITNESSES: ${witnesses.failure}` }))
  })
)

/** It could not be asked, or did not do what was asked: to be tried again. */
export class WitnessFailure extends Data.TaggedError("WitnessFailure")<{ readonly message: string }> {}

/** It has seen a tree of this origin that ours does not extend. */
export class WitnessConflict extends Data.TaggedError("WitnessConflict")<{ readonly message: string }> {}

/** How long an answer may take. */
const within = 10_000
/** A witness answers with a line for each of its keys. */
const maxLines = 16
const maxLine = 8_192
const maxAnswer = 64 * 1024
/** It may learn of another checkpoint between two of our requests, but not for ever. */
const maxRounds = 3

const bodyOf = (old: number, proof: ReadonlyArray<Uint8Array>, note: string): string =>
  [`old ${old}`, ...proof.map(toBase64), "", note].join("\n")

/** The answer's text; one that does not end is not read to its end. */
const bounded = async (response: Response): Promise<string> => {
  const chunks: Array<Uint8Array> = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength
    if (size > maxAnswer) throw new RangeError(`its answer is longer than ${maxAnswer} bytes`)
    chunks.push(chunk)
  }
  return Buffer.concat(chunks).toString("utf8")
}

const post = (url: string, body: string) =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(`${url.replace(/\/+$/u, "")}/add-checkpoint`, {
        method: "POST",
        body,
        headers: { "content-type": "text/plain; charset=utf-8" },
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(within)])
      })
      return { status: response.status, text: await bounded(response) }
    },
    catch: (cause) => new WitnessFailure({ message: `${url} does not answer (${(cause as Error).message})` })
  })

/**
 * The lines of an answer that are kept. One of a key that is known must verify; a witness whose keys are known speaks with
 * these alone; and none speaks in the name that the log signs with.
 */
const linesOf = async (
  text: string,
  note: string,
  { keys }: Witness,
  known: ReadonlyArray<NoteVerifier>
): Promise<ReadonlyArray<string>> => {
  const submitted = parseNote(note)
  if (Result.isFailure(submitted)) return []
  const { body, signatures } = submitted.success
  const kept: Array<string> = []
  for (const line of text.split("\n").slice(0, maxLines)) {
    const parsed = parseSignatureLine(line)
    if (Result.isFailure(parsed) || line.length > maxLine) continue
    const cosignature = parsed.success
    if (signatures.some(({ name }) => name === cosignature.name)) continue
    const key = known.find((one) => isSameKey(one, cosignature))
    const isKept =
      key === undefined ? keys.length === 0 : (await verifyCosignature(body, cosignature, key)) !== undefined
    if (isKept) kept.push(line)
  }
  return kept
}

export interface Submitted {
  /** The witness's signature lines that are kept; none where it has seen a larger tree of ours meanwhile. */
  readonly lines: ReadonlyArray<string>
  /** The size that it has now. */
  readonly size: number
}

/**
 * Submits a checkpoint, from the size that the witness is believed to have, or the one that it says it has.
 *
 * `proof` makes the consistency proof from a size to the checkpoint's; `tree` is the size that the tree has now, since a
 * witness may know a later checkpoint than the one at hand.
 */
export const submit = <E, F>(options: {
  readonly witness: Witness
  /** The keys of all witnesses. */
  readonly witnessKeys: ReadonlyArray<NoteVerifier>
  readonly note: string
  readonly size: number
  readonly known: number
  readonly proof: (from: number) => Effect.Effect<ReadonlyArray<Uint8Array>, E>
  readonly tree: Effect.Effect<number, F>
}): Effect.Effect<Submitted, WitnessFailure | WitnessConflict | E | F> =>
  Effect.gen(function* () {
    const { note, size, witness } = options
    const { url } = witness
    let old = Math.min(options.known, size)
    for (let round = 0; round < maxRounds; round++) {
      const { status, text } = yield* post(url, bodyOf(old, yield* options.proof(old), note))
      if (status === 200) {
        const lines = yield* Effect.promise(() => linesOf(text, note, witness, options.witnessKeys))
        if (lines.length > 0 || witness.keys.length === 0) return { lines, size }
        return yield* new WitnessFailure({
          message: `${url} answers without a cosignature of the key that is given for it`
        })
      }
      if (status === 422) {
        const message = `${url} says that the tree of ${size} leaves does not extend the one of ${old} that it has cosigned`
        return yield* new WitnessConflict({ message })
      }
      if (status !== 409) {
        const hint = status === 404 || status === 403 ? "; it must be told this log's verifier key" : ""
        return yield* new WitnessFailure({ message: `${url} answers ${status}: ${text.slice(0, 200).trim()}${hint}` })
      }
      const seen = parseSize(text.trim())
      if (seen === undefined) return yield* new WitnessFailure({ message: `${url} answers 409 without its size` })
      if (seen === old) {
        return yield* new WitnessConflict({ message: `${url} has cosigned another tree of ${old} leaves` })
      }
      if (seen > size) {
        if (seen > (yield* options.tree)) {
          return yield* new WitnessConflict({
            message: `${url} has cosigned a tree of ${seen} leaves, and this one has fewer`
          })
        }
        return { lines: [], size: seen }
      }
      old = seen
    }
    return yield* new WitnessFailure({ message: `${url} changes its mind about the size it has cosigned` })
  })
