/**
 * Scripts of pgbench: the files of `sql/` with the product's own statements put in, so that a baseline cannot differ from
 * what the product sends.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import type { Statement } from "../../src/postgres/Statement.ts"

/** A transaction as pgbench reads it, and the variables it is given. */
export interface Script {
  readonly text: string
  readonly variables: Readonly<Record<string, string>>
}

/**
 * A statement with `$k` as pgbench's variable `:{name}_{k}`, or as the SQL that `instead` has for it: what must differ
 * from one transaction to the next.
 */
export const asScript = (
  name: string,
  { params, sql }: Statement,
  instead: Readonly<Record<number, string>> = {}
): Script => {
  const variables: Record<string, string> = {}
  const text = sql.replace(/\$(\d+)/gu, (_, digits: string) => {
    const place = Number(digits)
    const given = instead[place]
    if (given !== undefined) return given
    const value = params[place - 1]
    variables[`${name}_${place}`] = Array.isArray(value) ? `{${value.join(",")}}` : String(value)
    return `:${name}_${place}`
  })
  return { text, variables }
}

/** Reads `sql/{file}` and puts scripts in the place of `{{name}}`, and texts likewise. */
export const scriptOf = (file: string, parts: Readonly<Record<string, Script | string>>): Script => {
  const variables: Record<string, string> = {}
  const text = readFileSync(join(import.meta.dirname, "sql", file), "utf8").replace(
    /\{\{(\w+)\}\}/gu,
    (_, name: string) => {
      const part = parts[name]
      if (part === undefined) throw new Error(`${file}: nothing to put in for {{${name}}}`)
      if (typeof part === "string") return part
      Object.assign(variables, part.variables)
      return part.text
    }
  )
  return { text, variables }
}
