/** What the API server refuses and in which words: a case for every rule of the kinds, and for every policy. */
import { apiKey, application, binding, definition, domain, type Manifest, organisation, strategy } from "./Manifests.ts"

export interface Case {
  readonly name: string
  /** Part of what is told. */
  readonly message: string
  readonly manifest: Manifest
  /** What there is before it. */
  readonly before?: Manifest
  /** Who applies it, with an administrator's rights; admin unless said. */
  readonly as?: string
}

const field = (more: object) => definition("tenant", "broken", { fields: [{ name: "a", ...more }] })
const buyer = { role: "buyer", operations: ["read"] }
const filtered = (type: object, filter: object, role = "buyer") =>
  definition("tenant", "broken", {
    fields: [{ name: "a", ...type }],
    access: { roles: [buyer], rowFilters: [{ role, filter: { field: "a", ...filter } }] }
  })
const text = { type: "string" }

const changed = (one: Manifest, key: string, value: unknown): Case => ({
  name: `another ${key} of a ${one.kind}`,
  message: `${key} cannot be changed`,
  before: one,
  manifest: { ...one, spec: { ...(one.spec as object), [key]: value } }
})

const lifecycle = (one: object) => definition("tenant", "broken", { lifecycle: one })
const [early, late] = ["2027-01-31T12:00:00Z", "2027-06-30T12:00:00Z"]

const kept = (name: string) => definition("tenant", name)

const jwt = { issuers: ["i"], audience: "a" }
const key = { kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }
const keyed = (jwks: object) => strategy("velocity-system", "broken", { type: "jwt", jwt: { ...jwt, ...jwks } })

const ofDomain = (org: string, app: string, name: string): Manifest => ({
  ...domain("tenant"),
  metadata: { name, namespace: "tenant-shop" },
  spec: { org, app, domain: name }
})

/** What one object can be told about itself. */
export const cases: ReadonlyArray<Case> = [
  {
    name: "a name with a dot",
    message: "metadata.name must be a DNS label",
    manifest: { ...definition("tenant", "a"), metadata: { name: "a.b", namespace: "tenant-shop-eu" } }
  },
  changed(organisation("tenant"), "org", "other"),
  changed(application("tenant"), "org", "other"),
  changed(application("tenant"), "app", "other"),
  ...["org", "app", "domain", "database"].map((one) => changed(domain("tenant"), one, "other")),
  ...["org", "app", "domain", "object"].map((one) => changed(kept("kept"), one, "other")),
  changed(kept("kept"), "version", "v2"),
  {
    name: "a version that shares its own rows",
    message: "a version cannot share its own rows",
    manifest: definition("tenant", "broken", { sharesRowsWith: "v1" })
  },
  ...["org", "app", "domain"].map((one) => changed(binding("tenant", "kept"), one, "other")),
  ...["org", "app", "domain"].map((one) => changed(apiKey("tenant", "kept"), one, "other")),
  changed(apiKey("tenant", "kept"), "actor", "keys/other"),
  {
    name: "working hours of no length",
    message: "from and to must differ",
    manifest: {
      ...organisation("tenant"),
      spec: { org: "tenant", workingHours: { timeZone: "Europe/Berlin", days: ["mon"], from: "08:00", to: "08:00" } }
    }
  },
  {
    name: "a reserved organisation",
    message: "this organisation name is reserved",
    manifest: { ...definition("tenant", "a"), spec: { ...(definition("tenant", "a").spec as object), org: "platform" } }
  },
  {
    name: "a path that passes Postgres's names",
    message: "org, app and domain together may have 54 characters",
    manifest: definition("tenant", "a", { app: "a".repeat(30), domain: "d".repeat(30) })
  },
  {
    name: "an object whose name is too long",
    message: "spec.object: Too long: may not be more than 40 bytes",
    manifest: definition("tenant", "a", { object: "a".repeat(60) })
  },
  {
    name: "deprecated since nobody knows when",
    message: "deprecatedAt is said where stage is deprecated or sunset, and only there",
    manifest: lifecycle({ stage: "deprecated" })
  },
  {
    name: "an end of what does not end",
    message: "sunsetAt is said where stage is sunset, and only there",
    manifest: lifecycle({ stage: "deprecated", deprecatedAt: early, sunsetAt: late })
  },
  {
    name: "an end before the beginning of the end",
    message: "sunsetAt is before deprecatedAt",
    manifest: lifecycle({ stage: "sunset", deprecatedAt: late, sunsetAt: early })
  },
  {
    name: "a successor of what is in use",
    message: "a version that is in use has no successor",
    manifest: lifecycle({ stage: "active", successor: "v2" })
  },
  {
    name: "its own successor",
    message: "a version does not succeed itself",
    manifest: lifecycle({ stage: "deprecated", deprecatedAt: early, successor: "v1" })
  },
  {
    name: "a system column",
    message: "this name is a system column",
    manifest: definition("tenant", "a", { fields: [{ name: "created_at", type: "date" }] })
  },
  {
    name: "an enum without values",
    message: "enum needs values, and only enum may have them",
    manifest: field({ type: "enum" })
  },
  {
    name: "values without an enum",
    message: "enum needs values, and only enum may have them",
    manifest: field({ ...text, enum: ["a"] })
  },
  {
    name: "a ref without a target",
    message: "ref needs a target, and only ref may have one",
    manifest: field({ type: "ref" })
  },
  {
    name: "setNull on a required field",
    message: "setNull cannot empty a required field",
    manifest: field({ type: "ref", required: true, ref: { object: "b", version: "v1", onDelete: "setNull" } })
  },
  {
    name: "a length of a number",
    message: "minLength and maxLength are for string and bytes",
    manifest: field({ type: "number", maxLength: 3 })
  },
  {
    name: "lengths in the wrong order",
    message: "minLength is above maxLength",
    manifest: field({ ...text, minLength: 3, maxLength: 2 })
  },
  { name: "a pattern of a date", message: "pattern is for string", manifest: field({ type: "date", pattern: "a" }) },
  {
    name: "a precision of a double",
    message: "precision and scale are for exact numbers",
    manifest: field({ type: "number", float: true, precision: 3 })
  },
  {
    name: "a scale above the precision",
    message: "scale needs a precision at least as large",
    manifest: field({ type: "number", precision: 3, scale: 4 })
  },
  { name: "a float that is no number", message: "float is for number", manifest: field({ ...text, float: true }) },
  {
    name: "a bound of a string",
    message: "min and max are for integer and number",
    manifest: field({ ...text, min: "1" })
  },
  {
    name: "bounds in the wrong order",
    message: "min is above max",
    manifest: field({ type: "number", min: "10", max: "9.5" })
  },
  {
    name: "bounds in the wrong order, one without quotes",
    message: "min is above max",
    manifest: field({ type: "integer", min: 10, max: "9" })
  },
  {
    name: "an index on json",
    message: "json cannot be unique or indexed",
    manifest: field({ type: "json", indexed: true })
  },
  { name: "an index on bytes", message: "bytes cannot be indexed", manifest: field({ type: "bytes", indexed: true }) },
  {
    name: "unique bytes without a bound",
    message: "unique bytes need a maxLength of at most 2000",
    manifest: field({ type: "bytes", unique: true })
  },
  {
    name: "a partial mask of a number",
    message: "partial is for string",
    manifest: field({ type: "number", mask: { strategy: "partial" } })
  },
  {
    name: "values without in",
    message: "values are for the operator in",
    manifest: filtered(text, { op: "eq", values: ["a"] })
  },
  {
    name: "is_null of an identity",
    message: "is_null takes value true or false",
    manifest: filtered(text, { op: "is_null", identity: "actor" })
  },
  {
    name: "in with one value",
    message: "in takes values, or an identity that is a list",
    manifest: filtered(text, { op: "in", value: "a" })
  },
  {
    name: "a row filter with two things to compare with",
    message: "must validate one and only one schema (oneOf)",
    manifest: filtered(text, { op: "eq", value: "a", identity: "actor" })
  },
  {
    name: "a platform role",
    message: "roles that begin with platform- are Velocity's own",
    manifest: definition("tenant", "a", { access: { roles: [{ role: "platform-admin", operations: ["read"] }] } })
  },
  {
    name: "an undeclared reader",
    message: "access.read of a field names a role that is not in access.roles",
    manifest: field({ ...text, access: { read: ["ghost"] } })
  },
  {
    name: "an undeclared writer",
    message: "access.write of a field names a role that is not in access.roles",
    manifest: field({ ...text, access: { write: ["ghost"] } })
  },
  {
    name: "an undeclared role in a mask",
    message: "mask.unmaskedFor of a field names a role that is not in access.roles",
    manifest: field({ ...text, mask: { strategy: "redact", unmaskedFor: ["ghost"] } })
  },
  {
    name: "a row filter for an undeclared role",
    message: "a row filter names a role that is not in access.roles",
    manifest: filtered(text, { op: "eq", identity: "actor" }, "ghost")
  },
  {
    name: "a row filter on no field",
    message: "a row filter names a field that does not exist",
    manifest: filtered(text, { field: "ghost", op: "eq", identity: "actor" })
  },
  {
    name: "a row filter on json",
    message: "a row filter does not fit its field",
    manifest: filtered({ type: "json" }, { op: "eq", identity: "actor" })
  },
  {
    name: "contains on a number",
    message: "a row filter does not fit its field",
    manifest: filtered({ type: "number" }, { op: "contains", value: "1" })
  },
  {
    name: "an order of booleans",
    message: "a row filter does not fit its field",
    manifest: filtered({ type: "boolean" }, { op: "lt", value: "true" })
  },
  {
    name: "a unique constraint over no field",
    message: "a unique constraint names a field that does not exist",
    manifest: definition("tenant", "a", { uniqueConstraints: [{ fields: ["a", "ghost"] }] })
  },
  {
    name: "a unique constraint over json",
    message: "json and bytes cannot be part of a unique constraint",
    manifest: definition("tenant", "a", {
      fields: [
        { name: "a", type: "string" },
        { name: "b", type: "json" }
      ],
      uniqueConstraints: [{ fields: ["a", "b"] }]
    })
  },
  {
    name: "a search over no field",
    message: "search names a field that does not exist",
    manifest: definition("tenant", "a", { search: { fields: ["ghost"] } })
  },
  {
    name: "a search over dates",
    message: "search is over string fields",
    manifest: definition("tenant", "a", { fields: [{ name: "a", type: "date" }], search: { fields: ["a"] } })
  },
  {
    name: "two fields of one name",
    message: '.spec.fields: duplicate entries for key [name="a"]',
    manifest: definition("tenant", "a", {
      fields: [
        { name: "a", type: "string" },
        { name: "a", type: "date" }
      ]
    })
  },
  {
    name: "a role that is declared twice",
    message: '.spec.access.roles: duplicate entries for key [role="buyer"]',
    manifest: definition("tenant", "a", { access: { roles: [buyer, buyer] } })
  },
  {
    name: "a jwt strategy without jwt",
    message: "type jwt needs jwt",
    manifest: strategy("velocity-system", "broken", { type: "jwt" })
  },
  {
    name: "jwt beside type none",
    message: "only type jwt has jwt",
    manifest: strategy("velocity-system", "broken", { type: "none", jwt: { ...jwt, jwks: { keys: [key] } } })
  },
  {
    name: "a strategy with two sources of keys",
    message: "must validate one and only one schema (oneOf)",
    manifest: keyed({ jwksUrl: "https://a/b", jwks: { keys: [key] } })
  },
  { name: "a strategy without keys", message: "must validate one and only one schema (oneOf)", manifest: keyed({}) },
  {
    name: "a private key",
    message: "must not validate the schema (not)",
    manifest: keyed({ jwks: { keys: [{ ...key, d: "secret" }] } })
  },
  {
    name: "keys over plain http",
    message: "spec.jwt.jwksUrl in body should match",
    manifest: keyed({ jwksUrl: "http://i.example/keys" })
  },
  {
    name: "half a domain in a binding",
    message: "org, app and domain are given together",
    manifest: binding("tenant", "broken", { domain: undefined })
  },
  {
    name: "a platform role in a domain",
    message: "a role that begins with platform- is given by a binding in velocity-system",
    manifest: binding("tenant", "broken", { roles: ["platform-admin"] })
  },
  {
    name: "a binding of the platform with a role of no platform",
    message: "a binding without org, app and domain gives roles that begin with platform-",
    manifest: {
      ...binding("tenant", "broken", { org: undefined, app: undefined, domain: undefined }),
      metadata: { name: "broken", namespace: "velocity-system" }
    }
  },
  {
    name: "a composite strategy without composite",
    message: "type composite needs composite",
    manifest: strategy("velocity-system", "broken", { type: "composite" })
  },
  {
    name: "members of a strategy that is no composite",
    message: "only type composite has composite",
    manifest: strategy("velocity-system", "broken", { type: "apikey", composite: { strategies: ["a"] } })
  },
  {
    name: "half a domain in a key",
    message: "org, app and domain are given together",
    manifest: apiKey("tenant", "broken", { domain: undefined })
  },
  {
    name: "a key without roles and scopes",
    message: "a key says roles, or scopes of the roles that bindings give its actor",
    manifest: apiKey("tenant", "broken", { roles: undefined })
  },
  {
    name: "a platform role of a domain's key",
    message: "a role that begins with platform- is given by a key in velocity-system",
    manifest: apiKey("tenant", "broken", { roles: ["platform-admin"] })
  },
  {
    name: "a key of the platform with a role of no platform",
    message: "a key without org, app and domain gives roles that begin with platform-",
    manifest: {
      ...apiKey("tenant", "broken", { org: undefined, app: undefined, domain: undefined }),
      metadata: { name: "broken", namespace: "velocity-system" }
    }
  },
  {
    name: "a range of no addresses",
    message: "ipAllowlist has addresses and ranges such as 192.0.2.7 or 2001:db8::/32",
    manifest: apiKey("tenant", "broken", { ipAllowlist: ["10.0.0.0/33"] })
  },
  {
    name: "an overlap that is no duration",
    message: "spec.rotationOverlap in body should match",
    manifest: apiKey("tenant", "broken", { rotationOverlap: "soon" })
  },
  { name: "an unknown type", message: 'Unsupported value: "text"', manifest: field({ type: "text" }) },
  {
    name: "a name in capitals",
    message: "should match",
    manifest: definition("tenant", "a", { fields: [{ name: "A", type: "date" }] })
  },
  {
    name: "no field at all",
    message: "should have at least 1 items",
    manifest: definition("tenant", "a", { fields: [] })
  },
  { name: "no type", message: 'missing required field "type"', manifest: field({}) },
  {
    name: "a type that YAML made a boolean",
    message: '.spec.fields[name="a"].type: expected string',
    manifest: field({ type: true })
  }
]

const inNamespace = (one: Manifest, namespace: string): Manifest => ({
  ...one,
  metadata: { ...one.metadata, namespace }
})

/** What an object can be told about where it stands and who applies it. */
export const policyCases: ReadonlyArray<Case> = [
  {
    name: "an organisation outside Velocity's own namespace",
    message: "an Organisation lives in velocity-system",
    manifest: inNamespace(organisation("tenant"), "tenant")
  },
  {
    name: "an application in the namespace of another organisation",
    message: "this namespace belongs to acme, the application says tenant",
    manifest: inNamespace(application("tenant"), "acme")
  },
  {
    name: "an application where no organisation is named",
    message: "this namespace belongs to no organisation, the application says tenant",
    manifest: inNamespace(application("tenant"), "velocity-system")
  },
  {
    name: "a domain of another application",
    message: "this namespace belongs to tenant/shop, the domain says tenant/other",
    manifest: ofDomain("tenant", "other", "us")
  },
  {
    name: "a definition of another domain",
    message: "this namespace belongs to tenant/shop/eu, the definition says tenant/shop/us",
    manifest: definition("tenant", "a", { domain: "us" })
  },
  {
    name: "a definition in the namespace of its application",
    message: "this namespace belongs to tenant/shop, the definition says tenant/shop/eu",
    manifest: inNamespace(definition("tenant", "a"), "tenant-shop")
  },
  {
    name: "a binding into another domain",
    message: "this namespace belongs to tenant/shop/eu, the binding says acme/geo/atlas",
    manifest: binding("tenant", "a", { org: "acme", app: "geo", domain: "atlas" })
  },
  {
    name: "a binding of the platform in a tenant's namespace",
    message: "only a binding in velocity-system may leave out org, app and domain",
    manifest: binding("tenant", "a", { org: undefined, app: undefined, domain: undefined, roles: ["platform-admin"] })
  },
  {
    name: "a key into another domain",
    message: "this namespace belongs to tenant/shop/eu, the key says acme/geo/atlas",
    manifest: apiKey("tenant", "a", { org: "acme", app: "geo", domain: "atlas" })
  },
  {
    name: "a key of the platform in a tenant's namespace",
    message: "only a key in velocity-system may leave out org, app and domain",
    manifest: apiKey("tenant", "a", { org: undefined, app: undefined, domain: undefined, roles: ["platform-admin"] })
  },
  {
    name: "a strategy in a namespace of nobody's",
    message: "an AuthStrategy lives in velocity-system or in a namespace of an organisation",
    manifest: strategy("default", "a", { type: "none" })
  },
  {
    name: "a binding that is signed with another's name",
    message: "grantedBy must be admin, the user who applies it",
    manifest: binding("tenant", "a", { grantedBy: "somebody-else" })
  },
  {
    name: "other words above another's signature",
    message: "grantedBy must be bob, the user who applies it",
    before: binding("tenant", "signed", { grantedBy: "admin" }),
    as: "bob",
    manifest: binding("tenant", "signed", { grantedBy: "admin", actorId: "development/bob", roles: ["admin"] })
  }
]
