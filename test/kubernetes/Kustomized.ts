/** What `kubectl kustomize` makes of a folder of k8s/, and what a container of it is told. */
import { spawnSync } from "node:child_process"
import { join } from "node:path"
import { parseAllDocuments } from "yaml"
import { type Manifest, root } from "./Manifests.ts"

export interface EnvVar {
  readonly name: string
  readonly value?: string
  readonly valueFrom?: {
    readonly secretKeyRef?: { readonly name: string; readonly key: string; readonly optional?: boolean }
  }
}

export interface Probe {
  readonly httpGet: { readonly path: string; readonly port: string }
}

export interface Container {
  readonly name: string
  readonly image: string
  readonly command?: ReadonlyArray<string>
  readonly args: ReadonlyArray<string>
  readonly env?: ReadonlyArray<EnvVar>
  readonly envFrom?: ReadonlyArray<{ readonly configMapRef: { readonly name: string } }>
  readonly ports?: ReadonlyArray<{ readonly name: string; readonly containerPort: number }>
  readonly startupProbe?: Probe
  readonly livenessProbe?: Probe
  readonly readinessProbe?: Probe
  readonly lifecycle?: { readonly preStop?: { readonly sleep?: { readonly seconds: number } } }
  readonly resources: {
    readonly requests?: Readonly<Record<string, string>>
    readonly limits?: Readonly<Record<string, string>>
  }
  readonly securityContext: Readonly<Record<string, unknown>>
}

export interface PodTemplate {
  readonly metadata: { readonly labels: Readonly<Record<string, string>> }
  readonly spec: {
    readonly serviceAccountName: string
    readonly automountServiceAccountToken?: boolean
    readonly terminationGracePeriodSeconds?: number
    readonly securityContext: Readonly<Record<string, unknown>>
    readonly containers: readonly [Container]
  }
}

export interface Workload extends Manifest {
  readonly spec: {
    readonly template: PodTemplate
    readonly selector?: { readonly matchLabels: Readonly<Record<string, string>> }
  }
}

/** The folder's objects, as `kubectl apply -k` sends them. */
export const kustomized = (folder: string): ReadonlyArray<Manifest> => {
  const kubectl = join(process.env.KUBEBUILDER_ASSETS ?? "", "kubectl")
  const { error, status, stderr, stdout } = spawnSync(kubectl, ["kustomize", join(root, folder)], { encoding: "utf8" })
  if (error !== undefined) throw error
  if (status !== 0) throw new Error(`kubectl kustomize ${folder}: ${stderr}`)
  return parseAllDocuments(stdout).map((one) => one.toJS() as Manifest)
}

export const isWorkload = (one: Manifest): one is Workload => one.kind === "Deployment" || one.kind === "Job"

export const find = <M extends Manifest>(objects: ReadonlyArray<Manifest>, kind: string, name: string): M => {
  const found = objects.find((one) => one.kind === kind && one.metadata.name === name)
  if (found === undefined) throw new Error(`there is no ${kind} ${name}`)
  return found as M
}

export const containerOf = (workload: Workload): Container => workload.spec.template.spec.containers[0]

/** The variables of a container with a value in the manifests: its own, and those of its ConfigMaps. */
export const configuredOf = (
  objects: ReadonlyArray<Manifest>,
  container: Container
): Readonly<Record<string, string>> =>
  Object.fromEntries([
    ...(container.envFrom ?? []).flatMap(({ configMapRef }) =>
      Object.entries(
        find<Manifest & { readonly data: Readonly<Record<string, string>> }>(objects, "ConfigMap", configMapRef.name)
          .data
      )
    ),
    ...(container.env ?? []).flatMap(({ name, value }) => (value === undefined ? [] : [[name, value] as const]))
  ])

/** Those that come from Secrets. */
export const secretsOf = (container: Container) =>
  (container.env ?? []).flatMap(({ name, valueFrom }) =>
    valueFrom?.secretKeyRef === undefined ? [] : [{ variable: name, ...valueFrom.secretKeyRef }]
  )
