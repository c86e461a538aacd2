/** A term is taken by who leads, and by nobody else: leadership is asked for before it, and again when its row is locked. */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { Fence, Superseded } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { statement } from "../../src/postgres/Statement.ts"
import { withDatabase } from "../support/Database.ts"

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("a term", (it) => {
  const take = (isTrusted: () => boolean) =>
    Effect.scoped(
      Effect.map(Layer.build(Fence.layerOf({ holder: "one", source: "folder", isTrusted })), () => "taken" as const)
    )
  const epoch = Effect.gen(function* () {
    const sql = yield* OperatorSql
    const { rows } = yield* sql.transaction((tx) =>
      tx.query(statement("select epoch::int4 as epoch from platform.operator_term"))
    )
    return Number(rows[0]?.epoch)
  })

  it.effect("is not taken by one whose leadership ended before it, or while it waited for the term", () =>
    Effect.gen(function* () {
      const before = yield* epoch
      expect(yield* Effect.flip(take(() => false))).toBeInstanceOf(Superseded)
      let asked = 0
      expect(yield* Effect.flip(take(() => ++asked === 1))).toBeInstanceOf(Superseded)
      expect(asked).toBe(2)
      expect(yield* epoch).toBe(before)
      expect(yield* take(() => true)).toBe("taken")
      expect(yield* epoch).toBe(before + 1)
    })
  )
})
