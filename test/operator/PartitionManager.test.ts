/** Partitions ahead of time, under the operator's login; and the schedule, by the clock of the test. */
import { layer, it as plain } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import * as PartitionManager from "../../src/operator/retention/PartitionManager.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { Database, query, withDatabase } from "../support/Database.ts"
import { versionsOf } from "../support/Shape.ts"

const name = (parent: string, ahead: number) =>
  `select format('platform.${parent}_%s', to_char(date_trunc('month', now() at time zone 'UTC') + interval '${ahead} months', 'YYYY_MM')) as name`

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))

layer(withDatabase(services), { excludeTestServices: true })("the partition manager", (it) => {
  it.effect("makes what is missing, with what guards it, and then nothing", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const { superuserUrl } = database
      const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(superuserUrl, sql, params)
      for (const [parent, ahead] of [
        ["audit_log", 2],
        ["audit_log", 3],
        ["event_log", 3]
      ] as const) {
        const [{ name: table } = {}] = yield* look(name(parent, ahead))
        yield* look(`drop table ${String(table)}`)
      }
      expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
      const [{ name: audit } = {}] = yield* look(name("audit_log", 3))
      const guards = yield* look(
        `select (select count(*)::int4 from pg_trigger where tgrelid = $1::regclass and tgenabled = 'A' and not tgisinternal) as triggers,
           (select count(*)::int4 from pg_class c, aclexplode(c.relacl) a where c.oid = $1::regclass and a.grantee <> c.relowner) as grants`,
        [audit]
      )
      expect(guards).toEqual([{ triggers: 2, grants: 0 }])
      const before = yield* versionsOf(database.superuserUrl, database.org)
      expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
      expect(yield* versionsOf(database.superuserUrl, database.org)).toEqual(before)
    })
  )

  it.effect("lets no month that fails stop another, and tells how far each log reaches", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Database
      const look = (sql: string) => query(superuserUrl, sql)
      const [{ name: blocked } = {}] = yield* look(name("audit_log", 1))
      const [{ name: other } = {}] = yield* look(name("event_log", 2))
      yield* look(`drop table ${String(blocked)}`)
      yield* look(`create table ${String(blocked)} (in_the_way boolean)`)
      yield* look(`drop table ${String(other)}`)
      const failed = yield* Effect.flip(PartitionManager.sweep)
      expect(failed).toMatchObject({ reason: { _tag: "Platform", code: "VL012" } })
      expect(yield* look(`select to_regclass('${String(other)}') is not null as made`)).toEqual([{ made: true }])
      yield* look(`drop table ${String(blocked)}`)
      expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
    })
  )

  it.effect("tells of a month that is not guarded as its parent is", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Database
      const look = (sql: string) => query(superuserUrl, sql)
      const [{ name: audit } = {}] = yield* look(name("audit_log", 2))
      const [{ name: event } = {}] = yield* look(name("event_log", 2))
      expect(yield* PartitionManager.checkMonths).toEqual([])
      for (const [sql, month, detail, undo] of [
        [`grant select on ${event} to velocity_gateway`, event, "velocity_gateway may SELECT it by itself"],
        [`alter table ${event} owner to velocity_operator`, event, "it belongs to velocity_operator"],
        [
          `alter table ${event} disable row level security`,
          event,
          "row-level security is not as its parent's",
          `alter table ${event} enable row level security`
        ],
        [
          `alter table ${audit} disable trigger refuse_row`,
          audit,
          "trigger refuse_row is missing, or is enabled otherwise than its parent's",
          `alter table ${audit} enable always trigger refuse_row`
        ],
        [
          `drop trigger refuse_truncate on ${audit}`,
          audit,
          "trigger refuse_truncate is missing, or is enabled otherwise than its parent's",
          `create trigger refuse_truncate before truncate on ${audit} for each statement execute function platform.audit_refuse()`
        ]
      ] as const) {
        yield* look(sql)
        const [fault] = yield* PartitionManager.checkMonths
        expect(fault, sql).toMatchObject({ partition: month, detail })
        yield* look(undo ?? String(fault?.repair))
      }
      yield* look(`alter table ${audit} enable always trigger refuse_truncate`)
      // an index of the parent that this month has none of
      yield* look("create index more on only platform.event_log (actor)")
      const faults = yield* PartitionManager.checkMonths
      expect(faults.map((fault) => fault.partition)).toContain(event)
      expect(faults[0]?.detail).toBe("index platform.more of its parent has none here")
      yield* look("drop index platform.more")
      expect(yield* PartitionManager.checkMonths).toEqual([])
    })
  )
})

plain.effect("looks at once and then every hour, whatever happened to the round before", () =>
  Effect.gen(function* () {
    let rounds = 0
    const fence = Layer.succeed(Fence, {
      epoch: "1",
      source: "folder",
      transaction: () => Effect.fail(failure("Unavailable", new Error("down"))),
      long: () => Effect.fail(failure("Unavailable", new Error("down"))),
      alone: () => Effect.fail(failure("Unavailable", new Error("down"))),
      read: () =>
        Effect.suspend(() => {
          rounds += 1
          return Effect.fail(failure("Unavailable", new Error("down")))
        })
    })
    yield* Layer.build(PartitionManager.layer.pipe(Layer.provide(fence)))
    yield* TestClock.adjust("5 minutes")
    const first = rounds
    expect(first).toBeGreaterThan(1)
    yield* TestClock.adjust("50 minutes")
    expect(rounds).toBe(first)
    yield* TestClock.adjust("2 hours")
    expect(rounds).toBeGreaterThanOrEqual(first * 2)
  })
)
