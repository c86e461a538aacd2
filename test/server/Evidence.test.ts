/** Checkpoints, proofs and the tree over HTTP, as an auditor who keeps what he gets and verifies it elsewhere. */
import { Effect, Result } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { fromBase64 } from "../../src/domain/Base64.ts"
import { type Checkpoint, verifyCheckpoint } from "../../src/domain/Checkpoint.ts"
import { parseEntryProof, verifyEntryProof } from "../../src/domain/EntryProof.ts"
import { hex } from "../../src/domain/Sha256.ts"
import { verifyConsistency } from "../../src/domain/TreeProof.ts"
import { monthOf, retireMonths } from "../support/Months.ts"
import { logName, makeKeys, seal, writePlatform } from "../support/Sealing.ts"
import { send } from "./Requests.ts"
import { makeWorld, type World } from "./World.ts"

let world: World
let token: string
let keys: Effect.Success<ReturnType<typeof makeKeys>>
const get = (path: string) => send(world.url, `/api/platform/audit/${path}`, { token })
const write = (count: number) => Effect.runPromise(writePlatform(world.database.operatorUrl, count))
const entries = async (order: "asc" | "desc") =>
  (await world.look(`select id::text as id from platform.audit_log order by occurred_at ${order} limit 1`))[0]
    ?.id as string
const lines = (text: string) =>
  text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line))

const checkpointOf = async (path = "checkpoint"): Promise<Checkpoint> => {
  const reply = await get(path)
  expect([reply.status, reply.headers["content-type"]]).toEqual([200, "text/plain; charset=utf-8"])
  const verified = await verifyCheckpoint(reply.text, [keys.signers[0].verifier])
  return Result.getOrThrow(verified).checkpoint
}

beforeAll(async () => {
  world = await makeWorld()
  token = await world.token(world.platform, { sub: "ann", roles: ["platform-auditor"] })
  keys = await Effect.runPromise(makeKeys())
})
afterAll(() => world.stop())

describe("before anything was sealed", () => {
  it("there is no checkpoint, and an entry has no proof yet", async () => {
    await write(3)
    const none = await get("checkpoint")
    expect([none.status, none.json.code, none.json.detail]).toEqual([404, "not_found", "no checkpoint was signed yet"])
    const early = await get(`${await entries("asc")}/proof`)
    expect([early.status, early.json.code, early.headers["retry-after"]]).toEqual([409, "not_sealed", "10"])
    expect((await get("consistency?from=0&to=1")).status).toBe(404)
    expect(lines((await get("tree")).text)).toEqual([{ sound: true }])
  })

  it("what is asked for by its type is answered in it, and nothing else is", async () => {
    const ask = (path: string, accept: string) =>
      send(world.url, `/api/platform/audit/${path}`, { token, headers: { accept } })
    expect((await ask("tree", "application/x-ndjson")).status).toBe(200)
    expect((await ask("checkpoint", "text/plain")).status).toBe(404)
    expect((await ask("tree", "text/csv")).status).toBe(406)
    expect((await ask("checkpoint", "text/csv")).status).toBe(406)
  })
})

describe("a sealed log", () => {
  let first: Checkpoint
  beforeAll(async () => {
    await write(600)
    await seal(world.database, keys)
    first = await checkpointOf()
    await write(900)
    await seal(world.database, keys)
  })

  it("hands out its newest checkpoint, and each of another size", async () => {
    const newest = await checkpointOf()
    expect(newest).toMatchObject({ origin: logName, extensions: [] })
    expect(newest.size).toBeGreaterThan(first.size)
    expect(await checkpointOf(`checkpoint?size=${first.size}`)).toEqual(first)
    const other = await get(`checkpoint?size=${first.size + 1}`)
    expect([other.status, other.json.detail]).toEqual([404, "no checkpoint of this size was signed"])
    expect((await get("checkpoint?size=-1")).json.code).toBe("malformed_query")
    expect((await get("checkpoint?size=01")).json.code).toBe("malformed_query")
  })

  it("proves the first entry and the last, in a document that is verified without it, below 4 KB", async () => {
    for (const order of ["asc", "desc"] as const) {
      const id = await entries(order)
      const reply = await get(`${id}/proof`)
      expect(reply.status).toBe(200)
      expect(Buffer.byteLength(reply.text)).toBeLessThan(4_096)
      const document = Result.getOrThrow(parseEntryProof(reply.text))
      const proved = Result.getOrThrow(await verifyEntryProof(document, [keys.signers[0].verifier]))
      expect(proved.entry.id).toBe(id)
      const altered = reply.text.replace(/"actor"\s*:\s*"/u, "$&x")
      const refuted = await verifyEntryProof(Result.getOrThrow(parseEntryProof(altered)), [keys.signers[0].verifier])
      expect(Result.isFailure(refuted)).toBe(true)
    }
  })

  it("does not know what is no entry, and reads no id that is none", async () => {
    for (const id of [
      "01920000-0000-7000-8000-000000000000",
      "01920000-0000-4000-8000-000000000000",
      "ffffffff-ffff-7fff-bfff-ffffffffffff"
    ]) {
      const reply = await get(`${id}/proof`)
      expect([reply.status, reply.json.code]).toEqual([404, "not_found"])
    }
    expect((await get("1/proof")).json.code).toBe("malformed_id")
  })

  it("proves an entry of a month that was kept, which the log itself no longer has", async () => {
    const chain = "kept/of/old"
    await Effect.runPromise(retireMonths(world.database, chain, keys, ["keep"]))
    await write(5)
    await seal(world.database, keys)
    const month = await Effect.runPromise(monthOf(world.database, "audit_log", 2))
    const [kept] = await world.look(
      `select id::text as id, seq::text as seq from platform_archive.${month} where chain = '${chain}' and lane = 7 order by seq limit 1`
    )
    const reply = await get(`${kept?.id}/proof`)
    expect(reply.status).toBe(200)
    const document = Result.getOrThrow(parseEntryProof(reply.text))
    const proved = Result.getOrThrow(await verifyEntryProof(document, [keys.signers[0].verifier]))
    expect(proved.entry).toMatchObject({ id: kept?.id, chain, lane: 7, seq: kept?.seq })
    expect(lines((await get("tree")).text)).toEqual([{ sound: true }])
  })

  it("is verified from a slice's beginning on, and from nowhere else", async () => {
    expect(lines((await get("tree?from=0")).text)).toEqual([{ sound: true }])
    // past all leaves, what is no slice's is verified still
    expect(lines((await get("tree?from=65536")).text)).toEqual([{ sound: true }])
    for (const from of ["1", "-1", "256", "x"]) {
      expect((await get(`tree?from=${from}`)).json.code).toBe("malformed_query")
    }
  })

  it("proves that it only grew", async () => {
    const newest = await checkpointOf()
    const { from, proof, to } = (await get(`consistency?from=${first.size}&to=${newest.size}`)).json
    const path = (proof as ReadonlyArray<string>).map((text) => fromBase64(text) as Uint8Array)
    expect(verifyConsistency(from, first.root, to, newest.root, path)).toBe(true)
    expect((await get(`consistency?from=1&to=${newest.size + 1}`)).status).toBe(404)
    for (const query of ["", "?from=1", "?from=2&to=1", "?from=x&to=1"]) {
      expect((await get(`consistency${query}`)).json.code).toBe("malformed_query")
    }
  })

  it("is verified against a checkpoint from outside, and shows what was cut off", async () => {
    const against = ({ origin, root, size }: Checkpoint) => `tree?origin=${origin}&size=${size}&root=${hex(root)}`
    expect(lines((await get(against(first))).text)).toEqual([{ sound: true }])
    expect(lines((await get("tree")).text)).toEqual([{ sound: true }])
    expect(lines((await get(against({ ...first, root: new Uint8Array(32) }))).text)).toEqual([
      expect.objectContaining({ problem: "rewritten", chain: null, index: String(first.size), found: hex(first.root) }),
      { sound: false }
    ])
    for (const query of ["origin=x", "size=3", "origin=x&size=3&root=00"]) {
      expect((await get(`tree?${query}`)).json.code).toBe("malformed_query")
    }
    const id = await entries("desc")
    await world.look(
      `do $$ begin
         execute 'alter table platform.audit_log disable trigger all';
         delete from platform.audit_log where id = '${id}';
         execute 'alter table platform.audit_log enable always trigger refuse_row';
       end $$`
    )
    expect(lines((await get("tree")).text)).toEqual([
      expect.objectContaining({ problem: "tail_missing", chain: "platform" }),
      { sound: false }
    ])
  })
})
