/**
 * The socket: a `node:http` server with our limits, whose refusals of what is no HTTP are problems as well.
 */
import { randomUUID } from "node:crypto"
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { Duplex } from "node:stream"
import { problemContentType } from "../api/ProblemBody.ts"
import { type ProblemCode, problem, problemDocument } from "../domain/Problem.ts"
import { maxHeaderBytes } from "./ServerSettings.ts"

/** The headers must have come by then; a body has its own limit. Milliseconds. */
const headersTimeout = 15_000
/** A connection that says nothing between two requests is closed. Longer than what load balancers keep idle ones. */
const keepAliveTimeout = 75_000

const codes: Readonly<Record<string, readonly [ProblemCode, string]>> = {
  HPE_HEADER_OVERFLOW: ["headers_too_large", `the request line and headers have more than ${maxHeaderBytes} bytes`],
  ERR_HTTP_REQUEST_TIMEOUT: ["request_timeout", "the request did not come in time"]
}

const reasons: Readonly<Record<number, string>> = {
  400: "Bad Request",
  408: "Request Timeout",
  431: "Request Header Fields Too Large"
}

/** Answers what Node could not read as HTTP, and ends the connection. */
const refuse = (error: NodeJS.ErrnoException, socket: Duplex): void => {
  if (error.code === "ECONNRESET" || !socket.writable) {
    socket.destroy()
    return
  }
  const [code, detail] = codes[error.code ?? ""] ?? ["malformed_header", "the request is not HTTP/1.1"]
  const failure = problem(code, { detail })
  const body = JSON.stringify(problemDocument(failure, randomUUID()))
  socket.end(
    [
      `HTTP/1.1 ${failure.status} ${reasons[failure.status] ?? "Error"}`,
      `Content-Type: ${problemContentType}`,
      `Content-Length: ${Buffer.byteLength(body)}`,
      "Cache-Control: no-store",
      "Connection: close",
      "",
      body
    ].join("\r\n")
  )
}

/** Answers an `Expect` other than 100-continue (RFC 9110 §10.1.1). */
const unexpected = (_: IncomingMessage, response: ServerResponse): void => {
  const failure = problem("expectation_failed")
  response
    .writeHead(failure.status, { "content-type": problemContentType, "cache-control": "no-store", connection: "close" })
    .end(JSON.stringify(problemDocument(failure, randomUUID())))
}

/** Makes the server; it does not listen yet. */
export const makeListener = (): Server =>
  createServer({
    headersTimeout,
    keepAliveTimeout,
    // an import may take as long as its transaction; what does not come is noticed where the body is read
    requestTimeout: 0,
    connectionsCheckingInterval: 1_000,
    maxHeaderSize: maxHeaderBytes,
    // the front says so as a problem
    requireHostHeader: false
  })
    .on("clientError", refuse)
    .on("checkExpectation", unexpected)
