/**
 * A webhook receiver: a real HTTP server that answers as it is told, keeps what came, and verifies signatures by itself, as
 * the Standard Webhooks specification describes it to consumers.
 */
import { createHmac } from "node:crypto"
import { createServer, type IncomingHttpHeaders, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { Effect } from "effect"

export interface Received {
  readonly headers: IncomingHttpHeaders
  readonly body: string
}

export type Reply = "hang" | "reset" | { readonly status: number; readonly headers?: Readonly<Record<string, string>> }

export interface Receiver {
  readonly url: string
  readonly received: ReadonlyArray<Received>
  /** The replies to come, the last of which stays. */
  readonly replies: Array<Reply>
}

/** Listens until the scope closes. */
export const receiver = Effect.fnUntraced(function* (...replies: Array<Reply>) {
  const received: Array<Received> = []
  const hanging = new Set<ServerResponse>()
  const answer = (response: ServerResponse) => {
    const reply = replies.length > 1 ? replies.shift() : replies[0]
    if (reply === "hang") hanging.add(response)
    else if (reply === "reset") response.destroy()
    else response.writeHead(reply?.status ?? 204, reply?.headers).end()
  }
  const server = createServer((request, response) => {
    const chunks: Array<Buffer> = []
    request.on("data", (chunk: Buffer) => chunks.push(chunk))
    request.on("end", () => {
      received.push({ headers: request.headers, body: Buffer.concat(chunks).toString("utf8") })
      answer(response)
    })
  })
  yield* Effect.acquireRelease(
    Effect.promise(() => new Promise<void>((listening) => server.listen(0, "127.0.0.1", listening))),
    () =>
      Effect.promise(() => {
        for (const response of hanging) response.destroy()
        server.closeAllConnections()
        return new Promise<void>((closed) => server.close(() => closed()))
      })
  )
  const { port } = server.address() as AddressInfo
  return { url: `http://127.0.0.1:${port}/hook`, received, replies } satisfies Receiver
})

/** Whether one of the signatures of a request is made with this secret. */
export const isSigned = ({ body, headers }: Received, secret: string): boolean => {
  const key = Buffer.from(secret.slice("whsec_".length), "base64")
  const content = `${headers["webhook-id"]}.${headers["webhook-timestamp"]}.${body}`
  const expected = `v1,${createHmac("sha256", key).update(content).digest("base64")}`
  return String(headers["webhook-signature"]).split(" ").includes(expected)
}
