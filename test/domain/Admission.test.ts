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
  ["enum values of a string", (s) => (s.fields[4].enum = ["a"]), ["/spec/fields/4/enum enum"]],
  ["an enum value twice", (s) => s.fields[2].enum.push("sent"), ["/spec/fields/2/enum invalid"]],
  ["a target of a string", (s) => (s.fields[4].ref = s.fields[3].ref), ["/spec/fields/4/ref ref"]],
  ["a length of a number", (s) => (s.fields[1].maxLength = 3), ["/spec/fields/1/maxLength length"]],
  ["a pattern of a number", (s) => (s.fields[1].pattern = "^1"), ["/spec/fields/1/pattern pattern"]],
  ["a precision of a string", (s) => (s.fields[4].precision = 3), ["/spec/fields/4/precision precision"]],
  ["a precision of a float", (s) => (s.fields[1].float = true), ["/spec/fields/1/precision precision"]],
  ["a scale without precision", (s) => delete s.fields[1].precision, ["/spec/fields/1/scale precision"]],
  ["a float of text", (s) => (s.fields[4].float = true), ["/spec/fields/4/float precision"]],
  [
    "a bound beyond 64 bits",
    (s) => Object.assign(s.fields[4], { type: "integer", max: "9223372036854775808" }),
    ["/spec/fields/4/max bound"]
  ],
  ["a bound that YAML rounded", (s) => (s.fields[1].max = 2 ** 53), ["/spec/fields/1/max invalid"]],
  ["a default of a ref", (s) => (s.fields[3].default = "x"), ["/spec/fields/3/default default"]],
  ["a default that YAML made a number of", (s) => (s.fields[4].default = 12), ["/spec/fields/4/default default"]],
  [
    "a default that breaks the pattern",
    (s) => Object.assign(s.fields[4], { pattern: "^a", default: "b" }),
    ["/spec/fields/4/default default"]
  ],
  [
    "a default that would take a backtracking engine for ever",
    (s) => Object.assign(s.fields[4], { pattern: "^(a+)+$", default: `${"a".repeat(4000)}!` }),
    ["/spec/fields/4/default default"]
  ],
  [
    "a default that is too long",
    (s) => Object.assign(s.fields[4], { maxLength: 1, default: "𝒳𝒳" }),
    ["/spec/fields/4/default default"]
  ],
  [
    "a default of more bytes than fit",
    (s) => Object.assign(s.fields[4], { type: "bytes", maxLength: 2, default: "AAEC" }),
    ["/spec/fields/4/default default"]
  ],
  [
    "a default that fits to the byte",
    (s) => Object.assign(s.fields[4], { type: "bytes", maxLength: 1, default: "AA==" }),
    []
  ],
  ...(
    [
      ["integer", "1.0"],
      ["number", "1e3"],
      ["boolean", "yes"],
      ["date", "2026-02-29"],
      ["time", "24:00:00"],
      ["timestamp", "2026-11-24T00:00:00"],
      ["uuid", "x"],
      ["json", "{"],
      ["bytes", "a"]
    ] as const
  ).map(
    ([type, text]) =>
      [
        `a default that is no ${type}`,
        // biome-ignore lint/suspicious/noExplicitAny: as above
        (s: any) => Object.assign(s.fields[4], { type, default: text }),
        ["/spec/fields/4/default default"]
      ] as const
  ),
  [
    "json that is unique",
    (s) => Object.assign(s.fields[4], { type: "json", unique: true }),
    ["/spec/fields/4/unique index"]
  ],
  [
    "json that is indexed",
    (s) => Object.assign(s.fields[4], { type: "json", indexed: true }),
    ["/spec/fields/4/indexed index"]
  ],
  [
    "bytes that are indexed",
    (s) => Object.assign(s.fields[4], { type: "bytes", indexed: true }),
    ["/spec/fields/4/indexed index"]
  ],
  [
    "unique bytes without a bound",
    (s) => Object.assign(s.fields[4], { type: "bytes", unique: true }),
    ["/spec/fields/4/unique index"]
  ],
  [
    "a writer who is not declared",
    (s) => (s.fields[1].access = { write: ["auditor"] }),
    ["/spec/fields/1/access/write/0 undeclared_role"]
  ],
  [
    "nine roles in a list",
    (s) => (s.fields[1].access = { read: Array.from({ length: 9 }, (_, n) => `r${n}`) }),
    ["/spec/fields/1/access/read invalid"]
  ],
  ...(
    [
      ["by nothing", { field: "store", op: "eq" }],
      ["in one value", { field: "store", op: "in", value: "a" }],
      ["eq several", { field: "store", op: "eq", values: ["a"] }],
      ["is_null maybe", { field: "store", op: "is_null", value: "maybe" }],
      ["is_null of whoever asks", { field: "store", op: "is_null", identity: "actor" }],
      ["contains in a number", { field: "amount", op: "contains", value: "1" }],
      ["less than an enum", { field: "status", op: "lt", value: "draft" }],
      ["an enum's value that there is not", { field: "status", op: "in", values: ["draft", "gone"] }]
    ] as const
  ).map(
    ([name, filter]) =>
      [
        `a filter ${name}`,
        // biome-ignore lint/suspicious/noExplicitAny: as above
        (s: any) => (s.access.rowFilters = [{ role: "buyer", filter }]),
        ["/spec/access/rowFilters/0/filter row_filter"]
      ] as const
  ),
  [
    "a filter by an unknown operator",
    (s) => (s.access.rowFilters = [{ role: "buyer", filter: { field: "store", op: "like", value: "a*" } }]),
    ["/spec/access/rowFilters/0/filter/op invalid"]
  ],
  [
    "a filter by what no token says",
    (s) => (s.access.rowFilters = [{ role: "buyer", filter: { field: "store", op: "eq", identity: "roles" } }]),
    ["/spec/access/rowFilters/0/filter/identity invalid"]
  ],
  [
    "json in a unique constraint",
    (s) => {
      s.fields[4].type = "json"
      s.uniqueConstraints = [{ fields: ["number", "store"] }]
    },
    ["/spec/uniqueConstraints/0/fields/1 index"]
  ],
  ["search over no field", (s) => (s.search = { fields: ["x"] }), ["/spec/search/fields/0 unknown_field"]],
  [
    "names that are too long together",
    (s) => Object.assign(s, { org: "o".repeat(30), app: "a".repeat(30) }),
    ["/spec/domain name_too_long"]
  ],
  [
    "everything at its limit at once",
    (s) => {
      s.access.roles = Array.from({ length: 32 }, (_, n) => ({
        role: `role-${n}`,
        operations: ["create", "read", "update", "delete", "restore", "history"]
      }))
      const eight = s.access.roles.slice(0, 8).map((grant: { role: string }) => grant.role)
      s.fields = Array.from({ length: 200 }, (_, n) => ({
        name: `f${String(n).padStart(62, "0")}`,
        type: "string",
        access: { read: eight, write: eight },
        mask: { strategy: "redact", unmaskedFor: eight }
      }))
      const names = s.fields.map((field: { name: string }) => field.name)
      s.uniqueConstraints = Array.from({ length: 16 }, (_, n) => ({ fields: names.slice(n * 8, n * 8 + 8) }))
      s.access.rowFilters = Array.from({ length: 64 }, () => ({
        role: eight[0],
        filter: { field: names[0], op: "eq", value: "x" }
      }))
      s.validation = { rules: Array.from({ length: 64 }, () => ({ rule: "true", message: "never" })) }
      s.search = { fields: names.slice(0, 16) }
    },
    []
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
