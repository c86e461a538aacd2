/**
 * Tokens that were verified, so that the next request with one costs a hash and a look-up instead of a signature.
 *
 * A token is kept under its SHA-256, never as itself: whoever reads this process's memory through some leak finds no
 * credentials here. An entry is an opinion of one strategy at one time, and holds only while that very strategy (the
 * same compiled value), its keys (the same epoch) and the actor (not revoked) do; the asker judges that at each hit, so
 * nothing depends on being told. Bounded: the entry used longest ago makes room.
 */
import { hash } from "node:crypto"
import type { Identity } from "../domain/Identity.ts"
import type { JwtStrategy } from "./JwtStrategy.ts"

/** What verification said of a token, and on what that stands. */
export interface VerifiedToken {
  readonly identity: Identity
  /** The token's `iss`. */
  readonly issuer: string
  readonly strategy: JwtStrategy
  /** The epoch of the strategy's keys when the signature was checked. */
  readonly epoch: number
}

/** A bounded map from tokens to what was verified of them; the one used longest ago leaves first. */
export class TokenCache {
  private readonly entries = new Map<string, VerifiedToken>()
  private readonly capacity: number

  /** `capacity` is the most entries that are kept; 0 keeps none. */
  constructor(capacity: number) {
    this.capacity = capacity
  }

  /** How many tokens are kept. */
  get size(): number {
    return this.entries.size
  }

  /** The name a token is kept under: its SHA-256. */
  static keyOf(token: string): string {
    return hash("sha256", token, "base64url")
  }

  /** What is known of a token that has not ended at `now` (milliseconds); an ended one is dropped in passing. */
  get(key: string, now: number): VerifiedToken | undefined {
    const entry = this.entries.get(key)
    if (entry === undefined) return undefined
    this.entries.delete(key)
    if (entry.identity.expiresAt <= now) return undefined
    // a map keeps the order of insertion: what was used last stands last
    this.entries.set(key, entry)
    return entry
  }

  /** Keeps what was verified of a token. */
  set(key: string, entry: VerifiedToken): void {
    if (this.capacity <= 0) return
    this.entries.delete(key)
    this.entries.set(key, entry)
    if (this.entries.size > this.capacity) {
      const [oldest] = this.entries.keys()
      if (oldest !== undefined) this.entries.delete(oldest)
    }
  }

  /** Forgets one token. */
  delete(key: string): void {
    this.entries.delete(key)
  }

  /** Forgets the tokens that do not fit any more: after a change of strategies or revocations, to give memory back. */
  retain(holds: (entry: VerifiedToken) => boolean): void {
    for (const [key, entry] of this.entries) if (!holds(entry)) this.entries.delete(key)
  }
}
