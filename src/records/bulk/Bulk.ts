/**
 * Many records in one request: a JSON array, or a stream of NDJSON. Part of `WriteRecords`.
 *
 * All or nothing is one transaction, in statements of 500 records; the next 500 are read and judged while Postgres works on
 * the last. Of a stream nothing is held but two such chunks (and, where ids are asked for, 16 bytes a record). Each record
 * has its history row, each chunk its audit entry with the root over its events (fine print 14).
 *
 * Lenient (`Prefer: handling=lenient`) commits chunk by chunk, and a chunk that fails is split until the bad record stands
 * alone; the answer tells of each record, in order, as chunks commit. It takes no Idempotency-Key and no dry run.
 */
import * as Clock from "effect/Clock"
import * as Config from "effect/Config"
import * as Effect from "effect/Effect"
import * as Fiber from "effect/Fiber"
import * as Result from "effect/Result"
import * as Stream from "effect/Stream"
import { ExactJsonError, type ExactValue, parse, stringify } from "../../domain/ExactJson.ts"
import { fault } from "../../domain/Fault.ts"
import type { Caller } from "../../domain/Identity.ts"
import { Problem, problem } from "../../domain/Problem.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import { statement } from "../../postgres/Statement.ts"
import type { Tx } from "../../postgres/TenantTx.ts"
import type { Answer } from "../type/Answer.ts"
import { enterFor } from "../type/Entering.ts"
import { failureOf } from "../type/Failures.ts"
import { documentOf } from "../type/InputDecoder.ts"
import type { RecordType } from "../type/RecordType.ts"
import * as Idempotency from "../write/Idempotency.ts"
import { type Failing, isDatabaseFailure, type Subject } from "../write/Outcomes.ts"
import { type Prepared, prepare } from "../write/Prepared.ts"
import { answerHeaders } from "../write/WriteAnswer.ts"
import type { WriteParts } from "../write/WriteOne.ts"
import { type WriteRequest, writeTypeOf } from "../write/WriteType.ts"
import { asProblem, badProblem, isOfRecord, isReady, type Judged, joined, placed } from "./BulkFaults.ts"
import { BulkIds } from "./BulkIds.ts"
import { makeLenient } from "./BulkLenient.ts"
import { badOf, bulkAuditSql, bulkSql, chunkSize, type Ready } from "./BulkSql.ts"
import type { ImportPlaces } from "./ImportPlaces.ts"
import { type Line, maxRecord, NdjsonLines } from "./NdjsonLines.ts"

/** Records that one stream may bring: `VELOCITY_IMPORT_MAX_RECORDS` (1,000,000). */
export const maxRecordsConfig = Config.Int("VELOCITY_IMPORT_MAX_RECORDS").pipe(Config.withDefault(1_000_000))

/** Creating many records. */
export interface BulkWrite {
  readonly json: (
    type: RecordType,
    caller: Caller,
    request: WriteRequest & { readonly body: ExactValue }
  ) => Effect.Effect<Answer, Failing>
  readonly ndjson: (
    type: RecordType,
    caller: Caller,
    request: WriteRequest & { readonly stream: Stream.Stream<Uint8Array, Problem> }
  ) => Effect.Effect<Answer, Problem>
}

/** Takes the next records of a request; comes back when there is room for more. */
type Take = (records: ReadonlyArray<Judged>) => Effect.Effect<void, Failing | DatabaseFailure>

/** The requests that create many records. */
export const makeBulk = (
  { newId, outcomes, tenant }: WriteParts,
  { maxRecords, places }: { readonly maxRecords: number; readonly places: ImportPlaces }
): BulkWrite => {
  const { audited, mapped } = outcomes
  const lenient = makeLenient({ newId, outcomes, tenant })

  /** Judges one record of the request. */
  const judge = (prepared: Prepared, value: ExactValue, index: number, line: number, now: number): Judged => {
    const { caller, type } = prepared
    const { decoder, rules } = writeTypeOf(type)
    const decoded = decoder.decode(value, "create", caller.roles, [index])
    if (Result.isFailure(decoded)) return { index, line, problem: decoded.failure }
    const { values } = decoded.success
    if (rules.any) {
      const broken = rules.judge({ self: values, old: undefined, now, actor: caller.identity.actor, at: [index] })
      if (broken !== undefined) return { index, line, problem: broken }
    }
    return { ready: { index, line, id: newId(), document: documentOf(values) } }
  }

  const judgeLine = (prepared: Prepared, line: Line, index: number, now: number): Judged => {
    const refused = (failure: Problem): Judged => ({ index, line: line.number, problem: placed(failure, index) })
    if (index >= maxRecords) return refused(problem("payload_too_large", { detail: `at most ${maxRecords} records` }))
    if (line.text === undefined) {
      return line.fault === "too_long"
        ? refused(problem("payload_too_large", { detail: `a record may have ${maxRecord} bytes` }))
        : refused(problem("malformed_json", { detail: "not UTF-8" }))
    }
    try {
      return judge(prepared, parse(line.text), index, line.number, now)
    } catch (cause) {
      if (!(cause instanceof ExactJsonError)) throw cause
      return refused(problem("malformed_json", { detail: cause.message }))
    }
  }

  /** Finds the first record that cannot be written, by halves, each tried behind a savepoint. */
  const firstBad = (
    prepared: Prepared,
    tx: Tx,
    records: ReadonlyArray<Ready>
  ): Effect.Effect<Problem, Failing | DatabaseFailure> =>
    Effect.gen(function* () {
      const { caller, shape, type } = prepared
      let low = 0
      let high = records.length
      while (high - low > 1) {
        const middle = (low + high) >>> 1
        yield* tx.query(statement("savepoint part"))
        const tried = yield* Effect.result(tx.query(bulkSql(shape, records.slice(low, middle), caller)))
        if (Result.isSuccess(tried)) low = middle
        else if (isOfRecord(tried.failure)) {
          yield* tx.query(statement("rollback to savepoint part"))
          high = middle
        } else return yield* Effect.fail(tried.failure)
      }
      const tried = yield* Effect.result(tx.query(bulkSql(shape, records.slice(low, high), caller)))
      const { index } = records[low] as Ready
      if (Result.isSuccess(tried)) return placed(problem("write_conflict"), index)
      const failure = failureOf(type, tried.failure)
      return failure instanceof Problem ? placed(failure, index) : yield* Effect.fail(failure)
    })

  /** Writes a chunk inside a transaction, behind a savepoint so that a bad record can be named. */
  const writeChunk = Effect.fnUntraced(function* (prepared: Prepared, tx: Tx, records: ReadonlyArray<Ready>) {
    const { caller, shape } = prepared
    yield* tx.query(statement("savepoint chunk"))
    const outcome = yield* Effect.result(tx.query(bulkSql(shape, records, caller)))
    if (Result.isFailure(outcome)) {
      if (!isOfRecord(outcome.failure)) return yield* Effect.fail(outcome.failure)
      yield* tx.query(statement("rollback to savepoint chunk"))
      return yield* yield* firstBad(prepared, tx, records)
    }
    const bad = badOf(outcome.success.rows, records)
    if (bad.length > 0) return yield* joined(bad.map(badProblem))
    yield* tx.query(statement("release savepoint chunk"))
    yield* tx.query(bulkAuditSql(shape, records))
  })

  /**
   * Everything in one transaction. `feed` hands over chunk after chunk. The idempotency key is taken first where the
   * request's hash is known beforehand (`early`), else last (`late`, known when `feed` is over, also when it fails).
   */
  const allOrNothing = (
    prepared: Prepared,
    feed: (take: Take) => Effect.Effect<void, Failing | DatabaseFailure>,
    hash: { readonly early: Uint8Array } | { readonly late: () => Uint8Array }
  ): Effect.Effect<Answer, Failing> => {
    const { caller, key, prefer, type } = prepared
    const keepIds = prefer.answer === "representation" && !prefer.rollback
    const inside = Effect.fnUntraced(function* (tx: Tx) {
      const ids = new BulkIds()
      if (key !== undefined && "early" in hash) yield* tx.query(Idempotency.beginSql({ ...key, hash: hash.early }))
      let writing: Fiber.Fiber<void, Failing | DatabaseFailure> | undefined
      const written = Effect.suspend(() => (writing === undefined ? Effect.void : Fiber.join(writing)))
      yield* feed((judged) =>
        Effect.gen(function* () {
          const problems: Array<Problem> = []
          const records: Array<Ready> = []
          for (const one of judged) {
            if (isReady(one)) records.push(one.ready)
            else problems.push(one.problem)
          }
          yield* written
          writing = undefined
          if (problems.length > 0) return yield* joined(problems)
          ids.add(records, keepIds)
          writing = yield* Effect.forkChild(writeChunk(prepared, tx, records))
        })
      )
      yield* written
      if (key !== undefined) {
        const keyed = { ...key, hash: "early" in hash ? hash.early : hash.late() }
        if ("late" in hash) yield* tx.query(Idempotency.beginSql(keyed))
        const result = { created: ids.count, ids: [ids.first, ids.last] }
        yield* tx.query(Idempotency.endBulkSql(keyed, 201, result))
      }
      return ids
    })
    return Effect.gen(function* () {
      const outcome = yield* Effect.result(tenant.run(enterFor(type, caller, "create"), inside, prepared.end))
      if (Result.isFailure(outcome)) {
        // a repeated stream meets what it wrote before it comes to its key
        const earlier = "late" in hash ? yield* answeredBefore(prepared, hash.late) : undefined
        const failure = earlier ?? outcome.failure
        const replay = isDatabaseFailure(failure) ? Idempotency.replayOf(failure) : undefined
        if (replay !== undefined) {
          const [first, last] = replay.ids
          return answerOf(prepared, replay.created ?? 0, first, last, undefined, { "idempotency-replayed": "true" })
        }
        return yield* mapped(prepared, undefined, undefined, Effect.fail(failure))
      }
      const ids = outcome.success
      return answerOf(prepared, ids.count, ids.first, ids.last, keepIds ? ids.lines() : undefined, {})
    })
  }

  /** What the key of a failed stream says: that it was answered before, or used for another request. */
  const answeredBefore = ({ caller, key, type }: Prepared, hash: () => Uint8Array) => {
    if (key === undefined) return Effect.succeed(undefined)
    const asked = Idempotency.beginSql({ ...key, hash: hash() })
    return Effect.match(tenant.bundle(enterFor(type, caller, "create"), [asked], "rollback"), {
      onSuccess: () => undefined,
      onFailure: (failure) =>
        failure.reason._tag === "Platform" && ["VL021", "VL022"].includes(failure.reason.code) ? failure : undefined
    })
  }

  const answerOf = (
    { prefer }: Prepared,
    created: number,
    first: string | undefined,
    last: string | undefined,
    lines: Stream.Stream<Uint8Array> | undefined,
    more: Readonly<Record<string, string>>
  ): Answer => {
    const applied = [
      ...(prefer.rollback ? ["tx=rollback"] : []),
      ...(lines === undefined ? [] : ["return=representation"])
    ]
    const headers = {
      ...answerHeaders,
      ...(applied.length === 0 ? {} : { "preference-applied": applied.join(", ") }),
      ...more
    }
    if (lines !== undefined) {
      return { status: 201, body: undefined, headers, stream: lines }
    }
    const told = prefer.rollback ? { created } : { created, first_id: first ?? null, last_id: last ?? null }
    return { status: 201, body: JSON.stringify(told), headers }
  }

  /** Headers and rights, judged; what is refused here is entered as any other failure. */
  const preparing = (
    type: RecordType,
    caller: Caller,
    request: WriteRequest,
    body: () => string
  ): Effect.Effect<Prepared, Failing> => {
    const prepared = prepare(type, caller, "create", request, body)
    const failure = Result.isFailure(prepared) ? prepared.failure : lenientRefusal(prepared.success)
    if (failure === undefined) return Effect.fromResult(prepared)
    const subject: Subject = { type, caller, operation: "create", end: "commit" }
    return Effect.flatMap(audited(subject, undefined, Effect.fail(failure)), () => Effect.fail(failure))
  }

  /** What lenient handling cannot be asked for together with. */
  const lenientRefusal = ({ key, prefer }: Prepared): Problem | undefined =>
    prefer.lenient && (key !== undefined || prefer.rollback)
      ? problem("malformed_header", {
          detail: "handling=lenient commits as it goes: it takes neither Idempotency-Key nor tx=rollback"
        })
      : undefined

  const json: BulkWrite["json"] = (type, caller, request) =>
    Effect.gen(function* () {
      const prepared = yield* preparing(type, caller, request, () => stringify(request.body))
      const { body } = request
      if (!Array.isArray(body)) {
        return yield* problem("invalid", { errors: [fault([], "type", "an array of records")] })
      }
      const now = yield* Clock.currentTimeMillis
      const judged = (body as ReadonlyArray<ExactValue>).map((value, index) =>
        judge(prepared, value, index, index + 1, now)
      )
      const chunks: Array<ReadonlyArray<Judged>> = []
      for (let at = 0; at < judged.length; at += chunkSize) chunks.push(judged.slice(at, at + chunkSize))
      if (prepared.prefer.lenient) return lenient(prepared, Stream.fromIterable(chunks))
      // every fault of every record, before anything is written
      const wrong = judged.flatMap((one) => (isReady(one) ? [] : [one.problem]))
      const early = prepared.key?.hash ?? new Uint8Array(32)
      const work =
        wrong.length > 0
          ? Effect.fail(joined(wrong))
          : allOrNothing(prepared, (take) => Effect.forEach(chunks, take, { discard: true }), { early })
      return yield* audited(prepared, undefined, work)
    })

  const ndjson: BulkWrite["ndjson"] = (type, caller, request) =>
    Effect.gen(function* () {
      const prepared = yield* preparing(type, caller, request, () => "")
      const now = yield* Clock.currentTimeMillis
      const hash =
        prepared.key === undefined
          ? undefined
          : new Idempotency.RequestHash(request.method, request.target, request.contentType ?? "")
      const lines = new NdjsonLines()
      let index = 0
      let pending: Array<Judged> = []
      /** Takes lines, and answers the chunks that are full. */
      const gather = (found: ReadonlyArray<Line>): ReadonlyArray<ReadonlyArray<Judged>> => {
        const full: Array<ReadonlyArray<Judged>> = []
        for (const line of found) {
          pending.push(judgeLine(prepared, line, index++, now))
          if (pending.length === chunkSize) {
            full.push(pending)
            pending = []
          }
        }
        return full
      }
      const rest = (): ReadonlyArray<ReadonlyArray<Judged>> => {
        const full = gather(lines.end())
        return pending.length === 0 ? full : [...full, pending]
      }
      const chunks = request.stream.pipe(
        Stream.map((bytes) => {
          hash?.update(bytes)
          return gather(lines.push(bytes))
        }),
        Stream.concat(Stream.sync(rest)),
        Stream.flattenIterable
      )
      if (prepared.prefer.lenient) return lenient(prepared, Stream.buffer(chunks, { capacity: 1 }))
      const entire = (work: Effect.Effect<Answer, Failing>) =>
        places.within(caller.identity.actor, audited(prepared, undefined, work))
      if (hash === undefined) {
        const late = () => new Uint8Array(32)
        return yield* entire(allOrNothing(prepared, (take) => Stream.runForEach(chunks, take), { late }))
      }
      // with a key, everything is read even where nothing can be written any more: the request's hash is over all of it
      let digest: Uint8Array | undefined
      const late = () => {
        digest ??= hash.digest()
        return digest
      }
      const work = allOrNothing(
        prepared,
        (take) =>
          Effect.gen(function* () {
            let failed: Failing | DatabaseFailure | undefined
            yield* Stream.runForEach(chunks, (judged) =>
              failed !== undefined
                ? Effect.void
                : Effect.catch(take(judged), (failure) =>
                    Effect.sync(() => {
                      failed = failure
                    })
                  )
            )
            if (failed !== undefined) return yield* Effect.fail(failed)
          }),
        { late }
      )
      return yield* entire(work)
    }).pipe(Effect.mapError(asProblem))

  return { json, ndjson }
}
