/**
 * One value of a record's body against its field: the JSON value that Postgres is sent, or what is wrong with it. Part of
 * `InputDecoder`.
 *
 * Nothing is coerced and nothing is rounded. What passes here passes the column's type and its CHECKs too; those stay the
 * last line.
 */
import { isBase64, isDate, isTime, isTimestamp } from "../../domain/Admission.ts"
import {
  compareDecimals,
  decimalText,
  ExactNumber,
  type ExactValue,
  isExactObject,
  maxDepth,
  parse,
  scaleOf,
  wholeDigitsOf
} from "../../domain/ExactJson.ts"
import { type Fault, fault } from "../../domain/Fault.ts"
import { decimalOf, type Field } from "../../domain/Field.ts"
import { compilePattern } from "../../domain/Pattern.ts"
import { isUuid } from "../../domain/Uuid.ts"

/** The value as it is sent, or what is wrong with it. */
export class Checked {
  readonly value: ExactValue
  readonly faults: ReadonlyArray<Fault>
  constructor(value: ExactValue, faults: ReadonlyArray<Fault>) {
    this.value = value
    this.faults = faults
  }
}

const none: ReadonlyArray<Fault> = []
const ok = (value: ExactValue): Checked => new Checked(value, none)
const bad = (faults: ReadonlyArray<Fault>): Checked => new Checked(null, faults)

/** Judges a value that is not null; `at` is its place. */
export type FieldCheck = (value: ExactValue, at: ReadonlyArray<PropertyKey>) => Checked

const int8 = { min: "-9223372036854775808", max: "9223372036854775807" } as const
/** Digits of a number without declared precision: what a numeric(p) may have at most (PostgreSQL, 8.1.2). */
const maxDigits = 1000
/** Longer texts of numbers are refused before anything is computed with them. */
const longestNumber = 2100

const tooLong = (number: ExactNumber, at: ReadonlyArray<PropertyKey>): Fault | undefined =>
  number.text.length > longestNumber ? fault(at, "out_of_range", "a number of fewer digits") : undefined

const wrongType = (at: ReadonlyArray<PropertyKey>, wanted: string): Checked => bad([fault(at, "type", wanted)])

/** A text that Postgres can hold: without U+0000 and without half a surrogate pair. */
const textFault = (text: string, at: ReadonlyArray<PropertyKey>): Fault | undefined =>
  text.includes("\u0000")
    ? fault(at, "nul_character", "U+0000 cannot be stored")
    : text.isWellFormed()
      ? undefined
      : fault(at, "lone_surrogate", "half of a surrogate pair is no character")

/** Code points, not UTF-16 units. */
const lengthOf = (text: string): number => {
  let length = text.length
  for (let index = 0; index < text.length; index++) {
    const code = text.charCodeAt(index)
    if (code >= 0xd800 && code < 0xdc00) length--
  }
  return length
}

const lengthFaults = (
  field: Field,
  length: number,
  unit: string,
  at: ReadonlyArray<PropertyKey>
): ReadonlyArray<Fault> => {
  if (field.minLength !== undefined && length < field.minLength) {
    return [fault(at, "min_length", `at least ${field.minLength} ${unit}`)]
  }
  return field.maxLength !== undefined && length > field.maxLength
    ? [fault(at, "max_length", `at most ${field.maxLength} ${unit}`)]
    : none
}

const stringCheck = (field: Field): FieldCheck => {
  const matcher = field.pattern === undefined ? undefined : compilePattern(field.pattern)
  return (value, at) => {
    if (typeof value !== "string") return wrongType(at, "a string")
    const unfit = textFault(value, at)
    if (unfit !== undefined) return bad([unfit])
    const faults = lengthFaults(field, lengthOf(value), "characters", at)
    if (matcher === undefined || matcher.test(value)) return faults.length === 0 ? ok(value) : bad(faults)
    return bad([...faults, fault(at, "pattern", `must match ${field.pattern}`)])
  }
}

const enumCheck = (field: Field): FieldCheck => {
  const values = new Set(field.enum ?? [])
  const wanted = `one of ${[...values].join(", ")}`
  return (value, at) => {
    if (typeof value !== "string") return wrongType(at, wanted)
    return values.has(value) ? ok(value) : bad([fault(at, "enum", wanted)])
  }
}

const boundFaults = (field: Field, decimal: string, at: ReadonlyArray<PropertyKey>): ReadonlyArray<Fault> => {
  if (field.min !== undefined && compareDecimals(decimal, decimalOf(field.min)) < 0) {
    return [fault(at, "min", `at least ${decimalOf(field.min)}`)]
  }
  return field.max !== undefined && compareDecimals(decimal, decimalOf(field.max)) > 0
    ? [fault(at, "max", `at most ${decimalOf(field.max)}`)]
    : none
}

const integerCheck = (field: Field): FieldCheck => {
  return (value, at) => {
    if (!(value instanceof ExactNumber)) return wrongType(at, "an integer")
    const long = tooLong(value, at)
    if (long !== undefined) return bad([long])
    const decimal = decimalText(value)
    if (decimal === undefined || wholeDigitsOf(decimal) > 19)
      return bad([fault(at, "out_of_range", "a 64-bit integer")])
    if (scaleOf(decimal) > 0) return wrongType(at, "an integer")
    const [whole = ""] = decimal.split(".")
    if (compareDecimals(whole, int8.min) < 0 || compareDecimals(whole, int8.max) > 0) {
      return bad([fault(at, "out_of_range", "a 64-bit integer")])
    }
    const faults = boundFaults(field, whole, at)
    return faults.length > 0 ? bad(faults) : ok(whole === value.text ? value : new ExactNumber(whole))
  }
}

const numberCheck = (field: Field): FieldCheck => {
  const { precision } = field
  const scale = field.scale ?? 0
  return (value, at) => {
    if (!(value instanceof ExactNumber)) return wrongType(at, "a number")
    const long = tooLong(value, at)
    if (long !== undefined) return bad([long])
    const decimal = decimalText(value)
    if (decimal === undefined) return bad([fault(at, "out_of_range", "a number of fewer digits")])
    const faults: Array<Fault> = []
    if (precision === undefined) {
      if (wholeDigitsOf(decimal) + scaleOf(decimal) > maxDigits) {
        faults.push(fault(at, "precision", `at most ${maxDigits} digits`))
      }
    } else {
      if (scaleOf(decimal) > scale) faults.push(fault(at, "scale", `at most ${scale} digits after the point`))
      if (wholeDigitsOf(decimal) > precision - scale) {
        faults.push(fault(at, "precision", `at most ${precision - scale} digits before the point`))
      }
    }
    faults.push(...boundFaults(field, decimal, at))
    return faults.length > 0 ? bad(faults) : ok(decimal === value.text ? value : new ExactNumber(decimal))
  }
}

const floatCheck = (field: Field): FieldCheck => {
  return (value, at) => {
    if (!(value instanceof ExactNumber)) return wrongType(at, "a number")
    const long = tooLong(value, at)
    if (long !== undefined) return bad([long])
    const float = value.toNumber()
    if (!Number.isFinite(float) || (float === 0 && /[1-9]/u.test(value.text.split(/[eE]/u)[0] ?? ""))) {
      return bad([fault(at, "out_of_range", "a number that a double can hold")])
    }
    const decimal = decimalText(String(float)) ?? "0"
    const faults = boundFaults(field, decimal, at)
    return faults.length > 0 ? bad(faults) : ok(new ExactNumber(Object.is(float, -0) ? "-0" : String(float)))
  }
}

const textCheck =
  (wanted: string, fits: (text: string) => boolean): FieldCheck =>
  (value, at) =>
    typeof value === "string" && fits(value)
      ? ok(value)
      : typeof value === "string"
        ? bad([fault(at, "format", wanted)])
        : wrongType(at, wanted)

const bytesCheck = (field: Field): FieldCheck => {
  return (value, at) => {
    if (typeof value !== "string") return wrongType(at, "base64")
    if (!isBase64(value))
      return bad([fault(at, "format", "canonical base64 with padding (RFC 4648, sections 3.5 and 4)")])
    const padding = value.endsWith("==") ? 2 : value.endsWith("=") ? 1 : 0
    const faults = lengthFaults(field, (value.length / 4) * 3 - padding, "bytes", at)
    return faults.length === 0 ? ok(value) : bad(faults)
  }
}

/**
 * Digits that the numbers of one json value may have beyond those that were sent. An exponent says many with few, and jsonb
 * keeps and answers all of them.
 */
const maxExpansion = 64 * 1024

/** What was found in a json value so far. */
interface JsonFindings {
  readonly faults: Array<Fault>
  /** Digits beyond those that were sent. */
  expansion: number
}

/** Everything inside a json value that jsonb cannot hold, or that nests too deep: a patch can put one into another. */
const jsonFaults = (value: ExactValue, at: ReadonlyArray<PropertyKey>, found: JsonFindings, depth = 1): void => {
  const { faults } = found
  if (depth > maxDepth) {
    faults.push(fault(at, "depth", `nested deeper than ${maxDepth}`))
    return
  }
  if (typeof value === "string") {
    const unfit = textFault(value, at)
    if (unfit !== undefined) faults.push(unfit)
  } else if (value instanceof ExactNumber) {
    const decimal = tooLong(value, at) === undefined ? decimalText(value) : undefined
    const before = found.expansion
    found.expansion += Math.max(0, (decimal ?? "").length - value.text.length)
    if (before <= maxExpansion && found.expansion > maxExpansion) {
      faults.push(fault(at, "out_of_range", `up to here, exponents stand for more than ${maxExpansion} digits`))
    }
    if (decimal === undefined || wholeDigitsOf(decimal) + scaleOf(decimal) > maxDigits) {
      faults.push(fault(at, "out_of_range", "a number of fewer digits"))
    }
  } else if (Array.isArray(value)) {
    value.forEach((item, index) => {
      jsonFaults(item, [...at, index], found, depth + 1)
    })
  } else if (isExactObject(value)) {
    for (const [key, item] of Object.entries(value)) {
      if (textFault(key, at) !== undefined) faults.push(fault(at, "format", "a key that cannot be stored"))
      else jsonFaults(item, [...at, key], found, depth + 1)
    }
  }
}

const jsonCheck: FieldCheck = (value, at) => {
  const faults: Array<Fault> = []
  jsonFaults(value, at, { faults, expansion: 0 })
  return faults.length === 0 ? ok(value) : bad(faults)
}

/** The check of a field, compiled. */
export const fieldCheck = (field: Field): FieldCheck => {
  switch (field.type) {
    case "string":
      return stringCheck(field)
    case "enum":
      return enumCheck(field)
    case "integer":
      return integerCheck(field)
    case "number":
      return field.float === true ? floatCheck(field) : numberCheck(field)
    case "boolean":
      return (value, at) => (typeof value === "boolean" ? ok(value) : wrongType(at, "true or false"))
    case "date":
      return textCheck("a date such as 2026-11-24", isDate)
    case "time":
      return textCheck("a time such as 13:30:00", isTime)
    case "timestamp":
      return textCheck("a time with offset such as 2026-11-24T13:30:00Z, with six decimals at most", isTimestamp)
    case "uuid":
      return textCheck("a UUID in lower case", isUuid)
    case "ref":
      return textCheck("the id of a record, a UUID in lower case", isUuid)
    case "json":
      return jsonCheck
    case "bytes":
      return bytesCheck(field)
  }
}

/** A definition's default as the value of a body; undefined where there is none. */
export const defaultOf = (field: Field): ExactValue | undefined => {
  if (field.default === undefined) return undefined
  const text = String(field.default)
  switch (field.type) {
    case "integer":
    case "number":
      return new ExactNumber(text)
    case "boolean":
      return text === "true"
    case "json":
      return parse(text)
    default:
      return text
  }
}
