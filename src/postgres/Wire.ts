/**
 * A socket on which Postgres has said that it is ready: opened, encrypted where the URL says so, and logged in
 * (PostgreSQL, 54.2.1 and 54.2.10). The same socket and parser serve with and without TLS from there on.
 */
import { randomBytes } from "node:crypto"
import * as Net from "node:net"
import * as Tls from "node:tls"
import * as PgAuth from "@effect/sql-pg/PgAuth"
import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { DatabaseFailure, failure, fromServer } from "./DatabaseFailure.ts"
import type { Target } from "./Target.ts"

/** A message from the server, its values decoded. */
export type Message = PgProtocol.BackendMessage<unknown>

/** See the module. */
export interface Wire {
  readonly socket: Net.Socket
  readonly parser: PgProtocol.Parser<unknown>
  readonly encrypted: boolean
  /**
   * Asks the server, on a connection of its own, to end what this one runs; over when the server has dealt with it or
   * cannot be reached. It may come too late, and then meets whatever runs next.
   */
  readonly cancel: Effect.Effect<void>
}

/** A row of Postgres has at most 1 GB; what serves requests has a bound. */
const maxMessageSize = 256 * 1024 * 1024
/**
 * One buffer a socket, which whoever hears `data` takes a copy of: Node would make one of 64 KiB for each read, which a
 * page of fifty records pays with 10 µs. Over TLS Node reads as it does.
 */
const readAtOnce = 65_536
/** How long a request to cancel may take. */
const cancelWithin = 5_000

/** Connects and logs in. Fails with what the server said, else with `Unavailable`, also when it takes too long. */
export const connect = (
  target: Target,
  parameters: Readonly<Record<string, string>>,
  within: number
): Effect.Effect<Wire, DatabaseFailure> =>
  Effect.callback((resume) => {
    let over = false
    const fail = (cause: unknown): void => {
      if (over) return
      over = true
      clearTimeout(timer)
      giveUp()
      resume(Effect.fail(cause instanceof DatabaseFailure ? cause : failure("Unavailable", cause)))
    }
    const ready = (socket: Net.Socket, encrypted: boolean): void => {
      const parser = PgProtocol.makeParser<unknown>({ maxMessageSize })
      const answer = logIn(target)
      let key = { pid: 0, secret: 0 }
      const hear = (message: Message): void => {
        if (over) return
        if (message._tag === "BackendKeyData") key = message
        else if (message._tag === "ErrorResponse") fail(fromServer(message.fields))
        else {
          const reply = answer(message)
          if (reply === "ready") {
            over = true
            clearTimeout(timer)
            socket.off("data", read)
            const cancel = cancelling(target, key, encrypted)
            resume(Effect.succeed({ socket, parser, encrypted, cancel }))
          } else if (reply !== undefined) socket.write(reply)
        }
      }
      const read = (chunk: Uint8Array): void => {
        try {
          parser.pushEach(chunk, hear)
        } catch (cause) {
          fail(cause)
        }
      }
      const { user, database, options } = target
      socket.on("data", read)
      socket.write(PgProtocol.encodeStartupMessage({ ...parameters, user, database, options }))
    }
    const timer = setTimeout(() => fail(new Error("the server did not let us in in time")), within)
    const giveUp = open(target, ready, fail)
    return Effect.sync(() => fail(new Error("nobody waits any more")))
  })

/** Opens a socket, encrypted where the target says so; answers how to give it up. `failed` may be told more than once. */
const open = (
  target: Target,
  ready: (socket: Net.Socket, encrypted: boolean) => void,
  failed: (cause: unknown) => void
): (() => void) => {
  const options = { ...target.address, noDelay: true, keepAlive: true, keepAliveInitialDelay: 30_000 }
  const onread = {
    buffer: Buffer.alloc(readAtOnce),
    callback: (size: number, bytes: Uint8Array): boolean => {
      plain.emit("data", bytes.subarray(0, size))
      return true
    }
  }
  const plain: Net.Socket = Net.connect({ ...options, onread })
  let socket = plain
  const closed = () => failed(new Error("the connection was closed"))
  const judged = (chunk: Buffer): void => {
    const said = chunk.toString("latin1")
    // more than the one byte was put there by somebody in between (CVE-2021-23222)
    if (said === "S") {
      const { host } = target
      socket = Tls.connect({ socket, host, ...(Net.isIP(host) === 0 ? { servername: host } : {}) })
      socket.on("error", failed).on("close", closed)
      socket.once("secureConnect", () => ready(socket, true))
    } else if (said === "N" && target.encryption === "optional") ready(socket, false)
    else failed(new Error(said === "N" ? "the server has no TLS" : "the server's answer to SSLRequest is none"))
  }
  socket.on("error", failed).on("close", closed)
  socket.once("connect", () => {
    if (target.encryption === "none") return ready(socket, false)
    socket.once("data", judged)
    socket.write(PgProtocol.encodeSslRequest())
  })
  return () => socket.destroy()
}

/** Answers each message of a login with what is to be sent, if anything; throws where it must not go on. */
const logIn = ({ password, user }: Target): ((message: Message) => Uint8Array | "ready" | undefined) => {
  let scram: PgAuth.ScramState | undefined
  const secret = (): string => {
    if (password === undefined) throw new Error("the server asks for a password, and the connection URL has none")
    return password
  }
  return (message) => {
    switch (message._tag) {
      case "AuthenticationOk":
      case "NoticeResponse":
      case "NegotiateProtocolVersion":
      case "ParameterStatus":
        return undefined
      case "AuthenticationCleartextPassword":
        return PgProtocol.encodePasswordMessage({ password: secret() })
      case "AuthenticationMD5Password": {
        const hashed = Result.getOrThrow(PgAuth.md5Password({ user, password: secret(), salt: message.salt }))
        return PgProtocol.encodePasswordMessage({ password: hashed })
      }
      case "AuthenticationSASL": {
        if (!message.mechanisms.includes(PgAuth.SCRAM_SHA_256)) break
        const nonce = randomBytes(18).toString("base64")
        const { response, state } = Result.getOrThrow(PgAuth.scramInit({ password: secret(), nonce }))
        scram = state
        return PgProtocol.encodeSASLInitialResponse({ mechanism: PgAuth.SCRAM_SHA_256, initialResponse: response })
      }
      case "AuthenticationSASLContinue": {
        if (scram?._tag !== "ScramFirst") break
        const { response, state } = Result.getOrThrow(PgAuth.scramContinue(scram, message.data))
        scram = state
        return PgProtocol.encodeSASLResponse({ data: response })
      }
      case "AuthenticationSASLFinal": {
        if (scram?._tag !== "ScramFinal") break
        Result.getOrThrow(PgAuth.scramFinish(scram, message.data))
        scram = undefined
        return undefined
      }
      case "ReadyForQuery":
        if (scram !== undefined) throw new Error("the server let us in without proving that it knows the password")
        return "ready"
    }
    throw new Error(`a login that we do not know: ${message._tag}`)
  }
}

const cancelling = (
  target: Target,
  key: { readonly pid: number; readonly secret: number },
  encrypted: boolean
): Effect.Effect<void> =>
  Effect.callback<void>((resume) => {
    const over = (): void => {
      clearTimeout(timer)
      giveUp()
      resume(Effect.void)
    }
    const timer = setTimeout(over, cancelWithin)
    // the server closes it when it has dealt with the request; a secret that was encrypted stays so
    const ready = (socket: Net.Socket, safe: boolean): void => {
      if (safe || !encrypted) socket.write(PgProtocol.encodeCancelRequest(key))
      else over()
      socket.resume()
    }
    const giveUp = open(target, ready, over)
    return Effect.sync(over)
  })
