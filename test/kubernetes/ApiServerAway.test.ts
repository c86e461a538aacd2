/**
 * The API server away: for longer than the Lease, where the leader ends and another one takes over when it is back, and for
 * less than it, where the leader goes on. What was applied, deleted or lost around it is picked up, by one writer.
 */
import { layer } from "@effect/vitest"
import { Duration, Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import * as Run from "../cli/Run.ts"
import { freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { binding, definition, namespacesOf, parents } from "./Manifests.ts"
import { objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, force, isGone, provisioned, read, ready, readyIs, remove } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const fields = (...names: ReadonlyArray<string>) => ({ fields: names.map((name) => ({ name, type: "string" })) })

const epochOf = ({ superuserUrl }: TestDatabase) =>
  Effect.map(query(superuserUrl, "select epoch::int4 as epoch from platform.operator_term"), (rows) => rows[0]?.epoch)

/** The log of what became of each definition, in order. */
const acts = ({ superuserUrl }: TestDatabase) =>
  Effect.map(
    query(
      superuserUrl,
      "select schema_path || ' ' || action as act from platform.audit_log where schema_path is not null and actor like 'operator/%' order by occurred_at, seq"
    ),
    (rows) => rows.map((row) => String(row.act))
  )

const bound = ({ org, superuserUrl }: TestDatabase) =>
  query(superuserUrl, "select actor from platform.role_bindings where revoked_at is null and chain like $1 || '/%'", [
    org
  ])

const leads = "leader by the Lease"

layer(Layer.empty, { excludeTestServices: true })("an API server that is away", (it) => {
  it.effect("for longer than the Lease ends the leader; one takes over when it is back, and nothing is lost", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const operate = Effect.gen(function* () {
        const running = Run.start(["operator"], {
          KUBECONFIG: cluster.kubeconfig,
          VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
          VELOCITY_OPERATOR_PORT: "0"
        })
        yield* Effect.addFinalizer(() => Effect.sync(() => running.process.kill("SIGKILL")))
        return running
      })
      const [kept, changed, dropped] = [definition(org, "kept"), definition(org, "changed"), definition(org, "dropped")]
      const alice = binding(org, "alice")
      yield* apply(...namespacesOf(org), ...parents(org), kept, changed, dropped, alice)
      const one = yield* operate
      yield* Effect.promise(() => one.says(leads))
      const two = yield* operate
      yield* Effect.promise(() => two.says("health and metrics at"))
      for (const object of [kept, changed, dropped]) yield* provisioned(object)
      yield* ready(alice)
      const before = yield* acts(database)
      expect(yield* epochOf(database)).toBe(1)

      yield* Effect.promise(() => cluster.killApiServer())
      const ended = yield* Effect.promise(() => one.ended)
      expect(ended.code).toBe(1)
      expect(ended.out + ended.err).toMatch(/Lease (has run out|could not be renewed in time)/u)
      // as a Deployment starts it again; it stands by, as the other one does, without an API server to ask
      const three = yield* operate
      yield* Effect.promise(() => three.says("health and metrics at"))
      expect([two.process.exitCode, three.process.exitCode]).toEqual([null, null])
      expect(yield* epochOf(database)).toBe(1)
      expect(yield* acts(database)).toEqual(before)

      yield* Effect.promise(() => cluster.startApiServer())
      // before anybody may lead: something new, something else, something deleted and something lost
      const fresh = definition(org, "fresh")
      yield* apply(fresh, definition(org, "changed", fields("a", "b")))
      yield* remove(dropped)
      yield* force(alice)
      const leader = yield* Effect.promise(() =>
        Promise.race([two.says(leads).then(() => two), three.says(leads).then(() => three)])
      )
      yield* provisioned(fresh)
      yield* Effect.promise(() =>
        until("the change is made", async () => {
          const found = await Effect.runPromise(read(changed))
          const is = found?.status?.conditions?.find(({ type }) => type === "Provisioned")
          return is?.status === "True" && is.observedGeneration === 2
        })
      )
      yield* isGone(dropped)
      yield* Effect.promise(() =>
        until("the binding ends", async () => (await Effect.runPromise(bound(database))).length === 0)
      )
      expect(yield* epochOf(database)).toBe(2)
      // each act once, by one writer
      const path = (object: string) => `${org}/shop/eu/${object}/v1`
      const after = (yield* acts(database)).slice(before.length)
      expect(after.map((act) => act.split(" ")[0]).toSorted()).toEqual([
        path("changed"),
        path("dropped"),
        path("fresh")
      ])
      // the other one never led
      const idle = leader === two ? three : two
      idle.process.kill("SIGTERM")
      const stood = yield* Effect.promise(() => idle.ended)
      expect(stood.out + stood.err).not.toContain(leads)
      leader.process.kill("SIGTERM")
      expect((yield* Effect.promise(() => leader.ended)).code).toBe(0)
      expect(yield* epochOf(database)).toBe(2)
    })
  )

  it.effect("for less than the Lease leaves the leader in its term, which sees what it missed", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const [kept, changed, alice] = [definition(org, "kept"), definition(org, "changed"), binding(org, "alice")]
      yield* apply(...namespacesOf(org), ...parents(org), kept, changed, alice)
      const operator = yield* startOperator({
        database,
        kubeconfig: cluster.kubeconfig,
        lease: Duration.minutes(30)
      })
      for (const object of [kept, changed, alice]) yield* ready(object)
      const before = yield* acts(database)
      for (const round of [2, 3]) {
        yield* Effect.promise(() => cluster.killApiServer())
        yield* Effect.promise(() => cluster.startApiServer())
        const names = ["a", "b", "c"].slice(0, round)
        yield* apply(definition(org, "changed", fields(...names)))
        yield* readyIs(
          changed,
          "is changed",
          ({ observedGeneration, status }) => status === "True" && observedGeneration === round
        )
      }
      yield* force(alice)
      yield* Effect.promise(() =>
        until("the binding ends", async () => (await Effect.runPromise(bound(database))).length === 0)
      )
      yield* operator.look
      expect(yield* epochOf(database)).toBe(1)
      expect((yield* acts(database)).slice(before.length)).toHaveLength(2)
    })
  )
})
