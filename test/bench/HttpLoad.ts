/**
 * A load generator for HTTP/1.1 that costs little itself: raw sockets, requests made beforehand, one in flight for each
 * connection. On two cores a generator that parses and allocates would be measured instead of the server.
 *
 * It understands answers with Content-Length and chunked ones that end in the same read; both are what the server sends.
 */
import { connect, type Socket } from "node:net"

export interface HttpLoad {
  readonly host: string
  readonly port: number
  readonly connections: number
  readonly millis: number
  /** The bytes of the n-th request. */
  readonly request: (n: number) => Buffer | string
}

export interface HttpLoadResult {
  readonly requests: number
  readonly perSecond: number
  /** Answers by status; anything but the expected one is a reason to distrust the figure. */
  readonly statuses: ReadonlyMap<number, number>
  readonly p50: number
  readonly p99: number
}

const headEnd = Buffer.from("\r\n\r\n")
const chunksEnd = Buffer.from("0\r\n\r\n")

/** The length of the whole answer at the start of `buffer`, or undefined while it is incomplete. */
const answerLength = (buffer: Buffer): number | undefined => {
  const end = buffer.indexOf(headEnd)
  if (end < 0) return undefined
  const head = buffer.toString("latin1", 0, end).toLowerCase()
  const at = head.indexOf("content-length:")
  if (at >= 0) {
    const total = end + 4 + Number.parseInt(head.slice(at + 15), 10)
    return buffer.length >= total ? total : undefined
  }
  if (head.includes("transfer-encoding: chunked")) {
    const stop = buffer.indexOf(chunksEnd, end)
    return stop < 0 ? undefined : stop + chunksEnd.length
  }
  return end + 4
}

export const httpLoad = (load: HttpLoad): Promise<HttpLoadResult> =>
  new Promise((resolve, reject) => {
    const statuses = new Map<number, number>()
    const latencies: Array<number> = []
    const started = performance.now()
    const deadline = started + load.millis
    let issued = 0
    let open = 0

    const finish = () => {
      const seconds = (performance.now() - started) / 1000
      latencies.sort((a, b) => a - b)
      const at = (share: number) => latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * share))] ?? 0
      resolve({
        requests: latencies.length,
        perSecond: latencies.length / seconds,
        statuses,
        p50: at(0.5),
        p99: at(0.99)
      })
    }

    const drive = (socket: Socket) => {
      let pending = Buffer.alloc(0)
      let sentAt = 0
      const send = () => {
        sentAt = performance.now()
        socket.write(load.request(issued++))
      }
      socket.on("data", (chunk) => {
        pending = pending.length === 0 ? chunk : Buffer.concat([pending, chunk])
        const length = answerLength(pending)
        if (length === undefined) return
        const now = performance.now()
        const status = Number.parseInt(pending.toString("latin1", 9, 12), 10)
        statuses.set(status, (statuses.get(status) ?? 0) + 1)
        latencies.push(now - sentAt)
        pending = pending.subarray(length)
        if (now >= deadline) socket.end()
        else send()
      })
      socket.on("error", reject)
      socket.on("close", () => {
        open -= 1
        if (open === 0) finish()
      })
      send()
    }

    for (let index = 0; index < load.connections; index++) {
      open += 1
      const socket = connect({ host: load.host, port: load.port, noDelay: true })
      socket.once("connect", () => drive(socket))
      socket.once("error", reject)
    }
  })
