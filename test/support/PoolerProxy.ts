/**
 * A pooler in transaction mode, as PgBouncer is one: many clients over few sessions of Postgres, each session lent for
 * one transaction and then to whoever waits longest. Stricter than any real one, to find what relies on a session: a
 * startup parameter that PgBouncer does not know and a statement with a name are refused, and a client's next
 * transaction never runs where its last one did while another session is free.
 *
 * Postgres itself judges the logins: each is carried through on a session of its own, which then joins the pool while
 * there is room and is closed otherwise.
 */
import * as Net from "node:net"
import * as Effect from "effect/Effect"
import type * as Scope from "effect/Scope"
import { listening, type Pooler, type PoolerOptions, throughPort } from "./Pooler.ts"
import { asks, cancelling, encrypting, Frames, message as messageOf, parametersOf, refusal } from "./PoolerWire.ts"

/** What PgBouncer takes in a startup packet. */
const known = new Set(["user", "database", "application_name", "client_encoding", "datestyle", "timezone"])

const letter = (message: Buffer): string => String.fromCharCode(message[0] as number)

/** A session of Postgres. */
interface Lent {
  readonly socket: Net.Socket
  readonly key: Buffer
  client: Client | undefined
  /** Answers that are due: one for each Sync and each simple query. */
  due: number
}

interface Client {
  readonly socket: Net.Socket
  readonly pool: Pool
  readonly key: Buffer
  readonly waiting: Array<Buffer>
  lent: Lent | undefined
}

/** The sessions of one login on one database. */
interface Pool {
  readonly sessions: Set<Lent>
  readonly idle: Array<Lent>
  readonly queue: Array<Client>
}

/** Carries a login through; answers the session that it made. */
const logIn = (client: Net.Socket, packet: Buffer, target: URL, incoming: Frames): Promise<Lent> =>
  new Promise((resolve, reject) => {
    const socket = Net.connect({ host: target.hostname, port: Number(target.port), noDelay: true })
    const answers = new Frames()
    let key = Buffer.alloc(0)
    const upward = (chunk: Buffer) => {
      for (const message of incoming.push(chunk)) socket.write(message)
    }
    const fail = () => {
      client.destroy()
      socket.destroy()
      reject(new Error("the login ended"))
    }
    socket.write(packet)
    client.on("data", upward).once("close", fail)
    socket.once("error", fail).once("close", fail)
    const downward = (chunk: Buffer) => {
      for (const message of answers.push(chunk)) {
        const kind = letter(message)
        if (kind === "K") key = Buffer.from(message)
        if (kind === "Z") {
          client.off("data", upward).off("close", fail)
          socket.off("data", downward).off("close", fail)
          client.write(message)
          resolve({ socket, key, client: undefined, due: 0 })
        } else client.write(message)
      }
    }
    socket.on("data", downward)
  })

class Lender {
  readonly pools = new Map<string, Pool>()
  readonly sockets = new Set<Net.Socket>()
  readonly clients = new Set<Client>()
  readonly target: URL
  readonly size: number

  constructor(target: URL, size: number) {
    this.target = target
    this.size = size
  }

  readonly accept = (socket: Net.Socket): void => {
    this.sockets.add(socket)
    socket.on("error", () => undefined).on("close", () => this.sockets.delete(socket))
    const incoming = new Frames(true)
    const first = (chunk: Buffer) => {
      for (const packet of incoming.push(chunk)) {
        if (asks(packet, encrypting)) socket.write("N")
        else if (asks(packet, cancelling)) this.cancel(socket, packet)
        else {
          socket.off("data", first)
          void this.enter(socket, packet, incoming)
          return
        }
      }
    }
    socket.on("data", first)
  }

  /** Ends what the client's transaction runs now, on whichever session that is. */
  cancel(socket: Net.Socket, packet: Buffer): void {
    const asked = packet.subarray(8)
    const one = [...this.clients].find((client) => client.key.subarray(5).equals(asked))
    if (one?.lent === undefined) return void socket.end()
    const side = Net.connect({ host: this.target.hostname, port: Number(this.target.port) })
    side.on("error", () => undefined).on("close", () => socket.end())
    side.end(Buffer.concat([packet.subarray(0, 8), one.lent.key.subarray(5)]))
  }

  async enter(socket: Net.Socket, packet: Buffer, incoming: Frames): Promise<void> {
    const parameters = parametersOf(packet)
    const strange = Object.keys(parameters).find((name) => !known.has(name.toLowerCase()))
    if (strange !== undefined) return void socket.end(refusal(`unsupported startup parameter: ${strange}`))
    incoming.started()
    const lent = await logIn(socket, packet, this.target, incoming).catch(() => undefined)
    if (lent === undefined) return
    const id = JSON.stringify([parameters.user, parameters.database])
    const pool = this.pools.get(id) ?? { sessions: new Set(), idle: [], queue: [] }
    this.pools.set(id, pool)
    const client: Client = { socket, pool, key: lent.key, waiting: [], lent: undefined }
    this.clients.add(client)
    if (pool.sessions.size < this.size) this.join(pool, lent)
    else lent.socket.end(messageOf("X", Buffer.alloc(0)))
    socket.on("data", (chunk: Buffer) => {
      for (const message of incoming.push(chunk)) this.sent(client, message)
    })
    socket.on("close", () => this.leave(client))
  }

  join(pool: Pool, lent: Lent): void {
    const answers = new Frames()
    pool.sessions.add(lent)
    lent.socket.on("error", () => undefined)
    lent.socket.on("data", (chunk: Buffer) => {
      for (const message of answers.push(chunk)) {
        lent.client?.socket.write(message)
        if (letter(message) !== "Z") continue
        lent.due--
        if (lent.due === 0 && message[5] === 0x49) this.free(pool, lent)
      }
    })
    lent.socket.on("close", () => {
      pool.sessions.delete(lent)
      const at = pool.idle.indexOf(lent)
      if (at >= 0) pool.idle.splice(at, 1)
      lent.client?.socket.destroy()
    })
    this.free(pool, lent)
  }

  /** The transaction is over: the session goes to the client that waits longest, or to the end of the idle ones. */
  free(pool: Pool, lent: Lent): void {
    if (lent.client !== undefined) lent.client.lent = undefined
    lent.client = undefined
    const next = pool.queue.shift()
    if (next === undefined) pool.idle.push(lent)
    else this.lend(next, lent)
  }

  lend(client: Client, lent: Lent): void {
    client.lent = lent
    lent.client = client
    for (const message of client.waiting.splice(0)) this.forward(lent, message)
  }

  forward(lent: Lent, message: Buffer): void {
    const kind = letter(message)
    if (kind === "S" || kind === "Q") lent.due++
    lent.socket.write(message)
  }

  sent(client: Client, message: Buffer): void {
    const kind = letter(message)
    if (kind === "X") return void client.socket.end()
    // a Parse begins with the statement's name
    if (kind === "P" && message[5] !== 0) {
      return void client.socket.end(refusal("a statement with a name, where the session is not the client's"))
    }
    if (client.lent !== undefined) return void this.forward(client.lent, message)
    client.waiting.push(message)
    if (client.waiting.length > 1) return
    const lent = client.pool.idle.shift()
    if (lent === undefined) client.pool.queue.push(client)
    else this.lend(client, lent)
  }

  /** A client that goes in the middle of a transaction takes the session with it, so that nobody gets what is left. */
  leave(client: Client): void {
    this.clients.delete(client)
    const at = client.pool.queue.indexOf(client)
    if (at >= 0) client.pool.queue.splice(at, 1)
    client.lent?.socket.destroy()
  }

  readonly close = (): void => {
    for (const socket of this.sockets) socket.destroy()
    for (const pool of this.pools.values()) for (const lent of pool.sessions) lent.socket.destroy()
  }
}

/** On a free port of 127.0.0.1, until the scope closes. */
export const make = ({ sessions, urls }: PoolerOptions): Effect.Effect<Pooler, never, Scope.Scope> =>
  Effect.gen(function* () {
    const lender = new Lender(new URL(urls[0] as string), sessions)
    const port = yield* listening(Net.createServer(lender.accept), lender.close)
    return { through: throughPort(port) }
  })
