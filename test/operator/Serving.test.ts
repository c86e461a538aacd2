/**
 * The condition `Serving`: what the API's replicas acknowledge, and what becomes of `Ready` by it. One replica is real; of
 * the other, `other`, the test says as velocity_api what a replica would.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Exit, Layer, Redacted, Schedule, Scope, Stream } from "effect"
import { expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { configOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { parents } from "./FolderManifests.ts"

const definition = (org: string, fields: string, roles: string) => `apiVersion: velocity.sh/v1
kind: SchemaDefinition
metadata: { name: thing, namespace: ${org}-shop-eu }
spec:
  org: ${org}
  app: shop
  domain: eu
  object: thing
  version: v1
  fields: [${fields}]
  access: { roles: [${roles}] }
`

const a = "{ name: a, type: string }"
const b = "{ name: b, type: integer }"
const everything =
  "{ role: buyer, operations: [create, read, update, delete, restore, history] }, { role: clerk, operations: [read] }"

/** An operator on a folder with one definition, until the scope closes. */
const world = Effect.gen(function* () {
  const database = yield* freshDatabase
  const { org } = database
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-serving-"))),
    (one) => Effect.promise(() => rm(one, { recursive: true }))
  )
  const write = (fields: string, roles = everything) =>
    Effect.promise(() => writeFile(join(folder, "thing.yaml"), definition(org, fields, roles)))
  yield* Effect.promise(() => writeFile(join(folder, "parents.yaml"), parents(org)))
  yield* write(a)
  const operate = Effect.gen(function* () {
    const scope = yield* Scope.Scope
    const context = yield* Layer.buildWithScope(
      Operator.layerWithSql({ manifests: folder, quiet: Duration.zero }).pipe(
        Layer.provide(ConfigProvider.layer(configOf(database)))
      ),
      scope
    )
    const status = yield* OperatorStatus.pipe(Effect.provide(context))
    yield* status.settled
    const conditions = () => status.resources().find((one) => one.identity.startsWith("SchemaDefinition/"))?.conditions
    const said = () => Object.fromEntries((conditions() ?? []).map((one) => [one.type, `${one.status} ${one.reason}`]))
    const until = (is: (said: Readonly<Record<string, string>>) => boolean) =>
      Stream.merge(Stream.succeed(undefined), status.changes).pipe(
        Stream.takeUntil(() => is(said())),
        Stream.runDrain
      )
    return { status, conditions, said, until }
  })
  const look = (sql: string) => query(database.superuserUrl, sql)
  return { database, folder, write, operate, look }
})

/** What another replica says. */
const other = (database: TestDatabase) => {
  const say = (sql: string) => query(database.apiUrl, sql)
  const generation = "(select generation from platform.schema_defs)"
  return {
    // velocity_api may not read the generation by itself
    acknowledges: (problem?: string) =>
      Effect.flatMap(
        query(database.superuserUrl, `select id, ${generation}::text as generation from platform.schema_defs`),
        ([row]) =>
          say(
            `select platform.registry_ack('other', ${row?.id}, ${row?.generation}, ${problem === undefined ? "null" : `'${problem}'`})`
          )
      ),
    beats: say("select platform.registry_ack('other', null, null, null) as known")
  }
}

const ready = "True Provisioned"
const isReady = (said: Readonly<Record<string, string>>) => said.Ready === ready
const reasonIs = (reason: string) => (said: Readonly<Record<string, string>>) =>
  said.Serving?.endsWith(` ${reason}`) === true

layer(Layer.empty, { excludeTestServices: true })("serving", (it) => {
  it.effect("is unknown without a replica, true with one that tried it out, and unknown again when that has left", () =>
    Effect.gen(function* () {
      const { database, look, operate } = yield* world
      const { conditions, said, until } = yield* operate
      const alone = {
        Ready: "Unknown NoReplica",
        Provisioned: "True Provisioned",
        Serving: "Unknown NoReplica",
        Reconciling: "True NoReplica",
        Stalled: "False NoReplica"
      }
      expect(said()).toEqual(alone)
      const life = yield* Scope.fork(yield* Scope.Scope)
      yield* startReplica(database, { VELOCITY_REPLICA: "real" }).pipe(Scope.provide(life))
      yield* until(isReady)
      expect(said()).toEqual({
        Ready: ready,
        Provisioned: ready,
        Serving: "True Acknowledged",
        Reconciling: "False Provisioned",
        Stalled: "False Provisioned"
      })
      expect(conditions()?.map((one) => one.observedGeneration)).toEqual([1, 1, 1, 1, 1])
      expect(yield* look("select replica, complete from platform.replicas")).toEqual([
        { replica: "real", complete: true }
      ])
      yield* Scope.close(life, Exit.void)
      expect(
        yield* look("select replica from platform.replicas union all select replica from platform.replica_acks")
      ).toEqual([])
      yield* until(reasonIs("NoReplica"))
      expect(said()).toEqual(alone)
    })
  )

  it.effect("waits for every replica, says the problem of one, and for none that is dead", () =>
    Effect.gen(function* () {
      const { database, look, operate, write } = yield* world
      const { conditions, said, status, until } = yield* operate
      yield* startReplica(database)
      const { acknowledges, beats } = other(database)
      const message = () => conditions()?.find((one) => one.type === "Serving")?.message ?? ""
      yield* until(isReady)
      // one that has only just started is waited for by nobody
      yield* acknowledges()
      yield* status.look
      expect(said()).toMatchObject({ Ready: ready })
      yield* beats
      yield* write(`${a}, ${b}`)
      yield* status.look
      yield* until((now) => now.Ready === "False Acknowledging")
      expect(message()).toMatch(/^waits for .*other.* to serve generation \d+$/u)
      expect(said()).toMatchObject({
        Provisioned: ready,
        Reconciling: "True Acknowledging",
        Stalled: "False Acknowledging"
      })
      yield* acknowledges("it cannot")
      yield* until(reasonIs("ReplicaProblem"))
      expect(message()).toMatch(/^generation \d+ is not served; other: it cannot$/u)
      expect(said()).toMatchObject({
        Ready: "False ReplicaProblem",
        Reconciling: "False ReplicaProblem",
        Stalled: "True ReplicaProblem"
      })
      yield* acknowledges()
      yield* until(isReady)
      yield* write(a)
      yield* status.look
      const hash = (status.resources().find((one) => one.status.plan !== undefined)?.status.plan ?? {}) as object
      expect(hash).toHaveProperty("hash")
      // what waits for an approval is served on, in the generation that is served
      expect(said()).toMatchObject({
        Ready: "False ApprovalRequired",
        Stalled: "True ApprovalRequired",
        Serving: "True Acknowledged"
      })
      const observed = (type: string) => conditions()?.find((one) => one.type === type)?.observedGeneration
      expect([observed("Ready"), observed("Serving")]).toEqual([3, 2])
      yield* write(`${a}, ${b}, { name: c, type: string }`)
      yield* status.look
      yield* until((now) => now.Ready === "False Acknowledging")
      yield* look("update platform.replicas set seen_at = now() - interval '91 seconds' where replica = 'other'")
      yield* look("notify velocity_serving, 'replicas'")
      yield* until(isReady)
      expect(observed("Serving")).toBe(4)
      // an operator that starts forgets it; nobody knows it then, and it is to say everything again
      yield* operate
      yield* look("select from platform.replicas where replica = 'other'").pipe(
        Effect.repeat({ until: (rows) => rows.length === 0, schedule: Schedule.spaced("100 millis") })
      )
      expect(yield* beats).toEqual([{ known: false }])
      expect(yield* beats).toEqual([{ known: true }])
    })
  )

  it.effect("is true of a change when both of two replicas serve it, one of which hears of it late", () =>
    Effect.gen(function* () {
      const { database, look, operate, write } = yield* world
      const { conditions, status, until } = yield* operate
      yield* startReplica(database, { VELOCITY_REPLICA: "prompt" })
      // without prepared statements it does not listen, and looks each second
      yield* startReplica(database, { VELOCITY_REPLICA: "late", VELOCITY_PREPARED: "0" })
      yield* look("select from platform.replicas where complete").pipe(
        Effect.repeat({ until: (rows) => rows.length === 2, schedule: Schedule.spaced("100 millis") })
      )
      for (const fields of [`${a}, ${b}`, `${a}, ${b}, { name: c, type: string }`]) {
        yield* write(fields)
        const before = conditions()?.find((one) => one.type === "Ready")?.observedGeneration ?? 0
        yield* status.look
        yield* until(
          (said) =>
            isReady(said) && (conditions()?.find((one) => one.type === "Ready")?.observedGeneration ?? 0) > before
        )
        expect(
          yield* look(
            `select a.replica from platform.replica_acks a join platform.schema_defs s on s.id = a.def_id
             where a.generation = s.generation and a.problem is null order by 1`
          )
        ).toEqual([{ replica: "late" }, { replica: "prompt" }])
      }
    })
  )

  it.effect("is false, with what Postgres refused, where a statement cannot be run as the domain's role", () =>
    Effect.gen(function* () {
      const { database, look, operate } = yield* world
      const { conditions, until } = yield* operate
      const table = `${database.org}_shop_eu.thing_v1`
      const tried = (broken: string) =>
        Effect.scoped(
          Effect.gen(function* () {
            yield* look(broken)
            yield* startReplica(database, { VELOCITY_REPLICA: "real" })
            yield* until((said) => reasonIs("ReplicaProblem")(said) || isReady(said))
            return conditions()
              ?.find((one) => one.type === "Serving")
              ?.message.replaceAll(database.org, "ORG")
          })
        ).pipe(Effect.tap(() => until(reasonIs("NoReplica"))))
      const problem = (text: string) =>
        expect.stringMatching(new RegExp(`^generation \\d+ is not served; real: ${text}$`, "u"))
      expect(yield* tried("select")).toMatch(/^every API replica/u)
      const reader = `${database.org}_shop_eu_reader`
      expect(yield* tried(`revoke select on ${table} from ${reader}`)).toEqual(
        problem("permission denied for table thing_v1")
      )
      yield* look(`grant select on ${table} to ${reader}`)
      const writer = `${database.org}_shop_eu_writer`
      expect(yield* tried(`revoke insert on ${table} from ${writer}`)).toEqual(
        problem("permission denied for table thing_v1")
      )
      yield* look(`grant insert on ${table} to ${writer}`)
      expect(yield* tried(`alter table ${table} rename column a to z`)).toEqual(
        problem('column "a" of relation "thing_v1" does not exist')
      )
      expect(yield* tried(`alter table ${table} rename column z to a`)).toMatch(/^every API replica/u)
      // nothing of it was done
      expect(yield* look(`select count(*)::int4 as n from ${table}`)).toEqual([{ n: 0 }])
      expect(yield* look("select count(*)::int4 as n from platform.event_log")).toEqual([{ n: 0 }])
      expect(yield* look("select count(*)::int4 as n from platform.audit_log where actor = 'velocity/probe'")).toEqual([
        { n: 0 }
      ])
    })
  )

  it.effect("ends everywhere before rights are taken from what is deleted", () =>
    Effect.gen(function* () {
      const { database, folder, look, operate } = yield* world
      const { status, until } = yield* operate
      yield* startReplica(database)
      const { acknowledges, beats } = other(database)
      yield* until(isReady)
      yield* acknowledges()
      yield* beats
      const rights = look(
        `select has_table_privilege('${database.org}_shop_eu_reader', '${database.org}_shop_eu.thing_v1', 'select') as held,
          (select state from platform.schema_defs) as state`
      )
      yield* Effect.promise(() => rm(join(folder, "thing.yaml")))
      yield* status.look
      yield* until((said) => said.Ready === "False Withdrawing")
      expect(yield* rights).toEqual([{ held: true, state: "Withdrawing" }])
      // what it held so far is nobody's way past row-level security: the others are served on
      expect(yield* IsolationCheck.checkAt(Redacted.make(database.apiUrl))).toEqual([])
      yield* acknowledges()
      yield* until((said) => Object.keys(said).length === 0)
      expect(yield* rights).toEqual([{ held: false, state: "Withdrawn" }])
    })
  )
})
