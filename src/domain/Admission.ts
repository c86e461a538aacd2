/**
 * What one definition can be told is wrong with it before anything is touched: rules across its own keys. The CRD's CEL
 * rules say the same where CEL can; this is the one that decides.
 */

import { compareDecimals, scaleOf, wholeDigitsOf } from "./ExactJson.ts"
import { type Fault, fault } from "./Fault.ts"
import { decimalOf, decimalPattern, type Field, type FieldType, systemColumns } from "./Field.ts"
import { lifecycleFaults } from "./Lifecycle.ts"
import { recordNameFaults } from "./Names.ts"
import { compilePattern, patternFault } from "./Pattern.ts"
import { pathOfDefinition, type RowCondition, type SchemaDefinitionSpec } from "./SchemaDefinition.ts"
import { isUuid } from "./Uuid.ts"

type Path = ReadonlyArray<PropertyKey>

const int8 = { min: "-9223372036854775808", max: "9223372036854775807" } as const

/** Why a literal of a definition does not fit a field's type; undefined when it does. `text` is its text. */
export const literalFault = (field: Field, text: string): string | undefined => {
  switch (field.type) {
    case "string":
      return text.includes("\u0000") ? "U+0000 cannot be stored" : undefined
    case "enum":
      return (field.enum ?? []).includes(text) ? undefined : `not one of ${(field.enum ?? []).join(", ")}`
    case "integer":
      return /^-?(0|[1-9][0-9]*)$/u.test(text) &&
        compareDecimals(text, int8.min) >= 0 &&
        compareDecimals(text, int8.max) <= 0
        ? undefined
        : "not a 64-bit integer"
    case "number": {
      if (!decimalPattern.test(text)) return "not a decimal number, without exponent"
      if (field.float === true || field.precision === undefined) return undefined
      const scale = field.scale ?? 0
      if (scaleOf(text) > scale) return `more than ${scale} digits after the point`
      return wholeDigitsOf(text) > field.precision - scale
        ? `more than ${field.precision - scale} digits before the point`
        : undefined
    }
    case "boolean":
      return text === "true" || text === "false" ? undefined : "not true or false"
    case "date":
      return isDate(text) ? undefined : "not a date such as 2026-11-24"
    case "time":
      return isTime(text) ? undefined : "not a time such as 13:30:00"
    case "timestamp":
      return isTimestamp(text) ? undefined : "not a time such as 2026-11-24T13:30:00Z, with six decimals at most"
    case "uuid":
    case "ref":
      return isUuid(text) ? undefined : "not a UUID in lower case"
    case "json":
      try {
        JSON.parse(text)
        return undefined
      } catch {
        return "not JSON"
      }
    case "bytes":
      return isBase64(text) ? undefined : "not canonical base64 with padding"
  }
}

const daysIn = (year: number, month: number): number =>
  month === 2
    ? (year % 4 === 0 && year % 100 !== 0) || year % 400 === 0
      ? 29
      : 28
    : [4, 6, 9, 11].includes(month)
      ? 30
      : 31

/** RFC 3339 full-date, years 0001 to 9999. */
export const isDate = (text: string): boolean => {
  const match = /^(\d{4})-(\d\d)-(\d\d)$/u.exec(text)
  if (match === null) return false
  const [year, month, day] = match.slice(1).map(Number) as [number, number, number]
  return year > 0 && month >= 1 && month <= 12 && day >= 1 && day <= daysIn(year, month)
}

/** hh:mm, hh:mm:ss, with up to six digits of a second. */
export const isTime = (text: string): boolean => /^([01]\d|2[0-3]):[0-5]\d(:[0-5]\d(\.\d{1,6})?)?$/u.test(text)

/** RFC 3339 date-time with an offset and at most microseconds; no leap second, which Postgres would move. */
export const isTimestamp = (text: string): boolean => {
  const match = /^(\d{4}-\d\d-\d\d)[Tt ](\d\d:\d\d:\d\d(?:\.\d{1,6})?)([Zz]|[+-](\d\d):(\d\d))$/u.exec(text)
  if (match === null) return false
  const [, date = "", clock = "", , hours = "0", minutes = "0"] = match
  return isDate(date) && isTime(clock) && Number(hours) <= 15 && Number(minutes) < 60
}

/** Canonical base64 (RFC 4648, sections 3.5 and 4) with padding: what is padded ends in zero bits. */
export const isBase64 = (text: string): boolean =>
  text.length % 4 === 0 && /^[A-Za-z0-9+/]*(?:[AEIMQUYcgkosw048]=|[AQgw]==)?$/u.test(text)

/** How many bytes a base64 text stands for. */
const bytesIn = (base64: string): number => (base64.length / 4) * 3 - (/=*$/u.exec(base64)?.[0].length ?? 0)

const numeric: ReadonlySet<FieldType> = new Set(["integer", "number"])
const rangeable = new Set(["lt", "lte", "gt", "gte"])

const fieldFaults = (field: Field, at: Path): ReadonlyArray<Fault> => {
  const faults: Array<Fault> = []
  const say = (key: string, code: string, detail: string) => faults.push(fault([...at, key], code, detail))
  const { type } = field
  if ((systemColumns as ReadonlyArray<string>).includes(field.name))
    say("name", "reserved_name", `${field.name} is a system column`)
  if ((type === "enum") !== (field.enum !== undefined))
    say("enum", "enum", "enum needs values, and only enum may have them")
  if ((type === "ref") !== (field.ref !== undefined)) say("ref", "ref", "ref needs a target, and only ref may have one")
  if (field.ref?.onDelete === "setNull" && field.required) say("ref", "ref", "setNull cannot empty a required field")
  const sized = field.minLength ?? field.maxLength
  if (sized !== undefined && type !== "string" && type !== "bytes")
    say("maxLength", "length", "minLength and maxLength are for string and bytes")
  if (field.minLength !== undefined && field.maxLength !== undefined && field.minLength > field.maxLength) {
    say("minLength", "length", "minLength is above maxLength")
  }
  if (field.pattern !== undefined) {
    if (type !== "string") say("pattern", "pattern", "pattern is for string")
    const wrong = patternFault(field.pattern)
    if (wrong !== undefined) say("pattern", "pattern", wrong)
  }
  if ((field.precision ?? field.scale) !== undefined && (type !== "number" || field.float === true)) {
    say("precision", "precision", "precision and scale are for exact numbers")
  }
  if (field.scale !== undefined && (field.precision === undefined || field.scale > field.precision)) {
    say("scale", "precision", "scale needs a precision at least as large")
  }
  if (field.float !== undefined && type !== "number") say("float", "precision", "float is for number")
  for (const key of ["min", "max"] as const) {
    const bound = field[key]
    if (bound === undefined) continue
    if (!numeric.has(type)) say(key, "bound", "min and max are for integer and number")
    else {
      const wrong = literalFault(field, decimalOf(bound))
      if (wrong !== undefined) say(key, "bound", wrong)
    }
  }
  if (
    field.min !== undefined &&
    field.max !== undefined &&
    compareDecimals(decimalOf(field.min), decimalOf(field.max)) > 0
  ) {
    say("min", "bound", "min is above max")
  }
  if (field.default !== undefined) {
    const wrong = defaultFault(field)
    if (wrong !== undefined) say("default", "default", wrong)
  }
  if (field.backfill !== undefined) {
    if (!field.required) say("backfill", "backfill", "backfill is for required fields")
    if (type === "json") say("backfill", "backfill", "a json value is not computed: give the field a default")
  }
  if (type === "json" && (field.unique || field.indexed))
    say(field.unique ? "unique" : "indexed", "index", "json cannot be unique or indexed")
  if (type === "bytes" && field.indexed) say("indexed", "index", "bytes cannot be indexed")
  if (type === "bytes" && field.unique && (field.maxLength === undefined || field.maxLength > 2000)) {
    say("unique", "index", "unique bytes need a maxLength of at most 2000: an index holds no more")
  }
  if (field.mask?.strategy === "partial" && type !== "string") say("mask", "mask", "partial is for string")
  return faults
}

/** A default coerces nothing: a boolean for a string field is refused, because YAML has made it of `no`. */
const defaultFault = (field: Field): string | undefined => {
  const { default: value } = field
  if (field.type === "ref") return "a ref has no default"
  if (typeof value === "boolean" && field.type !== "boolean") return `quote it: "${value}" was read as a boolean`
  if (typeof value === "number" && !numeric.has(field.type)) return `quote it: ${value} was read as a number`
  const text = String(value)
  const wrong = literalFault(field, text)
  if (wrong !== undefined) return wrong
  if (field.type === "string" || field.type === "bytes") {
    const length = field.type === "string" ? [...text].length : bytesIn(text)
    if (field.minLength !== undefined && length < field.minLength) return "shorter than minLength"
    if (field.maxLength !== undefined && length > field.maxLength) return "longer than maxLength"
  }
  if (
    field.pattern !== undefined &&
    patternFault(field.pattern) === undefined &&
    !compilePattern(field.pattern).test(text)
  ) {
    return "does not match the pattern"
  }
  if (numeric.has(field.type)) {
    if (field.min !== undefined && compareDecimals(text, decimalOf(field.min)) < 0) return "below min"
    if (field.max !== undefined && compareDecimals(text, decimalOf(field.max)) > 0) return "above max"
  }
  return undefined
}

const conditionFaults = (condition: RowCondition, field: Field, at: Path): ReadonlyArray<Fault> => {
  const { identity, op, value, values } = condition
  const wrong = (detail: string) => [fault(at, "row_filter", detail)]
  if ([identity, value, values].filter((given) => given !== undefined).length !== 1) {
    return wrong("exactly one of identity, value and values")
  }
  if (field.type === "json" || field.type === "bytes") return wrong(`a row filter cannot be on ${field.type}`)
  if (rangeable.has(op) && ["boolean", "enum", "ref"].includes(field.type))
    return wrong(`${op} does not fit ${field.type}`)
  if (op === "contains" && field.type !== "string") return wrong("contains is for string")
  if (op === "is_null")
    return value === true || value === false || value === "true" || value === "false"
      ? []
      : wrong("is_null takes value true or false")
  if (op === "in") {
    if (value !== undefined) return wrong("in takes values, or an identity that is a list")
  } else if (values !== undefined) return wrong(`${op} takes one value`)
  return [...(value === undefined ? [] : [String(value)]), ...(values ?? [])].flatMap((text) => {
    const fits = op === "contains" ? undefined : literalFault(field, text)
    return fits === undefined ? [] : wrong(fits)
  })
}

const duplicates = (names: ReadonlyArray<string>): ReadonlyArray<readonly [number, string]> => {
  const seen = new Set<string>()
  return names.flatMap((name, index) => {
    if (seen.has(name)) return [[index, name] as const]
    seen.add(name)
    return []
  })
}

/** A name that a field had is no other field's, now or before: whose records would keep what it held? */
const formerNameFaults = (fields: ReadonlyArray<Field>): ReadonlyArray<Fault> => {
  const claimed = new Map(fields.map((field) => [field.name, field.name]))
  return fields.flatMap((field, index) =>
    (field.renamedFrom ?? []).flatMap((former, position) => {
      const other = claimed.get(former)
      claimed.set(former, field.name)
      return other === undefined
        ? []
        : [
            fault(
              ["fields", index, "renamedFrom", position],
              "renamed_from",
              `${former} is a name of the field ${other}`
            )
          ]
    })
  )
}

/** Every fault of a decoded definition, with pointers into its spec. */
export const admit = (spec: SchemaDefinitionSpec): ReadonlyArray<Fault> => {
  const fields = new Map(spec.fields.map((field) => [field.name, field]))
  const roles = new Set(spec.access.roles.map((grant) => grant.role))
  const undeclared = (names: ReadonlyArray<string> | undefined, at: Path) =>
    (names ?? []).flatMap((role, index) =>
      roles.has(role) ? [] : [fault([...at, index], "undeclared_role", `${role} is not in access.roles`)]
    )
  const unknown = (names: ReadonlyArray<string>, at: Path) =>
    names.flatMap((name, index) =>
      fields.has(name) ? [] : [fault([...at, index], "unknown_field", `there is no field ${name}`)]
    )
  return [
    ...recordNameFaults(pathOfDefinition(spec)),
    ...(spec.sharesRowsWith === spec.version
      ? [fault(["sharesRowsWith"], "shares_rows", "a version cannot share its own rows")]
      : []),
    ...duplicates(spec.fields.map((field) => field.name)).map(([index, name]) =>
      fault(["fields", index, "name"], "duplicate", `there are two fields ${name}`)
    ),
    ...formerNameFaults(spec.fields),
    ...spec.fields.flatMap((field, index) => [
      ...fieldFaults(field, ["fields", index]),
      ...undeclared(field.access?.read, ["fields", index, "access", "read"]),
      ...undeclared(field.access?.write, ["fields", index, "access", "write"]),
      ...undeclared(field.mask?.unmaskedFor, ["fields", index, "mask", "unmaskedFor"])
    ]),
    ...duplicates(spec.access.roles.map((grant) => grant.role)).map(([index, role]) =>
      fault(["access", "roles", index, "role"], "duplicate", `${role} is declared twice`)
    ),
    ...spec.access.roles.flatMap(({ role }, index) =>
      role.startsWith("platform-")
        ? [
            fault(
              ["access", "roles", index, "role"],
              "reserved_name",
              "roles that begin with platform- are Velocity's own"
            )
          ]
        : []
    ),
    ...(spec.access.rowFilters ?? []).flatMap(({ filter, role }, index) => {
      const at = ["access", "rowFilters", index]
      const field = fields.get(filter.field)
      return [
        ...(roles.has(role) ? [] : [fault([...at, "role"], "undeclared_role", `${role} is not in access.roles`)]),
        ...(field === undefined
          ? [fault([...at, "filter", "field"], "unknown_field", `there is no field ${filter.field}`)]
          : conditionFaults(filter, field, [...at, "filter"]))
      ]
    }),
    ...(spec.uniqueConstraints ?? []).flatMap((unique, index) => {
      const at = ["uniqueConstraints", index, "fields"]
      return [
        ...unknown(unique.fields, at),
        ...unique.fields.flatMap((name, position) =>
          ["json", "bytes"].includes(fields.get(name)?.type ?? "")
            ? [fault([...at, position], "index", "json and bytes cannot be part of a unique constraint")]
            : []
        )
      ]
    }),
    ...duplicates((spec.uniqueConstraints ?? []).map((unique) => [...unique.fields].sort().join(","))).map(([index]) =>
      fault(["uniqueConstraints", index], "duplicate", "the same fields are unique twice")
    ),
    ...(spec.search === undefined ? [] : unknown(spec.search.fields, ["search", "fields"])),
    ...(spec.search?.fields ?? []).flatMap((name, index) => {
      const type = fields.get(name)?.type
      return type === undefined || type === "string" || type === "enum"
        ? []
        : [fault(["search", "fields", index], "search", "search is over string fields")]
    }),
    ...(spec.lifecycle === undefined ? [] : lifecycleFaults(spec.lifecycle, spec.version, ["lifecycle"]))
  ]
}
