/** Manifests: the fixed samples are admitted, and a key that nobody knows is refused at any depth, with its pointer. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { parse, parseAllDocuments } from "yaml"
import { admit } from "../../src/domain/Admission.ts"
import { decodeResource, type ResourceOf } from "../../src/domain/Resource.ts"

type Json = null | boolean | number | string | ReadonlyArray<Json> | { readonly [key: string]: Json }
type Manifest = { readonly [key: string]: Json }

const samples = join(import.meta.dirname, "../../k8s/samples")
const manifests = readdirSync(samples)
  .filter((name) => name.endsWith(".yaml"))
  .flatMap((name) => parseAllDocuments(readFileSync(join(samples, name), "utf8")).map((one) => one.toJS() as Manifest))
  .filter((manifest) => String(manifest.apiVersion).startsWith("velocity.sh/"))

/** product.md, section 4, word for word. */
const flagship = parse(`
apiVersion: velocity.sh/v1
kind: SchemaDefinition
metadata: { name: purchase-order, namespace: default }
spec:
  org: acme
  app: supply-chain
  domain: procurement
  object: purchase-order
  version: v1
  fields:
    - { name: po_number, type: string, required: true, unique: true, pattern: "^PO-[0-9]{8}$" }
    - { name: supplier, type: ref, ref: { object: supplier, version: v1, onDelete: restrict } }
    - { name: status, type: enum, enum: [draft, approved, received], default: draft, filterable: true }
    - { name: unit_price, type: number, precision: 12, scale: 4, min: "0", sensitivity: financial,
        access: { read: [buyer, auditor], write: [buyer] }, mask: { strategy: redact, unmaskedFor: [auditor] } }
    - { name: store_id, type: string, indexed: true }
  uniqueConstraints: [{ fields: [supplier, po_number] }]
  validation: { rules: [{ rule: "self.status != 'approved' || has(self.supplier)", message: "an approved order needs a supplier" }] }
  access:
    roles: [{ role: buyer, operations: [create, read, update] }, { role: store, operations: [read] }, { role: auditor, operations: [read, history] }, { role: admin, operations: [create, read, update, delete, restore, history] }]
    rowFilters: [{ role: store, filter: { field: store_id, op: eq, identity: attributes.store_id } }]
  search: { fields: [po_number], language: english }
  timeMachine: { enabled: true, hotRetention: 90d }
  audit: { reads: none, requireReason: [delete], requireTicketRef: [] }
`) as Manifest

const faultsOf = (manifest: unknown) => {
  const decoded = decodeResource(manifest)
  return "faults" in decoded ? decoded.faults : []
}
const codesOf = (manifest: unknown) => faultsOf(manifest).map(({ code, pointer }) => `${pointer} ${code}`)

const isObject = (value: Json): value is { readonly [key: string]: Json } =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/** Every mapping whose keys we judge, by its path. Maps of free keys and public keys are not among them. */
const mappingsIn = (value: Json, path: ReadonlyArray<string | number> = []): ReadonlyArray<typeof path> => {
  if (Array.isArray(value)) return value.flatMap((item: Json, index) => mappingsIn(item, [...path, index]))
  if (!isObject(value) || ["labels", "annotations", "attributes", "keys"].includes(String(path.at(-1)))) return []
  return [path, ...Object.entries(value).flatMap(([key, item]) => mappingsIn(item, [...path, key]))]
}

const withKey = (value: Json, path: ReadonlyArray<string | number>, key: string): Json => {
  const [step, ...rest] = path
  if (step === undefined) return { ...(value as object), [key]: "x" }
  return Array.isArray(value)
    ? value.map((item: Json, index) => (index === step ? withKey(item, rest, key) : item))
    : { ...(value as object), [step]: withKey((value as Manifest)[step] as Json, rest, key) }
}

describe("manifests", () => {
  it("the page's own definition is admitted, with its defaults", () => {
    const decoded = decodeResource(flagship)
    if ("faults" in decoded) throw new Error(JSON.stringify(decoded.faults))
    const { spec } = decoded.resource as ResourceOf<"SchemaDefinition">
    expect(admit(spec)).toEqual([])
    expect(spec.concurrency).toBe("optional")
    expect(spec.fields[1]).toMatchObject({ required: false, unique: false, indexed: false, filterable: false })
  })

  it("a definition without the optional parts gets the documented defaults", () => {
    const { audit: _, search: __, timeMachine: ___, ...rest } = flagship.spec as Manifest
    const decoded = decodeResource({ ...flagship, spec: rest })
    if ("faults" in decoded) throw new Error(JSON.stringify(decoded.faults))
    expect(decoded.resource.spec).toMatchObject({
      timeMachine: { enabled: true, hotRetention: "90d" },
      audit: { reads: "none", requireReason: [], requireTicketRef: [] }
    })
  })

  it("a typo in any key at any depth is refused with its pointer", () => {
    const places = [flagship, ...manifests].flatMap((manifest) =>
      mappingsIn(manifest)
        .filter((path) => path[0] !== "status")
        .map((path) => ({ manifest, path }))
    )
    expect(places.length).toBeGreaterThan(100)
    for (const { manifest, path } of places) {
      const pointer = [...path, "tyop"].map((step) => `/${step}`).join("")
      expect(codesOf(withKey(manifest, path, "tyop")), pointer).toContain(`${pointer} unknown_key`)
    }
  })

  it("whatever is thrown at it, there are faults with pointers and never an exception", () => {
    const anything = fc.oneof(
      fc.anything(),
      fc.record({
        apiVersion: fc.constant("velocity.sh/v1"),
        kind: fc.constantFrom("SchemaDefinition", "Domain", "AuthStrategy", "toString", "constructor", "__proto__"),
        metadata: fc.anything(),
        spec: fc.anything()
      })
    )
    fc.assert(
      fc.property(anything, (value) => {
        const faults = faultsOf(value)
        expect(faults.length).toBeGreaterThan(0)
        for (const { pointer } of faults) expect(pointer === "" || pointer.startsWith("/")).toBe(true)
      }),
      { numRuns: 300 }
    )
  })

  it("what an API server adds to the metadata is passed over", () => {
    const metadata = {
      ...(flagship.metadata as object),
      uid: "u",
      generation: 3,
      resourceVersion: "7",
      creationTimestamp: "2026-11-24T00:00:00Z",
      managedFields: [],
      finalizers: []
    }
    expect(codesOf({ ...flagship, metadata, status: { anything: true } })).toEqual([])
  })

  it.each(["\u0000", "\ud800", "a\udc00b"])(
    "a text that Postgres cannot hold is refused where it stands: %j",
    (text) => {
      const spec = { ...(flagship.spec as Manifest), description: text }
      expect(codesOf({ ...flagship, spec })).toEqual(["/spec/description text"])
      expect(codesOf({ ...flagship, metadata: { name: "a", labels: { a: text } } })).toEqual([
        "/metadata/labels/a text"
      ])
    }
  )

  it("a whole number in place of a decimal string is its digits", () => {
    const decoded = decodeResource(JSON.parse(JSON.stringify(flagship).replace('"min":"0"', '"min":0')) as Manifest)
    if ("faults" in decoded) throw new Error(JSON.stringify(decoded.faults))
    expect(admit((decoded.resource as ResourceOf<"SchemaDefinition">).spec)).toEqual([])
  })

  it("every fault is told at once", () => {
    const fields = [
      { name: "A", type: "string" },
      { name: "b", type: "text" }
    ]
    const codes = codesOf({ ...flagship, metadata: {}, spec: { ...(flagship.spec as object), version: "1", fields } })
    for (const pointer of ["/metadata/name", "/spec/version", "/spec/fields/0/name", "/spec/fields/1/type"]) {
      expect(
        codes.some((code) => code.startsWith(`${pointer} `)),
        pointer
      ).toBe(true)
    }
  })
})

const resource = (kind: string, spec: Manifest, namespace?: string) => ({
  apiVersion: "velocity.sh/v1",
  kind,
  metadata: { name: "one", ...(namespace === undefined ? {} : { namespace }) },
  spec
})

describe("an AuthStrategy", () => {
  const jwt = { issuers: ["https://issuer.example"], audience: "velocity", jwksUrl: "https://issuer.example/jwks" }
  const key = { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }
  const { jwksUrl: _, ...inline } = jwt

  it.each([
    ["with an address", { type: "jwt", jwt }, []],
    ["with keys", { type: "jwt", jwt: { ...inline, jwks: { keys: [key] } } }, []],
    ["asked for by name", { type: "none" }, []],
    ["without jwt", { type: "jwt" }, ["/spec/jwt strategy"]],
    ["none, with jwt", { type: "none", jwt }, ["/spec/jwt strategy"]],
    ["without any keys", { type: "jwt", jwt: inline }, ["/spec/jwt strategy"]],
    ["with both", { type: "jwt", jwt: { ...jwt, jwks: { keys: [key] } } }, ["/spec/jwt strategy"]],
    [
      "with a private key",
      { type: "jwt", jwt: { ...inline, jwks: { keys: [key, { ...key, d: "secret" }] } } },
      ["/spec/jwt/jwks/keys/1/d private_key"]
    ],
    [
      "with a shared secret",
      { type: "jwt", jwt: { ...inline, jwks: { keys: [{ kty: "oct", k: "secret" }] } } },
      ["/spec/jwt/jwks/keys/0/k private_key"]
    ],
    [
      "of http elsewhere",
      { type: "jwt", jwt: { ...jwt, jwksUrl: "http://issuer.example/" } },
      ["/spec/jwt/jwksUrl invalid"]
    ],
    [
      "of http that only looks local",
      { type: "jwt", jwt: { ...jwt, jwksUrl: "http://127.0.0.1.evil.example/" } },
      ["/spec/jwt/jwksUrl invalid"]
    ],
    [
      "with credentials in it",
      { type: "jwt", jwt: { ...jwt, jwksUrl: "https://a:b@c.example/" } },
      ["/spec/jwt/jwksUrl invalid"]
    ],
    ["with alg none", { type: "jwt", jwt: { ...jwt, algorithms: ["none"] } }, ["/spec/jwt/algorithms/0 invalid"]],
    [
      "with a shared-key algorithm",
      { type: "jwt", jwt: { ...jwt, algorithms: ["HS256"] } },
      ["/spec/jwt/algorithms/0 invalid"]
    ]
  ] as ReadonlyArray<[string, Manifest, ReadonlyArray<string>]>)("%s", (_name, spec, codes) =>
    expect(codesOf(resource("AuthStrategy", spec))).toEqual(codes)
  )
})

describe("a RoleBinding", () => {
  const path = { org: "acme", app: "shop", domain: "sales" }
  const binding = { actorId: "dev/alice", roles: ["buyer"] }
  it.each([
    ["in a domain", { ...path, ...binding }, "sales", []],
    ["of the platform", { ...binding, roles: ["platform-admin"] }, undefined, []],
    [
      "of the platform, from a tenant's namespace",
      { ...binding, roles: ["platform-admin"] },
      "sales",
      ["/spec binding", "/spec/roles/0 reserved_name"]
    ],
    [
      "a platform role in a domain",
      { ...path, ...binding, roles: ["platform-admin"] },
      undefined,
      ["/spec/roles/0 reserved_name"]
    ],
    ["half a path", { org: "acme", ...binding }, undefined, ["/spec binding"]],
    ["an actor without strategy", { ...path, ...binding, actorId: "alice" }, undefined, ["/spec/actorId invalid"]],
    [
      "an end that is no time",
      { ...path, ...binding, expiresAt: "2026-02-30T00:00:00Z" },
      undefined,
      ["/spec/expiresAt binding"]
    ]
  ] as ReadonlyArray<[string, Manifest, string | undefined, ReadonlyArray<string>]>)(
    "%s",
    (_name, spec, namespace, codes) => expect(codesOf(resource("RoleBinding", spec, namespace))).toEqual(codes)
  )
})

describe("an ApiKey", () => {
  const path = { org: "acme", app: "shop", domain: "sales" }
  const key = { actor: "keys/robot", roles: ["buyer"] }
  it.each([
    ["in a domain", { ...path, ...key }, "sales", []],
    ["with scopes alone", { ...path, actor: "keys/robot", scopes: [{ object: "order" }] }, "sales", []],
    ["from somewhere", { ...path, ...key, ipAllowlist: ["192.0.2.7", "2001:db8::/32"] }, "sales", []],
    ["of the platform", { ...key, roles: ["platform-auditor"] }, undefined, []],
    ["without roles and scopes", { ...path, actor: "keys/robot" }, "sales", ["/spec key"]],
    ["of the platform, with a role of a domain", key, undefined, ["/spec/roles/0 key"]],
    [
      "of the platform, from a tenant's namespace",
      { ...key, roles: ["platform-admin"] },
      "sales",
      ["/spec key", "/spec/roles/0 reserved_name"]
    ],
    [
      "a platform role in a domain",
      { ...path, ...key, roles: ["platform-admin"] },
      undefined,
      ["/spec/roles/0 reserved_name"]
    ],
    ["half a path", { org: "acme", ...key }, undefined, ["/spec key"]],
    ["an actor without strategy", { ...path, ...key, actor: "robot" }, undefined, ["/spec/actor invalid"]],
    ["no range", { ...path, ...key, ipAllowlist: ["10.0.0.0/33"] }, undefined, ["/spec/ipAllowlist/0 key"]],
    ["a name for a range", { ...path, ...key, ipAllowlist: ["here"] }, undefined, ["/spec/ipAllowlist/0 invalid"]],
    ["no duration", { ...path, ...key, rotationOverlap: "soon" }, undefined, ["/spec/rotationOverlap invalid"]],
    [
      "an end that is no time",
      { ...path, ...key, expiresAt: "2026-02-30T00:00:00Z" },
      undefined,
      ["/spec/expiresAt key"]
    ]
  ] as ReadonlyArray<[string, Manifest, string | undefined, ReadonlyArray<string>]>)(
    "%s",
    (_name, spec, namespace, codes) => expect(codesOf(resource("ApiKey", spec, namespace))).toEqual(codes)
  )
})
