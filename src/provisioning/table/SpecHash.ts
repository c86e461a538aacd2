/** The hash of a spec, by which it is told whether there is anything to do. Independent of the order of keys. */
import { sha256Hex } from "../../domain/Sha256.ts"

/** A JSON value with the keys of its objects in order. */
const ordered = (value: unknown): unknown => {
  if (Array.isArray(value)) return value.map(ordered)
  if (typeof value !== "object" || value === null) return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, member]) => member !== undefined)
      .sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0))
      .map(([key, member]) => [key, ordered(member)])
  )
}

/** JSON that is the same for equal values. */
export const canonicalJson = (value: unknown): string => JSON.stringify(ordered(value))

/** 64 hexadecimal digits. */
export const specHash = (spec: unknown): string => sha256Hex(canonicalJson(spec))
