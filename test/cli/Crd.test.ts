/** `velocity crd print`, as somebody pipes it into kubectl. */
import { readdirSync, readFileSync } from "node:fs"
import { join } from "node:path"
import { describe, expect, it } from "vitest"
import { parseAllDocuments } from "yaml"
import { root } from "../e2e/Dev.ts"
import { run } from "./Run.ts"

interface Crd {
  readonly kind: string
  readonly spec: { readonly names: { readonly kind: string } }
}
const kindsIn = (text: string) =>
  parseAllDocuments(text).map((one) => {
    const { kind, spec } = one.toJS() as Crd
    return `${kind} ${spec.names.kind}`
  })

describe("velocity crd print", () => {
  it("prints what k8s/crds/ has, all kinds or one", async () => {
    const folder = join(root, "k8s/crds")
    const files = readdirSync(folder)
      .filter((name) => name.endsWith(".yaml"))
      .map((name) => readFileSync(join(folder, name), "utf8"))
    const all = await run(["crd", "print"])
    expect(all.code).toBe(0)
    expect(kindsIn(all.out).sort()).toEqual(files.flatMap(kindsIn).sort())
    const one = await run(["crd", "print", "Domain"])
    expect(one.out.trim()).toBe(readFileSync(join(folder, "domains.yaml"), "utf8").trim())
  })

  it("names the kinds that there are where one is asked for that is none", async () => {
    const wrong = await run(["crd", "print", "Domian"])
    expect(wrong.code).toBe(2)
    expect(wrong.err).toContain('"Domain"')
  })
})
