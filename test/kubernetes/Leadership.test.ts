/**
 * One leader by Lease, and never two writers: contenders in this process, and two `velocity operator` processes of which
 * the leader is stopped (SIGSTOP), also inside an open transaction, for longer than its Lease, and goes on.
 */
import { layer } from "@effect/vitest"
import { Duration, Effect, Exit, Fiber, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { configOf, Kube, KubeError } from "../../src/kubernetes/Kube.ts"
import { Leadership, LeadershipLost } from "../../src/kubernetes/Leadership.ts"
import * as Run from "../cli/Run.ts"
import { connect, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { type OperatorOptions, startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { definition, namespacesOf, parents } from "./Manifests.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** Whether it reaches the API server. */
interface Line {
  isUp: boolean
}

/** Contends until it leads; its scope is its life. */
const contend = Effect.fnUntraced(function* (name: string, identity: string, line: Line = { isUp: true }) {
  const scope = yield* Scope.make()
  yield* Effect.addFinalizer(() => Scope.close(scope, Exit.void))
  const config = yield* Effect.promise(() => configOf(cluster.kubeconfig))
  const kube = Layer.effect(
    Kube,
    Effect.map(Kube, (real) => ({
      ...real,
      request: (asked: Parameters<typeof real.request>[0]) =>
        line.isUp
          ? real.request(asked)
          : Effect.fail(new KubeError({ reason: "Unavailable", status: 0, message: "the line is cut" }))
    }))
  ).pipe(Layer.provide(Kube.layerOf(config)))
  const context = yield* Layer.buildWithScope(
    Leadership.layerOf({ namespace: "velocity-system", name, identity, duration: Duration.seconds(3) }).pipe(
      Layer.provide(kube)
    ),
    scope
  )
  const leadership = yield* Leadership.pipe(Effect.provide(context))
  return { leadership, end: Scope.close(scope, Exit.void) }
})

const holderOf = async (name: string): Promise<string> =>
  cluster.ok(["get", "lease", name, "-n", "velocity-system", "-o", "jsonpath={.spec.holderIdentity}"])

layer(Layer.empty, { excludeTestServices: true })("leadership", (it) => {
  it.effect("is one's, and the other's as soon as it is given up", () =>
    Effect.gen(function* () {
      const one = yield* contend("handed", "one")
      expect(yield* Effect.promise(() => holderOf("handed"))).toBe("one")
      let isTwo = false
      const waiting = yield* contend("handed", "two").pipe(
        Effect.tap(() => Effect.sync(() => (isTwo = true))),
        Effect.forkScoped({ startImmediately: true })
      )
      // longer than a Lease that is not renewed would last
      yield* Effect.sleep("4 seconds")
      expect(isTwo).toBe(false)
      expect(one.leadership.isTrusted()).toBe(true)
      yield* one.end
      expect(one.leadership.isTrusted()).toBe(false)
      yield* Effect.promise(() => until("two leads", async () => isTwo))
      expect(yield* Effect.promise(() => holderOf("handed"))).toBe("two")
      yield* Fiber.join(waiting)
    })
  )

  it.effect("is not trusted any more before another can have it", () =>
    Effect.gen(function* () {
      const line: Line = { isUp: true }
      const one = yield* contend("cut", "one", line)
      line.isUp = false
      const lost = yield* one.leadership.lost.pipe(Effect.flip, Effect.forkScoped({ startImmediately: true }))
      const two = yield* contend("cut", "two")
      // the moment that two was elected, one did not trust itself
      expect(one.leadership.isTrusted()).toBe(false)
      expect(one.leadership.trustedUntil()).toBeLessThan(performance.now())
      expect(two.leadership.isTrusted()).toBe(true)
      expect(yield* Fiber.join(lost)).toBeInstanceOf(LeadershipLost)
    })
  )
})

/** An operator of its own process; answers when it says that it leads. */
const operate = (database: TestDatabase): Run.Running =>
  Run.start(["operator"], {
    KUBECONFIG: cluster.kubeconfig,
    VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl,
    VELOCITY_OPERATOR_PORT: "0"
  })
const leads = "leader by the Lease"

const epochOf = (database: TestDatabase) =>
  Effect.map(
    query(database.superuserUrl, "select epoch::int4 as epoch from platform.operator_term"),
    (rows) => rows[0]?.epoch
  )

/** The acts that the audit log has of a definition. */
const applied = (database: TestDatabase, path: string) =>
  query(database.superuserUrl, "select action, actor from platform.audit_log where schema_path = $1", [`${path}/v1`])

const ready = (org: string, name: string) =>
  Effect.promise(() =>
    cluster.ok([
      "wait",
      "--for=condition=Provisioned",
      "--timeout=90s",
      `schemadefinition.velocity.sh/${name}`,
      "-n",
      `${org}-shop-eu`
    ])
  )

layer(Layer.empty, { excludeTestServices: true })("two operators", (it) => {
  it.effect(
    "are one at work where the first loses its Lease before it could take its term: it ends, and takes none",
    () =>
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...parents(org), definition(org, "first")]))
        const line: Line = { isUp: true }
        const begin = (more: Partial<OperatorOptions> = {}) =>
          startOperator({ database, kubeconfig: cluster.kubeconfig, ...more })
        // a database that does not answer him who asks for the term
        const attacker = yield* connect(database.superuserUrl)
        yield* attacker.query("begin")
        yield* attacker.query("lock table platform.operator_term in access exclusive mode")
        const one = yield* begin({
          lease: Duration.seconds(5),
          through: (real) => ({
            ...real,
            request: (asked) =>
              line.isUp
                ? real.request(asked)
                : Effect.fail(new KubeError({ reason: "Unavailable", status: 0, message: "the line is cut" }))
          })
        }).pipe(Effect.flip, Effect.forkScoped({ startImmediately: true }))
        const asking =
          "select count(*)::int4 as n from pg_stat_activity where usename = 'velocity_operator' and datname = $1 and wait_event_type = 'Lock'"
        const isAsked = async () =>
          Number((await Effect.runPromise(query(database.superuserUrl, asking, [database.name])))[0]?.n) > 0
        yield* Effect.promise(() => until("the first asks for its term", isAsked))
        const elected = yield* Effect.promise(() => holderOf("velocity-operator"))
        line.isUp = false
        expect(yield* Fiber.join(one)).toBeInstanceOf(LeadershipLost)
        const two = yield* begin().pipe(Effect.forkScoped({ startImmediately: true }))
        yield* Effect.promise(() =>
          until("the second is elected", async () => {
            const holder = await holderOf("velocity-operator")
            return holder !== "" && holder !== elected
          })
        )
        yield* attacker.query("rollback")
        yield* Fiber.join(two)
        yield* ready(org, "first")
        expect(yield* epochOf(database)).toBe(1)
      })
  )

  it.effect("are one at work; the leader stopped while it has nothing to do, and continued, writes nothing more", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...parents(org), definition(org, "first")]))
      const one = operate(database)
      yield* Effect.addFinalizer(() => Effect.sync(() => one.process.kill("SIGKILL")))
      yield* Effect.promise(() => one.says(leads))
      const two = operate(database)
      yield* Effect.addFinalizer(() => Effect.sync(() => two.process.kill("SIGKILL")))
      yield* Effect.promise(() => two.says("health and metrics at"))
      yield* ready(org, "first")
      one.process.kill("SIGSTOP")
      // it will find this when it goes on, by its watch
      yield* Effect.promise(() => cluster.apply([definition(org, "second")]))
      yield* Effect.promise(() => two.says(leads))
      yield* ready(org, "second")
      const before = yield* applied(database, `${org}/shop/eu/second`)
      one.process.kill("SIGCONT")
      expect((yield* Effect.promise(() => one.ended)).code).toBe(1)
      expect(yield* applied(database, `${org}/shop/eu/second`)).toEqual(before)
      expect(before).toHaveLength(1)
      expect(yield* epochOf(database)).toBe(2)
      two.process.kill("SIGTERM")
      expect((yield* Effect.promise(() => two.ended)).code).toBe(0)
    })
  )

  it.effect("are one at work; the leader stopped in a transaction and continued writes nothing more", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...parents(org), definition(org, "first")]))
      const one = operate(database)
      yield* Effect.addFinalizer(() => Effect.sync(() => one.process.kill("SIGKILL")))
      yield* Effect.promise(() => one.says(leads))
      const two = operate(database)
      yield* Effect.addFinalizer(() => Effect.sync(() => two.process.kill("SIGKILL")))
      yield* Effect.promise(() => two.says("health and metrics at"))
      yield* ready(org, "first")
      expect(yield* epochOf(database)).toBe(1)

      // whoever provisions a definition waits for this lock, with the term in his hand
      const attacker = yield* connect(database.superuserUrl)
      yield* attacker.query("begin")
      yield* attacker.query("lock table platform.schema_defs in access exclusive mode")
      yield* Effect.promise(() => cluster.apply([definition(org, "second")]))
      const waits =
        "select count(*)::int4 as n from pg_stat_activity where usename = 'velocity_operator' and datname = $1 and wait_event_type = 'Lock'"
      yield* Effect.promise(() =>
        until("the leader is within a transaction", async () => {
          const rows = await Effect.runPromise(query(database.superuserUrl, waits, [database.name]))
          return Number(rows[0]?.n) > 0
        })
      )
      one.process.kill("SIGSTOP")
      yield* attacker.query("rollback")
      // it stands still for as long as the other needs to take over, and to do its work
      yield* Effect.promise(() => two.says(leads))
      yield* ready(org, "second")
      expect(yield* epochOf(database)).toBe(2)
      const before = yield* applied(database, `${org}/shop/eu/second`)
      one.process.kill("SIGCONT")
      const ended = yield* Effect.promise(() => one.ended)
      expect(ended.code).toBe(1)
      expect(yield* applied(database, `${org}/shop/eu/second`)).toEqual(before)
      expect(before).toHaveLength(1)
      expect(yield* epochOf(database)).toBe(2)
      // and the one that is left works on
      yield* Effect.promise(() => cluster.apply([definition(org, "third")]))
      yield* ready(org, "third")
      two.process.kill("SIGTERM")
      expect((yield* Effect.promise(() => two.ended)).code).toBe(0)
      expect(yield* Effect.promise(() => holderOf("velocity-operator"))).toBe("")
    })
  )
})
