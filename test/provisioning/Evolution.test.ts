/**
 * Plans carried out: the law (a table made for one definition and evolved to another is the table made for the other, and no
 * row is lost or altered but as the plan says), what is served meanwhile, and that whoever is stopped anywhere goes on.
 */
import { layer } from "@effect/vitest"
import { Effect, Fiber, Layer, Schedule } from "effect"
import * as fc from "fast-check"
import { expect } from "vitest"
import { constraintName } from "../../src/domain/Names.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql, type Tx } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Drift from "../../src/provisioning/Drift.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import * as Catalogue from "../../src/provisioning/table/Catalogue.ts"
import { connect, withDatabase } from "../support/Database.ts"
import { makeWorld, originOf } from "./World.ts"

type Fields = ReadonlyArray<Readonly<Record<string, unknown>>>

const insertSql = (table: string, columns: string, values: string, count: number) =>
  `insert into ${table} (id, created_at, created_by, updated_at, updated_by, ${columns})
   select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now(), 'x', now(), 'x', ${values} from generate_series(1, ${count}) n`

/** One of every kind of step, with rows for two batches. */
const everyStep = {
  before: [
    { name: "n", type: "integer", indexed: true, required: true },
    { name: "kept", type: "string" },
    { name: "gone", type: "string" },
    { name: "old", type: "string", maxLength: 20 },
    { name: "soft", type: "string" },
    { name: "e", type: "enum", enum: ["p", "q"] }
  ],
  after: [
    { name: "n", type: "number", precision: 20, scale: 2, indexed: true, required: true },
    { name: "kept", type: "string", unique: true },
    { name: "now", type: "string", maxLength: 10, renamedFrom: ["old"] },
    { name: "soft", type: "string", required: true, default: "filled" },
    { name: "e", type: "enum", enum: ["p", "q", "r"] },
    { name: "fresh", type: "integer", indexed: true }
  ]
}

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "evolution",
  (it) => {
    const prepared = Effect.fnUntraced(function* (object: string, rows = 1_500) {
      const world = yield* makeWorld
      yield* world.domain()
      yield* world.apply(world.define({ object, fields: everyStep.before }))
      const table = `${world.schema}.${object}_v1`
      yield* world.look(
        insertSql(
          table,
          "n, kept, gone, old, soft, e",
          "n, 'k' || n, 'g', 'o' || n, case when n % 3 = 0 then 's' end, 'p'",
          rows
        )
      )
      const spec = world.define({ object, fields: everyStep.after })
      const first = yield* world.provision(spec)
      if (first._tag !== "Planned") return yield* Effect.die(first)
      return { ...world, table, spec, plan: first }
    })

    const evolved = Effect.fnUntraced(function* (world: Effect.Success<ReturnType<typeof prepared>>, rows: number) {
      const found = yield* world.look(
        `select count(*)::int4 as rows, count(*) filter (where n = right(id::text, 12)::int4 and kept = 'k' || right(id::text, 12)::int4
         and now = 'o' || right(id::text, 12)::int4 and soft = case when right(id::text, 12)::int4 % 3 = 0 then 's' else 'filled' end and e = 'p' and fresh is null)::int4 as same
       from ${world.table}`
      )
      expect(found).toEqual([{ rows, same: rows }])
      expect(yield* world.provision(world.spec)).toMatchObject({ _tag: "Unchanged" })
      expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
    })

    const numberOf = (value: unknown): string => `${(value as { n?: unknown } | undefined)?.n}`

    it.effect("serves the old definition until the switch, and nothing of it is touched while the plan waits", () =>
      Effect.gen(function* () {
        const world = yield* prepared("waits")
        const before = yield* world.look(
          "select serving_hash, generation::text as generation, wanted = serving as same from platform.schema_defs where path = $1",
          [`${world.chain}/waits/v1`]
        )
        expect(before[0]?.same).toBe(false)
        expect(world.plan.steps.filter((one) => one.needsApproval).map((one) => one.does)).toEqual([
          "unique kept",
          "change the type of n from bigint to numeric(20,2)",
          "drop field gone",
          "require soft",
          "tighten maxLength of old",
          "rename old to now"
        ])
        // asked again, it is the same plan
        expect(yield* world.provision(world.spec)).toMatchObject({ hash: world.plan.hash, id: world.plan.id })
        // the table is changed by somebody: another plan, and the approval of the first one is worth nothing
        yield* world.look(`alter table ${world.table} add column stray int4`)
        const overtaken = yield* world.provision(world.spec, world.plan.hash)
        expect(overtaken).toMatchObject({ _tag: "Planned", state: "Waiting", overtaken: true })
        if (overtaken._tag !== "Planned") return
        expect(overtaken.hash).not.toBe(world.plan.hash)
        expect(overtaken.steps.map((one) => one.does)).toContain("drop field stray")
        const after = yield* world.look(
          "select serving_hash, generation::text as generation, wanted = serving as same from platform.schema_defs where path = $1",
          [`${world.chain}/waits/v1`]
        )
        expect(after).toEqual(before)
        expect(yield* world.provision(world.spec, overtaken.hash)).toMatchObject({ _tag: "Applied" })
        yield* evolved(world, 1_500)
        const entries = yield* world.look(
          "select action, count(*)::text as n from platform.audit_log where schema_path = $1 and action like 'operator.plan.%' group by 1 order by 1",
          [`${world.chain}/waits/v1`]
        )
        expect(entries.map((one) => one.action)).toEqual([
          "operator.plan.approve",
          "operator.plan.finish",
          "operator.plan.make",
          "operator.plan.overtake",
          "operator.plan.step"
        ])
        const approved = yield* world.look(
          "select approved_by, state from platform.plans where path = $1 order by created_at",
          [`${world.chain}/waits/v1`]
        )
        expect(approved).toEqual([
          { approved_by: null, state: "Overtaken" },
          { approved_by: "tests/approver", state: "Done" }
        ])
      })
    )

    it.effect("goes on with the step that was not done, wherever it was stopped", () =>
      Effect.gen(function* () {
        const world = yield* prepared("stopped")
        const { plan, runner, spec } = world
        let stops = 0
        // each run is cut off at a later statement than the one before, its connection with it
        for (let allowed = 1; ; allowed += 3) {
          let left = allowed
          let cut = false
          const limited = (tx: Tx): Tx => ({
            ...tx,
            query: (asked) =>
              Effect.suspend(() => {
                left -= 1
                if (left >= 0) return tx.query(asked)
                cut = true
                return Effect.flatMap(tx.query(statement("select pg_backend_pid()::text as pid")), ({ rows }) =>
                  Effect.andThen(
                    Effect.ignore(world.look("select pg_terminate_backend($1::int4)", [Number(rows[0]?.pid)])),
                    tx.query(asked)
                  )
                )
              })
          })
          const dying: Evolution.Runner = { ...runner, transaction: (f) => runner.transaction((tx) => f(limited(tx))) }
          const exit = yield* Effect.exit(
            Evolution.provision(dying, {
              spec,
              origin: originOf("stopped"),
              approval: { hash: plan.hash, by: "tests/approver" }
            })
          )
          if (exit._tag === "Success" && !cut) {
            expect(exit.value._tag).toMatch(/^(Applied|Unchanged)$/u)
            break
          }
          stops += 1
          // between two runs the catalogue serves either the old definition or the new one, whole
          const [row] = yield* world.look(
            `select (select string_agg(f ->> 'name', ',' order by f ->> 'name') from jsonb_array_elements(s.serving -> 'fields') f) as served,
             (select string_agg(attname, ',' order by attname) from pg_attribute where attrelid = $2::regclass and attnum > 0 and not attisdropped
              and attname not in ('id', 'version', 'created_at', 'created_by', 'updated_at', 'updated_by', 'deleted_at') and attname !~ '^_') as there
           from platform.schema_defs s where path = $1`,
            [`${world.chain}/stopped/v1`, world.table]
          )
          const there = String(row?.there).split(",")
          for (const name of String(row?.served).split(",")) expect(there).toContain(name)
        }
        expect(stops).toBeGreaterThan(10)
        yield* evolved(world, 1_500)
        const [plans] = yield* world.look("select count(*)::text as n from platform.plans where path = $1", [
          `${world.chain}/stopped/v1`
        ])
        // it was one plan all the time
        expect(numberOf(plans)).toBe("1")
      })
    )

    it.effect("builds an index again that was left invalid", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, schema } = yield* makeWorld
        yield* domain()
        const fields = (unique: boolean): Fields => [{ name: "a", type: "string", unique }]
        yield* apply(define({ object: "invalid", fields: fields(false) }))
        yield* look(insertSql(`${schema}.invalid_v1`, "a", "'same'", 2))
        const spec = define({ object: "invalid", fields: fields(true) })
        // what a killed build leaves: the name is taken by an index that serves nobody
        const named = yield* Effect.exit(
          look(`create unique index concurrently "uq_left" on ${schema}.invalid_v1 (a) where deleted_at is null`)
        )
        expect(named._tag).toBe("Failure")
        yield* look(`delete from ${schema}.invalid_v1 where id::text like '%2'`)
        const made = yield* look(
          `select i.relname as name from pg_class i join pg_index x on x.indexrelid = i.oid where x.indrelid = '${schema}.invalid_v1'::regclass and not x.indisvalid`
        )
        expect(made).toEqual([{ name: "uq_left" }])
        const wanted = yield* look("select $1::text as path", [`${chain}/invalid/v1`])
        expect(wanted.length).toBe(1)
        yield* look(`alter index ${schema}.uq_left rename to ${constraintName("uq", "invalid_v1", ["a"])}`)
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        expect(yield* provision(spec, plan.hash)).toMatchObject({ _tag: "Applied" })
        const after = yield* look(
          `select i.relname as name, x.indisvalid as valid from pg_class i join pg_index x on x.indexrelid = i.oid
         where x.indrelid = '${schema}.invalid_v1'::regclass and i.relname = $1`,
          [constraintName("uq", "invalid_v1", ["a"])]
        )
        expect(after).toEqual([{ name: constraintName("uq", "invalid_v1", ["a"]), valid: true }])
      })
    )

    it.effect("goes on with an index whose build was killed, and waits for one that was left behind", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { apply, chain, database, define, domain, look, provision, schema } = yield* makeWorld
          yield* domain()
          yield* apply(define({ object: "built", fields: [{ name: "a", type: "string" }] }))
          yield* look(insertSql(`${schema}.built_v1`, "a", "'a' || n", 10))
          const spec = define({ object: "built", fields: [{ name: "a", type: "string", indexed: true }] })
          const index = `${schema}.${constraintName("ix", "built_v1", ["a"])}`
          const valid = look(`select indisvalid as valid from pg_index where indexrelid = to_regclass('${index}')`)
          // a snapshot that every build waits for
          const holder = yield* connect(database.superuserUrl)
          yield* holder.query("begin isolation level repeatable read")
          yield* holder.query(`select count(*) from ${schema}.built_v1`)
          const waits = look(
            `select a.pid::int4 as pid from pg_stat_activity a join pg_locks l on l.pid = a.pid
           where a.datname = current_database() and a.query ~ '^(create|drop) index concurrently' and l.locktype = 'virtualxid' and not l.granted`
          )
          const waiting = waits.pipe(
            Effect.repeat({ until: (rows) => rows.length > 0, schedule: Schedule.spaced("50 millis") })
          )
          const first = yield* Effect.forkScoped(Effect.exit(provision(spec)))
          const [build] = yield* waiting
          yield* look(`select pg_terminate_backend(${build?.pid})`)
          expect((yield* Fiber.join(first))._tag).toBe("Failure")
          expect(yield* valid).toEqual([{ valid: false }])
          // an operator that is stopped cancels what it waits for
          const second = yield* Effect.forkScoped(provision(spec))
          yield* waiting
          yield* Fiber.interrupt(second)
          yield* waits.pipe(
            Effect.repeat({ until: (rows) => rows.length === 0, schedule: Schedule.spaced("50 millis") })
          )
          yield* holder.query("rollback")
          // one that was killed leaves its session behind, at work
          const left = yield* connect(database.superuserUrl)
          const lock = `hashtextextended('velocity/build/${chain}/built/v1', 0)`
          yield* left.query(`select pg_advisory_lock(${lock})::text as held`)
          expect(yield* provision(spec)).toMatchObject({ _tag: "Evolving", does: "index a" })
          yield* left.query(`select pg_advisory_unlock(${lock})`)
          const done = yield* provision(spec).pipe(
            Effect.repeat({ until: (result) => result._tag !== "Evolving", schedule: Schedule.spaced("50 millis") })
          )
          expect(done._tag).toBe("Applied")
          expect(yield* valid).toEqual([{ valid: true }])
        })
      )
    )

    it.effect("lets no trigger copy into a column that is read", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, schema } = yield* makeWorld
        yield* domain()
        yield* apply(
          define({
            object: "copied",
            fields: [
              { name: "a", type: "string" },
              { name: "b", type: "string" }
            ]
          })
        )
        const codes = Effect.map(IsolationCheck.check(), (all) => all.map((one) => one.code))
        const made = (to: string) =>
          look(
            `create trigger velocity_copy_0a0a0a0a before insert or update on ${schema}.copied_v1 for each row execute function platform.evolve_copy('a', '${to}')`
          )
        yield* made("b")
        expect(yield* codes).toEqual(["unexpected_trigger"])
        yield* look(`drop trigger velocity_copy_0a0a0a0a on ${schema}.copied_v1`)
        yield* look(`alter table ${schema}.copied_v1 add column _n_0a0a0a0a text`)
        yield* made("_n_0a0a0a0a")
        expect(yield* codes).toEqual([])
        yield* look(`drop table ${schema}.copied_v1`)
      })
    )

    it.effect("gives a lock up that does not come, and comes again", () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { apply, database, define, domain, look, runner, schema, sql } = yield* makeWorld
          yield* domain()
          yield* apply(define({ object: "locked", fields: [{ name: "a", type: "string" }] }))
          yield* look(insertSql(`${schema}.locked_v1`, "a", "'x'", 1))
          const holder = yield* connect(database.superuserUrl)
          yield* holder.query("begin")
          yield* holder.query(`select * from ${schema}.locked_v1`)
          const wanted = {
            spec: define({ object: "locked", fields: [{ name: "a", type: "string", default: "y" }] }),
            origin: originOf("locked")
          }
          const refused = yield* Effect.flip(Evolution.provision(runner, wanted))
          expect(refused).toMatchObject({ reason: { _tag: "LockTimeout" } })
          yield* holder.query("rollback")
          // one transaction or a plan of steps: requests stand behind it for less than deadlock_timeout
          const { outcome, waits } = yield* sql.transaction((tx) =>
            Effect.gen(function* () {
              const outcome = yield* Provision.apply(tx, wanted)
              const { rows } = yield* tx.query(statement("select current_setting('lock_timeout') as waits"))
              return { outcome, waits: rows[0]?.waits }
            })
          )
          expect(outcome).toMatchObject({ _tag: "Applied" })
          expect(waits).toBe("500ms")
        })
      )
    )

    it.effect("says which step records contradict that came meanwhile, and proves it when they are gone", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, runner, schema, sql } = yield* makeWorld
        yield* domain()
        yield* apply(define({ object: "late", fields: [{ name: "n", type: "integer" }] }))
        yield* look(insertSql(`${schema}.late_v1`, "n", "n", 3))
        const spec = define({ object: "late", fields: [{ name: "n", type: "integer", max: "9" }] })
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        let transactions = 0
        const result = yield* Evolution.provision(
          {
            ...runner,
            transaction: (f) =>
              Effect.gen(function* () {
                transactions += 1
                // the plan is approved; what was served still admits this
                if (transactions === 2) yield* Effect.orDie(look(`update ${schema}.late_v1 set n = 50 where n = 3`))
                return yield* runner.transaction(f)
              })
          },
          { spec, origin: originOf("late"), approval: { hash: plan.hash, by: "tests/approver" } }
        )
        expect(result).toMatchObject({
          _tag: "Conflicting",
          message: "records that are there contradict it: prove max of n"
        })
        const path = `${chain}/late/v1`
        expect(yield* look("select state from platform.plans where path = $1", [path])).toEqual([{ state: "Conflict" }])
        // it is served, and holds for every write since
        expect(yield* provision(spec)).toMatchObject({ _tag: "Unchanged" })
        expect((yield* Effect.exit(look(`update ${schema}.late_v1 set n = 60 where n = 50`)))._tag).toBe("Failure")
        const repair = sql.transaction((tx) => Drift.repair(tx, path, "operator/folder"))
        expect((yield* repair).differences).toEqual([expect.stringContaining("validated is false and should be true")])
        yield* look(`update ${schema}.late_v1 set n = 5 where n = 50`)
        expect((yield* repair).planned).toBe(true)
        expect(yield* provision(spec)).toMatchObject({ _tag: "Applied", steps: ["prove max of n"] })
        expect((yield* repair).differences).toEqual([])
      })
    )

    it.effect("loses no record that came to an empty table while its plan waited, or while it was changed", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, runner, schema } = yield* makeWorld
        yield* domain()
        const integer = { name: "n", type: "integer" }
        yield* apply(define({ object: "came", fields: [integer] }))
        const spec = define({ object: "came", fields: [{ name: "n", type: "number", precision: 20, scale: 2 }] })
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        // it is approved, and a client comes between the approval and the switch
        let came = false
        const judged = yield* Evolution.provision(
          {
            ...runner,
            transaction: (f) =>
              Effect.tap(runner.transaction(f), (said) =>
                Effect.gen(function* () {
                  if (came || (said as { _tag?: string } | undefined)?._tag !== "Planned") return
                  came = true
                  yield* Effect.orDie(look(insertSql(`${schema}.came_v1`, "n", "4711", 1)))
                })
              )
          },
          { spec, origin: originOf("came"), approval: { hash: plan.hash, by: "tests/approver" } }
        )
        expect(came).toBe(true)
        expect(judged).toMatchObject({ _tag: "Planned", state: "Waiting" })
        if (judged._tag !== "Planned") return
        expect(judged.hash).not.toBe(plan.hash)
        const ends = yield* look("select state, message from platform.plans where path = $1 order by created_at", [
          `${chain}/came/v1`
        ])
        expect(ends).toEqual([
          { state: "Overtaken", message: "records came, and the plan was made for none" },
          { state: "Waiting", message: null }
        ])
        expect(yield* provision(spec, judged.hash)).toMatchObject({ _tag: "Applied" })
        expect(yield* look(`select n::text as n from ${schema}.came_v1`)).toEqual([{ n: "4711.00" }])

        // what is done at once is done in the transaction that looked; a client comes between the look and the lock
        yield* apply(define({ object: "at-once", fields: [integer] }))
        const required = define({ object: "at-once", fields: [integer, { name: "r", type: "string", required: true }] })
        let looks = 0
        const racing: Evolution.Runner = {
          ...runner,
          transaction: (f) =>
            runner.transaction((tx) =>
              f({
                ...tx,
                query: (asked) =>
                  Effect.gen(function* () {
                    const done = yield* tx.query(asked)
                    if (!asked.sql.includes("as counted")) return done
                    looks += 1
                    if (looks === 1) yield* Effect.orDie(look(insertSql(`${schema}.at_once_v1`, "n", "4711", 1)))
                    return done
                  })
              })
            )
        }
        const refused = yield* Effect.flip(Evolution.provision(racing, { spec: required, origin: originOf("at-once") }))
        expect(refused).toMatchObject({ _tag: "ProvisionRefused", reason: "DataConflict" })
        expect(looks).toBe(2)
        expect(yield* look(`select n::text as n from ${schema}.at_once_v1`)).toEqual([{ n: "4711" }])
      })
    )

    /** A runner, and what is done once, behind the first step of a plan that is in a phase, or behind a plan that is to run. */
    const behind = (
      runner: Evolution.Runner,
      phase: string,
      then: Effect.Effect<unknown, unknown>
    ): Evolution.Runner => {
      let done = false
      return {
        ...runner,
        transaction: (f) =>
          Effect.tap(runner.transaction(f), (said) => {
            const turn = said as
              | { readonly _tag?: string; readonly state?: string; readonly step?: { readonly phase: string } }
              | undefined
            const is = turn?._tag === "Went" ? turn.step?.phase : turn?._tag === "Planned" ? turn._tag : undefined
            if (done || is !== phase || turn?.state === "Waiting") return Effect.void
            done = true
            return Effect.orDie(then)
          })
      }
    }

    it.effect(
      "refuses no write that what is served admits, rounds what was approved, and leaves nothing in the way",
      () =>
        Effect.gen(function* () {
          const { apply, chain, define, domain, look, provision, runner, schema } = yield* makeWorld
          yield* domain()
          const number = (precision: number, scale: number) => [
            { name: "n", type: "number", precision, scale, unique: true }
          ]
          /** A table of numbers, and a plan that makes them smaller, approved; `write` comes between expand and switch. */
          const narrowed = Effect.fnUntraced(function* (
            object: string,
            values: ReadonlyArray<string>,
            write: ReadonlyArray<string>
          ) {
            const table = `${schema}.${object}_v1`
            yield* apply(define({ object, fields: number(12, 4) }))
            const list = `(array[${values.join(", ")}])[n]`
            yield* look(insertSql(table, "n", list, values.length))
            const spec = define({ object, fields: number(6, 2) })
            const plan = yield* provision(spec)
            if (plan._tag !== "Planned") return yield* Effect.die(plan)
            const coming = Effect.forEach(write, (value, index) =>
              look(
                `insert into ${table} (id, created_at, created_by, updated_at, updated_by, n)
               values ('00000000-0000-7000-7000-00000000000${index}', now(), 'y', now(), 'y', ${value})`
              )
            )
            const result = yield* Effect.exit(
              Evolution.provision(behind(runner, "backfill", coming), {
                spec,
                origin: originOf(object),
                approval: { hash: plan.hash, by: "tests/approver" }
              })
            )
            const ours = yield* look(
              `select (select count(*) from pg_trigger where tgrelid = $1::regclass and not tgisinternal)::int4 as triggers,
               (select count(*) from pg_attribute where attrelid = $1::regclass and attname like '\\_n\\_%' and not attisdropped)::int4 as columns,
               (select count(*) from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = $1::regclass and c.relname like '%\\_n')::int4 as indexes`,
              [table]
            )
            expect(ours).toEqual([{ triggers: 0, columns: 0, indexes: 0 }])
            const states = yield* look("select state from platform.plans where path = $1 order by created_at", [
              `${chain}/${object}/v1`
            ])
            const rows = yield* look(`select t.n::text as n from ${table} t order by t.n`)
            return { exit: result, rows: rows.map((row) => row.n), spec, states: states.map((row) => row.state) }
          })

          // beyond the new type: written, kept, and then the definition is refused for it
          const beyond = yield* narrowed("beyond", ["1", "2"], ["1234567.5"])
          expect(beyond.rows).toEqual(["1.0000", "2.0000", "1234567.5000"])
          expect(beyond.states).toEqual(["Overtaken"])
          expect(beyond.exit).toMatchObject({ _tag: "Failure" })
          expect(yield* Effect.flip(provision(beyond.spec))).toMatchObject({ reason: "DataConflict" })
          // to be rounded, which the plan did not say: another plan says it, and waits
          const fine = yield* narrowed("fine", ["1", "2"], ["3.0149"])
          expect(fine.rows).toEqual(["1.0000", "2.0000", "3.0149"])
          expect(fine.states).toEqual(["Overtaken", "Waiting"])
          const again = yield* provision(fine.spec)
          if (again._tag !== "Planned") return yield* Effect.die(again)
          expect(again.steps.filter((one) => one.losesData).map((one) => one.why)).toEqual([
            "rounds 1 record (00000000-0000-7000-7000-000000000000), and what is written until then"
          ])
          expect(yield* provision(fine.spec, again.hash)).toMatchObject({ _tag: "Applied" })
          expect(yield* look(`select t.n::text as n from ${schema}.fine_v1 t order by t.n`)).toEqual([
            { n: "1.00" },
            { n: "2.00" },
            { n: "3.01" }
          ])
          // what would be one when rounded is two for what is served
          const near = yield* narrowed("near", ["1", "2"], ["1.0003"])
          expect(near.rows).toEqual(["1.0000", "1.0003", "2.0000"])
          expect(yield* Effect.flip(provision(near.spec))).toMatchObject({ reason: "DataConflict" })
          // rounding was approved: what came meanwhile is rounded with the rest
          const rounded = yield* narrowed("rounded", ["1", "2.0149"], ["3.0149", "4.5"])
          expect(rounded.exit).toMatchObject({ _tag: "Success", value: { _tag: "Applied" } })
          expect(rounded.rows).toEqual(["1.00", "2.01", "3.01", "4.50"])
          // what came meanwhile is rounded to what is there: a contradiction, and what was served is as it was
          const doubled = yield* narrowed("doubled", ["1", "2.0149"], ["1.0003"])
          expect(doubled.exit).toMatchObject({ _tag: "Success", value: { _tag: "Conflicting" } })
          expect(doubled.rows).toEqual(["1.0000", "1.0003", "2.0149"])
          expect(doubled.states).toEqual(["Conflict"])
          yield* look(`update ${schema}.doubled_v1 set n = 12345678.5 where n = 1.0003`)
        })
    )

    it.effect("takes away with a plan that is contradicted what it had built to refuse what is served", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, runner, schema } = yield* makeWorld
        yield* domain()
        const fields = (unique: boolean) => ["a", "b"].map((name) => ({ name, type: "string", unique }))
        yield* apply(define({ object: "half", fields: fields(false) }))
        const table = `${schema}.half_v1`
        yield* look(insertSql(table, "a, b", "'a' || n, 'b' || n", 3))
        // the first is built; the second meets what was written meanwhile
        const doubling = look(`update ${table} set b = 'b1' where b = 'b2'`)
        const wanted = { spec: define({ object: "half", fields: fields(true) }), origin: originOf("half") }
        const plan = yield* runner.transaction((tx) => Provision.apply(tx, wanted, true))
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        const result = yield* Evolution.provision(behind(runner, "build", doubling), {
          ...wanted,
          approval: { hash: plan.hash, by: "tests/approver" }
        })
        expect(result).toMatchObject({ _tag: "Conflicting" })
        yield* look(`update ${table} set a = 'a1'`)
      })
    )

    it.effect("leaves the switch little of what came while an index was built", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, runner, schema } = yield* makeWorld
        yield* domain()
        const before = [
          { name: "k", type: "integer" },
          { name: "given", type: "string" },
          { name: "n", type: "number", precision: 12, scale: 4 },
          { name: "m", type: "integer" }
        ]
        yield* apply(define({ object: "crowd", fields: before }))
        const table = `${schema}.crowd_v1`
        yield* look(insertSql(table, "k, n", "n, n + 0.005", 3))
        const spec = define({
          object: "crowd",
          fields: [
            { name: "k", type: "integer" },
            { name: "given", type: "string", required: true, default: "d" },
            { name: "n", type: "number", precision: 12, scale: 2 },
            { name: "m", type: "number", precision: 22, scale: 1, required: true, default: "0.5" },
            { name: "twice", type: "integer", required: true, backfill: "self.k * 2" }
          ]
        })
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        // a crowd of an old replica's records comes as the first index is there, with ids before and behind those that were
        const crowd = look(
          `insert into ${table} (id, created_at, created_by, updated_at, updated_by, k, n)
           select (case when n % 2 = 0 then '00000000-0000-7000-7000-' else '00000000-0000-7000-9000-' end || lpad(n::text, 12, '0'))::uuid,
             now(), 'y', now(), 'y', n, n + 0.005 from generate_series(4, 2500) n`
        )
        const done = yield* Evolution.provision(behind(runner, "build", crowd), {
          spec,
          origin: originOf("crowd"),
          approval: { hash: plan.hash, by: "tests/approver" }
        })
        expect(done._tag).toBe("Applied")
        const steps = yield* look(
          `select does, rows_done::int4 as rows from platform.plan_steps s join platform.plans p on p.id = s.plan_id
           where p.path = $1 and does like '%in what came meanwhile' order by position`,
          [`${chain}/crowd/v1`]
        )
        expect(steps).toEqual([
          { does: "copy n, in what came meanwhile", rows: 2_497 },
          { does: "give m its default, in what came meanwhile", rows: 2_497 },
          { does: "give twice what its backfill says, in what came meanwhile", rows: 2_497 },
          { does: "give given its default, in what came meanwhile", rows: 2_497 }
        ])
        const rows = yield* look(
          `select count(*)::int4 as rows, count(*) filter (where given = 'd' and n = k + 0.01 and m = 0.5 and twice = k * 2)::int4 as same from ${table}`
        )
        expect(rows).toEqual([{ rows: 2_500, same: 2_500 }])
      })
    )

    it.effect("takes no other table's index for its own", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, schema } = yield* makeWorld
        yield* domain()
        const name = constraintName("ix", "mine_v1", ["a"])
        for (const object of ["mine", "other"]) {
          yield* apply(define({ object, fields: [{ name: "a", type: "string" }] }))
          yield* look(insertSql(`${schema}.${object}_v1`, "a", "'a'", 1))
        }
        yield* look(`create index "${name}" on ${schema}.other_v1 (a)`)
        const spec = define({ object: "mine", fields: [{ name: "a", type: "string", indexed: true }] })
        expect(yield* Effect.flip(provision(spec))).toMatchObject({
          reason: "NotOurs",
          message: expect.stringContaining(`${schema}.${name} is there already, as an index of ${schema}.other_v1`)
        })
        const plans = look("select state from platform.plans where path = $1", [`${chain}/mine/v1`])
        expect(yield* plans).toEqual([])
        yield* look(`drop index ${schema}."${name}"`)
        expect(yield* provision(spec)).toMatchObject({ _tag: "Applied" })
      })
    )

    it.effect("makes two plans at one look, however often somebody changes the table", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, runner, schema } = yield* makeWorld
        yield* domain()
        yield* apply(define({ object: "restless", fields: [{ name: "a", type: "string" }] }))
        yield* look(insertSql(`${schema}.restless_v1`, "a", "'a'", 1))
        const spec = define({ object: "restless", fields: [{ name: "a", type: "string", indexed: true }] })
        let times = 0
        const restless: Evolution.Runner = {
          ...runner,
          transaction: (f) =>
            Effect.tap(runner.transaction(f), (said) =>
              Effect.gen(function* () {
                if ((said as { _tag?: string } | undefined)?._tag !== "Planned") return
                times += 1
                yield* Effect.orDie(look(`create index by_hand_${times} on ${schema}.restless_v1 (a, id)`))
              })
            )
        }
        expect(yield* Evolution.provision(restless, { spec, origin: originOf("restless") })).toMatchObject({
          _tag: "Evolving",
          does: "made anew, because the table was changed meanwhile"
        })
        expect(times).toBe(2)
        const plans = yield* look("select state from platform.plans where path = $1", [`${chain}/restless/v1`])
        expect(plans).toEqual([{ state: "Overtaken" }, { state: "Overtaken" }])
        expect(yield* Evolution.provision(runner, { spec, origin: originOf("restless") })).toMatchObject({
          _tag: "Applied"
        })
      })
    )

    it.effect("makes the same plan whatever way Postgres takes through its catalogue", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, schema, sql } = yield* makeWorld
        yield* domain()
        const fieldsOf = (bounded: object) => [
          { name: "stays", type: "string" },
          ...["e", "b", "d", "a", "c"].flatMap((name) => [
            { name, type: "string", ...bounded },
            { name: `${name}_n`, type: "integer" }
          ])
        ]
        yield* apply(define({ object: "ways", fields: fieldsOf({ maxLength: 9, pattern: "^[a-z]+$", indexed: true }) }))
        yield* look(insertSql(`${schema}.ways_v1`, "stays", "'s'", 3))
        const spec = define({ object: "ways", fields: fieldsOf({}).filter(({ name }) => !name.endsWith("_n")) })
        const planned = (settings: ReadonlyArray<string>) =>
          sql.transaction((tx) =>
            Effect.gen(function* () {
              for (const setting of settings) yield* tx.query(statement(`set local ${setting}`))
              return yield* Provision.apply(tx, { spec, origin: originOf("ways") }, true)
            })
          )
        const plan = yield* planned([])
        expect(plan._tag).toBe("Planned")
        for (const off of [
          ["enable_seqscan = off"],
          ["enable_seqscan = off", "enable_bitmapscan = off"],
          ["enable_nestloop = off"],
          ["enable_indexscan = off", "enable_bitmapscan = off"]
        ])
          expect(yield* planned(off), off.join(", ")).toEqual(plan)
      })
    )

    const values = ["x", "y", "z"]
    const bounded = (some: ReadonlyArray<Readonly<Record<string, string>>>) => fc.constantFrom({}, {}, {}, ...some)
    const numbers = (some: ReadonlyArray<Readonly<Record<string, string>>>) => ({
      integer: bounded(some).map((one) => ({ type: "integer", ...one })),
      number: fc
        .tuple(fc.constantFrom(6, 10, 14, 20), fc.constantFrom(0, 2, 4), bounded(some))
        .map(([precision, scale, one]) => ({ type: "number", precision, scale, ...one }))
    })
    const served = numbers([{ min: "0" }, { min: "-5" }])
    // some of which what is there does not keep
    const wanted = numbers([{ min: "1" }, { max: "2" }, { min: "0", max: "20" }])
    const text = fc.oneof(
      fc.record({ type: fc.constant("string") }),
      fc.record({ type: fc.constant("string"), maxLength: fc.integer({ min: 1, max: 5 }) }),
      fc.shuffledSubarray(values, { minLength: 1 }).map((some) => ({ type: "enum", enum: some }))
    )
    const ref = fc.constant({ type: "ref", ref: { object: "OBJECT", version: "v1" } })
    const boolean = fc.constant({ type: "boolean" })
    const any = (one: typeof served) => fc.oneof(one.integer, one.number, text, ref, boolean)
    const flags = fc.record({
      unique: fc.boolean(),
      indexed: fc.boolean(),
      required: fc.boolean(),
      withDefault: fc.boolean(),
      withBackfill: fc.boolean()
    })
    const how = fc.constantFrom("same", "same", "renamed", "removed", "added")
    /** What a column is, what it becomes, and how. */
    const column = fc.tuple(
      fc.oneof(
        { weight: 3, arbitrary: fc.tuple(served.integer, fc.oneof(wanted.integer, wanted.number)) },
        { weight: 3, arbitrary: fc.tuple(served.number, wanted.number) },
        { weight: 4, arbitrary: fc.tuple(text, text) },
        { weight: 2, arbitrary: fc.tuple(ref, ref) },
        { weight: 1, arbitrary: fc.tuple(boolean, boolean) },
        { weight: 1, arbitrary: fc.tuple(any(served), any(wanted)) }
      ),
      flags,
      flags,
      how
    )
    const change = fc.array(column, { minLength: 4, maxLength: 4 }).map((columns) => ({
      first: columns.map(([[is], some]) => [is, some] as const),
      second: columns.map(([[, becomes], , others]) => [becomes, others] as const),
      how: columns.map(([, , , one]) => one)
    }))
    const filters = fc.boolean()

    // a number has decimals for every scale that there is, and one of them is too large for the smallest type
    const valueOf = ({ scale = 0, type }: { readonly scale?: number | undefined; readonly type: string }, n: string) =>
      type === "integer"
        ? n
        : type === "number"
          ? `case ${n} when 2 then round(2.5050, ${scale}) when 3 then ${scale === 0 ? 123456 : 12} else ${n} end`
          : type === "boolean"
            ? `${n} % 2 = 0`
            : type === "ref"
              ? `case when ${n} > 1 then '00000000-0000-7000-8000-000000000001'::uuid end`
              : `(array['x', 'y', 'z'])[${n} % 3 + 1]`

    const defaults: Readonly<Record<string, unknown>> = { integer: 1, number: "1", string: "x", boolean: true }
    const backfills: Readonly<Record<string, string>> = { integer: "2", number: "'2'", string: "'x'", boolean: "true" }
    /** Records that are there, and whether clients write once the plan is made and approved. */
    const writes = fc.constantFrom([0, false], [0, true], [3, false], [3, false], [3, true])
    const together = fc.constantFrom([], [], [0, 1], [2, 3])

    let count = 0
    it.effect("leads from any definition to any other that it may become, with every row", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, runner, schema } = yield* makeWorld
        yield* domain()
        const context = yield* Effect.context<never>()
        const outcomes = new Map<string, number>()
        const definitionOf = (
          object: string,
          names: ReadonlyArray<string>,
          one: Array<[Record<string, unknown>, Record<string, boolean>]>,
          filtered: boolean,
          formers: ReadonlyArray<string>,
          unique: ReadonlyArray<number>
        ) =>
          define({
            object,
            ...(unique.length > 0 && unique.every((index) => names[index] !== "")
              ? { uniqueConstraints: [{ fields: unique.map((index) => names[index]) }] }
              : {}),
            fields: [
              { name: "stays", type: "string" },
              ...one.flatMap(([type, { indexed, required, unique, withBackfill, withDefault }], index) => {
                const name = names[index] as string
                if (name === "") return []
                const former = formers[index]
                const isRequired = required === true && type.type !== "ref"
                return [
                  {
                    name,
                    ...type,
                    ...(type.type === "ref" ? { ref: { object, version: "v1" } } : {}),
                    unique: unique === true && type.type !== "enum" && type.type !== "boolean" && type.type !== "ref",
                    indexed,
                    required: isRequired,
                    ...(withDefault === true && defaults[String(type.type)] !== undefined
                      ? { default: defaults[String(type.type)] }
                      : {}),
                    ...(withBackfill === true && isRequired && backfills[String(type.type)] !== undefined
                      ? { backfill: backfills[String(type.type)] }
                      : {}),
                    ...(former === undefined || former === "" || former === name ? {} : { renamedFrom: [former] })
                  }
                ]
              })
            ],
            access: {
              roles: [{ role: "buyer", operations: ["create", "read", "update"] }],
              ...(filtered
                ? { rowFilters: [{ role: "buyer", filter: { field: "stays", op: "eq", identity: "attributes.s" } }] }
                : {})
            }
          })
        yield* Effect.promise(() =>
          fc.assert(
            fc.asyncProperty(
              change,
              filters,
              filters,
              writes,
              fc.tuple(together, together),
              ({ first, how, second }, was, is, [rows, late], [uniqueBefore, uniqueAfter]) =>
                Effect.runPromiseWith(context)(
                  Effect.gen(function* () {
                    count += 1
                    const [grown, fresh] = [`g${count}`, `f${count}`]
                    const old = ["a", "b", "c", "d"].map((name, index) => (how[index] === "added" ? "" : name))
                    const now = ["a", "b", "c", "d"].map((name, index) =>
                      how[index] === "removed" ? "" : how[index] === "renamed" ? `${name}2` : name
                    )
                    // what is there must be able to be
                    const isApart = uniqueBefore.some((index) => {
                      const is = first[index]?.[0] as { readonly type: string } | undefined
                      return is !== undefined && ["integer", "number", "string"].includes(is.type)
                    })
                    const before = definitionOf(grown, old, first as never, was, [], isApart ? uniqueBefore : [])
                    const after = definitionOf(grown, now, second as never, is, old, uniqueAfter)
                    yield* apply(before)
                    const filled = before.fields.filter((field) => field.name !== "stays")
                    const table = `${schema}.${grown}_v1`
                    const insert = (n: number) =>
                      look(
                        insertSql(
                          table,
                          ["stays", ...filled.map((field) => `"${field.name}"`)].join(", "),
                          [
                            "'s' || n",
                            ...filled.map((field) =>
                              field.type === "enum" ? `'${field.enum?.[0]}'` : valueOf(field, "n")
                            )
                          ].join(", "),
                          n
                        )
                      )
                    yield* insert(rows)
                    const text = (name: string) => `(to_jsonb(_t) ->> '${name}')`
                    const state = (names: ReadonlyArray<string>) =>
                      look(
                        `select id::text as id, stays, ${["null", ...names.map(text)].map((sql, index) => `${sql} as v${index}`).join(", ")} from ${schema}.${grown}_v1 _t order by id`
                      )
                    const kept = old.map((name, index) =>
                      how[index] === "removed" || how[index] === "added" ? "-" : name
                    )
                    let rowsBefore = yield* state(kept)
                    // what is served until then admits it: the first records, or decimals that were not there
                    const numbers = filled.filter((field) => field.type === "number")
                    const write = Effect.gen(function* () {
                      if (rows === 0) yield* insert(3)
                      else if (numbers.length > 0) {
                        const sets = numbers.map(({ name, scale }) => `"${name}" = round(1.2345, ${scale})`)
                        yield* look(`update ${table} set ${sets.join(", ")} where id::text like '%1'`)
                      }
                      rowsBefore = yield* state(kept)
                    })
                    const writing = late ? behind(runner, "Planned", write) : runner
                    const attempt = (hash: string) =>
                      Evolution.provision(writing, {
                        spec: after,
                        origin: originOf(grown),
                        approval: { hash, by: "tests/approver" }
                      })
                    let rounds: ReadonlyArray<string> = []
                    let result = yield* Effect.result(attempt(""))
                    let approvals = 0
                    while (result._tag === "Success" && result.success._tag === "Planned") {
                      approvals += 1
                      expect(approvals).toBeLessThan(4)
                      rounds = result.success.steps.filter((one) => one.losesData).map((one) => one.does)
                      result = yield* Effect.result(attempt(result.success.hash))
                    }
                    const tell = (what: string) => outcomes.set(what, (outcomes.get(what) ?? 0) + 1)
                    if (result._tag === "Failure" || result.success._tag === "Conflicting") {
                      if (result._tag === "Failure") {
                        const error = result.failure as { readonly _tag: string; readonly reason: unknown }
                        expect(error).toMatchObject({ _tag: "ProvisionRefused" })
                        tell(`refused ${error.reason}`)
                      } else tell("Conflicting")
                      expect(yield* state(kept)).toEqual(rowsBefore)
                      return
                    }
                    tell(approvals > 1 ? "approved again" : approvals === 1 ? "approved" : "by itself")
                    expect(result.success._tag).toBe("Applied")
                    expect((yield* provision(after))._tag).toBe("Unchanged")
                    yield* apply(definitionOf(fresh, now, second as never, is, [], uniqueAfter))
                    const ids = yield* look(
                      "select path, id::text as id, storage_id::text as storage from platform.schema_defs where path = any ($1::text[])",
                      [[`${chain}/${grown}/v1`, `${chain}/${fresh}/v1`]]
                    )
                    const shape = (object: string) =>
                      Effect.map(
                        runner.transaction((tx) => Catalogue.read(tx, schema, `${object}_v1`)),
                        (catalogue) => {
                          const mine = ids.find((row) => String(row.path).includes(`/${object}/`))
                          // names are over the table's; what is left is compared by what it is
                          const plain = (value: unknown): unknown =>
                            JSON.parse(
                              JSON.stringify(value)
                                .replaceAll(new RegExp(`"?${object}_v1"?`, "gu"), "TABLE")
                                .replaceAll(`${object}/v1`, "PATH")
                                .replaceAll(`storage_id = ${mine?.storage}`, "storage_id = S")
                                .replaceAll(`platform.op(${mine?.id},`, "platform.op(D,")
                                .replaceAll(/(ck|uq|ix|fk|pk)_[0-9a-f]{8}/gu, "$1")
                            )
                          if (catalogue === undefined) return undefined
                          const { constraints, indexes, ...rest } = catalogue
                          const sorted = (record: object) =>
                            Object.values(record)
                              .map((one) => JSON.stringify(plain(one)))
                              .sort()
                          // what was approved to stay although it is not kept by every row
                          return {
                            rest: plain(rest),
                            constraints: sorted(constraints).map((line) =>
                              line.replace('"validated":false', '"validated":true')
                            ),
                            indexes: sorted(indexes)
                          }
                        }
                      )
                    expect(yield* shape(grown)).toEqual(yield* shape(fresh))
                    const rowsAfter = yield* state(
                      now.map((name, index) => (how[index] === "removed" || how[index] === "added" ? "-" : name))
                    )
                    const number = (row: Readonly<Record<string, unknown>>) =>
                      Object.fromEntries(
                        Object.entries(row).map(([key, value]) => [
                          key,
                          typeof value === "string" && /^-?[0-9]+(\.[0-9]+)?$/u.test(value)
                            ? String(Number(value))
                            : value
                        ])
                      )
                    // rounded where the plan said so, and nothing else
                    const expected = rowsBefore.map((row) =>
                      Object.fromEntries(
                        Object.entries(row).map(([key, value]) => {
                          const index = Number(/^v([1-4])$/u.exec(key)?.[1] ?? 0) - 1
                          const scale = (second[index]?.[0] as { readonly scale?: number } | undefined)?.scale
                          const isRounded = rounds.some((does) => does.startsWith(`change the type of ${old[index]} `))
                          if (!isRounded || typeof value !== "string" || typeof scale !== "number") return [key, value]
                          return [key, String(Math.round(Number(value) * 10 ** scale + 1e-9) / 10 ** scale)]
                        })
                      )
                    )
                    expect(rowsAfter.map(number)).toEqual(expected.map(number))
                  })
                )
            ),
            { numRuns: 60, ...(process.env.FC_SEED === undefined ? {} : { seed: Number(process.env.FC_SEED) }) }
          )
        )
        console.log(`evolutions: ${[...outcomes].map(([what, n]) => `${n} ${what}`).join(", ")}`)
      })
    )
  }
)
