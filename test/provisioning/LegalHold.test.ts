/** A legal hold on a domain keeps what an approved plan would lose, before it begins and in its middle. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import { refuseHeld } from "../../src/provisioning/table/LegalHold.ts"
import { query, withDatabase } from "../support/Database.ts"
import { makeWorld, originOf, refusalOf } from "./World.ts"

layer(withDatabase(Layer.mergeAll(OperatorSql.layer)), { excludeTestServices: true })("a legal hold", (it) => {
  /** A definition with three records whose field `gone` goes and whose `n` is rounded, and the plan of that. */
  const prepared = Effect.fnUntraced(function* (object: string) {
    const world = yield* makeWorld
    yield* world.domain()
    yield* world.apply(
      world.define({
        object,
        fields: [
          { name: "n", type: "number", precision: 12, scale: 4 },
          { name: "gone", type: "string" }
        ]
      })
    )
    const table = `${world.schema}.${object}_v1`
    yield* world.look(
      `insert into ${table} (id, created_at, created_by, updated_at, updated_by, n, gone)
       select gen_random_uuid(), now(), 'x', now(), 'x', i + 0.1234, 'g' || i from generate_series(1, 3) i`
    )
    const spec = world.define({ object, fields: [{ name: "n", type: "number", precision: 6, scale: 2 }] })
    const plan = yield* world.provision(spec)
    if (plan._tag !== "Planned") return yield* Effect.die(plan)
    const rows = world.look(`select n::text as n, gone from ${table} order by n`)
    const hold = Effect.map(
      query(world.database.operatorUrl, "select platform.hold_place($1, 'a case', 'court')::text as id", [world.chain]),
      ([placed]) =>
        query(world.database.operatorUrl, "select platform.hold_lift($1::uuid, 'settled', 'court')", [placed?.id])
    )
    const planState = Effect.map(
      world.look("select state from platform.plans where path = $1", [`${world.chain}/${object}/v1`]),
      (found) => found.map((one) => one.state)
    )
    return { ...world, hold, plan, planState, rows, spec }
  })
  const before = [1, 2, 3].map((n) => ({ n: `${n}.1234`, gone: `g${n}` }))

  it.effect("leaves an approved plan waiting that would lose data, until it is lifted", () =>
    Effect.gen(function* () {
      const { hold, plan, planState, provision, rows, spec } = yield* prepared("early")
      const lift = yield* hold
      expect(yield* refusalOf(provision(spec, plan.hash))).toBe("LegalHold")
      expect([yield* planState, yield* rows]).toEqual([["Waiting"], before])
      // it is told as it was
      expect(yield* provision(spec)).toMatchObject({ _tag: "Planned", state: "Waiting", hash: plan.hash })
      yield* lift
      expect(yield* provision(spec, plan.hash)).toMatchObject({ _tag: "Applied" })
    })
  )

  it.effect("that comes in the middle of a plan stops it before the step that loses data", () =>
    Effect.gen(function* () {
      const { chain, hold, plan, planState, provision, rows, runner, spec } = yield* prepared("middle")
      const approval = { hash: plan.hash, by: "tests/approver" }
      const one = yield* Evolution.provision(runner, { spec, origin: originOf("middle"), approval }, 0)
      expect(one._tag).toBe("Evolving")
      const lift = yield* hold
      expect(yield* refusalOf(provision(spec, plan.hash))).toBe("LegalHold")
      expect([yield* planState, yield* rows]).toEqual([["Running"], before])
      yield* lift
      expect(yield* provision(spec, plan.hash)).toMatchObject({ _tag: "Applied", path: `${chain}/middle/v1` })
      expect(yield* planState).toEqual(["Done"])
    })
  )

  it.effect("waits with its placing for what has looked and found none", () =>
    Effect.gen(function* () {
      const { chain, database, sql } = yield* prepared("race")
      const placed = yield* sql.transaction((tx) =>
        Effect.gen(function* () {
          yield* refuseHeld(tx, chain)
          return yield* sql
            .transaction((other) =>
              Effect.andThen(
                other.query(statement("select set_config('lock_timeout', '200ms', true)")),
                other.query(statement("select platform.hold_place($1, 'a case', 'court')::text as id", [chain]))
              )
            )
            .pipe(Effect.flip)
        })
      )
      expect(placed).toMatchObject({ reason: { _tag: "LockTimeout" } })
      const [holds] = yield* query(
        database.operatorUrl,
        "select count(*)::int4 as n from platform.legal_holds where chain = $1 and lifted_at is null",
        [chain]
      )
      expect(holds).toEqual({ n: 0 })
    })
  )
})
