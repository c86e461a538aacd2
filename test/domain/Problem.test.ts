import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { fault, requestFaults } from "../../src/domain/Fault.ts"
import { type ProblemCode, problem, problemDocument, problems, problemsMarkdown } from "../../src/domain/Problem.ts"

const root = join(import.meta.dirname, "../..")
const sources = ["src/records", "src/server", "src/access", "src/domain/Query.ts"].flatMap((place) =>
  place.endsWith(".ts")
    ? [join(root, place)]
    : readdirSync(join(root, place), { recursive: true, encoding: "utf8" })
        .filter((name) => name.endsWith(".ts"))
        .map((name) => join(root, place, name))
)

describe("problems", () => {
  it("are documented as they are", () => {
    expect(readFileSync(join(root, "docs/problems.md"), "utf8")).toBe(problemsMarkdown())
  })

  it.each(Object.entries(problems))(
    "%s is an error of HTTP, with a title and advice",
    (code, { doc, status, title }) => {
      expect(code).toMatch(/^[a-z]+(_[a-z]+)*$/u)
      expect(status).toBeGreaterThanOrEqual(400)
      expect(status).toBeLessThan(600)
      expect(title).not.toMatch(/\.$/u)
      expect(doc).toMatch(/\.$/u)
      expect(`${title}${doc}`, "a table's cell").not.toMatch(/[|\n]/u)
    }
  )

  it("have a title each", () => {
    const titles = Object.values(problems).map(({ title }) => title)
    expect(new Set(titles).size).toBe(titles.length)
  })

  it("are written as RFC 9457 says, without cause and headers", () => {
    const failure = problem("unique_conflict", {
      detail: "po_number is taken",
      errors: [fault(["po_number"], "unique", "another live record has this value")],
      headers: { "Retry-After": "1" },
      cause: new Error("duplicate key value violates unique constraint")
    })
    expect(problemDocument(failure, "r-1")).toEqual({
      type: "https://velocity.sh/problems/unique_conflict",
      title: "The value is taken",
      status: 409,
      code: "unique_conflict",
      detail: "po_number is taken",
      requestId: "r-1",
      errors: [{ pointer: "/po_number", code: "unique", detail: "another live record has this value" }]
    })
    expect(JSON.stringify(problemDocument(problem("internal", { cause: "secret" })))).not.toContain("secret")
  })

  // product.md, section 7, and the fine print: codes and their statuses are a promise
  it.each([
    ["unique_conflict", 409],
    ["reference_not_found", 409],
    ["still_referenced", 409],
    ["in_flight", 409],
    ["field_not_readable", 403],
    ["field_not_writable", 403],
    ["row_outside_filter", 403],
    ["not_filterable", 400],
    ["cursor_expired", 400],
    ["malformed_id", 400],
    ["stale", 412],
    ["precondition_required", 428],
    ["gone", 410],
    ["rule_error", 422],
    ["payload_too_large", 413]
  ] satisfies ReadonlyArray<[ProblemCode, number]>)("%s is %i", (code, status) =>
    expect(problems[code].status).toBe(status)
  )

  it("have members whose codes are documented, wherever one is made", () => {
    const made = sources.flatMap((file) =>
      [...readFileSync(file, "utf8").matchAll(/fault\(\s*(?:\[[^\]]*\]|[\w.]+),\s*"([a-z_]+)"/gu)].map(
        (match) => match[1] as string
      )
    )
    expect(new Set(made).size).toBeGreaterThan(15)
    expect([...new Set(made)].filter((code) => !(code in requestFaults))).toEqual([])
  })
})
