/**
 * The regular expressions that a definition may use: those that mean the same in PostgreSQL (ARE, chapter 9.7.3) and in
 * the API (RE2), because the constraint holds in both; they mean the same in JavaScript with the flags `us` too, where
 * an OpenAPI document's reader may use them.
 *
 * Allowed: literals, `.`, classes `[…]` of literals and ranges, groups `(…)` and `(?:…)`, `|`, anchors `^ $`, quantifiers
 * `* + ? {n} {n,} {n,m}` with n, m up to 255 and nested ones up to 1,000 in all (RE2's limit), escaped punctuation, and
 * `\d`. Everything else is refused: lookaround, back-references, named groups, POSIX classes, `\w`, `\b`, `\s` (their
 * letters differ), non-greedy quantifiers. `.` and negated classes match a line break, as in Postgres.
 */
import { RE2JS } from "@bufbuild/re2"

/** Why a pattern is not in the common subset, or undefined when it is. */
export const patternFault = (pattern: string): string | undefined => {
  let depth = 0
  let quantifiable = false
  for (let index = 0; index < pattern.length; ) {
    const char = pattern[index] as string
    if ((char.codePointAt(0) as number) < 0x20) return "control characters are not allowed"
    switch (char) {
      case "\\": {
        const next = pattern[index + 1]
        if (next === undefined) return "it ends in a backslash"
        if (next !== "d" && !/[\\^$.*+?()[\]{}|/-]/u.test(next)) {
          return `\\${next} does not mean the same in PostgreSQL and JavaScript`
        }
        index += 2
        quantifiable = true
        continue
      }
      case "[": {
        const end = classEnd(pattern, index)
        if (typeof end === "string") return end
        index = end
        quantifiable = true
        continue
      }
      case "(":
        if (pattern[index + 1] === "?") {
          if (pattern[index + 2] !== ":") return "of the groups with (? only (?:…) is allowed"
          index += 3
        } else if (pattern[index + 1] === "*") {
          return "a group cannot begin with *"
        } else index += 1
        depth += 1
        quantifiable = false
        continue
      case ")":
        if (depth-- === 0) return "a ) closes nothing"
        index += 1
        quantifiable = true
        continue
      case "*":
      case "+":
      case "?":
      case "{": {
        if (!quantifiable) return `${char} follows nothing that can be repeated`
        const length = quantifierLength(pattern, index)
        if (length === undefined) return "a repetition is {n}, {n,} or {n,m} with n ≤ m ≤ 255"
        index += length
        if (pattern[index] === "?" || pattern[index] === "+")
          return "non-greedy and possessive repetitions are not allowed"
        quantifiable = false
        continue
      }
      case "}":
      case "]":
        return `${char} must be escaped`
      case "^":
      case "$":
      case "|":
        index += 1
        quantifiable = false
        continue
      default:
        index += (pattern.codePointAt(index) as number) > 0xffff ? 2 : 1
        quantifiable = true
    }
  }
  if (depth > 0) return "a ( is not closed"
  try {
    new RegExp(pattern, "us")
  } catch {
    return "it is not a regular expression"
  }
  try {
    compilePattern(pattern)
    return undefined
  } catch {
    return "its repetitions come to more than 1000"
  }
}

const quantifierLength = (pattern: string, index: number): number | undefined => {
  if (pattern[index] !== "{") return 1
  const match = /^\{(\d{1,3})(?:(,)(\d{1,3})?)?\}/u.exec(pattern.slice(index))
  if (match === null) return undefined
  const [whole, low, comma, high] = match
  const from = Number(low)
  const to = comma === undefined ? from : high === undefined ? from : Number(high)
  return from <= to && to <= 255 ? whole.length : undefined
}

const classEnd = (pattern: string, start: number): number | string => {
  let index = start + 1
  if (pattern[index] === "^") index += 1
  let inRange = false
  let afterRange = false
  for (let members = 0; index < pattern.length; members++) {
    const char = pattern[index] as string
    if (char === "]") return members === 0 ? "a class [] is empty" : index + 1
    if (char === "[") return "a [ in a class must be escaped"
    if (char === "-" && members > 0 && pattern[index + 1] !== "]" && !inRange) {
      if (afterRange) return "a range in a class cannot begin where another ends"
      inRange = true
      index += 1
      continue
    }
    if (char === "\\") {
      const next = pattern[index + 1]
      if (next === undefined || (next !== "d" && !/[\\^$.*+?()[\]{}|/-]/u.test(next))) {
        return `\\${next ?? ""} in a class does not mean the same in PostgreSQL and JavaScript`
      }
      index += 2
    } else index += (pattern.codePointAt(index) as number) > 0xffff ? 2 : 1
    afterRange = inRange
    inRange = false
  }
  return "a [ is not closed"
}

/** A pattern of the subset, to match as Postgres does, in linear time whatever the text. Throws on any other. */
export const compilePattern = (pattern: string): RE2JS => RE2JS.compile(pattern, RE2JS.DOTALL)
