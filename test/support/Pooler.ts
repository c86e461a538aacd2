/** A pooler in transaction mode between us and a test's database. */
import type * as Net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface Pooler {
  /** The given URL, leading through the pooler. */
  readonly through: (url: string) => string
}

export interface PoolerOptions {
  /** The logins that come through, of one database. */
  readonly urls: ReadonlyArray<string>
  /** Sessions of Postgres for each login, however many clients there are. */
  readonly sessions: number
}

/** Leads URLs to a port of 127.0.0.1. */
export const throughPort =
  (port: number) =>
  (url: string): string => {
    const through = new URL(url)
    through.hostname = "127.0.0.1"
    through.port = String(port)
    return through.href
  }

/** Makes a server listen on a free port of 127.0.0.1, until the scope closes. */
export const listening = (server: Net.Server, close: () => void): Effect.Effect<number, never, Scope.Scope> =>
  Effect.acquireRelease(
    Effect.callback<number>((resume) => {
      server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as Net.AddressInfo).port)))
    }),
    () =>
      Effect.callback<void>((resume) => {
        server.close(() => resume(Effect.void))
        close()
      })
  )
