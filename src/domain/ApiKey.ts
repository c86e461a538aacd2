/**
 * A key for a machine: whom it speaks for, with which roles, from where and until when. The operator mints it once, into a
 * Secret or (without a cluster) into a file, and keeps its SHA-256; `KeyText` says what a key looks like.
 *
 * A key belongs to one domain, or, in Velocity's own namespace and without a path, to the platform. Its actor is one of an
 * AuthStrategy of type `apikey`, so that nobody who may make keys can speak for people.
 */
import { Effect, Schema } from "effect"
import { parseRange } from "./AddressRange.ts"
import { immutable } from "./CelRule.ts"
import { type Fault, fault } from "./Fault.ts"
import { Label, RoleName } from "./Field.ts"
import { Actor, BindingScope, placeFaults, Timestamp, timeFaults } from "./RoleBinding.ts"

const rangeMessage = "ipAllowlist has addresses and ranges such as 192.0.2.7 or 2001:db8::/32"

export const ApiKeySpec = Schema.Struct({
  org: Schema.optionalKey(Label).annotateKey({
    description: "The domain's organisation; org, app and domain are given together, or none of them for the platform"
  }),
  app: Schema.optionalKey(Label).annotateKey({ description: "The domain's application" }),
  domain: Schema.optionalKey(Label).annotateKey({ description: "The domain that the key opens" }),
  actor: Actor.annotateKey({
    description: "Whom the key speaks for: {strategy}/{subject}, of an AuthStrategy of type apikey"
  }),
  roles: Schema.optionalKey(
    Schema.Array(RoleName).check(Schema.isMinLength(1), Schema.isMaxLength(32), Schema.isUnique())
  ).annotateKey({
    description:
      "What the key brings beside the roles that RoleBindings give its actor; those that begin with platform- are for keys in velocity-system without org, app and domain"
  }),
  scopes: Schema.optionalKey(
    Schema.Array(BindingScope).check(Schema.isMinLength(1), Schema.isMaxLength(16))
  ).annotateKey({ description: "To what everything that the key may do is narrowed; without them it is not" }),
  ipAllowlist: Schema.optionalKey(
    Schema.Array(
      Schema.String.check(
        Schema.isMaxLength(43),
        Schema.isPattern(/^[0-9A-Fa-f.:]+(\/[0-9]{1,3})?$/u, { message: rangeMessage })
      )
    ).check(Schema.isMinLength(1), Schema.isMaxLength(64), Schema.isUnique())
  ).annotateKey({
    description: "Addresses and ranges (CIDR) that the key is taken from; without them from anywhere"
  }),
  expiresAt: Schema.optionalKey(Timestamp).annotateKey({
    description: "Afterwards the key opens nothing; a time such as 2027-01-31T12:00:00Z"
  }),
  rotationOverlap: Schema.String.check(
    Schema.isMaxLength(8),
    Schema.isPattern(/^(0|[1-9][0-9]{0,3})[smhd]$/u, { message: "a duration such as 0s, 30m, 1h or 7d" })
  )
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("1h")))
    .annotateKey({
      description: "How long the key of before still works after a rotation (annotation velocity.sh/rotate), such as 1h"
    })
}).annotate({
  celRules: [
    immutable("org", false),
    immutable("app", false),
    immutable("domain", false),
    immutable("actor"),
    {
      rule: "has(self.org) == has(self.app) && has(self.org) == has(self.domain)",
      message: "org, app and domain are given together"
    },
    {
      rule: "has(self.roles) || has(self.scopes)",
      message: "a key says roles, or scopes of the roles that bindings give its actor"
    },
    {
      rule: "!has(self.org) || !has(self.roles) || !self.roles.exists(r, r.startsWith('platform-'))",
      message: "a role that begins with platform- is given by a key in velocity-system without org, app and domain",
      fieldPath: ".roles"
    },
    {
      rule: "has(self.org) || !has(self.roles) || self.roles.all(r, r.startsWith('platform-'))",
      message: "a key without org, app and domain gives roles that begin with platform-",
      fieldPath: ".roles"
    },
    {
      rule: "!has(self.ipAllowlist) || self.ipAllowlist.all(a, isIP(a) || isCIDR(a))",
      message: rangeMessage,
      fieldPath: ".ipAllowlist"
    }
  ]
})
export type ApiKeySpec = typeof ApiKeySpec.Type

/** What is wrong across the keys of a spec in `namespace`. */
export const apiKeyFaults = (spec: ApiKeySpec, namespace: string): ReadonlyArray<Fault> => [
  ...placeFaults("key", { ...spec, roles: spec.roles ?? [] }, namespace),
  ...(spec.roles === undefined && spec.scopes === undefined
    ? [fault([], "key", "a key says roles, or scopes of the roles that bindings give its actor")]
    : []),
  ...(spec.ipAllowlist ?? []).flatMap((range, index) =>
    parseRange(range) === undefined ? [fault(["ipAllowlist", index], "key", rangeMessage)] : []
  ),
  ...timeFaults("key", spec.expiresAt)
]

/** The strategy and the subject that an actor is made of. */
export const partsOfActor = (actor: string): { readonly strategy: string; readonly subject: string } => {
  const slash = actor.indexOf("/")
  return { strategy: actor.slice(0, slash), subject: actor.slice(slash + 1) }
}

const units = { s: 1_000, m: 60_000, h: 3_600_000, d: 86_400_000 } as const

/** `rotationOverlap` in milliseconds. */
export const overlapMillis = ({ rotationOverlap }: ApiKeySpec): number =>
  Number.parseInt(rotationOverlap, 10) * units[rotationOverlap.slice(-1) as keyof typeof units]
