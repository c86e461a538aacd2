/** Manifests for the cluster tests: the samples, and definitions made for a case. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { parseAllDocuments } from "yaml"

export const root = join(import.meta.dirname, "../..")

/** An object as it is applied. */
export interface Manifest {
  readonly apiVersion: string
  readonly kind: string
  readonly metadata: Readonly<Record<string, unknown>> & { readonly name: string; readonly namespace?: string }
  readonly spec?: unknown
}

const samplesFolder = join(root, "k8s/samples")

/** Every document of every sample, in the order of the files. */
export const samples: ReadonlyArray<Manifest> = readdirSync(samplesFolder)
  .sort()
  .flatMap((name) =>
    parseAllDocuments(readFileSync(join(samplesFolder, name), "utf8")).map((one) => one.toJS() as Manifest)
  )

export const isOurs = ({ apiVersion }: Manifest): boolean => apiVersion === "velocity.sh/v1"

/** A List, as kubectl takes several objects. */
export const listOf = (items: ReadonlyArray<unknown>): string =>
  JSON.stringify({ apiVersion: "v1", kind: "List", items })

export const namespace = (name: string, path: Readonly<Record<string, string>> = {}): Manifest => ({
  apiVersion: "v1",
  kind: "Namespace",
  metadata: {
    name,
    labels: Object.fromEntries(Object.entries(path).map(([key, value]) => [`velocity.sh/${key}`, value]))
  }
})

/** The namespaces of a domain of `org`: `{org}`, `{org}-shop`, `{org}-shop-eu`, and Velocity's own. */
export const namespacesOf = (org: string): ReadonlyArray<Manifest> => [
  namespace("velocity-system"),
  namespace(org, { org }),
  namespace(`${org}-shop`, { org, app: "shop" }),
  namespace(`${org}-shop-eu`, { org, app: "shop", domain: "eu" })
]

const resource = (kind: string, namespaceName: string, name: string, spec: unknown): Manifest => ({
  apiVersion: "velocity.sh/v1",
  kind,
  metadata: { name, namespace: namespaceName },
  spec
})

export const organisation = (org: string) => resource("Organisation", "velocity-system", org, { org })
export const application = (org: string) => resource("Application", org, "shop", { org, app: "shop" })
export const domain = (org: string, more: object = {}) =>
  resource("Domain", `${org}-shop`, "eu", { org, app: "shop", domain: "eu", ...more })

/** A definition of `{org}/shop/eu/{name}/v1`; `more` goes over what it says. */
export const definition = (org: string, name: string, more: object = {}) =>
  resource("SchemaDefinition", `${org}-shop-eu`, name, {
    org,
    app: "shop",
    domain: "eu",
    object: name,
    version: "v1",
    fields: [{ name: "a", type: "string" }],
    access: { roles: [{ role: "buyer", operations: ["create", "read"] }] },
    ...more
  })

export const binding = (org: string, name: string, more: object = {}) =>
  resource("RoleBinding", `${org}-shop-eu`, name, {
    org,
    app: "shop",
    domain: "eu",
    actorId: "development/alice",
    roles: ["buyer"],
    ...more
  })

export const apiKey = (org: string, name: string, more: object = {}) =>
  resource("ApiKey", `${org}-shop-eu`, name, {
    org,
    app: "shop",
    domain: "eu",
    actor: "keys/robot",
    roles: ["buyer"],
    ...more
  })

export const strategy = (namespaceName: string, name: string, spec: object) =>
  resource("AuthStrategy", namespaceName, name, spec)

/** The parents of a definition. */
export const parents = (org: string): ReadonlyArray<Manifest> => [organisation(org), application(org), domain(org)]
