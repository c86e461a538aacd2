/**
 * A write that has passed everything which depends neither on its body nor on the row: operation, headers, the definition's
 * demands. Part of `WriteRecords` and `Bulk`.
 */
import * as Result from "effect/Result"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { End } from "../../postgres/TenantTx.ts"
import type { RecordType } from "../type/RecordType.ts"
import type { KeyedRequest } from "./Idempotency.ts"
import { requestHash } from "./Idempotency.ts"
import {
  demandsOf,
  type IfMatch,
  type Preferences,
  readIdempotencyKey,
  readIfMatch,
  readPrefer,
  refuseIfNoneMatch
} from "./WriteHeaders.ts"
import type { WriteShape } from "./WriteSql.ts"
import { grants, shapeOf, type WriteRequest } from "./WriteType.ts"

/** A request that has passed everything which does not depend on the row or the body. */
export interface Prepared {
  readonly type: RecordType
  readonly caller: Caller
  readonly request: WriteRequest
  readonly operation: Operation
  readonly prefer: Preferences
  readonly ifMatch: IfMatch
  readonly key: KeyedRequest | undefined
  readonly shape: WriteShape
  readonly end: End
}

/** Reads the headers of a write and judges what needs neither row nor body. `body` is asked for its text only where a key is sent. */
export const prepare = (
  type: RecordType,
  caller: Caller,
  operation: Operation,
  request: WriteRequest,
  body: () => string
): Result.Result<Prepared, Problem> => {
  const { spec } = type.def
  if (!grants(type, operation, caller)) return Result.fail(problem("operation_not_granted"))
  const prefer = readPrefer(request.headers.prefer)
  if (Result.isFailure(prefer)) return Result.fail(prefer.failure)
  const ifMatch = readIfMatch(request.headers.ifMatch)
  if (Result.isFailure(ifMatch)) return Result.fail(ifMatch.failure)
  const conditional = refuseIfNoneMatch(request.headers.ifNoneMatch)
  if (conditional !== undefined) return Result.fail(conditional)
  const key = readIdempotencyKey(request.headers.idempotencyKey)
  if (Result.isFailure(key)) return Result.fail(key.failure)
  if (prefer.success.rollback && key.success !== undefined) return Result.fail(problem("idempotency_dry_run"))
  const demanded = demandsOf(spec, operation, caller, ifMatch.success)
  if (demanded !== undefined) return Result.fail(demanded)
  const keyed =
    key.success === undefined
      ? undefined
      : {
          key: key.success,
          method: request.method,
          path: request.target.split("?", 1)[0] ?? "",
          hash: requestHash(request.method, request.target, request.contentType ?? "", body())
        }
  return Result.succeed({
    type,
    caller,
    request,
    operation,
    prefer: prefer.success,
    ifMatch: ifMatch.success,
    key: keyed,
    shape: shapeOf(type, caller, request),
    end: prefer.success.rollback ? "rollback" : "commit"
  })
}

/** The versions that are allowed; undefined where any is. */
export const versionsOf = (ifMatch: IfMatch): ReadonlyArray<number> | undefined =>
  ifMatch === undefined || ifMatch === "any" ? undefined : ifMatch
