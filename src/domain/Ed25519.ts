/** Ed25519 (RFC 8032) by WebCrypto, which Node and browsers have: own code makes no signatures. */

/** PKCS #8 of an Ed25519 seed (RFC 8410, section 7) up to the seed, the only private form that WebCrypto reads. */
const pkcs8 = Uint8Array.of(0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20)
export const ed25519KeyLength = 32
export const ed25519SignatureLength = 64
const algorithm = "Ed25519"

const imported = (seed: Uint8Array, extractable: boolean): Promise<CryptoKey> => {
  const bytes = new Uint8Array(pkcs8.length + ed25519KeyLength)
  bytes.set(pkcs8)
  bytes.set(seed, pkcs8.length)
  return crypto.subtle.importKey("pkcs8", bytes, algorithm, extractable, ["sign"])
}

/** The private key of a seed of 32 bytes; it cannot be read out again. */
export const privateKeyOf = (seed: Uint8Array): Promise<CryptoKey> => imported(seed, false)

/** The 32 bytes of the public key. */
export const publicKeyOf = async (seed: Uint8Array): Promise<Uint8Array<ArrayBuffer>> => {
  const { x = "" } = await crypto.subtle.exportKey("jwk", await imported(seed, true))
  const text = x.replaceAll("-", "+").replaceAll("_", "/")
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
}

export const newSeed = (): Uint8Array<ArrayBuffer> => crypto.getRandomValues(new Uint8Array(ed25519KeyLength))

export const signEd25519 = async (key: CryptoKey, message: Uint8Array): Promise<Uint8Array<ArrayBuffer>> =>
  new Uint8Array(await crypto.subtle.sign(algorithm, key, new Uint8Array(message)))

/** Rejects only where the platform cannot do Ed25519 at all, which is no verdict. */
export const verifyEd25519 = async (
  publicKey: Uint8Array,
  message: Uint8Array,
  signature: Uint8Array
): Promise<boolean> => {
  if (signature.length !== ed25519SignatureLength) return false
  const key = await crypto.subtle.importKey("raw", new Uint8Array(publicKey), algorithm, false, ["verify"])
  return crypto.subtle.verify(algorithm, key, new Uint8Array(signature), new Uint8Array(message))
}
