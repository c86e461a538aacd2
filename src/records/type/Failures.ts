/**
 * What a database failure means to whoever sent the request: the one place where SQLSTATEs become problems.
 *
 * No message of Postgres's gets further than the log (`cause`). A failure that says "this definition is not the one in
 * force" is no problem but a `StaleDefinition`: the server reads the definition again and repeats the request once.
 */
import * as Data from "effect/Data"
import * as Effect from "effect/Effect"
import type { ConstraintMeaning } from "../../domain/Face.ts"
import { fault } from "../../domain/Fault.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"

/**
 * The compiled record type is not the one in force (`platform.enter` said so, or the table has another shape). Nothing
 * was done. Caught by the server alone: refresh, and one retry.
 */
export class StaleDefinition extends Data.TaggedError("StaleDefinition")<{
  readonly path: string
  readonly cause: unknown
}> {}

/** As much of a record type as failures need. */
export interface Constrained {
  readonly path: string
  readonly constraint: (name: string) => ConstraintMeaning | undefined
  /** The field that a column of its table is; undefined where the version has none for it. */
  readonly fieldOf: (column: string) => string | undefined
}

/** Seconds that a client is asked to wait. */
const soon = { "retry-after": "1" }

const ofConstraint = (type: Constrained, name: string, cause: unknown): Problem => {
  const meaning = type.constraint(name)
  if (meaning === undefined) return problem("invalid", { detail: "a constraint of the record type is broken", cause })
  const errors = meaning.fields.map((field) => fault([field], meaning.code, meaning.detail))
  switch (meaning.kind) {
    case "unique":
      return problem("unique_conflict", { errors, cause })
    case "foreignKey":
      return problem("reference_not_found", { errors, cause })
    default:
      return problem("invalid", { errors, cause })
  }
}

/** A value beyond its type, which Postgres does not name; or longer than its index can hold. */
const ofRange = (type: Constrained, index: string | undefined, cause: unknown): Problem => {
  const fields = index === undefined ? undefined : type.constraint(index)?.fields
  if (fields === undefined) return problem("invalid", { detail: "a value is not one of its field's type", cause })
  const errors = fields.map((field) => fault([field], "max_length", "longer than its index can hold (2,704 bytes)"))
  return problem("invalid", { errors, cause })
}

/**
 * The problem, or the call for a newer definition.
 *
 * A foreign key that breaks at a delete belongs to a record that refers to the one deleted, which may be of the same type.
 */
export const failureOf = (
  type: Constrained,
  failure: DatabaseFailure,
  operation?: Operation
): Problem | StaleDefinition => {
  const { reason } = failure
  const { cause } = reason
  switch (reason._tag) {
    case "Unique": {
      if (type.constraint(reason.constraint) === undefined) {
        // a key that was used by two requests at the same time, or an id that exists: never a record's field
        return problem("write_conflict", { cause })
      }
      return ofConstraint(type, reason.constraint, cause)
    }
    case "ForeignKey":
      return operation === "delete" || type.constraint(reason.constraint) === undefined
        ? problem("still_referenced", { cause })
        : ofConstraint(type, reason.constraint, cause)
    case "Check":
      // a row that has no partition is refused as a check without a name: the month is missing, not the client's fault
      return reason.constraint === ""
        ? problem("unavailable", { headers: soon, cause })
        : ofConstraint(type, reason.constraint, cause)
    case "NotNull": {
      const field = type.fieldOf(reason.column)
      const errors = field === undefined ? [] : [fault([field], "required", "must not be null")]
      return problem("invalid", { errors, cause })
    }
    case "OutOfRange":
      return ofRange(type, reason.index, cause)
    case "InvalidText":
      return problem("invalid", { detail: "a value is not one of its field's type", cause })
    case "Denied":
      return reason.rowSecurity ? problem("row_outside_filter", { cause }) : problem("operation_not_granted", { cause })
    case "Serialization":
    case "Deadlock":
      return problem("write_conflict", { headers: soon, cause })
    case "LockTimeout":
      return problem("lock_timeout", { headers: soon, cause })
    case "Timeout":
      return problem("timeout", { headers: soon, cause })
    case "Unavailable":
      return problem("unavailable", { headers: soon, cause })
    case "CommitUnknown":
      return problem("commit_unknown", { headers: soon, cause })
    case "StaleShape":
      return new StaleDefinition({ path: type.path, cause })
    case "Platform":
      return ofPlatform(type, reason.code, cause)
    case "Unexpected":
      return problem("internal", { cause })
  }
}

const ofPlatform = (type: Constrained, code: string, cause: unknown): Problem | StaleDefinition => {
  switch (code) {
    case "VL010":
      return new StaleDefinition({ path: type.path, cause })
    case "VL011":
      return problem("operation_not_granted", { cause })
    case "VL020":
      return problem("in_flight", { headers: soon, cause })
    case "VL021":
      return problem("idempotency_mismatch", { cause })
    default:
      return problem("internal", { cause })
  }
}

/** Maps the database failures of an effect; for `Effect.pipe`. */
export const mapFailures =
  (type: Constrained) =>
  <A, E, R>(effect: Effect.Effect<A, E | DatabaseFailure, R>) =>
    Effect.mapError(effect, (error): Exclude<E, DatabaseFailure> | Problem | StaleDefinition =>
      isFailure(error) ? failureOf(type, error) : (error as Exclude<E, DatabaseFailure>)
    )

const isFailure = (error: unknown): error is DatabaseFailure =>
  typeof error === "object" && error !== null && (error as { readonly _tag?: unknown })._tag === "DatabaseFailure"
