/**
 * What a call fails with: a problem that the API answered, typed by its code, or whatever kept the answer from coming.
 */
import { Data, type Schema } from "effect"
import type { HttpClientError } from "effect/http"
import type { ProblemBody } from "../api/ProblemBody.ts"
import type { Fault } from "../domain/Fault.ts"
import type { ProblemCode } from "../domain/Problem.ts"

/** Codes that this client knows, and any that a newer API has. */
export type ApiProblemCode = ProblemCode | (string & Record<never, never>)

/** An RFC 9457 problem. `code` is stable and is what to match; `errors` has every fault of an input at once. */
export class ApiProblem extends Data.TaggedError("ApiProblem")<{
  readonly code: ApiProblemCode
  readonly status: number
  readonly title: string
  readonly detail?: string | undefined
  /** Names the request in the API's logs, audit and history. */
  readonly requestId?: string | undefined
  readonly errors: ReadonlyArray<Fault>
}> {
  override get message(): string {
    const faults = this.errors.map((one) => `${one.pointer}: ${one.detail}`)
    return [`${this.code}: ${this.detail ?? this.title}`, ...faults].join("; ")
  }
}

/** Why a call failed: refused by the API, not answered, or answered with what the contract does not say. */
export type ClientError = ApiProblem | HttpClientError.HttpClientError | Schema.SchemaError

const isBody = (error: unknown): error is ProblemBody =>
  typeof error === "object" && error !== null && !(error instanceof Error) && "code" in error && "status" in error

/** The contract's error as the client's. */
export const clientError = <E>(error: E | ProblemBody): Exclude<E, ProblemBody> | ApiProblem =>
  isBody(error)
    ? new ApiProblem({
        code: error.code,
        status: error.status,
        title: error.title,
        detail: error.detail,
        requestId: error.requestId,
        errors: error.errors ?? []
      })
    : (error as Exclude<E, ProblemBody>)
