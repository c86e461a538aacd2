/**
 * What a schema finds wrong with a value, in plain words: one place and one sentence for each, in the order in which the
 * schema says them. Messages of our own checks stay as they are.
 */
import { SchemaAST, SchemaIssue } from "effect"

export interface PlainIssue {
  readonly path: ReadonlyArray<PropertyKey>
  readonly code: "unknown_key" | "required" | "invalid"
  readonly detail: string
}

/** Edits (insert, leave out, change, swap neighbours) from one word to another: optimal string alignment. */
const editsBetween = (a: string, b: string): number => {
  let older: Array<number> = []
  let last = Array.from({ length: b.length + 1 }, (_, j) => j)
  for (let i = 1; i <= a.length; i++) {
    const row = [i]
    for (let j = 1; j <= b.length; j++) {
      const same = a[i - 1] === b[j - 1]
      const swapped = i > 1 && j > 1 && a[i - 1] === b[j - 2] && a[i - 2] === b[j - 1]
      row[j] = Math.min(
        (last[j] ?? 0) + 1,
        (row[j - 1] ?? 0) + 1,
        (last[j - 1] ?? 0) + (same ? 0 : 1),
        swapped ? (older[j - 2] ?? 0) + 1 : Number.POSITIVE_INFINITY
      )
    }
    older = last
    last = row
  }
  return last[b.length] ?? 0
}

/** The name that was meant, if one is near: two edits at most, and fewer than half of the word. */
const nearest = (word: string, names: ReadonlyArray<string>): string | undefined => {
  const near = names
    .map((name) => ({ name, edits: editsBetween(word.toLowerCase(), name.toLowerCase()) }))
    .filter(({ edits }) => edits <= 2 && edits * 2 < word.length)
    .sort((a, b) => a.edits - b.edits)
  return near[0]?.name
}

const unknownKey = (key: PropertyKey | undefined, ast: SchemaAST.AST): string => {
  const names = SchemaAST.isObjects(ast) ? ast.propertySignatures.map(({ name }) => String(name)) : []
  const meant = nearest(String(key), names)
  return `there is no key ${String(key)} here${meant === undefined ? "" : `; did you mean ${meant}?`}`
}

const formatted = SchemaIssue.makeFormatterStandardSchemaV1()

const articled = new Map([
  ["string", "a text"],
  ["number", "a number"],
  ["boolean", "true or false"],
  ["object", "an object"],
  ["array", "a list"]
])

/** The library's `Expected …` as a rule that the value breaks. */
const rule = (message: string): string => {
  const expected = /^Expected (.+?)(?:, got .*)?$/su.exec(message)?.[1]
  if (expected === undefined) return message
  const literals = expected.split(" | ")
  if (literals.length > 1 && literals.every((one) => /^"[^"]*"$/u.test(one))) {
    return `must be one of ${literals.map((one) => one.slice(1, -1)).join(", ")}`
  }
  return `must be ${articled.get(expected) ?? expected}`
}

/** Every issue of a tree, flat. */
export const plainIssues = (
  issue: SchemaIssue.Issue,
  path: ReadonlyArray<PropertyKey> = []
): ReadonlyArray<PlainIssue> => {
  switch (issue._tag) {
    case "Pointer":
      return plainIssues(issue.issue, [...path, ...issue.path])
    case "Encoding":
      return plainIssues(issue.issue, path)
    case "Composite":
      return issue.issues.flatMap((one) => plainIssues(one, path))
    case "UnexpectedKey":
      return [{ path, code: "unknown_key", detail: unknownKey(path.at(-1), issue.ast) }]
    case "MissingKey":
      return [{ path, code: "required", detail: "is missing" }]
    default:
      if (issue._tag === "AnyOf" && issue.issues.length > 0) {
        return issue.issues.flatMap((one) => plainIssues(one, path))
      }
      return formatted(issue).issues.map((one) => ({
        path: [...path, ...(one.path ?? []).map((step) => (typeof step === "object" ? step.key : step))],
        code: "invalid",
        detail: rule(one.message)
      }))
  }
}
