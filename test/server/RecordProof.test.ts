/**
 * The proof of a record over HTTP: what each caller is shown, verified offline against the log's key; one of many from a
 * bulk request; and what there is no proof of.
 */
import { writeFile } from "node:fs/promises"
import { join } from "node:path"
import { Effect, Redacted, Result } from "effect"
import { FetchHttpClient } from "effect/http"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { make, verifyRecordProof as verifyByClient } from "../../src/client/index.ts"
import { parseVerifierKey } from "../../src/domain/NoteKey.ts"
import { type ProvedRecord, parseRecordProof, verifyRecordProof } from "../../src/domain/RecordProof.ts"
import { run } from "../cli/Run.ts"
import { removeFolder, temporaryFolder } from "../e2e/Dev.ts"
import { makeKeys, seal } from "../support/Sealing.ts"
import { provision } from "./Provisioned.ts"
import { type Reply, type Sent, send } from "./Requests.ts"
import { thing } from "./Things.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
let sales: Strategy
let things: string
let admin: string
let auditor: string
let keys: Effect.Success<ReturnType<typeof makeKeys>>
const json = { "content-type": "application/json" }
const ask = (path: string, sent: Sent = {}) => send(world.url, path, { token: admin, ...sent })
const post = (path: string, body: unknown, sent: Sent = {}) =>
  ask(path, { method: "POST", headers: json, ...sent, body: JSON.stringify(body) })
const codeOf = ({ json: body, status }: Reply) => [status, body?.code]
const sealed = () => seal(world.database, keys)
const verifier = () => Result.getOrThrow(parseVerifierKey(String(keys.verifierKeys[0])))
const proved = async (reply: Reply): Promise<ProvedRecord> => {
  expect([reply.status, reply.json?.code]).toEqual([200, undefined])
  const verdict = await verifyRecordProof(Result.getOrThrow(parseRecordProof(reply.text)), [verifier()])
  return Result.getOrThrow(verdict)
}

beforeAll(async () => {
  keys = await Effect.runPromise(makeKeys())
  world = await makeWorld({
    prepare: async (database, strategy) => {
      sales = await strategy("sales")
      const chain = `${database.org}/shop/sales`
      things = `/api/${chain}/thing/v1`
      await provision(database, [{ chain, strategy: sales.id, types: [thing(chain)] }])
    }
  })
  admin = await world.token(sales, { sub: "ann", roles: ["admin"] })
  auditor = await world.token(sales, { sub: "bo", roles: ["auditor"] })
})
afterAll(() => world.stop())

describe("a proof of a record", () => {
  it("is not there before its entry was sealed, then shows what its reader may see, and proves it", async () => {
    const { json: made } = await post(things, {
      name: "Łódź",
      price: 293.2,
      secret: "hush",
      hidden: "no",
      data: { a: [1.1] }
    })
    const path = `${things}/${made.id}/proof`
    expect(codeOf(await ask(path))).toEqual([409, "not_sealed"])
    await sealed()
    const whole = await proved(await ask(path))
    expect(whole).toMatchObject({
      hidden: 0,
      record: { path: things.slice(5), entity_id: made.id, version: 1, op: "create" }
    })
    expect(Object.fromEntries(whole.values)).toMatchObject({
      id: `"${made.id}"`,
      version: "1",
      name: '"Łódź"',
      price: "293.2000",
      secret: '"hush"',
      hidden: '"no"',
      data: '{"a": [1.1]}',
      note: "null"
    })
    const [event] = await world.look(
      "select encode(hash, 'hex') as hash from platform.event_log where entity_id = $1::uuid",
      [made.id]
    )
    expect(whole.event).toBe(event?.hash)

    const reply = await ask(path, { token: auditor })
    const part = await proved(reply)
    expect([part.hidden, part.event]).toEqual([2, whole.event])
    expect([...whole.values.keys()].filter((name) => !part.values.has(name))).toEqual(["hidden", "secret"])
    expect(reply.text).not.toContain("hush")
    expect(reply.text).not.toContain('"name":"secret"')

    const client = await Effect.runPromise(
      make({ baseUrl: world.url, token: Redacted.make(auditor) }).pipe(Effect.provide(FetchHttpClient.layer))
    )
    const document = await Effect.runPromise(client.records(things.slice(5)).proof(made.id))
    const byClient = await Effect.runPromise(verifyByClient(document, [String(keys.verifierKeys[0])]))
    expect(byClient.event).toBe(whole.event)

    const folder = await temporaryFolder()
    const file = join(folder, "proof.json")
    const verify = async (text: string, ...more: ReadonlyArray<string>) => {
      await writeFile(file, text)
      return run(["audit", "verify-proof", file, "--key", String(keys.verifierKeys[0]), ...more])
    }
    const said = await verify(reply.text)
    expect(said).toMatchObject({ code: 0, err: "" })
    expect(said.out).toContain(`proved: ${things.slice(5)} ${made.id} was this after its create to version 1\n`)
    expect(said.out).toContain('  name: "Łódź"\n')
    expect(said.out).toContain("  and 2 fields that are not shown\n")
    expect(JSON.parse((await verify(reply.text, "-o", "json")).out)).toMatchObject({
      proved: true,
      record: { entity_id: made.id, hidden: 2, values: { price: "293.2000" } }
    })
    const forged = await verify(reply.text.replace("293.2000", "293.2001"))
    expect([forged.code, forged.out]).toEqual([1, ""])
    expect(forged.err).toContain("refuted (commitment)")
    await removeFolder(folder)
  })

  it("is of the present version, by the entry of the act that made it", async () => {
    const { json: made } = await post(things, { name: "changed" })
    const at = `${things}/${made.id}`
    await ask(at, { method: "PATCH", headers: json, body: '{"note":"n"}' })
    await sealed()
    const before = await proved(await ask(`${at}/proof`))
    expect(before).toMatchObject({
      record: { version: 2, op: "update" },
      entry: { entry: { action: "update", actor: "sales/ann" } }
    })
    await ask(at, { method: "DELETE" })
    expect(codeOf(await ask(`${at}/proof`))).toEqual([404, "not_found"])
    await ask(`${at}/restore`, { method: "POST" })
    expect(codeOf(await ask(`${at}/proof`))).toEqual([409, "not_sealed"])
    await sealed()
    expect((await proved(await ask(`${at}/proof`))).record).toMatchObject({ version: 4, op: "restore" })
  })

  it("is there for each record of many, whatever was created beside them, and after others of them were erased", async () => {
    const lines = (from: number, count: number) =>
      Array.from({ length: count }, (_, n) => JSON.stringify({ name: `many ${from + n}` })).join("\n")
    const load = (from: number, count: number) =>
      ask(things, { method: "POST", headers: { "content-type": "application/x-ndjson" }, body: lines(from, count) })
    const replies = await Promise.all([load(0, 1_203), load(5_000, 700), post(things, { name: "between" })])
    expect(replies.map(({ status }) => status)).toEqual([201, 201, 201])
    await sealed()
    const idOf = async (n: number) =>
      String(
        (
          await world.look(
            `select id::text from ${things.slice(5).split("/").slice(0, 3).join("_")}.thing_v1 where name = $1`,
            [`many ${n}`]
          )
        )[0]?.id
      )
    for (const n of [0, 499, 500, 1_202, 5_000, 5_699]) {
      const found = await proved(await ask(`${things}/${await idOf(n)}/proof`))
      expect(found.values.get("name")).toBe(`"many ${n}"`)
      expect(found.entry.entry.entity_id).toBeNull()
    }
    const officer = await world.token(world.platform, { roles: ["platform-privacy"] })
    const [gone, neighbour] = [await idOf(7), await idOf(8)]
    expect((await post(`${things}/${gone}/erase`, { reason: "r" }, { token: officer })).status).toBe(200)
    expect(codeOf(await ask(`${things}/${gone}/proof`))).toEqual([404, "not_found"])
    expect((await proved(await ask(`${things}/${neighbour}/proof`))).values.get("name")).toBe('"many 8"')
  })

  it("is for those who may read the record and its history, and is refuted for another", async () => {
    const { json: made } = await post(things, { name: "rights", store_id: "s2" })
    const { json: other } = await post(things, { name: "rights too", store_id: "s2" })
    await sealed()
    const path = `${things}/${made.id}/proof`
    for (const role of ["reader", "editor", "store", "nobody"]) {
      const token = await world.token(sales, { roles: [role], attributes: { store_id: "s2" } })
      expect([role, ...codeOf(await ask(path, { token }))]).toEqual([role, 403, "operation_not_granted"])
    }
    expect(codeOf(await ask(`${things}/5/proof`))).toEqual([400, "malformed_id"])
    expect(codeOf(await ask(`${path}?at=now`))).toEqual([400, "malformed_query"])
    const [mine, its] = [(await ask(path)).json, (await ask(`${things}/${other.id}/proof`)).json]
    for (const document of [
      { ...mine, entry: its.entry, proof: its.proof },
      { ...mine, fields: its.fields },
      { ...mine, record: its.record },
      { ...mine, record: { ...mine.record, version: 2 } }
    ]) {
      const verdict = await verifyRecordProof(document, [verifier()])
      expect(Result.isFailure(verdict) && verdict.failure.verdict).toBe("refuted")
    }
  })

  it("does not come of rows that were altered behind the log's back", async () => {
    const { json: made } = await post(things, { name: "true" })
    await sealed()
    const path = `${things}/${made.id}/proof`
    await world.look(
      "update platform.event_log set state = jsonb_set(state, '{name}', '\"false\"') where entity_id = $1::uuid",
      [made.id]
    )
    const reply = await ask(path)
    const verdict = await verifyRecordProof(reply.json, [verifier()])
    expect(Result.isFailure(verdict) && [verdict.failure.step, verdict.failure.verdict]).toEqual([
      "commitment",
      "refuted"
    ])
  })
})
