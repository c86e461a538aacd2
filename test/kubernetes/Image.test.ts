/**
 * The image, and the processes of k8s/base started from it as their manifests say: command line, variables, user, a folder
 * that nobody can write, the operator with its own ServiceAccount's token on a real API server.
 */
import { type ChildProcess, spawn, spawnSync } from "node:child_process"
import { readdirSync, readFileSync } from "node:fs"
import { chmod, mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { dirname, join } from "node:path"
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { version } from "../../src/cli/Velocity.ts"
import { freshDatabase, type TestDatabase } from "../support/Database.ts"
import { type Image, layImage } from "./Image.ts"
import { type Installed, install, until } from "./Installed.ts"
import { configuredOf, containerOf, find, kustomized, secretsOf, type Workload } from "./Kustomized.ts"
import { definition, namespacesOf, parents, root } from "./Manifests.ts"

const base = kustomized("k8s/base")
const scope = Scope.makeUnsafe()
let image: Image
let cluster: Installed
let database: TestDatabase
let shared: string

interface Process {
  readonly child: ChildProcess
  readonly ended: Promise<number | null>
  readonly log: () => string
}
const running: Array<Process> = []

/** Starts the image's entrypoint with these arguments and variables alone. */
const enter = (args: ReadonlyArray<string>, env: Readonly<Record<string, string>>): Process => {
  const [uid = "", gid = ""] = image.user.split(":")
  // an ordinary user of this machine cannot become another, and cannot write in the folder either
  const as = process.getuid?.() === 0 ? ["setpriv", `--reuid=${uid}`, `--regid=${gid}`, "--clear-groups"] : []
  const path = (image.env.PATH ?? "").split(":")
  const [command = "", ...rest] = [...as, ...image.entrypoint, ...args]
  const child = spawn(command, rest, {
    cwd: join(image.folder, image.workdir),
    env: {
      ...image.env,
      ...env,
      // the image's own folders first, then where this run's Node stands for the base image's
      PATH: [...path.map((one) => join(image.folder, one)), dirname(process.execPath), ...path].join(":")
    },
    stdio: ["ignore", "pipe", "pipe"]
  })
  let log = ""
  for (const stream of [child.stdout, child.stderr])
    stream.setEncoding("utf8").on("data", (text: string) => (log += text))
  const started = {
    child,
    ended: new Promise<number | null>((done) => child.once("close", done)),
    log: () => log
  }
  running.push(started)
  return started
}

/** A workload's process, as its manifest says, but for ports that this machine may have in use. */
const startWorkload = (kind: string, name: string, secrets: Readonly<Record<string, string>>, more = {}): Process => {
  const container = containerOf(find<Workload>(base, kind, name))
  const values = secretsOf(container).flatMap(({ optional, variable }) => {
    const value = secrets[variable]
    if (value === undefined && optional !== true) throw new Error(`${name} is given no ${variable}`)
    return value === undefined ? [] : [[variable, value] as const]
  })
  return enter(container.args, { ...configuredOf(base, container), ...Object.fromEntries(values), ...more })
}

const placeOf = async ({ ended, log }: Process): Promise<string> => {
  let over = false
  void ended.then(() => {
    over = true
  })
  const find = () => /"message":"[^"]* at (http:\/\/[^"]+)"/u.exec(log())?.[1]
  await until("it says where it listens", async () => {
    if (over) throw new Error(log())
    return find() !== undefined
  })
  return find()?.replace("0.0.0.0", "127.0.0.1") ?? ""
}

const probed = async (name: string, place: string) => {
  const { livenessProbe, readinessProbe, startupProbe } = containerOf(find<Workload>(base, "Deployment", name))
  for (const probe of [startupProbe, livenessProbe, readinessProbe]) {
    await until(
      `${name} answers ${probe?.httpGet.path}`,
      async () => (await fetch(`${place}${probe?.httpGet.path}`)).ok
    )
  }
}

beforeAll(async () => {
  image = await layImage()
  shared = await mkdtemp(join(tmpdir(), `velocity-test-${process.pid}-image-`))
  await chmod(shared, 0o755)
  database = await Effect.runPromise(freshDatabase.pipe(Scope.provide(scope)) as Effect.Effect<TestDatabase>)
  cluster = await install()
  await cluster.ok(["apply", "--server-side", "--force-conflicts", "-k", join(root, "k8s/base")])
}, 400_000)

afterAll(async () => {
  for (const { child } of running) child.kill("SIGKILL")
  await Effect.runPromise(Scope.close(scope, Exit.void))
  await cluster?.stop()
  await image?.remove()
  if (shared !== undefined) await rm(shared, { recursive: true, force: true })
})

describe("the image", () => {
  it("is made of what .dockerignore lets through", () => {
    const through = readFileSync(join(root, ".dockerignore"), "utf8")
      .split("\n")
      .filter((line) => line.startsWith("!"))
      .map((line) => line.slice(1))
    expect(new Set(image.sources)).toEqual(new Set(through))
  })

  it("has compiled JavaScript and no development, no embedded Postgres, no Node of its own", () => {
    const folder = join(image.folder, image.workdir)
    expect(readdirSync(folder).sort()).toEqual(["LICENSE", "bin", "dist", "migrations", "node_modules", "package.json"])
    const packages = readdirSync(join(folder, "node_modules"))
    const { dependencies, devDependencies, optionalDependencies } = JSON.parse(
      readFileSync(join(root, "package.json"), "utf8")
    ) as Readonly<Record<string, Readonly<Record<string, string>>>>
    const top = (names: Readonly<Record<string, string>> = {}) => Object.keys(names).map((name) => name.split("/")[0])
    expect(packages).toEqual(expect.arrayContaining(top(dependencies)))
    expect(packages.filter((name) => top({ ...optionalDependencies }).includes(name))).toEqual([])
    for (const name of Object.keys(devDependencies ?? {}).filter((one) => !one.startsWith("@"))) {
      expect(packages).not.toContain(name)
    }
  })

  it("runs as nobody in particular, in a folder that it cannot write", async () => {
    expect(image.user).toBe("65532:65532")
    const told = enter(["--version"], {})
    expect(await told.ended).toBe(0)
    expect(told.log()).toContain(version)
    const into = join(image.folder, image.workdir)
    const as = process.getuid?.() === 0 ? ["setpriv", "--reuid=65532", "--regid=65532", "--clear-groups"] : []
    const [command = "", ...args] = [...as, "touch", join(into, "written")]
    expect(spawnSync(command, args).status).not.toBe(0)
  })

  it("migrates, as its Job says", async () => {
    const job = startWorkload("Job", "velocity-migrate", { VELOCITY_MIGRATE_DATABASE_URL: database.ownerUrl })
    expect(await job.ended, job.log()).toBe(0)
    expect(job.log()).toContain("nothing was to repair")
  })

  it("serves, as the API's Deployment says, and ends when it is told to", async () => {
    const api = startWorkload(
      "Deployment",
      "velocity-api",
      { VELOCITY_API_DATABASE_URL: database.apiUrl },
      { VELOCITY_PORT: "0" }
    )
    const place = await placeOf(api)
    await probed("velocity-api", place)
    expect((await fetch(`${place}/api/me`)).status).toBe(401)
    expect((await fetch(`${place}/metrics`)).status).toBe(200)
    api.child.kill("SIGTERM")
    expect(await api.ended, api.log()).toBe(0)
  })

  it("operates, as the operator's Deployment says, with its ServiceAccount's token, and hands the Lease back", async () => {
    const token = (await cluster.ok(["create", "token", "velocity-operator", "-n", "velocity-system"])).trim()
    const config = JSON.parse(readFileSync(cluster.kubeconfig, "utf8")) as Record<string, unknown>
    const kubeconfig = join(shared, "kubeconfig")
    await writeFile(kubeconfig, JSON.stringify({ ...config, users: [{ name: "admin", user: { token } }] }), {
      mode: 0o644
    })
    const operator = startWorkload(
      "Deployment",
      "velocity-operator",
      { VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl },
      { VELOCITY_OPERATOR_PORT: "0", KUBECONFIG: kubeconfig }
    )
    await probed("velocity-operator", await placeOf(operator))
    const { org } = database
    const thing = definition(org, "thing")
    await cluster.apply([...namespacesOf(org), ...parents(org), thing])
    // no replica serves any more, so it is not Ready
    await cluster.ok(["wait", "--for=condition=Provisioned", "vsd/thing", "-n", `${org}-shop-eu`, "--timeout=60s"])
    operator.child.kill("SIGTERM")
    expect(await operator.ended, operator.log()).toBe(0)
    expect(operator.log()).not.toMatch(/forbidden|EACCES|EROFS/iu)
    const lease = await cluster.ok(["get", "lease", "velocity-operator", "-n", "velocity-system", "-o", "json"])
    expect(JSON.parse(lease)).toMatchObject({ spec: { holderIdentity: "" } })
  })
})
