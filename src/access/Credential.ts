/**
 * What a request brings to prove who asks: a bearer token, an API key, or nothing. An API key stands in `X-API-Key` or in
 * `Authorization: ApiKey`. Two credentials are refused, even where they are the same: whoever sends two may mean either,
 * and a proxy in between may have added one of them.
 */
import { Redacted, Result } from "effect"
import { type Problem, problem } from "../domain/Problem.ts"
import { bearerToken } from "./Authenticator.ts"
import { keyProblem } from "./KeyRefused.ts"

export type Credential =
  | { readonly _tag: "Nothing" }
  | { readonly _tag: "Token"; readonly token: Redacted.Redacted<string> }
  | { readonly _tag: "Key"; readonly key: Redacted.Redacted<string> }

const nothing: Credential = { _tag: "Nothing" }
const aKey = (text: string): Credential => ({ _tag: "Key", key: Redacted.make(text) })

/** Reads a request's headers. Fails with 401 where they are no credential, or two. */
export const credentialOf = (
  headers: Readonly<Record<string, string | undefined>>
): Result.Result<Credential, Problem> => {
  const { authorization, "x-api-key": given } = headers
  if (given !== undefined) {
    return authorization === undefined
      ? Result.succeed(aKey(given))
      : Result.fail(
          problem("credentials_conflict", {
            detail: "the request has both Authorization and X-API-Key",
            headers: { "WWW-Authenticate": "Bearer, ApiKey" }
          })
        )
  }
  // the scheme's case does not matter (RFC 9110 §11.1)
  const scheme = authorization === undefined ? null : /^ApiKey(?: +([^\s,]+))? *$/iu.exec(authorization)
  if (scheme !== null) {
    const [, key] = scheme
    return key === undefined
      ? Result.fail(keyProblem("key_malformed", "the header names the scheme ApiKey and no key"))
      : Result.succeed(aKey(key))
  }
  return Result.map(bearerToken(authorization), (token) => (token === undefined ? nothing : { _tag: "Token", token }))
}
