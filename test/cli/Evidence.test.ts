/**
 * Evidence as people take it away from a `velocity dev`: a checkpoint and a proof that are verified without it, and a log
 * that somebody cut, which the checkpoint shows.
 */
import { readFile, stat, writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Result } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseSignerKey } from "../../src/domain/SignedNote.ts"
import { type RunningDev, removeFolder, root, startDev, temporaryFolder } from "../e2e/Dev.ts"
import { query } from "../support/Database.ts"
import { type Ran, run } from "./Run.ts"

let dev: RunningDev
let data: string
let folder: string
let verifierKey: string

const velocity = (...args: ReadonlyArray<string>): Promise<Ran> => run([...args, "--data", data])
const admin = (sql: string) => Effect.runPromise(Effect.scoped(query(dev.ready.postgres.admin, sql)))
const operator = () => ({
  VELOCITY_OPERATOR_DATABASE_URL: dev.ready.postgres.operator,
  VELOCITY_AUDIT_KEY_FILE: join(data, "audit.key")
})

beforeAll(async () => {
  data = await temporaryFolder()
  folder = await temporaryFolder()
  dev = await startDev({ data, manifests: join(root, "k8s/samples") })
  const signer = await parseSignerKey((await readFile(join(data, "audit.key"), "utf8")).trim())
  verifierKey = Result.getOrThrow(signer).verifier.text
})
afterAll(async () => {
  await dev.end("SIGTERM")
  await removeFolder(data)
  await removeFolder(folder)
})

describe("the key of velocity dev", () => {
  it("is made once, its owner's alone, and named after installation and database", async () => {
    expect((await stat(join(data, "audit.key"))).mode & 0o777).toBe(0o600)
    expect(await readFile(join(data, "audit.pub"), "utf8")).toBe(`${verifierKey}\n`)
    const [row] = await admin("select id::text as id from platform.installation")
    expect(verifierKey.startsWith(`velocity.sh/${row?.id}/default+`)).toBe(true)
  })
})

describe("velocity audit", () => {
  const checkpoint = () => join(folder, "checkpoint")

  it("prints the checkpoint to the byte, and verifies log, tree and checkpoint together", async () => {
    // the sealer looks every ten seconds
    await expect
      .poll(() => admin("select platform.audit_tree_size() = (select count(*) from platform.audit_log) as sealed"), {
        timeout: 30_000,
        interval: 250
      })
      .toEqual([{ sealed: true }])
    const printed = await velocity("audit", "checkpoint")
    expect(printed).toMatchObject({ code: 0, err: "" })
    await writeFile(checkpoint(), printed.out)
    const size = printed.out.split("\n")[1]
    expect((await velocity("audit", "checkpoint", "--size", String(size))).out).toBe(printed.out)
    const verified = await velocity("audit", "verify", "--all", "--checkpoint", checkpoint(), "--key", verifierKey)
    expect(verified).toMatchObject({ code: 0, err: "" })
    expect(verified.out).toContain(`the log is its tree, and the tree has the ${size} leaves of velocity.sh/`)
    const unknown = await velocity("audit", "verify", "--checkpoint", checkpoint())
    expect(unknown).toMatchObject({ code: 0, err: expect.stringContaining("say --key KEY") })
    const json = await velocity("audit", "verify", "--checkpoint", checkpoint(), "--key", verifierKey, "-o", "json")
    expect(JSON.parse(json.out)).toMatchObject({ sound: true, tree: { sound: true, findings: [], size: Number(size) } })
  })

  it("cannot tell by a file that is no checkpoint, or that the key did not sign", async () => {
    const file = join(folder, "altered")
    const note = await readFile(checkpoint(), "utf8")
    await writeFile(file, note.replace(/\n\d+\n/u, "\n7\n"))
    const altered = await velocity("audit", "verify", "--checkpoint", file, "--key", verifierKey)
    expect(altered).toMatchObject({ code: 2, out: "", err: expect.stringContaining("is not over the note's text") })
    await writeFile(file, "hello\n")
    expect((await velocity("audit", "verify", "--checkpoint", file)).code).toBe(2)
    expect((await velocity("audit", "verify", "--checkpoint", join(folder, "none"))).code).toBe(2)
  })

  it("proves an entry to somebody who has nothing but the proof and the key", async () => {
    const [entry] = await admin("select id::text as id from platform.audit_log order by occurred_at limit 1")
    const proof = await velocity("audit", "prove", String(entry?.id))
    expect(proof).toMatchObject({ code: 0, err: "" })
    const file = join(folder, "proof.json")
    await writeFile(file, proof.out)
    const proved = await run(["audit", "verify-proof", file, "--key", verifierKey])
    expect(proved).toMatchObject({ code: 0, out: expect.stringContaining(`proved: entry ${entry?.id}`) })
    const none = await velocity("audit", "prove", "01920000-0000-7000-8000-000000000000")
    expect(none).toMatchObject({ code: 1, out: "", err: expect.stringContaining("404 not_found") })
  })

  it("notes no restore where there was none, and none without the key", async () => {
    const args = ["audit", "restore-note", "--checkpoint", checkpoint(), "--reason", "a drill"]
    const refused = await run(args, operator())
    expect(refused).toMatchObject({ code: 1, out: "", err: expect.stringContaining("nothing to note") })
    const { VELOCITY_OPERATOR_DATABASE_URL } = operator()
    const keyless = await run(args, { VELOCITY_OPERATOR_DATABASE_URL })
    expect(keyless).toMatchObject({ code: 2, out: "", err: expect.stringContaining("VELOCITY_AUDIT_KEY_FILE") })
  })

  it("shows a tail that was cut off, with a checkpoint and without one", async () => {
    await admin(
      `do $$ begin
         execute 'alter table platform.audit_log disable trigger all';
         delete from platform.audit_log where (chain, lane, seq) = (select chain, lane, max(seq) from platform.audit_log group by 1, 2 order by 1, 2 limit 1);
         execute 'alter table platform.audit_log enable always trigger refuse_row';
         execute 'alter table platform.audit_log enable always trigger refuse_truncate';
       end $$`
    )
    for (const window of [["--all"], []]) {
      const plain = await velocity("audit", "verify", ...window)
      expect(plain).toMatchObject({ code: 1, out: expect.stringContaining("tail_missing") })
    }
    const found = await velocity("audit", "verify", "--all", "--checkpoint", checkpoint(), "--key", verifierKey)
    expect(found).toMatchObject({ code: 1, err: expect.stringContaining("tampered") })
    expect(found.out).toContain("tail_missing")
  })
})
