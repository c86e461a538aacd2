/**
 * What can go wrong between us and Postgres, as a closed set of reasons.
 *
 * Everything above this room maps these to problems and never sees a driver's error or a Postgres message. The SQLSTATE
 * decides (PostgreSQL, appendix A); what the server said is in `cause`, for logs.
 */
import * as Data from "effect/Data"
import type { SqlError } from "effect/sql/SqlError"

interface Caused {
  readonly cause: unknown
}

/** Every way a statement or transaction can fail. */
export type Reason =
  /** No connection within the timeout, or it was lost before COMMIT was sent: nothing was done. */
  | (Caused & { readonly _tag: "Unavailable" })
  /** The server or we ended the statement or the transaction after its time: nothing was done. */
  | (Caused & { readonly _tag: "Timeout" })
  /** The connection was lost after COMMIT was sent and before its answer: done or not. */
  | (Caused & { readonly _tag: "CommitUnknown" })
  /** 40001: may be tried again. */
  | (Caused & { readonly _tag: "Serialization" })
  /** 40P01: may be tried again. */
  | (Caused & { readonly _tag: "Deadlock" })
  /** 55P03: a lock that did not come. */
  | (Caused & { readonly _tag: "LockTimeout" })
  /** 23505, by a unique constraint or index. */
  | (Caused & { readonly _tag: "Unique"; readonly constraint: string })
  /** 23503, of either side: `table` is the one that was written. */
  | (Caused & { readonly _tag: "ForeignKey"; readonly constraint: string; readonly table: string })
  /** 23514. */
  | (Caused & { readonly _tag: "Check"; readonly constraint: string })
  /** 23502. */
  | (Caused & { readonly _tag: "NotNull"; readonly column: string })
  /** A text that is no value of its type, or holds what no text may (class 22). */
  | (Caused & { readonly _tag: "InvalidText" })
  /** A number or time beyond its type (22003, 22008), or a value longer than an entry of its index may be (54000 is `tooLong`, with the index). */
  | (Caused & { readonly _tag: "OutOfRange"; readonly tooLong?: boolean; readonly index?: string | undefined })
  /** 42501; `rowSecurity` when a policy's check refused the row, and not a missing privilege. */
  | (Caused & { readonly _tag: "Denied"; readonly rowSecurity: boolean })
  /** Raised by one of our own functions: VL0xx with its DETAIL. */
  | (Caused & { readonly _tag: "Platform"; readonly code: string; readonly message: string; readonly detail: string })
  /** The table is not what the statement was compiled for: read the definition again and repeat once. */
  | (Caused & { readonly _tag: "StaleShape" })
  /** Anything else: a defect of ours or of the server's. */
  | (Caused & { readonly _tag: "Unexpected"; readonly sqlstate: string | undefined })

/** The one error of this room. `reason` is to be matched on; `Effect.catchReason` works on it. */
export class DatabaseFailure extends Data.TaggedError("DatabaseFailure")<{ readonly reason: Reason }> {
  override get message(): string {
    const { reason } = this
    const said = reason.cause instanceof Error ? reason.cause.message : String(reason.cause)
    return `${reason._tag}: ${said}`
  }
}

/** A failure of a reason that holds nothing but its cause. */
export const failure = (
  _tag: "Unavailable" | "Timeout" | "CommitUnknown" | "StaleShape" | "Unexpected",
  cause: unknown
): DatabaseFailure =>
  new DatabaseFailure({ reason: _tag === "Unexpected" ? { _tag, sqlstate: undefined, cause } : { _tag, cause } })

/** Whether the same transaction may simply be tried again: it was undone for the sake of others. */
export const isTransient = (failure: DatabaseFailure): boolean =>
  failure.reason._tag === "Serialization" || failure.reason._tag === "Deadlock"

/** The fields of a server's error report that we read (PostgreSQL, 54.8: Error and Notice Message Fields). */
export interface ServerError {
  /** The SQLSTATE. */
  readonly code: string
  readonly message?: string
  readonly hint?: string
  readonly detail?: string
  readonly constraint?: string
  readonly table?: string
  readonly column?: string
  readonly routine?: string
}

/** What the server said in a driver error; undefined where the connection, and not the server, failed. */
export const errorOf = (error: SqlError): ServerError | undefined => {
  const cause = (error.reason as { readonly cause?: unknown }).cause
  if (typeof cause !== "object" || cause === null) return undefined
  const fields = cause as ServerError & { readonly severity?: unknown }
  // an errno of Node is a `code` too, but has no severity
  return typeof fields.code === "string" && fields.severity !== undefined ? fields : undefined
}

/** The SQLSTATE of a driver error; undefined where the connection, and not the server, failed. */
export const sqlStateOf = (error: SqlError): string | undefined => errorOf(error)?.code

/** The failure that a driver error means, when what was sent could not have been committed. */
export const fromSqlError = (error: SqlError): DatabaseFailure => {
  const cause = (error.reason as { readonly cause?: unknown }).cause ?? error
  const said = errorOf(error)
  if (said !== undefined) return new DatabaseFailure({ reason: reasonOf(said, cause) })
  return error.reason._tag === "ConnectionError" ? failure("Unavailable", cause) : failure("Unexpected", cause)
}

/** The failure that a server's error report means. */
export const fromServer = (fields: { readonly [key: string]: string | undefined }): DatabaseFailure => {
  const cause = Object.assign(new Error(fields.message), fields)
  return new DatabaseFailure({ reason: reasonOf({ ...fields, code: fields.code ?? "" }, cause) })
}

const reasonOf = (fields: ServerError, cause: unknown): Reason => {
  const { code } = fields
  switch (code) {
    case "23505":
      return { _tag: "Unique", constraint: fields.constraint ?? "", cause }
    case "23503":
      return { _tag: "ForeignKey", constraint: fields.constraint ?? "", table: fields.table ?? "", cause }
    case "23514":
      return { _tag: "Check", constraint: fields.constraint ?? "", cause }
    case "23502":
      return { _tag: "NotNull", column: fields.column ?? "", cause }
    case "40001":
      return { _tag: "Serialization", cause }
    case "40P01":
      return { _tag: "Deadlock", cause }
    case "55P03":
      return { _tag: "LockTimeout", cause }
    // query_canceled, idle_in_transaction_session_timeout, transaction_timeout
    case "57014":
    case "25P03":
    case "25P04":
      return { _tag: "Timeout", cause }
    case "42501":
      return { _tag: "Denied", rowSecurity: fields.routine === "ExecWithCheckOptions", cause }
    // undefined_column, undefined_table, feature_not_supported (a cached plan's result type), a lost prepared statement
    case "42703":
    case "42P01":
    case "0A000":
    case "26000":
      return { _tag: "StaleShape", cause }
    case "22003":
    case "22008":
      return { _tag: "OutOfRange", cause }
    case "54000":
      return { _tag: "OutOfRange", tooLong: true, index: fields.constraint, cause }
    // invalid_text_representation, invalid_binary_representation, datetime format, encoding, JSON texts
    case "22P02":
    case "22P03":
    case "22007":
    case "22021":
    case "22P05":
    case "22023":
    case "22030":
    case "22032":
      return { _tag: "InvalidText", cause }
  }
  if (code.startsWith("VL0")) {
    return { _tag: "Platform", code, message: fields.message ?? "", detail: fields.detail ?? "", cause }
  }
  // connection exceptions, refused logins, no resources (too many connections), shutdown and crash of the server
  if (code.startsWith("08") || code.startsWith("28") || code.startsWith("53") || code.startsWith("57P")) {
    return { _tag: "Unavailable", cause }
  }
  return { _tag: "Unexpected", sqlstate: code, cause }
}
