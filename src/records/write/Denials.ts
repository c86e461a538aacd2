/**
 * The audit entries of what was not done: refused, failed, rolled back on purpose, or of unknown outcome. Their own
 * transaction is gone, so they are written in another one, as `velocity_gateway`.
 *
 * Nobody can flood the log: an actor, and an address without one, may leave `burst` refusals and failures in a window; what
 * is beyond is counted, and the next entry that is written says how many were not (`suppressed`). Dry runs and unknown outcomes are
 * always written: a dry run is rate-limited as the write it is, and an unknown outcome is a fact to be settled.
 *
 * Who writes what: the server enters 401 and 403 as `denied`, `WriteRecords` enters `failed`, `dry_run` and `unknown`.
 */
import * as Clock from "effect/Clock"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as AuditChain from "../../postgres/AuditChain.ts"
import { GatewayTx } from "../../postgres/GatewayTx.ts"

/** What was not done. */
export interface Denial {
  /** The domain's chain; `platform` where no domain is known. */
  readonly chain: string
  /** `{strategy}/{subject}`; `anonymous` where nobody was proved. */
  readonly actor: string
  /** The network address, for bounding. */
  readonly address: string
  readonly action: string
  readonly outcome: "denied" | "failed" | "dry_run" | "unknown"
  readonly schemaPath?: string | undefined
  readonly entityId?: string | undefined
  /** The problem's code, and pointers of what was wrong; no contents. */
  readonly payload?: Readonly<Record<string, unknown>> | undefined
  readonly requestId?: string | undefined
  readonly reason?: string | undefined
  readonly ticketRef?: string | undefined
  readonly database?: string | undefined
}

/** The actor of requests that prove nobody. */
export const anonymous = "anonymous"
/** Entries that an actor, or an address without a proved actor, may leave in a window. */
export const burst = 30
/** Entries that all actors of one address, and all addresses without an actor, may leave in a window together. */
export const wideBurst = 300
/** Milliseconds. */
export const window = 60_000
/** Actors and addresses that are remembered; beyond, the oldest are forgotten. */
export const remembered = 10_000

interface Count {
  since: number
  written: number
  suppressed: number
}

/** Bounded counts of what each key did in its window; the oldest key goes first. */
class Bounds {
  readonly counts = new Map<string, Count>()

  count(key: string, now: number): Count {
    const known = this.counts.get(key)
    if (known !== undefined) {
      if (now - known.since >= window) {
        known.since = now
        known.written = 0
      }
      return known
    }
    if (this.counts.size >= remembered) {
      const [oldest] = this.counts.keys()
      if (oldest !== undefined) this.counts.delete(oldest)
    }
    const fresh: Count = { since: now, written: 0, suppressed: 0 }
    this.counts.set(key, fresh)
    return fresh
  }

  /** How many were held back before this one; undefined when it is to be held back too. */
  admit(actor: string, address: string, now: number): number | undefined {
    const own = actor === anonymous ? `anonymous ${address}` : `actor ${actor}`
    const wide = actor === anonymous ? anonymous : `address ${address}`
    const first = this.count(own, now)
    const second = this.count(wide, now)
    if (first.written >= burst || second.written >= wideBurst) {
      first.suppressed++
      return undefined
    }
    first.written++
    second.written++
    const { suppressed } = first
    first.suppressed = 0
    return suppressed
  }
}

/** See the module. */
export class Denials extends Context.Service<
  Denials,
  {
    /**
     * Writes the entry, unless its actor or address has left too many. Never fails: an entry that cannot be written is
     * logged, because the request it is about was refused already.
     */
    readonly record: (denial: Denial) => Effect.Effect<void>
  }
>()("velocity/records/Denials") {
  static readonly layerNoDeps = Layer.effect(
    Denials,
    Effect.gen(function* () {
      const gateway = yield* GatewayTx
      const bounds = new Bounds()
      const record = Effect.fnUntraced(function* (denial: Denial) {
        const { address, database, outcome, payload, ...entry } = denial
        const bounded = outcome === "denied" || outcome === "failed"
        const now = yield* Clock.currentTimeMillis
        const suppressed = bounded ? bounds.admit(denial.actor, address, now) : 0
        if (suppressed === undefined) return
        const said = {
          ...payload,
          ...(address === "" ? {} : { address }),
          ...(suppressed === 0 ? {} : { suppressed })
        }
        yield* gateway.bundle([AuditChain.statement({ ...entry, outcome, payload: said })], { database })
      })
      return Denials.of({
        record: (denial) =>
          Effect.catchCause(record(denial), (cause) =>
            Effect.logError("an audit entry could not be written", denial.action, denial.outcome, cause)
          )
      })
    })
  )
  /** Over `GatewayTx.layer`. */
  static readonly layer = this.layerNoDeps.pipe(Layer.provide(GatewayTx.layer))
}
