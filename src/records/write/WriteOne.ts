/**
 * Writes to one record: create, put, patch, remove, restore. Part of `WriteRecords`, which says what they promise.
 */
import * as Clock from "effect/Clock"
import type * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Result from "effect/Result"
import { type ExactValue, isExactObject, parse, stringify } from "../../domain/ExactJson.ts"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import { isUuid } from "../../domain/Uuid.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { SqlResult, Statement } from "../../postgres/Statement.ts"
import type { TenantTx, Tx } from "../../postgres/TenantTx.ts"
import type { Answer } from "../type/Answer.ts"
import { enterFor } from "../type/Entering.ts"
import { documentOf, type Values } from "../type/InputDecoder.ts"
import type { RecordType } from "../type/RecordType.ts"
import * as Idempotency from "./Idempotency.ts"
import { type Failing, isDatabaseFailure, type Outcomes, transient } from "./Outcomes.ts"
import { compileJsonPatch, mergePatch, reachesInto } from "./Patch.ts"
import { type Prepared, prepare, versionsOf } from "./Prepared.ts"
import { removeReferring } from "./Referring.ts"
import { answerOf, refusalOf } from "./WriteAnswer.ts"
import { type IfMatch, readPrefer } from "./WriteHeaders.ts"
import * as WriteSql from "./WriteSql.ts"
import { type WriteRequest, writeTypeOf } from "./WriteType.ts"

/** What writes are made of. */
export interface WriteParts {
  readonly tenant: Context.Service.Shape<typeof TenantTx>
  readonly outcomes: Outcomes
  readonly newId: () => string
}

/** One call of `WriteRecords`. */
export type Write<Parts> = (
  type: RecordType,
  caller: Caller,
  request: WriteRequest & Parts
) => Effect.Effect<Answer, Failing>

const noBody = () => ""

const verdictAt = (results: ReadonlyArray<SqlResult>, index: number) => WriteSql.verdictOf(results[index]?.rows ?? [])

/** The writes to one record. */
export const makeOne = ({ newId, outcomes, tenant }: WriteParts) => {
  const { audited, mapped } = outcomes

  /** A record in the version that was answered then, as far as the caller may read it now, or its past. */
  const versionAt = Effect.fnUntraced(function* (prepared: Prepared, id: string, version: number) {
    const { caller, shape, type } = prepared
    if (!shape.reads) return undefined
    const asked = tenant.bundle(enterFor(type, caller, "read"), [WriteSql.readSql(shape, id)], "read")
    const [result] = yield* mapped(prepared, id, undefined, asked)
    const [row] = result?.rows ?? []
    if (row !== undefined && Number(row.version) === version) {
      return typeof row.body === "string" ? row.body : undefined
    }
    if (shape.past === undefined) return undefined
    const past = tenant.bundle(
      enterFor(type, caller, "history"),
      [WriteSql.versionSql(shape, shape.past, id, version)],
      "read"
    )
    const [then] = yield* mapped(prepared, id, undefined, past)
    const body = then?.rows[0]?.body
    return typeof body === "string" ? body : undefined
  })

  /** A replayed request's answer: the record of then, as the caller may see it now. */
  const replayed = Effect.fnUntraced(function* (prepared: Prepared, replay: Idempotency.Replay) {
    const [id = ""] = replay.ids
    const [version = 0] = replay.versions
    const body = yield* versionAt(prepared, id, version)
    const answer = answerOf(prepared, id, replay.status, version, body)
    return { ...answer, headers: { ...answer.headers, "idempotency-replayed": "true" } }
  })

  /** What a write came to: its answer, an earlier answer to the same key, or the problem. */
  const concluded = Effect.fnUntraced(function* (
    prepared: Prepared,
    id: string,
    event: string,
    status: number,
    write: Effect.Effect<WriteSql.Verdict, Failing | DatabaseFailure>
  ) {
    const outcome = yield* Effect.result(transient(write))
    if (Result.isFailure(outcome)) {
      const replay = isDatabaseFailure(outcome.failure) ? Idempotency.replayOf(outcome.failure) : undefined
      if (replay !== undefined) return yield* replayed(prepared, replay)
      return yield* mapped(prepared, id, event, Effect.fail(outcome.failure))
    }
    const refusal = refusalOf(outcome.success)
    if (refusal !== undefined) return yield* refusal
    return answerOf(prepared, id, status, outcome.success.version as number, outcome.success.body)
  })

  /** Runs the one statement of a write, and what comes before and after it, in one network write. */
  const inOneWrite = Effect.fnUntraced(function* (
    prepared: Prepared,
    id: string,
    event: string,
    status: number,
    statement: Statement
  ) {
    const { caller, key, operation, type } = prepared
    const statements =
      key === undefined
        ? [statement, WriteSql.auditSql(id, event)]
        : [Idempotency.beginSql(key), statement, Idempotency.endSql(key, type.def, id, event, status)]
    const written = Effect.map(tenant.bundle(enterFor(type, caller, operation), statements, prepared.end), (results) =>
      verdictAt(results, key === undefined ? 0 : 1)
    )
    return yield* concluded(prepared, id, event, status, written)
  })

  const factsOf = (prepared: Prepared, event: string): WriteSql.EventFacts => ({
    event,
    actor: prepared.caller.identity.actor,
    requestId: prepared.caller.requestId
  })

  const create: Write<{ readonly body: ExactValue }> = (type, caller, request) =>
    Effect.suspend(() => {
      const prepared = prepare(type, caller, "create", request, () => stringify(request.body))
      if (Result.isFailure(prepared)) return refused(type, caller, "create", undefined, request, prepared.failure)
      return audited(prepared.success, undefined, createOne(prepared.success, request.body))
    })

  const createOne = Effect.fnUntraced(function* (prepared: Prepared, body: ExactValue) {
    const { decoder, rules } = writeTypeOf(prepared.type)
    const { values } = yield* Effect.fromResult(decoder.decode(body, "create", prepared.caller.roles))
    if (rules.any) {
      const broken = rules.judge({
        self: values,
        old: undefined,
        now: yield* Clock.currentTimeMillis,
        actor: prepared.caller.identity.actor
      })
      if (broken !== undefined) return yield* broken
    }
    const id = newId()
    const event = newId()
    const statement = WriteSql.createSql(prepared.shape, id, documentOf(values), factsOf(prepared, event))
    return yield* inOneWrite(prepared, id, event, 201, statement)
  })

  /** A change by fields that are known. */
  const change = (
    prepared: Prepared,
    id: string,
    status: number,
    values: Values,
    system: Values
  ): Effect.Effect<Answer, Failing> => {
    const event = newId()
    const { operation } = prepared
    const statement = WriteSql.changeSql(
      prepared.shape,
      changeOf(operation as "update" | "delete" | "restore", id, values, system, prepared.ifMatch),
      factsOf(prepared, event)
    )
    return inOneWrite(prepared, id, event, status, statement)
  }

  /** A change that must see its row first: two round trips, under the row's lock. */
  const changeSeen = (
    prepared: Prepared,
    id: string,
    operation: "update" | "restore",
    next: (row: Values) => Result.Result<Values, Problem>,
    system: Values
  ): Effect.Effect<Answer, Failing> => {
    const { caller, key, shape, type } = prepared
    const { rules } = writeTypeOf(type)
    const event = newId()
    const inside = Effect.fnUntraced(function* (tx: Tx) {
      if (key !== undefined) yield* tx.query(Idempotency.beginSql(key))
      const locked = yield* tx.query(WriteSql.lockSql(shape, operation, id))
      const [row] = locked.rows
      if (typeof row?.version !== "number") return yield* problem("not_found")
      const versions = versionsOf(prepared.ifMatch)
      if (versions !== undefined && !versions.includes(row.version)) return yield* problem("stale")
      if (operation === "restore" && row.live === true) return yield* problem("not_deleted")
      const old = parse(String(row.state), { maxDepth: 64 }) as Values
      const values = yield* Effect.fromResult(next(old))
      if (rules.any) {
        const self = { ...old, ...values }
        const broken = rules.judge({ self, old, now: yield* Clock.currentTimeMillis, actor: caller.identity.actor })
        if (broken !== undefined) return yield* broken
      }
      const statement = WriteSql.changeSql(
        shape,
        changeOf(operation, id, values, system, undefined),
        factsOf(prepared, event)
      )
      const results = yield* tx.finish([
        statement,
        key === undefined ? WriteSql.auditSql(id, event) : Idempotency.endSql(key, type.def, id, event, 200)
      ])
      return verdictAt(results, 0)
    })
    return concluded(prepared, id, event, 200, tenant.run(enterFor(type, caller, operation), inside, prepared.end))
  }

  /** A request that was refused before anything was prepared is entered as the others are. */
  const refused = (
    type: RecordType,
    caller: Caller,
    operation: Operation,
    id: string | undefined,
    request: WriteRequest,
    failure: Problem
  ): Effect.Effect<Answer, Failing> => {
    const prefer = readPrefer(request.headers.prefer)
    const end = Result.isSuccess(prefer) && prefer.success.rollback ? "rollback" : "commit"
    return audited({ type, caller, operation, end }, id, Effect.fail(failure))
  }

  /** A write to one record that has an id. */
  const writing = (
    type: RecordType,
    caller: Caller,
    operation: "update" | "delete" | "restore",
    request: WriteRequest & { readonly id: string },
    body: () => string,
    write: (prepared: Prepared) => Effect.Effect<Answer, Failing>
  ): Effect.Effect<Answer, Failing> =>
    Effect.suspend(() => {
      const { id } = request
      const prepared = prepare(type, caller, operation, request, body)
      if (Result.isFailure(prepared)) {
        return refused(type, caller, operation, isUuid(id) ? id : undefined, request, prepared.failure)
      }
      if (!isUuid(id)) return Effect.fail(problem("malformed_id"))
      return audited(prepared.success, id, write(prepared.success))
    })

  const put: Write<{ readonly id: string; readonly body: ExactValue }> = (type, caller, request) =>
    writing(
      type,
      caller,
      "update",
      request,
      () => stringify(request.body),
      (prepared) =>
        Effect.gen(function* () {
          const { decoder, rules } = writeTypeOf(type)
          const { system, values } = yield* Effect.fromResult(decoder.decode(request.body, "put", caller.roles))
          return rules.any
            ? yield* changeSeen(prepared, request.id, "update", () => Result.succeed(values), system)
            : yield* change(prepared, request.id, 200, values, system)
        })
    )

  const patch: Write<{
    readonly id: string
    readonly body: ExactValue
    readonly format: "merge" | "json-patch"
  }> = (type, caller, request) =>
    writing(
      type,
      caller,
      "update",
      request,
      () => stringify(request.body),
      (prepared) =>
        Effect.gen(function* () {
          const { decoder, fields, rules } = writeTypeOf(type)
          const { body, id } = request
          if (request.format === "json-patch") {
            const compiled = yield* Effect.fromResult(compileJsonPatch(fields, caller.roles, body))
            return yield* changeSeen(
              prepared,
              id,
              "update",
              (row) => Result.flatMap(compiled.apply(row), (values) => decoder.recheck(values, Object.keys(values))),
              {}
            )
          }
          if (!isExactObject(body)) {
            return yield* problem("malformed_patch", { detail: "a merge patch of a record is a JSON object" })
          }
          const { system, values } = yield* Effect.fromResult(decoder.decode(body, "patch", caller.roles))
          if (!reachesInto(fields, body)) {
            return rules.any
              ? yield* changeSeen(prepared, id, "update", () => Result.succeed(values), system)
              : yield* change(prepared, id, 200, values, system)
          }
          const merged = (row: Values): Values =>
            Object.fromEntries(
              Object.keys(values).map((name) => [
                name,
                fields.get(name)?.type === "json"
                  ? mergePatch(row[name] ?? null, values[name] ?? null)
                  : (values[name] ?? null)
              ])
            )
          return yield* changeSeen(
            prepared,
            id,
            "update",
            (row) => decoder.recheck(merged(row), Object.keys(values)),
            system
          )
        })
    )

  const remove: Write<{ readonly id: string }> = (type, caller, request) =>
    writing(type, caller, "delete", request, noBody, (prepared) => {
      const status = prepared.prefer.answer === "representation" ? 200 : 204
      const referring = request.referring(type).filter(({ onDelete }) => onDelete !== "restrict")
      if (referring.length === 0) return change(prepared, request.id, status, {}, {})
      return removeWithReferring(prepared, request.id, status)
    })

  /** A delete that takes others along, or empties their references: as many round trips as there are types. */
  const removeWithReferring = (prepared: Prepared, id: string, status: number): Effect.Effect<Answer, Failing> => {
    const { caller, key, request, shape, type } = prepared
    const event = newId()
    const inside = Effect.fnUntraced(function* (tx: Tx) {
      if (key !== undefined) yield* tx.query(Idempotency.beginSql(key))
      const locked = yield* tx.query(WriteSql.lockSql(shape, "delete", id))
      const [row] = locked.rows
      if (typeof row?.version !== "number") return yield* problem("not_found")
      const versions = versionsOf(prepared.ifMatch)
      if (versions !== undefined && !versions.includes(row.version)) return yield* problem("stale")
      const others = yield* removeReferring(tx, { type, caller, request, id })
      const statement = WriteSql.changeSql(shape, changeOf("delete", id, {}, {}, undefined), factsOf(prepared, event))
      const results = yield* tx.finish([
        ...others.before,
        statement,
        ...others.after,
        key === undefined ? WriteSql.auditSql(id, event) : Idempotency.endSql(key, type.def, id, event, status)
      ])
      return verdictAt(results, others.before.length)
    })
    return concluded(prepared, id, event, status, tenant.run(enterFor(type, caller, "delete"), inside, prepared.end))
  }

  const restore: Write<{ readonly id: string }> = (type, caller, request) =>
    writing(type, caller, "restore", request, noBody, (prepared) =>
      writeTypeOf(type).rules.any
        ? changeSeen(prepared, request.id, "restore", () => Result.succeed({}), {})
        : change(prepared, request.id, 200, {}, {})
    )

  return { create, put, patch, remove, restore }
}

const changeOf = (
  operation: "update" | "delete" | "restore",
  id: string,
  values: Values,
  system: Values,
  ifMatch: IfMatch
): WriteSql.Change => ({
  operation,
  id,
  document: documentOf(values),
  versions: versionsOf(ifMatch),
  system: Object.keys(system).sort(),
  systemDocument: documentOf(system)
})
