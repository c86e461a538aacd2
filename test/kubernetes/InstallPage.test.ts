/** docs/install.md: its manifests are taken by a real API server, its files are there, its lines are kubectl's. */
import { existsSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parse } from "yaml"
import { run } from "../cli/Run.ts"
import { type Installed, install } from "./Installed.ts"
import { find, isWorkload, kustomized } from "./Kustomized.ts"
import { isOurs, type Manifest, root, samples } from "./Manifests.ts"

const page = readFileSync(join(root, "docs/install.md"), "utf8")
const blocks = (language: string) =>
  [...page.matchAll(new RegExp(`\`\`\`${language}\n([\\s\\S]*?)\`\`\``, "gu"))].map(([, text = ""]) => text)
const lines = blocks("sh").flatMap((block) => block.trim().split("\n"))
const example = kustomized("k8s/overlays/example")

let cluster: Installed
beforeAll(async () => {
  cluster = await install(samples.filter((one) => !isOurs(one)))
})
afterAll(() => cluster?.stop())

describe("docs/install.md", () => {
  it("has a strategy that the API server takes, and that an organisation can be told to use", async () => {
    const [strategy = ""] = blocks("yaml")
    expect(await cluster.ok(["apply", "--server-side", "-f", "-"], strategy)).toContain("authstrategy")
    await cluster.apply(samples.filter(({ kind }) => kind === "Organisation"))
    const [, patch] = page.match(/-p '([^']+)'/u) ?? []
    await cluster.ok(["patch", "vorg", "acme", "-n", "velocity-system", "--type=merge", "-p", String(patch)])
    const { metadata } = parse(strategy) as Manifest
    expect(patch).toContain(`${metadata.namespace}/${metadata.name}`)
  })

  it("names files, objects and namespaces that there are", () => {
    const words = lines.flatMap((line) => line.split(" "))
    const files = words.filter((word) => word.startsWith("k8s/"))
    expect(files.length).toBeGreaterThan(4)
    for (const file of files) expect(existsSync(join(root, file)), file).toBe(true)
    const names = [...page.matchAll(/\b(deployment|job|service)\/([a-z-]+)/gu)]
    expect(names.length).toBeGreaterThan(4)
    for (const [, kind = "", name = ""] of names) find(example, `${kind[0]?.toUpperCase()}${kind.slice(1)}`, name)
    expect(samples.some(({ kind, metadata }) => kind === "SchemaDefinition" && metadata.name === "country")).toBe(true)
  })

  it("types what kubectl and velocity know", async () => {
    const typed = lines.map((line) => line.split(" > ")[0] ?? "")
    for (const line of typed.filter((one) => one.startsWith("kubectl "))) {
      const [verb = ""] = line.split(" ").slice(1)
      const flags = [...line.replace(/'[^']*'/gu, "").matchAll(/ (--[a-z-]+)/gu)].map(([, flag]) => flag)
      const command = verb === "create" || verb === "rollout" ? line.split(" ").slice(1, 3) : [verb]
      const { code, out } = await cluster.kubectl([
        ...(verb === "create" ? line.split(" ").slice(1, 4) : command),
        "--help"
      ])
      expect(code, line).toBe(0)
      for (const flag of flags) expect(out, `${line}: ${flag}`).toContain(`${flag}=`)
    }
    for (const line of typed.filter((one) => one.startsWith("npx velocity "))) {
      const words = line.split(" ").slice(2)
      const { out } = await run([...words.slice(0, 2), "--help"])
      for (const word of words.filter((one) => one.startsWith("--"))) expect(out).toContain(word)
    }
  })

  it("waits for the migration by a label that the Job alone has", () => {
    expect(page).toContain("-l app.kubernetes.io/name=velocity-migrate")
    const labelled = example.filter(
      ({ metadata }) =>
        (metadata.labels as Readonly<Record<string, string>> | undefined)?.["app.kubernetes.io/name"] ===
        "velocity-migrate"
    )
    expect(labelled.map(({ kind }) => kind)).toEqual(["Job"])
  })

  it("applies samples that leave Velocity's own namespace as the base made it", () => {
    expect(find(samples, "Namespace", "velocity-system")).toEqual(find(example, "Namespace", "velocity-system"))
  })

  it("has an overlay to copy that takes the image from a registry", () => {
    for (const one of example.filter(isWorkload)) {
      expect(one.spec.template.spec.containers[0].image).toMatch(/^registry\.example\/velocity:[0-9.]+$/u)
    }
    expect(example.map(({ kind }) => kind)).toContain("PrometheusRule")
  })
})
