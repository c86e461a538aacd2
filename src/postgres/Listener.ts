/**
 * LISTEN on a direct connection of its own, for as long as somebody listens.
 *
 * Anyone may NOTIFY, and what is sent while the connection is away is lost: a notification is a hint to read again, and
 * so is `Reconnected`, which comes first and after each reconnection. The connection is tested by a statement every 15
 * seconds, because an idle one that died is otherwise noticed by nobody.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Option from "effect/Option"
import * as Queue from "effect/Queue"
import * as Random from "effect/Random"
import type * as Redacted from "effect/Redacted"
import * as Stream from "effect/Stream"
import { listenUrl } from "./PgSettings.ts"

/** What a listener hears. */
export type Heard =
  /** A connection listens from now on; anything may have been missed before. */
  { readonly _tag: "Reconnected" } | { readonly _tag: "Notified"; readonly payload: string }

const heartbeat = "15 seconds"
const answerWithin = "5 seconds"
/** Waits between attempts to connect, in milliseconds, doubling from the first to the last. */
const firstWait = 100
const lastWait = 5_000

/** One connection's life: ends, as a failure, when it does. */
const session = (url: Redacted.Redacted, channel: string, hear: (heard: Heard) => Effect.Effect<unknown>) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({
        url,
        applicationName: "velocity-listener",
        startupParameters: { client_encoding: "UTF8" }
      })
      const pinned = yield* connection.pin
      const notifications = yield* pinned.listen(channel)
      yield* hear({ _tag: "Reconnected" })
      const forward = Effect.flatMap(Queue.take(notifications), ({ payload }) => hear({ _tag: "Notified", payload }))
      const beat = Effect.andThen(Effect.sleep(heartbeat), Effect.timeout(pinned.queryValues("select 1"), answerWithin))
      return yield* Effect.raceFirst(Effect.forever(forward), Effect.forever(beat))
    })
  )

/** Hears notifications. */
export class Listener extends Context.Service<
  Listener,
  {
    /** Never fails and never ends by itself: a lost connection is made again, at once, then at growing intervals. */
    readonly listen: (channel: string) => Stream.Stream<Heard>
  }
>()("velocity/postgres/Listener") {
  /** Over a given URL, which must lead to Postgres itself and not to a pooler. */
  static readonly layerOf = (url: Redacted.Redacted) =>
    Layer.succeed(Listener)({ listen: (channel) => listenOn(url, channel) })

  /** Hears nothing, for where there is no direct connection. */
  static readonly layerDeaf = Layer.succeed(Listener)({ listen: () => Stream.never })

  /** From `VELOCITY_LISTEN_URL`, else `VELOCITY_API_DATABASE_URL`; deaf behind a pooler without the former. */
  static readonly layer = Layer.unwrap(
    Effect.map(listenUrl, Option.match({ onNone: () => Listener.layerDeaf, onSome: Listener.layerOf }))
  )
}

/** Hears what is told on a channel, on a direct connection of its own. */
export const listenOn = (url: Redacted.Redacted, channel: string): Stream.Stream<Heard> =>
  Stream.callback<Heard>((queue) =>
    Effect.gen(function* () {
      let failures = 0
      for (;;) {
        yield* session(url, channel, (heard) => {
          failures = 0
          return Queue.offer(queue, heard)
        }).pipe(Effect.catch((error) => Effect.logWarning(`LISTEN ${channel}: ${error.message}; connecting again`)))
        const wait = Math.min(firstWait * 2 ** failures++, lastWait)
        // replicas that lost one server together do not come back together
        yield* Effect.sleep(wait * (0.75 + (yield* Random.next) / 2))
      }
    })
  )
