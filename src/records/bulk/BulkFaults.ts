/**
 * What is wrong with records of a bulk request, told by their place in it. Part of `Bulk`.
 */
import { boundedFaults, type Fault, fault, pointerOf } from "../../domain/Fault.ts"
import { Problem, problem } from "../../domain/Problem.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { Failing } from "../write/Outcomes.ts"
import { danglingProblem } from "../write/WriteAnswer.ts"
import type { Bad, Ready } from "./BulkSql.ts"

/** One record of a request, decoded or refused. */
export type Judged =
  | { readonly ready: Ready }
  | { readonly index: number; readonly line: number; readonly problem: Problem }

/** Whether a record may be written. */
export const isReady = (one: Judged): one is { readonly ready: Ready } => "ready" in one

/** The same problem with its places inside the record at `index`. */
export const placed = (failure: Problem, index: number): Problem => {
  const at = pointerOf([index])
  const errors = (failure.errors ?? [fault([], failure.code, failure.detail ?? failure.title)]).map((one) =>
    one.pointer === at || one.pointer.startsWith(`${at}/`) ? one : { ...one, pointer: at + one.pointer }
  )
  return problem(failure.code, { detail: failure.detail, errors, headers: failure.headers, cause: failure.cause })
}

/** The one problem of an all-or-nothing request whose records have these. */
export const joined = (problems: ReadonlyArray<Problem>): Problem => {
  const errors: Array<Fault> = []
  for (const one of problems) errors.push(...(one.errors ?? []))
  // a body that cannot be read, then a refusal, then a broken rule
  const worst =
    problems.find((one) => one.status === 400 || one.status === 413) ??
    problems.find((one) => one.status === 403) ??
    problems[0]
  return problem(worst?.code ?? "invalid", boundedFaults(errors, worst?.detail))
}

/** Reasons that belong to a record, not to the database's state. */
export const isOfRecord = (failure: DatabaseFailure): boolean => {
  switch (failure.reason._tag) {
    case "Unique":
    case "ForeignKey":
    case "Check":
    case "NotNull":
    case "InvalidText":
    case "OutOfRange":
      return true
    case "Denied":
      return failure.reason.rowSecurity
    default:
      return false
  }
}

/** A bad record's problem. */
export const badProblem = ({ dangling, outside, record }: Bad): Problem =>
  dangling.length > 0
    ? danglingProblem(dangling, [record.index])
    : outside
      ? placed(problem("row_outside_filter"), record.index)
      : placed(problem("invalid"), record.index)

/** A stream cannot be asked for again, so a definition that changed under it is a reason to repeat the request. */
export const asProblem = (failure: Failing): Problem =>
  failure instanceof Problem
    ? failure
    : problem("unavailable", { detail: "the definition was changed meanwhile", headers: { "retry-after": "1" } })
