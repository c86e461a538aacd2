/**
 * Velocity's kinds on a real API server: what it takes, what it refuses and in which words, and that our decoder and
 * `Admission` agree.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { admit } from "../../src/domain/Admission.ts"
import { limits } from "../../src/domain/Field.ts"
import { decodeResource, kinds } from "../../src/domain/Resource.ts"
import { customResourceDefinition, pluralOf } from "../../src/kubernetes/CustomResources.ts"
import { type Case, cases, policyCases } from "./AdmissionCases.ts"
import { type Installed, install } from "./Installed.ts"
import { binding, definition, isOurs, listOf, type Manifest, namespacesOf, samples, strategy } from "./Manifests.ts"

let cluster: Installed

const ok = (args: ReadonlyArray<string>, input?: string) => cluster.ok(args, input)

const apply = (manifests: ReadonlyArray<unknown>, ...more: ReadonlyArray<string>) =>
  cluster.kubectl(["apply", "--server-side", "-f", "-", ...more], listOf(manifests))

/** Whether our own reading refuses a manifest too. */
const isRefusedByUs = (manifest: Manifest): boolean => {
  const decoded = decodeResource(manifest)
  if ("faults" in decoded) return true
  return decoded.resource.kind === "SchemaDefinition" && admit(decoded.resource.spec).length > 0
}

beforeAll(async () => {
  cluster = await install([...samples.filter((one) => !isOurs(one)), ...namespacesOf("tenant")])
})

afterAll(() => cluster?.stop())

describe("the samples", () => {
  it("are accepted, and the API server's defaults are ours", async () => {
    const ours = samples.filter(isOurs)
    const applied = await apply(ours)
    expect(applied.err).toBe("")
    for (const one of ours) {
      const { metadata } = one
      const stored = JSON.parse(
        await ok([
          "get",
          `${one.kind.toLowerCase()}.velocity.sh`,
          metadata.name,
          "-n",
          String(metadata.namespace),
          "-o",
          "json"
        ])
      ) as Manifest
      const [theirs, here] = [decodeResource(stored), decodeResource(one)]
      if ("faults" in theirs || "faults" in here) throw new Error(`${one.kind} ${metadata.name} does not decode`)
      expect(theirs.resource.spec).toEqual(here.resource.spec)
      // every default stands in the object already: decoding adds nothing to what the server made of it
      expect(stored.spec).toEqual(JSON.parse(JSON.stringify(here.resource.spec)))
    }
  })

  it("are shown by kubectl get velocity, each kind with its columns", async () => {
    const shown = await ok(["get", "velocity", "-A"])
    for (const kind of ["organisation", "application", "domain", "schemadefinition"]) {
      expect(shown).toContain(`${kind}.velocity.sh/`)
    }
    expect(await ok(["get", "vsd", "-n", "acme-geo-atlas"])).toMatch(/^NAME +PATH +STAGE +READY +REASON +AGE/u)
  })
})

describe("kubectl explain", () => {
  it("says something of every key, at every depth", async () => {
    for (const kind of kinds) {
      const said = await ok(["explain", `${pluralOf(kind)}.spec`, "--api-version=velocity.sh/v1", "--recursive"])
      expect(said).toContain("KIND:       ")
    }
    const field = await ok(["explain", "schemadefinitions.spec.fields", "--api-version=velocity.sh/v1"])
    expect(field).not.toContain("<no description>")
    expect(field).toContain("A regular expression that a string must match")
    const mask = await ok(["explain", "schemadefinitions.spec.fields.mask.strategy", "--api-version=velocity.sh/v1"])
    expect(mask).toContain("the last four characters")
  })
})

/** Paths to every object within a spec. */
const objectsIn = (
  value: unknown,
  path: ReadonlyArray<string | number> = []
): ReadonlyArray<ReadonlyArray<string | number>> => {
  if (typeof value !== "object" || value === null) return []
  const inner = Object.entries(value).flatMap(([key, item]) =>
    objectsIn(item, [...path, Array.isArray(value) ? Number(key) : key])
  )
  return Array.isArray(value) ? inner : [path, ...inner]
}

const withTypo = (spec: unknown, path: ReadonlyArray<string | number>): unknown => {
  const copy = structuredClone(spec) as Record<string | number, unknown>
  let at = copy
  for (const step of path) at = at[step] as Record<string | number, unknown>
  at.zzTypo = "x"
  return copy
}

describe("a typo in a key", () => {
  it("is refused at any depth", async () => {
    const full: ReadonlyArray<Manifest> = [
      ...samples.filter((one) => isOurs(one) && one.kind !== "SchemaDefinition"),
      everything(),
      binding("tenant", "typo", { scopes: [{ object: "a", operations: ["read"] }] }),
      strategy("velocity-system", "typo", {
        type: "jwt",
        jwt: { issuers: ["i"], jwksUrl: "https://i.example/keys", audience: "a", claims: { actorId: "$.sub" } }
      })
    ]
    let tried = 0
    for (const manifest of full) {
      const paths = objectsIn(manifest.spec)
      const broken = paths.map((path) => ({ ...manifest, spec: withTypo(manifest.spec, path) }))
      for (const [index, one] of broken.entries()) {
        const where = `${manifest.kind} /spec/${paths[index]?.join("/")}`
        const decoded = decodeResource(one)
        expect("faults" in decoded, `${where}, decoded`).toBe(true)
      }
      // of places of one shape (fields[0], fields[1]) the first speaks for all
      const shapes = new Map(
        paths.map((path, index) => [path.map((s) => (typeof s === "number" ? "#" : s)).join("/"), index])
      )
      for (const index of shapes.values()) {
        const answer = await apply([broken[index]], "--dry-run=server")
        expect(answer.err, `${manifest.kind} ${paths[index]?.join("/")}`).toMatch(
          /unknown field "(spec[^"]*\.)?zzTypo"|zzTypo: field not declared in schema/u
        )
        tried += 1
      }
    }
    expect(tried).toBeGreaterThan(20)
  })

  it("is refused by kubectl apply as people type it, without --server-side", async () => {
    const answer = await cluster.kubectl(
      ["apply", "-f", "-"],
      JSON.stringify(definition("tenant", "typo", { feilds: [] }))
    )
    expect(answer.code).not.toBe(0)
    expect(answer.err).toContain('unknown field "spec.feilds"')
  })
})

/** A definition with every key that there is. */
function everything(): Manifest {
  return definition("tenant", "everything", {
    description: "all of it",
    fields: [
      { name: "a", type: "string", mask: { strategy: "partial", unmaskedFor: ["buyer"] }, access: { read: ["buyer"] } },
      { name: "r", type: "ref", ref: { object: "other", version: "v1" } }
    ],
    uniqueConstraints: [{ fields: ["a", "r"] }],
    validation: { rules: [{ rule: "true", message: "never" }] },
    access: {
      roles: [{ role: "buyer", operations: ["read"] }],
      rowFilters: [{ role: "buyer", filter: { field: "a", op: "eq", identity: "actor" } }]
    },
    search: { fields: ["a"] },
    timeMachine: { enabled: true },
    audit: { reads: "none" }
  })
}

const judged = async (one: Case): Promise<string> => {
  if (one.before !== undefined) {
    const before = await apply([one.before])
    if (before.code !== 0) throw new Error(before.err)
  }
  const as = one.as === undefined ? [] : ["--as", one.as, "--as-group", "system:masters"]
  const { code, err } = await apply([one.manifest], "--dry-run=server", "--force-conflicts", ...as)
  return code === 0 ? "accepted" : err
}

/** The messages of all rules within a definition. */
const rulesIn = (value: unknown): ReadonlyArray<string> => {
  if (typeof value !== "object" || value === null) return []
  return Object.entries(value).flatMap(([key, item]) =>
    key === "x-kubernetes-validations"
      ? (item as ReadonlyArray<{ readonly message: string }>).map((one) => one.message)
      : rulesIn(item)
  )
}

describe("a rule of the kinds", () => {
  for (const one of cases) {
    it(`refuses ${one.name}`, async () => {
      expect(await judged(one)).toContain(one.message)
      // what may not change is judged against what there was, which a manifest by itself does not show
      if (one.before === undefined) expect(isRefusedByUs(one.manifest)).toBe(true)
    })
  }

  it("has a case here, each of them", () => {
    const shown = cases.map((one) => one.message)
    const messages = [...new Set(kinds.flatMap((kind) => rulesIn(customResourceDefinition(kind))))]
    expect(messages.length).toBeGreaterThan(30)
    expect(messages.filter((message) => !shown.some((one) => message.startsWith(one)))).toEqual([])
  })
})

describe("an admission policy", () => {
  for (const one of policyCases) {
    it(`refuses ${one.name}`, async () => {
      expect(await judged(one)).toContain(one.message)
    })
  }

  it("lets only those approve a plan who hold the verb, under their own name, and nobody change that name", async () => {
    const name = "approved"
    await ok(["apply", "--server-side", "-f", "-"], JSON.stringify(definition("tenant", name)))
    const ns = "tenant-shop-eu"
    await ok(
      ["apply", "-f", "-"],
      listOf([
        {
          apiVersion: "rbac.authorization.k8s.io/v1",
          kind: "Role",
          metadata: { name: "editor", namespace: ns },
          rules: [{ apiGroups: ["velocity.sh"], resources: ["schemadefinitions"], verbs: ["get", "patch", "update"] }]
        },
        {
          apiVersion: "rbac.authorization.k8s.io/v1",
          kind: "Role",
          metadata: { name: "approver", namespace: ns },
          rules: [{ apiGroups: ["velocity.sh"], resources: ["schemadefinitions"], verbs: ["approve"] }]
        },
        ...[
          ["bob", "editor"],
          ["carol", "editor"],
          ["carol", "approver"]
        ].map(([user, role]) => ({
          apiVersion: "rbac.authorization.k8s.io/v1",
          kind: "RoleBinding",
          metadata: { name: `${user}-${role}`, namespace: ns },
          roleRef: { apiGroup: "rbac.authorization.k8s.io", kind: "Role", name: role },
          subjects: [{ apiGroup: "rbac.authorization.k8s.io", kind: "User", name: user }]
        }))
      ])
    )
    const annotate = (user: string, ...annotations: ReadonlyArray<string>) =>
      cluster.kubectl([
        "annotate",
        "--overwrite",
        "vsd",
        name,
        "-n",
        ns,
        "--as",
        user,
        ...annotations.map((one) => `velocity.sh/${one}`)
      ])
    expect((await annotate("bob", "approve-plan=abc", "approved-by=bob")).err).toContain(
      "bob may not approve plans here"
    )
    expect((await annotate("carol", "approve-plan=abc", "approved-by=dave")).err).toContain(
      "velocity.sh/approved-by must be the approver's own user name"
    )
    expect((await annotate("carol", "approve-plan=abc", "approved-by=carol")).code).toBe(0)
    expect((await annotate("bob", "approved-by=bob")).err).toContain("velocity.sh/approved-by cannot be changed")
    // later edits by others pass, under the approval that stands
    const edited = await cluster.kubectl([
      ...["patch", "vsd", name, "-n", ns, "--as", "bob", "--type=merge", "-p", '{"spec":{"description":"edited"}}']
    ])
    expect(edited.err).toBe("")
  })
})

describe("one definition at every limit at once", () => {
  it("is accepted: what the rules cost at run time is bounded too", async () => {
    const pad = (text: string, index: number) => `${text}${index}`.padEnd(limits.name, "x")
    const roles = Array.from({ length: limits.roles }, (_, index) => pad("r", index))
    // the last ones, so that whoever looks for them passes all others
    const lastRoles = roles.slice(-limits.rolesPerList)
    const names = Array.from({ length: limits.fields }, (_, index) => pad("f", index))
    const lastNames = names.slice(-limits.fieldsPerUniqueConstraint)
    const manifest = definition("tenant", "o".repeat(limits.name - 26), {
      fields: names.map((name, index) => ({
        name,
        type: "string",
        description: "d".repeat(64),
        minLength: 1,
        maxLength: 10,
        pattern: "^[a-z]+$",
        access: { read: lastRoles, write: lastRoles },
        mask: { strategy: "partial", unmaskedFor: lastRoles },
        ...(index === 0 ? { default: "abcde" } : {})
      })),
      uniqueConstraints: Array.from({ length: limits.uniqueConstraints }, () => ({ fields: lastNames })),
      validation: {
        rules: Array.from({ length: limits.rules }, () => ({ rule: "true".padEnd(200), message: "m".repeat(100) }))
      },
      access: {
        roles: roles.map((role) => ({
          role,
          operations: ["create", "read", "update", "delete", "restore", "history"]
        })),
        rowFilters: Array.from({ length: limits.rowFilters }, () => ({
          role: roles.at(-1),
          filter: { field: names.at(-1), op: "in", values: Array.from({ length: 64 }, (_, index) => `v${index}`) }
        }))
      },
      search: { fields: names.slice(-limits.searchFields) }
    })
    const created = await apply([manifest])
    expect(created.err).toBe("")
    // and once more, where the rules that compare with what there was are judged too
    const changed = structuredClone(manifest) as { spec: Record<string, unknown> }
    changed.spec.description = "changed"
    expect((await apply([changed])).err).toBe("")
  })
})
