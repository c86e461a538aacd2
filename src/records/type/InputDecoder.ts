/**
 * From a body's JSON to what a write is given: compiled once per definition, tells every fault at once.
 *
 * A field that the caller may not write is refused where it is named (403), whatever its value. Defaults hold where a
 * field is absent; an explicit null stays null. System columns are let through apart, for whoever holds the row to compare:
 * equal is accepted, else it is 422.
 */
import * as Result from "effect/Result"
import { mayWrite, readsClearly } from "../../domain/Access.ts"
import { isTimestamp } from "../../domain/Admission.ts"
import { type ExactObject, type ExactValue, isExactObject, stringify } from "../../domain/ExactJson.ts"
import { boundedFaults, type Fault, fault } from "../../domain/Fault.ts"
import { type Field, type SystemColumn, systemColumns } from "../../domain/Field.ts"
import { own } from "../../domain/Own.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { SchemaDefinitionSpec } from "../../domain/SchemaDefinition.ts"
import { defaultOf, type FieldCheck, fieldCheck } from "./FieldCheck.ts"

/** Fields by name; null stands for SQL's NULL. */
export type Values = Readonly<Record<string, ExactValue>>

/** What a body says. */
export interface Decoded {
  /** The fields to set. For create: all that have a value; for put: all that it replaces; for patch: those it names. */
  readonly values: Values
  /** System columns that it names, of the right type, to be compared with the row's. */
  readonly system: Values
}

/** How a body is meant. */
export type Mode = "create" | "put" | "patch"

interface Plan {
  readonly field: Field
  readonly check: FieldCheck
  readonly fallback: ExactValue | undefined
}

/** Decodes bodies of one definition. */
export interface InputDecoder {
  /** @param at where the body stands in the request, for pointers: its index in bulk */
  readonly decode: (
    body: ExactValue,
    mode: Mode,
    roles: ReadonlyArray<string>,
    at?: ReadonlyArray<PropertyKey>
  ) => Result.Result<Decoded, Problem>
  /** Checks whole fields of a row that is put together from it and a patch, named ones only. */
  readonly recheck: (values: Values, names: Iterable<string>) => Result.Result<Values, Problem>
}

const system: ReadonlySet<string> = new Set<string>(systemColumns)
const isSystemColumn = (name: string): name is SystemColumn => system.has(name)

/** Whether a system column's value could be a row's at all. */
const systemFits = (name: SystemColumn, value: ExactValue): boolean => {
  switch (name) {
    case "version":
      return typeof value === "object" && value !== null && /^[0-9]{1,10}$/u.test(String(value))
    case "created_at":
    case "updated_at":
      return typeof value === "string" && isTimestamp(value)
    case "deleted_at":
      return value === null || (typeof value === "string" && isTimestamp(value))
    default:
      return typeof value === "string"
  }
}

export const readOnlyFault = (name: string, at: ReadonlyArray<PropertyKey> = []): Fault =>
  fault([...at, name], "read_only", "set by the server; leave it out or send it as it is")

/** The problem of these faults: a refusal of fields wins over values that are wrong. */
export const faultsProblem = (faults: ReadonlyArray<Fault>): Problem => {
  const told = boundedFaults(faults)
  const has = (code: string) => faults.some((one) => one.code === code)
  if (has("field_not_writable")) return problem("field_not_writable", told)
  if (has("field_not_readable")) return problem("field_not_readable", told)
  return problem("invalid", told)
}

/** Compiles a definition's decoder. */
export const compileDecoder = (spec: SchemaDefinitionSpec): InputDecoder => {
  const plans = new Map<string, Plan>(
    spec.fields.map((field) => [field.name, { field, check: fieldCheck(field), fallback: defaultOf(field) }])
  )

  const decode: InputDecoder["decode"] = (body, mode, roles, at = []) => {
    if (!isExactObject(body)) {
      return Result.fail(problem("invalid", { errors: [fault(at, "type", "a record is a JSON object")] }))
    }
    const faults: Array<Fault> = []
    const values: Record<string, ExactValue> = {}
    const named: Record<string, ExactValue> = {}
    for (const name of Object.keys(body)) {
      const value = body[name] as ExactValue
      const plan = plans.get(name)
      if (plan === undefined) {
        if (isSystemColumn(name)) {
          if (!systemFits(name, value)) faults.push(fault([...at, name], "type", "not what the server would say here"))
          else if (mode !== "create") named[name] = value
          else if (name !== "deleted_at" || value !== null) faults.push(readOnlyFault(name, at))
        } else if (name !== "_masked" || mode === "create") {
          // what a GET answered may be edited and sent back, with the list of what it did not show
          faults.push(fault([...at, name], "unknown_field", "there is no such field"))
        }
        continue
      }
      const place = [...at, name]
      if (!mayWrite(plan.field, roles)) {
        faults.push(fault(place, "field_not_writable", "you may not write this field"))
        continue
      }
      if (mode === "put" && !readsClearly(plan.field, roles)) {
        faults.push(fault(place, "field_not_readable", "you cannot read this field, so a PUT leaves it as it is"))
        continue
      }
      if (value === null) {
        if (plan.field.required) faults.push(fault(place, "required", "must not be null"))
        values[name] = null
        continue
      }
      const checked = plan.check(value, place)
      if (checked.faults.length > 0) faults.push(...checked.faults)
      else values[name] = checked.value
    }
    if (mode !== "patch") {
      for (const [name, plan] of plans) {
        if (Object.hasOwn(body, name)) continue
        if (mode === "put" && !(mayWrite(plan.field, roles) && readsClearly(plan.field, roles))) continue
        if (plan.fallback !== undefined) values[name] = plan.fallback
        else if (plan.field.required) faults.push(fault([...at, name], "required", "is required"))
        else if (mode === "put") values[name] = null
      }
    }
    return faults.length === 0 ? Result.succeed({ values, system: named }) : Result.fail(faultsProblem(faults))
  }

  const recheck: InputDecoder["recheck"] = (values, names) => {
    const faults: Array<Fault> = []
    const checked: Record<string, ExactValue> = {}
    for (const name of names) {
      const plan = plans.get(name)
      const value = own(values, name) ?? null
      if (plan === undefined) {
        faults.push(fault([name], "unknown_field", "there is no such field"))
      } else if (value === null) {
        if (plan.field.required) faults.push(fault([name], "required", "must not be null"))
        checked[name] = null
      } else {
        const outcome = plan.check(value, [name])
        faults.push(...outcome.faults)
        checked[name] = outcome.value
      }
    }
    return faults.length === 0 ? Result.succeed(checked) : Result.fail(faultsProblem(faults))
  }

  return { decode, recheck }
}

/** The values as one JSON text, which Postgres takes apart by the columns' types. */
export const documentOf = (values: Values): string => stringify(values as ExactObject)
