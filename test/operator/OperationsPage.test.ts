/** docs/operations.md names what the code reads and tells, all of it and nothing else. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { variables } from "../../src/cli/Environment.ts"

const root = join(import.meta.dirname, "../..")
const page = readFileSync(join(root, "docs/operations.md"), "utf8")
const sources = readdirSync(join(root, "src"), { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile() && entry.name.endsWith(".ts"))
  .map((entry) => readFileSync(join(entry.parentPath, entry.name), "utf8"))

/** The first two cells of the table rows whose first cell holds a name of the given kind. */
const rows = (name: RegExp): ReadonlyArray<readonly [string, string]> =>
  page
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split("|").map((cell) => cell.trim().replaceAll("`", "")))
    .filter((cells) => name.test(cells[1] ?? ""))
    .map((cells) => [cells[1] ?? "", cells[2] ?? ""])

const found = (pattern: RegExp): ReadonlyArray<string> =>
  [...new Set(sources.flatMap((text) => [...text.matchAll(pattern)].map((match) => match[1] as string)))].sort()

describe("docs/operations.md", () => {
  it("has every variable that the code reads, with what holds without it", () => {
    const named = rows(/^VELOCITY_/u)
    expect(named.map(([name]) => name).sort()).toEqual(found(/\b(VELOCITY_[A-Z_]*[A-Z])\b/gu))
    expect(new Map(named)).toEqual(new Map(variables.map(({ fallback, name }) => [name, fallback])))
  })

  it("has every metric of ours", () => {
    expect(
      rows(/^velocity_[a-z_]+$/u)
        .map(([name]) => name)
        .sort()
    ).toEqual(found(/Metric\.\w+\(\s*"(velocity_[a-z_]+)"/gu))
  })

  it("leads to pages that are there", () => {
    const pages = readdirSync(join(root, "docs"), { recursive: true, encoding: "utf8" })
    for (const [, target] of page.matchAll(/\]\(([^)#]+)\)/gu)) expect(pages).toContain(target)
  })
})
