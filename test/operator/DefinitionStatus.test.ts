/** What a definition's status says beside its conditions: phase, plan and records, and that a plan of any length fits into it. */
import { it } from "@effect/vitest"
import { Effect, Schedule } from "effect"
import { describe, expect } from "vitest"
import { maxBytes, maxSteps, planStatus, rounded } from "../../src/operator/reconcile/DefinitionStatus.ts"
import { step } from "../../src/provisioning/plan/Plan.ts"
import { manifest, specOf } from "./FolderManifests.ts"
import { a, definition, folderWorld } from "./FolderWorld.ts"

const stepOf = (n: number, sql: string, why?: string) =>
  step("switch", `step ${n}`, [sql], "ACCESS EXCLUSIVE", { estimate: n, ...(why === undefined ? {} : { why }) })

const stepsOf = (count: number, sql: string, why?: string) =>
  Array.from({ length: count }, (_, at) => stepOf(at + 1, sql, why))

interface Shown {
  readonly steps: ReadonlyArray<{ readonly sql?: string }>
  readonly truncated?: boolean
}

const shownOf = (count: number, sql: string, why?: string) =>
  planStatus({ hash: "p1", state: "Waiting", steps: stepsOf(count, sql, why) }) as unknown as Shown

describe("a plan in a status", () => {
  it("is told whole where it fits", () => {
    const shown = planStatus({ hash: "p1", state: "Running", step: 2, steps: stepsOf(2, "select 1", "because") })
    const one = {
      phase: "switch",
      sql: "select 1",
      lock: "ACCESS EXCLUSIVE",
      rewrites: false,
      losesData: false,
      needsApproval: false,
      why: "because"
    }
    expect(shown).toEqual({
      hash: "p1",
      state: "Running",
      step: 2,
      steps: [
        { ...one, does: "step 1", estimate: 1 },
        { ...one, does: "step 2", estimate: 2 }
      ]
    })
  })

  it("is cut at a hundred steps, and says so", () => {
    expect(shownOf(maxSteps, "select 1")).not.toHaveProperty("truncated")
    const shown = shownOf(maxSteps + 1, "select 1")
    expect(shown.steps).toHaveLength(maxSteps)
    expect(shown.truncated).toBe(true)
  })

  it("keeps within its bytes: statements are left out before steps are", () => {
    const long = shownOf(20, "é".repeat(4_000))
    expect(long.steps).toHaveLength(20)
    expect(long.steps.filter(({ sql }) => sql !== undefined).length).toBe(7)
    expect(long.truncated).toBe(true)
    const longer = shownOf(20, "", "é".repeat(4_000))
    expect(longer.steps.length).toBeLessThan(20)
    expect(longer.truncated).toBe(true)
    for (const one of [long, longer]) {
      expect(Buffer.byteLength(JSON.stringify(one))).toBeLessThanOrEqual(maxBytes)
      expect(Buffer.byteLength(JSON.stringify(one))).toBeGreaterThan(maxBytes - 8_300)
    }
  })

  it("has records to one significant digit", () => {
    expect([0, 1, 9, 10, 14, 15, 96, 1_234, 4_711_000].map(rounded)).toEqual([
      0, 1, 9, 10, 10, 20, 100, 1_000, 5_000_000
    ])
  })
})

describe("a definition's status", () => {
  it.live("says of a search, which is kept and not built, that it is not", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, org, until, write } = yield* folderWorld
        yield* exporter.query("rollback")
        const spec = { ...specOf(org, "thing", [a]), search: { fields: ["a"] } }
        yield* write("thing.yaml", manifest("SchemaDefinition", `${org}-shop-eu`, "thing", spec))
        expect(yield* until("thing", "search")).toMatch(
          /^Provisioned: .* is served in generation \d+; search is kept with the definition and is not built: nothing can be searched by it$/u
        )
      })
    )
  )

  it.live("has its phase, the plan that waits, and about how many records there are", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { exporter, org, restart, state, table, until, write } = yield* folderWorld
        yield* exporter.query("rollback")
        expect(state("thing")?.status).toMatchObject({ phase: "Provisioned", pgTable: table, records: 0 })
        // whoever starts looks at once, and then once an hour
        yield* restart(Effect.void)
        yield* Effect.repeat(
          Effect.sync(() => state("thing")?.status.records),
          { until: (records) => records === 10, schedule: Schedule.spaced("20 millis") }
        )
        yield* write("thing.yaml", definition(org, "thing", [{ name: "b", type: "string", renamedFrom: ["a"] }]))
        const asked = yield* until("thing", "ApprovalRequired: ")
        const { phase, plan, records } = state("thing")?.status ?? {}
        expect({ phase, records }).toEqual({ phase: "AwaitingApproval", records: 10 })
        expect(plan).toMatchObject({ hash: expect.stringMatching(/^p[0-9a-f]{32}$/u), state: "Waiting" })
        const { hash, steps } = plan as { hash: string; steps: ReadonlyArray<object> }
        expect(asked).toContain(hash)
        expect(steps).toContainEqual({
          phase: "switch",
          does: "rename a to b",
          sql: expect.stringContaining(`alter table "${org}_shop_eu"."thing_v1" rename column "a" to "b"`),
          lock: "ACCESS EXCLUSIVE",
          rewrites: false,
          losesData: false,
          needsApproval: true,
          why: expect.any(String)
        })
        // taken back, there is none
        yield* write("thing.yaml", definition(org, "thing", [a]))
        yield* until("thing", "Provisioned: ")
        expect(state("thing")?.status).not.toHaveProperty("plan")
      })
    )
  )
})
