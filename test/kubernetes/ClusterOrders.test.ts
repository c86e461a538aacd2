/**
 * Every kind, applied in sampled orders, with the operator restarted in between and no API before the end, becomes Ready;
 * deleted in any order it goes. And what kubectl shows of all that.
 *
 * Orders come from a seed that is printed; ORDER_SEED gives one again.
 */
import { randomInt } from "node:crypto"
import { layer } from "@effect/vitest"
import { Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { finalizer } from "../../src/kubernetes/ObjectWrites.ts"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import {
  apiKey,
  application,
  binding,
  definition,
  domain,
  isOurs,
  listOf,
  type Manifest,
  namespacesOf,
  organisation,
  samples,
  strategy
} from "./Manifests.ts"
import { conditionIn, named, objectsOf, type Read, shuffled } from "./Objects.ts"

let cluster: Installed
const { apply, ok, ready } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const first = Number(process.env.ORDER_SEED ?? randomInt(1_000_000))
const kindsInAll = [
  "ApiKey",
  "Application",
  "AuthStrategy",
  "Domain",
  "Organisation",
  "RoleBinding",
  "SchemaDefinition"
]

/** One of every kind at least, of one domain that takes keys. */
const everyKind = (org: string): ReadonlyArray<Manifest> => [
  organisation(org),
  application(org),
  strategy(`${org}-shop`, "keys", { type: "apikey" }),
  domain(org, { authStrategy: "keys" }),
  definition(org, "thing", {
    access: { roles: [{ role: "buyer", operations: ["create", "read", "update"] }] }
  }),
  definition(org, "part", { fields: [{ name: "thing", type: "ref", ref: { object: "thing", version: "v1" } }] }),
  binding(org, "alice", { actorId: `${org}-shop:keys/alice` }),
  apiKey(org, "robot", { actor: `${org}-shop:keys/robot` })
]

/** As the owner of an ApiKey reads its Secret. */
const keyOf = (key: Manifest) =>
  Effect.gen(function* () {
    const secret = yield* ok("get", ...named(key), "-o", "jsonpath={.status.secretName}")
    const text = yield* ok("get", "secret", secret, "-n", String(key.metadata.namespace), "-o", "jsonpath={.data.key}")
    return Buffer.from(text, "base64").toString("utf8")
  })

/** All of ours in the cluster, as it has them now. */
const present = async () => {
  const { items } = JSON.parse(await cluster.ok(["get", "velocity", "-A", "-o", "json"])) as {
    readonly items: ReadonlyArray<Read & { readonly kind: string }>
  }
  return items
}
const untilAll = (what: string, count: number, test: (one: Read & { readonly kind: string }) => boolean) =>
  Effect.promise(async () => {
    let items = await present()
    await until(what, async () => {
      items = await present()
      return items.length === count && items.every(test)
    })
    return items
  })

layer(Layer.empty, { excludeTestServices: true })("every kind", (it) => {
  for (const seed of [first, first + 1, first + 2]) {
    it.effect(`becomes Ready in any order, the API last, and goes in any order (ORDER_SEED=${seed})`, () =>
      Effect.gen(function* () {
        yield* apply(...samples.filter((one) => !isOurs(one)))
        const database = yield* freshDatabase
        const { org } = database
        yield* apply(...namespacesOf(org))
        const ours = [...samples.filter(isOurs), ...everyKind(org)]
        const order = shuffled([...new Set(ours.map((one) => one.kind))], seed)
        expect(order.toSorted()).toEqual(kindsInAll)
        // starts before the first kind or after the first few, and is another one some kinds later
        const [begins = 0, restarts = 0] = shuffled([0, 1, 2, 3, 4, 5], seed).slice(0, 2).toSorted()
        console.log(`ORDER_SEED=${seed}: ${order.join(", ")}; operator before ${begins}, restarted before ${restarts}`)
        const start = Effect.fnUntraced(function* () {
          // ends with the test, if not before
          const scope = yield* Scope.fork(yield* Scope.Scope)
          yield* startOperator({ database, kubeconfig: cluster.kubeconfig }).pipe(Scope.provide(scope))
          return Scope.close(scope, Exit.void)
        })
        let stop: Effect.Effect<void> = Effect.void
        for (const [index, kind] of order.entries()) {
          if (index === begins || index === restarts) {
            yield* stop
            stop = yield* start()
          }
          const those = ours.filter((one) => one.kind === kind)
          yield* apply(...shuffled(those, seed))
        }
        // made, and Ready where nobody need serve it
        const unserved = yield* untilAll("all but definitions are Ready, those made", ours.length, (one) =>
          one.kind === "SchemaDefinition"
            ? conditionIn(one, "Serving")?.reason === "NoReplica" && conditionIn(one, "Provisioned")?.status === "True"
            : conditionIn(one, "Ready")?.status === "True"
        )
        for (const one of unserved.filter(({ kind }) => kind === "SchemaDefinition")) {
          for (const type of ["Ready", "Serving"]) {
            expect(conditionIn(one, type)).toMatchObject({ status: "Unknown", reason: "NoReplica" })
          }
          expect(conditionIn(one, "Provisioned")).toMatchObject({ status: "True", reason: "Provisioned" })
        }
        const url = yield* startReplica(database)
        const waited = yield* ok("wait", "--for=condition=Ready", "velocity", "--all", "-A", "--timeout=90s")
        expect(waited.trim().split("\n")).toHaveLength(ours.length)
        for (const one of yield* Effect.promise(present)) {
          expect(one.metadata.finalizers).toEqual([finalizer])
          expect(one.status?.observedGeneration).toBe(one.metadata.generation)
        }
        const [robot] = ours.filter((one) => one.kind === "ApiKey")
        const key = robot === undefined ? "" : yield* keyOf(robot)
        const ask = (text: string) =>
          Effect.promise(() => fetch(`${url}/api/${org}/shop/eu/thing/v1`, { headers: { "x-api-key": text } }))
        expect((yield* ask(key)).status).toBe(200)
        expect((yield* ask(`${key.slice(0, -1)}${key.endsWith("A") ? "B" : "A"}`)).status).toBe(401)
        yield* Effect.promise(() =>
          cluster.ok(["delete", "--wait=false", "-f", "-"], listOf(shuffled(ours, seed + 10)))
        )
        yield* untilAll("nothing is left", 0, () => false)
        const left = "select kind, name from platform.resource_status where kind <> 'Installation'"
        expect(yield* query(database.operatorUrl, left)).toEqual([])
      })
    )
  }

  it.effect("is shown by kubectl as a person needs it: get, get -o wide, describe, wait, explain", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      yield* startReplica(database)
      const old = definition(org, "thing", {
        lifecycle: {
          stage: "sunset",
          deprecatedAt: "2027-01-31T12:00:00Z",
          sunsetAt: "2099-06-30T12:00:00Z",
          successor: "v2"
        }
      })
      const next = { ...old, metadata: { ...old.metadata, name: "thing-v2" } }
      const all = [
        ...everyKind(org).filter((one) => one.metadata.name !== "thing"),
        old,
        { ...next, spec: { ...(definition(org, "thing").spec as object), version: "v2" } }
      ]
      yield* apply(...namespacesOf(org), ...all)
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      for (const one of all) yield* ready(one)
      const namespace = ["-n", `${org}-shop-eu`]
      const lines = (text: string) => text.trimEnd().split("\n")

      const keys = lines(yield* ok("get", "vkey", ...namespace))
      expect(keys[0]).toMatch(/^NAME +ACTOR +SECRET +EXPIRES +READY +REASON +AGE$/u)
      expect(keys[1]).toMatch(new RegExp(`^robot +${org}-shop:keys/robot +robot +True +\\w+ +\\w+$`, "u"))
      expect(lines(yield* ok("get", "vkey", ...namespace, "-o", "wide"))[1]).toMatch(/ [0-9a-f]{16} +True /u)

      const shown = lines(yield* ok("get", "vsd", ...namespace))
      expect(shown[0]).toMatch(/^NAME +PATH +STAGE +READY +REASON +AGE$/u)
      expect(shown.find((line) => line.startsWith("thing "))).toMatch(/ sunset +True +Provisioned /u)
      expect(shown.find((line) => line.startsWith("thing-v2"))).toMatch(/\/v2 +True +Provisioned /u)
      const wide = lines(yield* ok("get", "vsd", ...namespace, "-o", "wide"))
      expect(wide[0]).toMatch(
        /^NAME +PATH +STAGE +PHASE +TABLE +RECORDS +SERVING +SUCCESSOR +SUNSET +READY +REASON +AGE$/u
      )
      expect(wide.find((line) => line.startsWith("thing "))).toMatch(
        new RegExp(` sunset +Provisioned +${org}_shop_eu.thing_v1 +0 +True +v2 +2099-06-30T12:00:00Z +True `, "u")
      )

      // a table for each kind, none wider than a terminal that is wide, though names here are long
      const everything = lines(yield* ok("get", "velocity", "-A"))
      console.log(everything.join("\n"))
      for (const kind of kindsInAll) {
        const mine = everything.filter((line) => line.includes(` ${kind.toLowerCase()}.velocity.sh/`))
        expect(mine.length, kind).toBeGreaterThan(0)
        for (const line of mine) expect(line).toMatch(/ True +[A-Z]\w+ +\w+$/u)
      }
      expect(Math.max(...everything.map((line) => line.length))).toBeLessThan(200)

      const described = yield* ok("describe", ...named(old))
      for (const text of [
        "Type:                  Serving",
        "Reason:                Acknowledged",
        "every API replica"
      ]) {
        expect(described).toContain(text)
      }
      yield* ok("wait", "--for=condition=Serving", "--timeout=90s", ...named(old))
      for (const [path, text] of [
        ["vsd.spec.lifecycle.sunsetAt", "When it ends"],
        ["vkey.status.secretName", "The Secret that holds the key in force"],
        ["vkey.spec.ipAllowlist", "DESCRIPTION"],
        ["vsd.spec.sharesRowsWith", "DESCRIPTION"]
      ] as const) {
        const said = yield* ok("explain", path)
        expect(said).toContain(text)
        expect(said).not.toContain("<no description>")
      }
    })
  )
})
