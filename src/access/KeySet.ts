/**
 * The public keys of one strategy. Each strategy has a set of its own, even where two name the same address: a key that
 * one tenant's issuer publishes never vouches for another's token.
 *
 * Keys stand in the strategy (`jwks`) or are fetched (`jwksUrl`). Fetched ones are used for ten minutes, then fetched
 * again before anything else is believed; a key id that is not known asks again at once, but not more often than each
 * thirty seconds, so that forged tokens cannot be turned into a flood of requests to somebody's issuer. A set that
 * cannot be fetched denies: old keys may have been withdrawn for a reason.
 *
 * What is used of a key is its public members alone. Symmetric keys, keys for encryption and RSA keys under 2048 bits
 * are passed over, as if they were not in the set.
 */
import { Clock, Data, Duration, Effect, Semaphore } from "effect"
import { type CryptoKey, importJWK, type JWK } from "jose"

/** The keys could not be had: the strategy's issuer is down, slow, or says something else than keys. */
export class KeysUnavailable extends Data.TaggedError("KeysUnavailable")<{ readonly detail: string }> {}

/** How long things hold. The defaults are the product's; tests bring their own. */
export interface KeySetTimings {
  /** Fetched keys older than this are fetched again before they are used. */
  readonly maxAge: Duration.Duration
  /** The least time between two fetches for the sake of an unknown key. */
  readonly cooldown: Duration.Duration
  /** The least time between a failed fetch and the next; meanwhile the failure is the answer. */
  readonly failureCooldown: Duration.Duration
  /** How long an issuer may take to answer. */
  readonly timeout: Duration.Duration
}

/** Ten minutes, thirty seconds, two seconds, five seconds. */
export const defaultTimings: KeySetTimings = {
  maxAge: Duration.minutes(10),
  cooldown: Duration.seconds(30),
  failureCooldown: Duration.seconds(2),
  timeout: Duration.seconds(5)
}

/** The largest key set that is read, in bytes, and the most keys that are used of it. */
export const keySetLimits = { bytes: 1_048_576, keys: 100, tried: 8 } as const

/** The keys of one strategy. */
export interface KeySet {
  /**
   * The keys that could have made a signature of this algorithm under this key id (at most eight where the token names
   * none). Fails with `KeysUnavailable`; an empty answer means that no such key exists.
   */
  readonly candidates: (
    algorithm: string,
    keyId: string | undefined
  ) => Effect.Effect<ReadonlyArray<CryptoKey>, KeysUnavailable>
  /** Fetches once more, if the last fetch is past its cooldown; true if the keys are not what they were. */
  readonly renew: Effect.Effect<boolean, KeysUnavailable>
  /** Fetches in passing when the keys are past their age; what was verified goes on until that is done. Never fails. */
  readonly keepFresh: Effect.Effect<void>
  /** Whether `keepFresh` has something to do at this time, in milliseconds since 1970. */
  readonly isStale: (now: number) => boolean
  /** Rises when a key was withdrawn: what was verified before is to be verified again. */
  readonly epoch: () => number
}

/** One usable public key: what selects it, and what makes two of them the same. */
class PublicKey {
  readonly fingerprint: string
  private readonly jwk: JWK
  private readonly imported = new Map<string, Promise<CryptoKey | undefined>>()

  constructor(jwk: JWK) {
    this.jwk = jwk
    this.fingerprint = JSON.stringify(jwk)
  }

  fits(algorithm: string, keyId: string | undefined): boolean {
    const { kty, crv, alg, kid } = this.jwk
    if (keyId !== undefined && kid !== keyId) return false
    if (alg !== undefined && alg !== algorithm && !(isEdDsa(alg) && isEdDsa(algorithm))) return false
    const wanted = kindOf(algorithm)
    return wanted !== undefined && wanted.kty === kty && (wanted.crv === undefined || wanted.crv === crv)
  }

  /** The key as the platform's cryptography takes it; undefined for one that it refuses, which is then no key at all. */
  key(algorithm: string): Promise<CryptoKey | undefined> {
    let key = this.imported.get(algorithm)
    if (key === undefined) {
      const { alg: _, ...jwk } = this.jwk
      key = importJWK(jwk, algorithm).then(
        (imported) => (imported instanceof Uint8Array || tooShort(imported) ? undefined : (imported as CryptoKey)),
        () => undefined
      )
      this.imported.set(algorithm, key)
    }
    return key
  }
}

const isEdDsa = (algorithm: string): boolean => algorithm === "EdDSA" || algorithm === "Ed25519"

// jose asks for 2048 bits as well, but as a TypeError in the middle of a verification
const tooShort = (key: { readonly algorithm: object }): boolean =>
  "modulusLength" in key.algorithm && Number(key.algorithm.modulusLength) < 2048

/** The kind of key that makes signatures of an algorithm (RFC 7518 §3.1, RFC 8037 §3.1). */
const kindOf = (algorithm: string): { readonly kty: string; readonly crv?: string } | undefined => {
  if (isEdDsa(algorithm)) return { kty: "OKP", crv: "Ed25519" }
  if (/^[RP]S(256|384|512)$/.test(algorithm)) return { kty: "RSA" }
  switch (algorithm) {
    case "ES256":
      return { kty: "EC", crv: "P-256" }
    case "ES384":
      return { kty: "EC", crv: "P-384" }
    case "ES512":
      return { kty: "EC", crv: "P-521" }
    default:
      return undefined
  }
}

const members: Readonly<Record<string, ReadonlyArray<string>>> = {
  RSA: ["kty", "n", "e"],
  EC: ["kty", "crv", "x", "y"],
  OKP: ["kty", "crv", "x"]
}

const publicKeyOf = (value: unknown): PublicKey | undefined => {
  if (typeof value !== "object" || value === null || Array.isArray(value)) return undefined
  const jwk = value as Record<string, unknown>
  if (jwk.use !== undefined && jwk.use !== "sig") return undefined
  const operations = jwk.key_ops
  if (operations !== undefined && !(Array.isArray(operations) && operations.includes("verify"))) return undefined
  const needed = typeof jwk.kty === "string" && Object.hasOwn(members, jwk.kty) ? members[jwk.kty] : undefined
  if (needed === undefined || needed.some((name) => typeof jwk[name] !== "string")) return undefined
  const picked: Record<string, string> = {}
  for (const name of [...needed, "kid", "alg"]) {
    const member = jwk[name]
    if (typeof member === "string") picked[name] = member
    else if (member !== undefined) return undefined
  }
  return new PublicKey(picked as unknown as JWK)
}

/** Reads a JWK set (RFC 7517 §5); keys that cannot verify anything are left out. Undefined where it is no set at all. */
const readKeys = (value: unknown): ReadonlyArray<PublicKey> | undefined => {
  if (typeof value !== "object" || value === null || !("keys" in value) || !Array.isArray(value.keys)) return undefined
  return value.keys.slice(0, keySetLimits.keys).flatMap((key) => publicKeyOf(key) ?? [])
}

const select = async (keys: ReadonlyArray<PublicKey>, algorithm: string, keyId: string | undefined) => {
  const fitting = keys.filter((key) => key.fits(algorithm, keyId)).slice(0, keySetLimits.tried)
  const imported = await Promise.all(fitting.map((key) => key.key(algorithm)))
  return imported.filter((key) => key !== undefined)
}

/** The keys that stand in the strategy itself: nothing to fetch, nothing to fail. */
export const inlineKeys = (jwks: unknown): KeySet => {
  const keys = readKeys(jwks) ?? []
  return {
    candidates: (algorithm, keyId) => Effect.promise(() => select(keys, algorithm, keyId)),
    renew: Effect.succeed(false),
    keepFresh: Effect.void,
    isStale: () => false,
    epoch: () => 0
  }
}

const loopback = /^(localhost|127(\.\d{1,3}){3}|\[::1\])$/

/** Whether keys may be fetched from here: https, or http on a loopback address, and no credentials in it. */
export const isKeySetUrl = (text: string): boolean => {
  const url = URL.parse(text)
  if (url === null || url.username !== "" || url.password !== "") return false
  return url.protocol === "https:" || (url.protocol === "http:" && loopback.test(url.hostname))
}

/** The keys at an address. Nothing is fetched before the first question. */
export const fetchedKeys = (url: string, timings: KeySetTimings = defaultTimings): KeySet => {
  const one = Semaphore.makeUnsafe(1)
  const maxAge = Duration.toMillis(timings.maxAge)
  const cooldown = Duration.toMillis(timings.cooldown)
  const failureCooldown = Duration.toMillis(timings.failureCooldown)
  let keys: ReadonlyArray<PublicKey> | undefined
  let fetchedAt = Number.NEGATIVE_INFINITY
  let failure: { readonly at: number; readonly error: KeysUnavailable } | undefined
  let epoch = 0
  let fetching = false

  const accept = (fresh: ReadonlyArray<PublicKey>, now: number): boolean => {
    const before = new Set(keys?.map((key) => key.fingerprint))
    const after = new Map(fresh.map((key) => [key.fingerprint, key]))
    const withdrawn = [...before].some((fingerprint) => !after.has(fingerprint))
    const changed = withdrawn || after.size !== before.size
    if (withdrawn) epoch += 1
    if (changed) keys = fresh
    fetchedAt = now
    failure = undefined
    return changed
  }

  // `wanted` is judged again once the permit is held: whoever waited for another's fetch has its result already
  const fetchIf = (wanted: (now: number) => boolean): Effect.Effect<boolean, KeysUnavailable> =>
    Semaphore.withPermits(
      one,
      1
    )(
      Effect.gen(function* () {
        const now = yield* Clock.currentTimeMillis
        if (!wanted(now)) return false
        if (failure !== undefined && now - failure.at < failureCooldown) return yield* failure.error
        fetching = true
        const fresh = yield* download(url, timings.timeout).pipe(
          Effect.tapError((error) => Effect.sync(() => (failure = { at: now, error }))),
          Effect.ensuring(Effect.sync(() => (fetching = false)))
        )
        return accept(fresh, now)
      })
    )

  const expired = (now: number): boolean => now - fetchedAt >= maxAge
  const renewable = (now: number): boolean => now - fetchedAt >= cooldown
  const selected = (algorithm: string, keyId: string | undefined) =>
    Effect.promise(() => select(keys ?? [], algorithm, keyId))

  const candidates = Effect.fnUntraced(function* (algorithm: string, keyId: string | undefined) {
    if (expired(yield* Clock.currentTimeMillis)) yield* fetchIf(expired)
    const found = yield* selected(algorithm, keyId)
    if (found.length > 0 || !(yield* fetchIf(renewable))) return found
    return yield* selected(algorithm, keyId)
  })

  return {
    candidates,
    renew: fetchIf(renewable),
    keepFresh: Effect.asVoid(Effect.ignore(fetchIf(expired))),
    isStale: (now) => !fetching && expired(now) && (failure === undefined || now - failure.at >= failureCooldown),
    epoch: () => epoch
  }
}

/** One fetch: no redirects (they would leave the address that was allowed), bounded in time and size. */
const download = (url: string, timeout: Duration.Duration): Effect.Effect<ReadonlyArray<PublicKey>, KeysUnavailable> =>
  Effect.tryPromise({
    try: async (signal) => {
      const response = await fetch(url, {
        headers: { accept: "application/jwk-set+json, application/json" },
        redirect: "error",
        signal: AbortSignal.any([signal, AbortSignal.timeout(Duration.toMillis(timeout))])
      })
      if (response.status !== 200) {
        await response.body?.cancel()
        throw new KeysUnavailable({ detail: `the issuer's keys answer with status ${response.status}` })
      }
      const keys = readKeys(JSON.parse(await bounded(response)))
      if (keys === undefined) throw new KeysUnavailable({ detail: "the issuer's keys are not a JWK set" })
      return keys
    },
    catch: (error) =>
      error instanceof KeysUnavailable ? error : new KeysUnavailable({ detail: "the issuer's keys cannot be fetched" })
  })

const bounded = async (response: Response): Promise<string> => {
  const chunks: Array<Uint8Array> = []
  let size = 0
  for await (const chunk of response.body ?? []) {
    size += chunk.byteLength
    if (size > keySetLimits.bytes) {
      throw new KeysUnavailable({ detail: `the issuer's keys are more than ${keySetLimits.bytes} bytes` })
    }
    chunks.push(chunk)
  }
  return new TextDecoder("utf-8", { fatal: true }).decode(Buffer.concat(chunks))
}
