/**
 * `npm run envtest`: builds kube-apiserver, etcd and kubectl from their Go modules, pinned in test/kubernetes/envtest/, and
 * promrules, which judges alerts with Prometheus' own engine, into a cache folder, and prints the folder for
 * KUBEBUILDER_ASSETS. A build that is there already is used: about three minutes the first time (with two cores), nothing
 * after.
 *
 *     export KUBEBUILDER_ASSETS=$(npm run --silent envtest)
 */
import { spawnSync } from "node:child_process"
import { createHash } from "node:crypto"
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync } from "node:fs"
import { homedir } from "node:os"
import { join, resolve } from "node:path"

const module = resolve(import.meta.dirname, "..", "test", "kubernetes", "envtest")
const promrules = resolve(module, "..", "promrules")
const version = "v1.36.3"
const packages = ["k8s.io/kubernetes/cmd/kube-apiserver", "k8s.io/kubernetes/cmd/kubectl", "go.etcd.io/etcd/server/v3"]
const stamp = [
  "-X k8s.io/component-base/version.gitVersion=",
  "-X k8s.io/component-base/version.gitMajor=",
  "-X k8s.io/component-base/version.gitMinor="
]
const [major = "", minor = ""] = version.slice(1).split(".")
const flags = `-s -w ${stamp[0]}${version} ${stamp[1]}${major} ${stamp[2]}${minor}`

const hash = createHash("sha256")
for (const name of ["go.mod", "go.sum"]) hash.update(readFileSync(join(module, name)))
for (const name of ["go.mod", "go.sum", "main.go"]) hash.update(readFileSync(join(promrules, name)))
hash.update(JSON.stringify([packages, flags, process.platform, process.arch]))
const cache = process.env.XDG_CACHE_HOME ?? join(homedir(), ".cache")
const folder = join(cache, "velocity-envtest", hash.digest("hex").slice(0, 16))

const fail = (message: string): never => {
  console.error(message)
  process.exit(1)
}

if (!existsSync(join(folder, "kube-apiserver"))) {
  if (spawnSync("go", ["version"]).status !== 0) {
    fail(
      "Go is not installed: install Go 1.26 or later, or set KUBEBUILDER_ASSETS to a folder with kube-apiserver, etcd and kubectl"
    )
  }
  console.error(`building kube-apiserver and kubectl ${version} and etcd into ${folder}: about three minutes`)
  const building = `${folder}.${process.pid}`
  mkdirSync(building, { recursive: true })
  const build = (cwd: string, ldflags: string, what: ReadonlyArray<string>) => {
    const args = ["build", "-trimpath", "-o", `${building}/`, "-ldflags", ldflags, ...what]
    if (spawnSync("go", args, { cwd, stdio: ["ignore", 2, 2] }).status === 0) return
    rmSync(building, { recursive: true, force: true })
    fail("the build failed")
  }
  build(module, flags, packages)
  build(promrules, "-s -w", ["."])
  // the package of etcd is called server
  renameSync(join(building, "server"), join(building, "etcd"))
  rmSync(folder, { recursive: true, force: true })
  renameSync(building, folder)
}
console.log(folder)
