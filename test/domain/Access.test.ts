import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { grantsOf, isUnfiltered, mayWrite, readsClearly, visibilityOf } from "../../src/domain/Access.ts"
import type { Field } from "../../src/domain/Field.ts"
import { decodeResource, type ResourceOf } from "../../src/domain/Resource.ts"

const field = (rest: Partial<Field>): Field => ({
  name: "f",
  type: "string",
  required: false,
  unique: false,
  indexed: false,
  filterable: false,
  ...rest
})

const specOf = (access: unknown) => {
  const decoded = decodeResource({
    apiVersion: "velocity.sh/v1",
    kind: "SchemaDefinition",
    metadata: { name: "order" },
    spec: {
      ...{ org: "acme", app: "shop", domain: "sales", object: "order", version: "v1" },
      fields: [{ name: "store", type: "string" }],
      access
    }
  })
  if ("faults" in decoded) throw new Error(JSON.stringify(decoded.faults))
  return (decoded.resource as ResourceOf<"SchemaDefinition">).spec
}

describe("what of a field is seen", () => {
  const redact = { strategy: "redact" } as const
  it.each([
    ["nothing said", {}, ["a"], "clear"],
    ["nothing said, no roles", {}, [], "clear"],
    ["readable by another", { access: { read: ["b"] } }, ["a"], "hidden"],
    ["readable by one of several", { access: { read: ["b"] } }, ["a", "b"], "clear"],
    ["masked for all", { mask: redact }, ["a"], "hidden"],
    ["masked for others", { mask: { ...redact, unmaskedFor: ["a"] } }, ["a"], "clear"],
    [
      "unmasked, yet not readable",
      { access: { read: ["b"] }, mask: { ...redact, unmaskedFor: ["a"] } },
      ["a"],
      "hidden"
    ],
    ["partly", { mask: { strategy: "partial", unmaskedFor: ["b"] } }, ["a"], "partial"],
    ["public", { sensitivity: "public" }, ["a"], "clear"],
    ["internal", { sensitivity: "internal" }, ["a"], "clear"],
    ["financial", { sensitivity: "financial" }, ["a"], "hidden"],
    [
      "personal, and readable: the label masks all the same",
      { sensitivity: "personal", access: { read: ["a"] } },
      ["a"],
      "hidden"
    ],
    [
      "personal, unmasked by name",
      { sensitivity: "personal", mask: { ...redact, unmaskedFor: ["a"] } },
      ["a"],
      "clear"
    ],
    ["personal, partly for the others", { sensitivity: "personal", mask: { strategy: "partial" } }, ["a"], "partial"]
  ] as ReadonlyArray<[string, Partial<Field>, ReadonlyArray<string>, string]>)("%s", (_name, rest, roles, expected) =>
    expect(visibilityOf(field(rest), roles)).toBe(expected)
  )

  it("more roles never show less", () => {
    const roles = fc.subarray(["a", "b", "c"])
    const fields = fc.record(
      {
        access: fc.record({ read: roles, write: roles }, { requiredKeys: [] }),
        sensitivity: fc.constantFrom("public" as const, "internal" as const, "financial" as const, "personal" as const),
        mask: fc.record(
          { strategy: fc.constantFrom("redact" as const, "partial" as const), unmaskedFor: roles },
          { requiredKeys: ["strategy"] }
        )
      },
      { requiredKeys: [] }
    )
    const rank = { hidden: 0, partial: 1, clear: 2 }
    fc.assert(
      fc.property(fields, roles, roles, (rest, some, others) => {
        const one = field(rest)
        const more = [...some, ...others]
        expect(rank[visibilityOf(one, more)]).toBeGreaterThanOrEqual(rank[visibilityOf(one, some)])
        expect(mayWrite(one, more) || !mayWrite(one, some)).toBe(true)
        expect(readsClearly(one, some)).toBe(visibilityOf(one, some) === "clear")
      })
    )
  })
})

describe("what an operation is granted", () => {
  const spec = specOf({
    roles: [
      { role: "store", operations: ["read"] },
      { role: "clerk", operations: ["read", "create"] },
      { role: "idle", operations: ["history"] }
    ],
    rowFilters: [
      { role: "store", filter: { field: "store", op: "eq", identity: "attributes.store_id" } },
      { role: "store", filter: { field: "store", op: "neq", value: "s9" } },
      { role: "idle", filter: { field: "store", op: "eq", value: "s1" } }
    ]
  })

  it("lists its roles, each with all of its own filters and no other's", () => {
    expect(grantsOf(spec, "read").map(({ filters, role }) => [role, filters.map((one) => one.op)])).toEqual([
      ["store", ["eq", "neq"]],
      ["clerk", []]
    ])
  })

  it("a role that does not grant the operation brings no filter and widens nothing", () => {
    expect(grantsOf(spec, "create").map(({ role }) => role)).toEqual(["clerk"])
    expect(isUnfiltered(grantsOf(spec, "create"))).toBe(true)
    expect(isUnfiltered(grantsOf(spec, "read"))).toBe(false)
    expect(grantsOf(spec, "delete")).toEqual([])
  })
})
