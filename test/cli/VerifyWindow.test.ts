/** `velocity audit verify` over a long window: places that are kept, and from which it goes on; against an API that breaks. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Effect } from "effect"
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest"
import { signNote } from "../../src/domain/SignedNote.ts"
import { makeKeys } from "../support/Sealing.ts"
import { run } from "./Run.ts"

let folder = ""
let base = ""
/** What was asked for, and how the next requests are answered. */
let asked: Array<URLSearchParams> = []
let answers: Array<(response: ServerResponse) => void> = []

const server = createServer((request: IncomingMessage, response: ServerResponse) => {
  asked.push(new URL(request.url ?? "", "http://x").searchParams)
  response.writeHead(200, { "content-type": "application/x-ndjson" })
  answers.shift()?.(response)
})

beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "velocity-verify-"))
  await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
  const address = server.address()
  base = `http://127.0.0.1:${typeof address === "object" ? address?.port : ""}`
})
afterAll(async () => {
  server.close()
  await rm(folder, { recursive: true, force: true })
})
beforeEach(() => {
  asked = []
  answers = []
})

const lines = (...texts: ReadonlyArray<object>) => texts.map((text) => `${JSON.stringify(text)}\n`).join("")
const finding = { chain: "a/b/c", lane: 3, seq: "9007199254740993", id: "e", occurred_at: "t", problem: "link_broken" }
const far = (until: string, entries: number, total: number) => ({ verified: { until, entries, total } })
const broken = (text: string) => (response: ServerResponse) => {
  response.write(text, () => response.destroy())
}
const whole = (text: string) => (response: ServerResponse) => {
  response.end(text)
}

const verify = (...more: ReadonlyArray<string>) =>
  run(["audit", "verify", "--api", base, "--token", "x", "--from", "2026-01-01", "--to", "2026-02-01", ...more])

it("keeps the place that it reached, goes on from there, and tells what both sittings found", async () => {
  const file = join(folder, "place.json")
  answers = [
    broken(lines(finding, far("2026-01-09T00:00:00.000001Z", 50_000, 120_000))),
    whole(lines(far("2026-01-20T00:00:00.000000Z", 50_000, 70_000), { sound: true, entries: 70_000, sealed: [] }))
  ]
  const first = await verify("--resume", file)
  expect(first.code).toBe(2)
  expect(first.err).toContain("the same command goes on from 2026-01-09T00:00:00.000001Z")
  expect(JSON.parse(await readFile(file, "utf8"))).toMatchObject({ window: { entries: 50_000, found: 1 } })
  const second = await verify("--resume", file, "-o", "json")
  expect(asked.map((params) => params.get("from"))).toEqual(["2026-01-01T00:00:00Z", "2026-01-09T00:00:00.000001Z"])
  expect(asked.map((params) => params.get("to"))).toEqual(["2026-02-01T00:00:00Z", "2026-02-01T00:00:00Z"])
  // what the second sitting found sound does not make the first one so
  expect(second.code).toBe(1)
  expect(second.err).toContain("tampered: 1 of 120000 entries")
  expect(second.err).toContain("120,000/120,000 entries")
  expect(second.out).toContain("9007199254740993")
  expect(JSON.parse(second.out)).toMatchObject({
    from: "2026-01-01T00:00:00Z",
    sound: false,
    entries: 120_000,
    found: 1
  })
  await expect(readFile(file, "utf8")).rejects.toThrow("ENOENT")
})

it("refuses the place of another window than the one that is asked for", async () => {
  const file = join(folder, "another.json")
  answers = [broken(lines(far("2026-01-09T00:00:00.000001Z", 50_000, 120_000)))]
  expect((await verify("--resume", file)).code).toBe(2)
  const verifyAll = (...more: ReadonlyArray<string>) =>
    run(["audit", "verify", "--api", base, "--token", "x", "--resume", file, ...more])
  for (const window of [["--all"], ["--from", "2026-01-02", "--to", "2026-02-01"], ["--from", "2026-01-01"], []]) {
    const refused = await verifyAll(...window)
    expect(refused.code, window.join(" ")).toBe(2)
    expect(refused.err).toContain(
      "is of another command, for the window from 2026-01-01T00:00:00Z to 2026-02-01T00:00:00Z"
    )
  }
  expect(asked).toHaveLength(1)
  answers = [whole(lines({ sound: true, entries: 70_000, sealed: [] }))]
  expect((await verify("--resume", file)).code).toBe(0)
})

describe("with a checkpoint", () => {
  const origin = "log.example/velocity"
  let key = ""
  let sign: (body: string) => Promise<string>
  const root = Buffer.alloc(32, 7).toString("base64")
  const checkpoint = () => join(folder, "checkpoint")
  const against = (...more: ReadonlyArray<string>) =>
    verify("--checkpoint", checkpoint(), "--key", key, "-o", "json", ...more)
  const soundWindow = whole(lines({ sound: true, entries: 7, sealed: [] }))

  beforeAll(async () => {
    const made = await Effect.runPromise(makeKeys())
    key = made.verifierKeys[0] as string
    sign = (body) => signNote(body, made.texts[0] as string)
    await writeFile(checkpoint(), await sign(`${origin}\n200000\n${root}\n`))
  })

  it("goes on with the tree from the leaf that it reached, and does not verify the window again", async () => {
    const file = join(folder, "tree.json")
    const gap = { chain: "a/b/c", lane: 3, seq: "5", index: "9", problem: "seq_gap" }
    answers = [soundWindow, broken(lines(gap, { verified: { until: 65_536, total: 210_000 } }))]
    const first = await against("--resume", file)
    expect(first.code).toBe(2)
    expect(first.err).toContain("the same command goes on from leaf 65536")
    await writeFile(join(folder, "other"), await sign(`${origin}\n199999\n${root}\n`))
    const other = await verify("--checkpoint", join(folder, "other"), "--resume", file)
    expect(other).toMatchObject({ code: 2, err: expect.stringContaining("against another checkpoint") })
    answers = [whole(lines({ verified: { until: 131_072, total: 210_000 } }, { sound: true }))]
    const second = await against("--resume", file)
    expect(asked.slice(1).map((params) => params.get("from"))).toEqual(["0", "65536"])
    // what the second sitting found sound does not make the first one so
    expect(second.code).toBe(1)
    expect(second.err).toContain("210,000/210,000 leaves")
    expect(JSON.parse(second.out)).toMatchObject({ sound: true, tree: { sound: false, findings: [gap] } })
    await expect(readFile(file, "utf8")).rejects.toThrow("ENOENT")
  })

  it("takes a gap as restored by what a note says that the key signed, and by nothing else", async () => {
    const restored = async (size: number, lost: string, by = sign) => {
      const note = await by(`${origin}/2\n${size}\n${root}\nrestored ${lost} ${root} a disk\n`)
      answers = [soundWindow, whole(lines({ problem: "restored", index: "200000", note }, { sound: true }))]
      return against()
    }
    const sound = await restored(150_000, `${origin} 230000`)
    expect(sound.code).toBe(0)
    expect(JSON.parse(sound.out)).toMatchObject({ tree: { sound: true, findings: [{ problem: "restored" }] } })
    for (const [size, lost] of [
      [200_000, `${origin} 230000`],
      [150_000, `${origin} 199999`],
      [150_000, "other.example/log 230000"]
    ] as const) {
      const refused = await restored(size, lost)
      expect(refused).toMatchObject({ code: 1, err: expect.stringContaining("another gap") })
    }
    const stranger = await Effect.runPromise(makeKeys())
    const forged = await restored(150_000, `${origin} 230000`, (body) => signNote(body, stranger.texts[0] as string))
    expect(forged).toMatchObject({ code: 1, err: expect.stringContaining("the log's key did not sign") })
    const note = await sign(`${origin}/2\n150000\n${root}\nrestored ${origin} 230000 ${root} a disk\n`)
    answers = [soundWindow, whole(lines({ problem: "restored", index: "200000", note }, { sound: true }))]
    const keyless = await verify("--checkpoint", checkpoint())
    expect(keyless).toMatchObject({ code: 2, err: expect.stringContaining("say --key KEY") })
  })
})

it("says from where to go on where no file was asked for", async () => {
  answers = [broken(lines(far("2026-01-09T00:00:00.000001Z", 50_000, 120_000)))]
  const { code, err } = await verify()
  expect(code).toBe(2)
  expect(err).toContain("--from 2026-01-09T00:00:00.000001Z --to 2026-02-01T00:00:00Z goes on from where it was")
})

it("refuses a file that is none of its own, and tells of months that were retired", async () => {
  const file = join(folder, "other.json")
  await writeFile(file, "{}")
  const refused = await verify("--resume", file)
  expect(refused.code).toBe(2)
  expect(refused.err).toContain("is not what velocity audit verify --resume left")
  const month = { partition: "audit_log_2025_01", from: "f", to: "t", entries: "7", disposition: "drop" }
  answers = [whole(lines({ sound: true, entries: 5, sealed: [month] }))]
  const { code, out } = await verify()
  expect(code).toBe(0)
  expect(out).toBe(
    "sound: 5 entries from 2026-01-01T00:00:00Z to 2026-02-01T00:00:00Z\nsealed: audit_log_2025_01 (drop)\n"
  )
})
