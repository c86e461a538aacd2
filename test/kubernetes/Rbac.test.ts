/** What the operator may in a cluster: all that it needs, and not a rule more. */
import { readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { Duration, Effect, Layer, Stream } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { parseAllDocuments } from "yaml"
import type { Kube } from "../../src/kubernetes/Kube.ts"
import { deniedOften } from "../operator/AnomalyWorld.ts"
import { freshDatabase, type TestDatabase } from "../support/Database.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import {
  apiKey,
  application,
  binding,
  definition,
  domain,
  type Manifest,
  namespacesOf,
  organisation,
  root,
  strategy
} from "./Manifests.ts"

interface Rule {
  readonly apiGroups: ReadonlyArray<string>
  readonly resources: ReadonlyArray<string>
  readonly resourceNames?: ReadonlyArray<string>
  readonly verbs: ReadonlyArray<string>
}
interface Role extends Manifest {
  readonly rules?: ReadonlyArray<Rule>
}

const documents = parseAllDocuments(readFileSync(join(root, "k8s/base/rbac.yaml"), "utf8")).map(
  (one) => one.toJS() as Role
)
const roles = documents.filter((one) => one.rules !== undefined)

let cluster: Installed
let kubeconfig: string

/** The ServiceAccount's kubeconfig, with a token as `kubectl create token` gives it. */
const asOperator = async (): Promise<string> => {
  const token = (await cluster.ok(["create", "token", "velocity-operator", "-n", "velocity-system"])).trim()
  const config = JSON.parse(readFileSync(cluster.kubeconfig, "utf8")) as Record<string, unknown>
  config.users = [{ name: "admin", user: { token } }]
  const file = join(cluster.folder, "operator-kubeconfig")
  await writeFile(file, JSON.stringify(config), { mode: 0o600 })
  return file
}

beforeAll(async () => {
  cluster = await install()
  await cluster.apply(documents)
  kubeconfig = await asOperator()
})
afterAll(() => cluster?.stop())

/** A life of the operator under that token, in which it does everything that it does; answers what it was refused. */
const live = Effect.fnUntraced(function* (
  database: TestDatabase,
  name: string,
  isEnough: (refused: ReadonlyArray<string>) => boolean
) {
  const { org } = database
  const refused: Array<string> = []
  const hear = (method: string, path: string) => (error: { readonly reason: string }) =>
    Effect.sync(() => {
      if (error.reason === "Forbidden") refused.push(`${method} ${path}`)
    })
  const through = (kube: Kube["Service"]): Kube["Service"] => ({
    request: (asked) => Effect.tapError(kube.request(asked), hear(asked.method, asked.path)),
    lines: (asked) => Stream.tapError(kube.lines(asked), hear("WATCH", asked.path))
  })
  const thing = definition(org, name)
  const keys = strategy(`${org}-shop`, "keys", { type: "apikey" })
  const key = apiKey(org, name, { actor: `${org}-shop:keys/robot` })
  const parents = [organisation(org), application(org), domain(org, { authStrategy: "keys" })]
  const all = [...parents, thing, binding(org, "alice"), keys, key]
  yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...all]))
  yield* deniedOften(database, `dev/${org}`)
  const args = (one: Manifest) => [
    `${one.kind.toLowerCase()}.velocity.sh/${one.metadata.name}`,
    "-n",
    String(one.metadata.namespace)
  ]
  yield* Effect.forkScoped(startOperator({ database, kubeconfig, through, lease: Duration.seconds(3) }))
  yield* Effect.promise(() =>
    until("it has done what it can", async () => {
      if (isEnough(refused)) return true
      // no replica serves here, so a definition is not Ready
      for (const [one, type] of [
        [thing, "Provisioned"],
        [key, "Ready"]
      ] as const) {
        const text = await cluster.ok(["get", ...args(one), "-o", "json"])
        if (!new RegExp(`"status": "True",\\s*"type": "${type}"`, "u").test(text)) return false
      }
      return true
    })
  )
  if (isEnough(refused)) return refused
  // an event, and the Lease once more
  yield* Effect.promise(() =>
    until("it has told an event", async () => {
      if (isEnough(refused)) return true
      return (await cluster.ok(["get", "events", "-n", `${org}-shop-eu`])).includes(name)
    })
  )
  yield* Effect.promise(() =>
    until("it has told an alert of the platform", async () => {
      if (isEnough(refused)) return true
      return (await cluster.ok(["get", "events", "-n", "velocity-system"])).includes(`dev/${org} in platform`)
    })
  )
  for (const one of [thing, key]) {
    yield* Effect.promise(() => cluster.ok(["delete", "--wait=true", "--timeout=60s", ...args(one)]))
  }
  return refused
})

layer(Layer.empty, { excludeTestServices: true })("the operator's ServiceAccount", (it) => {
  it.effect("may all that the operator does, from its first list to the last finalizer", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      expect(yield* live(database, "thing", () => false)).toEqual([])
    })
  )

  for (const role of roles) {
    for (const [index, rule] of (role.rules ?? []).entries()) {
      const what = `${rule.verbs.join(" and ")} ${rule.resources[0]}${rule.resources.length > 1 ? " and others" : ""}`
      it.effect(`is refused something without ${role.kind} rule ${index + 1}: ${what}`, () =>
        Effect.gen(function* () {
          const database = yield* freshDatabase
          // as if none had led before: a Lease that is there need not be made
          yield* Effect.promise(() =>
            cluster.kubectl(["delete", "lease", "velocity-operator", "-n", "velocity-system"])
          )
          yield* Effect.acquireRelease(
            Effect.promise(() =>
              cluster.ok(
                ["replace", "-f", "-"],
                JSON.stringify({ ...role, rules: role.rules?.filter((one) => one !== rule) })
              )
            ),
            () => Effect.promise(() => cluster.ok(["replace", "-f", "-"], JSON.stringify(role)))
          )
          const refused = yield* live(database, "thing", (found) => found.length > 0)
          const resources = rule.resources.map((one) => one.split("/")[0])
          expect(
            resources.some((one) => refused[0]?.includes(`/${one}`) === true),
            refused[0]
          ).toBe(true)
        })
      )
    }
  }

  it.effect("has no wildcard, makes Secrets and reads none, and cannot make itself more than it is", () =>
    Effect.sync(() => {
      const rules = roles.flatMap((one) => one.rules ?? [])
      expect(rules.length).toBeGreaterThan(0)
      const secrets = rules.filter(({ resources }) => resources.some((one) => one.split("/")[0] === "secrets"))
      expect(secrets).toEqual([{ apiGroups: [""], resources: ["secrets"], verbs: ["create"] }])
      for (const { apiGroups, resources, verbs } of rules) {
        expect([...apiGroups, ...resources, ...verbs]).not.toContain("*")
        expect(
          verbs.filter((one) =>
            ["escalate", "bind", "impersonate", "approve", "delete", "deletecollection"].includes(one)
          )
        ).toEqual([])
      }
    })
  )

  it.effect("is the only one with any rights: the API and the migration have none, and no token", () =>
    Effect.promise(async () => {
      const bound = documents.flatMap((one) =>
        ((one as unknown as { readonly subjects?: ReadonlyArray<{ readonly name: string }> }).subjects ?? []).map(
          (subject) => subject.name
        )
      )
      expect(new Set(bound)).toEqual(new Set(["velocity-operator"]))
      for (const name of ["velocity-api", "velocity-migrate"]) {
        const account = documents.find(
          (one) => one.kind === "ServiceAccount" && one.metadata.name === name
        ) as unknown as Record<string, unknown>
        expect(account.automountServiceAccountToken).toBe(false)
        const user = `system:serviceaccount:velocity-system:${name}`
        const may = await cluster.kubectl([
          "auth",
          "can-i",
          "list",
          "schemadefinitions.velocity.sh",
          "-A",
          "--as",
          user
        ])
        expect(may.out.trim()).toBe("no")
      }
    })
  )
})
