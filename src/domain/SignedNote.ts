/**
 * C2SP signed-note: a text, an empty line, and signature lines `— name base64(key id || signature)`, Ed25519 over the text.
 *
 * Read as golang.org/x/mod/sumdb/note reads it: signatures of unknown keys are passed over (that is how keys are rotated
 * and witnesses added), one bad signature of a known key refuses the whole note, and until a known key has signed, the text
 * is nobody's word.
 */
import { Data, Result } from "effect"
import { fromBase64, toBase64 } from "./Base64.ts"
import { signEd25519, verifyEd25519 } from "./Ed25519.ts"
import {
  isKeyName,
  isSameKey,
  keyLabel,
  keyTypes,
  type NoteKeyFault,
  type NoteSigner,
  type NoteVerifier,
  parseSignerKey
} from "./NoteKey.ts"
import { concatBytes, utf8 } from "./Sha256.ts"

export {
  generateSignerKey,
  NoteKeyFault,
  type NoteSigner,
  type NoteVerifier,
  parseSignerKey,
  parseVerifierKey
} from "./NoteKey.ts"

export interface NoteSignature {
  readonly name: string
  /** Four bytes. */
  readonly keyId: Uint8Array
  readonly signature: Uint8Array
}

export interface SignedNote {
  /** What is signed, its last newline included. */
  readonly body: string
  readonly signatures: ReadonlyArray<NoteSignature>
}

export interface VerifiedNote extends SignedNote {
  /** The known keys that signed; at least one. */
  readonly signers: ReadonlyArray<NoteVerifier>
}

export class NoteFault extends Data.TaggedError("NoteFault")<{
  /** `malformed`: no note. `unknown_key`: no key that is known has signed it. `bad_signature`: a known key did not sign this text. */
  readonly reason: "malformed" | "unknown_key" | "bad_signature"
  readonly message: string
}> {}

/** Signatures that are read of one note; C2SP asks for at least 16. */
export const maxSignatures = 100
/** Characters of a note that are read: 100 signatures of the longest kind that C2SP names. */
export const maxNoteLength = 1_000_000
const dash = "\u2014 "
const shortest = 4 + 1

// biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
const forbidden = /[\u0000-\u0009\u000b-\u001f]/u

const malformed = (message: string) => Result.fail(new NoteFault({ reason: "malformed", message }))

/** One line, without its newline. */
export const parseSignatureLine = (line: string): Result.Result<NoteSignature, NoteFault> => {
  const at = line.indexOf(" ", dash.length)
  const name = line.slice(dash.length, at)
  const bytes = at < 0 ? undefined : fromBase64(line.slice(at + 1))
  if (!line.startsWith(dash) || !isKeyName(name) || bytes === undefined || bytes.length < shortest) {
    return malformed("a line below the note's text is no signature")
  }
  return Result.succeed({ name, keyId: bytes.slice(0, 4), signature: bytes.slice(4) })
}

export const formatSignatureLine = ({ keyId, name, signature }: NoteSignature): string =>
  `${dash}${name} ${toBase64(concatBytes(keyId, signature))}`

/** Takes a note apart and believes nothing of it. */
export const parseNote = (text: string): Result.Result<SignedNote, NoteFault> => {
  if (text.length > maxNoteLength) return malformed(`a note of more than ${maxNoteLength} characters`)
  if (!text.isWellFormed() || forbidden.test(text)) return malformed("a note holds no control characters")
  const split = text.lastIndexOf("\n\n")
  if (split < 0) return malformed("a note's text ends with an empty line, and signatures follow")
  const lines = text.slice(split + 2).split("\n")
  if (lines.pop() !== "") return malformed("a note ends with a newline")
  if (lines.length === 0) return malformed("nobody signed the note")
  if (lines.length > maxSignatures) return malformed(`a note of more than ${maxSignatures} signatures`)
  const signatures: Array<NoteSignature> = []
  for (const line of lines) {
    const signature = parseSignatureLine(line)
    if (Result.isFailure(signature)) return Result.fail(signature.failure)
    signatures.push(signature.success)
  }
  return Result.succeed({ body: text.slice(0, split + 1), signatures })
}

const requireBody = (body: string): void => {
  if (!body.endsWith("\n") || !body.isWellFormed() || forbidden.test(body)) {
    throw new RangeError("a note's text ends with a newline and holds no control characters")
  }
}

/** Puts a note together. Throws RangeError on a text that no note can have, and where nobody signed. */
export const formatNote = (body: string, signatures: ReadonlyArray<NoteSignature>): string => {
  requireBody(body)
  if (signatures.length === 0) throw new RangeError("a note has at least one signature")
  return `${body}\n${signatures.map((signature) => `${formatSignatureLine(signature)}\n`).join("")}`
}

/** Adds signatures to a note, one of the same key replaced: cosignatures of witnesses, a second key while keys rotate. */
export const withSignatures = (note: SignedNote, added: ReadonlyArray<NoteSignature>): string =>
  formatNote(note.body, [...note.signatures.filter((one) => !added.some((other) => isSameKey(one, other))), ...added])

/** The signer, or the key that a text is; rejects with `NoteKeyFault` where it is none. */
const signerOf = async (key: NoteSigner | string): Promise<NoteSigner> => {
  if (typeof key !== "string") return key
  const parsed: Result.Result<NoteSigner, NoteKeyFault> = await parseSignerKey(key)
  if (Result.isFailure(parsed)) throw parsed.failure
  return parsed.success
}

/** Signs a text: with one key, or with the old and the new one while they overlap. Rejects with `NoteKeyFault`. */
export const signNote = async (
  body: string,
  signerKey: NoteSigner | string,
  ...more: ReadonlyArray<NoteSigner | string>
): Promise<string> => {
  requireBody(body)
  const signatures: Array<NoteSignature> = []
  for (const key of [signerKey, ...more]) {
    const { keyId, name, privateKey, type } = await signerOf(key)
    if (type !== keyTypes.note) throw new RangeError("a witness's key signs no notes, it cosigns them")
    signatures.push({ name, keyId, signature: await signEd25519(privateKey, utf8(body)) })
  }
  return formatNote(body, signatures)
}

/** Verifies a note against the keys that are trusted; several are several chances, as while keys rotate. */
export const verifyNote = async (
  text: string,
  verifiers: ReadonlyArray<NoteVerifier>
): Promise<Result.Result<VerifiedNote, NoteFault>> => {
  const parsed = parseNote(text)
  if (Result.isFailure(parsed)) return Result.fail(parsed.failure)
  const { body, signatures } = parsed.success
  const signers: Array<NoteVerifier> = []
  for (const { keyId, name, signature } of signatures) {
    const known = verifiers.filter((one) => one.type === keyTypes.note && isSameKey(one, { name, keyId }))
    // the first signature of a key decides; a repeated one adds nothing
    if (known.length === 0 || signers.some((one) => isSameKey(one, { name, keyId }))) continue
    for (const verifier of known) {
      if (!(await verifyEd25519(verifier.publicKey, utf8(body), signature))) {
        const message = `the signature of ${keyLabel(verifier)} is not over the note's text`
        return Result.fail(new NoteFault({ reason: "bad_signature", message }))
      }
    }
    signers.push(known[0] as NoteVerifier)
  }
  if (signers.length > 0) return Result.succeed({ body, signatures, signers })
  const by = [...new Set(signatures.map(keyLabel))].slice(0, 3).join(", ")
  return Result.fail(
    new NoteFault({ reason: "unknown_key", message: `no key that is known signed the note; ${by} did` })
  )
}
