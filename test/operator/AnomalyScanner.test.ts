/**
 * The anomaly scanner under the operator's login: each rule that comes with Velocity raises and just does not, windows
 * slide, nothing is counted twice and nothing is missed, whoever stops when.
 */
import { layer, it as plain } from "@effect/vitest"
import { Effect, Exit, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import { builtinRules } from "../../src/domain/AnomalyRule.ts"
import * as AnomalyScanner from "../../src/operator/anomaly/AnomalyScanner.ts"
import type { Endpoint } from "../../src/operator/anomaly/AnomalySettings.ts"
import { verify } from "../../src/operator/anomaly/AnomalyVerification.ts"
import { Fence, Superseded } from "../../src/operator/state/Fence.ts"
import { type DatabaseFailure, failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql, type Tx } from "../../src/postgres/OperatorSql.ts"
import { connect, Database, query, withDatabase } from "../support/Database.ts"
import { alertsOf, causesOf, chainIn, hourAgo, minutes, type Past, ruleOf, wrote } from "./AnomalyWorld.ts"

const fence = Fence.layerOf({ holder: "test", source: "folder" })
const services = fence.pipe(Layer.provideMerge(OperatorSql.layer))
const pager: Endpoint = {
  name: "pager",
  url: "http://127.0.0.1:1/",
  urlHash: "h",
  secrets: [],
  severities: ["info", "warning", "critical"]
}

/** A scan at a time; counts are kept for two hours there, so it is the time of the entries that are looked at. */
const scanned = (rules: ReadonlyArray<ReturnType<typeof ruleOf>>, now = Date.now()) =>
  AnomalyScanner.scan({ rules, endpoints: [pager], now })

/** Workers of the organisation work Monday to Friday in Berlin, nine to five. */
const hours = { timeZone: "Europe/Berlin", days: ["mon", "tue", "wed", "thu", "fri"], from: "09:00", to: "17:00" }

layer(withDatabase(services), { excludeTestServices: true })("the anomaly scanner", (it) => {
  const one = (name: string) => {
    const rule = builtinRules.find((found) => found.name === name)
    if (rule === undefined) throw new Error(name)
    return rule
  }
  let counter = 0
  const chainFor = (name: string) => Effect.flatMap(Database, (database) => chainIn(database, `${name}${counter++}`))

  const cases: ReadonlyArray<readonly [string, Omit<Past, "chain" | "at">, Omit<Past, "chain" | "at">, number]> = [
    ["bulk_reader", { action: "read", payload: { count: 9_999 } }, { action: "read" }, 10_000],
    ["write_rate", { action: "create", payload: { count: 99_999 } }, { action: "update" }, 100_000],
    ["delete_rate", { action: "delete", payload: { count: 499 } }, { action: "delete" }, 500]
  ]
  for (const [rule, almost, last, threshold] of cases) {
    it.effect(`${rule} raises at its threshold, and not one below`, () =>
      Effect.gen(function* () {
        const database = yield* Database
        const chain = yield* chainFor("rate")
        const at = hourAgo(3)
        yield* wrote(database, [{ ...almost, chain, at }])
        yield* scanned(builtinRules, hourAgo(2))
        expect(yield* alertsOf(database, chain)).toEqual([])
        // of another actor, and of another outcome: neither counts
        yield* wrote(database, [
          { ...last, chain, at: at + 1_000, actor: "dev/bob" },
          { ...last, chain, at: at + 2_000, outcome: "failed" }
        ])
        yield* scanned(builtinRules, hourAgo(2))
        expect(yield* alertsOf(database, chain)).toEqual([])
        const ids = yield* wrote(database, [{ ...last, chain, at: at + minutes(9) }])
        yield* scanned(builtinRules, hourAgo(2))
        const alerts = yield* alertsOf(database, chain)
        expect(alerts).toMatchObject([{ rule, chain, actor: "dev/ann", address: "", count: threshold, threshold }])
        expect(alerts[0]?.explanation).toMatchObject([{ chain, lane: 0, seq: "4", id: ids[0] }, { seq: "1" }])
      })
    )
  }

  it.effect("repeated_denials counts for an actor at an address, and raises at its threshold", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("denied")
      const at = hourAgo(3)
      const denied = (count: number, from: number, address: string) =>
        Array.from({ length: count }, (_, index) => ({
          chain,
          actor: "dev/mallory",
          outcome: "denied",
          action: "read",
          payload: { code: "operation_not_granted", address },
          at: at + from + index * 1_000
        }))
      yield* wrote(database, [...denied(19, 0, "10.0.0.1"), ...denied(19, 30_000, "10.0.0.2")])
      yield* scanned(builtinRules, hourAgo(2))
      expect(yield* alertsOf(database, chain)).toEqual([])
      yield* wrote(database, denied(1, minutes(4), "10.0.0.2"))
      yield* scanned(builtinRules, hourAgo(2))
      const alerts = yield* alertsOf(database, chain)
      expect(alerts).toMatchObject([{ rule: "repeated_denials", actor: "dev/mallory", address: "10.0.0.2", count: 20 }])
      expect(causesOf(alerts).length).toBe(20)
      // what would say something of the request is no part of it
      expect(Object.keys(causesOf(alerts)[0] ?? {}).sort()).toEqual(["chain", "id", "lane", "occurred_at", "seq"])
    })
  )

  it.effect("after_hours follows the clocks of the organisation, and is silent where it tells no hours", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const { org } = database
      const told = yield* chainFor("told")
      const untold = yield* chainIn(database, "untold", `${org}x`)
      yield* query(
        database.operatorUrl,
        "insert into platform.resource_status (kind, namespace, name, spec) values ('Organisation', 'velocity-system', $1, $2::text::jsonb)",
        [org, JSON.stringify({ org, workingHours: { ...hours, days: [...hours.days, "sat", "sun"] } })]
      )
      // today at noon and yesterday at nine in the evening, as Berlin shows it; both in the past, whenever this runs
      const berlin = (hour: number) => {
        for (let at = hourAgo(1); ; at -= minutes(60)) {
          const shown = new Intl.DateTimeFormat("en-GB", { timeZone: "Europe/Berlin", hour: "2-digit" }).format(at)
          if (Number(shown) === hour) return at
        }
      }
      const inside = berlin(16)
      const outside = berlin(17)
      for (const chain of [told, untold]) {
        yield* wrote(database, [
          { chain, lane: 1, at: inside + minutes(59) },
          { chain, lane: 2, at: outside }
        ])
      }
      yield* scanned([one("after_hours")])
      expect(yield* alertsOf(database, told)).toMatchObject([
        { rule: "after_hours", actor: "dev/ann", count: 1, hour: new Date(outside), explanation: [{ lane: 2 }] }
      ])
      expect(yield* alertsOf(database, untold)).toEqual([])
      yield* query(database.operatorUrl, "delete from platform.resource_status where name = $1", [org])
    })
  )

  it.effect("slides a window over the end of an hour, by whole minutes", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const rule = ruleOf({ window: "10m", threshold: 10 })
      const hour = hourAgo(4)
      const entry = (chain: string, minute: number, amount: number) =>
        Array.from({ length: amount }, (_, index) => ({ chain, at: hour + minutes(minute) + index * 1_000 }))
      const atOnce = yield* chainFor("atonce")
      yield* wrote(database, [...entry(atOnce, -5, 5), ...entry(atOnce, 5, 5)])
      yield* scanned([rule], hour + minutes(6))
      expect(yield* alertsOf(database, atOnce)).toEqual([])
      const apart = yield* chainFor("apart")
      const within = yield* chainFor("within")
      yield* wrote(database, [...entry(apart, -5, 5), ...entry(within, -5, 5)])
      yield* scanned([rule], hour)
      yield* wrote(database, [...entry(apart, 5, 5), ...entry(within, 4, 5)])
      yield* scanned([rule], hour + minutes(6))
      expect(yield* alertsOf(database, apart)).toEqual([])
      expect(yield* alertsOf(database, within)).toMatchObject([
        {
          count: 10,
          hour: new Date(hour),
          window_from: new Date(hour - minutes(5)),
          window_to: new Date(hour + minutes(5))
        }
      ])
    })
  )

  it.effect("raises once an hour for a group, and again in the next", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("hourly")
      const rule = ruleOf({ window: "1h", threshold: 2 })
      const hour = hourAgo(5)
      yield* wrote(
        database,
        [0, 1].map((minute) => ({ chain, at: hour + minutes(minute) }))
      )
      expect((yield* scanned([rule], hour + minutes(2))).alerts.length).toBe(1)
      yield* wrote(
        database,
        [2, 3, 59].map((minute) => ({ chain, at: hour + minutes(minute) }))
      )
      expect((yield* scanned([rule], hour + minutes(60))).alerts).toEqual([])
      yield* wrote(database, [{ chain, at: hour + minutes(60) }])
      expect((yield* scanned([rule], hour + minutes(61))).alerts.length).toBe(1)
      expect((yield* alertsOf(database, chain)).map(({ count, hour: of }) => [count, of])).toEqual([
        [2, new Date(hour)],
        [5, new Date(hour + minutes(60))]
      ])
    })
  )

  it.effect("enters each alert in the chain that it is about, and counts none of those", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("entered")
      const everything = ruleOf({ name: "everything", match: { chains: [`${chain}`] }, threshold: 1, window: "24h" })
      yield* wrote(database, [{ chain, at: hourAgo(2) }])
      const { alerts } = yield* scanned([everything])
      yield* scanned([everything])
      const entries = yield* query(
        database.superuserUrl,
        "select chain, actor, action, outcome, entity_id::text as entity, payload, db_login, db_role from platform.audit_log where action = 'operator.anomaly' and chain = $1",
        [chain]
      )
      expect(entries).toMatchObject([
        {
          chain,
          actor: "operator/anomaly",
          outcome: "ok",
          entity: alerts[0],
          db_login: "velocity_operator",
          payload: { rule: "everything", severity: "info", actor: "dev/ann", counted: 1, threshold: 1 }
        }
      ])
    })
  )

  it.effect("counts over all domains where a rule does not group by chain", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chains = [yield* chainFor("wide"), yield* chainFor("wide")]
      const actor = `dev/wide${counter}`
      const rule = ruleOf({ name: "wide", groupBy: ["actor"], match: { actors: [actor] }, threshold: 2 })
      yield* wrote(
        database,
        chains.map((chain) => ({ chain, actor, at: hourAgo(2) }))
      )
      yield* scanned([rule])
      const alerts = (yield* alertsOf(database, "platform")).filter((alert) => alert.rule === "wide")
      expect(alerts).toMatchObject([{ chain: "platform", actor, count: 2 }])
      expect(
        causesOf(alerts)
          .map(({ chain }) => chain)
          .sort()
      ).toEqual([...chains].sort())
    })
  )

  it.effect("explains an alert with each entry that it counted, and with no other, by whatever the rule matches", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("explained")
      const other = yield* chainFor("noise")
      const at = hourAgo(3)
      // each is counted by the first rule and, by one letter, not by the second one
      const cases = [
        [{ actions: ["thing.*"] }, { action: "thing.a" }, { action: "things" }],
        [{ actions: ["a_b*"] }, { action: "a_bc" }, { action: "axbc" }],
        [{ actions: ["50%"] }, { action: "50%" }, { action: "500" }],
        [{ actions: ["a\\*"] }, { action: "a\\b" }, { action: "a*b" }],
        [{ outcomes: ["failed"] }, { outcome: "failed" }, { outcome: "denied" }],
        [{ actors: ["svc/*"] }, { actor: "svc/one" }, { actor: "svcs/one" }],
        [{ exceptActors: ["svc/*", "dev/bob"] }, { actor: "dev/bo" }, { actor: "svc/one" }]
      ] as const
      const rules = cases.map(([match], index) =>
        ruleOf({ name: `explained_${index}`, groupBy: ["chain"], match: { chains: [chain], ...match }, threshold: 2 })
      )
      for (const [, counted, uncounted] of cases) {
        yield* wrote(database, [
          { chain, at, ...counted },
          { chain, at: at + 1_000, ...uncounted },
          { chain, at: at + 2_000, ...counted }
        ])
      }
      yield* scanned(rules, hourAgo(2))
      const alerts = yield* alertsOf(database, chain)
      expect(alerts.map(({ rule }) => rule)).toEqual(rules.map(({ name }) => name))
      for (const alert of alerts) {
        expect([alert.rule, causesOf([alert]).length]).toEqual([alert.rule, Math.min(Number(alert.count), 100)])
      }

      // more than an alert holds, newer, of the same actor, and elsewhere, at another time of day or not of the rule's
      const { org } = database
      yield* query(
        database.operatorUrl,
        "insert into platform.resource_status (kind, namespace, name, spec) values ('Organisation', 'velocity-system', $1, $2::text::jsonb)",
        [org, JSON.stringify({ org, workingHours: { ...hours, days: ["mon"], from: "00:00", to: "00:01" } })]
      )
      const untold = yield* chainIn(database, "awake", `${org}y`)
      const later = at + minutes(2)
      const crowd = (actor: string, noise: string) =>
        Array.from({ length: 120 }, (_, index) => ({ chain: noise, actor, at: later + 30_000 + index }))
      yield* wrote(database, [
        ...[0, 1, 2].map((second) => ({ chain, actor: "dev/crowd", at: later + second * 1_000 })),
        ...crowd("dev/crowd", other),
        { chain, lane: 2, actor: "dev/idle", at: later },
        ...crowd("dev/idle", untold)
      ])
      const crowded = ruleOf({ name: "crowded", groupBy: ["actor"], match: { chains: [chain], actors: ["dev/crowd"] } })
      const idle = ruleOf({
        name: "idle",
        groupBy: ["actor"],
        match: { actors: ["dev/idle"] },
        hours: "outside_working_hours",
        threshold: 1
      })
      yield* scanned([crowded, idle], hourAgo(2))
      const wide = (yield* alertsOf(database, "platform")).filter(({ rule }) => rule === "crowded" || rule === "idle")
      expect(wide).toMatchObject([
        { rule: "crowded", count: 3, explanation: [{ chain }, { chain }, { chain }] },
        { rule: "idle", count: 1, explanation: [{ chain, lane: 2 }] }
      ])
      yield* query(database.operatorUrl, "delete from platform.resource_status where name = $1", [org])
    })
  )

  it.effect("misses no commit that comes late, in another lane", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("late")
      const rule = ruleOf({ match: { actions: ["operator.test"], chains: [chain] }, threshold: 3, window: "1h" })
      const insert = `select platform.audit_insert('${chain}', 'operator/x', 'operator.test', 'ok', null, null, null, null, null, null, null)`
      yield* Effect.scoped(
        Effect.gen(function* () {
          const slow = yield* connect(database.operatorUrl)
          yield* slow.query("begin")
          yield* slow.query(insert)
          // later entries, committed and read before the first one
          yield* query(database.operatorUrl, insert)
          yield* query(database.operatorUrl, insert)
          yield* scanned([rule])
          yield* scanned([rule])
          expect(yield* alertsOf(database, chain)).toEqual([])
          yield* slow.query("commit")
        })
      )
      yield* scanned([rule])
      expect(yield* alertsOf(database, chain)).toMatchObject([{ count: 3 }])
      const lanes = yield* query(
        database.operatorUrl,
        "select count(*)::int4 as lanes from platform.anomaly_scan_state where chain = $1",
        [chain]
      )
      expect(lanes[0]?.lanes).toBeGreaterThan(1)
    })
  )

  it.effect("finds a window that a late entry fills, though its last minute was read long ago", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("filled")
      const rule = ruleOf({ match: { chains: [chain] }, threshold: 3 })
      const at = hourAgo(3)
      yield* wrote(
        database,
        [0, 1].map((second) => ({ chain, at: at + minutes(4) + second * 1_000 }))
      )
      yield* scanned([rule], at + minutes(5))
      yield* wrote(database, [{ chain, lane: 7, at: at - 1_000 }])
      yield* scanned([rule], at + minutes(6))
      expect(yield* alertsOf(database, chain)).toEqual([])
      yield* wrote(database, [{ chain, lane: 7, at }])
      yield* scanned([rule], at + minutes(7))
      expect(yield* alertsOf(database, chain)).toMatchObject([{ count: 3, window_to: new Date(at + minutes(5)) }])
    })
  )

  it.effect("lets two who read at a time read one after the other", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("reading")
      yield* scanned([])
      yield* wrote(database, [{ chain, at: hourAgo(2) }])
      const read =
        "select coalesce(sum(entries), 0)::int4 as entries from platform.anomaly_read(now(), 100) where chain = $1"
      yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* connect(database.operatorUrl)
          yield* first.query("begin")
          expect((yield* first.query(read, [chain])).rows).toEqual([{ entries: 1 }])
          const second = yield* Effect.forkChild(query(database.operatorUrl, read, [chain]), { startImmediately: true })
          const waiting = query(
            database.superuserUrl,
            "select count(*)::int4 as n from pg_stat_activity where datname = $1 and wait_event_type = 'Lock' and query like '%anomaly_read%'",
            [database.name]
          )
          yield* Effect.repeat(waiting, { until: ([row]) => row?.n === 1 })
          yield* first.query("commit")
          expect(yield* Fiber.join(second)).toEqual([{ entries: 0 }])
        })
      )
    })
  )

  it.effect("counts each entry once, killed before any of its statements", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const real = yield* Fence
      const chain = yield* chainFor("killed")
      const rule = ruleOf({ name: "killed", match: { chains: [chain] }, threshold: 3 })
      const killedAt = (last: number) => {
        let statements = 0
        const dying = (tx: Tx): Tx => ({
          ...tx,
          query: (asked) =>
            Effect.suspend(() => {
              statements += 1
              return statements > last ? Effect.fail(failure("Unavailable", new Error("killed"))) : tx.query(asked)
            })
        })
        const dead = Fence.of({
          ...real,
          transaction: (f) => real.transaction((tx) => f(dying(tx))),
          read: (f) => real.read((tx) => f(dying(tx)))
        })
        return Effect.provideService(scanned([rule], hourAgo(2)), Fence, dead)
      }
      const at = hourAgo(3)
      for (let last = 0; ; last++) {
        const actor = `dev/killed${last}`
        yield* wrote(
          database,
          [0, 1, 2].map((second) => ({ chain, actor, at: at + last * 10_000 + second * 1_000 }))
        )
        const exit = yield* Effect.exit(killedAt(last))
        yield* scanned([rule], hourAgo(2))
        const [bucket] = yield* query(
          database.operatorUrl,
          "select sum(count)::int4 as count from platform.anomaly_buckets where chain = $1 and actor = $2",
          [chain, actor]
        )
        expect([last, bucket?.count]).toEqual([last, 3])
        const found = yield* query(
          database.superuserUrl,
          `select (select count(*)::int4 from platform.anomaly_alerts a where a.chain = $1 and a.actor = $2) as alerts,
             (select count(*)::int4 from platform.anomaly_deliveries d join platform.anomaly_alerts a on a.id = d.alert_id where a.chain = $1 and a.actor = $2) as deliveries,
             (select count(*)::int4 from platform.audit_log l where l.chain = $1 and l.action = 'operator.anomaly' and l.payload ->> 'actor' = $2) as entries`,
          [chain, actor]
        )
        expect([last, found]).toEqual([last, [{ alerts: 1, deliveries: 1, entries: 1 }]])
        if (Exit.isSuccess(exit)) {
          expect(last).toBeGreaterThan(8)
          break
        }
      }
      const [left] = yield* query(
        database.operatorUrl,
        "select unverified_from is null as verified from platform.anomaly_scanner"
      )
      expect(left).toEqual({ verified: true })
    })
  )

  it.effect("counts each entry once when two scan at a time, and not at all for one whose term is over", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("two")
      const rule = ruleOf({ name: "two", match: { chains: [chain] }, threshold: 50 })
      const at = hourAgo(3)
      yield* wrote(
        database,
        Array.from({ length: 50 }, (_, index) => ({ chain, lane: index % 5, at: at + index * 10 }))
      )
      yield* Effect.all([scanned([rule], hourAgo(2)), scanned([rule], hourAgo(2)), scanned([rule], hourAgo(2))], {
        concurrency: "unbounded"
      })
      expect(yield* alertsOf(database, chain)).toMatchObject([{ count: 50 }])
      const sum = query(
        database.operatorUrl,
        "select sum(count)::int4 as count from platform.anomaly_buckets where chain = $1",
        [chain]
      )
      expect(yield* sum).toEqual([{ count: 50 }])
      // another operator takes over
      const old = yield* Fence
      const sql = yield* OperatorSql
      const next = yield* Layer.build(
        Fence.layerOf({ holder: "another", source: "folder" }).pipe(Layer.provide(Layer.succeed(OperatorSql, sql)))
      )
      yield* wrote(database, [{ chain, at: at + minutes(1) }])
      const refused = yield* Effect.flip(Effect.provideService(scanned([rule], hourAgo(2)), Fence, old))
      expect(refused._tag).toBe("Superseded")
      expect(yield* sum).toEqual([{ count: 50 }])
      yield* Effect.provideContext(scanned([rule], hourAgo(2)), next)
      expect(yield* sum).toEqual([{ count: 51 }])
      yield* query(database.superuserUrl, "update platform.operator_term set epoch = $1::int8", [old.epoch])
    })
  )

  it.effect("begins anew with a rule that was changed, and forgets what no window reaches", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("changed")
      const match = { chains: [chain] }
      yield* wrote(database, [{ chain, at: hourAgo(3) }])
      yield* scanned([ruleOf({ match, threshold: 2 })], hourAgo(2))
      yield* wrote(database, [{ chain, at: hourAgo(3) + 1_000 }])
      yield* scanned([ruleOf({ match, threshold: 2, title: "Another" })], hourAgo(2))
      expect(yield* alertsOf(database, chain)).toEqual([])
      const kept = query(
        database.operatorUrl,
        "select count(*)::int4 as n from platform.anomaly_buckets where chain = $1",
        [chain]
      )
      // the first rule's count is gone with it; the second's goes when five minutes and an hour are over
      expect(yield* kept).toEqual([{ n: 1 }])
      yield* scanned([ruleOf({ match, threshold: 2, title: "Another" })], hourAgo(3) + minutes(65))
      expect(yield* kept).toEqual([{ n: 1 }])
      yield* scanned([ruleOf({ match, threshold: 2, title: "Another" })], hourAgo(3) + minutes(66))
      expect(yield* kept).toEqual([{ n: 0 }])
    })
  )

  it.effect("reads any number of entries in batches, and finds the same", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const chain = yield* chainFor("many")
      const rule = ruleOf({ name: "many", match: { actions: ["operator.many"] }, threshold: 44_999, window: "2h" })
      yield* query(
        database.operatorUrl,
        `do $$ begin for i in 1 .. 45000 loop
           perform platform.audit_insert('${chain}', 'operator/x', 'operator.many', 'ok', null, null, null, null, null, null, null);
         end loop; end $$`
      )
      const { entries } = yield* scanned([rule])
      expect(entries).toBeGreaterThanOrEqual(45_000)
      const alerts = yield* alertsOf(database, chain)
      expect(alerts).toMatchObject([{ count: 45_000 }])
      expect(causesOf(alerts).length).toBe(100)
    })
  )

  it.effect("chain_broken tells what was altered among the new entries, and nothing of a sound log", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const rule = one("chain_broken")
      const sound = yield* chainFor("sound")
      const altered = yield* chainFor("altered")
      yield* wrote(
        database,
        [sound, altered].map((chain) => ({ chain, at: hourAgo(2) }))
      )
      yield* scanned([rule])
      const [id] = yield* wrote(
        database,
        [sound, altered].map((chain) => ({ chain, at: hourAgo(2) + 1_000 }))
      ).pipe(Effect.map((ids) => ids.slice(1)))
      yield* query(
        database.superuserUrl,
        `do $$ begin alter table platform.audit_log disable trigger all;
           update platform.audit_log set actor = 'dev/nobody' where id = '${id}';
           alter table platform.audit_log enable always trigger refuse_row; end $$`
      )
      yield* scanned([rule])
      expect(yield* alertsOf(database, sound)).toEqual([])
      expect(yield* alertsOf(database, altered)).toMatchObject([
        {
          rule: "chain_broken",
          severity: "critical",
          count: 1,
          explanation: [{ id, problem: "hash_mismatch", seq: "2" }]
        }
      ])
    })
  )

  it.effect("chain_broken tells of a lane that lost or changed the entry read last, once, and reads on behind it", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const rules = [one("chain_broken"), ruleOf({ name: "behind", threshold: 1 })]
      const cut = yield* chainFor("cut")
      const turned = yield* chainFor("turned")
      const at = hourAgo(2)
      yield* wrote(
        database,
        [cut, turned].flatMap((chain) => [0, 1, 2].map((second) => ({ chain, at: at + second * 1_000 })))
      )
      yield* scanned([one("chain_broken")])
      const attack = (sql: string) =>
        query(
          database.superuserUrl,
          `do $$ begin alter table platform.audit_log disable trigger all; ${sql};
             alter table platform.audit_log enable always trigger refuse_row; end $$`
        )
      yield* attack(`delete from platform.audit_log where chain = '${cut}' and seq > 1`)
      // with a hash of its own, so that the entry alone looks sound
      yield* attack(`update platform.audit_log a set actor = 'dev/x', hash = sha256('\\x00'::bytea || record_send(row(a.chain, a.lane, a.seq, a.occurred_at, a.id, 'dev/x'::text,
        a.action, a.outcome, a.schema_path, a.entity_id, a.payload, a.request_id, a.reason, a.ticket_ref, a.fail_modes, a.db_login, a.db_role, a.prev_hash)))
        where chain = '${turned}' and seq = 3`)
      expect((yield* scanned(rules)).alerts.length).toBe(2)
      expect(yield* alertsOf(database, cut)).toMatchObject([
        { rule: "chain_broken", explanation: [{ lane: 0, seq: "3", problem: "tail_missing" }] }
      ])
      expect(yield* alertsOf(database, turned)).toMatchObject([
        { rule: "chain_broken", explanation: [{ lane: 0, seq: "3", problem: "rewritten" }] }
      ])
      // a sequence number that was read once counts again where another entry bears it
      yield* wrote(database, [{ chain: cut, actor: "dev/second", at: at + minutes(5) }])
      yield* scanned(rules)
      expect((yield* alertsOf(database, cut)).map(({ actor, rule }) => [rule, actor])).toContainEqual([
        "behind",
        "dev/second"
      ])
    })
  )

  it.effect(
    "adds to the hour's alert what it finds later, tells it anew and opens it again, and the same not twice",
    () =>
      Effect.gen(function* () {
        const database = yield* Database
        const rule = one("chain_broken")
        const chain = yield* chainFor("twice")
        const at = hourAgo(2)
        const now = hourAgo(1)
        yield* wrote(
          database,
          [5, 6].flatMap((lane) => [0, 1, 2].map((second) => ({ chain, lane, at: at + second * 1_000 })))
        )
        yield* scanned([rule], now)
        const attack = (sql: string) =>
          query(
            database.superuserUrl,
            `do $$ begin alter table platform.audit_log disable trigger all; ${sql};
             alter table platform.audit_log enable always trigger refuse_row; end $$`
          )
        // as the hourly verification asks for what it found to be told
        const verifyAgain = query(
          database.operatorUrl,
          "update platform.anomaly_scanner set unverified_from = $1::timestamptz, unverified_to = $1::timestamptz",
          [new Date(at + 1_000).toISOString()]
        )
        yield* attack(`update platform.audit_log set actor = 'dev/x' where chain = '${chain}' and lane = 5 and seq = 2`)
        yield* verifyAgain
        const [first] = (yield* scanned([rule], now)).alerts
        const told = Effect.map(
          query(
            database.operatorUrl,
            `select a.webhook_id, a.acknowledged_by, d.attempts, d.delivered_at is not null as delivered, d.since
           from platform.anomaly_alerts a join platform.anomaly_deliveries d on d.alert_id = a.id where a.id = $1::uuid`,
            [first]
          ),
          ([row]) => row
        )
        const before = yield* told
        yield* query(
          database.operatorUrl,
          "update platform.anomaly_deliveries set attempts = 1, delivered_at = now() where alert_id = $1::uuid",
          [first]
        )
        yield* query(
          database.superuserUrl,
          "update platform.anomaly_alerts set acknowledged_by = 'ops/eve', acknowledged_at = now() where id = $1::uuid",
          [first]
        )
        // the same again says nothing new
        yield* verifyAgain
        expect((yield* scanned([rule], now)).alerts).toEqual([])
        expect(yield* told).toMatchObject({ delivered: true, acknowledged_by: "ops/eve" })

        yield* attack(`delete from platform.audit_log where chain = '${chain}' and lane = 6 and seq = 3`)
        const later = now + minutes(9)
        expect((yield* scanned([rule], later)).alerts).toEqual([first])
        expect(yield* alertsOf(database, chain)).toMatchObject([
          {
            id: first,
            count: 2,
            explanation: [
              { lane: 5, seq: "2", problem: "hash_mismatch" },
              { lane: 6, seq: "3", problem: "tail_missing" }
            ]
          }
        ])
        const after = yield* told
        expect(after).toMatchObject({ attempts: 0, delivered: false, acknowledged_by: null, since: new Date(later) })
        expect(after?.webhook_id).not.toBe(before?.webhook_id)
        const entries = yield* query(
          database.superuserUrl,
          "select entity_id::text as id, payload ->> 'counted' as counted from platform.audit_log where chain = $1 and action = 'operator.anomaly'",
          [chain]
        )
        expect(entries).toEqual([
          { id: first, counted: "1" },
          { id: first, counted: "1" }
        ])
        expect((yield* scanned([rule], later)).alerts).toEqual([])
      })
  )

  it.effect("verifies what it read by so many entries at a time, however many a minute has", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const fence = yield* Fence
      const rule = one("chain_broken")
      const chain = yield* chainFor("sliced")
      const at = hourAgo(2)
      yield* scanned([rule])
      // several of one moment too
      yield* wrote(
        database,
        [0, 0, 0, 1, 2, 3, 4].map((millis, lane) => ({ chain, lane, at: at + minutes(30) + millis }))
      )
      yield* query(
        database.superuserUrl,
        `do $$ begin alter table platform.audit_log disable trigger all;
           update platform.audit_log set actor = 'dev/x' where chain = '${chain}' and lane in (1, 6);
           alter table platform.audit_log enable always trigger refuse_row; end $$`
      )
      yield* query(
        database.operatorUrl,
        "update platform.anomaly_scanner set unverified_from = $1::timestamptz, unverified_to = $2::timestamptz",
        [new Date(at + minutes(30)).toISOString(), new Date(at + minutes(30) + 4).toISOString()]
      )
      const slice = fence.transaction((tx) => verify(tx, { rules: [rule], endpoints: [], now: hourAgo(1) }, 2))
      let slices = 0
      while ((yield* slice) !== undefined) slices += 1
      expect(slices).toBe(3)
      expect(yield* alertsOf(database, chain)).toMatchObject([{ count: 2, explanation: [{ lane: 1 }, { lane: 6 }] }])
    })
  )

  it.effect("fills an alert with a hundred entries, and leaves the rest to whoever looks", () =>
    Effect.gen(function* () {
      const { operatorUrl, ...database } = yield* Database
      const chain = yield* chainIn({ operatorUrl, ...database }, "full")
      const causes = (from: number, count: number) =>
        Array.from({ length: count }, (_, index) => ({ chain, lane: 0, seq: String(from + index), problem: "seq_gap" }))
      const raise = (explanation: ReadonlyArray<unknown>, counted = explanation.length) =>
        Effect.map(
          query(operatorUrl, "select platform.anomaly_raise($1::text::jsonb, '{}', now())::text as id", [
            JSON.stringify({
              rule: "r",
              title: "t",
              severity: "critical",
              source: "verification",
              chain,
              actor: "",
              address: "",
              at: "2026-01-01T00:00:00Z",
              window_from: "2026-01-01T00:00:00Z",
              window_to: "2026-01-01T00:01:00Z",
              counted,
              threshold: 1,
              explanation
            })
          ]),
          ([row]) => row?.id
        )
      const state = Effect.map(alertsOf({ operatorUrl, ...database }, chain), (alerts) => [
        Number(alerts[0]?.count),
        causesOf(alerts).length
      ])
      const id = yield* raise(causes(1, 60))
      expect(yield* raise(causes(31, 60))).toBe(id)
      expect(yield* state).toEqual([90, 90])
      expect(yield* raise(causes(91, 100), 500)).toBe(id)
      expect(yield* state).toEqual([590, 100])
      expect(yield* raise(causes(1_000, 10))).toBe(null)
      expect(yield* state).toEqual([590, 100])
    })
  )
})

plain.effect("scans from a minute after the start, and every minute, whatever happened to the one before", () =>
  Effect.gen(function* () {
    const scans: Array<number> = []
    let over = false
    const down = Layer.succeed(Fence, {
      epoch: "1",
      source: "folder",
      transaction: () =>
        Effect.suspend((): Effect.Effect<never, DatabaseFailure | Superseded> => {
          scans.push(scans.length)
          return Effect.fail(over ? new Superseded({ message: "over" }) : failure("Unavailable", new Error("down")))
        }),
      alone: () => Effect.die("nothing is alone"),
      long: () => Effect.die("nothing is long"),
      read: () => Effect.die("nothing is read before")
    })
    yield* Layer.build(
      AnomalyScanner.layer({ rules: builtinRules, endpoints: [], giveUp: 1 }).pipe(Layer.provide(down))
    )
    yield* TestClock.adjust("59 seconds")
    expect(scans.length).toBe(0)
    yield* TestClock.adjust("1 second")
    expect(scans.length).toBe(1)
    yield* TestClock.adjust("10 minutes")
    expect(scans.length).toBe(11)
    over = true
    yield* TestClock.adjust("10 minutes")
    expect(scans.length).toBe(12)
  })
)
