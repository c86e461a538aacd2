/**
 * How callers prove who they are. A Domain names its strategy; one of Velocity's own namespace may be named by any, one
 * of a domain's namespace by that domain alone.
 */
import { Effect, Schema } from "effect"
import { type Fault, fault } from "./Fault.ts"
import { labelPattern } from "./Names.ts"

/** Velocity's own namespace. */
export const velocityNamespace = "velocity-system"

/** `{name}`, or `velocity-system/{name}`. */
export const StrategyName = Schema.String.check(
  Schema.isMaxLength(80),
  Schema.isPattern(/^(velocity-system\/)?[a-z]([-a-z0-9]*[a-z0-9])?$/u, {
    message: "the name of an AuthStrategy, or velocity-system/{name}"
  })
)

export const jwtAlgorithms = [
  "RS256",
  "RS384",
  "RS512",
  "PS256",
  "PS384",
  "PS512",
  "ES256",
  "ES384",
  "ES512",
  "EdDSA"
] as const

const text = (maximum: number) => Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum))
const ClaimPath = Schema.String.check(
  Schema.isMaxLength(256),
  Schema.isPattern(/^\$((\.[A-Za-z_][A-Za-z0-9_-]*)|(\['[^'\\]+'\]))+$/u, {
    message: "a path into the claims, such as $.sub or $['https://acme.example/roles']"
  })
)

/** Members of a JWK that only the holder of the private key, or of a shared secret, has (RFC 7518, section 6). */
const privateMembers = ["d", "p", "q", "dp", "dq", "qi", "oth", "k"] as const

/** A public key (RFC 7517); `strategyFaults` refuses one with private members. */
const Jwk = Schema.Record(Schema.String.check(Schema.isMaxLength(64)), Schema.Json).annotate({
  noneOf: privateMembers
})

export const JwtSpec = Schema.Struct({
  issuers: Schema.Array(text(512))
    .check(Schema.isMinLength(1), Schema.isMaxLength(8), Schema.isUnique())
    .annotateKey({ description: "Exactly these values of iss are believed" }),
  jwksUrl: Schema.optionalKey(
    Schema.String.check(
      Schema.isMaxLength(2048),
      Schema.isPattern(
        /^(https:\/\/[^\s/?#@]+|http:\/\/(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?)([/?][^\s#]*)?$/u,
        {
          message: "an https URL, or http on a loopback address"
        }
      )
    )
  ).annotateKey({ description: "Where the issuer's public keys are: https, or http on a loopback address" }),
  jwks: Schema.optionalKey(
    Schema.Struct({
      keys: Schema.Array(Jwk)
        .check(Schema.isMinLength(1), Schema.isMaxLength(16))
        .annotateKey({ description: "Public keys (RFC 7517); one with private members is refused" })
    })
  ).annotateKey({ description: "The issuer's public keys themselves, where there is no URL" }),
  audience: text(512).annotateKey({ description: "What aud must be, or contain" }),
  algorithms: Schema.Array(Schema.Literals(jwtAlgorithms))
    .check(Schema.isMinLength(1), Schema.isMaxLength(10), Schema.isUnique())
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed(["RS256", "ES256", "EdDSA"] as const)))
    .annotateKey({ description: "The signature algorithms that are believed" }),
  clockSkew: Schema.String.check(
    Schema.isMaxLength(8),
    Schema.isPattern(/^[0-9]{1,3}s$/u, { message: "seconds, such as 5s" })
  )
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("5s")))
    .annotateKey({ description: "By how much the issuer's clock may differ from ours, in seconds such as 5s" }),
  claims: Schema.Struct({
    actorId: ClaimPath.pipe(Schema.withDecodingDefaultKey(Effect.succeed("$.sub"))).annotateKey({
      description: "Where a token says who the caller is"
    }),
    roles: ClaimPath.pipe(Schema.withDecodingDefaultKey(Effect.succeed("$.roles"))).annotateKey({
      description: "Where a token says the caller's roles"
    }),
    attributes: Schema.Record(
      Schema.String.check(Schema.isPattern(/^(\*|[A-Za-z_][A-Za-z0-9_-]*)$/u), Schema.isMaxLength(63)),
      ClaimPath
    )
      .pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
      .annotateKey({
        description: "Name of an attribute to where a token says it; the name * takes every member of an object"
      })
  })
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed({})))
    .annotateKey({ description: "Paths into the token's claims, such as $.sub or $['https://acme.example/roles']" })
}).annotate({ exactlyOneOf: ["jwksUrl", "jwks"] })
export type JwtSpec = typeof JwtSpec.Type

export const CompositeSpec = Schema.Struct({
  strategies: Schema.Array(StrategyName)
    .check(Schema.isMinLength(1), Schema.isMaxLength(8), Schema.isUnique())
    .annotateKey({
      description:
        "AuthStrategies of type jwt and apikey, of this namespace or velocity-system/{name}; each judges its own"
    })
})
export type CompositeSpec = typeof CompositeSpec.Type

export const AuthStrategySpec = Schema.Struct({
  type: Schema.Literals(["jwt", "apikey", "composite", "none"]).annotateKey({
    description:
      "jwt: by a signed token; apikey: by a key of an ApiKey; composite: by one of several strategies; none: anybody, as one actor without roles, which a Domain must ask for by name"
  }),
  jwt: Schema.optionalKey(JwtSpec).annotateKey({
    description: "Which tokens are believed, and what they say of the caller"
  }),
  composite: Schema.optionalKey(CompositeSpec).annotateKey({ description: "The strategies of which one is enough" })
}).annotate({
  celRules: [
    { rule: "self.type != 'jwt' || has(self.jwt)", message: "type jwt needs jwt", fieldPath: ".jwt" },
    { rule: "self.type == 'jwt' || !has(self.jwt)", message: "only type jwt has jwt", fieldPath: ".jwt" },
    {
      rule: "self.type != 'composite' || has(self.composite)",
      message: "type composite needs composite",
      fieldPath: ".composite"
    },
    {
      rule: "self.type == 'composite' || !has(self.composite)",
      message: "only type composite has composite",
      fieldPath: ".composite"
    }
  ]
})
export type AuthStrategySpec = typeof AuthStrategySpec.Type

/** What is wrong across the keys of a strategy's spec. */
export const strategyFaults = ({ composite, jwt, type }: AuthStrategySpec): ReadonlyArray<Fault> => {
  const strays = [
    ...(type !== "jwt" && jwt !== undefined ? [fault(["jwt"], "strategy", "only type jwt has jwt")] : []),
    ...(type !== "composite" && composite !== undefined
      ? [fault(["composite"], "strategy", "only type composite has composite")]
      : []),
    ...(type === "composite" && composite === undefined
      ? [fault(["composite"], "strategy", "type composite needs composite")]
      : [])
  ]
  if (type !== "jwt") return strays
  if (jwt === undefined) return [fault(["jwt"], "strategy", "type jwt needs jwt"), ...strays]
  return [
    ...strays,
    ...((jwt.jwks === undefined) === (jwt.jwksUrl === undefined)
      ? [fault(["jwt"], "strategy", "exactly one of jwksUrl and jwks")]
      : []),
    ...(jwt.jwks?.keys ?? []).flatMap((key, index) =>
      privateMembers
        .filter((member) => Object.hasOwn(key, member))
        .map((member) =>
          fault(
            ["jwt", "jwks", "keys", index, member],
            "private_key",
            `${member} is part of a private key; take it out`
          )
        )
    )
  ]
}

/**
 * The id of a strategy, which begins every actor: its name in Velocity's own namespace, `{namespace}:{name}` in any other,
 * so that no tenant's strategy can speak for the platform's actors.
 */
export const strategyId = (namespace: string, name: string): string =>
  namespace === velocityNamespace ? name : `${namespace}:${name}`

/** The namespace that a strategy's id names. */
export const namespaceOfStrategy = (id: string): string => {
  const colon = id.indexOf(":")
  return colon < 0 ? velocityNamespace : id.slice(0, colon)
}

/** The ids that a Domain in `namespace` may mean by `reference`, first that exists first. */
export const strategyCandidates = (namespace: string, reference: string): ReadonlyArray<string> => {
  const slash = reference.indexOf("/")
  const name = slash < 0 ? reference : reference.slice(slash + 1)
  return slash >= 0 || !labelPattern.test(namespace)
    ? [strategyId(velocityNamespace, name)]
    : [strategyId(namespace, name), strategyId(velocityNamespace, name)]
}
