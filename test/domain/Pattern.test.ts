/** Patterns: what is admitted is understood alike by Postgres and by the API; what would not be is refused. */
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import fc from "fast-check"
import { describe, expect, it as plain } from "vitest"
import { compilePattern, patternFault } from "../../src/domain/Pattern.ts"
import { Database, query } from "../support/Database.ts"

describe("patterns that are refused", () => {
  plain.each([
    "(?=a)",
    "(?!a)",
    "(?<=a)",
    "(?<n>a)",
    "(?i)a",
    "***=a",
    "\\1",
    "\\w",
    "\\s",
    "\\b",
    "\\D",
    "\\m",
    "\\u0041",
    "\\",
    "[[:alpha:]]",
    "[[.a.]]",
    "[a-c-e]",
    "[z-a]",
    "[]",
    "[a",
    "[\\w]",
    "(",
    ")",
    "a)",
    "*a",
    "+",
    "a**",
    "a*?",
    "a++",
    "a{2}{3}",
    "^*",
    "a|*",
    "a{256}",
    "a{2,1}",
    "a{,2}",
    "a{",
    "]",
    "}",
    "\u0001",
    "(a{255}){255}"
  ])("%j", (pattern) => expect(patternFault(pattern)).toBeTypeOf("string"))
})

plain("matching takes linear time, where a backtracking engine would not end", () => {
  expect(patternFault("^(a+)+$")).toBeUndefined()
  expect(compilePattern("^(a+)+$").test(`${"a".repeat(50_000)}!`)).toBe(false)
})

const letter = fc.constantFrom("a", "b", "c", "0", "7", "-", "ö", "😀", " ", "\\.", "\\/")
const member = fc.constantFrom("a", "b", "a-c", "0-9", "\\d", "ö", "😀", "\\]", "\\\\", "^")
const atom = fc.oneof(
  letter,
  fc.constantFrom(".", "\\d"),
  fc
    .tuple(fc.constantFrom("", "^"), fc.array(member, { minLength: 1, maxLength: 3 }))
    .map(([not, of]) => `[${not}x${of.join("")}]`)
)
const { pattern } = fc.letrec<{ pattern: string; piece: string }>((tie) => ({
  piece: fc
    .tuple(
      fc.oneof(
        { maxDepth: 2 },
        atom,
        tie("pattern").map((inner) => `(${inner})`),
        tie("pattern").map((inner) => `(?:${inner})`)
      ),
      fc.constantFrom("", "", "*", "+", "?", "{2}", "{1,}", "{0,2}")
    )
    .map(([what, times]) => what + times),
  pattern: fc
    .array(
      fc.array(tie("piece"), { minLength: 1, maxLength: 3 }).map((pieces) => pieces.join("")),
      { minLength: 1, maxLength: 2 }
    )
    .map((branches) => branches.join("|"))
}))
const subject = fc.array(
  fc.constantFrom("a", "b", "c", "x", "0", "7", "-", "ö", "😀", " ", ".", "/", "\n", "]", "\\", "^"),
  { maxLength: 6 }
)

layer(Database.layer, { excludeTestServices: true })("patterns that are admitted", (it) => {
  it.effect("mean to Postgres what they mean to the API", () =>
    Effect.gen(function* () {
      const { ownerUrl } = yield* Database
      const cases = fc
        .sample(fc.tuple(pattern, fc.boolean(), fc.array(subject, { minLength: 8, maxLength: 8 })), 1500)
        .map(([inner, whole, subjects]) => ({
          inner: whole ? `^(${inner})$` : inner,
          subjects: subjects.map((s) => s.join(""))
        }))
        .filter(({ inner }) => patternFault(inner) === undefined)
      expect(cases.length).toBeGreaterThan(1000)
      const rows = yield* query(
        ownerUrl,
        "select (select string_agg((s.value ~ (c.value ->> 'inner'))::int::text, '' order by s.ordinality) from jsonb_array_elements_text(c.value -> 'subjects') with ordinality s) as m from jsonb_array_elements($1::jsonb) with ordinality c order by c.ordinality",
        [JSON.stringify(cases)]
      )
      let matched = 0
      for (const [index, { inner, subjects }] of cases.entries()) {
        const matcher = compilePattern(inner)
        const ours = subjects.map((text) => (matcher.test(text) ? "1" : "0")).join("")
        matched += ours.split("1").length - 1
        expect(rows[index]?.m, `${JSON.stringify(inner)} over ${JSON.stringify(subjects)}`).toBe(ours)
      }
      expect(matched).toBeGreaterThan(1000)
    })
  )
})
