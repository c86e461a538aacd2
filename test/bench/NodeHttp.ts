/** An answer by `node:http` and nothing else, as a process of its own: prints its port. Measured against `/healthz`. */
import { createServer } from "node:http"
import type { AddressInfo } from "node:net"

const body = process.argv[2] ?? "{}"
const server = createServer((_, response) => {
  response.setHeader("content-type", "application/json")
  response.setHeader("content-length", Buffer.byteLength(body))
  response.end(body)
})
server.listen(0, "127.0.0.1", () => console.log((server.address() as AddressInfo).port))
