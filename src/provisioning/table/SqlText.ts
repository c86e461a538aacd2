/**
 * Names and literals as DDL writes them. DDL takes no bound parameters, so every value of a definition passes through
 * here; nothing of a client's ever reaches DDL.
 */
import { sha256Hex } from "../../domain/Sha256.ts"
import { quoteName, type Statement, statement } from "../../postgres/Statement.ts"

export { quoteName }

/**
 * A text as a literal, whatever `standard_conforming_strings` says: with a backslash in it, it is written as an escape
 * string (PostgreSQL, 4.1.2.2).
 */
export const quoteText = (text: string): string => {
  const doubled = text.replaceAll("'", "''")
  return text.includes("\\") ? `E'${doubled.replaceAll("\\", "\\\\")}'` : `'${doubled}'`
}

/** A table or view with its schema. */
export const qualified = (schema: string, name: string): string => `${quoteName(schema)}.${quoteName(name)}`

/** Several names, separated. */
export const nameList = (names: ReadonlyArray<string>): string => names.map(quoteName).join(", ")

/** A dollar quote that does not occur in a text. */
const dollarQuoteFor = (text: string): string => {
  let tag = `$v_${sha256Hex(text).slice(0, 16)}$`
  while (text.includes(tag)) tag = `$v_${sha256Hex(tag).slice(0, 16)}$`
  return tag
}

/** Several statements of DDL as one, in one round trip: the first that fails undoes them all. */
export const inOneBlock = (statements: ReadonlyArray<string>): Statement => {
  const body = `begin\n${statements.map((one) => `${one};`).join("\n")}\nend`
  const quote = dollarQuoteFor(body)
  return statement(`do ${quote}${body}${quote}`)
}
