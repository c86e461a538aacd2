/**
 * What the anomaly scanner is told: rules (`VELOCITY_ANOMALY_RULES`, a file), whom its alerts are sent to
 * (`VELOCITY_ANOMALY_WEBHOOKS`, a file that may hold secrets), and when an alert that nobody takes is given up
 * (`VELOCITY_ANOMALY_GIVE_UP`). Files are YAML, which JSON is too, and are read once, at the start: one that is wrong keeps
 * the operator from starting, with every fault by its place.
 */
import { readFile } from "node:fs/promises"
import { Config, Data, Effect, Option, Redacted, Schema } from "effect"
import { parse } from "yaml"
import { type AnomalyRule, builtinRules, decodeRules, severities } from "../../domain/AnomalyRule.ts"
import { decodeStrictly } from "../../domain/Resource.ts"
import { sha256Hex } from "../../domain/Sha256.ts"
import { duration } from "../../postgres/PgSettings.ts"
import { secretKey } from "./WebhookSignature.ts"

/** A file cannot be read, or what it says is not what it may say. */
export class AnomalySettingsInvalid extends Data.TaggedError("AnomalySettingsInvalid")<{ readonly message: string }> {}

/** Whom alerts are sent to. */
export interface Endpoint {
  /** What deliveries are kept under. */
  readonly name: string
  readonly url: string
  /** Digest of the URL, which may itself be a secret. */
  readonly urlHash: string
  /** The first is the one in force; others sign too while receivers change over. */
  readonly secrets: ReadonlyArray<Redacted.Redacted>
  /** All of them where none is named. */
  readonly severities: ReadonlyArray<AnomalyRule["severity"]>
}

export interface AnomalySettings {
  readonly rules: ReadonlyArray<AnomalyRule>
  readonly endpoints: ReadonlyArray<Endpoint>
  /** Milliseconds. */
  readonly giveUp: number
}

const EndpointSpec = Schema.Struct({
  name: Schema.String.check(
    Schema.isPattern(/^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/u, { message: "a name such as pager or on-call" })
  ),
  url: Schema.String.check(
    Schema.isMaxLength(2048),
    Schema.isPattern(
      /^(https:\/\/[^\s/?#@]+|http:\/\/(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]+)?)([/?][^\s#]*)?$/u,
      {
        message: "an https URL, or http on a loopback address"
      }
    )
  ),
  /** `whsec_…`; or in a file of its own. */
  secret: Schema.optionalKey(Schema.String.check(Schema.isMaxLength(200))),
  /** One secret a line, the one in force first. */
  secretFile: Schema.optionalKey(Schema.String.check(Schema.isMinLength(1))),
  severities: Schema.optionalKey(Schema.Array(Schema.Literals(severities)).check(Schema.isMinLength(1)))
})

const invalid = (variable: string, file: string, faults: ReadonlyArray<string>) =>
  new AnomalySettingsInvalid({ message: `${variable} (${file}): ${faults.join("; ")}` })

const readText = (variable: string, file: string) =>
  Effect.tryPromise({
    try: () => readFile(file, "utf8"),
    catch: (cause) => invalid(variable, file, [`it cannot be read (${(cause as Error).message})`])
  })

const readYaml = Effect.fnUntraced(function* (variable: string, file: string) {
  const text = yield* readText(variable, file)
  return yield* Effect.try({
    try: (): unknown => parse(text, { maxAliasCount: 100 }),
    catch: (cause) => invalid(variable, file, [(cause as Error).message.split("\n", 1)[0] ?? "not YAML"])
  })
})

const rulesVariable = "VELOCITY_ANOMALY_RULES"
const webhooksVariable = "VELOCITY_ANOMALY_WEBHOOKS"

/** The rules of a file over the built-in ones. */
export const readRules = Effect.fnUntraced(function* (file: string) {
  const decoded = decodeRules(yield* readYaml(rulesVariable, file))
  return "faults" in decoded ? yield* invalid(rulesVariable, file, decoded.faults) : decoded.rules
})

/** The endpoints of a file, with their secrets. Never quotes one. */
export const readEndpoints = Effect.fnUntraced(function* (file: string) {
  const value = yield* readYaml(webhooksVariable, file)
  if (!Array.isArray(value)) return yield* invalid(webhooksVariable, file, ["it must be a list of endpoints"])
  const endpoints: Array<Endpoint> = []
  const faults: Array<string> = []
  for (const [index, one] of value.entries()) {
    const decoded = decodeStrictly(EndpointSpec, one)
    const called = `endpoint ${(one as { readonly name?: string } | null)?.name ?? index + 1}`
    if ("faults" in decoded) {
      faults.push(...decoded.faults.map(({ detail, pointer }) => `${called}: ${`${pointer} ${detail}`.trim()}`))
      continue
    }
    const { name, secret, secretFile, url, ...rest } = decoded.value
    if ((secret === undefined) === (secretFile === undefined)) {
      faults.push(`${called}: exactly one of secret and secretFile`)
      continue
    }
    const text = secretFile === undefined ? (secret ?? "") : yield* readText(webhooksVariable, secretFile)
    const secrets = text.split(/\s+/u).filter((line) => line !== "")
    if (secrets.length === 0 || secrets.some((line) => secretKey(line) === undefined)) {
      faults.push(`${called}: a secret is whsec_ and 24 to 64 bytes in base64`)
    } else if (endpoints.some((other) => other.name === name)) faults.push(`${called}: /name is there twice`)
    else {
      endpoints.push({
        name,
        url,
        urlHash: sha256Hex(url),
        secrets: secrets.map((line) => Redacted.make(line)),
        severities: rest.severities ?? severities
      })
    }
  }
  return faults.length > 0 ? yield* invalid(webhooksVariable, file, faults) : endpoints
})

const files = Config.all({
  rules: Config.option(Config.String(rulesVariable)),
  webhooks: Config.option(Config.String(webhooksVariable)),
  giveUp: duration("VELOCITY_ANOMALY_GIVE_UP", 24 * 60 * 60_000)
})

/** See the module. */
export const anomalySettings: Effect.Effect<AnomalySettings, AnomalySettingsInvalid | Config.ConfigError> = Effect.gen(
  function* () {
    const { giveUp, rules, webhooks } = yield* files
    return {
      rules: Option.isSome(rules) ? yield* readRules(rules.value) : builtinRules,
      endpoints: Option.isSome(webhooks) ? yield* readEndpoints(webhooks.value) : [],
      giveUp
    }
  }
)
