/**
 * Why an API key is not believed. Each reason is a problem of its own: who holds a key of 256 random bits may know what
 * became of it, and nobody else can ask.
 */
import { Data } from "effect"
import { type Problem, problem } from "../domain/Problem.ts"

export const keyRefusals = [
  "key_malformed",
  "key_environment",
  "key_unknown",
  "key_revoked",
  "key_expired",
  "key_address",
  "key_domain",
  "actor_revoked"
] as const

/** A refusal as a problem with a challenge (RFC 9110 §11.6.1). */
export const keyProblem = (code: (typeof keyRefusals)[number], detail: string): Problem =>
  problem(code, {
    detail,
    headers: { "WWW-Authenticate": `ApiKey error="invalid_key", error_description="${code}"` }
  })

/** A key that was refused, with the actor that it is known to speak for: whose key was tried is for the audit log. */
export class KeyRefused extends Data.TaggedError("KeyRefused")<{
  readonly problem: Problem
  readonly actor: string | undefined
}> {}
