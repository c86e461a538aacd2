import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, PubSub, Redacted, Result, Stream } from "effect"
import { TestClock } from "effect/testing"
import { Authenticator, bearerToken, type Strategy, StrategySource } from "../../src/access/Authenticator.ts"
import type { JwtStrategy } from "../../src/access/JwtStrategy.ts"
import { keyServer, makeKey, sign, strategyOf, type TestKey } from "./Issuer.ts"

const [key, other] = (await Promise.all([makeKey("ES256", "a"), makeKey("ES256", "a")])) as [TestKey, TestKey]

/** An installation in memory: strategies that can be exchanged and actors that can be revoked. */
class Installation {
  readonly strategies = new Map<string, Strategy>()
  readonly revoked = new Set<string>()
  readonly changes = Effect.runSync(PubSub.unbounded<void>())
  asked = 0

  jwt(strategy: JwtStrategy): this {
    this.strategies.set(strategy.id, { type: "jwt", id: strategy.id, jwt: this.counted(strategy) })
    return this
  }

  /** Counts verifications: what the cache is there to avoid. */
  private counted(strategy: JwtStrategy): JwtStrategy {
    return {
      ...strategy,
      verify: (token) =>
        Effect.suspend(() => {
          this.asked += 1
          return strategy.verify(token)
        })
    }
  }

  readonly layer = Layer.sync(StrategySource)(() => ({
    strategy: (id: string) => this.strategies.get(id),
    issuedBy: (issuer: string) =>
      [...this.strategies.values()].flatMap((one) =>
        one.type === "jwt" && one.jwt.issuers.has(issuer) ? [one.jwt] : []
      ),
    isRevoked: (actor: string) => this.revoked.has(actor),
    accessChanges: Stream.fromPubSub(this.changes)
  }))
}

const corp = (over = {}) => strategyOf("corp", { jwks: { keys: [key.jwk] }, ...over })

const within = <A, E>(
  installation: Installation,
  f: (
    ask: (token: string | undefined, strategies: ReadonlyArray<string>) => Effect.Effect<string>,
    auth: Authenticator["Service"]
  ) => Effect.Effect<A, E, Authenticator>,
  config: Record<string, string> = {}
) =>
  Effect.gen(function* () {
    const auth = yield* Authenticator
    const ask = (token: string | undefined, strategies: ReadonlyArray<string>) =>
      auth
        .authenticate(token === undefined ? undefined : Redacted.make(token), strategies)
        .pipe(Effect.match({ onSuccess: (identity) => identity.actor, onFailure: (problem) => problem.code }))
    return yield* f(ask, auth)
  }).pipe(
    Effect.provide(
      Authenticator.layer.pipe(
        Layer.provide(installation.layer),
        Layer.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(config)))
      )
    )
  )

describe("which strategy judges", () => {
  it.effect("only one that the domain trusts, and of those the first that names the issuer", () => {
    const installation = new Installation()
      .jwt(corp())
      .jwt(strategyOf("mars", { issuers: ["https://mars.example"], jwks: { keys: [other.jwk] } }))
    return within(installation, (ask) =>
      Effect.gen(function* () {
        const token = yield* Effect.promise(() => sign(key))
        const martian = yield* Effect.promise(() => sign(other, { claims: { iss: "https://mars.example" } }))
        assert.strictEqual(yield* ask(token, ["mars", "corp"]), "corp/alice")
        assert.strictEqual(yield* ask(martian, ["mars", "corp"]), "mars/alice")
        // corp's key never vouches for mars, nor the other way round
        const crossed = yield* Effect.promise(() => sign(key, { claims: { iss: "https://mars.example" } }))
        assert.strictEqual(yield* ask(crossed, ["mars", "corp"]), "token_signature")
      })
    )
  })

  it.effect("a path of somebody else's is not found, existing or missing; a bad token is 401 on every path", () => {
    // three tenants at one issuer with audiences of their own, and one apart
    const installation = new Installation()
      .jwt(corp())
      .jwt(strategyOf("b", { audience: "b", jwks: { keys: [key.jwk] } }))
      .jwt(strategyOf("mars", { issuers: ["https://mars.example"], jwks: { keys: [other.jwk] } }))
    return within(installation, (ask) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_000)
        const cases: ReadonlyArray<readonly [string, Promise<string>]> = [
          ["not_found", sign(key)],
          ["token_expired", sign(key, { claims: { exp: 1 } })],
          ["token_audience", sign(key, { claims: { aud: "nobody" } })],
          ["token_signature", sign(other)],
          ["token_issuer", sign(key, { claims: { iss: "https://nobody.example" } })]
        ]
        for (const [expected, token] of cases) {
          const text = yield* Effect.promise(() => token)
          for (const strategies of [["mars"], ["b"], ["deleted"], []]) {
            assert.strictEqual(yield* ask(text, strategies), expected, `${expected} on ${strategies}`)
          }
        }
        assert.strictEqual(yield* ask(undefined, ["mars"]), "token_missing")
        assert.strictEqual(yield* ask(undefined, []), "token_missing")
      })
    )
  })

  it.effect("a token that another domain's strategy vouches for is still judged by this domain's own", () => {
    const installation = new Installation().jwt(corp()).jwt(
      strategyOf("strict", {
        jwks: { keys: [key.jwk] },
        claims: { actorId: "$.employee", roles: "$.groups" }
      })
    )
    return within(installation, (ask) =>
      Effect.gen(function* () {
        const token = yield* Effect.promise(() => sign(key, { claims: { employee: "e7" } }))
        for (let round = 0; round < 3; round++) {
          assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
          assert.strictEqual(yield* ask(token, ["strict"]), "strict/e7")
          assert.strictEqual(yield* ask(token, ["strict", "corp"]), "strict/e7")
        }
      })
    )
  })

  it.effect("the platform's own paths tell that the issuer is not trusted there", () =>
    within(new Installation().jwt(corp()), (_, auth) =>
      Effect.gen(function* () {
        const token = Redacted.make(yield* Effect.promise(() => sign(key)))
        const problem = yield* Effect.flip(auth.authenticate(token, ["platform"], { unlisted: "token_issuer" }))
        assert.strictEqual(problem.code, "token_issuer")
      })
    )
  )
})

describe("type none", () => {
  const installation = () => {
    const made = new Installation().jwt(corp())
    made.strategies.set("open", { type: "none", id: "open" })
    return made
  }
  it.effect("answers those who bring no token, where the domain names it", () =>
    within(installation(), (ask, auth) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* ask(undefined, ["open"]), "open/anonymous")
        assert.deepStrictEqual((yield* auth.authenticate(undefined, ["open"])).roles, [])
        assert.strictEqual(yield* ask(undefined, ["corp"]), "token_missing")
      })
    )
  )
  it.effect("never takes a bad token for nobody", () =>
    within(installation(), (ask) =>
      Effect.gen(function* () {
        assert.strictEqual(yield* ask("nonsense", ["open"]), "token_malformed")
        assert.strictEqual(yield* ask(yield* Effect.promise(() => sign(other)), ["corp", "open"]), "token_signature")
        assert.strictEqual(yield* ask(yield* Effect.promise(() => sign(key)), ["open"]), "not_found")
      })
    )
  )
})

describe("the cache", () => {
  it.effect("spares the second verification, until the token ends", () => {
    const installation = new Installation().jwt(corp())
    return within(installation, (ask, auth) =>
      Effect.gen(function* () {
        const token = yield* Effect.promise(() => sign(key))
        for (let n = 0; n < 5; n++) assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
        assert.strictEqual(installation.asked, 1)
        assert.strictEqual(auth.cached(), 1)
        yield* TestClock.adjust("10 minutes")
        assert.strictEqual(yield* ask(token, ["corp"]), "token_expired")
        assert.strictEqual(auth.cached(), 0)
      })
    )
  })

  it.effect("keeps nothing that was refused", () =>
    within(new Installation().jwt(corp()), (ask, auth) =>
      Effect.gen(function* () {
        for (const token of ["", "x", yield* Effect.promise(() => sign(other))]) yield* ask(token, ["corp"])
        assert.strictEqual(auth.cached(), 0)
      })
    )
  )

  it.effect("is bounded: who used his token longest ago is verified again", () => {
    const installation = new Installation().jwt(corp())
    return within(
      installation,
      (ask, auth) =>
        Effect.gen(function* () {
          const tokens = yield* Effect.promise(() =>
            Promise.all(Array.from({ length: 5 }, (_, n) => sign(key, { claims: { sub: `s${n}` } })))
          )
          const [zero = "", one = "", two = "", three = ""] = tokens
          for (const token of [zero, one, two]) yield* ask(token, ["corp"])
          yield* ask(zero, ["corp"])
          yield* ask(three, ["corp"])
          assert.strictEqual(auth.cached(), 3)
          assert.strictEqual(installation.asked, 4)
          yield* ask(zero, ["corp"])
          assert.strictEqual(installation.asked, 4)
          yield* ask(one, ["corp"])
          assert.strictEqual(installation.asked, 5)
        }),
      { VELOCITY_TOKEN_CACHE: "3" }
    )
  })

  it.effect("is worth nothing once the strategy changed, at the very next request", () => {
    const installation = new Installation().jwt(corp())
    return within(installation, (ask) =>
      Effect.gen(function* () {
        const token = yield* Effect.promise(() => sign(key))
        assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
        installation.jwt(corp({ audience: "other" }))
        assert.strictEqual(yield* ask(token, ["corp"]), "token_audience")
        installation.jwt(strategyOf("corp", { jwks: { keys: [other.jwk] } }))
        assert.strictEqual(yield* ask(token, ["corp"]), "token_signature")
        installation.jwt(corp())
        assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
        installation.strategies.delete("corp")
        assert.strictEqual(yield* ask(token, ["corp"]), "token_issuer")
      })
    )
  })

  it.effect("is worth nothing once the actor was revoked, at the very next request", () => {
    const installation = new Installation().jwt(corp())
    return within(installation, (ask) =>
      Effect.gen(function* () {
        const token = yield* Effect.promise(() => sign(key))
        assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
        installation.revoked.add("corp/alice")
        assert.strictEqual(yield* ask(token, ["corp"]), "actor_revoked")
        assert.strictEqual(yield* ask(token, []), "actor_revoked")
        installation.revoked.delete("corp/alice")
        assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
      })
    )
  })

  it.effect("gives memory back when it is told of a change", () => {
    const installation = new Installation().jwt(corp())
    return within(installation, (ask, auth) =>
      Effect.gen(function* () {
        yield* ask(yield* Effect.promise(() => sign(key)), ["corp"])
        yield* ask(yield* Effect.promise(() => sign(key, { claims: { sub: "bob" } })), ["corp"])
        installation.revoked.add("corp/alice")
        yield* PubSub.publish(installation.changes, undefined)
        while (auth.cached() > 1) yield* Effect.yieldNow
        assert.strictEqual(auth.cached(), 1)
      })
    )
  })

  it.effect("a key that the issuer withdrew takes its tokens along, found out in passing", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([key])
      const installation = new Installation().jwt(strategyOf("corp", { jwksUrl: server.url }))
      yield* within(installation, (ask) =>
        Effect.gen(function* () {
          const token = yield* Effect.promise(() => sign(key, { claims: { exp: 86_400 } }))
          assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
          server.publish([other])
          yield* TestClock.adjust("10 minutes")
          // this request asks for the keys in passing; once they came, the token is judged by them
          assert.strictEqual(yield* ask(token, ["corp"]), "corp/alice")
          while (server.asked() < 2) yield* Effect.promise(() => new Promise(setImmediate))
          let verdict = "corp/alice"
          while (verdict === "corp/alice") {
            yield* Effect.promise(() => new Promise(setImmediate))
            verdict = yield* ask(token, ["corp"])
          }
          assert.strictEqual(verdict, "token_signature")
        })
      )
    })
  )

  it.effect("an issuer that is down denies with 503, and verified tokens go on", () =>
    Effect.gen(function* () {
      const server = yield* keyServer
      server.publish([key])
      const installation = new Installation().jwt(strategyOf("corp", { jwksUrl: server.url }))
      yield* within(installation, (ask, auth) =>
        Effect.gen(function* () {
          const [known = "", fresh = ""] = yield* Effect.promise(() =>
            Promise.all([sign(key, { claims: { exp: 86_400 } }), sign(key, { claims: { exp: 86_400, sub: "bob" } })])
          )
          assert.strictEqual(yield* ask(known, ["corp"]), "corp/alice")
          yield* server.down
          yield* TestClock.adjust("11 minutes")
          const problem = yield* Effect.flip(auth.authenticate(Redacted.make(fresh), ["corp"]))
          assert.strictEqual(problem.code, "dependency_unavailable")
          assert.strictEqual(problem.status, 503)
          assert.strictEqual(yield* ask(known, ["corp"]), "corp/alice")
          yield* server.up
          server.publish([key])
          yield* TestClock.adjust("3 seconds")
          assert.strictEqual(yield* ask(fresh, ["corp"]), "corp/bob")
        })
      )
    })
  )
})

describe("what is answered", () => {
  it.effect("every refusal is a 401 with a challenge, and quotes nothing of the token", () =>
    within(new Installation().jwt(corp()), (_, auth) =>
      Effect.gen(function* () {
        yield* TestClock.setTime(1_000)
        const tokens = yield* Effect.promise(() =>
          Promise.all([
            sign(key, { claims: { exp: 1, sub: "secretive" } }),
            sign(key, { claims: { nbf: 500 } }),
            sign(key, { claims: { aud: "secretive" } }),
            sign(key, { claims: { iss: "secretive" } }),
            sign(key, { claims: { roles: { secretive: 1 } } }),
            sign(other, { claims: { sub: "secretive" } }),
            sign({ ...key, kid: "secretive" }),
            Promise.resolve("secretive")
          ])
        )
        const codes = new Set<string>()
        for (const token of tokens) {
          const problem = yield* Effect.flip(auth.authenticate(Redacted.make(token), ["corp"]))
          codes.add(problem.code)
          assert.strictEqual(problem.status, 401)
          assert.match(problem.headers?.["WWW-Authenticate"] ?? "", /^Bearer error="invalid_token"/)
          assert.notInclude(JSON.stringify(problem), "secretive")
        }
        assert.strictEqual(codes.size, tokens.length)
        const nothing = yield* Effect.flip(auth.authenticate(undefined, ["corp"]))
        assert.strictEqual(nothing.headers?.["WWW-Authenticate"], "Bearer")
      })
    )
  )

  it("a header is one Bearer token or a fault", () => {
    const read = (header: string | undefined) =>
      Result.match(bearerToken(header), {
        onSuccess: (token) => (token === undefined ? "nothing" : Redacted.value(token)),
        onFailure: (problem) => problem.code
      })
    assert.strictEqual(read(undefined), "nothing")
    assert.strictEqual(read("Bearer a.b.c"), "a.b.c")
    assert.strictEqual(read("bearer   a.b.c "), "a.b.c")
    for (const header of [
      "",
      "Bearer",
      "Bearer ",
      "Basic YTpi",
      "a.b.c",
      "Bearer a b",
      "Bearer a,Bearer b",
      "Bearer\ta"
    ]) {
      assert.strictEqual(read(header), "token_malformed", header)
    }
  })
})
