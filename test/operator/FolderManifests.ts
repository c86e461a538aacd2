/** Manifests for a folder's operator, as text: the domain `{org}/shop/eu` with its parents, and definitions in it. */

/** A document of a file; JSON is YAML. */
export const manifest = (
  kind: string,
  namespace: string | undefined,
  name: string,
  spec: object,
  annotations?: Readonly<Record<string, string>>
): string =>
  JSON.stringify({
    apiVersion: "velocity.sh/v1",
    kind,
    metadata: { name, ...(namespace && { namespace }), ...(annotations && { annotations }) },
    spec
  })

/** Organisation, Application and Domain. */
export const parents = (org: string): string =>
  [
    manifest("Organisation", undefined, org, { org }),
    manifest("Application", org, "shop", { org, app: "shop" }),
    manifest("Domain", `${org}-shop`, "eu", { org, app: "shop", domain: "eu" })
  ].join("\n---\n")

/** A definition's spec, for a role that creates and reads. */
export const specOf = (org: string, object: string, fields: ReadonlyArray<object>, version = "v1") => ({
  org,
  app: "shop",
  domain: "eu",
  object,
  version,
  fields,
  access: { roles: [{ role: "buyer", operations: ["create", "read"] }] }
})
