/**
 * A value of a query against its field's type: the text that Postgres is sent, or what is wrong with it. In a URL every
 * value is text; in a body numbers and booleans may be JSON's own. Nothing is coerced or rounded.
 */
import { isBase64, isDate, isTime, isTimestamp } from "../../domain/Admission.ts"
import {
  compareDecimals,
  decimalText,
  ExactNumber,
  type ExactValue,
  isExactObject,
  parse,
  scaleOf,
  stringify
} from "../../domain/ExactJson.ts"
import { isUuid } from "../../domain/Uuid.ts"
import type { FieldPlan } from "../type/FieldPlan.ts"

/** What a value came to. */
export type ReadValue = { readonly text: string } | { readonly wrong: string }

const int8 = { min: "-9223372036854775808", max: "9223372036854775807" } as const
/** Digits of the longest numeric that a column may hold, its point and exponent. */
const longestNumber = 2100

const wrong = (detail: string): ReadValue => ({ wrong: detail })
const fits = (text: string): ReadValue => ({ text })

/** Why Postgres cannot hold a text; undefined when it can. */
const unfit = (text: string): string | undefined =>
  text.includes("\u0000")
    ? "U+0000 cannot be in a text"
    : text.isWellFormed()
      ? undefined
      : "half of a surrogate pair is no character"

const numberText = (value: ExactValue): string | undefined => {
  const text = value instanceof ExactNumber ? value.text : typeof value === "string" ? value : undefined
  if (text === undefined || text.length > longestNumber || !/^-?[0-9]/u.test(text)) return undefined
  return decimalText(text)
}

const readNumber = (plan: FieldPlan, value: ExactValue): ReadValue => {
  const decimal = numberText(value)
  if (decimal === undefined) return wrong("a number")
  if (plan.type === "integer") {
    if (scaleOf(decimal) > 0) return wrong("an integer")
    const [whole = ""] = decimal.split(".")
    return compareDecimals(whole, int8.min) < 0 || compareDecimals(whole, int8.max) > 0
      ? wrong("a 64-bit integer")
      : fits(whole)
  }
  return plan.field.float === true && !Number.isFinite(Number(decimal))
    ? wrong("a number that a double can hold")
    : fits(decimal)
}

/** The first text in a json value that jsonb cannot hold. */
const unfitIn = (value: ExactValue): string | undefined => {
  if (typeof value === "string") return unfit(value)
  if (value instanceof ExactNumber) return numberText(value) === undefined ? "a number of fewer digits" : undefined
  if (Array.isArray(value)) return value.map(unfitIn).find((one) => one !== undefined)
  if (isExactObject(value)) {
    return Object.entries(value)
      .flatMap(([key, item]) => [unfit(key), unfitIn(item)])
      .find((one) => one !== undefined)
  }
  return undefined
}

const readJson = (value: ExactValue, inUrl: boolean): ReadValue => {
  let json = value
  if (inUrl) {
    try {
      json = parse(String(value))
    } catch {
      return wrong('a JSON value; a string is quoted: "a"')
    }
  }
  const bad = unfitIn(json)
  return bad === undefined ? fits(stringify(json)) : wrong(bad)
}

const timestampHint = (text: string): string =>
  / \d\d:\d\d$/u.test(text)
    ? "a time with offset; the + of its offset is %2B in a URL"
    : "a time with offset such as 2026-11-24T13:30:00Z, with six decimals at most"

/** Reads one value; `inUrl` when it came as text of a URL. */
export const readValue = (plan: FieldPlan, value: ExactValue, inUrl: boolean): ReadValue => {
  if (value === null) return wrong("a value; for null ask is_null")
  switch (plan.type) {
    case "json":
      return readJson(value, inUrl)
    case "integer":
    case "number":
      return readNumber(plan, value)
    case "boolean":
      return value === true || value === "true"
        ? fits("true")
        : value === false || value === "false"
          ? fits("false")
          : wrong("true or false")
  }
  if (typeof value !== "string") return wrong("a string")
  const texted = (holds: boolean, wanted: string): ReadValue => (holds ? fits(value) : wrong(wanted))
  switch (plan.type) {
    case "string": {
      const bad = unfit(value)
      return bad === undefined ? fits(value) : wrong(bad)
    }
    case "enum":
      return texted((plan.field.enum ?? []).includes(value), `one of ${(plan.field.enum ?? []).join(", ")}`)
    case "date":
      return texted(isDate(value), "a date such as 2026-11-24")
    case "time":
      return texted(isTime(value), "a time such as 13:30:00")
    case "timestamp":
      return texted(isTimestamp(value), timestampHint(value))
    case "uuid":
    case "ref":
      return texted(isUuid(value), "a UUID in lower case")
    case "bytes":
      return texted(isBase64(value), "canonical base64 with padding")
  }
}

/**
 * The pattern of LIKE for a pattern whose wildcard is `*` and whose escape is `\`; undefined when it ends in an escape.
 * What LIKE takes for its own (`%`, `_`, `\`) is escaped.
 */
export const likePattern = (pattern: string): string | undefined => {
  let like = ""
  for (let index = 0; index < pattern.length; index++) {
    let character = pattern.charAt(index)
    if (character === "*") {
      like += "%"
      continue
    }
    if (character === "\\") {
      index += 1
      if (index === pattern.length) return undefined
      character = pattern.charAt(index)
    }
    like += character === "%" || character === "_" || character === "\\" ? `\\${character}` : character
  }
  return like
}
