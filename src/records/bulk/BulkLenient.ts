/**
 * Creating what is good of many records (`Prefer: handling=lenient`): committed chunk by chunk, a chunk that fails being
 * split until the bad record stands alone. The answer tells of each record, in order, as chunks commit. Part of `Bulk`.
 */
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { Problem, problemDocument } from "../../domain/Problem.ts"
import type { Answer } from "../type/Answer.ts"
import { enterFor } from "../type/Entering.ts"
import { failureOf } from "../type/Failures.ts"
import { type Failing, type Subject, transient } from "../write/Outcomes.ts"
import type { Prepared } from "../write/Prepared.ts"
import { answerHeaders } from "../write/WriteAnswer.ts"
import type { WriteParts } from "../write/WriteOne.ts"
import { asProblem, badProblem, isOfRecord, isReady, type Judged, placed } from "./BulkFaults.ts"
import { badOf, bulkAuditSql, bulkSql, type Ready } from "./BulkSql.ts"

/** Outcomes that wait for a client which does not read yet, in chunks: it may send everything first. */
const waitingOutcomes = 512

const encoder = new TextEncoder()

/** Makes the answer of a lenient request. */
export const makeLenient = ({ outcomes, tenant }: WriteParts) => {
  const { entered, mapped } = outcomes

  /** Commits what is good of these, splitting what fails; a problem for each record that was not written. */
  const commitLenient = (
    prepared: Prepared,
    records: ReadonlyArray<Ready>
  ): Effect.Effect<ReadonlyMap<number, Problem>, Failing> =>
    Effect.gen(function* () {
      const found = new Map<number, Problem>()
      if (records.length === 0) return found
      const { caller, shape, type } = prepared
      const outcome = yield* Effect.result(
        transient(
          tenant.bundle(enterFor(type, caller, "create"), [
            bulkSql(shape, records, caller),
            bulkAuditSql(shape, records)
          ])
        )
      )
      if (Result.isFailure(outcome)) {
        const { failure } = outcome
        if (!isOfRecord(failure)) return yield* mapped(prepared, undefined, undefined, Effect.fail(failure))
        const [only] = records
        if (records.length === 1 && only !== undefined) {
          const told = failureOf(type, failure)
          if (!(told instanceof Problem)) return yield* Effect.fail(told)
          return found.set(only.index, placed(told, only.index))
        }
        const middle = records.length >>> 1
        for (const half of [records.slice(0, middle), records.slice(middle)]) {
          for (const [index, one] of yield* commitLenient(prepared, half)) found.set(index, one)
        }
        return found
      }
      const bad = badOf(outcome.success[0]?.rows ?? [], records)
      if (bad.length === 0) return found
      for (const one of bad) found.set(one.record.index, badProblem(one))
      const good = records.filter((record) => !found.has(record.index))
      for (const [index, one] of yield* commitLenient(prepared, good)) found.set(index, one)
      return found
    })

  const outcomeLine = (prepared: Prepared, line: number, result: string | Problem): string =>
    typeof result === "string"
      ? `{"line":${line},"status":201,"id":"${result}"}\n`
      : `${JSON.stringify({
          line,
          status: result.status,
          problem: problemDocument(result, prepared.caller.requestId)
        })}\n`

  /** The answer of a lenient request: what became of each record, as it is known. */
  const lenient = (prepared: Prepared, chunks: Stream.Stream<ReadonlyArray<Judged>, Problem>): Answer => {
    let created = 0
    let failed = 0
    let over = false
    const one = (judged: ReadonlyArray<Judged>) =>
      Effect.gen(function* () {
        if (over) return ""
        const ready = judged.filter(isReady).map((record) => record.ready)
        const outcome = yield* Effect.result(commitLenient(prepared, ready))
        if (Result.isFailure(outcome)) over = true
        let text = ""
        for (const item of judged) {
          const record = isReady(item) ? item.ready : item
          const wrong = isReady(item)
            ? Result.isFailure(outcome)
              ? asProblem(outcome.failure)
              : outcome.success.get(item.ready.index)
            : item.problem
          if (wrong === undefined) created += 1
          else failed += 1
          text += outcomeLine(prepared, record.line, wrong ?? (item as { readonly ready: Ready }).ready.id)
        }
        return text
      })
    const subject: Subject = prepared
    const stream = chunks.pipe(
      Stream.mapEffect(one),
      Stream.catch((failure: Problem) =>
        Stream.sync(() => {
          failed += 1
          return `${JSON.stringify({ status: failure.status, problem: problemDocument(failure, prepared.caller.requestId) })}\n`
        })
      ),
      Stream.map((text) => encoder.encode(text)),
      Stream.ensuring(
        Effect.suspend(() => (failed === 0 ? Effect.void : entered(subject, undefined, "failed", { created, failed })))
      ),
      Stream.buffer({ capacity: waitingOutcomes })
    )
    return {
      status: 200,
      body: undefined,
      headers: {
        ...answerHeaders,
        "preference-applied": "handling=lenient"
      },
      stream
    }
  }

  return lenient
}
