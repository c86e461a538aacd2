/**
 * The issuer that `velocity dev` trusts where a Domain names no AuthStrategy, and that `velocity token` signs for: one
 * Ed25519 key in a file of the data folder, made on first use and readable by its owner alone (mode 0600).
 *
 * It is for one laptop. Whoever can read the file can be anybody there, `platform-admin` included; so a file that
 * others may read is refused, and nothing but `velocity dev` ever writes this strategy into a database.
 */
import { constants } from "node:fs"
import { chmod, link, mkdir, open, rm, stat } from "node:fs/promises"
import { join } from "node:path"
import { Clock, Data, Duration, Effect } from "effect"
import { calculateJwkThumbprint, exportJWK, generateKeyPair, importJWK, type JWK, SignJWT } from "jose"

import type { AuthStrategySpec, JwtSpec } from "../domain/AuthStrategy.ts"

/** Its name as `iss`, whom its tokens are for, and the id of the strategy that believes it. */
export const developmentIssuer = "urn:velocity:development"
export const developmentAudience = "velocity"
export const developmentStrategy = "development"

/** The file's name inside its folder. */
export const developmentKeyFile = "development-issuer.jwk"

/** The key cannot be read or made; the message says what to type. */
export class DevelopmentIssuerError extends Data.TaggedError("DevelopmentIssuerError")<{
  readonly message: string
  readonly cause?: unknown
}> {}

/** Who a token speaks for. Without roles it has none. */
export interface DevelopmentToken {
  readonly subject: string
  readonly roles?: ReadonlyArray<string>
  readonly attributes?: Readonly<Record<string, string | ReadonlyArray<string>>>
  readonly expiresIn: Duration.Duration
}

/** The issuer, its key in hand. */
export interface DevelopmentIssuer {
  /** Its public key as a JWK set, to stand in an AuthStrategy. */
  readonly jwks: () => { readonly keys: ReadonlyArray<Readonly<Record<string, string>>> }
  /** The spec of the AuthStrategy that believes this issuer and no other. */
  readonly strategy: () => AuthStrategySpec & { readonly jwt: JwtSpec }
  /** A signed token. */
  readonly sign: (token: DevelopmentToken) => Effect.Effect<string>
}

const failed = (message: string) => (cause: unknown) => new DevelopmentIssuerError({ message, cause })

/** Reads the key, or makes it: two processes that start at once end up with the same one. */
export const openDevelopmentIssuer = Effect.fn("DevelopmentIssuer.open")(function* (folder: string) {
  const file = join(folder, developmentKeyFile)
  const jwk = yield* Effect.tryPromise({
    try: () => readOrMake(folder, file),
    catch: (cause) =>
      cause instanceof DevelopmentIssuerError
        ? cause
        : failed(`the development issuer's key ${file} is unusable`)(cause)
  })
  const key = yield* Effect.tryPromise({
    try: async () => {
      const imported = await importJWK(jwk, "EdDSA")
      if (imported instanceof Uint8Array || imported.type !== "private") throw new Error("not a private key")
      return imported
    },
    catch: failed(`${file} holds no Ed25519 key; remove it, and a new one is made (tokens of the old one then end)`)
  })
  const kid = yield* Effect.promise(() => calculateJwkThumbprint(jwk))
  const jwks = () => ({ keys: [{ kty: "OKP", crv: "Ed25519", x: jwk.x ?? "", kid, alg: "EdDSA", use: "sig" }] })

  const sign = Effect.fnUntraced(function* (token: DevelopmentToken) {
    const now = Math.floor((yield* Clock.currentTimeMillis) / 1000)
    const ends = now + Math.ceil(Duration.toSeconds(token.expiresIn))
    const id = crypto.randomUUID()
    return yield* Effect.promise(() =>
      new SignJWT({ roles: [...(token.roles ?? [])], attributes: { ...token.attributes } })
        .setProtectedHeader({ alg: "EdDSA", kid, typ: "JWT" })
        .setIssuer(developmentIssuer)
        .setAudience(developmentAudience)
        .setSubject(token.subject)
        .setIssuedAt(now)
        .setExpirationTime(ends)
        .setJti(id)
        .sign(key)
    )
  })

  const strategy = (): AuthStrategySpec & { readonly jwt: JwtSpec } => ({
    type: "jwt",
    jwt: {
      issuers: [developmentIssuer],
      audience: developmentAudience,
      algorithms: ["EdDSA"],
      clockSkew: "0s",
      jwks: jwks(),
      claims: { actorId: "$.sub", roles: "$.roles", attributes: { "*": "$.attributes" } }
    }
  })

  return { jwks, strategy, sign } satisfies DevelopmentIssuer
})

const readOrMake = async (folder: string, file: string): Promise<JWK> => {
  const there = await read(file)
  if (there !== undefined) return there
  await mkdir(folder, { recursive: true, mode: 0o700 })
  const { privateKey } = await generateKeyPair("EdDSA", { extractable: true })
  const draft = `${file}.${crypto.randomUUID()}`
  try {
    const handle = await open(draft, constants.O_WRONLY | constants.O_CREAT | constants.O_EXCL, 0o600)
    try {
      await handle.writeFile(`${JSON.stringify(await exportJWK(privateKey))}\n`)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await chmod(draft, 0o600)
    // a link appears whole or not at all, and never over a key that another process has made meanwhile
    await link(draft, file).catch((error: NodeJS.ErrnoException) => {
      if (error.code !== "EEXIST") throw error
    })
  } finally {
    await rm(draft, { force: true })
  }
  const made = await read(file)
  if (made === undefined) throw new DevelopmentIssuerError({ message: `${file} vanished while it was being made` })
  return made
}

const read = async (file: string): Promise<JWK | undefined> => {
  const found = await stat(file).catch((error: NodeJS.ErrnoException) => {
    if (error.code === "ENOENT") return undefined
    throw error
  })
  if (found === undefined) return undefined
  if ((found.mode & 0o077) !== 0) {
    throw new DevelopmentIssuerError({ message: `others may read ${file}: type chmod 600 '${file}', or remove it` })
  }
  const handle = await open(file)
  try {
    return JSON.parse(await handle.readFile("utf8")) as JWK
  } finally {
    await handle.close()
  }
}
