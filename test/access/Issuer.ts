/**
 * An issuer for tests: key pairs, tokens good and bad, and a real HTTP server that publishes the keys, counts who asks,
 * and can be told to fail.
 */
import { createServer, type Server } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect, Result } from "effect"
import { type CryptoKey, exportJWK, generateKeyPair, type JWK, type JWTHeaderParameters, SignJWT } from "jose"
import { compileJwt, type JwtStrategy } from "../../src/access/JwtStrategy.ts"
import type { KeySetTimings } from "../../src/access/KeySet.ts"
import type { JwtSpec } from "../../src/domain/AuthStrategy.ts"

export interface TestKey {
  readonly kid: string | undefined
  readonly algorithm: string
  readonly privateKey: CryptoKey
  readonly jwk: JWK
}

/** A fresh key pair. Without `kid` its tokens and its JWK name none. */
export const makeKey = async (algorithm = "ES256", kid?: string): Promise<TestKey> => {
  const { privateKey, publicKey } = await generateKeyPair(algorithm, { extractable: true })
  const jwk = { ...(await exportJWK(publicKey)), ...(kid === undefined ? {} : { kid }) }
  return { kid, algorithm, privateKey, jwk }
}

export interface TokenParts {
  readonly claims?: Readonly<Record<string, unknown>>
  readonly header?: Readonly<Record<string, unknown>>
  readonly without?: ReadonlyArray<string>
}

export const issuer = "https://issuer.example"
export const audience = "velocity"

/** The instant at which TestClock starts is 0, so times in tokens are seconds of the test. */
export const sign = async (key: TestKey, parts: TokenParts = {}): Promise<string> => {
  const claims: Record<string, unknown> = {
    iss: issuer,
    aud: audience,
    sub: "alice",
    exp: 600,
    roles: ["buyer"],
    ...parts.claims
  }
  for (const name of parts.without ?? []) delete claims[name]
  const header = { alg: key.algorithm, ...(key.kid === undefined ? {} : { kid: key.kid }), ...parts.header }
  return new SignJWT(claims).setProtectedHeader(header as JWTHeaderParameters).sign(key.privateKey)
}

const encode = (value: unknown): string =>
  Buffer.from(typeof value === "string" ? value : JSON.stringify(value)).toString("base64url")

/** A token of raw parts, text as it stands, signed by whatever `signature` does with the signing input. */
export const rawToken = async (
  header: unknown,
  payload: unknown,
  signature: (input: Uint8Array) => Promise<Uint8Array> | Uint8Array
): Promise<string> => {
  const input = `${encode(header)}.${encode(payload)}`
  return `${input}.${Buffer.from(await signature(Buffer.from(input))).toString("base64url")}`
}

export const es256 =
  (key: TestKey) =>
  async (input: Uint8Array): Promise<Uint8Array> =>
    new Uint8Array(await crypto.subtle.sign({ name: "ECDSA", hash: "SHA-256" }, key.privateKey, new Uint8Array(input)))

/** What a test says of a strategy; for the rest there are defaults. */
export type Settings = Partial<Omit<JwtSpec, "claims" | "jwks">> & {
  readonly claims?: Partial<JwtSpec["claims"]>
  readonly jwks?: { readonly keys: ReadonlyArray<unknown> }
}

export const settings = ({ claims, ...over }: Settings = {}): JwtSpec =>
  ({
    issuers: [issuer],
    audience,
    algorithms: ["ES256", "RS256", "EdDSA"],
    clockSkew: "0s",
    claims: { actorId: "$.sub", roles: "$.roles", attributes: {}, ...claims },
    ...over
  }) as JwtSpec

export const strategyOf = (id: string, over: Settings, timings?: KeySetTimings): JwtStrategy =>
  Result.getOrThrowWith(compileJwt(id, settings(over), timings), (fault) => new Error(fault))

/** A server of JWK sets. */
export interface KeyServer {
  readonly url: string
  readonly asked: () => number
  readonly publish: (keys: ReadonlyArray<TestKey>) => void
  readonly answer: (status: number, body: string) => void
  readonly redirect: (location: string) => void
  /** Takes requests and never answers. */
  readonly hang: () => void
  readonly down: Effect.Effect<void>
  readonly up: Effect.Effect<void>
}

const listen = (server: Server, port: number) =>
  Effect.callback<number>((resume) => {
    server.listen(port, "127.0.0.1", () => resume(Effect.succeed((server.address() as AddressInfo).port)))
  })

const close = (server: Server) =>
  Effect.callback<void>((resume) => {
    server.closeAllConnections()
    server.close(() => resume(Effect.void))
  })

export const keyServer = Effect.gen(function* () {
  let asked = 0
  let status = 200
  let body = '{"keys":[]}'
  let location: string | undefined
  let hangs = false
  const make = () =>
    createServer((_, response) => {
      asked += 1
      if (hangs) return
      const headers = { "content-type": "application/json", connection: "close" }
      response.writeHead(status, location === undefined ? headers : { ...headers, location }).end(body)
    })
  let server = make()
  const port = yield* listen(server, 0)
  yield* Effect.addFinalizer(() => close(server))
  return {
    url: `http://127.0.0.1:${port}/keys`,
    asked: () => asked,
    publish: (keys) => {
      status = 200
      body = JSON.stringify({ keys: keys.map((key) => key.jwk) })
    },
    redirect: (to) => {
      status = 302
      location = to
    },
    hang: () => {
      hangs = true
    },
    answer: (nextStatus, nextBody) => {
      status = nextStatus
      body = nextBody
    },
    down: Effect.suspend(() => close(server)),
    up: Effect.suspend(() => {
      server = make()
      return Effect.asVoid(listen(server, port))
    })
  } satisfies KeyServer
})
