/**
 * A thousand definitions applied at once to a real API server: how long until an operator and a replica have made all of them
 * Ready, and what that takes of memory. It is `test/kubernetes/Scale.test.ts`, which also shows that nothing is written
 * afterwards, with more of them.
 */
import { execFile } from "node:child_process"
import { join } from "node:path"
import { promisify } from "node:util"
import { root } from "../e2e/Dev.ts"
import type { Section } from "./Sections.ts"

const count = 1_000
const run = promisify(execFile)

const said = /Ready after ([0-9.]+) s; (-?[0-9]+) MiB more; ([0-9]+) writes/u

export const definitions: Section = async ({ say }) => {
  say(`definitions: ${count} on a kube-apiserver`)
  const assets = (await run("npm", ["run", "--silent", "envtest"], { cwd: root })).stdout.trim()
  const vitest = join(root, "node_modules/vitest/vitest.mjs")
  const { stdout } = await run(process.execPath, [vitest, "run", "test/kubernetes/Scale.test.ts"], {
    cwd: root,
    env: { ...process.env, KUBEBUILDER_ASSETS: assets, VELOCITY_SCALE: String(count) },
    maxBuffer: 64 * 1024 * 1024
  })
  const [, seconds, grown, writes] = said.exec(stdout) ?? []
  const line = { against: "" }
  return [
    { ...line, what: `${count} definitions Ready on a cluster`, ours: Number(seconds), unit: "s" },
    { ...line, what: "memory for them, operator and replica", ours: Number(grown), unit: "MiB" },
    { ...line, what: "writes to the API server for them", ours: Number(writes), unit: "" }
  ]
}
