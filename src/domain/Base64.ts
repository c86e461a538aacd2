/** Base64 (RFC 4648, section 4) with padding, in its one canonical form: what two texts could say is no signature's text. */

export const toBase64 = (bytes: Uint8Array): string => {
  let binary = ""
  for (const byte of bytes) binary += String.fromCharCode(byte)
  return btoa(binary)
}

/** The bytes; undefined unless the text is exactly what `toBase64` writes of them. */
export const fromBase64 = (text: string): Uint8Array<ArrayBuffer> | undefined => {
  if (!/^[A-Za-z0-9+/]*={0,2}$/u.test(text) || text.length % 4 !== 0) return undefined
  const bytes = Uint8Array.from(atob(text), (character) => character.charCodeAt(0))
  // bits that belong to no byte
  return toBase64(bytes) === text ? bytes : undefined
}
