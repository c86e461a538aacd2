/**
 * What a statement's values are to Postgres: strings and null have no type, so that the server infers it from the
 * statement; everything else says its own.
 */
import * as PgTypes from "@effect/sql-pg/PgTypes"

/** Throws a `CodecError` where Postgres has no such value. */
export const parameterOf = (value: unknown): PgTypes.Parameter => {
  if (!Array.isArray(value)) return scalarOf(value)
  if (value.length === 0) return untyped("{}")
  const elements = value.map(scalarOf)
  const typed = elements.filter((element) => element.value !== null)
  // a string in an array must say that it is one
  const types = new Set(typed.map((element) => element.oid || PgTypes.OID.text))
  const [type] = types
  const array = type === undefined ? undefined : PgTypes.arrayOidFor(type)
  if (array === undefined || types.size !== 1) {
    throw new PgTypes.CodecError({ message: "an array must hold values of one type, and more than null" })
  }
  return { ...untyped(elements.map((element) => element.value)), oid: array }
}

const untyped = (value: unknown): PgTypes.Parameter => ({
  [PgTypes.ParameterTypeId]: PgTypes.ParameterTypeId,
  oid: 0,
  value
})

const scalarOf = (value: unknown): PgTypes.Parameter => {
  switch (typeof value) {
    case "string":
      return untyped(value)
    case "undefined":
      return untyped(null)
    case "boolean":
      return PgTypes.bool(value)
    case "bigint":
      return PgTypes.int8(value)
    case "number":
      if ((value | 0) === value) return PgTypes.int4(value)
      return Number.isSafeInteger(value) ? PgTypes.int8(BigInt(value)) : PgTypes.float8(value)
    case "object":
      if (value === null) return untyped(null)
      if (value instanceof Date) return PgTypes.timestamptz(value)
      if (value instanceof Uint8Array) return PgTypes.bytea(value)
  }
  throw new PgTypes.CodecError({ message: `Postgres has no type for ${typeof value} values` })
}
