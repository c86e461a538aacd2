/**
 * A real kube-apiserver and etcd for a test file, from KUBEBUILDER_ASSETS (the envtest convention): no nodes, no controllers
 * but ours, RBAC on. Started with free ports in a folder of its own; both end with the scope.
 */
import { type ChildProcess, spawn } from "node:child_process"
import { generateKeyPairSync, randomBytes } from "node:crypto"
import { appendFileSync } from "node:fs"
import { chmod, mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { tmpdir } from "node:os"
import { join } from "node:path"

/** What a test knows of its cluster. */
export interface Cluster {
  /** https://127.0.0.1:… */
  readonly url: string
  /** PEM of the certificate that signs the server's. */
  readonly ca: string
  /** The administrator's bearer token (group system:masters). */
  readonly adminToken: string
  /** A kubeconfig file for the administrator. */
  readonly kubeconfig: string
  readonly folder: string
  /** Runs kubectl as the administrator. */
  readonly kubectl: (args: ReadonlyArray<string>, input?: string) => Promise<Ran>
  /** Ends the API server at once, as a crash does; `startApiServer` brings it back on the same port and data. */
  readonly killApiServer: () => Promise<void>
  readonly startApiServer: () => Promise<void>
  /** Drops every version of every object in etcd but the newest, as the API server does every five minutes. */
  readonly compact: () => Promise<void>
  /** Ends both, calls `meanwhile` with the folder of etcd's data, and starts both again. */
  readonly whileDown: (meanwhile: (data: string) => Promise<void>) => Promise<void>
  readonly stop: () => Promise<void>
}

export interface Ran {
  readonly code: number | null
  readonly out: string
  readonly err: string
}

const freePort = (): Promise<number> =>
  new Promise((done, failed) => {
    const server = createServer()
    server.once("error", failed)
    server.listen(0, "127.0.0.1", () => {
      const address = server.address()
      server.close(() =>
        typeof address === "object" && address !== null ? done(address.port) : failed(new Error("no port"))
      )
    })
  })

const run = (command: string, args: ReadonlyArray<string>, env: NodeJS.ProcessEnv, input = ""): Promise<Ran> =>
  new Promise((done, failed) => {
    const child = spawn(command, args, { env, stdio: ["pipe", "pipe", "pipe"] })
    let out = ""
    let err = ""
    child.stdout.setEncoding("utf8").on("data", (text: string) => (out += text))
    child.stderr.setEncoding("utf8").on("data", (text: string) => (err += text))
    child.once("error", failed)
    child.once("close", (code) => done({ code, out, err }))
    child.stdin.end(input)
  })

/** In a cluster's folder: the processes that stand on it. */
export const processesFile = "processes"

interface Process {
  readonly child: ChildProcess
  readonly log: () => string
  readonly ended: Promise<void>
}

const start = (command: string, args: ReadonlyArray<string>, cwd: string): Process => {
  const child = spawn(command, args, { cwd, stdio: ["ignore", "ignore", "pipe"] })
  // for the sweep of a later run, where this one is killed
  appendFileSync(join(cwd, processesFile), `${child.pid}\n`)
  let log = ""
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    // what it said last is what a person needs
    log = (log + text).slice(-20_000)
  })
  const ended = new Promise<void>((done) => child.once("exit", () => done()))
  return { child, log: () => log, ended }
}

const end = async (running: Process, signal: NodeJS.Signals): Promise<void> => {
  running.child.kill(signal)
  await running.ended
}

/** Asks until it is answered so; a process that ended meanwhile, or a minute without it, is an error with its log. */
const untilReady = async (name: string, running: Process, ask: () => Promise<boolean>): Promise<void> => {
  const until = performance.now() + 60_000
  let over = false
  void running.ended.then(() => {
    over = true
  })
  while (!(await ask().catch(() => false))) {
    if (over || performance.now() > until) throw new Error(`${name} is not ready:\n${running.log()}`)
    await new Promise((done) => setTimeout(done, 50))
  }
}

/** The folder of the binaries; fails with what to type where there is none. */
const assets = (): string => {
  const folder = process.env.KUBEBUILDER_ASSETS
  if (folder === undefined || folder === "") {
    throw new Error("no Kubernetes to test with: export KUBEBUILDER_ASSETS=$(npm run --silent envtest)")
  }
  return folder
}

export const startCluster = async (): Promise<Cluster> => {
  const bin = assets()
  const folder = await mkdtemp(join(tmpdir(), `velocity-test-${process.pid}-k8s-`))
  const [etcdPort, peerPort, port] = await Promise.all([freePort(), freePort(), freePort()])
  const adminToken = randomBytes(16).toString("hex")
  await writeFile(join(folder, "tokens.csv"), `${adminToken},admin,admin,"system:masters"\n`, { mode: 0o600 })
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 })
  await writeFile(join(folder, "sa.key"), privateKey.export({ type: "pkcs1", format: "pem" }), { mode: 0o600 })
  await chmod(folder, 0o700)

  const etcdUrl = `http://127.0.0.1:${etcdPort}`
  const data = join(folder, "etcd")
  let etcd: Process
  const startEtcd = async () => {
    etcd = start(
      join(bin, "etcd"),
      [
        ...["--data-dir", data, "--listen-client-urls", etcdUrl, "--advertise-client-urls", etcdUrl],
        ...["--listen-peer-urls", `http://127.0.0.1:${peerPort}`, "--unsafe-no-fsync"]
      ],
      folder
    )
    await untilReady("etcd", etcd, async () => (await fetch(`${etcdUrl}/health`)).ok)
  }
  await startEtcd()

  const url = `https://127.0.0.1:${port}`
  const certificates = join(folder, "certs")
  const kubeconfig = join(folder, "kubeconfig")
  const env = { ...process.env, KUBECONFIG: kubeconfig }
  const kubectl = (args: ReadonlyArray<string>, input?: string) => run(join(bin, "kubectl"), args, env, input)
  let apiServer: Process
  const startApiServer = async () => {
    apiServer = start(
      join(bin, "kube-apiserver"),
      [
        `--etcd-servers=${etcdUrl}`,
        `--cert-dir=${certificates}`,
        `--secure-port=${port}`,
        "--bind-address=127.0.0.1",
        "--authorization-mode=RBAC",
        `--token-auth-file=${join(folder, "tokens.csv")}`,
        `--service-account-key-file=${join(folder, "sa.key")}`,
        `--service-account-signing-key-file=${join(folder, "sa.key")}`,
        "--service-account-issuer=https://kubernetes.default.svc",
        "--service-cluster-ip-range=10.0.0.0/24",
        "--disable-admission-plugins=ServiceAccount"
      ],
      folder
    )
    await untilReady("kube-apiserver", apiServer, async () => {
      const { code } = await run(
        join(bin, "kubectl"),
        ["--server", url, "--insecure-skip-tls-verify", "--token", adminToken, "get", "--raw", "/readyz"],
        env
      )
      return code === 0
    })
  }
  await startApiServer()
  const ca = await readFile(join(certificates, "apiserver.crt"), "utf8")
  const config = {
    apiVersion: "v1",
    kind: "Config",
    clusters: [
      { name: "test", cluster: { server: url, "certificate-authority-data": Buffer.from(ca).toString("base64") } }
    ],
    users: [{ name: "admin", user: { token: adminToken } }],
    contexts: [{ name: "test", context: { cluster: "test", user: "admin" } }],
    "current-context": "test"
  }
  await writeFile(kubeconfig, JSON.stringify(config), { mode: 0o600 })

  return {
    url,
    ca,
    adminToken,
    kubeconfig,
    folder,
    kubectl,
    killApiServer: () => end(apiServer, "SIGKILL"),
    startApiServer,
    compact: async () => {
      // etcd's gateway (its documentation, "Why gRPC gateway"): bytes are base64, and 64-bit numbers text
      const ask = async (name: string, body: object) => {
        const answer = await fetch(`${etcdUrl}/v3/kv/${name}`, { method: "POST", body: JSON.stringify(body) })
        if (!answer.ok) throw new Error(`etcd ${name}: ${await answer.text()}`)
        return (await answer.json()) as { readonly header: { readonly revision: string } }
      }
      const { header } = await ask("range", { key: Buffer.from("x").toString("base64") })
      await ask("compaction", { revision: header.revision, physical: true })
    },
    whileDown: async (meanwhile) => {
      await end(apiServer, "SIGKILL")
      await end(etcd, "SIGTERM")
      await meanwhile(data)
      await startEtcd()
      await startApiServer()
    },
    stop: async () => {
      await end(apiServer, "SIGTERM")
      await end(etcd, "SIGTERM")
      await rm(folder, { recursive: true, force: true })
    }
  }
}
