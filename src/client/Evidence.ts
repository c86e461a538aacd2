/**
 * A caller verifies by itself what it was given: the proof of an entry against the public key of the log, which it holds
 * from before and from elsewhere. Nothing is asked of the API, so nothing of this rests on its word.
 *
 * ```ts
 * const proved = yield* verifyEntryProof(document, ["velocity.example/audit+d331b840+ARkq…"])
 * ```
 */
import { Effect, type Result } from "effect"
import { parseWitnessKey } from "../domain/Cosignature.ts"
import { EntryProofFault, type ProvedEntry, verifyEntryProof as verify } from "../domain/EntryProof.ts"
import { type NoteKeyFault, parseVerifierKey } from "../domain/NoteKey.ts"
import { type ProvedRecord, RecordProofFault, verifyRecordProof as verifyRecord } from "../domain/RecordProof.ts"

export interface VerifyOptions {
  /** Verifier keys of witnesses (C2SP tlog-cosignature, Ed25519), each of which must have cosigned the checkpoint. */
  readonly witnesses?: ReadonlyArray<string>
}

const parsed = <A>(texts: ReadonlyArray<string>, parse: (text: string) => Result.Result<A, NoteKeyFault>) =>
  Effect.forEach(texts, (text) => Effect.fromResult(parse(text)))

const unable = (cause: unknown) =>
  ({
    step: "signature",
    verdict: "unknown",
    message: `This platform cannot verify Ed25519 signatures (${cause instanceof Error ? cause.message : "no reason"}).`
  }) as const

/**
 * Verifies what `GET /api/platform/audit/{id}/proof` answers, with the log's verifier keys; any of several will do, as while
 * keys rotate. Fails with `EntryProofFault`, whose `verdict` is `refuted` where the document is shown to be false and
 * `unknown` where it cannot be read or nobody who is trusted has signed it, and with `NoteKeyFault` for a text that is no key.
 */
export const verifyEntryProof = Effect.fnUntraced(function* (
  document: unknown,
  keys: ReadonlyArray<string>,
  options: VerifyOptions = {}
): Effect.fn.Return<ProvedEntry, EntryProofFault | NoteKeyFault> {
  const verifiers = yield* parsed(keys, parseVerifierKey)
  const witnesses = yield* parsed(options.witnesses ?? [], parseWitnessKey)
  const verdict = yield* Effect.tryPromise({
    try: () => verify(document, verifiers, { witnesses }),
    catch: (cause) => new EntryProofFault(unable(cause))
  })
  return yield* Effect.fromResult(verdict)
})

/** Verifies what `GET P/{id}/proof` answers, as `verifyEntryProof` does; fails with `RecordProofFault` and `NoteKeyFault`. */
export const verifyRecordProof = Effect.fnUntraced(function* (
  document: unknown,
  keys: ReadonlyArray<string>,
  options: VerifyOptions = {}
): Effect.fn.Return<ProvedRecord, RecordProofFault | NoteKeyFault> {
  const verifiers = yield* parsed(keys, parseVerifierKey)
  const witnesses = yield* parsed(options.witnesses ?? [], parseWitnessKey)
  const verdict = yield* Effect.tryPromise({
    try: () => verifyRecord(document, verifiers, { witnesses }),
    catch: (cause) => new RecordProofFault(unable(cause))
  })
  return yield* Effect.fromResult(verdict)
})
