/**
 * `backfill:`, what a required field gets in the records that are there: computed from each record by us, in batches, and once
 * more in the switch for those that came without it meanwhile. What errs is named by id and ends the plan; nothing is served.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { admit } from "../../src/domain/Admission.ts"
import { ExactNumber } from "../../src/domain/ExactJson.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import { backfillFaults, compileBackfill } from "../../src/records/type/Rules.ts"
import { withDatabase } from "../support/Database.ts"
import { definition, makeWorld } from "./World.ts"

const insertSql = (table: string, columns: string, values: string, from: number, to: number) =>
  `insert into ${table} (id, created_at, created_by, updated_at, updated_by, ${columns})
   select ('00000000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid, now(), 'x', now(), 'x', ${values} from generate_series(${from}, ${to}) n`

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "a backfill",
  (it) => {
    it.effect("computes every type, exactly", () =>
      Effect.gen(function* () {
        const { apply, define, domain, look, provision, schema } = yield* makeWorld
        yield* domain()
        const seen = [
          { name: "s", type: "string" },
          { name: "i", type: "integer" },
          { name: "d", type: "number", precision: 38, scale: 4 },
          { name: "at", type: "timestamp" },
          { name: "b", type: "bytes" }
        ]
        yield* apply(define({ object: "typed", fields: seen }))
        const table = `${schema}.typed_v1`
        yield* look(
          insertSql(
            table,
            "s, i, d, at, b",
            "'x\"' || chr(10) || n, 9007199254740993, 1234567890123456789012345678.1234, '2026-02-03 04:05:06.123456Z', '\\x00ff10'",
            1,
            3
          )
        )
        const made = [
          { name: "s2", type: "string", required: true, backfill: "self.s + '!'" },
          { name: "i2", type: "integer", required: true, backfill: "self.i + 1" },
          {
            name: "d2",
            type: "number",
            precision: 38,
            scale: 4,
            required: true,
            backfill: "dec.add(self.d, '0.0001')"
          },
          { name: "at2", type: "timestamp", required: true, backfill: "self.at" },
          { name: "b2", type: "bytes", required: true, backfill: "self.b" },
          { name: "t2", type: "boolean", required: true, backfill: "self.i > 1" },
          {
            name: "e2",
            type: "enum",
            enum: ["odd", "even"],
            required: true,
            backfill: "self.i % 2 == 0 ? 'even' : 'odd'"
          },
          { name: "u2", type: "uuid", required: true, backfill: "'0e0e0e0e-0000-4000-8000-00000000000a'" },
          { name: "day2", type: "date", required: true, backfill: "'2026-02-03'" },
          { name: "time2", type: "time", required: true, backfill: "'04:05:06'" }
        ]
        const spec = define({ object: "typed", fields: [...seen, ...made] })
        expect([...admit(spec), ...backfillFaults(spec)]).toEqual([])
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        expect(yield* provision(spec, plan.hash)).toEqual(expect.objectContaining({ _tag: "Applied" }))
        const rows = yield* look(
          `select count(*)::int4 as n, bool_and(s2 = s || '!' and i2 = 9007199254740994 and d2 = 1234567890123456789012345678.1235 and at2 = at and b2 = b
             and t2 and e2 = 'odd' and u2 = '0e0e0e0e-0000-4000-8000-00000000000a' and day2 = '2026-02-03' and time2 = '04:05:06') as same from ${table}`
        )
        expect(rows).toEqual([{ n: 3, same: true }])
        const [column] = yield* look(
          `select bool_and(attnotnull) as required from pg_attribute where attrelid = '${table}'::regclass and attname like '%2' and not attisdropped`
        )
        expect(column).toEqual({ required: true })
      })
    )

    it.effect("covers what is written without it until the switch, batch for batch, and no record twice", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, runner, schema } = yield* makeWorld
        yield* domain()
        const n = { name: "n", type: "integer", required: true }
        yield* apply(define({ object: "late", fields: [n] }))
        const table = `${schema}.late_v1`
        yield* look(insertSql(table, "n", "n", 1, 2_500))
        const spec = define({ object: "late", fields: [n, { ...n, name: "twice", backfill: "self.n * 2" }] })
        const origin = { source: "folder", namespace: "shop-eu", name: "late" }
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        // an old replica writes after each transaction of the plan, with ids before and behind what was read
        let written = 2_500
        let batches = 0
        const writing = {
          ...runner,
          transaction: ((f) =>
            Effect.tap(runner.transaction(f), () =>
              Effect.gen(function* () {
                const [serving] = yield* look(
                  "select serving::text like '%twice%' as switched from platform.schema_defs where path = $1",
                  [`${chain}/late/v1`]
                )
                if (serving?.switched === true) return
                batches += 1
                written += 2
                yield* look(
                  `insert into ${table} (id, created_at, created_by, updated_at, updated_by, n)
                   values (('00000000-0000-7000-0000-' || lpad($1::text, 12, '0'))::uuid, now(), 'y', now(), 'y', $1),
                     (('00000000-0000-7000-9000-' || lpad($1::text, 12, '0'))::uuid, now(), 'y', now(), 'y', $1)`,
                  [written]
                ).pipe(Effect.orDie)
              }).pipe(Effect.orDie)
            )) as typeof runner.transaction
        }
        const done = yield* Evolution.provision(writing, {
          spec,
          origin,
          approval: { hash: plan.hash, by: "tests/approver" }
        })
        expect(done._tag).toBe("Applied")
        expect(batches).toBeGreaterThan(4)
        const [row] = yield* look(
          `select count(*)::int4 as n, count(*) filter (where twice = n * 2)::int4 as same from ${table}`
        )
        expect(row).toEqual({ n: written, same: written })
      })
    )

    it.effect("names the records that it errs for, quotes no value, and serves what was served", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, schema } = yield* makeWorld
        yield* domain()
        const s = { name: "s", type: "string" }
        yield* apply(define({ object: "errs", fields: [s] }))
        yield* look(insertSql(`${schema}.errs_v1`, "s", "case when n = 2 then null else 'secret-' || n end", 1, 3))
        const spec = define({
          object: "errs",
          fields: [s, { name: "t", type: "string", required: true, maxLength: 7, backfill: "self.s" }]
        })
        const plan = yield* provision(spec)
        if (plan._tag !== "Planned") return yield* Effect.die(plan)
        const ended = yield* provision(spec, plan.hash)
        expect(ended).toMatchObject({ _tag: "Conflicting" })
        if (ended._tag !== "Conflicting") return
        expect(ended.message).toBe(
          "records that are there contradict it: give t what its backfill says: it cannot be computed for 3 of 3: " +
            "00000000-0000-7000-8000-000000000001 (at most 7 characters), 00000000-0000-7000-8000-000000000002 (it errs), 00000000-0000-7000-8000-000000000003 (at most 7 characters)"
        )
        const [row] = yield* look(
          "select serving::text like '%backfill%' as served, (select state from platform.plans p where p.path = s.path order by created_at desc limit 1) as plan from platform.schema_defs s where path = $1",
          [`${chain}/errs/v1`]
        )
        expect(row).toEqual({ served: false, plan: "Conflict" })
        // what the plan left is cleared away, and the records are as they were
        const mended = define({
          object: "errs",
          fields: [s, { name: "t", type: "string", required: true, maxLength: 8, backfill: "has(self.s) ? 's' : '-'" }]
        })
        const again = yield* provision(mended)
        if (again._tag !== "Planned") return yield* Effect.die(again)
        expect(yield* provision(mended, again.hash)).toMatchObject({ _tag: "Applied" })
        expect(yield* look(`select s, t from ${schema}.errs_v1 order by id`)).toEqual([
          { s: "secret-1", t: "s" },
          { s: null, t: "-" },
          { s: "secret-3", t: "s" }
        ])
      })
    )

    it.effect("is refused where it cannot be compiled, or is for what it is not", () =>
      Effect.sync(() => {
        const faultsOf = (field: Record<string, unknown>) => {
          const spec = definition("acme", {
            fields: [
              { name: "s", type: "string" },
              { name: "f", type: "string", ...field }
            ]
          })
          return [...admit(spec), ...backfillFaults(spec)].map((one) => `${one.pointer}: ${one.detail}`)
        }
        const at = "/fields/1/backfill"
        expect(faultsOf({ required: true, backfill: "self.s" })).toEqual([])
        expect(faultsOf({ backfill: "self.s" })).toEqual([`${at}: backfill is for required fields`])
        expect(faultsOf({ required: true, type: "json", backfill: "self.s" })).toEqual([
          `${at}: a json value is not computed: give the field a default`
        ])
        expect(faultsOf({ required: true, backfill: "self." })[0]).toContain(`${at}: does not parse`)
        expect(faultsOf({ required: true, backfill: "self.nothing" })).toEqual([`${at}: there is no field nothing`])
        expect(faultsOf({ required: true, backfill: "old.s" })).toEqual([`${at}: there is no old record`])
        const spec = definition("acme", {
          fields: [
            { name: "s", type: "string" },
            { name: "f", type: "number", precision: 3, scale: 1, required: true, backfill: "self.s" }
          ]
        })
        const compute = compileBackfill(spec, "f")
        expect(compute({ s: "1.5" }, 0)).toEqual({ value: new ExactNumber("1.5") })
        expect(compute({ s: "one" }, 0)).toEqual({ error: "it errs" })
        expect(compute({ s: "1.25" }, 0)).toHaveProperty("error")
        expect(compute({}, 0)).toEqual({ error: "it errs" })
      })
    )
  }
)
