/**
 * Network addresses and ranges of them in CIDR notation (RFC 4632, RFC 4291 §2.3), for allow-lists. An IPv4 client that
 * reached a socket of both families (`::ffff:192.0.2.7`) is an IPv4 client; a range is written in its own family.
 */

/** A range; a single address is one of all its bits. */
export interface AddressRange {
  readonly family: 4 | 6
  readonly bits: bigint
  readonly prefix: number
}

type Address = Omit<AddressRange, "prefix">

const widthOf = (family: 4 | 6): number => (family === 4 ? 32 : 128)

const ipv4 = (text: string): bigint | undefined => {
  const parts = /^(\d{1,3})\.(\d{1,3})\.(\d{1,3})\.(\d{1,3})$/u.exec(text)?.slice(1)
  // a leading zero is octal to some readers
  if (parts === undefined || parts.some((part) => Number(part) > 255 || String(Number(part)) !== part)) return undefined
  return parts.reduce((bits, part) => (bits << 8n) | BigInt(part), 0n)
}

const groupsOf = (text: string): ReadonlyArray<string> | undefined => {
  const groups = text === "" ? [] : text.split(":")
  return groups.every((group) => /^[0-9A-Fa-f]{1,4}$/u.test(group)) ? groups : undefined
}

const ipv6 = (text: string): bigint | undefined => {
  const tail = /^(.*:)([^:]*\.[^:]*)$/u.exec(text)
  const low = tail === null ? undefined : ipv4(tail[2] ?? "")
  if (tail !== null && low === undefined) return undefined
  const whole = low === undefined ? text : `${tail?.[1]}${(low >> 16n).toString(16)}:${(low & 0xffffn).toString(16)}`
  const halves = whole.split("::")
  const [head, rest] = [groupsOf(halves[0] ?? ""), halves.length === 2 ? groupsOf(halves[1] ?? "") : []]
  if (halves.length > 2 || head === undefined || rest === undefined) return undefined
  const missing = 8 - head.length - rest.length
  if (halves.length === 2 ? missing < 1 : missing !== 0) return undefined
  const groups = [...head, ...Array.from({ length: missing }, () => "0"), ...rest]
  return groups.reduce((bits, group) => (bits << 16n) | BigInt(`0x${group}`), 0n)
}

const addressOf = (text: string): Address | undefined => {
  const four = ipv4(text)
  if (four !== undefined) return { family: 4, bits: four }
  const six = ipv6(text)
  return six === undefined ? undefined : { family: 6, bits: six }
}

const isMapped = ({ bits, family }: Address): boolean => family === 6 && bits >> 32n === 0xffffn

/** A range or an address as it is written in an allow-list; undefined for anything else. */
export const parseRange = (text: string): AddressRange | undefined => {
  const [address = "", length, ...more] = text.split("/")
  const found = addressOf(address)
  if (found === undefined || isMapped(found) || more.length > 0) return undefined
  if (length === undefined) return { ...found, prefix: widthOf(found.family) }
  if (!/^(0|[1-9][0-9]{0,2})$/u.test(length) || Number(length) > widthOf(found.family)) return undefined
  return { ...found, prefix: Number(length) }
}

/** A client's address as its socket tells it, a zone (`%eth0`) aside; undefined for what is none. */
const clientAddress = (text: string): Address | undefined => {
  const found = addressOf(text.split("%", 1)[0] ?? "")
  return found !== undefined && isMapped(found) ? { family: 4, bits: found.bits & 0xffff_ffffn } : found
}

/** Whether a client's address is in one of these ranges; what is no address is in none. */
export const isWithin = (text: string, ranges: ReadonlyArray<AddressRange>): boolean => {
  const address = clientAddress(text)
  if (address === undefined) return false
  return ranges.some(({ bits, family, prefix }) => {
    const rest = BigInt(widthOf(family) - prefix)
    return family === address.family && bits >> rest === address.bits >> rest
  })
}
