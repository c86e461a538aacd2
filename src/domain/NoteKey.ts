/**
 * The keys of signed notes as text, byte for byte as C2SP signed-note and golang.org/x/mod/sumdb/note have them:
 *
 *     verifier   <name>+<key id, 8 hex digits>+<base64(type || public key)>
 *     signer     PRIVATE+KEY+<name>+<key id>+<base64(type || seed)>
 *
 * The key id is the first four bytes of SHA-256(name || "\n" || type || public key). It tells keys apart and protects
 * nothing: what is trusted is the public key that stands in the verifier key.
 */
import { Data, Result } from "effect"
import { fromBase64, toBase64 } from "./Base64.ts"
import { ed25519KeyLength, newSeed, privateKeyOf, publicKeyOf } from "./Ed25519.ts"
import { concatBytes, hex, sha256, utf8 } from "./Sha256.ts"

/** What a key signs: a note's text, or a cosignature over a checkpoint (Cosignature.ts). The ids differ, so neither is taken for the other. */
export const keyTypes = { note: 0x01, cosignature: 0x04 } as const
export type KeyType = (typeof keyTypes)[keyof typeof keyTypes]

export interface NoteVerifier {
  readonly name: string
  /** Four bytes. */
  readonly keyId: Uint8Array
  readonly type: KeyType
  readonly publicKey: Uint8Array
  /** The verifier key's text. */
  readonly text: string
}

export interface NoteSigner {
  readonly name: string
  readonly keyId: Uint8Array
  readonly type: KeyType
  readonly privateKey: CryptoKey
  readonly verifier: NoteVerifier
}

/** A text that is no key, or not one of the kind that is asked for. The message never quotes it: it may be a secret. */
export class NoteKeyFault extends Data.TaggedError("NoteKeyFault")<{ readonly message: string }> {}

const refused = (message: string) => Result.fail(new NoteKeyFault({ message }))

/** Not empty, no Unicode space, no plus (C2SP signed-note), and nothing that a note may not hold. */
export const isKeyName = (name: string): boolean =>
  // biome-ignore lint/suspicious/noControlCharactersInRegex: control characters are what this is about
  name.isWellFormed() && /^[^\p{White_Space}+\u0000-\u001f]+$/u.test(name)

export const keyIdOf = (name: string, type: KeyType, publicKey: Uint8Array): Uint8Array =>
  sha256(concatBytes(utf8(name), Uint8Array.of(0x0a, type), publicKey)).slice(0, 4)

/** How a key is named among people: `name+1a2b3c4d`. */
export const keyLabel = ({ name, keyId }: { readonly name: string; readonly keyId: Uint8Array }): string =>
  `${name}+${hex(keyId)}`

export const isSameKey = (
  a: { readonly name: string; readonly keyId: Uint8Array },
  b: { readonly name: string; readonly keyId: Uint8Array }
): boolean => keyLabel(a) === keyLabel(b)

const verifierOf = (name: string, type: KeyType, publicKey: Uint8Array): NoteVerifier => {
  const keyId = keyIdOf(name, type, publicKey)
  const text = `${name}+${hex(keyId)}+${toBase64(concatBytes(Uint8Array.of(type), publicKey))}`
  return { name, keyId, type, publicKey, text }
}

const pattern = /^(?<name>[^+]+)\+(?<id>[0-9a-fA-F]{8})\+(?<key>[A-Za-z0-9+/=]+)$/u

/** The name, the id as it was written, and the 32 bytes behind the type. */
const parted = (text: string, type: KeyType, what: string) => {
  const { name = "", id = "", key = "" } = pattern.exec(text)?.groups ?? {}
  const bytes = fromBase64(key)
  if (!isKeyName(name) || bytes === undefined || bytes.length === 0) return refused(`this is not a ${what}`)
  if (bytes[0] !== type) {
    const kind = bytes[0] === keyTypes.cosignature ? "a witness's key (type 4)" : `a key of type ${bytes[0]}`
    return refused(`${name} has ${kind}, not one of type ${type}`)
  }
  if (bytes.length !== 1 + ed25519KeyLength) return refused(`the key of ${name} is not 32 bytes long`)
  return Result.succeed({ name, id: id.toLowerCase(), bytes: bytes.slice(1) })
}

/** Reads a verifier key: of a log unless said otherwise. */
export const parseVerifierKey = (
  text: string,
  type: KeyType = keyTypes.note
): Result.Result<NoteVerifier, NoteKeyFault> =>
  Result.flatMap(
    parted(text, type, "verifier key (name+id+base64)"),
    ({ bytes, id, name }): Result.Result<NoteVerifier, NoteKeyFault> => {
      const verifier = verifierOf(name, type, bytes)
      return hex(verifier.keyId) === id
        ? Result.succeed(verifier)
        : refused(`the id ${id} is not that of the key of ${name}: it was not copied whole`)
    }
  )

const signerPrefix = "PRIVATE+KEY+"

/** Reads a signer key: of a log unless said otherwise. */
export const parseSignerKey = async (
  text: string,
  type: KeyType = keyTypes.note
): Promise<Result.Result<NoteSigner, NoteKeyFault>> => {
  const what = "signer key (PRIVATE+KEY+name+id+base64)"
  if (!text.startsWith(signerPrefix)) return refused(`this is not a ${what}`)
  const parts = parted(text.slice(signerPrefix.length), type, what)
  if (Result.isFailure(parts)) return Result.fail(parts.failure)
  const { bytes, id, name } = parts.success
  const verifier = verifierOf(name, type, await publicKeyOf(bytes))
  if (hex(verifier.keyId) !== id) return refused(`the id ${id} is not that of the key of ${name}`)
  return Result.succeed({ name, keyId: verifier.keyId, type, privateKey: await privateKeyOf(bytes), verifier })
}

/** A new pair, as texts. The signer key is a secret. */
export const generateSignerKey = async (
  name: string,
  type: KeyType = keyTypes.note
): Promise<{ readonly signerKey: string; readonly verifierKey: string }> => {
  if (!isKeyName(name)) throw new RangeError("a key's name is not empty and has neither spaces nor plus signs")
  const seed = newSeed()
  const verifier = verifierOf(name, type, await publicKeyOf(seed))
  const secret = toBase64(concatBytes(Uint8Array.of(type), seed))
  return { signerKey: `${signerPrefix}${keyLabel(verifier)}+${secret}`, verifierKey: verifier.text }
}
