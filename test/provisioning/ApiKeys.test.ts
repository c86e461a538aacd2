/** The rows of API keys where two hands are at one name: what is in force stays so until what follows it is. */
import { randomUUID } from "node:crypto"
import { layer } from "@effect/vitest"
import { Effect, Schema } from "effect"
import { expect } from "vitest"
import { ApiKeySpec } from "../../src/domain/ApiKey.ts"
import { newKey } from "../../src/domain/KeyText.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as ApiKeys from "../../src/provisioning/ApiKeys.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld, originOf } from "./World.ts"

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("api keys", (it) => {
  it.effect("are rotated out by the key that follows, and not by one that another hand has replaced", () =>
    Effect.gen(function* () {
      const { look, org, sql, domain } = yield* makeWorld
      yield* domain()
      const spec = Schema.decodeUnknownSync(ApiKeySpec)({
        org,
        app: "shop",
        domain: "eu",
        actor: "keys/till",
        roles: ["buyer"]
      })
      const origin = originOf("till")
      const hand = { actor: "operator/folder", origin }
      const prepared = (serial: number) => {
        const minting = { id: randomUUID(), key: newKey("live"), serial, secretName: `till-${serial}`, rotation: null }
        return Effect.as(
          sql.transaction((tx) => ApiKeys.prepare(tx, spec, minting, origin)),
          minting
        )
      }
      const activated = (minting: ApiKeys.Minting) => sql.transaction((tx) => ApiKeys.activate(tx, spec, minting, hand))
      const states = Effect.map(look("select serial, state from platform.api_keys order by serial"), (rows) =>
        rows.map((row) => `${row.serial} ${row.state}`)
      )
      expect(yield* activated(yield* prepared(1))).toBe(true)
      const late = yield* prepared(2)
      const next = yield* prepared(3)
      expect(yield* activated(late)).toBe(false)
      expect(yield* states).toEqual(["1 Active", "3 Pending"])
      expect(yield* activated(next)).toBe(true)
      expect(yield* states).toEqual(["1 Retiring", "3 Active"])
      // twice over it changes nothing
      expect(yield* activated(next)).toBe(false)
      expect(yield* states).toEqual(["1 Retiring", "3 Active"])
      const entries = yield* look(
        "select payload ->> 'replaces' is not null as replaced from platform.audit_log where action = 'key.create' order by seq"
      )
      expect(entries).toEqual([{ replaced: false }, { replaced: true }])
    })
  )
})
