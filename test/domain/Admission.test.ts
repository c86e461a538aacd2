import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"
import { admit } from "../../src/domain/Admission.ts"
import { decodeResource, type ResourceOf } from "../../src/domain/Resource.ts"

const samples = join(import.meta.dirname, "../../k8s/samples")
const manifests = readdirSync(samples)
  .filter((name) => name.endsWith(".yaml") && name !== "namespaces.yaml")
  .flatMap((name) =>
    parseAllDocuments(readFileSync(join(samples, name), "utf8")).map(
      (document) => document.toJS() as Record<string, unknown>
    )
  )

const definition = (change: (spec: Record<string, never>) => void = () => undefined) => {
  const spec = {
    org: "acme",
    app: "shop",
    domain: "sales",
    object: "order",
    version: "v1",
    fields: [
      { name: "number", type: "string", required: true, unique: true },
      { name: "amount", type: "number", precision: 12, scale: 2 },
      { name: "status", type: "enum", enum: ["draft", "sent"] },
      { name: "customer", type: "ref", ref: { object: "customer", version: "v1" } },
      { name: "store", type: "string" }
    ],
    access: { roles: [{ role: "buyer", operations: ["create", "read"] }] }
  }
  change(spec as never)
  return { apiVersion: "velocity.sh/v1", kind: "SchemaDefinition", metadata: { name: "order" }, spec }
}

/** Every fault of a manifest, by whichever of the two found it. */
const faultsOf = (manifest: unknown): ReadonlyArray<string> => {
  const decoded = decodeResource(manifest)
  if ("faults" in decoded) return decoded.faults.map((fault) => `${fault.pointer} ${fault.code}`)
  return admit((decoded.resource as ResourceOf<"SchemaDefinition">).spec).map(
    (fault) => `/spec${fault.pointer} ${fault.code}`
  )
}

// biome-ignore lint/suspicious/noExplicitAny: a case breaks the shape on purpose
const cases: ReadonlyArray<readonly [string, (spec: any) => void, ReadonlyArray<string>]> = [
  ["a sound one", () => undefined, []],
  ["a reserved organisation", (s) => (s.org = "pg-shop"), ["/spec/org reserved_name"]],
  ["a typo in a key", (s) => (s.fields[0].requierd = true), ["/spec/fields/0/requierd unknown_key"]],
  ["a typo deep down", (s) => (s.fields[3].ref.onDelte = "cascade"), ["/spec/fields/3/ref/onDelte unknown_key"]],
  ["an unknown type", (s) => (s.fields[0].type = "text"), ["/spec/fields/0/type invalid"]],
  ["a field twice", (s) => s.fields.push({ name: "store", type: "string" }), ["/spec/fields/5/name duplicate"]],
  ["a system column", (s) => (s.fields[4].name = "created_at"), ["/spec/fields/4/name reserved_name"]],
  ["an underscore in front", (s) => (s.fields[4].name = "_store"), ["/spec/fields/4/name invalid"]],
  ["an enum without values", (s) => delete s.fields[2].enum, ["/spec/fields/2/enum enum"]],
  ["a ref without target", (s) => delete s.fields[3].ref, ["/spec/fields/3/ref ref"]],
  [
    "setNull of a required field",
    (s) => Object.assign(s.fields[3], { required: true, ref: { ...s.fields[3].ref, onDelete: "setNull" } }),
    ["/spec/fields/3/ref ref"]
  ],
  ["min above max", (s) => Object.assign(s.fields[1], { min: "2", max: "1" }), ["/spec/fields/1/min bound"]],
  ["a bound that is a float", (s) => (s.fields[1].min = 1.5), ["/spec/fields/1/min invalid"]],
  ["a bound on a string", (s) => (s.fields[4].min = "1"), ["/spec/fields/4/min bound"]],
  ["a bound beyond the scale", (s) => (s.fields[1].min = "0.001"), ["/spec/fields/1/min bound"]],
  [
    "lengths out of order",
    (s) => Object.assign(s.fields[4], { minLength: 3, maxLength: 2 }),
    ["/spec/fields/4/minLength length"]
  ],
  [
    "a pattern that Postgres reads otherwise",
    (s) => (s.fields[4].pattern = "^(?=a)"),
    ["/spec/fields/4/pattern pattern"]
  ],
  ["a scale above the precision", (s) => (s.fields[1].scale = 13), ["/spec/fields/1/scale precision"]],
  ["a default that is no value of the enum", (s) => (s.fields[2].default = "gone"), ["/spec/fields/2/default default"]],
  ["a default that YAML made a boolean of", (s) => (s.fields[4].default = false), ["/spec/fields/4/default default"]],
  [
    "a default that breaks its own bound",
    (s) => Object.assign(s.fields[1], { max: "1", default: "2" }),
    ["/spec/fields/1/default default"]
  ],
  [
    "a reader who is not declared",
    (s) => (s.fields[1].access = { read: ["auditor"] }),
    ["/spec/fields/1/access/read/0 undeclared_role"]
  ],
  [
    "a mask for a role that is not declared",
    (s) => (s.fields[4].mask = { strategy: "redact", unmaskedFor: ["x"] }),
    ["/spec/fields/4/mask/unmaskedFor/0 undeclared_role"]
  ],
  ["partial of a number", (s) => (s.fields[1].mask = { strategy: "partial" }), ["/spec/fields/1/mask mask"]],
  [
    "a role twice",
    (s) => s.access.roles.push({ role: "buyer", operations: ["read"] }),
    ["/spec/access/roles/1/role duplicate"]
  ],
  [
    "a platform role",
    (s) => s.access.roles.push({ role: "platform-admin", operations: ["read"] }),
    ["/spec/access/roles/1/role reserved_name"]
  ],
  [
    "a filter on no field",
    (s) => (s.access.rowFilters = [{ role: "buyer", filter: { field: "x", op: "eq", value: "1" } }]),
    ["/spec/access/rowFilters/0/filter/field unknown_field"]
  ],
  [
    "a filter of no role",
    (s) => (s.access.rowFilters = [{ role: "x", filter: { field: "store", op: "eq", value: "1" } }]),
    ["/spec/access/rowFilters/0/role undeclared_role"]
  ],
  [
    "a filter by two things",
    (s) =>
      (s.access.rowFilters = [{ role: "buyer", filter: { field: "store", op: "eq", value: "1", identity: "actor" } }]),
    ["/spec/access/rowFilters/0/filter row_filter"]
  ],
  [
    "a filter whose literal is not of the type",
    (s) => (s.access.rowFilters = [{ role: "buyer", filter: { field: "amount", op: "eq", value: "x" } }]),
    ["/spec/access/rowFilters/0/filter row_filter"]
  ],
  [
    "a unique constraint over no field",
    (s) => (s.uniqueConstraints = [{ fields: ["store", "x"] }]),
    ["/spec/uniqueConstraints/0/fields/1 unknown_field"]
  ],
  [
    "the same unique constraint twice",
    (s) => (s.uniqueConstraints = [{ fields: ["store", "number"] }, { fields: ["number", "store"] }]),
    ["/spec/uniqueConstraints/1 duplicate"]
  ],
  ["search over a number", (s) => (s.search = { fields: ["amount"] }), ["/spec/search/fields/0 search"]],
  [
    "two hundred and one fields",
    (s) => (s.fields = Array.from({ length: 201 }, (_, n) => ({ name: `f${n}`, type: "string" }))),
    ["/spec/fields invalid"]
  ],
  [
    "several at once",
    (s) => {
      s.fields[2].default = "gone"
      s.fields[1].min = "x" as never
    },
    ["/spec/fields/1/min invalid"]
  ]
]

describe("admission", () => {
  it.each(cases)("%s", (_name, change, expected) => expect(faultsOf(definition(change))).toEqual(expected))

  it("admits every sample", () => {
    expect(manifests.length).toBeGreaterThan(8)
    for (const manifest of manifests) {
      const decoded = decodeResource(manifest)
      expect("faults" in decoded ? decoded.faults : [], JSON.stringify(manifest.metadata)).toEqual([])
      if (manifest.kind === "SchemaDefinition") expect(faultsOf(manifest)).toEqual([])
    }
  })
})
