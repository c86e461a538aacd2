/**
 * Why a token is not believed. Every reason is a documented problem code of its own, so that whoever holds the token
 * can tell an expired one from one that was signed for somebody else, and an attacker learns nothing that the token
 * itself does not say.
 *
 * The order of `refusals` is how far a token came before it was refused. Where several strategies share an issuer, the
 * one under which it came farthest tells the reason: so the answer depends on the token alone, never on the path that
 * was asked for.
 */
import { Data } from "effect"

/** The reasons, in the order in which a token meets them. */
export const refusals = [
  "token_malformed",
  "token_unsigned",
  "token_issuer",
  "token_algorithm",
  "token_key",
  "token_signature",
  "dependency_unavailable",
  "token_audience",
  "token_expired",
  "token_not_yet_valid",
  "token_claims",
  "actor_revoked"
] as const

export type Refusal = (typeof refusals)[number]

/** A token that was refused: the code of its problem, and a sentence for its holder that quotes nothing secret. */
export class TokenRefused extends Data.TaggedError("TokenRefused")<{
  readonly code: Refusal
  readonly detail: string
}> {}

/** Of two refusals the one whose token came farther. */
export const farther = (a: TokenRefused, b: TokenRefused): TokenRefused =>
  refusals.indexOf(b.code) > refusals.indexOf(a.code) ? b : a
