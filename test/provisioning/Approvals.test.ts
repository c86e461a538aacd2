/** Approvals: each is for one plan, has one effect, and is told from one that was overtaken; what waits is left in peace. */
import { layer } from "@effect/vitest"
import { Effect } from "effect"
import { expect } from "vitest"
import type { ResourceOf } from "../../src/domain/Resource.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
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
})
