/**
 * Months that are past what is kept, over eighteen of them: what may go goes, whatever fails meanwhile; what may not stays,
 * for a reason that is told; and what is left is verified as before.
 *
 * The clock is the retention's: shortened by a month at a time, which is a superuser's to do, the same months fall due as
 * would by waiting. `MonthsPass.test.ts` waits, by a clock that it moves.
 */
import * as Fs from "node:fs/promises"
import * as Os from "node:os"
import * as Path from "node:path"
import { layer, it as plain } from "@effect/vitest"
import { ConfigProvider, Effect, Fiber, Layer } from "effect"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import * as Sealer from "../../src/operator/evidence/Sealer.ts"
import { exportMonth, readBack } from "../../src/operator/retention/PartitionExport.ts"
import * as PartitionManager from "../../src/operator/retention/PartitionManager.ts"
import * as Retirement from "../../src/operator/retention/Retirement.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { failure, sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { provisionAtlas } from "../support/Atlas.ts"
import { connect, Database, query, type TestDatabase, withDatabase } from "../support/Database.ts"
import { makeMonths, monthOf, writeEvent, writePast } from "../support/Months.ts"
import { makeKeys } from "../support/Sealing.ts"

const services = Fence.layerOf({ holder: "test", source: "folder" }).pipe(Layer.provideMerge(OperatorSql.layer))

const settings = (disposition: Retirement.Disposition, folder?: string): Retirement.RetirementSettings => ({
  audit: undefined,
  history: undefined,
  disposition,
  folder
})

const folder = Effect.acquireRelease(
  Effect.promise(() => Fs.mkdtemp(Path.join(Os.tmpdir(), "velocity-export-"))),
  (made) => Effect.promise(() => Fs.rm(made, { recursive: true, force: true }))
)

const retention = (database: TestDatabase, audit: number | null, event: number | null) =>
  query(database.superuserUrl, "select audit_months from platform.retention_set($1::int4, $2::int4)", [audit, event])

/** What verification finds in all that is left. */
const problems = (database: TestDatabase) =>
  Effect.map(
    query(
      database.superuserUrl,
      "select chain, lane::int4, seq::int4, problem from platform.audit_verify_window(null, null)"
    ),
    (rows) => rows
  )

const attached = (database: TestDatabase, log: string) =>
  Effect.map(
    query(
      database.superuserUrl,
      `select c.relname::text as name from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = 'platform.${log}'::regclass order by 1`
    ),
    (rows) => rows.map((row) => String(row.name))
  )

const refused = (outcomes: ReadonlyArray<Retirement.Outcome>) =>
  outcomes.map((outcome) => (outcome._tag === "Refused" ? `${outcome.name} ${outcome.code}` : outcome.name))

/** A statement of the operator's own, in a transaction of its term; the code it fails with, or "done". */
const asOperator = (sql: string, params: ReadonlyArray<unknown> = []) =>
  Effect.gen(function* () {
    const { operatorUrl } = yield* Database
    return yield* query(operatorUrl, sql, params).pipe(
      Effect.as("done"),
      Effect.catch((error) => Effect.succeed(sqlStateOf(error)))
    )
  })

/** The sealer, whose rounds bring the tree up to what the log has. */
const sealing = Effect.gen(function* () {
  const keys = yield* makeKeys()
  const sealer = yield* Sealer.make({ publishDir: undefined, witnesses: [], outside: undefined })
  return sealer.round(keys)
})

/** Changes the log as a superuser, with its triggers out of the way; answers how to put back what was. */
const tampering = (database: TestDatabase, table: string, sql: string) =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* connect(database.superuserUrl)
      yield* connection.query("begin")
      yield* connection.query(`alter table ${table} disable trigger all`)
      yield* connection.query(sql)
      yield* connection.query(`alter table ${table} enable trigger all`)
      yield* connection.query(
        `alter table ${table} enable always trigger refuse_row, enable always trigger refuse_truncate`
      )
      yield* connection.query("commit")
    })
  )

/** Until the operator waits for a lock in a call of a function. */
const waitsFor = (database: TestDatabase, name: string) =>
  Effect.repeat(
    query(
      database.superuserUrl,
      "select 1 from pg_stat_activity where usename = 'velocity_operator' and wait_event_type = 'Lock' and query like $1 and datname = current_database()",
      [`%${name}%`]
    ),
    { until: (rows) => rows.length > 0 }
  )

const retire = (name: string, disposition = "drop") =>
  asOperator("select platform.partition_retire($1, $2, null)", [name, disposition])

layer(withDatabase(services), { excludeTestServices: true })("a month stays", (it) => {
  it.effect("for each of the reasons, by the code that is named for it", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
      const chain = `${database.org}/geo/other`
      yield* makeMonths(database, 3)
      yield* writePast(database, chain, { ago: 3, lanes: [0, 7], each: 3 })
      const oldest = yield* monthOf(database, "audit_log", 3)
      const next = yield* monthOf(database, "audit_log", 2)
      const seal = yield* sealing
      const sealMonth = asOperator("select platform.partition_seal($1)", [oldest])

      // nobody has said how long months are kept, and then: longer than this
      expect(yield* retire(oldest)).toBe("VL060")
      expect(yield* asOperator("select * from platform.retention_set(3, 3)")).toBe("done")
      expect(yield* retire(oldest)).toBe("VL060")
      // longer at any time, shorter not
      expect(yield* asOperator("select * from platform.retention_set(4, null)")).toBe("done")
      expect(yield* asOperator("select * from platform.retention_set(3, null)")).toBe("VL067")
      expect(yield* asOperator("select * from platform.retention_set(null, 2)")).toBe("VL067")
      expect(yield* asOperator("update platform.retention set audit_months = 1")).toBe("42501")
      yield* retention(database, 1, 1)

      expect(yield* retire(next)).toBe("VL061")
      expect(yield* retire("audit_log")).toBe("VL012")
      expect(yield* retire("domains")).toBe("VL012")
      expect(yield* retire(oldest, "burn")).toBe("VL012")
      expect(yield* retire(oldest)).toBe("VL063")
      expect(yield* sealMonth).toBe("VL065")
      yield* seal
      expect(yield* sealMonth).toBe("done")
      expect(yield* sealMonth).toBe("done")
      // the seal is an entry, and has to be a leaf as the others are
      expect(yield* retire(oldest)).toBe("VL065")
      yield* seal

      expect(yield* asOperator("select platform.hold_place($1, 'case 7', 'ops/eve')", [chain])).toBe("done")
      expect(yield* retire(oldest)).toBe("VL062")
      expect(yield* asOperator("select platform.hold_place($1, '', 'ops/eve')", [chain])).toBe("VL012")
      expect(yield* asOperator("select platform.hold_place('no/such/chain', 'x', 'ops/eve')")).toBe("VL003")
      expect(yield* asOperator("delete from platform.legal_holds")).toBe("42501")
      const [hold] = yield* query(database.superuserUrl, "select id::text as id from platform.legal_holds")
      expect(yield* asOperator("select platform.hold_lift($1::uuid, 'closed', 'ops/eve')", [hold?.id])).toBe("done")
      const said = yield* query(
        database.superuserUrl,
        "select action, actor, reason from platform.audit_log where chain = $1 and action like 'operator.hold.%' order by occurred_at",
        [chain]
      )
      expect(said).toEqual([
        { action: "operator.hold.place", actor: "ops/eve", reason: "case 7" },
        { action: "operator.hold.lift", actor: "ops/eve", reason: "closed" }
      ])

      // a month that is not as it was written, in whichever way
      const table = `platform.${oldest}`
      const where = `where chain = '${chain}' and lane = 0 and seq = 2`
      yield* tampering(database, table, `update ${table} set actor = 'dev/mallory' ${where}`)
      expect(yield* retire(oldest)).toBe("VL064")
      yield* tampering(database, table, `update ${table} set actor = 'dev/alice' ${where}`)
      // the last entry of the lane and of the month, which no chain within the month misses
      yield* tampering(
        database,
        table,
        `create table public.aside as select * from ${table} where chain = '${chain}' and lane = 0 and seq = 3`
      )
      yield* tampering(database, table, `delete from ${table} where chain = '${chain}' and lane = 0 and seq = 3`)
      expect(yield* retire(oldest)).toBe("VL064")
      yield* query(database.superuserUrl, `insert into ${table} select * from public.aside`)
      // seals that were made to fit, and the tree
      const seals = (first: number) =>
        tampering(
          database,
          "platform.audit_seals",
          `update platform.audit_seals set first_seq = ${first} where chain = '${chain}' and lane = 0 and partition = '${oldest}'`
        )
      yield* seals(2)
      expect(yield* retire(oldest)).toBe("VL064")
      yield* seals(1)
      yield* query(database.superuserUrl, "create table public.tiles as select * from platform.audit_tiles")
      const tiles = (hashes: string) =>
        tampering(
          database,
          "platform.audit_tiles",
          `update platform.audit_tiles t set hashes = ${hashes} from public.tiles o where o.level = t.level and o.index = t.index`
        )
      yield* tiles("decode(repeat('ff', length(o.hashes)), 'hex')")
      expect(yield* retire(oldest)).toBe("VL064")
      yield* tiles("o.hashes")

      expect(yield* retire(oldest, "export")).toBe("VL066")
      expect(yield* asOperator("select platform.partition_exported($1, '{}')", [oldest])).toBe("VL066")
      // another's term
      expect(yield* asOperator("select platform.partition_retire($1, 'drop', 0)", [oldest])).toBe("VL030")
      // nobody else, and not by hand
      const byHand = yield* query(
        database.operatorUrl,
        `alter table platform.audit_log detach partition ${table}`
      ).pipe(Effect.flip)
      expect(sqlStateOf(byHand)).toBe("42501")
      expect(yield* asOperator("select platform.partition_detach('audit_log', $1, now(), '{}', null)", [oldest])).toBe(
        "42501"
      )
      expect(yield* problems(database)).toEqual([])
      expect(yield* retire(oldest)).toBe("done")
      expect(yield* problems(database)).toEqual([])
      expect(atlas.chain).toContain(database.org)
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("eighteen months", (it) => {
  it.effect("go one after the other, with a manager that fails in every second run; creating never waits", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
      const chain = `${database.org}/geo/other`
      yield* makeMonths(database, 18)
      const seal = yield* sealing
      yield* writePast(database, chain, { ago: 18, lanes: Array.from({ length: 32 }, (_, lane) => lane), each: 2 })
      yield* seal
      expect(yield* problems(database)).toEqual([])
      const folderName = yield* folder
      const real = yield* Fence
      let runs = 0
      // fails in every second transaction that it is asked for: before anything is done, or with all done and unknown
      const down = Effect.fail(failure("Unavailable", new Error("down")))
      const unsteady = <A, E, R>(work: Effect.Effect<A, E, R>) => {
        runs += 1
        return runs % 2 === 0 ? work : Effect.andThen(runs % 4 === 1 ? Effect.void : work, down)
      }
      const shaky = Layer.succeed(Fence, {
        ...real,
        transaction: (f) => unsteady(real.transaction(f)),
        long: (f) => unsteady(real.long(f))
      } as Fence["Service"])
      const dispositions = ["drop", "keep", "export"] as const
      for (let kept = 17; kept >= 1; kept--) {
        yield* retention(database, kept, null)
        const disposition = dispositions[kept % 3] ?? "drop"
        const gone = yield* monthOf(database, "audit_log", kept + 1)
        let turns = 0
        while ((yield* attached(database, "audit_log")).includes(gone)) {
          turns += 1
          expect(turns).toBeLessThan(8)
          yield* Effect.ignore(Retirement.round(settings(disposition, folderName)).pipe(Effect.provide(shaky)))
          // what is missing is made, in the same hour as the other fails
          expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
          yield* seal
        }
        const archived = yield* query(database.superuserUrl, "select to_regclass($1) is not null as there", [
          `platform_archive.${gone}`
        ])
        expect(archived).toEqual([{ there: disposition === "keep" }])
        expect(yield* problems(database), gone).toEqual([])
      }
      // leaves whose entries are gone are no gap, and the tree is whole
      expect(yield* query(database.superuserUrl, "select * from platform.audit_verify_tree(null, null, null)")).toEqual(
        []
      )
      // the first month that is kept is the last one
      const first = yield* monthOf(database, "audit_log", 1)
      expect((yield* attached(database, "audit_log"))[0]).toBe(first)
      const done = yield* query(
        database.superuserUrl,
        "select disposition, count(*)::int4 as n, bool_and(sealed_at is not null) as sealed from platform.retirements where retired_at is not null group by 1 order by 1"
      )
      expect(done).toEqual([
        { disposition: "drop", n: 5, sealed: true },
        { disposition: "export", n: 6, sealed: true },
        { disposition: "keep", n: 6, sealed: true }
      ])
      // each end is an entry
      const entries = yield* query(
        database.superuserUrl,
        "select count(*)::int4 as n from platform.audit_log where chain = 'platform' and action = 'operator.partition.retire'"
      )
      expect(entries).toEqual([{ n: 17 }])

      // every change of what is left is found, and a head that was made to fit is not
      const change = (sql: ReadonlyArray<string>) =>
        Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(database.superuserUrl)
            yield* connection.query("begin")
            yield* connection.query("alter table platform.audit_log disable trigger all")
            for (const one of sql) yield* connection.query(one)
            const found = yield* connection.query(
              "select seq::int4 as seq, problem from platform.audit_verify_window(null, null)"
            )
            yield* connection.query("rollback")
            return found.rows.map((row) => `${row.seq} ${row.problem}`)
          })
        )
      const lane = `chain = '${chain}' and lane = 3`
      expect(yield* change([`update platform.audit_log set actor = 'x' where ${lane} and seq = 35`])).toEqual([
        "35 hash_mismatch"
      ])
      expect(yield* change([`delete from platform.audit_log where ${lane} and seq = 35`])).toEqual(["36 head_mismatch"])
      expect(yield* change([`delete from platform.audit_log where ${lane}`])).toEqual(["36 tail_missing"])
      const forged = `insert into platform.audit_heads select chain, lane, seq, occurred_at, hash from platform.audit_log where ${lane} and seq = 35
        on conflict (chain, lane) do update set seq = excluded.seq, occurred_at = excluded.occurred_at, hash = excluded.hash`
      expect(yield* change([forged, `delete from platform.audit_log where ${lane} and seq = 35`])).toEqual([
        "36 head_mismatch",
        "35 head_mismatch"
      ])

      // a lane goes on from its head, also where none of its entries is left
      yield* retention(database, 1, null)
      const written = yield* asOperator(
        "select platform.audit_insert($1, 'operator', 'operator.test', 'ok', null, null, null, null, null, null, null)",
        [chain]
      )
      expect(written).toBe("done")
      expect(yield* problems(database)).toEqual([])
      const [last] = yield* query(
        database.superuserUrl,
        "select seq::int4 as seq from platform.audit_log where chain = $1 and action = 'operator.test'",
        [chain]
      )
      expect(last).toEqual({ seq: 37 })
      expect(atlas.chain).toContain(database.org)

      // a month that was kept: the auditor's to read, nobody's to change
      const keptMonth = `platform_archive.${yield* monthOf(database, "audit_log", 5)}`
      const auditor = yield* Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(database.apiUrl)
          yield* connection.query("begin")
          yield* connection.query("select set_config('role', 'velocity_auditor', true)")
          return (yield* connection.query(`select count(*)::int4 as n from ${keptMonth}`)).rows
        })
      )
      expect(auditor).toEqual([{ n: 64 }])
      for (const sql of [`delete from ${keptMonth}`, `update ${keptMonth} set actor = 'x'`, `truncate ${keptMonth}`]) {
        const state = yield* Effect.flip(query(database.superuserUrl, sql))
        expect(sqlStateOf(state), sql).toBe("VL001")
      }
      expect(yield* asOperator(`select * from ${keptMonth}`)).toBe("42501")

      // an exported month needs no database to be verified, and shows a change of its file
      const exported = yield* monthOf(database, "audit_log", 3)
      const file = Path.join(folderName, `${exported}.ndjson`)
      const manifest = yield* Effect.promise(() => readBack(file, exported))
      const said = yield* Effect.promise(() => Fs.readFile(Path.join(folderName, `${exported}.manifest.json`), "utf8"))
      expect(JSON.parse(said)).toEqual(manifest)
      expect(manifest).toMatchObject({ rows: 64, partition: exported })
      const [record] = yield* query(
        database.superuserUrl,
        "select manifest_hash = sha256(convert_to($2, 'UTF8')) as same from platform.retirements where name = $1",
        [exported, said]
      )
      expect(record).toEqual({ same: true })
      const text = yield* Effect.promise(() => Fs.readFile(file, "utf8"))
      for (const [from, to] of [
        ["dev/alice", "dev/mallory"],
        ['\\"n\\": 1', '\\"n\\": 2']
      ] as const) {
        yield* Effect.promise(() => Fs.writeFile(file, text.replace(from, to)))
        const error = yield* Effect.flip(Effect.tryPromise(() => readBack(file, exported)))
        expect(String(error.cause)).toContain("its hash is another")
      }
      const lines = text.split("\n")
      const swapped = [lines[1], lines[0], ...lines.slice(2)].join("\n")
      yield* Effect.promise(() => Fs.writeFile(file, swapped))
      expect(String((yield* Effect.flip(Effect.tryPromise(() => readBack(file, exported)))).cause)).toContain("a gap")
      // a lane's last line that is gone is a manifest that is another
      yield* Effect.promise(() => Fs.writeFile(file, lines.toSpliced(1, 1).join("\n")))
      expect(yield* Effect.promise(() => readBack(file, exported))).not.toEqual(manifest)
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("history", (it) => {
  it.effect("keeps the last row of a record that nobody touched for longer than it is kept", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
      yield* makeMonths(database, 4)
      const storage = atlas.city.storage
      const event = (entity: string, version: number, ago: number, chain = atlas.chain) =>
        writeEvent(database, { chain, storage, entity, version, ago, name: `v${version} of ${entity}` })
      const [quiet, busy, later] = ["1", "2", "3"].map((n) => `00000000-0000-0000-0000-00000000000${n}`) as [
        string,
        string,
        string
      ]
      yield* event(quiet, 1, 4)
      yield* event(quiet, 2, 4)
      yield* event(busy, 1, 4)
      yield* event(busy, 2, 2)
      yield* event(later, 1, 4)
      yield* event(later, 2, 3)
      const history = Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(database.apiUrl)
          yield* connection.query("begin")
          yield* connection.query("select set_config('role', $1, true)", [`${atlas.schema}_reader`])
          const { rows } = yield* connection.query(
            `select right(entity_id::text, 1) || ' v' || version as one, state ->> 'name' as name from ${atlas.schema}.city_v1_history order by 1`
          )
          return rows.map((row) => String(row.one))
        })
      )
      expect(yield* history).toEqual(["1 v1", "1 v2", "2 v1", "2 v2", "3 v1", "3 v2"])
      yield* retention(database, null, 3)
      const hot = (text: string) =>
        query(
          database.superuserUrl,
          `update platform.schema_defs set serving = jsonb_set(serving, '{timeMachine}', '{"hotRetention":"${text}"}') where id = ${atlas.city.id}`
        )
      // what a definition asks for is kept, however short the installation's is
      yield* hot("6mo")
      expect(yield* Retirement.round(settings("drop"))).toEqual([])
      yield* hot("9d")
      const gone = yield* monthOf(database, "event_log", 4)
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([gone])
      // the last of each stays, and what a later event made the past goes
      expect(yield* history).toEqual(["1 v2", "2 v2", "3 v2"])
      yield* retention(database, null, 2)
      expect(refused(yield* Retirement.round(settings("keep")))).toEqual([yield* monthOf(database, "event_log", 3)])
      expect(yield* history).toEqual(["1 v2", "2 v2", "3 v2"])
      yield* retention(database, null, 1)
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([yield* monthOf(database, "event_log", 2)])
      expect(yield* history).toEqual(["1 v2", "2 v2", "3 v2"])
      expect(yield* attached(database, "event_log")).toContain("event_log_heads")
      // as every month is guarded
      expect(yield* PartitionManager.checkMonths).toEqual([])
      expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
      const seen = yield* asOperator("select * from platform.event_log_heads")
      expect(seen).toBe("42501")
      // contents that are kept in the archive are nobody's to read
      const archived = `platform_archive.${yield* monthOf(database, "event_log", 3)}`
      expect(yield* asOperator(`select * from ${archived}`)).toBe("42501")
    })
  )

  it.effect("stays where its contents are not what their hash says, or a chain is held; exports as it is", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const [row] = yield* query(
        database.superuserUrl,
        "select chain, storage_id from platform.schema_defs order by id desc limit 1"
      )
      const [chain, storage] = [String(row?.chain), Number(row?.storage_id)]
      const entity = "00000000-0000-0000-0000-000000000009"
      const month = yield* monthOf(database, "event_log", 1)
      yield* query(database.superuserUrl, `update platform.schema_defs set serving = serving - 'timeMachine'`)
      yield* writeEvent(database, { chain, storage, entity, version: 1, ago: 1, name: "Zürich\u2028" })
      // the month before this one is not past a month; by another clock it is
      yield* query(database.superuserUrl, "alter table platform.retention drop constraint retention_event_months_check")
      yield* retention(database, null, 0)
      yield* query(database.operatorUrl, "select platform.hold_place($1, 'case 8', 'ops/eve')", [chain])
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([`${month} VL062`])
      const [hold] = yield* query(database.superuserUrl, "select id::text as id from platform.legal_holds")
      yield* query(database.operatorUrl, "select platform.hold_lift($1::uuid, 'closed', 'ops/eve')", [hold?.id])
      yield* query(
        database.superuserUrl,
        `update platform.${month} set state = '{"name":"Bern"}' where entity_id = '${entity}'`
      )
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([`${month} VL064`])
      const made = yield* folder
      const error = yield* Effect.flip(exportMonth(made, month))
      expect(error.message).toContain("its hash is another")
      yield* query(
        database.superuserUrl,
        `update platform.${month} set state = jsonb_build_object('name', E'Zürich\\u2028') where entity_id = '${entity}'`
      )
      expect(refused(yield* Retirement.round(settings("export", made)))).toEqual([month])
      const manifest = yield* Effect.promise(() => readBack(Path.join(made, `${month}.ndjson`), month))
      expect(manifest).toMatchObject({ rows: 1, lanes: [] })
      const names = yield* Effect.promise(() => Fs.readdir(made))
      expect(names.sort()).toEqual([`${month}.manifest.json`, `${month}.ndjson`])
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("a lock that somebody holds", (it) => {
  it.effect("is tried again, and readers and writers go on meanwhile", () =>
    Effect.gen(function* () {
      const database = yield* Database
      yield* provisionAtlas(database.operatorUrl, database.org)
      const chain = `${database.org}/geo/other`
      yield* makeMonths(database, 3)
      const seal = yield* sealing
      yield* writePast(database, chain, { ago: 3, lanes: [1], each: 1 })
      yield* seal
      yield* retention(database, 2, null)
      const month = yield* monthOf(database, "audit_log", 3)
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([`${month} VL065`])
      yield* seal
      const write = query(
        database.operatorUrl,
        "select platform.audit_insert($1, 'operator', 'operator.test', 'ok', null, null, null, null, null, null, null)",
        [chain]
      )
      yield* Effect.scoped(
        Effect.gen(function* () {
          // an old reader of the log, and a writer that takes its time
          const reader = yield* connect(database.superuserUrl)
          yield* reader.query("begin")
          yield* reader.query("select count(*) from platform.audit_log")
          let written = 0
          const writing = Effect.forever(
            Effect.andThen(
              write,
              Effect.sync(() => {
                written += 1
              })
            )
          )
          const failed = yield* Effect.raceFirst(
            Effect.flip(Retirement.round(settings("drop"))),
            Effect.andThen(writing, Effect.die("writers stopped"))
          )
          expect(failed).toMatchObject({ reason: { _tag: "LockTimeout" } })
          // each waited for a third of a second at most, five times
          expect(written).toBeGreaterThan(10)
          expect(yield* attached(database, "audit_log")).toContain(month)
          yield* reader.query("rollback")
        })
      )
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([month])
      expect(yield* problems(database)).toEqual([])
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("what is said while a month is about to go", (it) => {
  /** Retires a month that was judged and has not gone yet: it waits for a lock, and meanwhile something is said. */
  const meanwhile = <E>(month: string, lock: string, said: Effect.Effect<unknown, E, Database>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* Database
        const blocker = yield* connect(database.superuserUrl)
        yield* blocker.query("begin")
        yield* blocker.query(lock)
        const retiring = yield* Effect.forkChild(retire(month), { startImmediately: true })
        yield* waitsFor(database, "partition_retire")
        yield* said
        yield* blocker.query("rollback")
        return yield* Fiber.join(retiring)
      })
    )
  const hold = (chain: string) => asOperator("select platform.hold_place($1, 'case 9', 'ops/eve')", [chain])
  const lift = asOperator(
    "select platform.hold_lift(id, 'closed', 'ops/eve') from platform.legal_holds where lifted_at is null"
  )
  /** A hold that somebody has placed and not committed yet. */
  const holding = <A, E>(chain: string, then: Effect.Effect<A, E, Database>) =>
    Effect.scoped(
      Effect.gen(function* () {
        const connection = yield* connect((yield* Database).operatorUrl)
        yield* connection.query("begin")
        yield* connection.query("select platform.hold_place($1, 'case 10', 'ops/eve')", [chain])
        const answer = yield* then
        yield* connection.query("commit")
        return answer
      })
    )

  it.effect("keeps a month of the log: a hold, or that months are kept longer", () =>
    Effect.gen(function* () {
      const database = yield* Database
      yield* provisionAtlas(database.operatorUrl, database.org)
      const chain = `${database.org}/geo/other`
      yield* makeMonths(database, 3)
      const seal = yield* sealing
      yield* writePast(database, chain, { ago: 3, lanes: [1], each: 1 })
      yield* seal
      yield* retention(database, 2, null)
      const month = yield* monthOf(database, "audit_log", 3)
      expect(refused(yield* Retirement.round(settings("drop")))).toEqual([`${month} VL065`])
      yield* seal
      const judged = "lock table platform.audit_tiles in access exclusive mode"

      expect(yield* meanwhile(month, judged, hold(chain))).toBe("VL062")
      expect(yield* lift).toBe("done")
      // one that is being placed goes first, and is not waited for with the log locked
      expect(yield* holding(chain, retire(month))).toBe("55P03")
      expect(yield* retire(month)).toBe("VL062")
      expect(yield* lift).toBe("done")
      const longer = asOperator("select * from platform.retention_set(12, null)")
      expect(yield* meanwhile(month, judged, longer)).toBe("VL060")
      yield* retention(database, 2, null)
      expect(yield* attached(database, "audit_log")).toContain(month)
      expect(yield* retire(month)).toBe("done")
      expect(yield* problems(database)).toEqual([])
    })
  )

  it.effect("keeps a month of history: that too, and what a definition asks for", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const [row] = yield* query(
        database.superuserUrl,
        "select chain, storage_id from platform.schema_defs order by id desc limit 1"
      )
      const [chain, storage] = [String(row?.chain), Number(row?.storage_id)]
      const entity = "00000000-0000-0000-0000-000000000007"
      yield* writeEvent(database, { chain, storage, entity, version: 1, ago: 3, name: "Bern" })
      yield* writeEvent(database, { chain, storage, entity, version: 2, ago: 1, name: "Basel" })
      yield* retention(database, null, 2)
      const month = yield* monthOf(database, "event_log", 3)
      const judged = "select pg_advisory_xact_lock(hashtextextended('velocity/history', 0))"

      expect(yield* meanwhile(month, judged, hold(chain))).toBe("VL062")
      expect(yield* lift).toBe("done")
      expect(yield* holding(chain, retire(month))).toBe("55P03")
      expect(yield* retire(month)).toBe("VL062")
      expect(yield* lift).toBe("done")
      const longer = asOperator("select * from platform.retention_set(null, 12)")
      expect(yield* meanwhile(month, judged, longer)).toBe("VL060")
      yield* retention(database, null, 2)
      const asked = query(
        database.superuserUrl,
        `update platform.schema_defs set serving = jsonb_set(serving, '{timeMachine}', '{"hotRetention":"1y"}')`
      )
      expect(yield* meanwhile(month, judged, asked)).toBe("VL060")
      yield* query(database.superuserUrl, "update platform.schema_defs set serving = serving - 'timeMachine'")
      expect(yield* attached(database, "event_log")).toContain(month)
      expect(yield* retire(month)).toBe("done")
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("a seal that takes its time", (it) => {
  it.effect("keeps nobody from making months, and another seal of the month until it is there", () =>
    Effect.gen(function* () {
      const database = yield* Database
      yield* provisionAtlas(database.operatorUrl, database.org)
      const chain = `${database.org}/geo/other`
      yield* makeMonths(database, 3)
      const seal = yield* sealing
      yield* writePast(database, chain, { ago: 3, lanes: [1], each: 1 })
      yield* seal
      yield* retention(database, 2, null)
      const month = yield* monthOf(database, "audit_log", 3)
      const ahead = yield* monthOf(database, "audit_log", -3)
      yield* query(database.superuserUrl, `drop table platform.${ahead}`)
      const again = yield* Effect.scoped(
        Effect.gen(function* () {
          const first = yield* connect(database.operatorUrl)
          yield* first.query("begin")
          const { rows } = yield* first.query("select platform.partition_seal($1) as sealed", [month])
          expect(rows).toEqual([{ sealed: true }])
          expect(yield* PartitionManager.sweep).toEqual({ audit_log: 3, event_log: 3 })
          const second = yield* Effect.forkChild(
            query(database.operatorUrl, "select platform.partition_seal($1) as sealed", [month]),
            { startImmediately: true }
          )
          yield* waitsFor(database, "partition_seal")
          yield* first.query("commit")
          return yield* Fiber.join(second)
        })
      )
      expect(again).toEqual([{ sealed: false }])
    })
  )
})

layer(withDatabase(services), { excludeTestServices: true })("how long months are kept", (it) => {
  it.effect("is what the operator was started with, and what is in force where that is longer", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const inForce = query(database.superuserUrl, "select audit_months, event_months from platform.retention")
      expect(yield* inForce).toEqual([{ audit_months: null, event_months: null }])
      const keep = (audit: number | undefined, history: number | undefined) =>
        Retirement.keep({ ...settings("keep"), audit, history })
      yield* keep(undefined, undefined)
      expect(yield* inForce).toEqual([{ audit_months: null, event_months: null }])
      yield* keep(84, undefined)
      yield* keep(84, 24)
      expect(yield* inForce).toEqual([{ audit_months: 84, event_months: 24 }])
      expect(yield* Effect.flip(keep(12, 36))).toMatchObject({ reason: { _tag: "Platform", code: "VL067" } })
      expect(yield* inForce).toEqual([{ audit_months: 84, event_months: 24 }])
      // each change is an entry, and what changes nothing is none
      const said = yield* query(
        database.superuserUrl,
        "select payload from platform.audit_log where action = 'operator.retention.set' order by occurred_at"
      )
      expect(said).toEqual([
        { payload: { audit_months: 84, event_months: null } },
        { payload: { audit_months: 84, event_months: 24 } }
      ])
    })
  )
})

const configured = (variables: Readonly<Record<string, string>>) =>
  Retirement.settings.pipe(Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(variables))))

plain.effect("is read from the environment; to export, somebody says where to", () =>
  Effect.gen(function* () {
    expect(yield* configured({})).toEqual(settings("keep"))
    expect(
      yield* configured({
        VELOCITY_RETENTION_AUDIT: "84",
        VELOCITY_RETENTION_HISTORY: "24",
        VELOCITY_RETIRE: "export",
        VELOCITY_EXPORT_DIR: "/months"
      })
    ).toEqual({ audit: 84, history: 24, disposition: "export", folder: "/months" })
    for (const variables of [
      { VELOCITY_RETIRE: "export" },
      { VELOCITY_RETIRE: "burn" },
      { VELOCITY_RETENTION_AUDIT: "0" },
      { VELOCITY_RETENTION_HISTORY: "2 years" }
    ]) {
      expect(yield* Effect.flip(configured(variables))).toMatchObject({ _tag: "ConfigError" })
    }
  })
)

plain.effect("looks at once and then every hour, whatever happened to the round before", () =>
  Effect.gen(function* () {
    let rounds = 0
    const down = Effect.suspend(() => {
      rounds += 1
      return Effect.fail(failure("Unavailable", new Error("down")))
    })
    const fence = Layer.succeed(Fence, {
      epoch: "1",
      source: "folder",
      transaction: () => down,
      alone: () => down,
      long: () => down,
      read: () => down
    })
    const none = ConfigProvider.layer(ConfigProvider.fromUnknown({}))
    yield* Layer.build(Retirement.layer.pipe(Layer.provide(fence), Layer.provide(none)))
    yield* TestClock.adjust("5 minutes")
    const first = rounds
    expect(first).toBeGreaterThan(1)
    yield* TestClock.adjust("50 minutes")
    expect(rounds).toBe(first)
    yield* TestClock.adjust("2 hours")
    expect(rounds).toBeGreaterThanOrEqual(first * 2)
  })
)

layer(withDatabase(services), { excludeTestServices: true })("a record that is erased while its month ends", (it) => {
  it.effect("does not come back with the rows that are kept of the month", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* Database
        const atlas = yield* provisionAtlas(database.operatorUrl, database.org)
        yield* makeMonths(database, 3)
        const entity = "00000000-0000-4000-8000-000000000001"
        const { chain } = atlas
        yield* writeEvent(database, {
          chain,
          storage: atlas.city.storage,
          entity,
          version: 1,
          ago: 3,
          name: "a person"
        })
        yield* retention(database, null, 1)
        const month = yield* monthOf(database, "event_log", 3)
        const officer = yield* connect(database.apiUrl)
        yield* officer.query("begin")
        yield* officer.query(
          "select set_config('role', 'velocity_privacy', true), set_config('velocity.ctx', $1, true)",
          ['{"actor":"platform/olga","reason":"asked for"}']
        )
        yield* officer.query("select platform.erase_record($1, $2::uuid)", [`${chain}/city/v1`, entity])
        const retiring = yield* Effect.forkChild(retire(month), { startImmediately: true })
        yield* waitsFor(database, "partition_retire")
        yield* officer.query("commit")
        expect(yield* Fiber.join(retiring)).toBe("done")
        const kept = yield* query(
          database.superuserUrl,
          "select tableoid::regclass::text as place, state, salt from platform.event_log where entity_id = $1::uuid",
          [entity]
        )
        expect(kept).toEqual([{ place: "platform.event_log_heads", state: null, salt: null }])
        const sampled = yield* query(
          database.superuserUrl,
          `select a.attname::text as name from pg_inherits i join pg_attribute a on a.attrelid = i.inhrelid
           where i.inhparent = 'platform.event_log'::regclass and a.attname in ('state', 'salt') and a.attstattarget is distinct from 0`
        )
        expect(sampled).toEqual([])
      })
    )
  )
})
