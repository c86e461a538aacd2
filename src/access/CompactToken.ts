/**
 * A bearer token as it came, taken apart but not yet believed: JWS compact serialization (RFC 7515 §7.1), strictly.
 *
 * Strictness is what keeps two readers of one token from seeing two tokens: base64url must be canonical (no padding,
 * no stray bits), text must be UTF-8, no object may name a member twice, and nothing that would make a header choose
 * its own key (`jku`, `jwk`, `x5u`, `x5c`) is ever read. Header parameters that must be understood (`crit`), an
 * unencoded payload (`b64`, RFC 7797) and other kinds of token by `typ` are refused.
 */
import { Result } from "effect"
import * as ExactJson from "../domain/ExactJson.ts"
import { own } from "../domain/Own.ts"
import { TokenRefused } from "./TokenRefused.ts"

/** The longest token that is looked at, in bytes; what is longer is refused unread. */
export const maxTokenLength = 16_384

/** A token's parts. `claims` are what it says, which is nothing until a key has vouched for `text`. */
export interface CompactToken {
  readonly text: string
  readonly algorithm: string
  readonly keyId: string | undefined
  readonly issuer: string
  readonly claims: Readonly<Record<string, unknown>>
}

const shape = /^([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)$/
const types = new Set(["jwt", "application/jwt", "at+jwt", "application/at+jwt"])
const utf8 = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true })

const malformed = (detail: string) => Result.fail(new TokenRefused({ code: "token_malformed", detail }))

const isCanonical = (part: string): boolean => Buffer.from(part, "base64url").toString("base64url") === part

/** One part as a JSON object; undefined for anything else, and for an object that names a member twice. */
const objectOf = (part: string): Record<string, unknown> | undefined => {
  try {
    const text = utf8.decode(Buffer.from(part, "base64url"))
    ExactJson.parse(text, { maxDepth: 32 })
    const value: unknown = JSON.parse(text)
    return typeof value === "object" && value !== null && !Array.isArray(value)
      ? (value as Record<string, unknown>)
      : undefined
  } catch {
    return undefined
  }
}

/** Takes a token apart. Refuses with `token_malformed`, `token_unsigned` or, for one without an issuer, `token_issuer`. */
export const readToken = (text: string): Result.Result<CompactToken, TokenRefused> => {
  if (text.length > maxTokenLength) return malformed(`the token is longer than ${maxTokenLength} bytes`)
  const parts = shape.exec(text)
  if (parts === null) return malformed("the token is not three parts of base64url with dots between them")
  const [, head = "", payload = "", signature = ""] = parts
  if (!isCanonical(head) || !isCanonical(payload) || !isCanonical(signature)) {
    return malformed("a part of the token is not canonical base64url")
  }
  const header = objectOf(head)
  if (header === undefined) return malformed("the token's header is not a JSON object with unique members")
  const algorithm = own(header, "alg")
  if (typeof algorithm !== "string") return malformed("the token's header names no algorithm")
  if (algorithm.toLowerCase() === "none" || signature === "") {
    return Result.fail(new TokenRefused({ code: "token_unsigned", detail: "the token carries no signature" }))
  }
  if (own(header, "crit") !== undefined) return malformed("the token's header has critical extensions, none is known")
  if (own(header, "b64") !== undefined) return malformed("the token's payload is not base64url by its own header")
  const type = own(header, "typ")
  if (type !== undefined && (typeof type !== "string" || !types.has(type.toLowerCase()))) {
    return malformed("the token's header says that it is not an access token")
  }
  const keyId = own(header, "kid")
  if (keyId !== undefined && (typeof keyId !== "string" || keyId.length > 255)) {
    return malformed("the token's key id is not a string of at most 255 characters")
  }
  const claims = objectOf(payload)
  if (claims === undefined) return malformed("the token's claims are not a JSON object with unique members")
  const issuer = own(claims, "iss")
  if (typeof issuer !== "string") {
    return Result.fail(new TokenRefused({ code: "token_issuer", detail: "the token names no issuer" }))
  }
  return Result.succeed({ text, algorithm, keyId, issuer, claims })
}
