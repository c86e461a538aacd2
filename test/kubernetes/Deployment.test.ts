/**
 * k8s/base: a real API server takes all of it, as it is applied; what it says of the product (variables, paths, ports,
 * times) is so.
 */
import { readFileSync, realpathSync } from "node:fs"
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join, relative } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"
import { routesOf } from "../../src/api/Routes.ts"
import { variables } from "../../src/cli/Environment.ts"
import { version } from "../../src/cli/Velocity.ts"
import { type Cluster, startCluster } from "./Cluster.ts"
import { configuredOf, containerOf, find, isWorkload, kustomized, secretsOf, type Workload } from "./Kustomized.ts"
import { listOf, type Manifest, namespace, root } from "./Manifests.ts"

const base = kustomized("k8s/base")
const workloads = base.filter(isWorkload)
const api = find<Workload>(base, "Deployment", "velocity-api")
const operator = find<Workload>(base, "Deployment", "velocity-operator")
const fallbackOf = (name: string): string => variables.find((one) => one.name === name)?.fallback ?? ""
const settingsOf = (workload: Workload) => configuredOf(base, containerOf(workload))

interface NetworkPolicy extends Manifest {
  readonly spec: {
    readonly podSelector: { readonly matchLabels: Readonly<Record<string, string>> }
    readonly policyTypes: ReadonlyArray<string>
    readonly ingress?: ReadonlyArray<{ readonly ports: ReadonlyArray<{ readonly port: string | number }> }>
    readonly egress?: ReadonlyArray<{ readonly ports: ReadonlyArray<{ readonly port: string | number }> }>
  }
}
const policies = base.filter((one) => one.kind === "NetworkPolicy") as ReadonlyArray<NetworkPolicy>
const selects = (labels: Readonly<Record<string, string>>, { spec }: Workload): boolean =>
  Object.entries(labels).every(([key, value]) => spec.template.metadata.labels[key] === value)

let cluster: Cluster
const ok = async (args: ReadonlyArray<string>, input?: string): Promise<string> => {
  const { code, err, out } = await cluster.kubectl(args, input)
  expect(err, args.join(" ")).toBe("")
  expect(code).toBe(0)
  return out
}

beforeAll(async () => {
  cluster = await startCluster()
})
afterAll(() => cluster?.stop())

describe("k8s/base", () => {
  it("is taken by the API server, in a dry run and then in earnest, and again without a change", async () => {
    await ok(["apply", "--server-side", "-f", "-"], JSON.stringify(namespace("velocity-system")))
    const dry = await ok(["apply", "--server-side", "--dry-run=server", "-k", join(root, "k8s/base")])
    expect(dry.trim().split("\n")).toHaveLength(base.length)
    await ok(["apply", "--server-side", "-k", join(root, "k8s/base")])
    const versions = async () => {
      const names = base.map(({ kind, metadata }) => `${kind}/${metadata.name}`)
      const all = await ok(["get", "-n", "velocity-system", ...names, "-o", "json"])
      const { items } = JSON.parse(all) as { readonly items: ReadonlyArray<Manifest> }
      return items.map(
        ({ kind, metadata }) => `${kind} ${metadata.name} ${metadata.generation ?? metadata.resourceVersion}`
      )
    }
    const before = await versions()
    await ok(["apply", "--server-side", "-k", join(root, "k8s/base")])
    expect(await versions()).toEqual(before)
  })

  it("has pods that the strictest Pod Security Standard admits, which its namespace asks for", async () => {
    const pods = workloads.map(({ metadata, spec }) => ({
      apiVersion: "v1",
      kind: "Pod",
      metadata: { name: metadata.name, namespace: "velocity-system", labels: spec.template.metadata.labels },
      spec: spec.template.spec
    }))
    await ok(["create", "--dry-run=server", "-f", "-"], listOf(pods))
    const careless = { ...pods[0], spec: { ...pods[0]?.spec, securityContext: {} } }
    const { err } = await cluster.kubectl(["create", "--dry-run=server", "-f", "-"], JSON.stringify(careless))
    expect(err).toContain('violates PodSecurity "restricted')
  })

  it("runs one image of this version under three accounts, without a shell's luxuries", () => {
    expect(workloads).toHaveLength(3)
    for (const workload of workloads) {
      const container = containerOf(workload)
      const { spec } = workload.spec.template
      expect(container.image).toBe(`velocity:${version}`)
      expect(container.command).toBeUndefined()
      expect(spec.serviceAccountName).toBe(workload.metadata.name)
      expect(spec.automountServiceAccountToken).toBe(workload === operator ? undefined : false)
      expect(spec.securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 65532 })
      expect(container.securityContext).toEqual({
        allowPrivilegeEscalation: false,
        readOnlyRootFilesystem: true,
        capabilities: { drop: ["ALL"] }
      })
      expect(Object.keys(container.resources.requests ?? {})).toEqual(["cpu", "memory"])
      expect(container.resources.limits).toHaveProperty("memory")
    }
  })

  it("sets variables that there are, and takes what is secret from a Secret of each process alone", () => {
    const known = variables.map(({ name }) => name)
    const secret = [
      ...readFileSync(join(root, "docs/operations.md"), "utf8").matchAll(/^\| `(VELOCITY_\w+)` \|[^|]*\| yes \|/gmu)
    ].map(([, name]) => name)
    expect(secret).toContain("VELOCITY_AUDIT_KEY")
    for (const workload of workloads) {
      const plain = Object.keys(settingsOf(workload))
      const hidden = secretsOf(containerOf(workload))
      for (const name of [...plain, ...hidden.map(({ variable }) => variable)]) expect(known).toContain(name)
      expect(plain.filter((name) => secret.includes(name))).toEqual([])
      for (const { key, name, variable } of hidden) {
        expect(secret).toContain(variable)
        expect([name, key]).toEqual([workload.metadata.name, variable])
      }
    }
  })

  it("names every Secret and key in the installation's page", () => {
    const page = readFileSync(join(root, "docs/install.md"), "utf8")
    for (const workload of workloads) {
      for (const { key, name, optional } of secretsOf(containerOf(workload))) {
        expect(page).toContain(`\`${key}\``)
        if (optional !== true)
          expect(page).toMatch(new RegExp(`create secret generic ${name} .*--from-literal=${key}=`, "u"))
      }
    }
  })

  it("probes what is answered, where it listens", () => {
    for (const [workload, port, variable] of [
      [api, "http", "VELOCITY_PORT"],
      [operator, "metrics", "VELOCITY_OPERATOR_PORT"]
    ] as const) {
      const container = containerOf(workload)
      expect(container.ports).toEqual([{ name: port, containerPort: Number(settingsOf(workload)[variable]) }])
      expect(settingsOf(workload).VELOCITY_HOST).toBe("0.0.0.0")
      for (const [probe, path] of [
        [container.startupProbe, "/healthz"],
        [container.livenessProbe, "/healthz"],
        [container.readinessProbe, "/readyz"]
      ] as const) {
        expect(probe?.httpGet).toEqual({ path, port })
        expect(routesOf(path).has("GET")).toBe(true)
      }
    }
  })

  it("leads its Services to its pods", () => {
    for (const workload of [api, operator]) {
      const service = find<
        Manifest & {
          readonly spec: {
            readonly selector: Readonly<Record<string, string>>
            readonly ports: ReadonlyArray<{ readonly targetPort: string }>
          }
        }
      >(base, "Service", workload.metadata.name)
      expect(workloads.filter((one) => selects(service.spec.selector, one))).toEqual([workload])
      expect(service.spec.ports.map(({ targetPort }) => targetPort)).toEqual(
        containerOf(workload).ports?.map(({ name }) => name)
      )
      expect(selects(workload.spec.selector?.matchLabels ?? {}, workload)).toBe(true)
    }
  })

  it("gives a pod more time to end than it takes", () => {
    const seconds = (name: string, workload: Workload) =>
      Number.parseInt(settingsOf(workload)[name] ?? fallbackOf(name), 10)
    const grace = (workload: Workload) => workload.spec.template.spec.terminationGracePeriodSeconds ?? 30
    const waits = containerOf(api).lifecycle?.preStop?.sleep?.seconds ?? 0
    expect(waits).toBeGreaterThan(0)
    expect(grace(api)).toBeGreaterThan(waits + seconds("VELOCITY_SHUTDOWN_TIMEOUT", api))
    expect(grace(operator)).toBeGreaterThan(seconds("VELOCITY_OPERATOR_STATEMENT_TIMEOUT", operator))
  })

  it("opens no more connections than Postgres has at first", () => {
    const { spec } = find<Manifest & { readonly spec: { readonly minReplicas: number; readonly maxReplicas: number } }>(
      base,
      "HorizontalPodAutoscaler",
      "velocity-api"
    )
    expect(spec.minReplicas).toBeGreaterThan(1)
    // docs/operations.md, Pools; 100 connections, of which 3 are a superuser's
    const perReplica = Number(settingsOf(api).VELOCITY_API_CONNECTIONS) + 1
    const [, perOperator] =
      /an operator opens (\d+)/u.exec(readFileSync(join(root, "docs/operations.md"), "utf8")) ?? []
    const { replicas } = operator.spec as unknown as { readonly replicas: number }
    expect(spec.maxReplicas * perReplica + replicas * Number(perOperator)).toBeLessThanOrEqual(97)
  })

  it("denies every pod everything that no policy names", () => {
    const [deny] = policies.filter(({ metadata }) => metadata.name === "velocity-default-deny")
    expect(deny?.spec.policyTypes).toEqual(["Ingress", "Egress"])
    expect(deny?.spec.ingress ?? deny?.spec.egress).toBeUndefined()
    expect(workloads.filter((one) => selects(deny?.spec.podSelector.matchLabels ?? {}, one))).toHaveLength(3)
    const ports = (workload: Workload, way: "ingress" | "egress") =>
      policies
        .filter(({ spec }) => selects(spec.podSelector.matchLabels, workload))
        .flatMap(({ spec }) => (spec[way] ?? []).flatMap((rule) => rule.ports.map(({ port }) => port)))
    expect(ports(api, "ingress")).toEqual(["http"])
    expect(ports(operator, "ingress")).toEqual([])
    expect(new Set(ports(api, "egress"))).toEqual(new Set([53, 5432, 6432, 443]))
    expect(new Set(ports(operator, "egress"))).toEqual(new Set([53, 5432, 443, 6443]))
    expect(new Set(ports(find<Workload>(base, "Job", "velocity-migrate"), "egress"))).toEqual(new Set([53, 5432]))
  })

  it("leaves the rights as k8s/base/rbac.yaml has them", () => {
    const written = parseAllDocuments(readFileSync(join(root, "k8s/base/rbac.yaml"), "utf8")).map(
      (one) => one.toJS() as Manifest
    )
    for (const one of written) {
      const { kind, metadata } = one
      const { rules, subjects } = one as unknown as Readonly<Record<string, unknown>>
      const made = find<Manifest>(base, kind, metadata.name) as unknown as Readonly<Record<string, unknown>>
      expect([made.rules, made.subjects]).toEqual([rules, subjects])
    }
  })

  /** What an overlay with these components, in this order, is made into. */
  const overlaid = async (...components: ReadonlyArray<string>) => {
    const folder = await mkdtemp(join(tmpdir(), `velocity-test-${process.pid}-overlay-`))
    const from = (path: string) => relative(realpathSync(folder), join(root, path))
    const overlay = {
      resources: [from("k8s/base")],
      components: components.map((name) => from(`k8s/components/${name}`))
    }
    await writeFile(join(folder, "kustomization.yaml"), JSON.stringify(overlay))
    const { code, err, out } = await cluster.kubectl(["kustomize", folder])
    await rm(folder, { recursive: true })
    expect(code, err).toBe(0)
    const made = parseAllDocuments(out).map((one) => one.toJS() as Manifest)
    // the Job of k8s/base is there, and a Job's pods are not changed
    const taken = made.filter(({ kind }) => kind !== "Job")
    await ok(["apply", "--server-side", "--dry-run=server", "-f", "-"], listOf(taken))
    return made
  }
  const authority = {
    volume: { name: "postgres-ca", secret: { secretName: "velocity-postgres-ca" } },
    mount: { name: "postgres-ca", mountPath: "/etc/velocity/postgres", readOnly: true }
  }
  const checkpoints = {
    volume: { name: "checkpoints", persistentVolumeClaim: { claimName: "velocity-checkpoints" } },
    mount: { name: "checkpoints", mountPath: "/var/lib/velocity/checkpoints" }
  }

  it("takes a component that trusts a certificate authority of one's own, in all three", async () => {
    const made = await overlaid("postgres-ca")
    for (const { metadata, kind } of workloads) {
      const workload = find<Workload>(made, kind, metadata.name)
      expect(containerOf(workload).env).toContainEqual({
        name: "NODE_EXTRA_CA_CERTS",
        value: "/etc/velocity/postgres/ca.crt"
      })
      expect(workload.spec.template.spec).toMatchObject({
        volumes: [authority.volume],
        containers: [{ volumeMounts: [authority.mount] }]
      })
    }
  })

  it("takes a component that publishes checkpoints into a volume, beside the other in either order", async () => {
    for (const components of [
      ["checkpoints", "postgres-ca"],
      ["postgres-ca", "checkpoints"]
    ]) {
      const made = await overlaid(...components)
      const publishing = find<Workload>(made, "Deployment", "velocity-operator")
      const { containers, securityContext, volumes } = publishing.spec.template.spec as unknown as {
        readonly containers: readonly [{ readonly volumeMounts: ReadonlyArray<unknown> }]
        readonly securityContext: unknown
        readonly volumes: ReadonlyArray<unknown>
      }
      expect(volumes).toHaveLength(2)
      expect(volumes).toEqual(expect.arrayContaining([authority.volume, checkpoints.volume]))
      const [{ volumeMounts }] = containers
      expect(volumeMounts).toHaveLength(2)
      expect(volumeMounts).toEqual(expect.arrayContaining([authority.mount, checkpoints.mount]))
      // written as the user that the operator is, whoever owns the volume
      expect(securityContext).toMatchObject({ runAsNonRoot: true, runAsUser: 65532, fsGroup: 65532 })
      const settings = configuredOf(made, containerOf(publishing))
      expect(settings).toMatchObject({
        ...settingsOf(operator),
        VELOCITY_AUDIT_PUBLISH_DIR: checkpoints.mount.mountPath
      })
      const others = find<Workload>(made, "Deployment", "velocity-api").spec.template.spec
      expect(others).toMatchObject({ volumes: [authority.volume] })
    }
  })

  it("has every kind of k8s/crds", () => {
    const kinds = base.filter((one) => one.kind === "CustomResourceDefinition")
    expect(kinds.length).toBeGreaterThanOrEqual(6)
    const policy = find<Manifest>(base, "ValidatingAdmissionPolicy", "velocity-path")
    expect(policy).toBeDefined()
  })
})
