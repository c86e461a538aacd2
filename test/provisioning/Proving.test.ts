/**
 * A constraint is proved of the rows that are there outside transactions: reading them all takes as long as it takes, and a
 * transaction of the term would keep the domain's other changes, and an operator's successor, waiting for it.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import { OperatorSql, type Tx } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld, originOf } from "./World.ts"

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "what is proved of the rows that are there",
  (it) => {
    it.effect("is proved in no transaction, and once, though whoever proved it died before he could say so", () =>
      Effect.gen(function* () {
        const { apply, chain, define, domain, look, runner, schema } = yield* makeWorld
        yield* domain()
        yield* apply(define({ object: "proved", fields: [{ name: "n", type: "integer" }] }))
        yield* look(
          `insert into ${schema}.proved_v1 (id, created_at, created_by, updated_at, updated_by, n)
           select gen_random_uuid(), now(), 'x', now(), 'x', n from generate_series(1, 3) n`
        )
        const path = `${chain}/proved/v1`
        const inside: Array<string> = []
        const outside: Array<string> = []
        const listening = (tx: Tx): Tx => ({
          ...tx,
          query: (asked) =>
            Effect.andThen(
              Effect.sync(() => inside.push(asked.sql)),
              tx.query(asked)
            )
        })
        let dies = true
        const listened: Evolution.Runner = {
          ...runner,
          transaction: (f) => runner.transaction((tx) => f(listening(tx))),
          alone: (f, options) =>
            runner
              .alone(
                (query) =>
                  f((asked) =>
                    Effect.andThen(
                      Effect.sync(() => outside.push(asked.sql)),
                      query(asked)
                    )
                  ),
                options
              )
              .pipe(Effect.tap(() => (dies ? Effect.die("killed") : Effect.void)))
        }
        const wanted = {
          spec: define({ object: "proved", fields: [{ name: "n", type: "integer", max: "9", required: true }] }),
          origin: originOf("proved")
        }
        const planned = yield* Evolution.provision(listened, wanted)
        if (planned._tag !== "Planned") return yield* Effect.die(planned)
        const approved = { ...wanted, approval: { hash: planned.hash, by: "tests/approver" } }
        const states = () =>
          look(
            `select s.does, s.state from platform.plan_steps s join platform.plans p on p.id = s.plan_id
             where p.path = $1 and s.phase = 'validate' order by s.position`,
            [path]
          )
        expect((yield* Effect.exit(Evolution.provision(listened, approved)))._tag).toBe("Failure")
        // it is proved, and nobody knows
        expect((yield* states()).map((one) => one.state)).toEqual(["Running", "Pending", "Pending"])
        dies = false
        expect(yield* Evolution.provision(listened, approved)).toMatchObject({ _tag: "Applied" })
        expect((yield* states()).map((one) => one.state)).toEqual(["Done", "Done", "Done"])
        const proofs = (texts: ReadonlyArray<string>) => texts.filter((one) => one.includes("validate constraint"))
        expect(proofs(inside)).toEqual([])
        expect(proofs(outside)).toHaveLength(3)
        expect(
          yield* look("select state, count(*)::int4 as plans from platform.plans where path = $1 group by 1", [path])
        ).toEqual([{ state: "Done", plans: 1 }])
        expect(
          yield* look(
            "select count(*)::int4 as unproved from pg_constraint where conrelid = $1::regclass and not convalidated",
            [`${schema}.proved_v1`]
          )
        ).toEqual([{ unproved: 0 }])
        expect(yield* Evolution.provision(listened, wanted)).toMatchObject({ _tag: "Unchanged" })
      })
    )
  }
)
