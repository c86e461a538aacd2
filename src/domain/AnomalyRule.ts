/**
 * What the anomaly scanner looks for, as values: which entries of the audit log a rule counts, for whom, over which window,
 * and how many are too many. The rules that come with Velocity are below; a file of rules replaces or adds by name.
 *
 * Windows are sums of whole minutes by an entry's own time: a window of five minutes that ends in minute m is m and the
 * four before it, whenever it is looked at. So a rule finds the same in a log however often, and when, it is read.
 */
import { Effect, Schema } from "effect"
import { type Fault, fault } from "./Fault.ts"
import { decodeStrictly } from "./Resource.ts"
import { sha256Hex } from "./Sha256.ts"
import { idleSpans, isWorking, type WorkingHours } from "./WorkingHours.ts"

export const minuteMillis = 60_000
export const hourMillis = 60 * minuteMillis

export const severities = ["info", "warning", "critical"] as const
export type Severity = (typeof severities)[number]

const text = (maximum: number) => Schema.String.check(Schema.isMinLength(1), Schema.isMaxLength(maximum))
const listOf = <S extends Schema.ConstraintDecoder<string>>(item: S) =>
  Schema.Array(item).check(Schema.isMinLength(1), Schema.isMaxLength(64))

const millisOf = (window: string): number =>
  Number.parseInt(window, 10) * (window.endsWith("h") ? hourMillis : minuteMillis)

/** `5m` to `24h`, in whole minutes or hours. */
const Window = Schema.String.check(
  Schema.makeFilter((window) => {
    const millis = /^[1-9][0-9]{0,3}[mh]$/u.test(window) ? millisOf(window) : 0
    return (millis >= minuteMillis && millis <= 24 * hourMillis) || "must be 1m to 24h, such as 5m or 2h"
  })
)

/** Which entries count; what is left out narrows nothing. Actions, chains and actors may end in `*`. */
const Match = Schema.Struct({
  actions: Schema.optionalKey(listOf(text(64))),
  outcomes: Schema.optionalKey(listOf(Schema.Literals(["ok", "denied", "failed", "dry_run", "unknown"]))),
  chains: Schema.optionalKey(listOf(text(200))),
  actors: Schema.optionalKey(listOf(text(512))),
  exceptActors: Schema.optionalKey(listOf(text(512)))
})

export const AnomalyRule = Schema.Struct({
  name: Schema.String.check(
    Schema.isPattern(/^[a-z][a-z0-9_]{0,62}$/u, { message: "a-z, 0-9 and _, at most 63, beginning with a letter" })
  ),
  title: text(200),
  severity: Schema.Literals(severities),
  /** What is counted: entries of the log, or those that its verification finds wrong. */
  source: Schema.Literals(["entries", "verification"]).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("entries" as const))
  ),
  match: Match.pipe(Schema.withDecodingDefaultKey(Effect.succeed({}))),
  /** For whom it is counted. `address` is known of what was refused. */
  groupBy: Schema.Array(Schema.Literals(["chain", "actor", "address"]))
    .check(Schema.isMinLength(1), Schema.isUnique())
    .pipe(Schema.withDecodingDefaultKey(Effect.succeed(["chain", "actor"] as const))),
  window: Window.pipe(Schema.withDecodingDefaultKey(Effect.succeed("1h"))),
  /** An alert from so many on. */
  threshold: Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 1_000_000_000 })),
  /** Entries, or the records that they are of: a page that was read, an import, are one entry of many. */
  count: Schema.Literals(["entries", "records"]).pipe(
    Schema.withDecodingDefaultKey(Effect.succeed("entries" as const))
  ),
  /** Only what was done outside the organisation's working hours; silent where it tells none. */
  hours: Schema.optionalKey(Schema.Literals(["outside_working_hours"])),
  enabled: Schema.Boolean.pipe(Schema.withDecodingDefaultKey(Effect.succeed(true)))
})
export type AnomalyRule = typeof AnomalyRule.Type

/** What entries of one minute add up to, by all that a rule may ask about. */
export interface Fact {
  readonly chain: string
  readonly actor: string
  /** '' where the entry tells none. */
  readonly address: string
  readonly action: string
  readonly outcome: string
  /** The minute's beginning, in milliseconds since 1970. */
  readonly minute: number
  readonly entries: number
  readonly records: number
}

/** Reads a fact from a row of `platform.anomaly_read` or of the log, added up in the same way. */
export const factOf = (row: Readonly<Record<string, unknown>>): Fact => ({
  chain: String(row.chain),
  actor: String(row.actor),
  address: String(row.address),
  action: String(row.action),
  outcome: String(row.outcome),
  minute: (row.minute as Date).getTime(),
  entries: Number(row.entries),
  records: Number(row.records)
})

/** For whom a rule counted; '' where it does not group by that. */
export interface Group {
  readonly chain: string
  readonly actor: string
  readonly address: string
}

/** A window that holds too many, by its last minute. */
export interface Crossing extends Group {
  readonly minute: number
  readonly total: number
}

/** What the scanner writes of its own alerts; no rule counts it, or an alert would lead to the next. */
export const alertAction = "operator.anomaly"
/** The chain of what belongs to no domain. */
const platformChain = "platform"

export const windowMillis = (rule: Pick<AnomalyRule, "window">): number => millisOf(rule.window)

/** What a window's counts are kept under: a rule that was changed begins anew. */
export const ruleKey = (rule: AnomalyRule): string => `${rule.name}@${sha256Hex(JSON.stringify(rule)).slice(0, 16)}`

const fits = (pattern: string, value: string): boolean =>
  pattern.endsWith("*") ? value.startsWith(pattern.slice(0, -1)) : value === pattern

/** The same pattern as LIKE has it. */
const likeOf = (pattern: string): string => {
  const text = pattern.endsWith("*") ? pattern.slice(0, -1) : pattern
  return `${text.replace(/[\\%_]/gu, "\\$&")}${text === pattern ? "" : "%"}`
}

const among = (patterns: ReadonlyArray<string> | undefined, value: string): boolean =>
  patterns === undefined || patterns.some((pattern) => fits(pattern, value))

/** Working hours, by organisation. */
export type Hours = ReadonlyMap<string, WorkingHours>

const orgOf = (chain: string): string => chain.split("/", 1)[0] ?? ""

/** Whether a rule counts an entry. */
export const matches = (
  { hours, match, source }: AnomalyRule,
  entry: Pick<Fact, "action" | "actor" | "chain" | "minute" | "outcome">,
  working: Hours
): boolean => {
  if (source !== "entries" || entry.action === alertAction) return false
  if (!among(match.actions, entry.action) || !among(match.outcomes, entry.outcome)) return false
  if (!among(match.chains, entry.chain) || !among(match.actors, entry.actor)) return false
  if (match.exceptActors?.some((pattern) => fits(pattern, entry.actor)) === true) return false
  if (hours === undefined) return true
  const told = working.get(orgOf(entry.chain))
  return told !== undefined && !isWorking(told, entry.minute)
}

/**
 * What `matches` judges of the entries in a window, as `platform.anomaly_entries` is asked for them; of a crossing's group
 * only what the rule groups by.
 */
export const matchOf = (
  { groupBy, hours, match }: AnomalyRule,
  { actor, address, chain }: Group,
  { from, to }: { readonly from: number; readonly to: number },
  working: Hours
): Readonly<Record<string, unknown>> => {
  const { actions, actors, chains, exceptActors, outcomes } = match
  const org = chain === "" ? undefined : orgOf(chain)
  return {
    ...(groupBy.includes("chain") ? { chain } : {}),
    ...(groupBy.includes("actor") ? { actor } : {}),
    ...(groupBy.includes("address") ? { address } : {}),
    ...(actions === undefined ? {} : { actions: actions.map(likeOf) }),
    ...(outcomes === undefined ? {} : { outcomes }),
    ...(chains === undefined ? {} : { chains: chains.map(likeOf) }),
    ...(actors === undefined ? {} : { actors: actors.map(likeOf) }),
    ...(exceptActors === undefined ? {} : { exceptActors: exceptActors.map(likeOf) }),
    ...(hours === undefined
      ? {}
      : {
          spans: [...working]
            .filter(([told]) => org === undefined || told === org)
            .flatMap(([told, one]) =>
              idleSpans(one, from, to).map((span) => ({
                org: told,
                from: new Date(span.from).toISOString(),
                to: new Date(span.to).toISOString()
              }))
            )
        })
  }
}

/** For whom a rule counts a fact. */
export const groupOf = ({ groupBy }: AnomalyRule, fact: Group): Group => ({
  chain: groupBy.includes("chain") ? fact.chain : "",
  actor: groupBy.includes("actor") ? fact.actor : "",
  address: groupBy.includes("address") ? fact.address : ""
})

export const amountOf = ({ count }: AnomalyRule, fact: Fact): number =>
  count === "records" ? fact.records : fact.entries

/** The chain that an alert is of. */
export const chainOfGroup = ({ chain }: Group): string => (chain === "" ? platformChain : chain)

const written = ["create", "update", "delete", "restore", "revert"]

const builtin: ReadonlyArray<typeof AnomalyRule.Encoded> = [
  {
    name: "bulk_reader",
    title: "One actor reads very many records",
    severity: "warning",
    match: { actions: ["read"], outcomes: ["ok"] },
    window: "10m",
    threshold: 10_000,
    count: "records"
  },
  {
    name: "after_hours",
    title: "Records are read or changed outside working hours",
    severity: "info",
    match: { actions: ["read", ...written, "erase"], outcomes: ["ok"] },
    window: "1h",
    threshold: 1,
    hours: "outside_working_hours"
  },
  {
    name: "repeated_denials",
    title: "Somebody is refused again and again",
    severity: "warning",
    match: { outcomes: ["denied"] },
    groupBy: ["chain", "actor", "address"],
    window: "5m",
    // an actor leaves 30 refusals a minute in the log, whatever he tries (records/write/Denials)
    threshold: 20
  },
  {
    name: "chain_broken",
    title: "Entries of the audit log are not as they were written",
    severity: "critical",
    source: "verification",
    groupBy: ["chain"],
    threshold: 1
  },
  {
    name: "write_rate",
    title: "One actor changes very many records",
    severity: "warning",
    match: { actions: written, outcomes: ["ok"] },
    window: "10m",
    threshold: 100_000,
    count: "records"
  },
  {
    name: "delete_rate",
    title: "One actor deletes many records",
    severity: "warning",
    match: { actions: ["delete", "erase"], outcomes: ["ok"] },
    window: "10m",
    threshold: 500,
    count: "records"
  }
]

const decoded = (value: unknown, path: ReadonlyArray<PropertyKey>) => {
  const rule = decodeStrictly(AnomalyRule, value, path)
  if ("faults" in rule || rule.value.source === "entries") return rule
  const odd = (["hours"] as const).filter((key) => rule.value[key] !== undefined)
  const grouped = rule.value.groupBy.some((key) => key !== "chain")
  const faults = [
    ...odd.map((key) => fault([...path, key], "invalid", "is not for a rule over the verification")),
    ...(Object.keys(rule.value.match).length > 0
      ? [fault([...path, "match"], "invalid", "is not for a rule over the verification")]
      : []),
    ...(grouped ? [fault([...path, "groupBy"], "invalid", "is chain alone for a rule over the verification")] : [])
  ]
  return faults.length === 0 ? rule : { faults }
}

/** The rules that hold where no file says otherwise. */
export const builtinRules: ReadonlyArray<AnomalyRule> = builtin.map((value) => {
  const rule = decoded(value, [])
  if ("faults" in rule) throw new Error(`built-in rule ${value.name}: ${JSON.stringify(rule.faults)}`)
  return rule.value
})

const isRecord = (value: unknown): value is Record<string, unknown> =>
  typeof value === "object" && value !== null && !Array.isArray(value)

/**
 * One rule as somebody writes it. Under the name of a built-in one, it is that rule with what is written here changed;
 * any other must say what has no default: name, title, severity and threshold.
 */
export const decodeRule = (
  value: unknown,
  path: ReadonlyArray<PropertyKey> = []
): { readonly value: AnomalyRule } | { readonly faults: ReadonlyArray<Fault> } => {
  const base = isRecord(value) ? builtin.find(({ name }) => name === value.name) : undefined
  return decoded(base === undefined ? value : { ...base, ...(value as object) }, path)
}

/** A file of rules over the built-in ones. Faults say which rule, by name or by its place, and which field. */
export const decodeRules = (
  value: unknown
): { readonly rules: ReadonlyArray<AnomalyRule> } | { readonly faults: ReadonlyArray<string> } => {
  if (!Array.isArray(value)) return { faults: ["it must be a list of rules"] }
  const faults: Array<string> = []
  const rules = new Map(builtinRules.map((rule) => [rule.name, rule]))
  const seen = new Set<string>()
  for (const [index, one] of value.entries()) {
    const called = isRecord(one) && typeof one.name === "string" ? `rule ${one.name}` : `rule ${index + 1}`
    const rule = decodeRule(one)
    if ("faults" in rule) {
      faults.push(...rule.faults.map(({ detail, pointer }) => `${called}: ${`${pointer} ${detail}`.trim()}`))
    } else if (seen.has(rule.value.name)) faults.push(`${called}: /name is there twice`)
    else {
      seen.add(rule.value.name)
      rules.set(rule.value.name, rule.value)
    }
  }
  return faults.length > 0 ? { faults } : { rules: [...rules.values()] }
}
