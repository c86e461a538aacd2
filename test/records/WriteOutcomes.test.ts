import { describe, layer, it as plain } from "@effect/vitest"
import * as Duration from "effect/Duration"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import { TestClock } from "effect/testing"
import { expect } from "vitest"
import { AuditorTx } from "../../src/postgres/AuditorTx.ts"
import { DatabaseFailure, type Reason } from "../../src/postgres/DatabaseFailure.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import type { Statement } from "../../src/postgres/Statement.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { failureOf } from "../../src/records/type/Failures.ts"
import { WriteRecords } from "../../src/records/WriteRecords.ts"
import { burst, Denials, wideBurst } from "../../src/records/write/Denials.ts"
import { Unknowns } from "../../src/records/write/Unknowns.ts"
import { withDatabase } from "../support/Database.ts"
import { callerOf, idOf, makeWorld, refusalOf } from "./World.ts"

const admin = callerOf(["admin"])
const things = [
  {
    object: "thing",
    fields: [
      { name: "name", type: "string" },
      { name: "info", type: "json" }
    ]
  },
  { object: "ruled", fields: [{ name: "n", type: "integer" }], validation: { rules: [{ rule: "true", message: "m" }] } }
]

/** A gateway that keeps what it is given. */
const remembering = () => {
  const entries: Array<ReadonlyArray<unknown>> = []
  const keep = Layer.succeed(
    GatewayTx,
    GatewayTx.of({
      bundle: (statements: ReadonlyArray<Statement>) => {
        entries.push(...statements.map((one) => one.params))
        return Effect.succeed([])
      },
      run: () => Effect.die("not here")
    })
  )
  return { entries, layer: Denials.layerNoDeps.pipe(Layer.provide(keep)) }
}

describe("Denials", () => {
  const denial = (actor: string, address: string, outcome: "denied" | "dry_run" = "denied") => ({
    chain: "a/b/c",
    actor,
    address,
    action: "read",
    outcome
  })
  const many = (times: number, one: ReturnType<typeof denial>) =>
    Effect.gen(function* () {
      const denials = yield* Denials
      for (let n = 0; n < times; n++) yield* denials.record(one)
    })

  plain.effect("bounds what an actor leaves, and says afterwards how much was held back", () => {
    const { entries, layer: live } = remembering()
    return Effect.gen(function* () {
      yield* many(burst + 25, denial("dev/mallory", "1.1.1.1"))
      expect(entries).toHaveLength(burst)
      yield* many(1, denial("dev/alice", "1.1.1.1"))
      yield* many(40, denial("dev/mallory", "1.1.1.1", "dry_run"))
      expect(entries).toHaveLength(burst + 1 + 40)
      yield* TestClock.adjust(Duration.minutes(1))
      yield* many(1, denial("dev/mallory", "1.1.1.1"))
      expect(JSON.parse(String(entries.at(-1)?.[6]))).toEqual({ address: "1.1.1.1", suppressed: 25 })
    }).pipe(Effect.provide(live))
  })

  plain.effect("bounds who proves nobody by address, so that one cannot hide the others", () => {
    const { entries, layer: live } = remembering()
    return Effect.gen(function* () {
      yield* many(burst * 3, denial("anonymous", "6.6.6.6"))
      expect(entries).toHaveLength(burst)
      yield* many(1, denial("anonymous", "7.7.7.7"))
      expect(entries).toHaveLength(burst + 1)
      for (let n = 0; n < 20; n++) yield* many(burst, denial("anonymous", `8.8.8.${n}`))
      expect(entries).toHaveLength(wideBurst)
    }).pipe(Effect.provide(live))
  })

  plain.effect("never fails the request that it is about", () => {
    const broken = Layer.succeed(
      GatewayTx,
      GatewayTx.of({
        bundle: () => Effect.fail(new DatabaseFailure({ reason: { _tag: "Unavailable", cause: "gone" } })),
        run: () => Effect.die("not here")
      })
    )
    return many(1, denial("a", "b")).pipe(Effect.provide(Denials.layerNoDeps.pipe(Layer.provide(broken))))
  })
})

describe("Failures", () => {
  const type = {
    path: "a/b/c/d/v1",
    fieldOf: (column: string) => column,
    constraint: (name: string) =>
      name === "uq_1"
        ? ({ kind: "unique", fields: ["x", "y"], code: "unique", detail: "taken" } as const)
        : name === "fk_1"
          ? ({ kind: "foreignKey", fields: ["r"], code: "reference_not_found", detail: "none" } as const)
          : name === "ck_1"
            ? ({ kind: "check", fields: ["n"], code: "min", detail: "at least 0" } as const)
            : undefined
  }
  const cause = new Error("duplicate key value violates … (x)=(secret)")
  const told = (reason: Record<string, unknown>, operation?: "delete") => {
    const outcome = failureOf(type, new DatabaseFailure({ reason: { cause, ...reason } as Reason }), operation)
    return outcome._tag === "StaleDefinition"
      ? "stale"
      : `${outcome.status} ${outcome.code} ${(outcome.errors ?? []).map((one) => one.pointer).join(" ")}`.trim()
  }

  plain("makes of each reason its own problem", () => {
    expect([
      told({ _tag: "Unique", constraint: "uq_1" }),
      told({ _tag: "Unique", constraint: "idempotency_keys_pkey" }),
      told({ _tag: "ForeignKey", constraint: "fk_1", table: "d_v1" }),
      told({ _tag: "ForeignKey", constraint: "fk_1", table: "d_v1" }, "delete"),
      told({ _tag: "ForeignKey", constraint: "fk_other", table: "e_v1" }),
      told({ _tag: "Check", constraint: "ck_1" }),
      told({ _tag: "Check", constraint: "ck_unknown" }),
      told({ _tag: "Check", constraint: "" }),
      told({ _tag: "NotNull", column: "n" }),
      told({ _tag: "InvalidText" }),
      told({ _tag: "OutOfRange" }),
      told({ _tag: "Denied", rowSecurity: true }),
      told({ _tag: "Denied", rowSecurity: false }),
      told({ _tag: "Serialization" }),
      told({ _tag: "Deadlock" }),
      told({ _tag: "LockTimeout" }),
      told({ _tag: "Timeout" }),
      told({ _tag: "Unavailable" }),
      told({ _tag: "CommitUnknown" }),
      told({ _tag: "StaleShape" }),
      told({ _tag: "Platform", code: "VL010", message: "", detail: "" }),
      told({ _tag: "Platform", code: "VL011", message: "", detail: "" }),
      told({ _tag: "Platform", code: "VL020", message: "", detail: "" }),
      told({ _tag: "Platform", code: "VL021", message: "", detail: "" }),
      told({ _tag: "Unexpected", sqlstate: "XX000" })
    ]).toEqual([
      "409 unique_conflict /x /y",
      "409 write_conflict",
      "409 reference_not_found /r",
      "409 still_referenced",
      "409 still_referenced",
      "422 invalid /n",
      "422 invalid",
      "503 unavailable",
      "422 invalid /n",
      "422 invalid",
      "422 invalid",
      "403 row_outside_filter",
      "403 operation_not_granted",
      "409 write_conflict",
      "409 write_conflict",
      "503 lock_timeout",
      "503 timeout",
      "503 unavailable",
      "503 commit_unknown",
      "stale",
      "stale",
      "403 operation_not_granted",
      "409 in_flight",
      "422 idempotency_mismatch",
      "500 internal"
    ])
  })

  plain("tells nothing of what Postgres said", () => {
    const outcome = failureOf(type, new DatabaseFailure({ reason: { _tag: "Unique", constraint: "uq_1", cause } }))
    const { cause: _, ...shown } = outcome as unknown as Record<string, unknown>
    expect(JSON.stringify(shown)).not.toContain("secret")
  })
})

/** How a tenant transaction was used. */
const used = { bundles: 0, statements: 0, runs: 0 }
const counting = Layer.effect(
  TenantTx,
  Effect.map(TenantTx, (inner) =>
    TenantTx.of({
      bundle: (enter, statements, end) => {
        used.bundles += 1
        used.statements += statements.length
        return inner.bundle(enter, statements, end)
      },
      run: (enter, f, end) => {
        used.runs += 1
        return inner.run(enter, f, end)
      }
    })
  )
).pipe(Layer.provide(TenantTx.layer))
const unknowns = Unknowns.layerWith(Duration.zero).pipe(Layer.provide(Layer.mergeAll(GatewayTx.layer, AuditorTx.layer)))
const Live = WriteRecords.layerNoDeps.pipe(
  Layer.provide(Layer.mergeAll(counting, Denials.layer)),
  Layer.provideMerge(unknowns)
)

layer(withDatabase(Live), { excludeTestServices: true })("What a write costs and comes to", (it) => {
  it.effect("sends one bundle of two statements where nothing need be read", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(things, "costs")
      const counted = <A, E, R>(effect: Effect.Effect<A, E, R>) =>
        Effect.gen(function* () {
          Object.assign(used, { bundles: 0, statements: 0, runs: 0 })
          const result = yield* effect
          return [result, { ...used }] as const
        })
      const once = { bundles: 1, statements: 2, runs: 0 }
      const seen = { bundles: 0, statements: 0, runs: 1 }
      const [made, create] = yield* counted(world.create("thing", admin, { name: "a" }))
      expect(create).toEqual(once)
      const id = idOf(made)
      expect((yield* counted(world.patch("thing", admin, id, { name: "b", info: [1] })))[1]).toEqual(once)
      expect((yield* counted(world.put("thing", admin, id, { name: "c" })))[1]).toEqual(once)
      expect((yield* counted(world.remove("thing", admin, id)))[1]).toEqual(once)
      expect((yield* counted(world.restore("thing", admin, id)))[1]).toEqual(once)
      expect((yield* counted(world.patch("thing", admin, id, { info: { a: 1 } })))[1]).toEqual(seen)
      expect((yield* counted(world.patch("thing", admin, id, [{ op: "remove", path: "/name" }])))[1]).toEqual(seen)
      const [ruled, ruledCreate] = yield* counted(world.create("ruled", admin, { n: 1 }))
      expect(ruledCreate).toEqual(once)
      expect((yield* counted(world.patch("ruled", admin, idOf(ruled), { n: 2 })))[1]).toEqual(seen)
      const [, keyed] = yield* counted(world.create("thing", admin, {}, { idempotencyKey: "k" }))
      expect(keyed).toEqual({ bundles: 1, statements: 3, runs: 0 })
    })
  )

  it.effect("asks for the definition in force where it holds another one", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(things, "stale")
      const made = yield* world.create("thing", admin, { name: "a" })
      yield* world.sql(
        "update platform.schema_defs set generation = nextval('platform.generation_seq') where path = $1",
        [`${world.chain}/thing/v1`]
      )
      for (const write of [
        world.create("thing", admin, { name: "b" }),
        world.patch("thing", admin, idOf(made), { name: "b" }),
        world.patch("thing", admin, idOf(made), { info: { a: 1 } }),
        world.remove("thing", admin, idOf(made)),
        world.bulk("thing", admin, [{ name: "b" }])
      ]) {
        expect(yield* refusalOf(write)).toBe("StaleDefinition")
      }
      expect(yield* refusalOf(world.stream("thing", admin, '{"name":"b"}'))).toBe("503 unavailable")
      expect(yield* world.sql(`select version from ${world.table("thing")}`)).toEqual([{ version: 1 }])
    })
  )

  it.effect("asks for it also where its filter admits nothing any more", () =>
    Effect.gen(function* () {
      const roles = [
        { role: "admin", operations: ["create", "read", "update", "delete", "restore"] },
        { role: "store", operations: ["create", "read", "update", "delete", "restore"] }
      ]
      const filter = { field: "name", op: "eq", identity: "attributes.store_id" }
      const world = yield* makeWorld(
        [{ ...things[0], object: "own", access: { roles, rowFilters: [{ role: "store", filter }] } } as never],
        "planned"
      )
      const id = idOf(yield* world.create("own", admin, { name: "a" }))
      const lost = callerOf(["store"])
      expect(yield* refusalOf(world.patch("own", lost, id, { name: "b" }))).toBe("404 not_found")
      yield* world.sql(
        "update platform.schema_defs set generation = nextval('platform.generation_seq') where path = $1",
        [`${world.chain}/own/v1`]
      )
      for (const write of [
        world.patch("own", lost, id, { name: "b" }),
        world.patch("own", lost, id, { info: { a: 1 } }),
        world.remove("own", lost, id),
        world.restore("own", lost, id)
      ]) {
        expect(yield* refusalOf(write)).toBe("StaleDefinition")
      }
    })
  )

  it.effect("enters a lost commit as unknown, and settles it by what is there", () =>
    Effect.gen(function* () {
      const world = yield* makeWorld(things, "unknown")
      const settle = yield* Unknowns
      const id = idOf(yield* world.create("thing", admin, { name: "a" }))
      const [{ event } = {}] = yield* world.sql(
        "select payload->>'event' as event from platform.audit_log where entity_id = $1",
        [id]
      )
      const act = {
        chain: world.chain,
        actor: admin.identity.actor,
        action: "create",
        schemaPath: `${world.chain}/thing/v1`,
        entityId: id,
        requestId: admin.requestId
      }
      yield* settle.settle({ ...act, event: String(event) })
      yield* settle.settle({ ...act, event: "01920000-0000-7000-8000-000000000000", requestId: "other" })
      const entries = yield* Effect.repeat(
        world.sql(
          "select request_id, outcome, payload->>'settled' as settled from platform.audit_log where chain = $1 and outcome <> 'ok' order by request_id = 'other', occurred_at",
          [world.chain]
        ),
        { until: (rows) => rows.length === 4 }
      )
      expect(entries).toEqual([
        { request_id: admin.requestId, outcome: "unknown", settled: null },
        { request_id: admin.requestId, outcome: "unknown", settled: "committed" },
        { request_id: "other", outcome: "unknown", settled: null },
        { request_id: "other", outcome: "failed", settled: "rolled_back" }
      ])
    })
  )
})
