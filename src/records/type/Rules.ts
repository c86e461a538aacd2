/**
 * The rules of a definition: CEL expressions over the row as it will be (`self`), as it was (`old`, without fields on
 * create), the time (`now`) and who asks (`actor`), each of which must hold.
 *
 * A field that is unset or null is absent, so `has(self.f)` tells. Values are CEL's own, but for numbers: integer is int,
 * number is a decimal string with `dec.lt(a, b)`, `lte`, `gt`, `gte`, `eq`, `neq`, `add`, `sub`, `mul`, and never a double;
 * timestamp is CEL's timestamp; date, time, uuid, ref and enum are strings; bytes are bytes; in json a whole number is int
 * and any other a decimal string. Rules see hidden fields, so a rule's message must not quote values.
 *
 * A rule that errs refuses the write (422 `rule_error`). Its cost is bounded when it is compiled (`RuleCost`).
 */
import { type CelInput, CelScalar, celEnv, celFunc, isCelError, parse, plan } from "@bufbuild/cel"
import { isReflectMessage } from "@bufbuild/protobuf/reflect"
import { type Timestamp, TimestampSchema, timestampFromMs } from "@bufbuild/protobuf/wkt"
import { compareDecimals, decimalText, ExactNumber, type ExactValue } from "../../domain/ExactJson.ts"
import { type Fault, fault } from "../../domain/Fault.ts"
import type { Field } from "../../domain/Field.ts"
import { own } from "../../domain/Own.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import { fieldCheck } from "./FieldCheck.ts"
import type { Values } from "./InputDecoder.ts"
import { costLimit, type Expr, factsOf, largestJson, longestText } from "./RuleCost.ts"

/** The rules of one definition, compiled. */
export interface Rules {
  /** Without rules nothing need be read before a write. */
  readonly any: boolean
  /**
   * Judges a row; undefined when every rule holds.
   *
   * @param now milliseconds since 1970
   * @param at where the row stands in the request, for pointers
   */
  readonly judge: (facts: RuleInput) => Problem | undefined
}

/** What rules are told. */
export interface RuleInput {
  readonly self: Values
  readonly old: Values | undefined
  readonly now: number
  readonly actor: string
  readonly at?: ReadonlyArray<PropertyKey>
}

interface Compiled {
  readonly message: string
  readonly evaluate: (bindings: Record<string, CelInput>) => unknown
  readonly self: ReadonlySet<string> | undefined
  readonly old: ReadonlySet<string> | undefined
}

const decimalPattern = /^-?[0-9]{1,1000}(\.[0-9]{1,1000})?$/u

/** A decimal string that can be computed with. Throws, which makes the rule err. */
const decimal = (text: string): string => {
  if (!decimalPattern.test(text)) throw new Error("not a decimal number")
  return text
}

const parts = (text: string): { readonly digits: bigint; readonly scale: number } => {
  const [whole = "", fraction = ""] = decimal(text).split(".")
  return { digits: BigInt(whole + fraction), scale: fraction.length }
}

const decimalOfParts = (digits: bigint, scale: number): string => {
  const sign = digits < 0n ? "-" : ""
  const text = (digits < 0n ? -digits : digits).toString().padStart(scale + 1, "0")
  return scale === 0 ? sign + text : `${sign}${text.slice(0, -scale)}.${text.slice(-scale)}`
}

const sum = (a: string, b: string, factor: bigint): string => {
  const [left, right] = [parts(a), parts(b)]
  const scale = Math.max(left.scale, right.scale)
  return decimalOfParts(
    left.digits * 10n ** BigInt(scale - left.scale) + factor * right.digits * 10n ** BigInt(scale - right.scale),
    scale
  )
}

const product = (a: string, b: string): string => {
  const [left, right] = [parts(a), parts(b)]
  return decimalOfParts(left.digits * right.digits, left.scale + right.scale)
}

const { BOOL, STRING } = CelScalar
const compare = (name: string, holds: (order: number) => boolean) =>
  celFunc(`dec.${name}`, [STRING, STRING], BOOL, (a, b) => holds(compareDecimals(decimal(a), decimal(b))))

const env = celEnv({
  funcs: [
    compare("lt", (order) => order < 0),
    compare("lte", (order) => order <= 0),
    compare("gt", (order) => order > 0),
    compare("gte", (order) => order >= 0),
    compare("eq", (order) => order === 0),
    compare("neq", (order) => order !== 0),
    celFunc("dec.add", [STRING, STRING], STRING, (a, b) => sum(a, b, 1n)),
    celFunc("dec.sub", [STRING, STRING], STRING, (a, b) => sum(a, b, -1n)),
    celFunc("dec.mul", [STRING, STRING], STRING, product)
  ]
})

const fieldsOf = (spec: SchemaDefinitionSpec): ReadonlyMap<string, Field> =>
  new Map(spec.fields.map((field) => [field.name, field]))

const parsed = (rule: string): { readonly expr: Expr } | { readonly error: string } => {
  try {
    return { expr: parse(rule).expr }
  } catch (cause) {
    return { error: cause instanceof Error ? cause.message : String(cause) }
  }
}

/**
 * Every rule of a definition that does not parse, names something that does not exist, or could cost too much. For
 * whoever admits definitions; `compileRules` takes those that pass.
 */
export const ruleFaults = (spec: SchemaDefinitionSpec): ReadonlyArray<Fault> => {
  const fields = fieldsOf(spec)
  return (spec.validation?.rules ?? []).flatMap(({ rule }, index) => {
    const at = ["validation", "rules", index, "rule"]
    const outcome = parsed(rule)
    if ("error" in outcome) return [fault(at, "rule", `does not parse: ${outcome.error}`)]
    const facts = factsOf(outcome.expr, fields)
    const unknown = [...new Set(facts.unknown)].map((words) => fault(at, "rule", words))
    return facts.cost <= costLimit
      ? unknown
      : [...unknown, fault(at, "rule_cost", `could cost ${facts.cost} steps; at most ${costLimit} are allowed`)]
  })
}

/** The same of what a field's `backfill` says. */
export const backfillFaults = (spec: SchemaDefinitionSpec): ReadonlyArray<Fault> => {
  const fields = fieldsOf(spec)
  return spec.fields.flatMap(({ backfill }, index) => {
    if (backfill === undefined) return []
    const at = ["fields", index, "backfill"]
    const outcome = parsed(backfill)
    if ("error" in outcome) return [fault(at, "backfill", `does not parse: ${outcome.error}`)]
    const facts = factsOf(outcome.expr, fields)
    return [
      ...[...new Set(facts.unknown)].map((words) => fault(at, "backfill", words)),
      ...(facts.old === undefined || facts.old.size > 0 ? [fault(at, "backfill", "there is no old record")] : []),
      ...(facts.cost > costLimit
        ? [fault(at, "backfill", `could cost ${facts.cost} steps; at most ${costLimit} are allowed`)]
        : [])
    ]
  })
}

/** What a field gets in a record that has no value for it, as JSON; or why it gets nothing. Never quotes a value. */
export type Backfill = (self: Values, now: number) => { readonly value: ExactValue } | { readonly error: string }

/** Compiles the `backfill` of a field of an admitted definition. */
export const compileBackfill = (spec: SchemaDefinitionSpec, name: string): Backfill => {
  const field = spec.fields.find((one) => one.name === name)
  const outcome = parsed(field?.backfill ?? "")
  if (field === undefined || "error" in outcome) return () => ({ error: "its backfill does not parse" })
  const { self } = factsOf(outcome.expr, fieldsOf(spec))
  const seen = spec.fields.filter((one) => self === undefined || self.has(one.name))
  const evaluate = plan(env, outcome.expr) as Compiled["evaluate"]
  const check = fieldCheck(field)
  return (row, now) => {
    try {
      const result = evaluate({
        self: rowOf(seen, row),
        old: new Map(),
        now: timestampFromMs(now),
        actor: "operator"
      })
      if (isCelError(result)) return { error: "it errs" }
      const value = exactOf(field, result)
      if (value === undefined) return { error: `it gives no ${field.type}` }
      const { faults, value: checked } = check(value, [name])
      return faults.length === 0 ? { value: checked } : { error: faults.map((one) => one.detail).join("; ") }
    } catch (cause) {
      return { error: cause instanceof TooLarge ? cause.message : "it errs" }
    }
  }
}

/** What CEL gave, as the JSON value of a field; undefined where it gave something else. */
const exactOf = (field: Field, result: unknown): ExactValue | undefined => {
  if (typeof result === "bigint") return new ExactNumber(result.toString())
  if (typeof result === "boolean") return result
  if (typeof result === "string") return field.type === "number" ? new ExactNumber(decimal(result)) : result
  if (result instanceof Uint8Array) return Buffer.from(result).toString("base64")
  if (field.type !== "timestamp" || !isReflectMessage(result, TimestampSchema)) return undefined
  const instant = result.message as Timestamp
  const whole = new Date(Number(instant.seconds) * 1000).toISOString().slice(0, 19)
  return `${whole}.${String(Math.floor(instant.nanos / 1000)).padStart(6, "0")}Z`
}

/** Compiles the rules of an admitted definition. A rule that was not admitted after all errs at every write. */
export const compileRules = (spec: SchemaDefinitionSpec): Rules => {
  const fields = fieldsOf(spec)
  const rules = (spec.validation?.rules ?? []).map(({ message, rule }): Compiled => {
    const outcome = parsed(rule)
    if ("error" in outcome) return { message, evaluate: () => undefined, self: new Set(), old: new Set() }
    const facts = factsOf(outcome.expr, fields)
    const evaluate = facts.cost <= costLimit ? (plan(env, outcome.expr) as Compiled["evaluate"]) : () => undefined
    return { message, evaluate, self: facts.self, old: facts.old }
  })
  const union = (sets: ReadonlyArray<ReadonlySet<string> | undefined>): ReadonlyArray<Field> =>
    [...fields.values()].filter((field) => sets.some((set) => set === undefined || set.has(field.name)))
  const selfFields = union(rules.map((rule) => rule.self))
  const oldFields = union(rules.map((rule) => rule.old))

  const judge: Rules["judge"] = ({ actor, at = [], now, old, self }) => {
    if (rules.length === 0) return undefined
    const broken: Array<Fault> = []
    const erred: Array<Fault> = []
    let bindings: Record<string, CelInput>
    try {
      bindings = {
        self: rowOf(selfFields, self),
        old: rowOf(oldFields, old ?? {}),
        now: timestampFromMs(now),
        actor
      }
    } catch (cause) {
      if (!(cause instanceof TooLarge)) throw cause
      return problem("rule_error", { errors: [fault([...at, cause.field], "rule_error", cause.message)] })
    }
    for (const rule of rules) {
      const result = evaluated(rule, bindings)
      if (result === false) broken.push(fault(at, "rule", rule.message))
      else if (result !== true) erred.push(fault(at, "rule_error", rule.message))
    }
    if (erred.length > 0) return problem("rule_error", { errors: [...broken, ...erred] })
    return broken.length > 0 ? problem("invalid", { errors: broken }) : undefined
  }
  return { any: rules.length > 0, judge }
}

const evaluated = (rule: Compiled, bindings: Record<string, CelInput>): unknown => {
  try {
    const result = rule.evaluate(bindings)
    return isCelError(result) ? undefined : result
  } catch {
    return undefined
  }
}

class TooLarge extends Error {
  readonly field: string
  constructor(field: string, message: string) {
    super(message)
    this.field = field
  }
}

const rowOf = (fields: ReadonlyArray<Field>, values: Values): ReadonlyMap<string, CelInput> => {
  const row = new Map<string, CelInput>()
  for (const field of fields) {
    const value = own(values, field.name)
    if (value !== undefined && value !== null) row.set(field.name, celOf(field, value))
  }
  return row
}

const celOf = (field: Field, value: ExactValue): CelInput => {
  if (value instanceof ExactNumber) {
    if (field.type === "json") return jsonOf(field.name, value, budget())
    const text = decimalText(value) ?? value.text
    return field.type === "integer" ? BigInt(text) : text
  }
  if (typeof value === "string" && field.type !== "json") {
    if (value.length > longestText) {
      throw new TooLarge(field.name, `rules see at most ${longestText} characters`)
    }
    if (field.type === "timestamp") return timestampOf(value)
    return field.type === "bytes" ? Buffer.from(value, "base64") : value
  }
  if (typeof value === "boolean" || typeof value === "string") return value
  return jsonOf(field.name, value, budget())
}

/** RFC 3339 with at most microseconds, which was checked, or Postgres's own form of it. */
const timestampOf = (text: string): Timestamp => {
  const fraction = /\.(\d{1,6})/u.exec(text)?.[1] ?? ""
  const millis = Date.parse(text.replace(/\.\d+/u, "").replace(" ", "T").toUpperCase())
  const timestamp = timestampFromMs(millis)
  timestamp.nanos = Number(fraction.padEnd(9, "0"))
  return timestamp
}

/** What is left of a json value's limits. */
interface Budget {
  members: number
  characters: number
}
const budget = (): Budget => ({ members: largestJson, characters: longestText })

const jsonOf = (field: string, value: ExactValue, left: Budget): CelInput => {
  if (--left.members < 0) throw new TooLarge(field, `rules see at most ${largestJson} members of a json value`)
  if (value === null || typeof value === "boolean") return value
  if (typeof value === "string") {
    left.characters -= value.length
    if (left.characters < 0) throw new TooLarge(field, `rules see at most ${longestText} characters`)
    return value
  }
  if (value instanceof ExactNumber) {
    const text = decimalText(value) ?? value.text
    return /^-?\d{1,18}$/u.test(text) ? BigInt(text) : text
  }
  if (Array.isArray(value)) return value.map((item: ExactValue) => jsonOf(field, item, left))
  return new Map(Object.entries(value).map(([key, item]) => [key, jsonOf(field, item as ExactValue, left)]))
}
