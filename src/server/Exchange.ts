/**
 * One request and what is known of it so far, for its answer, its metrics and its audit entry.
 *
 * The front makes it before anything else runs; whoever learns more (who asks, what for) notes it here.
 */
import { Context } from "effect"
import type { Route } from "../api/Routes.ts"
import type { Problem } from "../domain/Problem.ts"

/** See the module. */
export interface Exchange {
  /** Echoed, logged, and stored in audit and history. */
  readonly requestId: string
  /** The network address that the request came from. */
  readonly address: string
  readonly route: Route
  /** When it began, by `performance.now()`. */
  readonly started: number
  /** `{strategy}/{subject}`, once a token has proved it. */
  actor: string | undefined
  /** The domain that is asked, or `platform`; and of a record type its path. */
  chain: string | undefined
  path: string | undefined
  /** What it is answered with instead of what was asked. */
  problem: Problem | undefined
  /** The request's time is up, and its fiber was interrupted for that. */
  late: boolean
  /** Its body is being read. */
  reading: boolean
  /** Ends the request when its time is up. */
  timer: NodeJS.Timeout | undefined
}

/** The request being served; the front provides it to whatever runs behind it. */
export const CurrentExchange = Context.Reference<Exchange>("velocity/server/Exchange", {
  defaultValue: () => {
    throw new Error("there is no request outside the front")
  }
})

/** From now on the request may take as long as something else allows: a stream has its own limits. */
export const withoutTimeout = (exchange: Exchange): void => {
  clearTimeout(exchange.timer)
  exchange.timer = undefined
}

const sane = /^[A-Za-z0-9][A-Za-z0-9._:/+=@-]{0,127}$/u

/** A caller's own id of the request where it is sane, else a new one. */
export const requestIdOf = (header: string | undefined): string =>
  header !== undefined && sane.test(header) ? header : crypto.randomUUID()
