/** k8s/overlays/namespaced: an operator that sees some namespaces alone works with Roles, and with no right on the cluster. */
import { readFileSync } from "node:fs"
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { Duration, Effect, Layer, Stream } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import type { Kube } from "../../src/kubernetes/Kube.ts"
import { deniedOften } from "../operator/AnomalyWorld.ts"
import { freshDatabase } from "../support/Database.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { configuredOf, containerOf, find, kustomized, type Workload } from "./Kustomized.ts"
import { definition, type Manifest, namespacesOf, parents } from "./Manifests.ts"

interface Role extends Manifest {
  readonly rules: ReadonlyArray<{
    readonly apiGroups: ReadonlyArray<string>
    readonly resources: ReadonlyArray<string>
    readonly verbs: ReadonlyArray<string>
  }>
}

const base = kustomized("k8s/base")
const overlay = kustomized("k8s/overlays/namespaced")
const watched = (
  configuredOf(overlay, containerOf(find<Workload>(overlay, "Deployment", "velocity-operator")))
    .VELOCITY_WATCH_NAMESPACES ?? ""
).split(",")
const rights = overlay.filter(({ kind }) => kind === "Role" || kind === "RoleBinding")
const isOfNamespaces = ({ resources }: Role["rules"][number]) => resources.includes("namespaces")

let cluster: Installed
beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

/** The overlay's rights, for the namespaces of another organisation. */
const rightsFor = (org: string): ReadonlyArray<Manifest> =>
  rights.map((one) => {
    const at = watched.indexOf(one.metadata.namespace ?? "")
    const namespace = at < 0 ? one.metadata.namespace : [org, `${org}-shop`, `${org}-shop-eu`][at]
    return { ...one, metadata: { ...one.metadata, namespace } } as Manifest
  })

layer(Layer.empty, { excludeTestServices: true })("the namespaced operator", (it) => {
  it.effect("has rights in the namespaces that it watches and its own, and none on the cluster", () =>
    Effect.sync(() => {
      expect(overlay.filter(({ kind }) => kind.startsWith("ClusterRole"))).toEqual([])
      expect(watched).toHaveLength(3)
      expect(new Set(rights.map(({ metadata }) => metadata.namespace))).toEqual(
        new Set([...watched, "velocity-system", "kube-system"])
      )
      for (const name of watched) {
        const roles = rights.filter(({ kind, metadata }) => kind === "Role" && metadata.namespace === name)
        expect(roles.map(({ metadata }) => metadata.name).sort()).toEqual([
          "velocity-operator-kinds",
          "velocity-operator-labels"
        ])
      }
    })
  )

  it.effect("may in a namespace what the base's operator may in all of them", () =>
    Effect.sync(() => {
      const everywhere = find<Role>(base, "ClusterRole", "velocity-operator").rules.filter(
        (one) => !isOfNamespaces(one)
      )
      expect(everywhere.length).toBeGreaterThan(3)
      for (const role of rights.filter(({ metadata }) => metadata.name === "velocity-operator-kinds")) {
        if (role.kind === "Role") expect((role as Role).rules).toEqual(everywhere)
      }
    })
  )

  it.effect("does all its work with them, and is refused what lies elsewhere", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const accounts = overlay.filter(({ kind }) => kind === "ServiceAccount")
      yield* Effect.promise(() => cluster.apply([...namespacesOf(org), ...accounts, ...rightsFor(org)]))
      const token = (yield* Effect.promise(() =>
        cluster.ok(["create", "token", "velocity-operator", "-n", "velocity-system"])
      )).trim()
      const config = JSON.parse(readFileSync(cluster.kubeconfig, "utf8")) as Record<string, unknown>
      const kubeconfig = join(cluster.folder, "namespaced-kubeconfig")
      yield* Effect.promise(() =>
        writeFile(kubeconfig, JSON.stringify({ ...config, users: [{ name: "admin", user: { token } }] }), {
          mode: 0o600
        })
      )
      const refused: Array<string> = []
      const hear = (method: string, path: string) => (error: { readonly reason: string }) =>
        Effect.sync(() => {
          if (error.reason === "Forbidden") refused.push(`${method} ${path}`)
        })
      const through = (kube: Kube["Service"]): Kube["Service"] => ({
        request: (asked) => Effect.tapError(kube.request(asked), hear(asked.method, asked.path)),
        lines: (asked) => Stream.tapError(kube.lines(asked), hear("WATCH", asked.path))
      })
      const thing = definition(org, "thing")
      yield* Effect.promise(() => cluster.apply([...parents(org), thing]))
      const namespaces = [org, `${org}-shop`, `${org}-shop-eu`]
      yield* deniedOften(database, `dev/${org}`)
      yield* startOperator({ database, kubeconfig, namespaces, through, lease: Duration.seconds(3) })
      // no replica serves here, so a definition is not Ready
      const name = ["vsd/thing", "-n", `${org}-shop-eu`]
      yield* Effect.promise(() => cluster.ok(["wait", "--for=condition=Provisioned", ...name, "--timeout=60s"]))
      yield* Effect.promise(() =>
        until("it has told an event", async () =>
          (await cluster.ok(["get", "events", "-n", `${org}-shop-eu`])).includes("thing")
        )
      )
      yield* Effect.promise(() =>
        until("it has told an alert of the platform", async () =>
          (await cluster.ok(["get", "events", "-n", "velocity-system"])).includes(`dev/${org} in platform`)
        )
      )
      yield* Effect.promise(() => cluster.ok(["delete", "--wait=true", "--timeout=60s", ...name]))
      expect(refused).toEqual([])
      const as = "--as=system:serviceaccount:velocity-system:velocity-operator"
      const may = (...what: ReadonlyArray<string>) =>
        Effect.promise(async () => (await cluster.kubectl(["auth", "can-i", ...what, as])).out.trim())
      expect(yield* may("list", "schemadefinitions.velocity.sh", "-n", `${org}-shop-eu`)).toBe("yes")
      expect(yield* may("list", "schemadefinitions.velocity.sh", "-n", "default")).toBe("no")
      expect(yield* may("list", "schemadefinitions.velocity.sh", "-A")).toBe("no")
      expect(yield* may("list", "namespaces")).toBe("no")
      expect(yield* may("get", "secrets", "-n", "velocity-system")).toBe("no")
    })
  )
})
