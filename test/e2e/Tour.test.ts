/** The README's five-minute tour, its lines taken from the README and run one after the other in one shell. */
import { type ChildProcess, spawn } from "node:child_process"
import { cpSync, mkdtempSync, readFileSync, rmSync, symlinkSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { root } from "./Dev.ts"

interface Block {
  readonly background: boolean
  readonly script: string
}

const blocks: ReadonlyArray<Block> = [
  ...readFileSync(join(root, "README.md"), "utf8").matchAll(/<!-- tour(: background)? -->\n```sh\n([\s\S]*?)```/gu)
].map(([, background, script = ""]) => ({ background: background !== undefined, script }))

const checkout = mkdtempSync(join(tmpdir(), "velocity tour "))

/** Runs a script in a shell of the newcomer's; answers what it printed. */
const shell = (script: string): Promise<{ readonly code: number | null; readonly output: string }> =>
  new Promise((done) => {
    const child = spawn("bash", ["-eu", "-o", "pipefail", "-c", script], { cwd: checkout, env: process.env })
    let output = ""
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding("utf8").on("data", (text: string) => (output += text))
    child.on("close", (code) => done({ code, output }))
  })

describe("the README's tour", () => {
  let dev: ChildProcess
  let printed = ""
  let serving: Promise<void>

  beforeAll(async () => {
    // a copy, because the tour writes a manifest; the packages are the same
    for (const name of ["bin", "src", "scripts", "migrations", "k8s", "package.json", ".npmrc"]) {
      cpSync(join(root, name), join(checkout, name), { recursive: true })
    }
    symlinkSync(join(root, "node_modules"), join(checkout, "node_modules"))
    const background = blocks.find((block) => block.background)
    dev = spawn("bash", ["-c", background?.script ?? "false"], { cwd: checkout, env: process.env, detached: true })
    serving = new Promise((done, failed) => {
      const hear = (text: string) => {
        printed += text
        if (printed.includes("Ctrl-C")) done()
      }
      dev.stdout?.setEncoding("utf8").on("data", hear)
      dev.stderr?.setEncoding("utf8").on("data", hear)
      dev.on("exit", (code) => failed(new Error(`npm run dev ended with ${code}:\n${printed}`)))
    })
    await serving
  })

  afterAll(async () => {
    if (dev.pid !== undefined && dev.exitCode === null) {
      const ended = new Promise((done) => dev.once("exit", done))
      process.kill(-dev.pid, "SIGINT")
      await ended
    }
    rmSync(checkout, { recursive: true, force: true })
  })

  it("prints a token and curl lines when it serves", () => {
    expect(printed).toMatch(/curl -g/u)
    expect(printed).toMatch(/Authorization: Bearer /u)
  })

  it("runs line by line", async () => {
    const tour = blocks.filter((block) => !block.background)
    expect(tour.length).toBeGreaterThan(5)
    const { code, output } = await shell(tour.map((block) => block.script).join("\necho '-- next'\n"))
    expect(code, output).toBe(0)
    const parts = output.split("-- next\n")
    expect(parts[1]).toContain('"code":"VL"')
    expect(parts[1]).toContain('"status":422')
    expect(parts[2]).toContain("Tempo")
    expect(parts[3]).toContain("operation_not_granted")
    expect(parts[4]).toContain("Shanghai")
    expect(parts[5]).toContain("sound")
    expect(parts[6]).toContain("the log is its tree")
    expect(parts[6]).toContain("proved")
    expect(parts[7]).toContain("VLTMP")
  })
})
