import { assert, describe, it } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Redacted, Result } from "effect"
import { TestClock } from "effect/testing"
import type { Strategy } from "../../src/access/Authenticator.ts"
import { credentialOf } from "../../src/access/Credential.ts"
import { KeyAuthenticator, KeySource, type StoredKey } from "../../src/access/KeyAuthenticator.ts"
import { parseRange } from "../../src/domain/AddressRange.ts"
import { keyText, newKey } from "../../src/domain/KeyText.ts"
import { hex, sha256, utf8 } from "../../src/domain/Sha256.ts"

const chain = "acme/shop/sales"
const text = newKey("live")

/** An installation in memory. */
class Installation {
  readonly strategies = new Map<string, Strategy>([
    ["keys", { type: "apikey", id: "keys" }],
    ["other", { type: "apikey", id: "other" }],
    ["open", { type: "none", id: "open" }]
  ])
  readonly keys = new Map<string, StoredKey>()
  readonly revoked = new Set<string>()
  loaded = true

  put(more: Partial<StoredKey> = {}, key = text): this {
    const hash = sha256(utf8(key))
    this.keys.set(hex(hash), {
      id: "00000000-0000-4000-8000-000000000000",
      hash,
      actor: "keys/robot",
      chain,
      roles: ["reader"],
      scopes: [],
      ranges: [],
      expiresAt: Number.POSITIVE_INFINITY,
      isRevoked: false,
      ...more
    })
    return this
  }

  readonly layer = Layer.sync(KeySource)(() => ({
    isLoaded: () => this.loaded,
    key: (hash: string) => this.keys.get(hash),
    strategy: (id: string) => this.strategies.get(id),
    isRevoked: (actor: string) => this.revoked.has(actor)
  }))
}

const asking = (installation: Installation, environment?: string) =>
  Effect.map(
    KeyAuthenticator,
    (keys) =>
      (key: string, at = chain, strategies = ["keys"], address = "192.0.2.7") =>
        keys.authenticate(Redacted.make(key), { chain: at, strategies, address }).pipe(
          Effect.match({
            onSuccess: (identity) => identity.actor,
            onFailure: ({ actor, problem }) => `${problem.code}${actor === undefined ? "" : ` of ${actor}`}`
          })
        )
  ).pipe(
    Effect.provide(
      KeyAuthenticator.layer.pipe(
        Layer.provide(installation.layer),
        Layer.provide(
          ConfigProvider.layer(
            ConfigProvider.fromUnknown(environment === undefined ? {} : { VELOCITY_KEY_ENVIRONMENT: environment })
          )
        )
      )
    )
  )

describe("a key", () => {
  it.effect("is its actor in the domain that it was made for, and nobody anywhere else", () =>
    Effect.gen(function* () {
      const ask = yield* asking(new Installation().put())
      assert.strictEqual(yield* ask(text), "keys/robot")
      assert.strictEqual(yield* ask(text, "acme/shop/stock"), "not_found of keys/robot")
      assert.strictEqual(yield* ask(text, "no/such/place", []), "not_found of keys/robot")
      assert.strictEqual(yield* ask(text, "platform", ["keys"]), "key_domain of keys/robot")
    })
  )

  it.effect("counts while its domain trusts the strategy of its actor, which is there and takes keys", () =>
    Effect.gen(function* () {
      const installation = new Installation().put()
      const ask = yield* asking(installation)
      assert.strictEqual(yield* ask(text, chain, ["other", "keys"]), "keys/robot")
      assert.strictEqual(yield* ask(text, chain, ["other"]), "not_found of keys/robot")
      assert.strictEqual(yield* ask(text, chain, []), "not_found of keys/robot")
      installation.strategies.delete("keys")
      assert.strictEqual(yield* ask(text), "not_found of keys/robot")
      // a key does not speak for those whom a token must prove
      installation.put({ actor: "open/anonymous" })
      assert.strictEqual(yield* ask(text, chain, ["open"]), "not_found of open/anonymous")
    })
  )

  it.effect("is judged by itself before any path, and told by its reason", () =>
    Effect.gen(function* () {
      const installation = new Installation()
      const ask = yield* asking(installation)
      const everywhere = Effect.fnUntraced(function* (key: string, address?: string) {
        const told = new Set([
          yield* ask(key, chain, ["keys"], address),
          yield* ask(key, "acme/shop/stock", ["keys"], address),
          yield* ask(key, "no/such/place", [], address),
          yield* ask(key, "platform", ["platform"], address)
        ])
        return [...told].join(" | ")
      })
      assert.strictEqual(yield* everywhere(text), "key_unknown")
      for (const bad of ["", "x", text.slice(0, -1), `${text}x`, "a".repeat(1_000_000)]) {
        assert.strictEqual(yield* everywhere(bad), "key_malformed")
      }
      assert.strictEqual(yield* everywhere(text.replace("vel_live", "vel_test")), "key_environment")
      installation.put({ isRevoked: true })
      assert.strictEqual(yield* everywhere(text), "key_revoked of keys/robot")
      installation.put({ ranges: [parseRange("10.0.0.0/8") ?? assert.fail()] })
      assert.strictEqual(yield* everywhere(text, "192.0.2.7"), "key_address of keys/robot")
      assert.strictEqual(yield* everywhere(text, ""), "key_address of keys/robot")
      assert.strictEqual(yield* ask(text, chain, ["keys"], "::ffff:10.0.0.1"), "keys/robot")
      installation.put()
      installation.revoked.add("keys/robot")
      assert.strictEqual(yield* everywhere(text), "actor_revoked of keys/robot")
    })
  )

  it.effect("ends at its time, to the millisecond", () =>
    Effect.gen(function* () {
      const ask = yield* asking(new Installation().put({ expiresAt: 60_000 }))
      yield* TestClock.setTime(59_999)
      assert.strictEqual(yield* ask(text), "keys/robot")
      yield* TestClock.setTime(60_000)
      assert.strictEqual(yield* ask(text), "key_expired of keys/robot")
    })
  )

  it.effect("of another environment opens nothing, also where its hash is here: a copied database", () =>
    Effect.gen(function* () {
      const ask = yield* asking(new Installation().put(), "staging")
      assert.strictEqual(yield* ask(text), "key_environment")
    })
  )

  it.effect("is refused with 503 before any key was read, and not taken for unknown", () =>
    Effect.gen(function* () {
      const installation = new Installation().put()
      installation.loaded = false
      const ask = yield* asking(installation)
      assert.strictEqual(yield* ask(text), "dependency_unavailable")
      installation.loaded = true
      assert.strictEqual(yield* ask(text), "keys/robot")
    })
  )

  it.effect("is found by all of its hash: what lies under the same name with another one is unknown", () =>
    Effect.gen(function* () {
      const installation = new Installation().put()
      for (const [name, key] of installation.keys) installation.keys.set(name, { ...key, hash: new Uint8Array(32) })
      const ask = yield* asking(installation)
      assert.strictEqual(yield* ask(text), "key_unknown")
    })
  )
})

describe("a request's credential", () => {
  const key = keyText("live", new Uint8Array(32))
  const read = (headers: Readonly<Record<string, string>>): string =>
    Result.match(credentialOf(headers), {
      onSuccess: (found) =>
        found._tag === "Nothing"
          ? "nothing"
          : `${found._tag} ${Redacted.value(found._tag === "Key" ? found.key : found.token)}`,
      onFailure: ({ code, status }) => `${status} ${code}`
    })

  it("is nothing, a token, or a key in either of two headers", () => {
    assert.strictEqual(read({}), "nothing")
    assert.strictEqual(read({ authorization: "Bearer a.b.c" }), "Token a.b.c")
    assert.strictEqual(read({ "x-api-key": key }), `Key ${key}`)
    assert.strictEqual(read({ authorization: `ApiKey ${key}` }), `Key ${key}`)
    assert.strictEqual(read({ authorization: `apikey   ${key} ` }), `Key ${key}`)
  })

  it("is refused where there are two, also the same twice", () => {
    assert.strictEqual(read({ "x-api-key": key, authorization: "Bearer a.b.c" }), "401 credentials_conflict")
    assert.strictEqual(read({ "x-api-key": key, authorization: `ApiKey ${key}` }), "401 credentials_conflict")
    assert.strictEqual(read({ "x-api-key": "", authorization: "" }), "401 credentials_conflict")
  })

  it("is refused where it is none", () => {
    assert.strictEqual(read({ authorization: "ApiKey" }), "401 key_malformed")
    assert.strictEqual(read({ authorization: "ApiKey " }), "401 key_malformed")
    assert.strictEqual(read({ authorization: `ApiKey ${key}, ${key}` }), "401 token_malformed")
    assert.strictEqual(read({ authorization: `Basic ${key}` }), "401 token_malformed")
    assert.strictEqual(read({ authorization: key }), "401 token_malformed")
  })
})
