/**
 * Eighteen months pass, week by week, by a database's clock that the test moves (`DatabaseClock`): acts are audited by
 * `audit_insert` as they happen, the partition manager and the retirement run each week and fail in every second one, and
 * in every week what was promised holds. Of history alone the events are put there by a superuser.
 *
 * The clock is the database's because months and retention are judged by it and by nobody else's: an operator whose own
 * clock is wrong, or who would like a month gone, has no place to say so.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer, Logger } from "effect"
import { expect } from "vitest"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import * as PartitionManager from "../../src/operator/retention/PartitionManager.ts"
import * as Retirement from "../../src/operator/retention/Retirement.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, withDatabase } from "../support/Database.ts"
import { moveClock, takeClock } from "../support/DatabaseClock.ts"
import { writeEvent } from "../support/Months.ts"
import { makeKeys } from "../support/Sealing.ts"

const services = Layer.unwrap(
  Effect.gen(function* () {
    yield* takeClock(yield* Database)
    return Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))
  })
)

const weeks = 79
/** Months that the log and history are kept for, beside the one that ends. */
const kept = { audit_log: 3, event_log: 2 } as const
const retiring: Retirement.RetirementSettings = {
  audit: kept.audit_log,
  history: kept.event_log,
  disposition: "drop",
  folder: undefined
}

/** Whose transactions fail: before anything was done, or with all of it done and the answer lost. */
const failing = (real: Fence["Service"], isDone: boolean) => {
  const down = Effect.fail(failure("Unavailable", new Error("down")))
  const lost = <A, E, R>(work: Effect.Effect<A, E, R>) => Effect.andThen(isDone ? work : Effect.void, down)
  return Layer.succeed(Fence, {
    ...real,
    transaction: (f) => lost(real.transaction(f)),
    long: (f) => lost(real.long(f))
  } as Fence["Service"])
}

/** Months of a log by how far they are from the present one, oldest first. */
const monthsSql = `select p.parent, array_agg((12 * (extract(year from p."from" at time zone 'UTC') - extract(year from now() at time zone 'UTC'))
    + extract(month from p."from" at time zone 'UTC') - extract(month from now() at time zone 'UTC'))::int4 order by p."from") as months,
    bool_or(platform.partition_due(p.parent, p."to")) as due
  from platform.partitions() p where p."from" is not null group by p.parent order by p.parent`

layer(withDatabase(services), { excludeTestServices: true })("while eighteen months pass", (it) => {
  it.effect("each act finds its month, each month goes when its time is over and not before, and all verifies", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const real = yield* Fence
      const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
      const { chain } = atlas
      const keys = yield* makeKeys()
      const sealer = yield* Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined })
      const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
      const event = (entity: string, version: number) =>
        writeEvent(database, { chain, storage: atlas.city.storage, entity, version, ago: 0, name: `v${version}` })
      const [quiet, busy] = ["00000000-0000-0000-0000-000000000001", "00000000-0000-0000-0000-000000000002"] as const
      yield* Retirement.keep(retiring)
      yield* event(quiet, 1)
      const [before] = yield* look("select count(*)::int4 as n from platform.audit_log where chain = $1", [chain])
      const months = Effect.map(look(monthsSql), (rows) =>
        rows.map((row) => ({ log: String(row.parent), months: row.months as ReadonlyArray<number>, due: row.due }))
      )
      // what fails says so, forty times
      const run = Effect.all([Effect.exit(PartitionManager.sweep), Effect.exit(Retirement.round(retiring))]).pipe(
        Effect.provide(Logger.layer([]))
      )
      const upTo = (first: number) => Array.from({ length: 4 - first }, (_, index) => first + index)

      for (let week = 1; week <= weeks; week++) {
        yield* moveClock(database, 24 * 7)
        // lanes go by the connection: each of several
        yield* Effect.scoped(
          Effect.gen(function* () {
            for (const action of ["operator.one", "operator.two"]) {
              const connection = yield* connect(database.operatorUrl)
              yield* connection.query(
                "select platform.audit_insert($1, 'operator/test', $2, 'ok', null, null, null, null, null, null, null)",
                [chain, action]
              )
            }
          })
        )
        if (week % 4 === 0) yield* event(busy, week)
        yield* sealer.round(keys)
        yield* week % 2 === 0 ? run : run.pipe(Effect.provide(failing(real, week % 4 === 1)))
        for (const { log, months: there } of yield* months) {
          const [oldest = 0] = there
          // without a gap, and the next month is there whatever failed
          expect([week, log, there]).toEqual([week, log, upTo(oldest).slice(0, there.length)])
          expect(there.at(-1)).toBeGreaterThanOrEqual(week % 2 === 0 ? 3 : 2)
          // what is kept is there as long as the log is; what is over goes within three runs, which are less than a month
          const keep = log === "audit_log" ? kept.audit_log : kept.event_log
          if (week > 26) expect(oldest).toBeLessThanOrEqual(-keep)
          expect(oldest).toBeGreaterThanOrEqual(-keep - 2)
        }
        expect([week, yield* look("select problem from platform.audit_verify_window(null, null)")]).toEqual([week, []])
      }

      // nothing is left over: the last rounds of a month are three
      for (let last = 0; last < 3; last++) {
        yield* sealer.round(keys)
        yield* Effect.all([PartitionManager.sweep, Retirement.round(retiring)])
      }
      expect((yield* months).map(({ due }) => due)).toEqual([false, false])
      expect(yield* look("select * from platform.audit_verify_tree(null, null, null)")).toEqual([])
      expect(yield* look("select problem from platform.audit_verify_window(null, null)")).toEqual([])
      const gone = yield* look(
        `select parent, count(*)::int4 as n, bool_and("to" + make_interval(months => case parent when 'audit_log' then $1 else $2::int4 end) <= now()
           and (parent = 'event_log' or sealed_at is not null)) as over
         from platform.retirements where retired_at is not null group by parent order by parent`,
        [kept.audit_log, kept.event_log]
      )
      expect(gone).toMatchObject([
        { parent: "audit_log", over: true },
        { parent: "event_log", over: true }
      ])
      expect(Math.min(...gone.map(({ n }) => Number(n)))).toBeGreaterThanOrEqual(14)
      // every act is in the log, or in a month that went with its seal
      const [counted] = yield* look(
        `select (select count(*) from platform.audit_log where chain = $1)::int4 as there,
           (select sum(last_seq - first_seq + 1) from platform.audit_seals where chain = $1)::int4 as sealed`,
        [chain]
      )
      expect(Number(counted?.there) + Number(counted?.sealed)).toBe(Number(before?.n) + 2 * weeks)
      // a record that nobody touched since has its last event still
      expect(
        yield* look("select tableoid::regclass::text as place from platform.event_log where entity_id = $1::uuid", [
          quiet
        ])
      ).toEqual([{ place: "platform.event_log_heads" }])
    })
  )
})
