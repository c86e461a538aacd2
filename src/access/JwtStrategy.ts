/**
 * One AuthStrategy of type `jwt`, compiled: which tokens it believes, and who their holder is by its mapping.
 *
 * A token is believed when its algorithm is one that the strategy lists, one of the strategy's own keys made its
 * signature, its issuer and audience are the strategy's, and it is neither expired nor early (RFC 7519 §4.1, with the
 * strategy's clock skew on both ends). A token without `exp` is refused: what never ends cannot be taken back.
 *
 * Pass it tokens from `readToken` only; `Authenticator` is the way in for requests.
 */
import { Clock, Effect, Result } from "effect"
import { type CryptoKey, compactVerify } from "jose"
import { type JwtSpec, jwtAlgorithms } from "../domain/AuthStrategy.ts"
import { type Identity, isName, isPlain } from "../domain/Identity.ts"
import { type ClaimPath, claimAt, parseClaimPath } from "./ClaimPath.ts"
import type { CompactToken } from "./CompactToken.ts"
import { defaultTimings, fetchedKeys, inlineKeys, isKeySetUrl, type KeySet, type KeySetTimings } from "./KeySet.ts"
import { TokenRefused } from "./TokenRefused.ts"

/** A compiled strategy. Its keys are its own, and end with it. */
export interface JwtStrategy {
  readonly id: string
  readonly issuers: ReadonlySet<string>
  readonly keys: KeySet
  readonly verify: (token: CompactToken) => Effect.Effect<Identity, TokenRefused>
}

const refuse = (code: TokenRefused["code"], detail: string) => Result.fail(new TokenRefused({ code, detail }))

// RFC 7519 NumericDate: beyond the year 9999 no clock of ours can follow, so that is where every token ends
const lastSecond = 253_402_300_799

/** The most roles and attribute values that a token's holder can have; the token's own length bounds them as well. */
const maxRoles = 256

const rolesAt = (value: unknown): ReadonlyArray<string> | undefined => {
  if (value === undefined || value === null) return []
  // one string is a list with spaces between, as `scope` is (RFC 8693 §4.2)
  const roles = typeof value === "string" ? value.split(" ").filter((role) => role !== "") : value
  if (!Array.isArray(roles) || roles.length > maxRoles || !roles.every(isName)) return undefined
  return [...new Set(roles)]
}

const scalarAt = (value: unknown): string | undefined => {
  if (typeof value === "string") return value.length <= 1024 && isPlain(value) ? value : undefined
  if (typeof value === "boolean" || (typeof value === "number" && Number.isSafeInteger(value))) return String(value)
  return undefined
}

const attributeAt = (value: unknown): string | ReadonlyArray<string> | undefined => {
  if (!Array.isArray(value)) return scalarAt(value)
  const values = value.map(scalarAt)
  return value.length <= maxRoles && values.every((item) => item !== undefined) ? values : undefined
}

interface Mapping {
  readonly actorId: ClaimPath
  readonly roles: ClaimPath
  readonly attributes: ReadonlyArray<readonly [string, ClaimPath]>
}

/** The attributes' names and claims; what is mapped by name stands after, and so above, what `*` brings. */
const attributeClaims = (
  mapping: Mapping,
  claims: CompactToken["claims"]
): ReadonlyArray<readonly [string, unknown]> => {
  const open: Array<readonly [string, unknown]> = []
  const named: Array<readonly [string, unknown]> = []
  for (const [name, path] of mapping.attributes) {
    const claim = claimAt(claims, path)
    if (name !== "*") named.push([name, claim])
    else if (typeof claim === "object" && claim !== null && !Array.isArray(claim)) open.push(...Object.entries(claim))
    // anything else has no members to name: under the name that no attribute can have, it is refused
    else if (claim !== undefined && claim !== null) open.push(["", claim])
  }
  return [...open, ...named]
}

const identityFrom = (
  id: string,
  mapping: Mapping,
  claims: CompactToken["claims"],
  expiresAt: number
): Result.Result<Identity, TokenRefused> => {
  const subject = claimAt(claims, mapping.actorId)
  if (!isName(subject)) return refuse("token_claims", "the token does not say who its holder is")
  const roles = rolesAt(claimAt(claims, mapping.roles))
  if (roles === undefined) return refuse("token_claims", "the token's roles are not a list of names")
  const attributes = new Map<string, string | ReadonlyArray<string>>()
  for (const [name, claim] of attributeClaims(mapping, claims)) {
    if (claim === undefined || claim === null) continue
    const value = attributeAt(claim)
    if (value === undefined || !isName(name) || attributes.size >= maxRoles) {
      return refuse("token_claims", "the token's attributes are not names with text")
    }
    attributes.set(name, value)
  }
  return Result.succeed({
    actor: `${id}/${subject}`,
    strategy: id,
    subject,
    roles,
    attributes: Object.fromEntries(attributes),
    expiresAt
  })
}

const isTime = (value: unknown): value is number => typeof value === "number" && Number.isFinite(value)

const audienceOf = (claims: CompactToken["claims"]): ReadonlyArray<unknown> => {
  const audience = Object.hasOwn(claims, "aud") ? claims.aud : undefined
  return Array.isArray(audience) ? audience : [audience]
}

/** Judges what a token says once its signature holds. `now` is in milliseconds. */
const judge = (
  id: string,
  settings: JwtSpec,
  mapping: Mapping,
  token: CompactToken,
  now: number
): Result.Result<Identity, TokenRefused> => {
  const { claims } = token
  const skew = Number.parseInt(settings.clockSkew, 10) * 1000
  if (!audienceOf(claims).includes(settings.audience)) {
    return refuse("token_audience", "the token is meant for another audience")
  }
  const exp = claims.exp
  if (!isTime(exp)) return refuse("token_claims", "the token does not say when it ends")
  if (exp * 1000 + skew <= now) return refuse("token_expired", "the token has expired")
  const nbf = claims.nbf
  if (nbf !== undefined) {
    if (!isTime(nbf)) return refuse("token_claims", "the token does not say when it begins")
    if (nbf * 1000 - skew > now) return refuse("token_not_yet_valid", "the token is not valid yet")
  }
  return identityFrom(id, mapping, claims, Math.floor(Math.min(exp, lastSecond) * 1000))
}

const signedBy = (token: CompactToken, key: CryptoKey): Effect.Effect<boolean> =>
  Effect.promise(() =>
    compactVerify(token.text, key, { algorithms: [token.algorithm] }).then(
      () => true,
      () => false
    )
  )

const compileMapping = (claims: JwtSpec["claims"]): Result.Result<Mapping, string> =>
  Result.gen(function* () {
    const attributes: Array<readonly [string, ClaimPath]> = []
    for (const [name, path] of Object.entries(claims.attributes)) {
      attributes.push([name, yield* parseClaimPath(path)])
    }
    return {
      actorId: yield* parseClaimPath(claims.actorId),
      roles: yield* parseClaimPath(claims.roles),
      attributes
    }
  })

const keysOf = (settings: JwtSpec, timings: KeySetTimings): Result.Result<KeySet, string> => {
  if (settings.jwks !== undefined) return Result.succeed(inlineKeys(settings.jwks))
  if (settings.jwksUrl === undefined) return Result.fail("a jwt strategy needs jwks or jwksUrl")
  if (!isKeySetUrl(settings.jwksUrl)) return Result.fail("jwksUrl is neither https nor http on a loopback address")
  return Result.succeed(fetchedKeys(settings.jwksUrl, timings))
}

/**
 * Compiles a strategy; the fault is a sentence for whoever wrote it. Compile once for each change of the strategy: the
 * keys that were fetched live in the value.
 */
export const compileJwt = (
  id: string,
  settings: JwtSpec,
  timings: KeySetTimings = defaultTimings
): Result.Result<JwtStrategy, string> =>
  Result.gen(function* () {
    // the resource's own Schema refuses these as well; what decides over access is not left to a row in a table
    const unknown = settings.algorithms.filter((name) => !jwtAlgorithms.includes(name))
    if (unknown.length > 0) return yield* Result.fail(`not an algorithm with public keys: ${unknown.join(", ")}`)
    if (settings.issuers.length === 0) return yield* Result.fail("a jwt strategy needs an issuer")
    if (settings.audience === "") return yield* Result.fail("a jwt strategy needs an audience")
    const mapping = yield* compileMapping(settings.claims)
    const keys = yield* keysOf(settings, timings)
    const allowed: ReadonlySet<string> = new Set(settings.algorithms)
    const issuers = new Set(settings.issuers)

    const isSigned = Effect.fnUntraced(function* (token: CompactToken, candidates: ReadonlyArray<CryptoKey>) {
      for (const key of candidates) if (yield* signedBy(token, key)) return true
      return false
    })

    const verify = Effect.fnUntraced(function* (token: CompactToken) {
      if (!issuers.has(token.issuer)) {
        return yield* new TokenRefused({ code: "token_issuer", detail: "the token's issuer is not known here" })
      }
      if (!allowed.has(token.algorithm)) {
        return yield* new TokenRefused({
          code: "token_algorithm",
          detail: `the token's algorithm is not one of ${settings.algorithms.join(", ")}`
        })
      }
      const candidates = yield* keys.candidates(token.algorithm, token.keyId)
      if (candidates.length === 0) {
        return yield* new TokenRefused({
          code: "token_key",
          detail: "the token was signed with a key that is not known"
        })
      }
      if (!(yield* isSigned(token, candidates))) {
        // an issuer may have put a new key in the place of an old one under the same id, or under none
        const renewed = yield* Effect.orElseSucceed(keys.renew, () => false)
        if (!renewed || !(yield* isSigned(token, yield* keys.candidates(token.algorithm, token.keyId)))) {
          return yield* new TokenRefused({ code: "token_signature", detail: "the token's signature does not hold" })
        }
      }
      return yield* Effect.fromResult(judge(id, settings, mapping, token, yield* Clock.currentTimeMillis))
    })

    return {
      id,
      issuers,
      keys,
      verify: (token) =>
        Effect.catchTag(verify(token), "KeysUnavailable", (failure) =>
          Effect.andThen(
            Effect.logWarning(`strategy ${id}: ${failure.detail}`),
            Effect.fail(
              new TokenRefused({
                code: "dependency_unavailable",
                detail: "the keys of the token's issuer cannot be had"
              })
            )
          )
        )
    }
  })
