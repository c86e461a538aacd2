/**
 * Bodies of requests: as text or as a stream of bytes, of the right media type, bounded while they come, and given up
 * when they do not come.
 *
 * A body whose length is said to be too large is refused before a byte of it is read; the connection then ends with the
 * answer, because what is still under way would have to be read first.
 */
import { isUtf8 } from "node:buffer"
import type { IncomingMessage } from "node:http"
import { NodeHttpServerRequest } from "@effect/platform-node"
import { Effect, Stream } from "effect"
import type { HttpServerRequest } from "effect/http"
import { type Problem, problem } from "../domain/Problem.ts"
import { CurrentExchange } from "./Exchange.ts"

/** A body's media type in lower case, without parameters; undefined where none is said. */
export const mediaTypeOf = (header: string | undefined): string | undefined => {
  const type = header?.split(";", 1)[0]?.trim().toLowerCase()
  return type === "" ? undefined : type
}

/** The charset parameter must be UTF-8 where there is one (RFC 8259 §8.1). */
const isOtherCharset = (header: string): boolean => /;\s*charset\s*=\s*"?(?!utf-?8\b)/iu.test(header)

/**
 * The media type of a body, which must be one of these, without a content coding. Fails with 415, whose headers list what
 * is understood.
 */
export const requireMediaType = <A extends string>(
  request: HttpServerRequest.HttpServerRequest,
  accepted: ReadonlyArray<A>
): Effect.Effect<A, Problem> => {
  const header = request.headers["content-type"]
  const type = mediaTypeOf(header)
  const known = accepted.find((one) => one === type)
  const list = accepted.join(", ")
  const headers = request.method === "PATCH" ? { "Accept-Patch": list } : { "Accept-Post": list }
  if (known === undefined) {
    return Effect.fail(problem("unsupported_media_type", { detail: `understood are ${list}`, headers }))
  }
  if (header !== undefined && isOtherCharset(header)) {
    return Effect.fail(problem("unsupported_media_type", { detail: "only UTF-8 is understood", headers }))
  }
  const coding = request.headers["content-encoding"]
  return coding === undefined || coding.trim().toLowerCase() === "identity"
    ? Effect.succeed(known)
    : Effect.fail(
        problem("unsupported_media_type", {
          detail: "no content coding is understood",
          headers: { "Accept-Encoding": "identity" }
        })
      )
}

const tooLarge = (max: number): Problem =>
  problem("payload_too_large", { detail: `at most ${max} bytes`, headers: { connection: "close" } })

const notInTime = (): Problem =>
  problem("request_timeout", { detail: "nothing of the body came for too long", headers: { connection: "close" } })

const notUtf8 = (): Problem => problem("malformed_json", { detail: "the body is not UTF-8" })

const cutShort = (): Problem =>
  problem("request_timeout", { detail: "the body ended too early", headers: { connection: "close" } })

/** Tells a client that waits for it (RFC 9110 §10.1.1) to send its body. */
const sayContinue = (request: HttpServerRequest.HttpServerRequest): void => {
  if (request.headers.expect?.toLowerCase() !== "100-continue") return
  const response = NodeHttpServerRequest.toServerResponse(request)
  if (!response.headersSent) response.writeContinue()
}

interface Listeners {
  readonly chunk: (bytes: Buffer) => void
  readonly end: () => void
  readonly failed: (failure: Problem) => void
}

/** Listens to a body until it ends, fails, or does not come; answers how to stop listening. */
const listen = (source: IncomingMessage, idle: number, on: Listeners): (() => void) => {
  const timer = setTimeout(() => fail(notInTime()), idle)
  const chunk = (bytes: Buffer) => {
    timer.refresh()
    on.chunk(bytes)
  }
  const end = () => {
    stop()
    on.end()
  }
  const fail = (failure: Problem) => {
    stop()
    on.failed(failure)
  }
  const broken = () => fail(cutShort())
  const stop = () => {
    clearTimeout(timer)
    source.off("data", chunk).off("end", end).off("error", broken).off("close", broken)
    source.pause()
  }
  source.on("data", chunk).on("end", end).on("error", broken).on("close", broken)
  return stop
}

/** Whether a request has a body (RFC 9112, 6). */
export const hasBody = ({ headers }: HttpServerRequest.HttpServerRequest): boolean =>
  headers["transfer-encoding"] !== undefined || Number(headers["content-length"] ?? 0) !== 0

/**
 * A body as text. Fails with 413 beyond `max` bytes, 408 when nothing of it comes for `idle` milliseconds
 * or it takes as long as the request may, 400 where it
 * is not UTF-8.
 */
export const readText = (
  request: HttpServerRequest.HttpServerRequest,
  limits: { readonly max: number; readonly idle: number }
): Effect.Effect<string, Problem> => {
  if (Number(request.headers["content-length"] ?? 0) > limits.max) return Effect.fail(tooLarge(limits.max))
  return Effect.flatMap(CurrentExchange, (exchange) =>
    Effect.callback<string, Problem>((done) => {
      const chunks: Array<Buffer> = []
      let size = 0
      const resume = (outcome: Effect.Effect<string, Problem>) => {
        exchange.reading = false
        done(outcome)
      }
      exchange.reading = true
      sayContinue(request)
      const stop = listen(NodeHttpServerRequest.toIncomingMessage(request) as IncomingMessage, limits.idle, {
        chunk: (bytes) => {
          size += bytes.length
          if (size > limits.max) {
            stop()
            resume(Effect.fail(tooLarge(limits.max)))
          } else chunks.push(bytes)
        },
        end: () => {
          const whole = chunks.length === 1 && chunks[0] !== undefined ? chunks[0] : Buffer.concat(chunks)
          resume(isUtf8(whole) ? Effect.succeed(whole.toString("utf8")) : Effect.fail(notUtf8()))
        },
        failed: (failure) => resume(Effect.fail(failure))
      })
      return Effect.sync(stop)
    })
  )
}

/** The next bytes, undefined at the end. */
const nextChunk = (source: IncomingMessage, idle: number): Effect.Effect<Uint8Array | undefined, Problem> =>
  Effect.callback((resume) => {
    const timer = setTimeout(() => done(Effect.fail(notInTime())), idle)
    const done = (result: Effect.Effect<Uint8Array | undefined, Problem>) => {
      stop()
      resume(result)
    }
    const look = () => {
      const bytes = source.read() as Buffer | null
      if (bytes !== null) done(Effect.succeed(bytes))
      else if (source.readableEnded) done(Effect.succeed(undefined))
      else if (source.destroyed) done(Effect.fail(cutShort()))
    }
    const stop = () => {
      clearTimeout(timer)
      source.off("readable", look).off("end", look).off("error", look).off("close", look)
    }
    source.on("readable", look).on("end", look).on("error", look).on("close", look)
    look()
    return Effect.sync(stop)
  })

/**
 * A body as it comes. Fails with 408 when nothing of it comes for `idle` milliseconds while it is waited for, or where it
 * ends too early. What its taker does not take is not read from the socket.
 */
export const readStream = (
  request: HttpServerRequest.HttpServerRequest,
  idle: number
): Stream.Stream<Uint8Array, Problem> =>
  Stream.suspend(() => {
    const source = NodeHttpServerRequest.toIncomingMessage(request) as IncomingMessage
    sayContinue(request)
    return Stream.unfold(source, () =>
      Effect.map(nextChunk(source, idle), (bytes) => (bytes === undefined ? undefined : ([bytes, source] as const)))
    )
  })
