/**
 * What fails again and again stands in the status, and not in the log alone: whose transaction holds the lock that a plan
 * waits for, which records no index takes, and what Postgres says of anything else.
 */
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { describe, expect } from "vitest"
import { a, definition, folderWorld } from "./FolderWorld.ts"

describe("a plan that fails", () => {
  it.live("names whose transaction holds the lock that it waits for, once it is approved, and goes on behind it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, pid, state, table, until, write } = yield* folderWorld
        const renamed = [{ name: "b", type: "string", renamedFrom: ["a"] }]
        yield* write("thing.yaml", definition(org, "thing", renamed))
        const asked = yield* until("thing", "ApprovalRequired: ")
        const hash = /velocity\.sh\/approve-plan is (p\w+)/u.exec(asked)?.[1] ?? ""
        yield* exporter.query("select set_config('role', $1, true)", [`${org}_shop_eu_reader`])
        yield* exporter.query(`lock table ${table} in access share mode`)
        const approved = { "velocity.sh/approve-plan": hash, "velocity.sh/approved-by": "tests" }
        yield* write("thing.yaml", definition(org, "thing", renamed, "v1", approved))
        expect(yield* until("thing", "WaitsForLock: ")).toBe(
          `WaitsForLock: step 1 of 3: policies away; it waits for the transaction of pid ${pid} (velocity_api, an export); it is tried again`
        )
        const conditions = new Map(state("thing")?.conditions.map((one) => [one.type, one]))
        expect(conditions.get("Ready")).toMatchObject({ status: "False", reason: "WaitsForLock" })
        expect(conditions.get("Reconciling")).toMatchObject({ status: "True", reason: "WaitsForLock" })
        expect(conditions.get("Stalled")).toMatchObject({ status: "False" })
        expect(state("thing")?.status).toMatchObject({
          phase: "Evolving",
          plan: { hash, state: "Running", step: 1, steps: expect.any(Array) }
        })
        yield* exporter.query("rollback")
        yield* until("thing", "Provisioned: ")
        expect(yield* look(`select count(b)::int4 as filled from ${table}`)).toEqual([{ filled: 10 }])
      })
    )
  )

  it.live(
    "says of a value that is too long for an index that records contradict it, and builds it not again and again",
    () =>
      Effect.scoped(
        Effect.gen(function* () {
          const { exporter, look, org, table, until, write } = yield* folderWorld
          yield* exporter.query("rollback")
          yield* look(
            `update ${table} set a = (select string_agg(md5(n::text), '') from generate_series(1, 300) n) where a = 'a1'`
          )
          yield* write("thing.yaml", definition(org, "thing", [{ ...a, indexed: true }]))
          expect(yield* until("thing", "DataConflict: ")).toBe(
            "DataConflict: records that are there contradict it: index a: a value is too long for it"
          )
          expect(yield* look("select state, message from platform.plans")).toEqual([
            { state: "Conflict", message: "records that are there contradict it: index a: a value is too long for it" }
          ])
          // whoever takes the value away gets the index with the next change
          yield* look(`update ${table} set a = 'short' where length(a) > 100`)
          yield* write(
            "thing.yaml",
            definition(org, "thing", [
              { ...a, indexed: true },
              { name: "b", type: "string" }
            ])
          )
          yield* until("thing", "Provisioned: ")
        })
      )
  )

  it.live("says what Postgres says of anything else, and ends when that has ended", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, look, org, until, write } = yield* folderWorld
        yield* exporter.query("rollback")
        const owner = `${org}_shop_eu_owner`
        yield* look(`revoke create on schema ${org}_shop_eu from ${owner}`)
        yield* write("thing.yaml", definition(org, "thing", [{ ...a, indexed: true }]))
        expect(yield* until("thing", "Retrying: ")).toBe(
          `Retrying: step 1 of 2: index a; Denied: permission denied for schema ${org}_shop_eu; it is tried again`
        )
        yield* look(`grant create on schema ${org}_shop_eu to ${owner}`)
        yield* until("thing", "Provisioned: ")
      })
    )
  )
})
