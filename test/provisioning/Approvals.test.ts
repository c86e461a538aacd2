/** Approvals: each is for one plan, has one effect, and is told from one that was overtaken; what waits is left in peace. */
import { layer } from "@effect/vitest"
import { Effect } from "effect"
import { expect } from "vitest"
import type { ResourceOf } from "../../src/domain/Resource.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Evolution from "../../src/provisioning/Evolution.ts"
import * as PlanShown from "../../src/provisioning/PlanShown.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld, originOf } from "./World.ts"

const text = (...names: ReadonlyArray<string>) => names.map((name) => ({ name, type: "string" }))

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("approvals", (it) => {
  const prepared = Effect.fnUntraced(function* (object: string) {
    const world = yield* makeWorld
    yield* world.domain()
    const path = `${world.chain}/${object}/v1`
    const table = `${world.schema}.${object}_v1`
    const both = world.define({ object, fields: text("a", "x") })
    const less = world.define({ object, fields: text("a") })
    yield* world.apply(both)
    yield* world.look(
      `insert into ${table} (id, created_at, created_by, updated_at, updated_by, a, x) values (gen_random_uuid(), now(), 'c', now(), 'c', 'a', 'x')`
    )
    const planned = (spec: SchemaDefinitionSpec, approved?: string) =>
      Effect.flatMap(world.provision(spec, approved), (result) =>
        result._tag === "Planned" ? Effect.succeed(result) : Effect.die(result)
      )
    const shown = (spec: SchemaDefinitionSpec) => {
      const definition = { apiVersion: "velocity.sh/v1", kind: "SchemaDefinition", metadata: { name: object }, spec }
      const tx = world.sql.transaction(
        (one) => PlanShown.shown(one, definition as unknown as ResourceOf<"SchemaDefinition">, "folder"),
        { end: "rollback" }
      )
      return Effect.map(tx, ({ hash }) => hash)
    }
    const current = (spec: SchemaDefinitionSpec) =>
      world.sql.transaction((tx) => Provision.current(tx, { spec, origin: originOf(object) }))
    return { ...world, path, table, both, less, planned, shown, current }
  })

  it.effect("have one effect: the same change made again is another plan", () =>
    Effect.gen(function* () {
      const { apply, both, less, look, path, planned, provision, shown, table } = yield* prepared("again")
      const first = yield* planned(less)
      expect(yield* shown(less)).toBe(first.hash)
      expect((yield* provision(less, first.hash))._tag).toBe("Applied")
      yield* apply(both)
      yield* look(`update ${table} set x = 'new'`)
      // the annotation of the first time is still there
      const second = yield* planned(less, first.hash)
      expect(second).toMatchObject({ state: "Waiting", overtaken: false })
      expect(second.hash).not.toBe(first.hash)
      expect(yield* shown(less)).toBe(second.hash)
      expect(yield* planned(less, first.hash)).toMatchObject({ id: second.id, hash: second.hash, state: "Waiting" })
      expect(yield* look(`select x from ${table}`)).toEqual([{ x: "new" }])
      expect((yield* provision(less, second.hash))._tag).toBe("Applied")
      expect(
        yield* look(
          "select plan_hash, approved_by from platform.plans where path = $1 and approved_at is not null order by created_at",
          [path]
        )
      ).toEqual([first, second].map(({ hash }) => ({ plan_hash: hash, approved_by: "tests/approver" })))
    })
  )

  it.effect("that were overtaken are told, whoever gave them and however far their plan had come", () =>
    Effect.gen(function* () {
      const { current, define, look, path, planned, provision, runner, table } = yield* prepared("overtaken")
      const spec = define({ object: "overtaken", fields: [{ name: "a", type: "string", indexed: true }] })
      const first = yield* planned(spec)
      expect(first.overtaken).toBe(false)
      // as `velocity schema approve` does; then the table changes before anybody begins
      const approve = (id: string) => look("update platform.plans set approved_by = 'cli/me' where id = $1::uuid", [id])
      yield* approve(first.id)
      yield* look(`alter table ${table} add column one int4`)
      const second = yield* planned(spec)
      expect(second).toMatchObject({ state: "Waiting", overtaken: true })
      // this one is begun, one turn and no more
      yield* approve(second.id)
      const begun = yield* Evolution.provision(runner, { spec, origin: originOf("overtaken") }, 0)
      expect(begun).toMatchObject({ _tag: "Evolving", position: 1 })
      yield* look(`alter table ${table} add column two int4`)
      const third = yield* planned(spec)
      expect(third).toMatchObject({ state: "Waiting", overtaken: true })
      expect(new Set([first, second, third].map(({ hash }) => hash)).size).toBe(3)
      expect(yield* current(spec)).toMatchObject({ hash: third.hash, overtaken: true })
      // with the annotation of the one that was begun, too
      expect(yield* planned(spec, second.hash)).toMatchObject({ hash: third.hash, overtaken: true })
      expect((yield* provision(spec, third.hash))._tag).toBe("Applied")
      expect(yield* look("select state from platform.plans where path = $1 order by created_at", [path])).toEqual([
        { state: "Overtaken" },
        { state: "Overtaken" },
        { state: "Done" }
      ])
      // that is over: the next plan is no other's successor
      const next = define({ object: "overtaken", fields: text("b") })
      expect(yield* planned(next)).toMatchObject({ state: "Waiting", overtaken: false })
    })
  )

  it.effect("are waited for in peace: a plan that is looked at again and found the same writes nothing but when", () =>
    Effect.gen(function* () {
      const { current, less, look, path, planned, provision, table } = yield* prepared("peace")
      const { hash, id } = yield* planned(less)
      const writes = look(
        `select (select xmin::text from platform.schema_defs where path = $1) as mirror,
          (select xmin::text from platform.plans where id = $2::uuid) as plan, (select count(*)::int4 from platform.plans where path = $1) as plans`,
        [path, id]
      )
      const before = yield* writes
      expect(yield* current(less)).toMatchObject({ hash })
      expect(yield* provision(less)).toMatchObject({ hash, id })
      expect(yield* writes).toEqual(before)
      const age = look(
        "update platform.plans set created_at = created_at - interval '11 minutes', looked_at = looked_at - interval '11 minutes' where id = $1::uuid",
        [id]
      )
      for (const round of [1, 2]) {
        yield* age
        expect(yield* current(less), String(round)).toBeUndefined()
        expect(yield* provision(less)).toMatchObject({ hash, id })
        const after = yield* writes
        expect(after).toMatchObject([{ mirror: before[0]?.mirror, plans: 1 }])
        // and not again before its time
        expect(yield* current(less)).toMatchObject({ hash, id })
        expect(yield* provision(less)).toMatchObject({ hash, id })
        expect(yield* writes).toEqual(after)
      }
      yield* age
      yield* look(`alter table ${table} add column mine int4`)
      expect((yield* planned(less)).hash).not.toBe(hash)
    })
  )

  it.effect("are asked for when a deleted definition is applied again and would lose something", () =>
    Effect.gen(function* () {
      const { apply, both, less, look, planned, provision, table, withdraw } = yield* prepared("back")
      expect(yield* withdraw("back")).toBe("Done")
      const plan = yield* planned(less)
      expect(plan.state).toBe("Waiting")
      expect(plan.steps.filter((one) => one.losesData).map((one) => one.does)).toEqual(["drop field x"])
      expect(yield* look(`select x from ${table}`)).toEqual([{ x: "x" }])
      // as it was it is served again, without being asked
      yield* apply(both)
      expect(yield* withdraw("back")).toBe("Done")
      const again = yield* planned(less)
      expect((yield* provision(less, again.hash))._tag).toBe("Applied")
      expect(yield* look(`select to_jsonb(t) ? 'x' as there, a from ${table} t`)).toEqual([{ there: false, a: "a" }])
    })
  )
})
