/**
 * One session's protocol: statements in exchanges, each one write, one Sync and one callback when all is answered
 * (PostgreSQL, 54.2.3 and 54.2.4).
 *
 * The Sync bounds an implicit transaction, so an exchange outside of any other is a transaction by itself: an error
 * leaves out what follows it and undoes what came before, and ReadyForQuery comes after the commit. Our own, over the
 * driver's codecs, because the driver ends each statement with a Sync, for which the server flushes, and we read and
 * wake, once a statement.
 */
import type * as Net from "node:net"
import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Result from "effect/Result"
import { type DatabaseFailure, failure, fromServer } from "./DatabaseFailure.ts"
import { parameterOf } from "./Parameters.ts"
import { type Columns, columnsOf, type Prepared, PreparedStatements } from "./Prepared.ts"
import type { SqlResult, Statement } from "./Statement.ts"
import type { Message, Wire } from "./Wire.ts"

/** What an exchange came to. */
export type Outcome =
  /** Everything was carried out; what an implicit transaction did is committed. */
  | { readonly _tag: "Done"; readonly results: ReadonlyArray<Fetched>; readonly status: Status }
  /** The server refused a statement, or the commit; nothing of an implicit transaction was done. */
  | {
      readonly _tag: "Refused"
      readonly failure: DatabaseFailure
      readonly status: Status
      /** It refused what had been prepared before, which is forgotten now: the same may be sent again. */
      readonly stale: boolean
    }
  /** Nothing was sent: a value cannot be encoded. */
  | { readonly _tag: "Unsent"; readonly failure: DatabaseFailure }
  /** The connection is gone; before anything was sent (`sent` is false), or before all was answered. */
  | { readonly _tag: "Lost"; readonly failure: DatabaseFailure; readonly sent: boolean }

/** In no transaction, in one, or in one that has failed and must be rolled back. */
export type Status = PgProtocol.TransactionStatus

/** A result of which there may be more. */
export interface Fetched extends SqlResult {
  /** Not all rows were asked for, and the others wait. */
  readonly suspended: boolean
}

/** How statements are sent. */
export interface Sending {
  /** False: without a name, although names are kept. */
  readonly prepare?: boolean
  /** Rows that are wanted of the last one; the others wait (`fetch`). */
  readonly maxRows?: number
}

interface Plan {
  readonly prepared: Prepared | undefined
  /** It is parsed in this exchange, and its columns come with it. */
  readonly parses: boolean
  readonly columns: Columns | undefined
}

interface Work {
  readonly plans: ReadonlyArray<Plan>
  readonly answered: (outcome: Outcome) => void
  readonly results: Array<Fetched>
  rows: Array<Readonly<Record<string, unknown>>>
  columns: Columns | undefined
  refused: PgProtocol.ErrorFields | undefined
}

const encodeBind = PgProtocol.makeBindEncoder(PgTypes.writeParameter, PgTypes.isTextFormat)
const describe = Buffer.from(PgProtocol.encodeDescribe({ target: "portal", name: "" }))
const execute = Buffer.from(PgProtocol.encodeExecute({ portal: "", maxRows: 0 }))
const sync = Buffer.from(PgProtocol.encodeSync())

/** See the module. One exchange at a time. */
export class Connection {
  readonly wire: Wire
  /** Set when it is gone, before anybody else can know: whoever waits for an answer learns of it by that. */
  dead: DatabaseFailure | undefined
  private readonly prepared: PreparedStatements | undefined
  private readonly onEnd: () => void
  private work: Work | undefined
  private outcome: Outcome | undefined
  /** Of a result of which there is more. */
  private suspended: Columns | undefined

  /** Keeps at most `prepared` statements prepared; calls `onEnd` when it is dead. */
  constructor(wire: Wire, prepared: number, onEnd: () => void) {
    this.wire = wire
    this.prepared = prepared > 0 ? new PreparedStatements(prepared) : undefined
    this.onEnd = onEnd
    const lost = (cause: Error) => this.die(failure("Unavailable", cause))
    const ended = () => lost(new Error("the connection was closed"))
    wire.socket.on("data", this.read).on("error", lost).on("end", ended).on("close", ended)
    if (wire.socket.destroyed || wire.socket.readableEnded) ended()
  }

  get socket(): Net.Socket {
    return this.wire.socket
  }

  /** Sends statements; `answered` is called once, when the last of them is. */
  exchange(statements: ReadonlyArray<Statement>, answered: (outcome: Outcome) => void, sending: Sending = {}): void {
    const plans: Array<Plan> = []
    // what makes room for these statements themselves is closed ahead of the next ones
    const closes = this.prepared?.takeCloses() ?? []
    const frames = [...closes]
    try {
      for (const statement of statements) plans.push(this.encode(statement, frames, plans, sending.prepare ?? true))
    } catch (cause) {
      this.prepared?.keepCloses(closes)
      answered({ _tag: "Unsent", failure: failure("Unexpected", cause) })
      return
    }
    if (sending.maxRows !== undefined) frames[frames.length - 1] = executing(sending.maxRows)
    this.send(plans, frames, answered)
  }

  /** More rows of what was suspended, in the same transaction. */
  fetch(maxRows: number, answered: (outcome: Outcome) => void): void {
    this.send([{ prepared: undefined, parses: false, columns: this.suspended }], [executing(maxRows)], answered)
  }

  /** Says goodbye and ends it. */
  close(): void {
    if (this.dead !== undefined) return
    this.socket.end(PgProtocol.encodeTerminate())
    this.socket.destroySoon()
    this.die(failure("Unavailable", new Error("the connection was given up")), false)
  }

  /** Ends it, whatever it is doing. */
  die(cause: DatabaseFailure, destroy = true): void {
    if (this.dead !== undefined) return
    this.dead = cause
    const { outcome, work } = this
    this.work = undefined
    this.outcome = undefined
    if (destroy) this.socket.destroy()
    this.onEnd()
    work?.answered(outcome ?? { _tag: "Lost", failure: cause, sent: true })
  }

  private encode(
    { params, sql }: Statement,
    frames: Array<Uint8Array>,
    before: ReadonlyArray<Plan>,
    prepare: boolean
  ): Plan {
    const parameters = params.map(parameterOf)
    const types = parameters.map((parameter) => parameter.oid)
    const prepared = prepare ? this.prepared?.get(sql, types) : undefined
    const statement = prepared?.name ?? ""
    const parses = prepared === undefined || !(prepared.ready || before.some((plan) => plan.prepared === prepared))
    if (parses) {
      frames.push(Result.getOrThrow(PgProtocol.encodeParse({ name: statement, query: sql, parameterTypes: types })))
    }
    frames.push(Result.getOrThrow(encodeBind({ portal: "", statement, parameters })))
    if (parses) frames.push(describe)
    frames.push(execute)
    return { prepared, parses, columns: undefined }
  }

  private send(
    plans: ReadonlyArray<Plan>,
    frames: ReadonlyArray<Uint8Array>,
    answered: (outcome: Outcome) => void
  ): void {
    if (this.work !== undefined) throw new Error("a session was asked before it had answered")
    if (this.dead !== undefined) {
      answered({ _tag: "Lost", failure: this.dead, sent: false })
      return
    }
    this.work = { plans, answered, results: [], rows: [], columns: undefined, refused: undefined }
    this.expect(this.work)
    this.socket.write(Buffer.concat([...frames, sync]))
    // the kernel refused all of it at once: it had been reset while nobody looked
    const { errored } = this.socket
    if (errored === null) return
    this.work = undefined
    this.die(failure("Unavailable", errored))
    answered({ _tag: "Lost", failure: failure("Unavailable", errored), sent: false })
  }

  private readonly read = (chunk: Uint8Array): void => {
    try {
      this.wire.parser.pushEach(chunk, this.hear)
    } catch (cause) {
      this.die(failure("Unexpected", cause))
    }
    // told when the parser is done, because whoever is told sends again
    const { outcome, work } = this
    if (outcome === undefined || work === undefined) return
    this.outcome = undefined
    this.work = undefined
    work.answered(outcome)
  }

  private readonly hear = (message: Message): void => {
    if (this.dead !== undefined) return
    switch (message._tag) {
      case "NoticeResponse":
      case "ParameterStatus":
      case "NotificationResponse":
      case "ParseComplete":
      case "BindComplete":
      case "CloseComplete":
        return
    }
    const { work } = this
    if (message._tag === "ErrorResponse") {
      // one that ends the session tells nothing of what was done before
      if (work === undefined || message.fields.severityUnlocalized !== "ERROR") this.die(fromServer(message.fields))
      else work.refused ??= message.fields
    } else if (work === undefined || !this.take(work, message)) {
      this.die(failure("Unexpected", new Error(`the server said ${message._tag}, which nobody waits for`)))
    }
  }

  /** Takes a message of an answer; false where it cannot be one. */
  private take(work: Work, message: Message): boolean {
    const plan = work.plans[work.results.length]
    switch (message._tag) {
      case "DataRow": {
        const { columns } = work
        if (columns === undefined) return false
        const row: Record<string, unknown> = {}
        for (let i = 0; i < columns.names.length; i++) row[columns.names[i] as string] = message.values[i]
        work.rows.push(row)
        return true
      }
      case "RowDescription":
      case "NoData":
        if (plan === undefined) return false
        work.columns = message._tag === "NoData" ? undefined : columnsOf(message.fields)
        this.wire.parser.readField = work.columns?.readField
        if (plan.prepared !== undefined) {
          plan.prepared.columns = work.columns
          plan.prepared.ready = true
        }
        return true
      case "CommandComplete":
      case "EmptyQueryResponse":
      case "PortalSuspended": {
        if (plan === undefined) return false
        const suspended = message._tag === "PortalSuspended"
        const { command, rowCount } = commandOf(message._tag === "CommandComplete" ? message.commandTag : "")
        work.results.push({ command, rowCount, rows: work.rows, suspended })
        this.suspended = suspended ? work.columns : undefined
        work.rows = []
        this.expect(work)
        return true
      }
      case "ReadyForQuery":
        if (work.refused === undefined && plan !== undefined) return false
        this.outcome =
          work.refused === undefined
            ? { _tag: "Done", results: work.results, status: message.status }
            : this.refusal(work.plans, plan, work.refused, message.status)
        return true
    }
    return false
  }

  /** What is known of the rows that come next; those of a statement that is parsed are described first. */
  private expect(work: Work): void {
    const plan = work.plans[work.results.length]
    work.columns = plan?.prepared?.columns ?? plan?.columns
    this.wire.parser.readField = work.columns?.readField
  }

  private refusal(
    plans: ReadonlyArray<Plan>,
    plan: Plan | undefined,
    fields: PgProtocol.ErrorFields,
    status: Status
  ): Outcome {
    const stale = plan?.prepared !== undefined && !plan.parses && /^(26000|0A000)$/.test(fields.code ?? "")
    // what befell one befell the others; and the server may have one that it could not describe
    const doubtful = stale ? plans : plan === undefined || plan.prepared?.ready ? [] : [plan]
    for (const { prepared } of doubtful) if (prepared !== undefined) this.prepared?.forget(prepared)
    return { _tag: "Refused", failure: fromServer(fields), status, stale }
  }
}

const executing = (maxRows: number): Uint8Array => PgProtocol.encodeExecute({ portal: "", maxRows })

/** `INSERT 0 2`: the command and how many rows. */
const commandOf = (tag: string): { readonly command: string; readonly rowCount: number } => {
  const first = tag.indexOf(" ")
  if (first < 0) return { command: tag, rowCount: 0 }
  const count = Number(tag.slice(tag.lastIndexOf(" ") + 1))
  return { command: tag.slice(0, first), rowCount: Number.isNaN(count) ? 0 : count }
}
