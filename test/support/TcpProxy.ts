/**
 * A TCP proxy in front of Postgres whose connections a test can stall, cut, or refuse: the network as it fails.
 */
import * as Net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"

export interface TcpProxy {
  /** The given URL, leading through the proxy. */
  readonly url: string
  /** Connections that are open now. */
  readonly open: () => number
  /** From now on nothing passes, in either direction; connections stay open. */
  readonly stall: () => void
  /** Answers no longer pass, while what is sent still arrives: a COMMIT whose answer is lost. */
  readonly deafen: () => void
  /** Everything passes again. */
  readonly resume: () => void
  /** Resets every connection. */
  readonly cut: () => void
  /** While true, new connections are reset. */
  readonly refuse: (value: boolean) => void
}

/** Makes a proxy on a free port of 127.0.0.1. */
export const make = (url: string): Effect.Effect<TcpProxy, never, Scope.Scope> =>
  Effect.gen(function* () {
    const target = new URL(url)
    const pairs = new Set<readonly [Net.Socket, Net.Socket]>()
    let mode: "pass" | "stall" | "deaf" = "pass"
    let refusing = false
    const held: Array<() => void> = []
    const server = Net.createServer((client) => {
      client.on("error", () => undefined)
      if (refusing) {
        client.resetAndDestroy()
        return
      }
      const upstream = Net.connect({ host: target.hostname, port: Number(target.port), noDelay: true })
      const pair = [client, upstream] as const
      pairs.add(pair)
      const forward = (from: Net.Socket, to: Net.Socket, answers: boolean) =>
        from.on("data", (chunk) => {
          const pass = () => to.write(chunk)
          if (mode === "stall" || (mode === "deaf" && answers)) held.push(pass)
          else pass()
        })
      forward(client, upstream, false)
      forward(upstream, client, true)
      const end = () => {
        pairs.delete(pair)
        client.destroy()
        upstream.destroy()
      }
      for (const socket of pair) socket.on("error", end).on("close", end)
    })
    const port = yield* Effect.acquireRelease(
      Effect.callback<number>((resume) => {
        server.listen(0, "127.0.0.1", () => resume(Effect.succeed((server.address() as Net.AddressInfo).port)))
      }),
      () =>
        Effect.callback<void>((resume) => {
          for (const [client, upstream] of pairs) {
            client.destroy()
            upstream.destroy()
          }
          server.close(() => resume(Effect.void))
        })
    )
    const through = new URL(url)
    through.port = String(port)
    return {
      url: through.href,
      open: () => pairs.size,
      stall: () => {
        mode = "stall"
      },
      deafen: () => {
        mode = "deaf"
      },
      resume: () => {
        mode = "pass"
        for (const pass of held.splice(0)) pass()
      },
      cut: () => {
        held.length = 0
        for (const [client, upstream] of pairs) {
          client.resetAndDestroy()
          upstream.destroy()
        }
      },
      refuse: (value: boolean) => {
        refusing = value
      }
    }
  })
