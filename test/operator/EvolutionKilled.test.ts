/**
 * kill -9 of a real operator: in the middle of every step of a plan that has every phase, after its statements and before its
 * COMMIT; and again between that COMMIT and the step after it. What comes out in the end is what an undisturbed run of the
 * same plan left, each step is in the log once, and nothing is left over.
 *
 * A step is held where it records what it has done, by an advisory lock behind a trigger of the test, and the step after it at
 * the lock of its domain, for which the test has queued before. So it is known where the process is when it is killed.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer, Schedule } from "effect"
import { describe, expect } from "vitest"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Catalogue from "../../src/provisioning/table/Catalogue.ts"
import { type Running, start } from "../cli/Run.ts"
import { configOf, connect, freshDatabase, query, type TestDatabase } from "../support/Database.ts"

const rows = 2_500

// every phase, and as few steps as that takes: each costs two operators their lives
const before = [
  { name: "n", type: "integer", indexed: true, required: true },
  { name: "kept", type: "string" },
  { name: "gone", type: "string" },
  { name: "old", type: "string", maxLength: 20 }
]
const after = [
  { name: "n", type: "number", precision: 20, scale: 2, indexed: true, required: true },
  { name: "kept", type: "string", unique: true },
  { name: "now", type: "string", maxLength: 10, renamedFrom: ["old"] },
  { name: "made", type: "string", required: true, backfill: "self.kept + '!'" },
  { name: "given", type: "integer", required: true, default: 7 }
]

const definition = (org: string, domain: string, fields: unknown, approved?: string) =>
  JSON.stringify({
    apiVersion: "velocity.sh/v1",
    kind: "SchemaDefinition",
    metadata: {
      name: "thing",
      namespace: `${org}-shop-${domain}`,
      ...(approved === undefined
        ? {}
        : { annotations: { "velocity.sh/approve-plan": approved, "velocity.sh/approved-by": "tests/approver" } })
    },
    spec: {
      org,
      app: "shop",
      domain,
      object: "thing",
      version: "v1",
      fields,
      access: { roles: [{ role: "buyer", operations: ["create", "read", "update"] }] }
    }
  })

const parents = (org: string) =>
  [
    { kind: "Organisation", metadata: { name: org }, spec: { org } },
    { kind: "Application", metadata: { name: "shop", namespace: org }, spec: { org, app: "shop" } },
    ...["eu", "us"].map((domain) => ({
      kind: "Domain",
      metadata: { name: domain, namespace: `${org}-shop` },
      spec: { org, app: "shop", domain }
    }))
  ]
    .map((one) => JSON.stringify({ apiVersion: "velocity.sh/v1", ...one }))
    .join("\n---\n")

/** Where a step records what it has done, it waits for a lock of this class: its position, and how many batches it has done. */
const held = 4_711
const keyOf = (position: number, batches = 0) => position * 1_000 + batches
const begun = 999
const finish = 999_999

const holdSql = [
  `create function public.test_hold() returns trigger language plpgsql set lock_timeout = 0 as $$
begin
  if tg_table_name = 'plans' then
    if new.state = 'Done' then perform pg_advisory_xact_lock_shared(${held}, ${finish}); end if;
    return new;
  end if;
  perform pg_advisory_xact_lock_shared(${held}, new.position * 1000 + case
    when new.state = 'Done' then 0 when new.is_concurrent then ${begun} else ceil(new.rows_done / 1000.0)::int4 end);
  return new;
end $$`,
  "create trigger test_hold before update on platform.plan_steps for each row execute function public.test_hold()",
  "create trigger test_hold before update on platform.plans for each row execute function public.test_hold()"
]
const letGoSql = [
  "drop trigger test_hold on platform.plan_steps",
  "drop trigger test_hold on platform.plans",
  "drop function public.test_hold()"
]

interface StepRow {
  readonly position: number
  readonly phase: string
  readonly does: string
  readonly concurrent: boolean
  readonly batched: boolean
  readonly batches: number
}

/** The places at which a plan is held: of each transaction one, of steps in batches and of builds more; the last batch ends its step. */
const placesOf = (steps: ReadonlyArray<StepRow>) => [
  ...steps
    .filter((one, index) => one.phase !== "switch" || steps.findIndex((other) => other.phase === "switch") === index)
    .flatMap((one) => [
      ...(one.batched ? Array.from({ length: one.batches - 1 }, (_, n) => keyOf(one.position, n + 1)) : []),
      ...(one.concurrent ? [keyOf(one.position, begun)] : []),
      keyOf(one.position)
    ]),
  finish
]

const until = <A, E>(look: Effect.Effect<A, E>, isSo: (found: A) => boolean) =>
  Effect.repeat(look, { until: isSo, schedule: Schedule.spaced("10 millis") })

const withFolder = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-killed-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

/** What a plan has left: catalogue, rows, and its entries in the log. */
const leftBy = (database: TestDatabase, domain: string) =>
  Effect.gen(function* () {
    const schema = `${database.org}_shop_${domain}`
    const path = `${database.org}/shop/${domain}/thing/v1`
    const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
    const sql = yield* OperatorSql
    const catalogue = yield* sql.transaction((tx) => Catalogue.read(tx, schema, "thing_v1"), { end: "read" })
    const [ids] = yield* look(
      "select id::text as id, storage_id::text as storage, grants::text as grants from platform.schema_defs where path = $1",
      [path]
    )
    const named = (value: unknown) =>
      JSON.parse(JSON.stringify(value).replaceAll(schema, "SCHEMA").replaceAll(path, "PATH")) as unknown
    // policies and view name the definition by its numbers
    const numbers = new RegExp(`\\b(?:${ids?.id}|${ids?.storage})\\b`, "gu")
    const { policies, view, ...others } = catalogue ?? { policies: undefined, view: undefined }
    const access = JSON.parse(JSON.stringify({ policies, view }).replaceAll(numbers, "N")) as unknown
    const records = yield* look(`select t::text as record from ${schema}.thing_v1 t order by id`)
    const entries = yield* look(
      `select action, coalesce(payload ->> 'step', '') as step, payload -> 'does' as does, payload ->> 'rows' as rows, outcome, count(*)::int4 as times
       from platform.audit_log where schema_path = $1 and action like 'operator.plan.%' group by 1, 2, 3, 4, 5 order by 1, 2`,
      [path]
    )
    const plans = yield* look(
      "select state, approved_by, message from platform.plans where path = $1 order by created_at",
      [path]
    )
    const steps = yield* look(
      `select s.position, s.phase, s.does, s.state, s.rows_done::int4 as rows from platform.plan_steps s
       join platform.plans p on p.id = s.plan_id where p.path = $1 order by 1`,
      [path]
    )
    return { catalogue: named({ ...others, access }), records, entries, plans, steps, grants: ids?.grants }
  }).pipe(Effect.provide(OperatorSql.layer.pipe(Layer.provide(ConfigProvider.layer(configOf(database))))))

describe("kill -9 of an operator that carries a plan out", () => {
  it.live(
    "in the middle of every step, and between every step and the next: the end is that of an undisturbed run",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const database = yield* freshDatabase
          const { org } = database
          const folder = yield* withFolder
          const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
          const write = (name: string, text: string) => Effect.promise(() => writeFile(join(folder, name), text))
          const path = (domain: string) => `${org}/shop/${domain}/thing/v1`
          let running: Running | undefined
          const operator = Effect.sync(() => {
            running = start(["operator", "--manifests", folder], {
              VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl
            })
          })
          const end = (signal: NodeJS.Signals) =>
            Effect.promise(async () => {
              running?.process.kill(signal)
              await running?.ended
              running = undefined
            })
          yield* Effect.addFinalizer(() => end("SIGKILL"))
          // what a killed process had open is at its end when its answer finds nobody
          const sessionsGone = until(
            look(
              "select pid from pg_stat_activity where usename = 'velocity_operator' and datname = current_database()"
            ),
            (all) => all.length === 0
          )
          const planOf = (domain: string, state: string) =>
            Effect.map(
              until(
                look("select id::text as id, plan_hash as hash from platform.plans where path = $1 and state = $2", [
                  path(domain),
                  state
                ]),
                (found) => found.length > 0
              ),
              (found) => ({ id: String(found[0]?.id), hash: String(found[0]?.hash) })
            )

          // two domains, alike but for their names
          yield* write("parents.yaml", parents(org))
          for (const domain of ["eu", "us"]) yield* write(`${domain}.yaml`, definition(org, domain, before))
          yield* operator
          yield* until(
            look("select path from platform.schema_defs where serving is not null"),
            (found) => found.length === 2
          )
          for (const domain of ["eu", "us"]) {
            yield* look(
              `insert into ${org}_shop_${domain}.thing_v1 (id, created_at, created_by, updated_at, updated_by, n, kept, gone, old)
               select ('00000000-0000-7000-8000-' || lpad(i::text, 12, '0'))::uuid, '2026-01-01', 'x', '2026-01-01', 'x',
                 i, 'k' || i, 'g', 'o' || i from generate_series(1, ${rows}) i`
            )
          }

          // one that nobody disturbs
          yield* write("eu.yaml", definition(org, "eu", after))
          yield* write("eu.yaml", definition(org, "eu", after, (yield* planOf("eu", "Waiting")).hash))
          yield* planOf("eu", "Done")
          // the other one waits for its approval when its operator is gone
          yield* write("us.yaml", definition(org, "us", after))
          const plan = yield* planOf("us", "Waiting")
          yield* end("SIGTERM")
          for (const sql of holdSql) yield* look(sql)
          yield* write("us.yaml", definition(org, "us", after, plan.hash))

          const found = yield* look(
            `select position::int4 as position, phase, does, is_concurrent as concurrent, batched,
               ceil((select rows_done from platform.plan_steps d where d.plan_id = $2::uuid and d.position = s.position) / 1000.0)::int4 as batches
             from platform.plan_steps s where plan_id = $1::uuid order by position`,
            [plan.id, (yield* planOf("eu", "Done")).id]
          )
          const steps = found as unknown as ReadonlyArray<StepRow>
          expect([...new Set(steps.map((one) => one.phase))]).toEqual([
            "expand",
            "backfill",
            "build",
            "switch",
            "validate"
          ])
          expect(steps.filter((one) => one.batches > 1).length).toBeGreaterThan(0)

          const holder = yield* connect(database.superuserUrl)
          const queued = yield* connect(database.superuserUrl)
          const domainKey = "hashtextextended($1, 0)"
          const domainLock = `velocity/provision/${org}/shop/us`
          const waitsAt = (key: number) =>
            until(
              look(
                "select pid::int4 as pid from pg_locks where locktype = 'advisory' and classid = $1::int4::oid and objid = $2::int4::oid and not granted",
                [held, key]
              ),
              (all) => all.length > 0
            )
          const [own] = (yield* queued.query("select pg_backend_pid()::int4 as pid")).rows
          /** Whether the test (true) or an operator waits for the lock of the domain. */
          const queues = (itself: boolean) =>
            until(
              look(
                `select pid from pg_locks where locktype = 'advisory' and not granted and (pid = $2) = $3
                   and ((classid::int8 << 32) | objid::int8) = hashtextextended($1, 0)`,
                [domainLock, own?.pid, itself]
              ),
              (all) => all.length > 0
            )
          const doneAt = (position: number) =>
            Effect.map(
              look("select state from platform.plan_steps where plan_id = $1::uuid and position = $2", [
                plan.id,
                position
              ]),
              (all) => all[0]?.state === "Done"
            )
          let kills = 0
          const kill = Effect.andThen(
            end("SIGKILL"),
            Effect.sync(() => {
              kills += 1
            })
          )
          const building = look(
            `select a.pid::int4 as pid, p.phase from pg_stat_progress_create_index p join pg_stat_activity a on a.pid = p.pid
             where a.datname = current_database() and p.phase like 'waiting%'`
          )

          let builds = 0
          for (const key of placesOf(steps)) {
            const hold = holder.query("select pg_advisory_lock($1, $2)::text as held", [held, key])
            const release = holder.query("select pg_advisory_unlock($1, $2)::text as held", [held, key])
            const step = steps.find((one) => one.position === Math.floor(key / 1_000))
            // after its statements, before its COMMIT
            yield* hold
            yield* operator
            yield* waitsAt(key)
            yield* kill
            yield* release
            yield* sessionsGone
            if (step !== undefined) expect([step.does, yield* doneAt(step.position)]).toEqual([step.does, false])
            // after its COMMIT, before anything of the next
            yield* hold
            yield* operator
            yield* waitsAt(key)
            const passed = yield* Effect.forkScoped(
              queued.query(`select pg_advisory_lock(${domainKey})::text as held`, [domainLock])
            )
            yield* queues(true)
            // a constraint is proved while no snapshot waits for it: there the kill comes between the proof and its record
            const builder = step?.phase === "build" && key === keyOf(step.position, begun)
            if (builder) {
              // a snapshot for which the build waits
              const snapshot = yield* connect(database.superuserUrl)
              yield* snapshot.query("begin isolation level repeatable read")
              yield* snapshot.query(`select count(*) from ${org}_shop_us.thing_v1`)
              yield* release
              const [session] = yield* until(building, (all) => all.length > 0)
              yield* kill
              builds += 1
              // the session that is left behind is ended too, or comes to its end
              if (builds % 2 === 0) yield* look(`select pg_terminate_backend(${session?.pid})`)
              yield* snapshot.query("rollback")
            } else {
              yield* release
              if (key !== finish) yield* queues(false)
              else yield* planOf("us", "Done")
              yield* kill
              const isLast = key === keyOf(step?.position ?? 0)
              if (step !== undefined) expect([step.does, yield* doneAt(step.position)]).toEqual([step.does, isLast])
            }
            yield* Fiber.join(passed)
            yield* queued.query(`select pg_advisory_unlock(${domainKey})::text as held`, [domainLock])
            yield* sessionsGone
          }
          yield* operator
          yield* planOf("us", "Done")
          yield* end("SIGTERM")
          yield* sessionsGone
          for (const sql of letGoSql) yield* look(sql)
          console.log(`${kills} kills over ${steps.length} steps`)

          const [undisturbed, killed] = [yield* leftBy(database, "eu"), yield* leftBy(database, "us")]
          expect(killed).toEqual(undisturbed)
          expect(killed.entries.every((one) => one.times === 1)).toBe(true)
          expect(killed.records.length).toBe(rows)
          expect(killed.steps.every((one) => one.state === "Done")).toBe(true)
          const [leftOver] = yield* look(
            `select (select count(*) from pg_index where not indisvalid)::int4 as invalid,
               (select count(*) from pg_trigger where tgname like 'velocity_copy%')::int4 as triggers,
               (select count(*) from pg_locks l join pg_stat_activity a using (pid) where l.locktype = 'advisory' and a.usename = 'velocity_operator' and a.datname = current_database())::int4 as locks,
               (select count(*) from pg_attribute a join pg_class c on c.oid = a.attrelid where not a.attisdropped and a.attname like '\\_n\\_%' and c.relname = 'thing_v1')::int4 as columns`
          )
          expect(leftOver).toEqual({ invalid: 0, triggers: 0, locks: 0, columns: 0 })
        })
      ),
    { timeout: 600_000 }
  )
})
