/**
 * Answers those who ask the API what applying a definition would do (`POST /api/platform/plan`).
 *
 * What is asked comes from the API's login, so nothing of it is believed: it is decoded and admitted as a manifest is. The
 * plan is made in a transaction that is rolled back, and needs no term; the answer is written under it, so that an operator
 * that was overtaken answers nothing. A request that nobody has answered is found by whoever operates next.
 */
import { Duration, Effect, Layer, Schedule, Semaphore, Stream } from "effect"
import { chainOf } from "../domain/Names.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import { type Answer, shown, withoutRecords } from "../provisioning/PlanShown.ts"
import { askedDefinition } from "../records/type/AskedDefinition.ts"
import { Fence } from "./state/Fence.ts"

const channel = "velocity_plan_asked"

/** Plans made at once; each has one of the operator's connections, of which reconcilers need most. */
const atOnce = 2
/** How often it is looked where nothing is heard, as behind a pooler. */
const deafLook = Duration.seconds(1)

// requests that nobody waits for any more are the gateway's to remove
const openSql = `select id::text as id, chain, manifest, (extract(epoch from wanted_until - clock_timestamp()) * 1000)::int4 as left
from platform.plan_requests where answer is null and wanted_until > clock_timestamp() and id <> all ($1::uuid[]) order by asked_at`

interface Request {
  readonly id: string
  readonly chain: string
  readonly manifest: string
  /** Milliseconds. */
  readonly left: number
}

const parsed = (text: string): unknown => {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

const refusedAs = (message: string, faults: Extract<Answer, { _tag: "Refused" }>["faults"] = []): Answer => ({
  _tag: "Refused",
  reason: "Invalid",
  message,
  faults
})

const whys = {
  LockTimeout: "lock_timeout",
  Timeout: "timeout",
  Unavailable: "unavailable"
} as const

const failedAs = ({ reason }: DatabaseFailure): Answer => ({
  _tag: "Failed",
  why: Object.hasOwn(whys, reason._tag) ? whys[reason._tag as keyof typeof whys] : "internal"
})

/** What a request is answered. */
const answerTo = Effect.fnUntraced(function* ({ chain, manifest }: Request) {
  const fence = yield* Fence
  const sql = yield* OperatorSql
  const value = parsed(manifest)
  if (typeof value !== "object" || value === null) return refusedAs("a manifest is a mapping")
  const asked = askedDefinition(value as Readonly<Record<string, unknown>>)
  if ("faults" in asked) return refusedAs("the definition contradicts itself", asked.faults)
  const { definition } = asked
  if (chainOf(definition.spec) !== chain) return refusedAs("the definition is of another domain")
  return yield* sql
    .transaction((tx) => shown(tx, definition, fence.source), { end: "rollback" })
    .pipe(
      Effect.map((plan): Answer => ({ _tag: "Shown", plan })),
      Effect.catchTag("ProvisionRefused", ({ faults, message, reason }) =>
        Effect.succeed<Answer>({ _tag: "Refused", reason, message, faults })
      ),
      Effect.catchTag("DatabaseFailure", (failure) =>
        Effect.as(Effect.logWarning("a plan that was asked for could not be made", failure), failedAs(failure))
      )
    )
})

const answer = Effect.fnUntraced(function* (request: Request) {
  const fence = yield* Fence
  const found = yield* answerTo(request)
  yield* fence.transaction((tx) =>
    tx.query(
      statement("select platform.plan_answer($1::uuid, $2) as answered", [
        request.id,
        JSON.stringify(withoutRecords(found))
      ])
    )
  )
})

/** Answers until its scope closes. */
export const layer = Layer.effectDiscard(
  Effect.gen(function* () {
    const fence = yield* Fence
    const sql = yield* OperatorSql
    const permits = yield* Semaphore.make(atOnce)
    const underway = new Set<string>()

    const handle = (request: Request) =>
      answer(request).pipe(
        permits.withPermits(1),
        // then nobody waits for it
        Effect.timeoutOption(request.left),
        Effect.catchCause((cause) => Effect.logWarning("a plan that was asked for was not answered", cause)),
        Effect.ensuring(Effect.sync(() => underway.delete(request.id)))
      )
    const look = Effect.gen(function* () {
      const { rows } = yield* fence.read((tx) => tx.query(statement(openSql, [`{${[...underway].join(",")}}`])))
      for (const row of rows) {
        const request: Request = {
          id: String(row.id),
          chain: String(row.chain),
          manifest: String(row.manifest),
          left: Number(row.left)
        }
        underway.add(request.id)
        yield* Effect.forkScoped(handle(request))
      }
    }).pipe(Effect.catchCause((cause) => Effect.logWarning("what plans are asked for could not be read", cause)))

    yield* sql.listen(channel).pipe(
      Stream.runForEachArray(() => look),
      Effect.forkScoped
    )
    if (!sql.hears) yield* look.pipe(Effect.repeat(Schedule.spaced(deafLook)), Effect.forkScoped)
  })
)
