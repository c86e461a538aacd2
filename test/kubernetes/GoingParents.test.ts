/**
 * A parent that is deleted waits for its children, and takes nothing from them meanwhile (fine print 27), though its operator
 * starts again: not the strategy that they inherit, nor their being Ready. A child is also what Postgres has of one that is
 * gone from the cluster.
 */
import { layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import * as Run from "../cli/Run.ts"
import { freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install } from "./Installed.ts"
import { application, definition, domain, namespacesOf, organisation, strategy } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, condition, force, isGone, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** Starts one, and answers what it tells and how it is stopped. */
const operate = Effect.fnUntraced(function* (database: TestDatabase) {
  const scope = yield* Scope.fork(yield* Scope.Scope)
  const status = yield* startOperator({ database, kubeconfig: cluster.kubeconfig }).pipe(Scope.provide(scope))
  return { status, stop: Scope.close(scope, Exit.void) }
})

const trusted = ({ org, superuserUrl }: TestDatabase) =>
  Effect.map(
    query(superuserUrl, "select auth_strategy from platform.domains where chain = $1", [`${org}/shop/eu`]),
    ([row]) => row?.auth_strategy
  )

layer(Layer.empty, { excludeTestServices: true })("a parent that is deleted", (it) => {
  it.effect("keeps for its children what they have of it, until the last has gone", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const naming = { ...organisation(org), spec: { org, authStrategy: `${org}-keys` } }
      const [shop, eu] = [application(org), domain(org)]
      yield* apply(
        ...namespacesOf(org),
        strategy("velocity-system", `${org}-keys`, { type: "apikey" }),
        naming,
        shop,
        eu
      )
      const first = yield* operate(database)
      yield* ready(eu)
      expect(yield* trusted(database)).toBe(`${org}-keys`)
      yield* remove(naming)
      const held = yield* readyIs(naming, "is held", ({ reason }) => reason === "HasChildren")
      expect(held?.message).toContain(`Application/${org}/shop`)
      const unchanged = Effect.gen(function* () {
        expect(yield* trusted(database)).toBe(`${org}-keys`)
        for (const one of [shop, eu]) expect(yield* condition(one, "Ready")).toMatchObject({ status: "True" })
        expect(yield* condition(naming, "Ready")).toMatchObject({ status: "False", reason: "HasChildren" })
      })
      // has every domain looked at
      const other = strategy("velocity-system", `${org}-other`, { type: "apikey" })
      yield* apply(other)
      yield* ready(other)
      yield* first.status.look
      yield* unchanged
      // and one that starts looks at everything
      yield* first.stop
      const second = yield* operate(database)
      yield* second.status.settled
      yield* unchanged
      // an application that goes too waits in its turn, and the organisation for it
      yield* remove(shop)
      yield* readyIs(shop, "is held", ({ reason }) => reason === "HasChildren")
      yield* apply(strategy("velocity-system", `${org}-third`, { type: "apikey" }))
      yield* ready(strategy("velocity-system", `${org}-third`, {}))
      yield* second.status.look
      expect(yield* trusted(database)).toBe(`${org}-keys`)
      expect(yield* condition(eu, "Ready")).toMatchObject({ status: "True" })
      yield* remove(eu)
      for (const one of [eu, shop, naming]) yield* isGone(one)
      expect(yield* trusted(database)).toBeNull()
    })
  )

  it.effect("waits for an orphan, whatever its operator knows of itself", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const [shop, eu, thing] = [application(org), domain(org, { authStrategy: "keys" }), definition(org, "thing")]
      yield* apply(
        ...namespacesOf(org),
        strategy("velocity-system", "keys", { type: "apikey" }),
        organisation(org),
        shop,
        eu,
        thing
      )
      const first = yield* operate(database)
      yield* ready(thing)
      yield* force(thing)
      yield* first.status.look
      yield* remove(eu)
      const waits = ({ message, reason }: { readonly message: string; readonly reason: string }) =>
        reason === "HasChildren" && message.includes(`SchemaDefinition/${org}-shop-eu/thing`)
      yield* readyIs(eu, "waits for the orphan", waits)
      yield* first.stop
      // as of a database that was restored, or an operator that was killed before it had said anything
      yield* query(database.superuserUrl, "delete from platform.resource_status where kind = 'Domain'")
      const second = yield* operate(database)
      yield* second.status.settled
      yield* readyIs(eu, "waits for the orphan", waits)
      yield* remove(shop)
      yield* readyIs(shop, "waits for the domain", ({ reason }) => reason === "HasChildren")
      expect(yield* trusted(database)).toBe("keys")
      expect(
        yield* query(database.superuserUrl, "select serving is not null as served from platform.schema_defs")
      ).toEqual([{ served: true }])
      const released = yield* Effect.promise(() =>
        Run.run(["orphan", "release", `${org}/shop/eu/thing/v1`], {
          VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl
        })
      )
      expect(released.code).toBe(0)
      for (const one of [eu, shop]) yield* isGone(one)
      expect(yield* trusted(database)).toBeNull()
    })
  )
})
