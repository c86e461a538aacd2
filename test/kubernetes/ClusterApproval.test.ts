/**
 * A plan of a real operator that is approved in a cluster: by who holds the verb, by nobody else, under his own name, which is
 * in `platform.plans` and in the log; and once.
 */
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { freshDatabase, query } from "../support/Database.ts"
import { startReplica } from "../support/Replica.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install } from "./Installed.ts"
import { definition, type Manifest, namespacesOf, parents } from "./Manifests.ts"
import { named, objectsOf } from "./Objects.ts"

let cluster: Installed
const { apply, ready, readyIs } = objectsOf(() => cluster)

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** Two who may edit, of whom one may approve. */
const rightsIn = (namespace: string) => {
  const role = (name: string, verbs: ReadonlyArray<string>) => ({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "Role",
    metadata: { name, namespace },
    rules: [{ apiGroups: ["velocity.sh"], resources: ["schemadefinitions"], verbs }]
  })
  const given = (user: string, name: string) => ({
    apiVersion: "rbac.authorization.k8s.io/v1",
    kind: "RoleBinding",
    metadata: { name: `${user}-${name}`, namespace },
    roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name },
    subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: user }]
  })
  return [
    role("editor", ["get", "patch", "update"]),
    role("approver", ["approve"]),
    given("bob", "editor"),
    given("carol", "editor"),
    given("carol", "approver")
  ] as unknown as ReadonlyArray<Manifest>
}

layer(Layer.empty, { excludeTestServices: true })("an approval in a cluster", (it) => {
  it.effect("is carried out once, and is recorded with who gave it", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const look = (sql: string) => query(database.superuserUrl, sql, [`${org}/shop/eu/thing/v1`])
      yield* startReplica(database)
      const fields = ["a", "b"].map((name) => ({ name, type: "string" }))
      const thing = definition(org, "thing", { fields })
      const fewer = definition(org, "thing", { fields: fields.slice(0, 1) })
      yield* apply(...namespacesOf(org), ...parents(org), thing, ...rightsIn(`${org}-shop-eu`))
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* ready(thing)
      /** Waits for the plan of the object's newest generation. */
      const waits = (generation: number) =>
        Effect.map(
          readyIs(
            thing,
            "waits for an approval",
            ({ observedGeneration, reason }) => observedGeneration === generation && reason === "ApprovalRequired"
          ),
          (condition) => /approve-plan is (\w+)/u.exec(condition?.message ?? "")?.[1]
        )
      const approve = (user: string, hash: string | undefined) =>
        Effect.promise(() =>
          cluster.kubectl([
            ...["annotate", "--overwrite", ...named(thing), "--as", user],
            ...[`velocity.sh/approve-plan=${hash}`, `velocity.sh/approved-by=${user}`]
          ])
        )
      const plans = look("select plan_hash, state, approved_by from platform.plans where path = $1 order by created_at")
      const told = look(
        `select payload ->> 'plan' as plan, payload ->> 'by' as by from platform.audit_log
         where schema_path = $1 and action = 'operator.plan.approve' order by occurred_at`
      )
      yield* apply(fewer)
      const hash = yield* waits(2)
      expect((yield* approve("bob", hash)).err).toContain("bob may not approve plans here")
      expect(yield* plans).toEqual([{ plan_hash: hash, state: "Waiting", approved_by: null }])
      expect((yield* approve("carol", hash)).err).toBe("")
      yield* ready(thing)
      expect(yield* plans).toEqual([{ plan_hash: hash, state: "Done", approved_by: "carol" }])
      expect(yield* told).toEqual([{ plan: hash, by: "carol" }])

      // the annotation is still there when the same is asked for again
      yield* apply(thing)
      yield* readyIs(
        thing,
        "is whole again",
        ({ observedGeneration, status }) => observedGeneration === 3 && status === "True"
      )
      yield* apply(fewer)
      const again = yield* waits(4)
      expect(again).not.toBe(hash)
      expect(yield* told).toHaveLength(1)
      expect((yield* approve("carol", again)).err).toBe("")
      yield* ready(thing)
      expect(yield* told).toEqual([hash, again].map((plan) => ({ plan, by: "carol" })))
    })
  )
})
