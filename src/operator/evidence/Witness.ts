/**
 * A witness (C2SP tlog-witness): an outsider that remembers the largest checkpoint it has seen of a log, cosigns one that
 * grew from it, and tells when one did not.
 *
 * What it answers is kept as signature lines and believed by nobody here: whoever trusts a witness has its key.
 */
import { Data, Effect, Result } from "effect"
import { toBase64 } from "../../domain/Base64.ts"
import { parseSize } from "../../domain/Checkpoint.ts"
import { parseSignatureLine } from "../../domain/SignedNote.ts"

/** It could not be asked, or did not do what was asked: to be tried again. */
export class WitnessFailure extends Data.TaggedError("WitnessFailure")<{ readonly message: string }> {}

/** It has seen a tree of this origin that ours does not extend. */
export class WitnessConflict extends Data.TaggedError("WitnessConflict")<{ readonly message: string }> {}

/** How long an answer may take. */
const within = 10_000
/** A witness answers with a line for each of its keys. */
const maxLines = 16
const maxAnswer = 64 * 1024
/** It may learn of another checkpoint between two of our requests, but not for ever. */
const maxRounds = 3

const bodyOf = (old: number, proof: ReadonlyArray<Uint8Array>, note: string): string =>
  [`old ${old}`, ...proof.map(toBase64), "", note].join("\n")

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
      return { status: response.status, text: (await response.text()).slice(0, maxAnswer) }
    },
    catch: (cause) => new WitnessFailure({ message: `${url} does not answer (${(cause as Error).message})` })
  })

const linesOf = (text: string): ReadonlyArray<string> =>
  text
    .split("\n")
    .filter((line) => line !== "" && Result.isSuccess(parseSignatureLine(line)))
    .slice(0, maxLines)

export interface Submitted {
  /** The witness's signature lines; none where it has seen a larger tree of ours meanwhile. */
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
  readonly url: string
  readonly note: string
  readonly size: number
  readonly known: number
  readonly proof: (from: number) => Effect.Effect<ReadonlyArray<Uint8Array>, E>
  readonly tree: Effect.Effect<number, F>
}): Effect.Effect<Submitted, WitnessFailure | WitnessConflict | E | F> =>
  Effect.gen(function* () {
    const { note, size, url } = options
    let old = Math.min(options.known, size)
    for (let round = 0; round < maxRounds; round++) {
      const { status, text } = yield* post(url, bodyOf(old, yield* options.proof(old), note))
      if (status === 200) return { lines: linesOf(text), size }
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
