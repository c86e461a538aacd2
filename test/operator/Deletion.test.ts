/**
 * Definitions and domains that are deleted under `deletionPolicy: Delete`: nothing is destroyed that a replica serves, that a
 * legal hold keeps or that was deleted under `Retain`; whoever is stopped in between goes on; and all of it is in the log.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer, Schedule, Scope } from "effect"
import { describe, expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { run } from "../cli/Run.ts"
import { configOf, freshDatabase, query } from "../support/Database.ts"
import { manifest, specOf } from "./FolderManifests.ts"

const a = { name: "a", type: "string" }

/** A folder, an operator that looks at it whenever it is asked to, and what is in the database. */
const world = Effect.gen(function* () {
  const database = yield* freshDatabase
  const { org } = database
  const schema = `${org}_shop_eu`
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-deletion-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
  /** Makes the folder hold a domain of this policy (undefined: none) and definitions of these objects. */
  const become = (policy: string | undefined, ...objects: ReadonlyArray<string>) =>
    Effect.promise(() =>
      writeFile(
        join(folder, "all.yaml"),
        [
          manifest("Organisation", undefined, org, { org }),
          manifest("Application", org, "shop", { org, app: "shop" }),
          ...(policy === undefined
            ? []
            : [manifest("Domain", `${org}-shop`, "eu", { org, app: "shop", domain: "eu", deletionPolicy: policy })]),
          ...objects.map((object) => manifest("SchemaDefinition", `${org}-shop-eu`, object, specOf(org, object, [a])))
        ].join("\n---\n")
      )
    )
  /** An operator at work until the scope closes. */
  const operator = Effect.gen(function* () {
    const layer = Operator.layerWithSql({ manifests: folder, quiet: Duration.zero }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(database)))
    )
    const context = yield* Layer.buildWithScope(layer, yield* Scope.Scope)
    const status = yield* OperatorStatus.pipe(Effect.provide(context))
    yield* status.settled
    yield* status.look
    const said = (object: string) => {
      const one = status.resources().find(({ identity }) => identity.endsWith(`/${object}`))
      const ready = one?.conditions.find(({ type }) => type === "Ready")
      return ready === undefined ? undefined : `${ready.reason}: ${ready.message}`
    }
    return { look: status.look, said }
  })
  const there = (object: string) =>
    Effect.map(look("select to_regclass($1) is not null as there", [`${schema}.${object}_v1`]), ([row]) => row?.there)
  const stateOf = (object: string) =>
    Effect.map(
      look("select state from platform.schema_defs where path = $1", [`${org}/shop/eu/${object}/v1`]),
      ([row]) => row?.state
    )
  const acts = Effect.map(
    look(
      `select action, schema_path as path from platform.audit_log
       where action in ('operator.schema.withdraw', 'operator.schema.drop', 'operator.domain.withdraw', 'operator.domain.drop', 'operator.orphan.drop')
       order by occurred_at, id`
    ),
    (rows) => rows.map((row) => `${row.action} ${String(row.path ?? "").split("/")[3] ?? ""}`.trim())
  )
  const roles = Effect.map(
    look("select count(*)::int4 as n from pg_roles where rolname ~ $1", [`^${schema}_(owner|reader|writer|admin)$`]),
    ([row]) => row?.n
  )
  const velocity = (...args: ReadonlyArray<string>) =>
    Effect.promise(() => run(["orphan", ...args], { VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl }))
  const fill = (object: string) =>
    look(
      `insert into ${schema}.${object}_v1 (id, created_at, created_by, updated_at, updated_by, a)
       select gen_random_uuid(), now(), 'x', now(), 'x', 'a' || n from generate_series(1, 3) n`
    )
  const chain = `${org}/shop/eu`
  /** A replica serves it, and is slow to say anything else. */
  const hasBehind = Effect.fnUntraced(function* (object: string) {
    const [row] = yield* look(
      "select id::int4 as id, generation::text as generation from platform.schema_defs where path = $1",
      [`${chain}/${object}/v1`]
    )
    for (const what of [`${row?.id}, ${row?.generation}, null`, "null, null, null"]) {
      yield* query(database.apiUrl, `select platform.registry_ack('slow', ${what})`)
    }
  })
  /** Places a legal hold; answers what lifts it. */
  const hold = Effect.map(
    query(database.operatorUrl, "select platform.hold_place($1, 'a case', 'court')::text as id", [chain]),
    ([placed]) => query(database.operatorUrl, "select platform.hold_lift($1::uuid, 'settled', 'court')", [placed?.id])
  )
  return {
    acts,
    become,
    chain,
    database,
    fill,
    hasBehind,
    hold,
    look,
    operator,
    org,
    roles,
    schema,
    stateOf,
    there,
    velocity
  }
})

/** Asks until it is so. */
const until = <A, E>(effect: Effect.Effect<A, E>, isSo: (value: A) => boolean) =>
  Effect.repeat(effect, { until: isSo, schedule: Schedule.spaced("50 millis") })

describe("deletion", () => {
  it.live("destroys the records of a definition, and what the domain had when that goes too, and says so", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { acts, become, chain, fill, look, operator, roles, stateOf, there } = yield* world
        yield* become("Delete", "thing")
        const { look: again } = yield* operator
        yield* fill("thing")
        yield* become("Delete")
        yield* again
        expect([yield* there("thing"), yield* there("thing_v1_history"), yield* stateOf("thing")]).toEqual([
          false,
          false,
          "Dropped"
        ])
        expect(yield* look("select pg_name from platform.names where path like $1", [`${chain}/%`])).toEqual([])
        expect(yield* acts).toEqual(["operator.schema.drop thing"])
        expect(yield* roles).toBe(4)
        yield* become(undefined)
        yield* again
        expect(yield* roles).toBe(0)
        expect(yield* look("select from pg_namespace where nspname = $1", [chain.replaceAll("/", "_")])).toEqual([])
        expect(yield* acts).toEqual(["operator.schema.drop thing", "operator.domain.withdraw", "operator.domain.drop"])
        // the path is still its own, and begins anew
        yield* become("Delete", "thing")
        yield* again
        expect([yield* roles, yield* there("thing"), yield* stateOf("thing")]).toEqual([4, true, "Serving"])
        expect(yield* look(`select count(*)::int4 as n from ${chain.replaceAll("/", "_")}.thing_v1`)).toEqual([
          { n: 0 }
        ])
        // a definition and its domain that go at once go in their order
        yield* become(undefined)
        yield* again
        expect([yield* roles, yield* stateOf("thing")]).toEqual([0, "Dropped"])
      })
    )
  )

  it.live("waits for a legal hold, which serves on until it is lifted", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { become, chain, fill, hold, operator, stateOf, there } = yield* world
        yield* become("Delete", "thing")
        const { look: again, said } = yield* operator
        yield* fill("thing")
        const lift = yield* hold
        yield* become("Delete")
        yield* again
        expect(said("thing")).toBe(`LegalHold: ${chain} is under a legal hold: a case`)
        expect([yield* there("thing"), yield* stateOf("thing")]).toEqual([true, "Serving"])
        // the operator hears of its end
        yield* lift
        yield* until(stateOf("thing"), (state) => state === "Dropped")
        yield* again
        expect([yield* there("thing"), said("thing")]).toEqual([false, undefined])
      })
    )
  )

  it.live("goes on after an operator that was stopped, and destroys nothing that a replica serves", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { acts, become, chain, database, fill, hasBehind, hold, operator, stateOf, there } = yield* world
        yield* become("Delete", "thing")
        yield* Effect.scoped(operator)
        yield* fill("thing")
        yield* hasBehind("thing")
        yield* become("Delete")
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { said } = yield* operator
            expect(said("thing")).toBe("Withdrawing: served no longer; waits for slow to know it")
          })
        )
        expect([yield* there("thing"), yield* stateOf("thing")]).toEqual([true, "Withdrawing"])
        yield* query(database.apiUrl, "select platform.registry_leave('slow')")
        // placed when serving had ended already
        const lift = yield* hold
        yield* Effect.scoped(
          Effect.gen(function* () {
            const { said } = yield* operator
            expect(said("thing")).toBe(`LegalHold: ${chain} is under a legal hold: a case`)
          })
        )
        expect([yield* there("thing"), yield* stateOf("thing"), yield* acts]).toEqual([true, "Withdrawing", []])
        yield* lift
        yield* Effect.scoped(operator)
        expect([yield* there("thing"), yield* stateOf("thing"), yield* acts]).toEqual([
          false,
          "Dropped",
          ["operator.schema.drop thing"]
        ])
      })
    )
  )

  it.live("destroys nothing that was deleted under Retain, or that the domain says by then is kept", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const {
          acts,
          become,
          chain,
          database,
          fill,
          hasBehind,
          hold,

          operator,
          roles,
          stateOf,
          there,
          velocity
        } = yield* world
        yield* become("Retain", "early", "late", "turned")
        const { look: again } = yield* operator
        yield* fill("early")
        yield* fill("late")
        // its deletion begins under Retain, and is not over when the domain says Delete
        yield* hasBehind("early")
        yield* become("Retain", "late", "turned")
        yield* again
        yield* become("Delete", "late", "turned")
        yield* again
        yield* query(database.apiUrl, "select platform.registry_leave('slow')")
        yield* until(stateOf("early"), (state) => state !== "Withdrawing")
        expect([yield* stateOf("early"), yield* there("early")]).toEqual(["Withdrawn", true])
        yield* become("Delete", "turned")
        yield* again
        expect([yield* stateOf("late"), yield* there("late")]).toEqual(["Dropped", false])
        // and the other way round
        yield* hasBehind("turned")
        yield* become("Delete")
        yield* again
        yield* become("Retain")
        yield* again
        expect(yield* stateOf("turned")).toBe("Withdrawing")
        yield* query(database.apiUrl, "select platform.registry_leave('slow')")
        yield* until(stateOf("turned"), (state) => state !== "Withdrawing")
        expect([yield* stateOf("turned"), yield* there("turned")]).toEqual(["Withdrawn", true])
        yield* become("Delete")
        yield* again
        expect((yield* velocity("drop", `${chain}/turned/v1`, "--yes")).code).toBe(0)
        // what is kept keeps schema and roles, until a person drops it
        yield* become(undefined)
        yield* again
        expect([yield* roles, yield* there("early")]).toEqual([4, true])
        expect((yield* velocity("list")).out).toBe("no orphans\n")
        expect((yield* velocity("list", "--kept")).out).toContain(`${chain}/early/v1`)
        const lift = yield* hold
        expect(yield* velocity("drop", `${chain}/early/v1`, "--yes")).toMatchObject({
          code: 1,
          err: expect.stringContaining("legal hold: a case")
        })
        yield* lift
        expect((yield* velocity("drop", `${chain}/early/v1`, "--yes")).code).toBe(0)
        expect([yield* roles, yield* stateOf("early")]).toEqual([0, "Dropped"])
        expect((yield* velocity("list", "--kept")).out).toBe("nothing is kept\n")
        expect(yield* acts).toEqual([
          "operator.schema.withdraw early",
          "operator.schema.drop late",
          "operator.schema.withdraw turned",
          "operator.orphan.drop turned",
          "operator.domain.withdraw",
          "operator.orphan.drop early",
          "operator.domain.drop"
        ])
      })
    )
  )

  it.live("leaves what somebody else made of the records, and says what it is", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { become, look, operator, schema, stateOf, there } = yield* world
        yield* become("Delete", "thing")
        const { look: again, said } = yield* operator
        yield* look(`create view ${schema}.mine as select id from ${schema}.thing_v1`)
        yield* become("Delete")
        yield* again
        expect(said("thing")).toMatch(/^NotOurs: something that is not ours needs .*thing_v1/u)
        expect([yield* there("thing"), yield* stateOf("thing")]).toEqual([true, "Serving"])
      })
    )
  )
})
