/**
 * The headers that steer a write, read strictly: `If-Match` (RFC 9110, 13.1.1), `Prefer` (RFC 7240), `Idempotency-Key`.
 *
 * A reason and a ticket travel in `X-Velocity-Reason` and `X-Velocity-Ticket`; the server puts them into the `Caller`.
 */
import * as Result from "effect/Result"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"

/** As they came; a header that was not sent is absent. */
export interface WriteHeaders {
  readonly ifMatch?: string | undefined
  readonly ifNoneMatch?: string | undefined
  readonly prefer?: string | undefined
  readonly idempotencyKey?: string | undefined
}

/** What `Prefer` asks for. Unknown preferences are ignored, unless `handling=strict` is one of them. */
export interface Preferences {
  /** `minimal`: no body; `representation`: a body also where there is none otherwise. */
  readonly answer: "minimal" | "representation" | undefined
  /** Bulk: commit what is good, and tell about each record. */
  readonly lenient: boolean
  /** Do everything, then undo it. */
  readonly rollback: boolean
  /** The preferences that are honoured, for `Preference-Applied`. */
  readonly applied: ReadonlyArray<string>
}

const malformed = (header: string, detail: string): Problem =>
  problem("malformed_header", { detail: `${header}: ${detail}` })

/** Reads `Prefer`. Fails with 400 under `handling=strict` for anything that is not known here. */
export const readPrefer = (header: string | undefined): Result.Result<Preferences, Problem> => {
  const found = new Map<string, string>()
  const unknown: Array<string> = []
  for (const part of (header ?? "").split(",")) {
    const [preference = ""] = part.split(";")
    // preferences are compared without regard to case (RFC 7240, section 2)
    const [name = "", value = ""] = preference.split("=").map((side) => side.trim().toLowerCase())
    if (name === "") continue
    const said = value.replace(/^"(.*)"$/u, "$1")
    const known =
      (name === "return" && (said === "minimal" || said === "representation")) ||
      (name === "handling" && (said === "strict" || said === "lenient")) ||
      (name === "tx" && (said === "rollback" || said === "commit"))
    // the first of a name counts (RFC 7240, section 2)
    if (!known) unknown.push(name)
    else if (!found.has(name)) found.set(name, said)
  }
  if (found.get("handling") === "strict" && unknown.length > 0) {
    return Result.fail(malformed("Prefer", `unknown under handling=strict: ${unknown.join(", ").slice(0, 200)}`))
  }
  const answer = found.get("return")
  return Result.succeed({
    answer: answer === "minimal" || answer === "representation" ? answer : undefined,
    lenient: found.get("handling") === "lenient",
    rollback: found.get("tx") === "rollback",
    applied: [...found].map(([name, value]) => `${name}=${value}`)
  })
}

/** Versions that `If-Match` names; `any` for `*`; undefined where the header is absent. */
export type IfMatch = ReadonlyArray<number> | "any" | undefined

/**
 * Reads `If-Match`. Only the version before the dash counts: another tag is another view of the same row. A weak tag
 * never matches (RFC 9110, 8.8.3.2), nor does one that is not of our making.
 */
export const readIfMatch = (header: string | undefined): Result.Result<IfMatch, Problem> => {
  if (header === undefined) return Result.succeed(undefined)
  const text = header.trim()
  if (text === "*") return Result.succeed("any")
  if (!/^(W\/)?"[^"]*"(\s*,\s*(W\/)?"[^"]*")*$/u.test(text) || text.length > 4096) {
    return Result.fail(malformed("If-Match", 'a list of ETags such as "3-1f2e3d4c", or *'))
  }
  const versions: Array<number> = []
  for (const [, version] of text.matchAll(/(?<!W\/)"([0-9]{1,9})(?:-[^"]*)?"/gu)) versions.push(Number(version))
  return Result.succeed(versions)
}

/**
 * No write of ours makes what is not there at a place that the caller names, so none has a use for `If-None-Match`; a
 * condition that is not judged must not be passed over (RFC 9110, 13.1.2).
 */
export const refuseIfNoneMatch = (header: string | undefined): Problem | undefined =>
  header === undefined ? undefined : malformed("If-None-Match", "is for reads; a write says If-Match")

/** Reads `Idempotency-Key`: 1 to 255 visible ASCII characters, quoted or not. */
export const readIdempotencyKey = (header: string | undefined): Result.Result<string | undefined, Problem> => {
  if (header === undefined) return Result.succeed(undefined)
  const key = header.trim().replace(/^"(.*)"$/u, "$1")
  return /^[\x21-\x7e]{1,255}$/u.test(key)
    ? Result.succeed(key)
    : Result.fail(malformed("Idempotency-Key", "1 to 255 visible ASCII characters"))
}

/** What the definition demands of this operation beside rights: a reason, a ticket, If-Match. */
export const demandsOf = (
  spec: SchemaDefinitionSpec,
  operation: Operation,
  caller: Caller,
  ifMatch: IfMatch
): Problem | undefined => {
  if (spec.audit.requireReason.includes(operation) && caller.reason === undefined)
    return problem("reason_required", { detail: "say it in the header X-Velocity-Reason" })
  if (spec.audit.requireTicketRef.includes(operation) && caller.ticket === undefined)
    return problem("ticket_required", { detail: "say it in the header X-Velocity-Ticket" })
  return spec.concurrency === "required" && operation !== "create" && ifMatch === undefined
    ? problem("precondition_required")
    : undefined
}
