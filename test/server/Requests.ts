/** A plain HTTP/1.1 client for tests: what is sent and what comes back, byte for byte, without a library's kindness. */
import { type IncomingHttpHeaders, request } from "node:http"
import { connect } from "node:net"

export interface Reply {
  readonly status: number
  readonly headers: IncomingHttpHeaders
  readonly text: string
  // biome-ignore lint/suspicious/noExplicitAny: whatever JSON came
  readonly json: any
}

export interface Sent {
  readonly method?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  readonly token?: string
}

/** Sends a request and answers its reply. */
export const send = (base: string, path: string, sent: Sent = {}): Promise<Reply> =>
  new Promise((resolve, reject) => {
    const url = new URL(base)
    const headers: Record<string, string> = { ...sent.headers }
    if (sent.token !== undefined) headers.authorization = `Bearer ${sent.token}`
    if (sent.body !== undefined && headers["transfer-encoding"] === undefined) {
      headers["content-length"] ??= String(Buffer.byteLength(sent.body))
    }
    const outgoing = request(
      { host: url.hostname, port: url.port, path, method: sent.method ?? "GET", headers, agent: false },
      (response) => {
        const chunks: Array<Buffer> = []
        response.on("data", (chunk: Buffer) => chunks.push(chunk))
        response.on("error", reject)
        response.on("end", () => {
          const text = Buffer.concat(chunks).toString("utf8")
          const isJson = /json/u.test(String(response.headers["content-type"])) && text !== ""
          const json =
            isJson && !String(response.headers["content-type"]).includes("ndjson") ? JSON.parse(text) : undefined
          resolve({ status: response.statusCode ?? 0, headers: response.headers, text, json })
        })
      }
    )
    outgoing.on("error", reject)
    if (sent.body !== undefined) outgoing.write(sent.body)
    outgoing.end()
  })

/** Writes bytes to a socket and answers all that comes until the server closes it. */
export const raw = (base: string, bytes: string): Promise<string> =>
  new Promise((resolve, reject) => {
    const url = new URL(base)
    const socket = connect({ host: url.hostname, port: Number(url.port) }, () => socket.write(bytes))
    let text = ""
    socket.setEncoding("utf8")
    socket.on("data", (chunk: string) => {
      text += chunk
    })
    socket.on("error", reject)
    socket.on("close", () => resolve(text))
  })
