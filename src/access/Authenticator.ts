/**
 * Who is asking: from a request's bearer token to an Identity, or to a problem with a code of its own.
 *
 * Every token is judged by exactly one of the strategies that the domain trusts: the first whose issuer it names. A
 * token that is good, but for a strategy that the domain does not trust, is answered as a path that does not exist; so
 * is every path of somebody else's, existing or missing. To keep the two alike, a token that the domain refuses is also
 * tried with the installation's other strategies of that issuer, and the reason for a refusal is the one that lies
 * farthest on a token's way: neither depends on the path.
 *
 * A strategy of type `none` answers only requests that bring no token; a token that fails is never taken for nobody.
 */
import { Clock, Config, Context, Effect, Layer, Redacted, Result, Stream } from "effect"
import type { Identity } from "../domain/Identity.ts"
import { type Problem, problem } from "../domain/Problem.ts"
import { type CompactToken, maxTokenLength, readToken } from "./CompactToken.ts"
import type { JwtStrategy } from "./JwtStrategy.ts"
import { TokenCache, type VerifiedToken } from "./TokenCache.ts"
import { farther, TokenRefused } from "./TokenRefused.ts"

/** A strategy as access sees it: compiled, and the same value until it changes. */
export type Strategy =
  | { readonly type: "jwt"; readonly id: string; readonly jwt: JwtStrategy }
  | { readonly type: "apikey" | "none"; readonly id: string }
  /** Of several; each is given as the ids it may mean, of which the first that there is counts. */
  | { readonly type: "composite"; readonly id: string; readonly members: ReadonlyArray<ReadonlyArray<string>> }

/** What authentication needs to know of the installation, at this moment. The Registry provides it. */
export class StrategySource extends Context.Service<
  StrategySource,
  {
    /** The strategy in force under an id. A changed strategy is another value. */
    readonly strategy: (id: string) => Strategy | undefined
    /** Every jwt strategy of the installation that names this issuer, in the order of their ids. */
    readonly issuedBy: (issuer: string) => ReadonlyArray<JwtStrategy>
    /** Whether this actor was revoked. */
    readonly isRevoked: (actor: string) => boolean
    /** One element for each change of strategies or revocations: a hint to give memory back, nothing depends on it. */
    readonly accessChanges: Stream.Stream<void>
  }
>()("velocity/access/StrategySource") {}

/** What a good token of a strategy that is not listed gets: the platform's own paths are no secret, a tenant's are. */
export interface AuthenticateOptions {
  readonly unlisted?: "not_found" | "token_issuer"
}

/** The most strategies with one issuer that a token is tried with beyond the domain's own. */
const maxStrategiesOfIssuer = 16

const challenge = (code: string): string =>
  code === "token_missing" ? "Bearer" : `Bearer error="invalid_token", error_description="${code}"`

/** A refusal as a problem: 401 with the challenge of RFC 6750 §3, or 503 where an issuer's keys cannot be had. */
const refusalOf = (refused: TokenRefused): Problem =>
  refused.code === "dependency_unavailable"
    ? problem(refused.code, { detail: refused.detail, headers: { "Retry-After": "5" } })
    : problem(refused.code, { detail: refused.detail, headers: { "WWW-Authenticate": challenge(refused.code) } })

const missing = (): Problem =>
  problem("token_missing", {
    detail: "the request carries no bearer token",
    headers: { "WWW-Authenticate": challenge("token_missing") }
  })

/**
 * The token of an `Authorization` header: undefined without one, `token_malformed` for another scheme or more than one
 * token. The scheme's case does not matter (RFC 9110 §11.1).
 */
export const bearerToken = (
  header: string | undefined
): Result.Result<Redacted.Redacted<string> | undefined, Problem> => {
  if (header === undefined) return Result.succeed(undefined)
  const match = /^Bearer +([^\s,]+) *$/i.exec(header)
  return match?.[1] === undefined
    ? Result.fail(
        refusalOf(new TokenRefused({ code: "token_malformed", detail: "the header is not one Bearer token" }))
      )
    : Result.succeed(Redacted.make(match[1]))
}

/** Turns tokens into identities. */
export class Authenticator extends Context.Service<
  Authenticator,
  {
    /**
     * Judges a token for a domain that trusts these strategies (none, where the domain does not exist). Fails with a
     * 401 problem that names what is wrong, with 503 `dependency_unavailable`, or with 404 `not_found` for a good token
     * of a strategy that is not among them.
     */
    readonly authenticate: (
      token: Redacted.Redacted<string> | undefined,
      strategies: ReadonlyArray<string>,
      options?: AuthenticateOptions
    ) => Effect.Effect<Identity, Problem>
    /** How many verified tokens are kept. */
    readonly cached: () => number
  }
>()("velocity/access/Authenticator") {
  /** `VELOCITY_TOKEN_CACHE` is the most verified tokens that are kept (10,000, about 1 KiB each). */
  static readonly layer = Layer.effect(
    Authenticator,
    Effect.gen(function* () {
      const capacity = yield* Config.Int("VELOCITY_TOKEN_CACHE").pipe(Config.withDefault(10_000))
      const source = yield* StrategySource
      const cache = new TokenCache(capacity)

      const inForce = (id: string): JwtStrategy | undefined => {
        const strategy = source.strategy(id)
        return strategy?.type === "jwt" ? strategy.jwt : undefined
      }
      const holds = (entry: VerifiedToken): boolean =>
        inForce(entry.strategy.id) === entry.strategy &&
        entry.strategy.keys.epoch() === entry.epoch &&
        !source.isRevoked(entry.identity.actor)

      /** The one strategy that judges: the first of the domain's that names the token's issuer. */
      const judgeOf = (strategies: ReadonlyArray<string>, issuer: string): JwtStrategy | undefined => {
        for (const id of strategies) {
          const strategy = inForce(id)
          if (strategy?.issuers.has(issuer) === true) return strategy
        }
        return undefined
      }

      const unlisted = (options: AuthenticateOptions | undefined): Problem =>
        options?.unlisted === "token_issuer"
          ? refusalOf(new TokenRefused({ code: "token_issuer", detail: "the token's issuer is not trusted here" }))
          : problem("not_found")

      const verify = Effect.fnUntraced(function* (strategy: JwtStrategy, token: CompactToken) {
        const epoch = strategy.keys.epoch()
        const identity = yield* strategy.verify(token)
        if (source.isRevoked(identity.actor)) {
          return yield* new TokenRefused({ code: "actor_revoked", detail: "the token's holder was revoked" })
        }
        return { identity, issuer: token.issuer, strategy, epoch } satisfies VerifiedToken
      })

      const judgeUnknown = Effect.fnUntraced(function* (
        key: string,
        text: string,
        strategies: ReadonlyArray<string>,
        options: AuthenticateOptions | undefined
      ) {
        const token = yield* Effect.fromResult(Result.mapError(readToken(text), refusalOf))
        const judge = judgeOf(strategies, token.issuer)
        let refused = new TokenRefused({ code: "token_issuer", detail: "the token's issuer is not known here" })
        const others = source.issuedBy(token.issuer).filter((other) => other !== judge)
        for (const strategy of [...(judge === undefined ? [] : [judge]), ...others.slice(0, maxStrategiesOfIssuer)]) {
          const verified = yield* Effect.result(verify(strategy, token))
          if (Result.isFailure(verified)) {
            refused = farther(refused, verified.failure)
            continue
          }
          cache.set(key, verified.success)
          if (strategy === judge) return verified.success.identity
          return yield* unlisted(options)
        }
        return yield* refusalOf(refused)
      })

      const anonymous = (strategies: ReadonlyArray<string>): Effect.Effect<Identity, Problem> => {
        for (const id of strategies) {
          const strategy = source.strategy(id)
          if (strategy?.type === "none") {
            return Effect.succeed({
              actor: `${id}/anonymous`,
              strategy: id,
              subject: "anonymous",
              roles: [],
              attributes: {},
              expiresAt: Number.POSITIVE_INFINITY
            })
          }
        }
        return Effect.fail(missing())
      }

      yield* source.accessChanges.pipe(
        Stream.runForEach(() => Effect.sync(() => cache.retain(holds))),
        Effect.forkScoped
      )

      return Authenticator.of({
        cached: () => cache.size,
        authenticate: (token, strategies, options) => {
          if (token === undefined) return anonymous(strategies)
          const text = Redacted.value(token)
          if (text.length > maxTokenLength) return judgeUnknown("", text, strategies, options)
          const key = TokenCache.keyOf(text)
          return Effect.flatMap(Clock.currentTimeMillis, (now) => {
            const known = cache.get(key, now)
            if (known === undefined || !holds(known)) return judgeUnknown(key, text, strategies, options)
            const judge = judgeOf(strategies, known.issuer)
            if (judge === known.strategy) {
              return judge.keys.isStale(now)
                ? Effect.as(Effect.forkDetach(judge.keys.keepFresh), known.identity)
                : Effect.succeed(known.identity)
            }
            // good for another domain's strategy; here only what this domain trusts counts
            return judge === undefined ? Effect.fail(unlisted(options)) : judgeUnknown(key, text, strategies, options)
          })
        }
      })
    })
  )
}
