/**
 * An API key as text: `vel_{environment}_{43 base64url}`, 256 random bits behind a prefix by which people and secret scanners
 * know what it is and where it belongs. Only its SHA-256 is kept, over the text as a whole: a key of 256 bits has nothing
 * that a slow hash would protect, and needs no salt.
 */

/** Of an installation, such as live, test or dev: so that a database copied from one opens nothing to the other's keys. */
export const environmentPattern = /^[a-z][a-z0-9]{0,15}$/u

// the last character stands for four bits and two of padding, which are zero: one text for one secret
const shape = /^vel_([a-z][a-z0-9]{0,15})_([A-Za-z0-9_-]{42}[AEIMQUYcgkosw048])$/u

/** The longest text that can be a key; what is longer is refused unread. */
export const maxKeyLength = 64

/** The environment that a key names; undefined for what is no key. */
export const keyEnvironment = (text: string): string | undefined =>
  text.length > maxKeyLength ? undefined : shape.exec(text)?.[1]

const toBase64Url = (bytes: Uint8Array): string =>
  btoa(String.fromCharCode(...bytes))
    .replaceAll("+", "-")
    .replaceAll("/", "_")
    .replaceAll("=", "")

/** The key with these 32 bytes. */
export const keyText = (environment: string, secret: Uint8Array): string => `vel_${environment}_${toBase64Url(secret)}`

/** A key that nobody has seen. */
export const newKey = (environment: string): string => keyText(environment, crypto.getRandomValues(new Uint8Array(32)))

/** What a key is called where people compare keys: the first 16 digits of its hash in hexadecimal. */
export const fingerprintOf = (hashHex: string): string => hashHex.slice(0, 16)
