/**
 * How long a version of an object is for: in use, deprecated (RFC 9745: it works, and clients are to move on), or with an
 * end that is announced (RFC 8594), after which it is answered 410.
 *
 * Times are UTC in whole seconds, so that they can be compared as texts, in CEL too, and said in HTTP dates.
 */
import { Effect, Schema } from "effect"
import type { CelRule } from "./CelRule.ts"
import { type Fault, fault } from "./Fault.ts"
import { Version } from "./Field.ts"

const Moment = Schema.String.check(
  Schema.isMaxLength(20),
  Schema.isPattern(/^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$/u, {
    message: "a time in UTC such as 2027-01-31T12:00:00Z"
  })
)

const lifecycleRules: ReadonlyArray<CelRule> = [
  {
    rule: "has(self.deprecatedAt) == (self.stage in ['deprecated', 'sunset'])",
    message: "deprecatedAt is said where stage is deprecated or sunset, and only there",
    fieldPath: ".deprecatedAt"
  },
  {
    rule: "has(self.sunsetAt) == (self.stage == 'sunset')",
    message: "sunsetAt is said where stage is sunset, and only there",
    fieldPath: ".sunsetAt"
  },
  {
    rule: "!has(self.deprecatedAt) || !has(self.sunsetAt) || self.deprecatedAt <= self.sunsetAt",
    message: "sunsetAt is before deprecatedAt",
    fieldPath: ".sunsetAt"
  },
  {
    rule: "!has(self.successor) || self.stage != 'active'",
    message: "a version that is in use has no successor",
    fieldPath: ".successor"
  }
]

export const Lifecycle = Schema.Struct({
  stage: Schema.Literals(["active", "deprecated", "sunset"])
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed("active" as const)))
    .annotateKey({
      description:
        "active: in use; deprecated: clients are to move on; sunset: it ends at sunsetAt, and is 410 from then"
    }),
  deprecatedAt: Schema.optionalKey(Moment).annotateKey({
    description:
      "Since when, or from when, it is deprecated (header Deprecation); a time in UTC such as 2027-01-31T12:00:00Z"
  }),
  sunsetAt: Schema.optionalKey(Moment).annotateKey({
    description: "When it ends (header Sunset); a time in UTC such as 2027-01-31T12:00:00Z"
  }),
  successor: Schema.optionalKey(Version).annotateKey({
    description: "The version that clients are to move to; without it the newest later one that is served"
  })
}).annotate({ celRules: lifecycleRules })
export type Lifecycle = typeof Lifecycle.Type

/** Whether there is such a time. */
const exists = (moment: string): boolean => {
  const time = Date.parse(moment)
  // Date.parse takes the 31st of every month for one
  return !Number.isNaN(time) && new Date(time).toISOString() === moment.replace("Z", ".000Z")
}

/** What a lifecycle has against itself, by pointer. */
export const lifecycleFaults = (
  lifecycle: Lifecycle,
  version: string,
  at: ReadonlyArray<PropertyKey>
): ReadonlyArray<Fault> => {
  const { deprecatedAt, stage, successor, sunsetAt } = lifecycle
  const wrong = (key: string, detail: string) => fault([...at, key], "lifecycle", detail)
  const ends = stage === "sunset"
  return [
    ...((deprecatedAt !== undefined) === (stage !== "active")
      ? []
      : [wrong("deprecatedAt", "deprecatedAt is said where stage is deprecated or sunset, and only there")]),
    ...((sunsetAt !== undefined) === ends
      ? []
      : [wrong("sunsetAt", "sunsetAt is said where stage is sunset, and only there")]),
    ...(deprecatedAt !== undefined && !exists(deprecatedAt) ? [wrong("deprecatedAt", "there is no such time")] : []),
    ...(sunsetAt !== undefined && !exists(sunsetAt) ? [wrong("sunsetAt", "there is no such time")] : []),
    ...(deprecatedAt !== undefined && sunsetAt !== undefined && sunsetAt < deprecatedAt
      ? [wrong("sunsetAt", "sunsetAt is before deprecatedAt")]
      : []),
    ...(successor !== undefined && stage === "active"
      ? [wrong("successor", "a version that is in use has no successor")]
      : []),
    ...(successor === version ? [wrong("successor", "a version does not succeed itself")] : [])
  ]
}

/** A lifecycle for people; nothing of a version that is in use. */
export const lifecycleText = ({ deprecatedAt, stage, successor, sunsetAt }: Lifecycle): string => {
  if (stage === "active") return ""
  const end = sunsetAt === undefined ? "" : `, 410 from ${sunsetAt}`
  return `deprecated at ${deprecatedAt}${end}${successor === undefined ? "" : `, succeeded by ${successor}`}`
}
