/**
 * Ids of records: UUID version 7 (RFC 9562, section 5.7), so that the order of ids is the order of creation. They are
 * made by the API, never by a column default, because an id must be known before its row is written.
 */
const pattern = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/u

/** Any UUID in its canonical lower-case form. */
export const isUuid = (text: string): boolean => pattern.test(text)

const digits = Array.from({ length: 256 }, (_, byte) => byte.toString(16).padStart(2, "0"))

/**
 * The UUID of a time and ten random bytes.
 *
 * @param millis milliseconds since 1970, below 2^48
 * @param random at least ten bytes from `offset`; six of their bits are overwritten by version and variant
 */
export const uuidv7 = (millis: number, random: Uint8Array, offset = 0): string => {
  const high = Math.floor(millis / 0x1_0000)
  const low = millis % 0x1_0000
  const byte = (value: number) => digits[value & 0xff] as string
  const r = (index: number) => random[offset + index] as number
  return (
    byte(high >>> 24) +
    byte(high >>> 16) +
    byte(high >>> 8) +
    byte(high) +
    "-" +
    byte(low >>> 8) +
    byte(low) +
    "-" +
    byte(0x70 | (r(0) & 0x0f)) +
    byte(r(1)) +
    "-" +
    byte(0x80 | (r(2) & 0x3f)) +
    byte(r(3)) +
    "-" +
    byte(r(4)) +
    byte(r(5)) +
    byte(r(6)) +
    byte(r(7)) +
    byte(r(8)) +
    byte(r(9))
  )
}

/**
 * A source of ids that rise strictly within one process, even within a millisecond: the twelve bits after the version
 * count up (RFC 9562, section 6.2, method 1), and the millisecond is borrowed from the future when they run over.
 *
 * @param now milliseconds since 1970
 * @param fill fills an array with random bytes
 */
export const uuidSource = (now: () => number, fill: (bytes: Uint8Array<ArrayBuffer>) => void): (() => string) => {
  const pool = new Uint8Array(8 * 256)
  let used = pool.length
  let last = 0
  let counter = 0
  const random = new Uint8Array(10)
  return () => {
    if (used === pool.length) {
      fill(pool)
      used = 0
    }
    const millis = now()
    if (millis > last) {
      last = millis
      // the upper half is left for counting
      counter = ((pool[used] as number) << 3) & 0x7ff
    } else if (++counter > 0xfff) {
      last += 1
      counter = 0
    }
    random.set(pool.subarray(used, used + 8), 2)
    used += 8
    random[0] = counter >>> 8
    random[1] = counter & 0xff
    return uuidv7(last, random)
  }
}
