import { assert, describe, it } from "@effect/vitest"
import { Result, Schema } from "effect"
import * as fc from "fast-check"
import {
  type Binding,
  callerFor,
  isPlatformRole,
  platformChain,
  requireOperation,
  requirePlatformRole,
  rightsOn,
  rolesFor,
  type Target
} from "../../src/access/Authorization.ts"
import type { Identity } from "../../src/domain/Identity.ts"
import { operations } from "../../src/domain/Operation.ts"
import { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"

const identityOf = (strategy: string, subject: string, roles: ReadonlyArray<string>): Identity => ({
  actor: `${strategy}/${subject}`,
  strategy,
  subject,
  roles,
  attributes: {},
  expiresAt: Number.POSITIVE_INFINITY
})

const bindingOf = (over: Partial<Binding>): Binding => ({
  actor: "corp/alice",
  chain: "acme/geo/atlas",
  roles: ["buyer"],
  scopes: [],
  expiresAt: Number.POSITIVE_INFINITY,
  ...over
})

const alice = identityOf("corp", "alice", ["clerk"])
const target: Target = { chain: "acme/geo/atlas", object: "city", version: "v1", operation: "read" }

const held = (bindings: ReadonlyArray<Binding>, asked: Target = target, identity = alice, now = 0): unknown =>
  Result.match(rolesFor(identity, asked, bindings, ["platform"], now), {
    onSuccess: (roles) => roles,
    onFailure: (problem) => problem.code
  })

describe("roles", () => {
  it("are the token's and those of bindings for this actor in this domain", () => {
    assert.deepStrictEqual(held([]), ["clerk"])
    assert.deepStrictEqual(held([bindingOf({}), bindingOf({ roles: ["auditor", "clerk"] })]), [
      "auditor",
      "buyer",
      "clerk"
    ])
    for (const chain of ["acme/geo/other", "acme/geo", "platform", "acme/geo/atlas/city", ""]) {
      assert.deepStrictEqual(held([bindingOf({ chain })]), ["clerk"], chain)
    }
    for (const actor of ["corp/bob", "other/alice", "alice", "corp/alice/x", "corp/Alice", "corp:corp/alice"]) {
      assert.deepStrictEqual(held([bindingOf({ actor })]), ["clerk"], actor)
    }
  })

  it("of a binding end with it, to the millisecond", () => {
    const ending = [bindingOf({ expiresAt: 1_000 })]
    assert.deepStrictEqual(held(ending, target, alice, 999), ["buyer", "clerk"])
    assert.deepStrictEqual(held(ending, target, alice, 1_000), ["clerk"])
    assert.deepStrictEqual(held([bindingOf({ expiresAt: Number.NaN })]), ["clerk"])
  })

  it("of a narrowed binding hold for what fits one of its scopes, and not for the domain at large", () => {
    const narrowed = (scopes: Binding["scopes"], asked: Target = target) => held([bindingOf({ scopes })], asked)
    const yes = ["buyer", "clerk"]
    const no = ["clerk"]
    assert.deepStrictEqual(narrowed([{ object: "city" }]), yes)
    assert.deepStrictEqual(narrowed([{ object: "city", version: "v1", operations: ["read"] }]), yes)
    assert.deepStrictEqual(narrowed([{ object: "country" }, { operations: ["create", "read"] }]), yes)
    assert.deepStrictEqual(narrowed([{ object: "country" }]), no)
    assert.deepStrictEqual(narrowed([{ object: "city", version: "v2" }]), no)
    assert.deepStrictEqual(narrowed([{ operations: ["create"] }]), no)
    assert.deepStrictEqual(
      narrowed([
        { object: "city", operations: ["create"] },
        { object: "country", operations: ["read"] }
      ]),
      no
    )
    assert.deepStrictEqual(narrowed([{ object: "city" }], { chain: target.chain }), no)
    assert.deepStrictEqual(narrowed([{ operations: ["read"] }], { chain: target.chain }), no)
  })
})

describe("platform roles", () => {
  const claimant = identityOf("acme-ns:corp", "mallory", ["platform-admin"])

  it("in a tenant's token refuse the whole request, wherever it goes", () => {
    assert.strictEqual(held([], target, claimant), "platform_role_refused")
    assert.strictEqual(held([], { chain: platformChain }, claimant), "platform_role_refused")
    assert.strictEqual(
      held([], target, identityOf("acme-ns:platform", "m", ["platform-auditor"])),
      "platform_role_refused"
    )
    assert.strictEqual(held([], target, identityOf("corp", "m", ["buyer", "platform-"])), "platform_role_refused")
  })

  it("come from the platform's strategy and the platform's bindings, and count on the platform alone", () => {
    const root = identityOf("platform", "root", ["platform-admin", "clerk"])
    assert.deepStrictEqual(held([], { chain: platformChain }, root), ["platform-admin"])
    assert.deepStrictEqual(held([], target, root), ["clerk"])
    const auditor = bindingOf({ chain: platformChain, roles: ["platform-auditor", "buyer"] })
    assert.deepStrictEqual(held([auditor], { chain: platformChain }), ["platform-auditor"])
    assert.deepStrictEqual(held([auditor]), ["clerk"])
    const domains = bindingOf({ roles: ["platform-auditor"] })
    assert.deepStrictEqual(held([domains], { chain: platformChain }), [])
    assert.deepStrictEqual(held([domains]), ["clerk"])
  })

  it("are asked for by name", () => {
    const facts = { requestId: "r", address: "127.0.0.1" }
    const bindings = [bindingOf({ chain: platformChain, roles: ["platform-auditor"] })]
    const caller = Result.getOrThrow(callerFor(alice, { chain: platformChain }, bindings, ["platform"], facts, 0))
    assert.isTrue(Result.isSuccess(requirePlatformRole(caller, ["platform-admin", "platform-auditor"])))
    assert.isTrue(Result.isFailure(requirePlatformRole(caller, ["platform-admin"])))
  })
})

describe("law", () => {
  const role = fc.constantFrom("buyer", "clerk", "auditor", "platform-admin", "platform-auditor")
  const chain = fc.constantFrom("acme/geo/atlas", "acme/geo/other", platformChain)
  const scope = fc.record(
    {
      object: fc.constantFrom("city", "country"),
      version: fc.constantFrom("v1", "v2"),
      operations: fc.uniqueArray(fc.constantFrom(...operations), { minLength: 1 })
    },
    { requiredKeys: [] }
  )
  const binding: fc.Arbitrary<Binding> = fc.record({
    actor: fc.constantFrom("corp/alice", "corp/bob", "platform/alice"),
    chain,
    roles: fc.uniqueArray(role, { minLength: 1 }),
    scopes: fc.array(scope, { maxLength: 3 }),
    expiresAt: fc.constantFrom(0, 1, 2, Number.POSITIVE_INFINITY)
  })
  const asked: fc.Arbitrary<Target> = fc.record(
    {
      chain,
      object: fc.constantFrom("city", "country"),
      version: fc.constantFrom("v1", "v2"),
      operation: fc.constantFrom(...operations)
    },
    { requiredKeys: ["chain"] }
  )

  it("roles never exceed token and bindings, and each has a reason", () => {
    fc.assert(
      fc.property(
        fc.constantFrom("corp", "platform"),
        fc.uniqueArray(role as fc.Arbitrary<string>),
        fc.array(binding, { maxLength: 8 }),
        asked,
        fc.constantFrom(0, 1, 2),
        (strategy, roles, bindings, to, now) => {
          const identity = identityOf(strategy, "alice", roles)
          const got = rolesFor(identity, to, bindings, ["platform"], now)
          if (Result.isFailure(got)) {
            assert.strictEqual(got.failure.code, "platform_role_refused")
            assert.isTrue(strategy !== "platform" && roles.some(isPlatformRole))
            return
          }
          const mine = bindings.filter(
            (one) => one.actor === identity.actor && one.chain === to.chain && one.expiresAt > now
          )
          for (const one of got.success) {
            assert.isTrue(roles.includes(one) || mine.some((binding) => binding.roles.includes(one)), one)
            assert.strictEqual(isPlatformRole(one), to.chain === platformChain, one)
          }
          // taking any binding away never adds a role
          for (let left = 0; left < bindings.length; left++) {
            const fewer = rolesFor(identity, to, bindings.toSpliced(left, 1), ["platform"], now)
            assert.isTrue(Result.getOrThrow(fewer).every((one) => got.success.includes(one)))
          }
          // nor does asking later
          const later = rolesFor(identity, to, bindings, ["platform"], now + 1)
          assert.isTrue(Result.getOrThrow(later).every((one) => got.success.includes(one)))
        }
      ),
      { numRuns: 2_000 }
    )
  })
})

const spec = Schema.decodeUnknownSync(SchemaDefinitionSpec)({
  org: "acme",
  app: "shop",
  domain: "sales",
  object: "purchase-order",
  version: "v1",
  fields: [
    { name: "number", type: "string" },
    {
      name: "price",
      type: "number",
      precision: 12,
      scale: 4,
      sensitivity: "financial",
      access: { read: ["buyer", "auditor"], write: ["buyer"] },
      mask: { strategy: "redact", unmaskedFor: ["auditor"] }
    }
  ],
  access: {
    roles: [
      { role: "buyer", operations: ["create", "read", "update"] },
      { role: "store", operations: ["read"] },
      { role: "auditor", operations: ["read", "history"] }
    ],
    rowFilters: [{ role: "store", filter: { field: "number", op: "eq", value: "1" } }]
  }
})

describe("operations", () => {
  const callerWith = (roles: ReadonlyArray<string>) => ({ identity: alice, roles, requestId: "r", address: "" })
  it("are granted by a role that lists them, and by nothing else", () => {
    const may = (roles: ReadonlyArray<string>) =>
      operations.filter((operation) => Result.isSuccess(requireOperation(spec, operation, callerWith(roles))))
    assert.deepStrictEqual(may(["buyer"]), ["create", "read", "update"])
    assert.deepStrictEqual(may(["store", "auditor"]), ["read", "history"])
    assert.deepStrictEqual(may([]), [])
    assert.deepStrictEqual(may(["admin", "Buyer", "buyer ", "owner"]), [])
    const refused = requireOperation(spec, "delete", callerWith(["buyer"]))
    assert.isTrue(
      Result.isFailure(refused) && refused.failure.code === "operation_not_granted" && refused.failure.status === 403
    )
  })

  it("and fields are told to whoever asks what he may do", () => {
    const rights = (roles: ReadonlyArray<string>) => rightsOn("acme/shop/sales/purchase-order/v1", spec, () => roles)
    assert.deepStrictEqual(rights(["store"]), {
      path: "acme/shop/sales/purchase-order/v1",
      operations: [{ operation: "read", roles: ["store"], filtered: true }],
      fields: { readable: ["number"], masked: ["price"], writable: [] }
    })
    assert.deepStrictEqual(rights(["buyer", "store"]).operations.at(1), {
      operation: "read",
      roles: ["buyer", "store"],
      filtered: false
    })
    assert.deepStrictEqual(rights(["buyer"]).fields, {
      readable: ["number"],
      masked: ["price"],
      writable: ["number", "price"]
    })
    assert.deepStrictEqual(rights(["auditor"]).fields, { readable: ["number", "price"], masked: [], writable: [] })
    assert.deepStrictEqual(rights([]), {
      path: "acme/shop/sales/purchase-order/v1",
      operations: [],
      fields: { readable: [], masked: [], writable: [] }
    })
    // a scope may grant reading and not writing
    const scoped = rightsOn("p", spec, (operation) => (operation === "read" ? ["buyer"] : []))
    assert.deepStrictEqual(
      scoped.operations.map((one) => one.operation),
      ["read"]
    )
    assert.deepStrictEqual(scoped.fields.writable, [])
  })
})
