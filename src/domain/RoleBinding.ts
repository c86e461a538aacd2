/**
 * Roles for one actor, in one domain, or (in Velocity's own namespace, without a path) for the platform. Only the latter
 * may give roles that begin with `platform-`.
 */
import { Schema } from "effect"
import { isTimestamp } from "./Admission.ts"
import { velocityNamespace } from "./AuthStrategy.ts"
import { immutable } from "./CelRule.ts"
import { type Fault, fault } from "./Fault.ts"
import { Label, RoleName, Version } from "./Field.ts"
import { operations } from "./Operation.ts"

/** `{strategy}/{subject}`. */
export const Actor = Schema.String.check(
  Schema.isMaxLength(512),
  Schema.isPattern(/^[a-z][-a-z0-9:]*\/[^\s\p{Cc}]+$/u, { message: "{strategy}/{subject}" })
)

/** When something ends. */
export const Timestamp = Schema.String.check(
  Schema.isMaxLength(40),
  Schema.isPattern(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]+)?(Z|[+-][0-9]{2}:[0-9]{2})$/u, {
    message: "a time such as 2027-01-31T12:00:00Z"
  })
)

/** Narrows a binding or a key; what is left out is not narrowed. */
export const BindingScope = Schema.Struct({
  object: Schema.optionalKey(Label).annotateKey({ description: "Records of this object alone" }),
  version: Schema.optionalKey(Version).annotateKey({ description: "This version alone" }),
  operations: Schema.optionalKey(
    Schema.Array(Schema.Literals(operations)).check(Schema.isMinLength(1), Schema.isMaxLength(8), Schema.isUnique())
  ).annotateKey({ description: "These operations alone" })
})
export type BindingScope = typeof BindingScope.Type

export const RoleBindingSpec = Schema.Struct({
  org: Schema.optionalKey(Label).annotateKey({
    description: "The domain's organisation; org, app and domain are given together, or none of them for the platform"
  }),
  app: Schema.optionalKey(Label).annotateKey({ description: "The domain's application" }),
  domain: Schema.optionalKey(Label).annotateKey({ description: "The domain in which the roles are given" }),
  actorId: Actor.annotateKey({ description: "Who gets the roles: {strategy}/{subject}" }),
  roles: Schema.Array(RoleName).check(Schema.isMinLength(1), Schema.isMaxLength(32), Schema.isUnique()).annotateKey({
    description:
      "The roles; those that begin with platform- are given by a binding in velocity-system without org, app and domain"
  }),
  scopes: Schema.optionalKey(
    Schema.Array(BindingScope).check(Schema.isMinLength(1), Schema.isMaxLength(16))
  ).annotateKey({ description: "To what the binding is narrowed; without them it is not" }),
  expiresAt: Schema.optionalKey(Timestamp).annotateKey({
    description: "Afterwards the binding grants nothing; a time such as 2027-01-31T12:00:00Z"
  }),
  grantedBy: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(256))).annotateKey({
    description: "Who gives the roles: the user name of whoever applies it"
  })
}).annotate({
  celRules: [
    immutable("org", false),
    immutable("app", false),
    immutable("domain", false),
    {
      rule: "has(self.org) == has(self.app) && has(self.org) == has(self.domain)",
      message: "org, app and domain are given together"
    },
    {
      rule: "!has(self.org) || !self.roles.exists(r, r.startsWith('platform-'))",
      message: "a role that begins with platform- is given by a binding in velocity-system without org, app and domain",
      fieldPath: ".roles"
    },
    {
      rule: "has(self.org) || self.roles.all(r, r.startsWith('platform-'))",
      message: "a binding without org, app and domain gives roles that begin with platform-",
      fieldPath: ".roles"
    }
  ]
})
export type RoleBindingSpec = typeof RoleBindingSpec.Type

interface Placed {
  readonly org?: string
  readonly app?: string
  readonly domain?: string
  readonly roles: ReadonlyArray<string>
}

/** What is wrong with where a binding or a key stands, and with its roles there. */
export const placeFaults = (what: "binding" | "key", spec: Placed, namespace: string): ReadonlyArray<Fault> => {
  const given = [spec.org, spec.app, spec.domain].filter((part) => part !== undefined).length
  const ours = namespace === velocityNamespace
  return [
    ...(given === 1 || given === 2 ? [fault([], what, "org, app and domain are given together")] : []),
    ...(given === 0 && !ours
      ? [fault([], what, `only a ${what} in ${velocityNamespace} may leave out org, app and domain`)]
      : []),
    ...spec.roles.flatMap((role, index) => {
      if (role.startsWith("platform-")) {
        return ours && given === 0
          ? []
          : [
              fault(
                ["roles", index],
                "reserved_name",
                `a role that begins with platform- is given by a ${what} in ${velocityNamespace} without org, app and domain`
              )
            ]
      }
      return given === 0 && what === "key"
        ? [fault(["roles", index], what, "a key without org, app and domain gives roles that begin with platform-")]
        : []
    })
  ]
}

/** What is wrong with the time at which it ends. */
export const timeFaults = (what: "binding" | "key", expiresAt: string | undefined): ReadonlyArray<Fault> =>
  expiresAt !== undefined && !isTimestamp(expiresAt) ? [fault(["expiresAt"], what, "there is no such time")] : []

/** What is wrong across the keys of a binding in `namespace`. */
export const bindingFaults = (spec: RoleBindingSpec, namespace: string): ReadonlyArray<Fault> => [
  ...placeFaults("binding", spec, namespace),
  ...timeFaults("binding", spec.expiresAt)
]
