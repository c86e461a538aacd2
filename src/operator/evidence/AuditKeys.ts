/**
 * The keys that checkpoints are signed with, from `VELOCITY_AUDIT_KEY_FILE` or `VELOCITY_AUDIT_KEY`; never from the
 * database, whose owner could then sign what he likes.
 *
 * While a key is being changed a second one stands in `VELOCITY_AUDIT_KEY_NEXT_FILE` or `VELOCITY_AUDIT_KEY_NEXT`: both
 * sign, so whoever knows either verifies. A key's name is the log's origin (C2SP tlog-checkpoint: they should be one), so
 * both keys have one name, and two databases have two keys.
 */
import { readFile } from "node:fs/promises"
import { Config, Data, Effect, Option, Redacted, Result } from "effect"
import { type NoteSigner, type NoteVerifier, parseSignerKey } from "../../domain/SignedNote.ts"

/** The keys in force: the first names the log. */
export interface AuditKeys {
  /** The name of the keys: the origin of the log's first epoch. */
  readonly name: string
  readonly signers: readonly [NoteSigner, ...ReadonlyArray<NoteSigner>]
}

/** What verifies a note that one of them signed. */
export const verifiersOf = ({ signers }: AuditKeys): ReadonlyArray<NoteVerifier> =>
  signers.map(({ verifier }) => verifier)

/** A key is said to be somewhere and cannot be used. */
export class AuditKeyUnusable extends Data.TaggedError("AuditKeyUnusable")<{ readonly message: string }> {}

const settings = Config.all({
  keyFile: Config.option(Config.String("VELOCITY_AUDIT_KEY_FILE")),
  key: Config.option(Config.Redacted("VELOCITY_AUDIT_KEY")),
  nextFile: Config.option(Config.String("VELOCITY_AUDIT_KEY_NEXT_FILE")),
  next: Config.option(Config.Redacted("VELOCITY_AUDIT_KEY_NEXT"))
})

const textOf = Effect.fnUntraced(function* (
  file: Option.Option<string>,
  text: Option.Option<Redacted.Redacted>
): Effect.fn.Return<{ readonly from: string; readonly text: string } | undefined, AuditKeyUnusable> {
  if (Option.isSome(file) && file.value !== "") {
    const path = file.value
    const read = yield* Effect.tryPromise({
      try: () => readFile(path, "utf8"),
      catch: (cause) => new AuditKeyUnusable({ message: `${path} cannot be read (${(cause as Error).message})` })
    })
    return { from: path, text: read.trim() }
  }
  return Option.isSome(text) && Redacted.value(text.value) !== ""
    ? { from: "the environment", text: Redacted.value(text.value).trim() }
    : undefined
})

const signerOf = Effect.fnUntraced(function* (found: { readonly from: string; readonly text: string }) {
  const signer = yield* Effect.promise(() => parseSignerKey(found.text))
  if (Result.isSuccess(signer)) return signer.success
  const message = `the audit key from ${found.from}: ${signer.failure.message}; velocity audit keygen makes one`
  return yield* new AuditKeyUnusable({ message })
})

/**
 * Reads the keys, anew each time, since a Secret may come late; undefined where none is configured. Fails with
 * `AuditKeyUnusable`, which says what to do and quotes no key.
 */
export const readAuditKeys: Effect.Effect<AuditKeys | undefined, AuditKeyUnusable | Config.ConfigError> = Effect.gen(
  function* () {
    const { key, keyFile, next, nextFile } = yield* settings
    const first = yield* textOf(keyFile, key)
    if (first === undefined) return undefined
    const signer = yield* signerOf(first)
    const second = yield* textOf(nextFile, next)
    if (second === undefined) return { name: signer.name, signers: [signer] }
    const successor = yield* signerOf(second)
    if (successor.name !== signer.name) {
      const message = `the next audit key is called ${successor.name}, and the log's origin is ${signer.name}: make it with velocity audit keygen --name ${signer.name}`
      return yield* new AuditKeyUnusable({ message })
    }
    return { name: signer.name, signers: [signer, successor] }
  }
)
