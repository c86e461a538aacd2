import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { variables } from "../../src/cli/Environment.ts"
import { version } from "../../src/cli/Velocity.ts"

const root = join(import.meta.dirname, "../..")
const src = join(root, "src")

const read = new Set(
  readdirSync(src, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith(".ts") && entry.name !== "Environment.ts")
    .flatMap((entry) => readFileSync(join(entry.parentPath, entry.name), "utf8").match(/VELOCITY_[A-Z_]+[A-Z]/gu) ?? [])
)

describe("velocity --help", () => {
  it("lists exactly the variables that the code names", () => {
    expect(variables.map((variable) => variable.name).sort()).toEqual([...read].sort())
  })

  it("tells the version of the package", () => {
    const manifest = JSON.parse(readFileSync(join(root, "package.json"), "utf8")) as { readonly version: string }
    expect(version).toBe(manifest.version)
  })
})
