/**
 * What becomes of a write that did nothing: its problem, its audit entry, and where nobody knows, somebody who finds out.
 * Part of `WriteRecords` and `Bulk`.
 */
import * as Effect from "effect/Effect"
import { Problem, problem } from "../../domain/Problem.ts"
import { tableNameOf } from "../../domain/ServedDefinition.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { isTransient } from "../../postgres/DatabaseFailure.ts"
import type { Answer } from "../type/Answer.ts"
import { failureOf, type StaleDefinition } from "../type/Failures.ts"
import { Denials } from "./Denials.ts"
import type { Prepared } from "./Prepared.ts"
import { Unknowns } from "./Unknowns.ts"
import { callerOn, grants } from "./WriteType.ts"

/** How a write fails. */
export type Failing = Problem | StaleDefinition

/** How often a write that was undone for the sake of others is done again. */
const retries = 2

/** Statuses that mean the request broke a rule, and are entered as `failed`. */
const failing: ReadonlySet<number> = new Set([409, 412, 422, 428])

/** Who and what an entry is about. */
export type Subject = Pick<Prepared, "type" | "caller" | "operation" | "end">

/** See the module. */
export const makeOutcomes = Effect.gen(function* () {
  const denials = yield* Denials
  const unknowns = yield* Unknowns

  /** Enters what a request came to where it did nothing: failed, rolled back, or nobody knows. */
  const entered = (
    prepared: Subject,
    id: string | undefined,
    outcome: "failed" | "dry_run",
    payload: Readonly<Record<string, unknown>>
  ) =>
    denials.record({
      chain: prepared.type.chain,
      actor: prepared.caller.identity.actor,
      address: prepared.caller.address,
      action: prepared.operation,
      outcome,
      schemaPath: prepared.type.path,
      entityId: id,
      payload,
      requestId: prepared.caller.requestId,
      reason: prepared.caller.reason,
      ticketRef: prepared.caller.ticket
    })

  /** Enters what the effect comes to, where that is not its own to enter. */
  const audited = <A extends Answer>(
    prepared: Subject,
    id: string | undefined,
    effect: Effect.Effect<A, Failing>
  ): Effect.Effect<A, Failing> => {
    const dry = prepared.end === "rollback"
    return Effect.matchEffect(effect, {
      onSuccess: (answer) =>
        dry ? Effect.as(entered(prepared, id, "dry_run", { status: answer.status }), answer) : Effect.succeed(answer),
      onFailure: (failure) => {
        const told = failure instanceof Problem ? payloadOf(failure) : undefined
        return failure instanceof Problem && told !== undefined && (dry || failing.has(failure.status))
          ? Effect.andThen(entered(prepared, id, dry ? "dry_run" : "failed", told), Effect.fail(failure))
          : Effect.fail(failure)
      }
    })
  }

  /** Database failures as problems; a COMMIT without answer is handed to whoever settles it. */
  const mapped = <A, E, R>(
    prepared: Prepared,
    id: string | undefined,
    event: string | undefined,
    effect: Effect.Effect<A, E | DatabaseFailure, R>
  ): Effect.Effect<A, Exclude<E, DatabaseFailure> | Failing, R> =>
    Effect.catch(effect, (error): Effect.Effect<never, Exclude<E, DatabaseFailure> | Failing> => {
      if (!isDatabaseFailure(error)) return Effect.fail(error as Exclude<E, DatabaseFailure>)
      const told = failureOf(prepared.type, error, prepared.operation)
      const holder = told instanceof Problem && told.code === "still_referenced" ? holderOf(prepared, error) : undefined
      const failure = Effect.fail(
        holder === undefined ? told : problem("still_referenced", { detail: holder, cause: error.reason.cause })
      )
      return error.reason._tag === "CommitUnknown"
        ? Effect.andThen(
            unknowns.settle({
              chain: prepared.type.chain,
              actor: prepared.caller.identity.actor,
              action: prepared.operation,
              schemaPath: prepared.type.path,
              entityId: id,
              event,
              requestId: prepared.caller.requestId
            }),
            failure
          )
        : failure
    })

  return { entered, audited, mapped }
})

/** Does a write again that was undone for the sake of others. */
export const transient = <A, E, R>(
  effect: Effect.Effect<A, E | DatabaseFailure, R>
): Effect.Effect<A, E | DatabaseFailure, R> =>
  Effect.retry(effect, { times: retries, while: (error) => isDatabaseFailure(error) && isTransient(error) })

/** The effects that `makeOutcomes` makes. */
export type Outcomes = Effect.Success<typeof makeOutcomes>

/** Who still refers to a record, in words, as far as the caller may read such records. */
const holderOf = ({ caller, request, type }: Prepared, { reason }: DatabaseFailure): string | undefined => {
  if (reason._tag !== "ForeignKey") return undefined
  const holder = request
    .referring(type)
    .find(
      (one) =>
        tableNameOf(one.type.def) === reason.table &&
        one.type.constraint(reason.constraint)?.fields.includes(one.field.name) === true &&
        grants(one.type, "read", callerOn(request, caller, one.type.path, "read"))
    )
  return holder === undefined ? undefined : `records of ${holder.type.path} refer to it by ${holder.field.name}`
}

/** What an entry tells of a problem: its code, and where; no value and no message. */
const payloadOf = (failure: Problem): Readonly<Record<string, unknown>> | undefined =>
  failure.status >= 500 || failure.status === 403
    ? undefined
    : {
        code: failure.code,
        ...(failure.errors === undefined
          ? {}
          : { errors: failure.errors.slice(0, 20).map(({ code, pointer }) => `${pointer} ${code}`) })
      }

/** Whether an error is the database's. */
export const isDatabaseFailure = (error: unknown): error is DatabaseFailure =>
  typeof error === "object" && error !== null && (error as { readonly _tag?: unknown })._tag === "DatabaseFailure"
