import { assert, describe, it } from "@effect/vitest"
import { Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import { readToken } from "../../src/access/CompactToken.ts"
import { compileJwt, type JwtStrategy } from "../../src/access/JwtStrategy.ts"
import { audience, es256, issuer, makeKey, rawToken, settings, sign, strategyOf, type TestKey } from "./Issuer.ts"

/** What becomes of a token under one strategy: the holder's identity, or the code of the refusal. */
const verdict = (strategy: JwtStrategy, token: string) =>
  Effect.fromResult(readToken(token)).pipe(
    Effect.flatMap(strategy.verify),
    Effect.match({ onSuccess: (identity) => identity.actor, onFailure: (refused) => refused.code })
  )

const keys = await Promise.all([
  makeKey("ES256", "a"),
  makeKey("RS256", "r"),
  makeKey("EdDSA", "e"),
  makeKey("ES256", "z")
])
const [ec, rsa, ed, foreign] = keys as [TestKey, TestKey, TestKey, TestKey]
const strategy = strategyOf("corp", { jwks: { keys: [ec.jwk, rsa.jwk, ed.jwk] } })

const expectVerdict = (name: string, token: () => Promise<string>, expected: string, judge = strategy) =>
  it.effect(name, () =>
    Effect.gen(function* () {
      assert.strictEqual(yield* verdict(judge, yield* Effect.promise(token)), expected)
    })
  )

describe("a good token", () => {
  expectVerdict("of ES256", () => sign(ec), "corp/alice")
  expectVerdict("of RS256", () => sign(rsa), "corp/alice")
  expectVerdict("of EdDSA", () => sign(ed), "corp/alice")
  expectVerdict("of several audiences", () => sign(ec, { claims: { aud: ["other", audience] } }), "corp/alice")
  expectVerdict("typed as an access token (RFC 9068)", () => sign(ec, { header: { typ: "at+jwt" } }), "corp/alice")
  expectVerdict(
    "that names no key, where one of two fits",
    async () => sign({ ...foreign, kid: undefined }),
    "corp/alice",
    strategyOf("corp", { jwks: { keys: [ec.jwk, foreign.jwk] } })
  )

  it.effect("becomes an identity by the strategy's mapping", () =>
    Effect.gen(function* () {
      const mapped = strategyOf("acme-ns:staff", {
        jwks: { keys: [ec.jwk] },
        claims: {
          actorId: "$.person.id",
          roles: "$['https://acme.example/roles']",
          attributes: { store_id: "$.stores.main", regions: '$["regions"]', level: "$.level", absent: "$.nothing.here" }
        }
      })
      const token = yield* Effect.promise(() =>
        sign(ec, {
          claims: {
            person: { id: "p/7" },
            "https://acme.example/roles": ["buyer", "store", "buyer"],
            stores: { main: "s1" },
            regions: ["eu", "us"],
            level: 3
          }
        })
      )
      const identity = yield* mapped.verify(Result.getOrThrow(readToken(token)))
      assert.deepStrictEqual(identity, {
        actor: "acme-ns:staff/p/7",
        strategy: "acme-ns:staff",
        subject: "p/7",
        roles: ["buyer", "store"],
        attributes: { store_id: "s1", regions: ["eu", "us"], level: "3" },
        expiresAt: 600_000
      })
    })
  )

  it.effect("may say its roles as one text, and its attributes as one object", () =>
    Effect.gen(function* () {
      const open = strategyOf("corp", {
        jwks: { keys: [ec.jwk] },
        claims: { actorId: "$.sub", roles: "$.scope", attributes: { "*": "$.attributes", store_id: "$.store" } }
      })
      const token = yield* Effect.promise(() =>
        sign(ec, { claims: { scope: "buyer  auditor", attributes: { store_id: "forged", region: "eu" }, store: "s1" } })
      )
      const identity = yield* open.verify(Result.getOrThrow(readToken(token)))
      assert.deepStrictEqual(identity.roles, ["buyer", "auditor"])
      assert.deepStrictEqual(identity.attributes, { store_id: "s1", region: "eu" })
    })
  )
})

describe("a token's time", () => {
  it.effect("ends at exp and begins at nbf, give or take the clock skew", () =>
    Effect.gen(function* () {
      const skewed = strategyOf("corp", { jwks: { keys: [ec.jwk] }, clockSkew: "5s" })
      const token = yield* Effect.promise(() => sign(ec, { claims: { nbf: 100, exp: 600 } }))
      const at = Effect.fnUntraced(function* (seconds: number, judge: JwtStrategy) {
        yield* TestClock.setTime(seconds * 1000)
        return yield* verdict(judge, token)
      })
      assert.strictEqual(yield* at(94.999, skewed), "token_not_yet_valid")
      assert.strictEqual(yield* at(95, skewed), "corp/alice")
      assert.strictEqual(yield* at(99.999, strategy), "token_not_yet_valid")
      assert.strictEqual(yield* at(100, strategy), "corp/alice")
      assert.strictEqual(yield* at(599.999, strategy), "corp/alice")
      assert.strictEqual(yield* at(600, strategy), "token_expired")
      assert.strictEqual(yield* at(604.999, skewed), "corp/alice")
      assert.strictEqual(yield* at(605, skewed), "token_expired")
    })
  )
  expectVerdict("must end", () => sign(ec, { without: ["exp"] }), "token_claims")
  expectVerdict("ends at a number", () => sign(ec, { claims: { exp: "600" as unknown as number } }), "token_claims")
  expectVerdict(
    "begins at a number",
    async () =>
      rawToken(
        { alg: "ES256", kid: "a" },
        '{"iss":"https://issuer.example","aud":"velocity","sub":"a","exp":9,"nbf":"0"}',
        es256(ec)
      ),
    "token_claims"
  )
  expectVerdict("ends beyond every calendar without harm", () => sign(ec, { claims: { exp: 1e300 } }), "corp/alice")
})

describe("attacks", () => {
  const header = { alg: "ES256", kid: "a" }
  const claims = { iss: issuer, aud: audience, sub: "mallory", exp: 600, roles: ["admin"] }
  const text = JSON.stringify(claims)
  const none = () => new Uint8Array(0)

  for (const alg of ["none", "None", "nOnE", "NONE"]) {
    expectVerdict(`alg ${alg}`, () => rawToken({ alg }, claims, none), "token_unsigned")
    expectVerdict(`alg ${alg} with a signature`, () => rawToken({ alg }, claims, es256(ec)), "token_unsigned")
  }
  expectVerdict("the signature cut off", async () => (await sign(ec)).replace(/\.[^.]*$/, "."), "token_unsigned")
  expectVerdict("the last part cut off", async () => (await sign(ec)).replace(/\.[^.]*$/, ""), "token_malformed")
  expectVerdict("another issuer", () => sign(ec, { claims: { iss: "https://evil.example" } }), "token_issuer")
  expectVerdict("no issuer", () => sign(ec, { without: ["iss"] }), "token_issuer")
  expectVerdict("the issuer with a slash more", () => sign(ec, { claims: { iss: `${issuer}/` } }), "token_issuer")
  expectVerdict("another audience", () => sign(ec, { claims: { aud: "other" } }), "token_audience")
  expectVerdict("no audience", () => sign(ec, { without: ["aud"] }), "token_audience")
  expectVerdict(
    "an audience that only contains ours",
    () => sign(ec, { claims: { aud: "velocity2" } }),
    "token_audience"
  )
  expectVerdict("an algorithm that is not allowed", async () => sign(await makeKey("ES384", "a")), "token_algorithm")
  expectVerdict("a key that is not known", () => sign({ ...foreign, kid: "nobody" }), "token_key")
  expectVerdict("another key under a known id", () => sign({ ...foreign, kid: "a" }), "token_signature")
  expectVerdict("a known id of another kind of key", () => sign({ ...foreign, kid: "r" }), "token_key")
  expectVerdict("another key and no id", () => sign({ ...foreign, kid: undefined }), "token_signature")

  it.effect("HS256 with the public key as the secret", () =>
    Effect.gen(function* () {
      const spki = new Uint8Array(
        yield* Effect.promise(async () => crypto.subtle.exportKey("spki", await importPublic(rsa)))
      )
      const pem = `-----BEGIN PUBLIC KEY-----\n${Buffer.from(spki).toString("base64")}\n-----END PUBLIC KEY-----\n`
      for (const secret of [spki, Buffer.from(pem), Buffer.from(JSON.stringify(rsa.jwk))]) {
        for (const alg of ["HS256", "HS384", "HS512"]) {
          const token = yield* Effect.promise(() =>
            rawToken({ alg, kid: "r" }, claims, async (input) => hmac(alg, secret, input))
          )
          assert.strictEqual(yield* verdict(strategy, token), "token_algorithm")
        }
      }
    })
  )

  it("a strategy cannot even allow a symmetric algorithm", () => {
    for (const algorithm of ["HS256", "none", "dir", "rs256", ""]) {
      assert.isTrue(
        Result.isFailure(compileJwt("x", settings({ algorithms: [algorithm as "RS256"], jwks: { keys: [] } })))
      )
    }
  })

  it.effect("a symmetric key in the set is no key", () =>
    Effect.gen(function* () {
      const oct = { kty: "oct", kid: "a", k: Buffer.from("secret").toString("base64url") }
      const odd = strategyOf("corp", { jwks: { keys: [oct, null, 7, "x", { kty: "RSA", kid: "a" }, { kty: 1 }] } })
      assert.strictEqual(yield* verdict(odd, yield* Effect.promise(() => sign(ec))), "token_key")
    })
  )

  it.effect("a key that is for encryption, or for another algorithm, vouches for nothing", () =>
    Effect.gen(function* () {
      const token = yield* Effect.promise(() => sign(ec))
      for (const more of [{ use: "enc" }, { key_ops: ["encrypt"] }, { alg: "ES384" }, { crv: "P-384" }, { kid: 7 }]) {
        const judge = strategyOf("corp", { jwks: { keys: [{ ...ec.jwk, ...more }] } })
        assert.strictEqual(yield* verdict(judge, token), "token_key", JSON.stringify(more))
      }
    })
  )

  it.effect("an RSA key of 1024 bits is no key", () =>
    Effect.gen(function* () {
      const weak = yield* Effect.promise(() =>
        crypto.subtle.generateKey(
          {
            name: "RSASSA-PKCS1-v1_5",
            modulusLength: 1024,
            publicExponent: new Uint8Array([1, 0, 1]),
            hash: "SHA-256"
          },
          true,
          ["sign", "verify"]
        )
      )
      const jwk = { ...(yield* Effect.promise(() => crypto.subtle.exportKey("jwk", weak.publicKey))), kid: "w" }
      const token = yield* Effect.promise(() =>
        rawToken(
          { alg: "RS256", kid: "w" },
          claims,
          async (input) =>
            new Uint8Array(await crypto.subtle.sign("RSASSA-PKCS1-v1_5", weak.privateKey, new Uint8Array(input)))
        )
      )
      const judge = strategyOf("corp", { jwks: { keys: [jwk] } })
      assert.strictEqual(yield* verdict(judge, token), "token_key")
    })
  )

  describe("a header that brings its own key is not asked", () => {
    for (const brought of ["jwk", "jku", "x5u", "x5c"] as const) {
      const value = {
        jwk: foreign.jwk,
        jku: "https://evil.example/keys",
        x5u: "https://evil.example/cert",
        x5c: ["MIIB"]
      }[brought]
      expectVerdict(
        brought,
        () => rawToken({ alg: "ES256", kid: "a", [brought]: value }, claims, es256(foreign)),
        "token_signature"
      )
      expectVerdict(
        `${brought} without an id`,
        () => rawToken({ alg: "ES256", [brought]: value }, claims, es256(foreign)),
        "token_signature"
      )
    }
  })

  expectVerdict("an id that is a path", () => sign({ ...ec, kid: "../../dev/null" }), "token_key")
  expectVerdict("an id that is SQL", () => sign({ ...ec, kid: "a' or '1'='1" }), "token_key")
  expectVerdict(
    "an id that is no text",
    () => rawToken({ alg: "ES256", kid: { a: 1 } }, claims, es256(ec)),
    "token_malformed"
  )
  expectVerdict("an id of the prototype", () => sign({ ...ec, kid: "__proto__" }), "token_key")

  expectVerdict("crit", () => rawToken({ ...header, crit: ["exp"], exp: 1 }, claims, es256(ec)), "token_malformed")
  expectVerdict(
    "b64 false",
    () => rawToken({ ...header, b64: false, crit: ["b64"] }, claims, es256(ec)),
    "token_malformed"
  )
  expectVerdict("b64 alone", () => rawToken({ ...header, b64: false }, claims, es256(ec)), "token_malformed")
  expectVerdict(
    "another kind of token",
    () => rawToken({ ...header, typ: "logout+jwt" }, claims, es256(ec)),
    "token_malformed"
  )

  expectVerdict(
    "a claim twice",
    () => rawToken(header, `{"sub":"alice",${text.slice(1)}`, es256(ec)),
    "token_malformed"
  )
  expectVerdict(
    "a claim twice, once escaped",
    () => rawToken(header, `{"\\u0073ub":"alice",${text.slice(1)}`, es256(ec)),
    "token_malformed"
  )
  expectVerdict(
    "a header parameter twice",
    () => rawToken('{"alg":"none","alg":"ES256","kid":"a"}', claims, es256(ec)),
    "token_malformed"
  )
  expectVerdict("claims that are a list", () => rawToken(header, [claims], es256(ec)), "token_malformed")
  expectVerdict("claims that are no JSON", () => rawToken(header, `${text}x`, es256(ec)), "token_malformed")
  expectVerdict("claims with a byte order mark", () => rawToken(header, `\uFEFF${text}`, es256(ec)), "token_malformed")
  expectVerdict(
    "claims of depth 5000",
    () => rawToken(header, `{"a":${"[".repeat(5000)}${"]".repeat(5000)}}`, es256(ec)),
    "token_malformed"
  )

  it.effect("base64 that is not canonical, though it decodes to the same bytes", () =>
    Effect.gen(function* () {
      const good = yield* Effect.promise(() => sign(ec))
      const [head = "", payload = "", signature = ""] = good.split(".")
      const variants = [
        `${head}=.${payload}.${signature}`,
        `${head}.${payload}==.${signature}`,
        `${head}.${payload}.${signature}=`,
        `${head}.${payload}.${signature}\n`,
        ` ${good}`,
        `${head}.${payload}.${signature}.`,
        `${head}.${payload}.${signature}.${signature}`,
        `${head}.${payload}.${signature.replace(/[-_]/, "+")}+`,
        `${head}.\u0000${payload}.${signature}`,
        // 64 bytes leave four bits of the last character unused
        `${head}.${payload}.${signature.slice(0, -1)}${flipUnusedBit(signature.at(-1) ?? "")}`
      ]
      for (const variant of variants) assert.strictEqual(yield* verdict(strategy, variant), "token_malformed", variant)
    })
  )

  expectVerdict("a token of 17 KiB", () => sign(ec, { claims: { pad: "x".repeat(13_000) } }), "token_malformed")
  expectVerdict("a token of 10 MiB", async () => `${"a".repeat(10_485_760)}.a.a`, "token_malformed")
  expectVerdict("nothing", async () => "", "token_malformed")
  expectVerdict("dots", async () => "..", "token_malformed")

  expectVerdict("no subject", () => sign(ec, { without: ["sub"] }), "token_claims")
  for (const sub of ["", 7, null, ["alice"], "a\u0000b", "a\nb", "\ud800", "x".repeat(256)]) {
    expectVerdict(
      `the subject ${JSON.stringify(sub).slice(0, 20)}`,
      () => rawToken(header, JSON.stringify({ ...claims, sub }), es256(ec)),
      "token_claims"
    )
  }
  for (const roles of [
    7,
    { admin: true },
    [1],
    [["admin"]],
    [""],
    ["a\u0000"],
    Array.from({ length: 257 }, (_, i) => `r${i}`)
  ]) {
    expectVerdict(
      `the roles ${JSON.stringify(roles).slice(0, 20)}`,
      () => sign(ec, { claims: { roles } }),
      "token_claims"
    )
  }
  it.effect("attributes that no row filter could compare", () =>
    Effect.gen(function* () {
      const judge = strategyOf("corp", {
        jwks: { keys: [ec.jwk] },
        claims: { actorId: "$.sub", attributes: { store_id: "$.store", "*": "$.more" } }
      })
      const bad = [
        { store: { a: 1 } },
        { store: 1.5 },
        { store: 2 ** 60 },
        { store: "\u0000" },
        { store: [["s1"]] },
        { more: "s1" },
        { more: { "": "x" } }
      ]
      for (const more of bad) {
        const token = yield* Effect.promise(() => sign(ec, { claims: more }))
        assert.strictEqual(yield* verdict(judge, token), "token_claims", JSON.stringify(more))
      }
    })
  )
  it.effect("a path through the prototype finds nothing", () =>
    Effect.gen(function* () {
      for (const path of ["$.constructor.name", "$.__proto__.x", "$.sub.length", "$.roles.length"]) {
        const judge = strategyOf("corp", { jwks: { keys: [ec.jwk] }, claims: { actorId: path } })
        assert.strictEqual(yield* verdict(judge, yield* Effect.promise(() => sign(ec))), "token_claims", path)
      }
    })
  )
})

describe("a strategy that cannot be compiled says why", () => {
  const faults: ReadonlyArray<readonly [string, Parameters<typeof settings>[0]]> = [
    ["neither keys nor an address", {}],
    ["an address without encryption", { jwksUrl: "http://issuer.example/keys" }],
    ["an address that only looks local", { jwksUrl: "http://127.0.0.1.evil.example/keys" }],
    ["an address with credentials", { jwksUrl: "https://user:secret@issuer.example/keys" }],
    ["a file", { jwksUrl: "file:///etc/passwd" }],
    ["no issuer", { jwks: { keys: [] }, issuers: [] }],
    ["no audience", { jwks: { keys: [] }, audience: "" }],
    ["a wildcard", { jwks: { keys: [] }, claims: { actorId: "$.*" } }],
    ["an index", { jwks: { keys: [] }, claims: { actorId: "$.a[0]" } }],
    ["a filter", { jwks: { keys: [] }, claims: { actorId: "$.a[?(@.b)]" } }],
    ["no path", { jwks: { keys: [] }, claims: { actorId: "sub" } }],
    ["the root", { jwks: { keys: [] }, claims: { actorId: "$" } }]
  ]
  for (const [name, over] of faults) {
    it(name, () => assert.isTrue(Result.isFailure(compileJwt("x", settings(over)))))
  }
})

const importPublic = (key: TestKey) =>
  crypto.subtle.importKey("jwk", key.jwk as JsonWebKey, { name: "RSASSA-PKCS1-v1_5", hash: "SHA-256" }, true, [
    "verify"
  ])

const hmac = async (alg: string, secret: Uint8Array, input: Uint8Array): Promise<Uint8Array> => {
  const hash = alg.replace("HS", "SHA-")
  const key = await crypto.subtle.importKey("raw", new Uint8Array(secret), { name: "HMAC", hash }, false, ["sign"])
  return new Uint8Array(await crypto.subtle.sign("HMAC", key, new Uint8Array(input)))
}

const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
const flipUnusedBit = (character: string): string => alphabet[alphabet.indexOf(character) ^ 1] ?? ""
