/**
 * Cursors: where the next page begins, sealed, so that a client can neither read nor make one.
 *
 * A cursor is AES-256-GCM over the keys of a page's last row. Actor and query are its additional data, so that one of
 * somebody else's, or of another query, does not open; neither does one that was changed or cut (`cursor_invalid`). It is
 * good for 24 hours and as long as the fields that it depends on are defined as they were (`cursor_expired`).
 *
 * A key seals a million cursors at most, each with a random nonce: it is HMAC-SHA-256 of the master key over 16 random
 * bytes, so that no number of cursors can repeat a nonce under one key. The master keys are the database's (`platform.cursor_keys()`), one for all replicas, and rotate: the
 * newest seals, all of them open (fine print 36).
 */
import {
  createCipheriv,
  createDecipheriv,
  createHash,
  createHmac,
  createSecretKey,
  hash,
  type KeyObject,
  randomBytes,
  randomFillSync
} from "node:crypto"
import * as Clock from "effect/Clock"
import * as Effect from "effect/Effect"
import * as Semaphore from "effect/Semaphore"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { GatewayTx } from "../../postgres/GatewayTx.ts"
import { statement } from "../../postgres/Statement.ts"

/** How long a cursor lasts, in milliseconds. */
export const cursorLifetime = 24 * 60 * 60 * 1000
/** How long keys are used before they are read again: a rotated key is noticed within it. */
const keysLifetime = 5 * 60 * 1000
/** A cursor is no longer than this: at most eight keys. */
const maxLength = 16_384
const saltLength = 16
const tagLength = 16
const keyIdLength = 4
const nonceLength = 12
const headLength = keyIdLength + saltLength + nonceLength
/** With so many random nonces under one key, that two are the same has a chance of one in 2^57. */
const sealedAtMost = 2 ** 20

/** What a cursor is bound to. */
export interface CursorScope {
  readonly actor: string
  /** Rows and order: `QuerySql.pageIdentity`. */
  readonly query: string
  /** How the fields it depends on are defined: `QuerySql.fieldsIdentity`. */
  readonly fields: string
}

/** The keys of the last row, as exact texts. */
export type CursorKeys = ReadonlyArray<string | null>

interface MasterKey {
  readonly id: Buffer
  readonly value: KeyObject
}

/** A key under which cursors are sealed now. */
interface Series {
  /** The master key's id and the salt. */
  readonly head: Buffer
  readonly key: KeyObject
  sealed: number
}

const digest = (text: string): string => hash("sha256", text, "base64url")
const boundTo = ({ actor, query }: CursorScope): Buffer => Buffer.from(JSON.stringify([actor, query]))
// as key objects: Node 24 takes 8 µs longer each time for a key that is a Buffer
const derived = ({ value }: MasterKey, salt: Buffer): KeyObject =>
  createSecretKey(createHmac("sha256", value).update(salt).digest())

const current = new WeakMap<MasterKey, Series>()

const seriesOf = (master: MasterKey): Series => {
  const known = current.get(master)
  if (known !== undefined && known.sealed < sealedAtMost) return known
  const salt = randomBytes(saltLength)
  const fresh: Series = { head: Buffer.concat([master.id, salt]), key: derived(master, salt), sealed: 0 }
  current.set(master, fresh)
  return fresh
}

/** Drawn many at once, since a call costs as much as the rest of a cursor. */
const nonces = Buffer.alloc(nonceLength * 256)
let drawn = nonces.length

const nextNonce = (): Buffer => {
  if (drawn === nonces.length) {
    randomFillSync(nonces)
    drawn = 0
  }
  drawn += nonceLength
  return nonces.subarray(drawn - nonceLength, drawn)
}

const seal = (master: MasterKey, scope: CursorScope, keys: CursorKeys, now: number): string => {
  const series = seriesOf(master)
  series.sealed++
  const nonce = nextNonce()
  const cipher = createCipheriv("aes-256-gcm", series.key, nonce, { authTagLength: tagLength })
  cipher.setAAD(boundTo(scope))
  const sealed = cipher.update(JSON.stringify([now, digest(scope.fields), ...keys]))
  return Buffer.concat([series.head, nonce, sealed, cipher.final(), cipher.getAuthTag()]).toString("base64url")
}

const unsealed = (masters: ReadonlyArray<MasterKey>, bytes: Buffer, scope: CursorScope): unknown => {
  const id = bytes.subarray(0, keyIdLength)
  const salt = bytes.subarray(keyIdLength, keyIdLength + saltLength)
  const nonce = bytes.subarray(keyIdLength + saltLength, headLength)
  const master = masters.find((one) => one.id.equals(id))
  if (master === undefined) return undefined
  try {
    const decipher = createDecipheriv("aes-256-gcm", derived(master, salt), nonce, { authTagLength: tagLength })
    decipher.setAAD(boundTo(scope))
    decipher.setAuthTag(bytes.subarray(-tagLength))
    const text = Buffer.concat([decipher.update(bytes.subarray(headLength, -tagLength)), decipher.final()])
    return JSON.parse(text.toString())
  } catch {
    return undefined
  }
}

/** Seals and opens cursors with the keys of one moment. */
export class CursorBox {
  private readonly masters: ReadonlyArray<MasterKey>
  private readonly now: number
  constructor(masters: ReadonlyArray<MasterKey>, now: number) {
    this.masters = masters
    this.now = now
  }

  seal(scope: CursorScope, keys: CursorKeys): string {
    const [newest] = this.masters
    // cursor_keys() always answers one
    return newest === undefined ? "" : seal(newest, scope, keys, this.now)
  }

  /** The keys in a cursor of `count` of them (any number where it is undefined); else 400 `cursor_invalid` or `cursor_expired`. */
  open(text: string, scope: CursorScope, count: number | undefined): CursorKeys | Problem {
    const bytes = Buffer.from(text, "base64url")
    // base64url decoding skips what it does not know: only the canonical text is one
    if (text.length > maxLength || bytes.length <= headLength + tagLength) return problem("cursor_invalid")
    if (bytes.toString("base64url") !== text) return problem("cursor_invalid")
    const content = unsealed(this.masters, bytes, scope)
    if (!Array.isArray(content)) return problem("cursor_invalid")
    const [sealedAt, fields, ...keys] = content as [number, string, ...Array<string | null>]
    if (
      this.now - sealedAt > cursorLifetime ||
      fields !== digest(scope.fields) ||
      (count !== undefined && keys.length !== count)
    ) {
      return problem("cursor_expired")
    }
    return keys
  }
}

/** The keys' holder: reads them when they are first needed, and again when they have been used for five minutes. */
export const makeCursors = Effect.gen(function* () {
  const gateway = yield* GatewayTx
  const reading = Semaphore.makeUnsafe(1)
  let known: { readonly masters: ReadonlyArray<MasterKey>; readonly readAt: number } | undefined
  const read = Effect.gen(function* () {
    const [result] = yield* gateway.bundle(
      [statement("select name, encode(value, 'hex') as value from platform.cursor_keys()")],
      { end: "read" }
    )
    return (result?.rows ?? []).map(
      (row): MasterKey => ({
        id: createHash("sha256").update(String(row.name)).digest().subarray(0, keyIdLength),
        value: createSecretKey(String(row.value), "hex")
      })
    )
  })
  /** Cursors as of now. Fails as the database does, only where no keys were ever read. */
  const box: Effect.Effect<CursorBox, DatabaseFailure> = Effect.gen(function* () {
    const now = yield* Clock.currentTimeMillis
    if (known === undefined || now - known.readAt > keysLifetime || now < known.readAt) {
      yield* reading.withPermit(
        Effect.suspend(() =>
          known !== undefined && now - known.readAt <= keysLifetime && now >= known.readAt
            ? Effect.void
            : Effect.matchEffect(read, {
                onSuccess: (masters) =>
                  Effect.sync(() => {
                    known = { masters, readAt: now }
                  }),
                // older keys still open what they sealed; the database says itself that it is away
                onFailure: (failure) => (known === undefined ? Effect.fail(failure) : Effect.void)
              })
        )
      )
    }
    return new CursorBox(known?.masters ?? [], now)
  })
  return { box }
})
