/**
 * A claim's place in a token, as a JSONPath that names exactly one value: `$.sub`, `$.realm_access.roles`,
 * `$['https://acme.example/roles']`, `$["a b"].c`. Wildcards, slices, filters and indexes are refused when the strategy
 * is compiled (RFC 9535 calls what is left a singular query of names), so that a mapping never yields a list whose
 * length a token decides.
 */
import { Result } from "effect"

/** The names on the way from the root of the claims to the value. */
export type ClaimPath = ReadonlyArray<string>

const dotted = /^\.([A-Za-z_][A-Za-z0-9_-]*)/
const quoted = /^\[(?:'((?:[^'\\]|\\['\\])+)'|"((?:[^"\\]|\\["\\])+)")\]/

/** Reads a path; the fault is a sentence for whoever wrote it. At most 16 names. */
export const parseClaimPath = (text: string): Result.Result<ClaimPath, string> => {
  if (!text.startsWith("$")) return Result.fail(`a claim path begins with "$", as in "$.sub"; this is "${text}"`)
  const names: Array<string> = []
  let rest = text.slice(1)
  while (rest !== "") {
    const name = dotted.exec(rest) ?? quoted.exec(rest)
    if (name === null) return Result.fail(`"${text}" is not a path of names such as "$.a.b" or "$['a']"`)
    names.push((name[1] ?? name[2] ?? "").replaceAll(/\\(.)/g, "$1"))
    rest = rest.slice(name[0].length)
  }
  if (names.length === 0) return Result.fail(`"${text}" names no claim`)
  if (names.length > 16) return Result.fail(`"${text}" has more than 16 names`)
  return Result.succeed(names)
}

/**
 * The value at a path, or undefined where there is none. Only a token's own members count: a path through
 * `constructor` or `__proto__` finds what the token says under that name, or nothing.
 */
export const claimAt = (claims: unknown, path: ClaimPath): unknown => {
  let value = claims
  for (const name of path) {
    if (typeof value !== "object" || value === null || Array.isArray(value) || !Object.hasOwn(value, name)) {
      return undefined
    }
    value = (value as Record<string, unknown>)[name]
  }
  return value
}
