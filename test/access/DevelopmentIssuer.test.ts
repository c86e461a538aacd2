import { chmodSync, mkdtempSync, readdirSync, readFileSync, statSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { assert, describe, it } from "@effect/vitest"
import { Duration, Effect, Result } from "effect"
import { TestClock } from "effect/testing"
import { readToken } from "../../src/access/CompactToken.ts"
import { developmentKeyFile, openDevelopmentIssuer } from "../../src/access/DevelopmentIssuer.ts"
import { strategyOf } from "./Issuer.ts"

const folder = () => join(mkdtempSync(join(tmpdir(), "velocity-issuer-")), "data")

describe("the development issuer", () => {
  it.effect("makes its key on first use, for its owner alone, and keeps it", () =>
    Effect.gen(function* () {
      const data = folder()
      const issuer = yield* openDevelopmentIssuer(data)
      const file = join(data, developmentKeyFile)
      assert.strictEqual(statSync(file).mode & 0o777, 0o600)
      assert.deepStrictEqual(readdirSync(data), [developmentKeyFile])
      assert.notProperty(issuer.jwks().keys[0], "d")
      const again = yield* openDevelopmentIssuer(data)
      assert.deepStrictEqual(again.jwks(), issuer.jwks())
    })
  )

  it.effect("is one, however many open it at once", () =>
    Effect.gen(function* () {
      const data = folder()
      const issuers = yield* Effect.all(
        Array.from({ length: 8 }, () => openDevelopmentIssuer(data)),
        { concurrency: "unbounded" }
      )
      assert.strictEqual(new Set(issuers.map((issuer) => JSON.stringify(issuer.jwks()))).size, 1)
      assert.deepStrictEqual(readdirSync(data), [developmentKeyFile])
    })
  )

  it.effect("signs what its strategy believes, until it ends", () =>
    Effect.gen(function* () {
      yield* TestClock.setTime(Date.UTC(2026, 10, 24))
      const issuer = yield* openDevelopmentIssuer(folder())
      const text = yield* issuer.sign({
        subject: "alice",
        roles: ["buyer", "store"],
        attributes: { store_id: "s1", regions: ["eu", "us"] },
        expiresIn: Duration.minutes(10)
      })
      const { jwt } = issuer.strategy()
      const strategy = strategyOf("development", jwt)
      const token = Result.getOrThrow(readToken(text))
      const identity = yield* strategy.verify(token)
      assert.strictEqual(identity.actor, "development/alice")
      assert.deepStrictEqual(identity.roles, ["buyer", "store"])
      assert.deepStrictEqual(identity.attributes, { store_id: "s1", regions: ["eu", "us"] })
      yield* TestClock.adjust("10 minutes")
      assert.strictEqual((yield* Effect.flip(strategy.verify(token))).code, "token_expired")
    })
  )

  it.effect("without roles signs none", () =>
    Effect.gen(function* () {
      const issuer = yield* openDevelopmentIssuer(folder())
      const token = yield* issuer.sign({ subject: "bob", expiresIn: Duration.seconds(1) })
      assert.deepStrictEqual(Result.getOrThrow(readToken(token)).claims.roles, [])
    })
  )

  it.effect("refuses a key that others may read, and one that is none", () =>
    Effect.gen(function* () {
      const data = folder()
      yield* openDevelopmentIssuer(data)
      const file = join(data, developmentKeyFile)
      const whole = readFileSync(file, "utf8")
      chmodSync(file, 0o644)
      assert.include((yield* Effect.flip(openDevelopmentIssuer(data))).message, "chmod 600")
      chmodSync(file, 0o600)
      for (const text of [
        "",
        "{",
        "null",
        '{"kty":"oct","k":"AA"}',
        JSON.stringify({ ...JSON.parse(whole), d: undefined })
      ]) {
        writeFileSync(file, text)
        const error = yield* Effect.flip(openDevelopmentIssuer(data))
        assert.strictEqual(error._tag, "DevelopmentIssuerError")
        assert.notInclude(error.message, '"d"')
      }
    })
  )
})
