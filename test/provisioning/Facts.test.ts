/** How many rows a plan takes a table for, and a status says: counted while they are few, and never one of thousands. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { recordsOf } from "../../src/provisioning/RecordsEstimate.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld } from "./World.ts"

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "how many records there are",
  (it) => {
    it.effect("is known without statistics, exactly of a small table and about of a large one", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, provision, schema, sql } = yield* makeWorld
        yield* domain()
        const fields = [{ name: "a", type: "string" }]
        yield* apply(define({ object: "many", fields }))
        // no statistics ever come
        yield* look(`alter table ${schema}.many_v1 set (autovacuum_enabled = false)`)
        const records = (object: string) => sql.transaction((tx) => recordsOf(tx, `${chain}/${object}/v1`))
        const insert = (from: number, to: number) =>
          look(
            `insert into ${schema}.many_v1 (id, created_at, created_by, updated_at, updated_by, a)
             select gen_random_uuid(), now(), 'x', now(), 'x', repeat('a', 30) from generate_series(${from}, ${to})`
          )
        expect(yield* records("many")).toBe(0)
        yield* insert(1, 3)
        expect(yield* records("many")).toBe(3)
        yield* insert(4, 40_000)
        const about = yield* records("many")
        expect(about).toBeGreaterThan(20_000)
        expect(about).toBeLessThan(80_000)
        const planned = yield* provision(define({ object: "many", fields: [{ name: "b", type: "string" }] }))
        expect(planned).toMatchObject({ _tag: "Planned" })
        if (planned._tag !== "Planned") return
        const dropped = planned.steps.find((one) => one.does === "drop field a")
        expect(dropped?.why).toBe(`of about ${about} records`)
        expect(yield* records("none")).toBe(undefined)
      })
    )
  }
)
