/**
 * Takes a SQL script apart into its statements, as psql does: a semicolon ends one unless it stands in a string, a quoted
 * name, a dollar-quoted body or a comment. The extended protocol takes one statement at a time.
 */

const dollarTag = /\$([A-Za-z_\u0080-\uffff][A-Za-z0-9_\u0080-\uffff]*)?\$/uy

/** The index behind the quoted text that begins at `start`; a doubled quote inside it is a quote. */
const endOfQuoted = (text: string, start: number, quote: string): number => {
  // E'…' alone has backslashes that escape (PostgreSQL 4.1.2.2)
  const escapes = quote === "'" && /(?:^|[^\w$])[eE]$/u.test(text.slice(Math.max(0, start - 2), start))
  for (let index = start + 1; index < text.length; index++) {
    if (escapes && text[index] === "\\") index++
    else if (text[index] === quote) {
      if (text[index + 1] !== quote) return index + 1
      index++
    }
  }
  return text.length
}

/** The index behind a block comment, which may hold others. */
const endOfComment = (text: string, start: number): number => {
  let depth = 0
  for (let index = start; index < text.length; ) {
    if (text.startsWith("/*", index)) {
      depth += 1
      index += 2
    } else if (text.startsWith("*/", index)) {
      depth -= 1
      index += 2
      if (depth === 0) return index
    } else index += 1
  }
  return text.length
}

/** The statements of a script, without their semicolons; those of only comments and space are left out. */
export const statementsOf = (script: string): ReadonlyArray<string> => {
  const statements: Array<string> = []
  let start = 0
  let empty = true
  const push = (end: number) => {
    if (!empty) statements.push(script.slice(start, end).trim())
    empty = true
  }
  for (let index = 0; index < script.length; ) {
    const char = script[index] as string
    if (script.startsWith("--", index)) {
      const end = script.indexOf("\n", index)
      index = end < 0 ? script.length : end + 1
      if (empty) start = index
      continue
    }
    if (script.startsWith("/*", index)) {
      index = endOfComment(script, index)
      if (empty) start = index
      continue
    }
    if (char === ";") {
      push(index)
      index += 1
      start = index
      continue
    }
    if (/\s/u.test(char)) {
      index += 1
      continue
    }
    empty = false
    if (char === "'" || char === '"') {
      index = endOfQuoted(script, index, char)
      continue
    }
    dollarTag.lastIndex = index
    const tag = char === "$" ? dollarTag.exec(script)?.[0] : undefined
    if (tag !== undefined) {
      const end = script.indexOf(tag, index + tag.length)
      index = end < 0 ? script.length : end + tag.length
      continue
    }
    index += 1
  }
  push(script.length)
  return statements
}
