/**
 * Who is asking, by an API key. A key is looked up by its SHA-256 among those that the registry holds: nothing of it is
 * compared before it is hashed, so the time that a refusal takes says nothing of any key that there is.
 *
 * A key opens the one domain (or the platform) that it was made for, as long as that trusts the strategy of its actor. For
 * any other domain it is answered as a path that does not exist, existing or missing alike; every reason to refuse the key
 * itself is judged before, and does not depend on the path.
 *
 * There is no cache that a revoked key could live on in: the registry's own snapshot is asked each time, and it hears of a
 * revocation by NOTIFY.
 */
import { hash, timingSafeEqual } from "node:crypto"
import { Clock, Config, Context, Effect, Layer, Redacted, Schema } from "effect"
import { type AddressRange, isWithin } from "../domain/AddressRange.ts"
import { partsOfActor } from "../domain/ApiKey.ts"
import type { Identity } from "../domain/Identity.ts"
import { environmentPattern, keyEnvironment } from "../domain/KeyText.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import type { BindingScope } from "../domain/RoleBinding.ts"
import type { Strategy } from "./Authenticator.ts"
import { platformChain } from "./Authorization.ts"
import { KeyRefused, keyProblem } from "./KeyRefused.ts"

/** A key as the registry holds it. */
export interface StoredKey {
  readonly id: string
  /** Its SHA-256. */
  readonly hash: Uint8Array
  readonly actor: string
  /** The domain that it opens, or `platform`. */
  readonly chain: string
  readonly roles: ReadonlyArray<string>
  /** Empty: not narrowed. */
  readonly scopes: ReadonlyArray<BindingScope>
  /** Empty: from anywhere. */
  readonly ranges: ReadonlyArray<AddressRange>
  /** Milliseconds since 1970; infinite where it does not end. */
  readonly expiresAt: number
  readonly isRevoked: boolean
}

/** What judging a key needs to know of the installation, at this moment. The Registry provides it. */
export class KeySource extends Context.Service<
  KeySource,
  {
    /** Whether the keys were read at all. */
    readonly isLoaded: () => boolean
    /** The key under a SHA-256 in hexadecimal, a revoked one too. */
    readonly key: (hash: string) => StoredKey | undefined
    readonly strategy: (id: string) => Strategy | undefined
    readonly isRevoked: (actor: string) => boolean
  }
>()("velocity/access/KeySource") {}

/** What a key is shown for. */
export interface KeyTarget {
  readonly chain: string
  /** The strategies that the chain trusts. */
  readonly strategies: ReadonlyArray<string>
  /** Where the request comes from. */
  readonly address: string
}

/** `VELOCITY_KEY_ENVIRONMENT`: what keys of this installation say behind `vel_`; live unless said. */
export const keyEnvironmentConfig: Config.Config<string> = Config.schema(
  Schema.String.check(
    Schema.isPattern(environmentPattern, { message: "1 to 16 lower-case letters and digits, a letter first" })
  ),
  "VELOCITY_KEY_ENVIRONMENT"
).pipe(Config.withDefault("live"))

const identityOf = (key: StoredKey): Identity => ({
  actor: key.actor,
  ...partsOfActor(key.actor),
  roles: key.roles,
  scopes: key.scopes,
  attributes: {},
  expiresAt: key.expiresAt
})

/** Turns API keys into identities. */
export class KeyAuthenticator extends Context.Service<
  KeyAuthenticator,
  {
    /** Fails with 401 that names what is wrong, 404 for another domain's, or 503 where no keys could be read yet. */
    readonly authenticate: (key: Redacted.Redacted<string>, target: KeyTarget) => Effect.Effect<Identity, KeyRefused>
  }
>()("velocity/access/KeyAuthenticator") {
  static readonly layer = Layer.effect(
    KeyAuthenticator,
    Effect.gen(function* () {
      const source = yield* KeySource
      const environment = yield* keyEnvironmentConfig

      const judge = (text: string, { address, chain, strategies }: KeyTarget, now: number) => {
        const refuse = (why: Problem, actor?: string) => new KeyRefused({ problem: why, actor })
        const named = keyEnvironment(text)
        if (named === undefined) {
          return refuse(keyProblem("key_malformed", "a key is vel_, an environment, _ and 43 characters of base64url"))
        }
        if (named !== environment) {
          return refuse(keyProblem("key_environment", `the key is of ${named}, and this is ${environment}`))
        }
        if (!source.isLoaded()) {
          return refuse(
            problem("dependency_unavailable", {
              detail: "the keys have not been read yet",
              headers: { "Retry-After": "1" }
            })
          )
        }
        const digest = hash("sha256", text, "buffer")
        const key = source.key(digest.toString("hex"))
        if (key === undefined || !timingSafeEqual(key.hash, digest)) {
          return refuse(keyProblem("key_unknown", "there is no such key"))
        }
        const { actor } = key
        if (key.isRevoked) return refuse(keyProblem("key_revoked", "the key was revoked"), actor)
        if (key.expiresAt <= now) return refuse(keyProblem("key_expired", "the key has expired"), actor)
        if (source.isRevoked(actor)) {
          return refuse(keyProblem("actor_revoked", "whom the key speaks for was revoked"), actor)
        }
        if (key.ranges.length > 0 && !isWithin(address, key.ranges)) {
          return refuse(keyProblem("key_address", "the key is not taken from this address"), actor)
        }
        const { strategy } = partsOfActor(actor)
        const isTrusted = strategies.includes(strategy) && source.strategy(strategy)?.type === "apikey"
        if (key.chain === chain && isTrusted) return key
        return refuse(
          chain === platformChain
            ? keyProblem("key_domain", "the key is not one of the platform's")
            : problem("not_found"),
          actor
        )
      }

      return KeyAuthenticator.of({
        authenticate: (key, target) =>
          Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const judged = judge(Redacted.value(key), target, now)
            return judged instanceof KeyRefused ? Effect.fail(judged) : Effect.succeed(identityOf(judged))
          })
      })
    })
  )
}
