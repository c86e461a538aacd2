/**
 * JSON whose numbers stay what was written: `1.10`, 2^53 + 1 and 38 digits come and go without passing through a float.
 *
 * A number is an `ExactNumber` that holds its source text (the reviver's `context.source`, ECMAScript 2026), and is
 * written back by `JSON.rawJSON`. Reading is strict (RFC 8259), bounded in depth before anything recurses, and refuses an
 * object that names a member twice, which two readers would understand differently.
 */

/** A JSON number as it was written. */
export class ExactNumber {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
  /** The float nearest to it: for sizes and limits, never for a record's value. */
  toNumber(): number {
    return Number(this.text)
  }
  toJSON(): unknown {
    return rawJson(this.text)
  }
  toString(): string {
    return this.text
  }
}

export type ExactValue = null | boolean | string | ExactNumber | ReadonlyArray<ExactValue> | ExactObject
export interface ExactObject {
  readonly [key: string]: ExactValue
}

/** A number as the digits that a program may compute with exactly: `-12.3400`, no exponent. */
export type DecimalString = string

export class ExactJsonError extends Error {
  readonly reason: "syntax" | "depth" | "duplicate"
  constructor(reason: "syntax" | "depth" | "duplicate", message: string) {
    super(message)
    this.name = "ExactJsonError"
    this.reason = reason
  }
}

export const maxDepth = 32

interface RawJson {
  readonly rawJSON: string
}
const native = JSON as unknown as {
  rawJSON(text: string): RawJson
  parse(text: string, reviver: (key: string, value: unknown, context: { readonly source?: string }) => unknown): unknown
}
const rawJson = (text: string): RawJson => native.rawJSON(text)

const quote = 0x22
const backslash = 0x5c
const colon = 0x3a
const openBrace = 0x7b
const closeBrace = 0x7d
const openBracket = 0x5b
const closeBracket = 0x5d
const isSpace = (code: number) => code === 0x20 || code === 0x0a || code === 0x0d || code === 0x09

/** The index behind the string that begins at `start`; the text's end when it is not closed. */
const endOfString = (text: string, start: number): number => {
  let index = start + 1
  for (;;) {
    index = text.indexOf('"', index)
    if (index < 0) return text.length
    let slashes = 0
    while (text.charCodeAt(index - 1 - slashes) === backslash) slashes++
    if (slashes % 2 === 0) return index + 1
    index += 1
  }
}

/** Looks once over the text, without recursion, for depth and repeated members. Syntax is JSON.parse's matter. */
const inspect = (text: string, depthLimit: number): void => {
  const members: Array<Set<string> | undefined> = []
  let depth = 0
  for (let index = 0; index < text.length; ) {
    const code = text.charCodeAt(index)
    if (code === quote) {
      const end = endOfString(text, index)
      let next = end
      while (isSpace(text.charCodeAt(next))) next++
      const names = text.charCodeAt(next) === colon ? members[depth - 1] : undefined
      if (names !== undefined) {
        const raw = text.slice(index + 1, end - 1)
        const name = raw.includes("\\") ? unescaped(text.slice(index, end)) : raw
        if (names.has(name)) throw new ExactJsonError("duplicate", "an object names a member twice")
        names.add(name)
      }
      index = end
      continue
    }
    if (code === openBrace || code === openBracket) {
      if (++depth > depthLimit) throw new ExactJsonError("depth", `nested deeper than ${depthLimit}`)
      members[depth - 1] = code === openBrace ? new Set() : undefined
    } else if (code === closeBrace || code === closeBracket) {
      depth = Math.max(0, depth - 1)
    }
    index += 1
  }
}

const unescaped = (literal: string): string => {
  try {
    return JSON.parse(literal) as string
  } catch {
    throw new ExactJsonError("syntax", "a string has an escape that JSON does not know")
  }
}

const revive = (_key: string, value: unknown, context: { readonly source?: string }): unknown =>
  typeof value === "number" ? new ExactNumber(context.source ?? String(value)) : value

/** Parses a text. Throws `ExactJsonError`; its message quotes nothing of the text. */
export const parse = (text: string, options?: { readonly maxDepth?: number }): ExactValue => {
  inspect(text, options?.maxDepth ?? maxDepth)
  try {
    return native.parse(text, revive) as ExactValue
  } catch (cause) {
    const place = cause instanceof Error ? /position (\d+)/u.exec(cause.message)?.[1] : undefined
    throw new ExactJsonError("syntax", place === undefined ? "not valid JSON" : `not valid JSON at character ${place}`)
  }
}

/** Writes a value; numbers as they were read. */
export const stringify = (value: ExactValue): string => JSON.stringify(value)

export const isExactObject = (value: ExactValue | undefined): value is ExactObject =>
  typeof value === "object" && value !== null && !Array.isArray(value) && !(value instanceof ExactNumber)

/** More digits than any column could hold are refused before they are written out. */
const longestExponent = 2000

/**
 * A JSON number without exponent, e.g. `1.5e3` as `1500`; undefined for one whose exponent is beyond 2,000.
 * Trailing zeros after the point are kept: `1.10` stays.
 */
export const decimalText = (number: ExactNumber | string): DecimalString | undefined => {
  const text = typeof number === "string" ? number : number.text
  const match = /^(-?)([0-9]+)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?$/u.exec(text)
  if (match === null) return undefined
  const [, sign = "", whole = "", fraction = "", exponent] = match
  if (exponent === undefined) return text
  const shift = Number(exponent)
  if (Math.abs(shift) > longestExponent) return undefined
  const digits = whole + fraction
  const point = whole.length + shift
  const left = point <= 0 ? "0" : digits.slice(0, point).padEnd(point, "0")
  const right = point <= 0 ? "0".repeat(-point) + digits : digits.slice(point)
  const trimmed = left.replace(/^0+(?=[0-9])/u, "")
  return sign + trimmed + (right === "" ? "" : `.${right}`)
}

/** Compares two decimals exactly: negative, zero or positive. Both without exponent. */
export const compareDecimals = (a: DecimalString, b: DecimalString): number => {
  const [left, right] = [scaled(a), scaled(b)]
  const scale = Math.max(left.scale, right.scale)
  const difference = left.digits * 10n ** BigInt(scale - left.scale) - right.digits * 10n ** BigInt(scale - right.scale)
  return difference < 0n ? -1 : difference > 0n ? 1 : 0
}

const scaled = (decimal: DecimalString): { readonly digits: bigint; readonly scale: number } => {
  const point = decimal.indexOf(".")
  return point < 0
    ? { digits: BigInt(decimal), scale: 0 }
    : { digits: BigInt(decimal.slice(0, point) + decimal.slice(point + 1)), scale: decimal.length - point - 1 }
}

/** Digits after the point, trailing zeros not counted. */
export const scaleOf = (decimal: DecimalString): number => {
  const point = decimal.indexOf(".")
  return point < 0 ? 0 : decimal.slice(point + 1).replace(/0+$/u, "").length
}

/** Digits before the point, leading zeros not counted. */
export const wholeDigitsOf = (decimal: DecimalString): number =>
  (decimal.split(".")[0] ?? "").replace(/^-?0*/u, "").length
