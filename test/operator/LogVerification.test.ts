/** The log's last day, verified in the background: the row, and what is told where it is bad; slices of any size agree. */
import { layer, it as plain } from "@effect/vitest"
import { ConfigProvider, Effect, Layer, Stream } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import { builtinRules } from "../../src/domain/AnomalyRule.ts"
import * as AnomalyScanner from "../../src/operator/anomaly/AnomalyScanner.ts"
import * as LogVerification from "../../src/operator/evidence/LogVerification.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { slices, verified } from "../../src/postgres/VerifySlices.ts"
import { provisionAtlas } from "../support/Atlas.ts"
import { configOf, connect, Database, freshDatabase, query, withDatabase } from "../support/Database.ts"
import { makeMonths, writePast } from "../support/Months.ts"
import { makeKeys, seal, writePlatform } from "../support/Sealing.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))

const alter = (superuserUrl: string, sql: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(superuserUrl)
      yield* connection.query("begin")
      yield* connection.query("alter table platform.audit_log disable trigger all")
      yield* connection.query(sql)
      yield* connection.query("alter table platform.audit_log enable always trigger refuse_row")
      yield* connection.query("alter table platform.audit_log enable always trigger refuse_truncate")
      yield* connection.query("commit")
    })
  )

layer(withDatabase(services), { excludeTestServices: true })("the verification in the background", (it) => {
  it.effect("keeps what it found of the last day in its row", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl, org } = yield* Database
      yield* provisionAtlas(operatorUrl, org)
      for (let i = 0; i < 5; i++) yield* writePlatform(operatorUrl, 7)
      const kept = query(
        superuserUrl,
        "select entries::int4, problems::int4, findings from platform.audit_verification"
      )
      const scan = Effect.suspend(() => AnomalyScanner.scan({ rules: builtinRules, endpoints: [], now: Date.now() }))
      expect((yield* scan).alerts).toEqual([])
      const sound = yield* LogVerification.verifyDay(10)
      expect(sound).toMatchObject({ entries: 36, problems: 0, findings: [] })
      expect(yield* kept).toEqual([{ entries: 36, problems: 0, findings: [] }])
      const [entry] = yield* query(
        superuserUrl,
        "select id::text as id, lane::int4 as lane, seq::text as seq from platform.audit_log where action = 'operator.test' order by occurred_at offset 20 limit 1"
      )
      yield* alter(superuserUrl, `update platform.audit_log set actor = 'x' where id = '${entry?.id}'`)
      const bad = yield* LogVerification.verifyDay(10)
      expect(bad).toMatchObject({ entries: 36, problems: 1 })
      expect(yield* kept).toMatchObject([
        { problems: 1, findings: [{ chain: "platform", lane: entry?.lane, seq: entry?.seq, problem: "hash_mismatch" }] }
      ])
      // the scanner, which had found it sound, verifies that time again and tells
      expect((yield* scan).alerts).toHaveLength(1)
      const alerts = yield* query(
        superuserUrl,
        "select rule, severity, chain, count::int4 as count from platform.anomaly_alerts"
      )
      expect(alerts).toEqual([{ rule: "chain_broken", severity: "critical", chain: "platform", count: 1 }])
      yield* alter(superuserUrl, `update platform.audit_log set actor = 'operator/test' where id = '${entry?.id}'`)
      // the alert is an entry too
      expect(yield* LogVerification.verifyDay(10)).toMatchObject({ entries: 37, problems: 0 })
      expect(yield* kept).toEqual([{ entries: 37, problems: 0, findings: [] }])
    })
  )

  it.effect("finds the same in slices of any size, and each entry once", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const { superuserUrl, org } = database
      const chain = `${org}/geo/other`
      yield* makeMonths(database, 4)
      yield* writePast(database, chain, { ago: 4, lanes: [0, 9, 31], each: 5 })
      // a gap, a change, and one entry twice, in another month
      const at = (lane: number, seq: number) => `chain = '${chain}' and lane = ${lane} and seq = ${seq}`
      yield* alter(superuserUrl, `delete from platform.audit_log where ${at(0, 6)}`)
      yield* alter(superuserUrl, `update platform.audit_log set reason = 'x' where ${at(9, 11)}`)
      yield* alter(
        superuserUrl,
        `with a as (select a.*, a.occurred_at + interval '1 month' as later from platform.audit_log a where ${at(31, 3)})
         insert into platform.audit_log select chain, lane, seq, later, id, actor, action, outcome, schema_path, entity_id, payload, request_id,
           reason, ticket_ref, fail_modes, db_login, db_role, prev_hash,
           sha256('\\x00'::bytea || record_send(row(chain, lane, seq, later, id, actor, action, outcome, schema_path, entity_id, payload, request_id,
             reason, ticket_ref, fail_modes, db_login, db_role, prev_hash))) from a`
      )
      const fence = yield* Fence
      const [row] = yield* query(superuserUrl, "select count(*)::int4 as n from platform.audit_log")
      const window = { from: "0001-01-01T00:00:00Z", to: "2100-01-01T00:00:00Z" }
      for (const size of [1, 2, 7, 50_000]) {
        const parts = yield* Stream.runCollect(verified((f) => fence.read(f), window, 2, size))
        expect(
          parts.reduce((sum, part) => sum + part.entries, 0),
          `${size}`
        ).toBe(row?.n)
        // each begins where the one before it ended
        expect(parts.map((part) => part.from).slice(1)).toEqual(parts.map((part) => part.until).slice(0, -1))
        const found = parts
          .flatMap((part) => part.findings)
          .map((text) => JSON.parse(text) as LogVerification.Finding)
          .map(({ lane, problem, seq }) => `${lane} ${seq} ${problem}`)
        // beside its double, the entry behind the two is one that follows only one of them
        const doubled = found.filter((one) => one !== "31 4 link_broken")
        expect(doubled.sort(), `${size}`).toEqual(["0 7 seq_gap", "31 3 duplicate_seq", "9 11 hash_mismatch"])
      }
      // from any slice's end on it goes on as it would have
      const [first] = yield* Stream.runCollect(slices((f) => fence.read(f), window, 20).pipe(Stream.take(1)))
      const rest = yield* Stream.runCollect(
        verified((f) => fence.read(f), { from: String(first?.until), to: window.to }, 2, 20)
      )
      expect(rest.reduce((sum, part) => sum + part.entries, first?.entries ?? 0)).toBe(row?.n)
    })
  )

  it.effect("reads for a slice what the slice has, and not what is before it", () =>
    Effect.gen(function* () {
      const { operatorUrl, superuserUrl } = yield* Database
      // each on a connection of its own, so in several lanes, which the slice takes up where they were left
      const rounds = (count: number) =>
        Effect.forEach(Array.from({ length: 10 }), () => writePlatform(operatorUrl, count), { discard: true })
      yield* rounds(1_500)
      const [row] = yield* query(superuserUrl, "select max(occurred_at)::text as at from platform.audit_log")
      yield* rounds(20)
      yield* query(superuserUrl, "analyze platform.audit_log")
      const read = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(superuserUrl)
          const explain = `explain (analyze, buffers, format json) select * from platform.audit_verify_window('${row?.at}', null)`
          // the first run of a session reads the catalogue too
          yield* connection.query(explain)
          const { rows } = yield* connection.query(explain)
          const plans = rows[0]?.["QUERY PLAN"] as ReadonlyArray<{ readonly Plan: Readonly<Record<string, number>> }>
          return Number(plans[0]?.Plan["Shared Hit Blocks"]) + Number(plans[0]?.Plan["Shared Read Blocks"])
        })
      )
      console.log(`blocks read for 201 entries behind 15,000: ${read}`)
      expect(read).toBeLessThan(2_000)
    })
  )
})

plain.live("misses what is gone from the end of a lane, however long ago that was written", () =>
  Effect.gen(function* () {
    const database = yield* freshDatabase
    const chain = `${database.org}/geo/past`
    yield* query(database.superuserUrl, "insert into platform.domains (chain, pg_schema) values ($1, 'past')", [chain])
    yield* makeMonths(database, 2)
    yield* writePast(database, chain, { ago: 2, until: 2, lanes: [4], each: 5 })
    yield* writePlatform(database.operatorUrl, 5)
    const keys = yield* makeKeys()
    yield* Effect.promise(() => seal(database, keys))
    const where = `chain = '${chain}' and seq > 3`
    const lost = { chain, lane: 4, seq: "5", problem: "tail_missing" }
    yield* Effect.gen(function* () {
      const fence = yield* Fence
      const found = (to: string) =>
        Effect.map(
          Stream.runCollect(verified((f) => fence.read(f), { from: "0001-01-01T00:00:00Z", to }, 2)),
          (parts) => parts.flatMap((part) => part.findings).map((text) => JSON.parse(text) as LogVerification.Finding)
        )
      expect(yield* LogVerification.verifyDay(10)).toMatchObject({ problems: 0 })
      yield* query(
        database.superuserUrl,
        `create table public.aside as select * from platform.audit_log where ${where}`
      )
      yield* alter(database.superuserUrl, `delete from platform.audit_log where ${where}`)
      expect(yield* LogVerification.verifyDay(10)).toMatchObject({ problems: 1, findings: [lost] })
      // nothing is said of a window that ends before the lane breaks off
      expect(yield* found("2100-01-01T00:00:00Z")).toMatchObject([lost])
      expect(yield* found("2020-01-01T00:00:00Z")).toEqual([])
      yield* query(database.superuserUrl, "insert into platform.audit_log select * from public.aside")
      expect(yield* LogVerification.verifyDay(10)).toMatchObject({ problems: 0 })
    }).pipe(Effect.provide(services.pipe(Layer.provide(ConfigProvider.layer(configOf(database))))), Effect.scoped)
  })
)

plain.effect("begins soon and comes every hour, whatever happened to the round before", () =>
  Effect.gen(function* () {
    let rounds = 0
    const down = Effect.suspend(() => {
      rounds += 1
      return Effect.fail(failure("Unavailable", new Error("down")))
    })
    const fence = {
      epoch: "1",
      source: "folder",
      transaction: () => down,
      long: () => down,
      alone: () => down,
      read: () => down
    }
    yield* Layer.build(LogVerification.layer.pipe(Layer.provide(Layer.succeed(Fence, fence))))
    yield* TestClock.adjust("59 seconds")
    expect(rounds).toBe(0)
    yield* TestClock.adjust("5 minutes")
    const first = rounds
    expect(first).toBeGreaterThan(1)
    yield* TestClock.adjust("2 hours")
    expect(rounds).toBeGreaterThanOrEqual(first * 2)
  })
)
