/** The statements that one session has prepared: bounded, the one that was used longest ago makes room. */
import { randomBytes } from "node:crypto"
import * as PgProtocol from "@effect/sql-pg/PgProtocol"
import * as PgTypes from "@effect/sql-pg/PgTypes"
import * as Result from "effect/Result"

/** How a statement's rows are read. */
export interface Columns {
  readonly names: ReadonlyArray<string>
  readonly readField: PgProtocol.FieldReader<unknown>
}

/** One statement, by its text and the types of its parameters. */
export interface Prepared {
  readonly name: string
  readonly key: string
  readonly types: ReadonlyArray<number>
  /** The server has it and has described it. */
  ready: boolean
  /** Undefined when it answers no rows. */
  columns: Columns | undefined
}

/** See the module. */
export class PreparedStatements {
  private readonly known = new Map<string, Prepared>()
  private closing: ReadonlyArray<Uint8Array> = []
  private readonly max: number
  // behind a pooler the session's other users have names of their own
  private readonly prefix = `v${randomBytes(6).toString("hex")}_`
  private made = 0

  constructor(max: number) {
    this.max = max
  }

  /** The entry of a statement, now the one that was used last. */
  get(sql: string, types: ReadonlyArray<number>): Prepared {
    // the text alone nearly always tells which, and its hash is kept by the engine
    const first = this.known.get(sql)
    const key = first === undefined || sameTypes(first.types, types) ? sql : `${sql}\0${types.join()}`
    const found = key === sql ? first : this.known.get(key)
    const entry = found ?? { name: `${this.prefix}${++this.made}`, key, types, ready: false, columns: undefined }
    this.known.delete(key)
    this.known.set(key, entry)
    if (this.known.size > this.max) {
      const [oldest] = this.known.values()
      if (oldest !== undefined) this.forget(oldest)
    }
    return entry
  }

  /** What the server may have no longer, or may have half: it is closed there with what is sent next. */
  forget(entry: Prepared): void {
    if (this.known.get(entry.key) === entry) this.known.delete(entry.key)
    this.keepCloses([PgProtocol.encodeClose({ target: "statement", name: entry.name })])
  }

  /** Messages that close what made room, to go ahead of what is sent next. */
  takeCloses(): ReadonlyArray<Uint8Array> {
    const { closing } = this
    if (closing.length > 0) this.closing = []
    return closing
  }

  /** Messages that were taken and not sent. */
  keepCloses(closes: ReadonlyArray<Uint8Array>): void {
    if (closes.length > 0) this.closing = [...this.closing, ...closes]
  }
}

const sameTypes = (some: ReadonlyArray<number>, others: ReadonlyArray<number>): boolean => {
  if (some.length !== others.length) return false
  for (let i = 0; i < some.length; i++) if (some[i] !== others[i]) return false
  return true
}

/** From what the server says of a statement. */
export const columnsOf = (fields: ReadonlyArray<PgProtocol.FieldDescription>): Columns => ({
  names: fields.map((field) => field.name),
  readField: Result.getOrThrow(PgTypes.makeFieldReader(fields))
})
