/** How `velocity dev` begins and ends: signals, a second start on one folder, a port that is taken, and what it leaves. */
import { access, cp, mkdir, readFile, writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { afterAll, beforeAll, describe, expect, it, onTestFinished } from "vitest"
import { run } from "../cli/Run.ts"
import { send } from "../server/Requests.ts"
import { removeFolder, root, startDev, temporaryFolder } from "./Dev.ts"

let data: string
const manifests = join(root, "k8s/samples")

beforeAll(async () => {
  data = await temporaryFolder()
})
afterAll(() => removeFolder(data))

/** One that ends with its test, whatever becomes of that: the next one has the same folder. */
const started = async (options: Parameters<typeof startDev>[0]) => {
  const dev = await startDev(options)
  onTestFinished(async () => {
    await dev.end("SIGTERM")
  })
  return dev
}

const there = (file: string) =>
  access(file).then(
    () => true,
    () => false
  )

describe("velocity dev", () => {
  it.each(["SIGINT", "SIGTERM"] as const)("ends with 0 on %s and leaves nothing running", async (signal) => {
    const dev = await started({ data, manifests })
    expect((await send(dev.ready.api, "/readyz")).status).toBe(200)
    const pid = Number(JSON.parse(await readFile(join(data, "dev.json"), "utf8")).pid)
    expect(await dev.end(signal)).toEqual({ code: 0, signal: null })
    expect(() => process.kill(pid, 0)).toThrow("ESRCH")
    expect(await there(join(data, "dev.json"))).toBe(false)
    await expect(send(dev.ready.postgres.admin.replace(/^postgres:/u, "http:"), "/")).rejects.toThrow("ECONNREFUSED")
  })

  it("keeps its data, its key and its token from start to start, after a kill -9 too", async () => {
    const first = await started({ data, manifests })
    const made = await send(first.ready.api, "/api/acme/geo/atlas/country/v1", {
      method: "POST",
      token: first.ready.token,
      headers: { "content-type": "application/json" },
      body: '{"code":"VL","code3":"VLC","name":"Velocia"}'
    })
    expect(made.status).toBe(201)
    const beside = await run(["dev", "--data", data, "--port", "0", "--manifests", manifests])
    expect(beside).toMatchObject({ code: 1 })
    expect(beside.err).toMatch(/^velocity: .*another/mu)
    expect((await send(first.ready.api, "/readyz")).status).toBe(200)
    await first.end("SIGKILL")
    const second = await started({ data, manifests })
    const kept = await send(second.ready.api, String(made.headers.location), { token: first.ready.token })
    expect([kept.status, kept.json]).toEqual([200, made.json])
    // what was applied is applied no more
    const definitions = await send(second.ready.api, "/api/platform/schemas", { token: second.ready.token })
    expect(definitions.json.items.map((one: { readonly serving: boolean }) => one.serving)).not.toContain(false)
    expect(await second.end("SIGTERM")).toEqual({ code: 0, signal: null })
  })

  it("says who has its port, and makes nothing", async () => {
    const untouched = join(data, "untouched")
    const server = createServer()
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
    const { port } = server.address() as { readonly port: number }
    const busy = await run(["dev", "--data", untouched, "--port", String(port)])
    expect(busy).toMatchObject({ code: 1, out: "" })
    expect(busy.err).toMatch(
      new RegExp(`^velocity: port ${port} is taken by .*\\(process ${process.pid}\\); [0-9]+ is free; say --port`, "u")
    )
    server.close()
    expect(await run(["dev", "--data", untouched, "--port", "99999"])).toMatchObject({
      code: 2,
      err: expect.stringContaining("a port from 0 to 65535")
    })
    const away = await run(["dev", "--data", untouched, "--manifests", join(data, "away")])
    expect(away).toMatchObject({ code: 2, err: expect.stringContaining("away") })
    expect(await there(untouched)).toBe(false)
  })

  it("says what is wrong with a manifest, once, with its place, and serves the others", async () => {
    const typos = join(data, "typos")
    await cp(manifests, typos, { recursive: true })
    const file = join(typos, "geo.yaml")
    await writeFile(file, (await readFile(file, "utf8")).replace("\n  fields:", "\n  feilds:"))
    const dev = await started({ data, manifests: typos })
    expect(dev.log().match(/feilds/gu)).toHaveLength(2)
    expect(dev.log()).toMatch(
      /! geo\.yaml:[0-9]+:[0-9]+: \/spec\/feilds: there is no key feilds here; did you mean fields\?/u
    )
    expect((await send(dev.ready.api, "/readyz")).status).toBe(200)
    expect(await dev.end("SIGTERM")).toEqual({ code: 0, signal: null })
  })

  it("serves a folder that is empty", async () => {
    const empty = join(data, "no manifests")
    await mkdir(empty)
    const dev = await started({ data, manifests: empty })
    expect((await send(dev.ready.api, "/readyz")).status).toBe(200)
    expect(await dev.end("SIGINT")).toEqual({ code: 0, signal: null })
  })
})
