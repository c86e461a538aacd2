/** A cluster on which Velocity's kinds and policies are installed, as `k8s/` has them. */
import { join } from "node:path"
import { type Cluster, startCluster } from "./Cluster.ts"
import { listOf, type Manifest, namespacesOf, organisation, root } from "./Manifests.ts"

export interface Installed extends Cluster {
  /** Runs kubectl as the administrator and answers what it prints; what it refuses is an error. */
  readonly ok: (args: ReadonlyArray<string>, input?: string) => Promise<string>
  readonly apply: (manifests: ReadonlyArray<unknown>) => Promise<string>
}

/** Asks until it is answered so, a minute long unless said. */
export const until = async (what: string, ask: () => Promise<boolean>, patience = 60_000): Promise<void> => {
  const end = performance.now() + patience
  while (!(await ask())) {
    if (performance.now() > end) throw new Error(`it never came: ${what}`)
    await new Promise((done) => setTimeout(done, 100))
  }
}

export const install = async (namespaces: ReadonlyArray<Manifest> = []): Promise<Installed> => {
  const cluster = await startCluster()
  const ok = async (args: ReadonlyArray<string>, input?: string): Promise<string> => {
    const { code, err, out } = await cluster.kubectl(args, input)
    if (code !== 0) throw new Error(`kubectl ${args.join(" ")}: ${err}`)
    return out
  }
  const apply = (manifests: ReadonlyArray<unknown>) => ok(["apply", "--server-side", "-f", "-"], listOf(manifests))
  try {
    await ok(["apply", "--server-side", "-f", join(root, "k8s/crds")])
    await ok(["apply", "--server-side", "-f", join(root, "k8s/base/admission.yaml")])
    await ok(["wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"])
    await apply([...namespacesOf("nobody"), ...namespaces])
    // the server compiles a policy some time after it has taken it
    const stray = { ...organisation("nobody"), metadata: { name: "nobody", namespace: "nobody" } }
    await until("the admission policies are in force", async () => {
      const { err } = await cluster.kubectl(["create", "--dry-run=server", "-f", "-"], JSON.stringify(stray))
      return err.includes("an Organisation lives in velocity-system")
    })
    return { ...cluster, ok, apply }
  } catch (cause) {
    await cluster.stop()
    throw cause
  }
}
