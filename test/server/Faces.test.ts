/**
 * Two versions of one object over one set of rows, spoken to over HTTP: what is written through either is seen through the
 * other, history and versions belong to the row, and each version's rights are its own.
 */
import { Effect, Redacted, Result } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parseVerifierKey } from "../../src/domain/NoteKey.ts"
import { parseRecordProof, verifyRecordProof } from "../../src/domain/RecordProof.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { makeKeys, seal } from "../support/Sealing.ts"
import { provision } from "./Provisioned.ts"
import { type Reply, send } from "./Requests.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
let strategy: Strategy
let chain: string

const all = ["create", "read", "update", "delete", "restore", "history"]
const editor = { role: "editor", operations: all }
const types = () => {
  const [org, app, domain] = chain.split("/")
  const of = (object: string, version: string, fields: ReadonlyArray<unknown>, more: Record<string, unknown> = {}) => ({
    org,
    app,
    domain,
    object,
    version,
    fields,
    access: { roles: [editor] },
    ...more
  })
  const code = { name: "code", type: "string", required: true, unique: true, filterable: true }
  const pay = (name: string, unmaskedFor: ReadonlyArray<string>) => ({
    name,
    type: "number",
    precision: 12,
    scale: 2,
    mask: { strategy: "redact", unmaskedFor }
  })
  const masked = { roles: [editor, { role: "clerk", operations: ["read", "update", "history"] }] }
  return [
    of(
      "order",
      "v1",
      [
        code,
        { name: "status", type: "enum", enum: ["draft", "sent"], default: "draft", filterable: true },
        { name: "note", type: "string" },
        { name: "secret", type: "bytes" },
        pay("price", ["clerk", "editor"])
      ],
      { access: masked }
    ),
    of(
      "order",
      "v2",
      [
        code,
        {
          ...{ name: "state", type: "enum", enum: ["draft", "sent"], default: "draft" },
          renamedFrom: ["status"],
          filterable: true
        },
        { name: "weight", type: "number", precision: 10, scale: 3, min: "0", default: "1.5" },
        { name: "tag", type: "string", unique: true },
        pay("price", ["editor"])
      ],
      { access: masked }
    ),
    of("line", "v1", [
      { name: "name", type: "string" },
      { name: "order", type: "ref", ref: { object: "order", version: "v1", onDelete: "cascade" } }
    ]),
    of("line", "v2", [
      { name: "title", type: "string", renamedFrom: ["name"] },
      {
        name: "parent",
        type: "ref",
        ref: { object: "order", version: "v2", onDelete: "cascade" },
        renamedFrom: ["order"]
      }
    ])
  ]
}

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, make) => {
      chain = `${database.org}/shop/eu`
      strategy = await make("shop")
      await provision(database, [{ chain, strategy: strategy.id, types: types() }])
    }
  })
}, 60_000)
afterAll(() => world.stop())

const ask = async (
  method: string,
  path: string,
  body?: unknown,
  {
    headers = {},
    roles = ["editor"]
  }: { readonly headers?: Record<string, string>; readonly roles?: ReadonlyArray<string> } = {}
): Promise<Reply> =>
  send(world.url, `/api/${chain}/${path}`, {
    method,
    token: await world.token(strategy, { roles }),
    headers: body === undefined ? headers : { "content-type": "application/json", ...headers },
    ...(body === undefined ? {} : { body: JSON.stringify(body) })
  })

const make = async (path: string, body: unknown): Promise<string> => {
  const reply = await ask("POST", path, body)
  expect(reply.status, reply.text).toBe(201)
  return reply.json.id
}

let imports = 0
/** Twenty orders by one import through v2; their ids. */
const make20 = async (): Promise<ReadonlyArray<string>> => {
  const body = Array.from({ length: 20 }, (_, index) => ({ code: `im${imports}-${index}` }))
  const headers = { "idempotency-key": `import-${imports++}`, prefer: "return=representation" }
  const reply = await ask("POST", "order/v2", body, { headers })
  expect(reply.status, reply.text).toBe(201)
  const { json } = await ask("POST", "order/v2/query", {
    where: { field: "code", op: "like", value: `im${imports - 1}-*` },
    limit: 20,
    sort: ["id"]
  })
  return json.items.map((item: { id: string }) => item.id)
}

describe("versions that share their rows", () => {
  it("show what either has written, each in its own words", async () => {
    const one = await make("order/v1", { code: "a1", status: "sent", note: "n", secret: "AAE=" })
    expect((await ask("GET", `order/v2/${one}`)).json).toMatchObject({
      code: "a1",
      state: "sent",
      weight: 1.5,
      tag: null
    })
    const two = await make("order/v2", { code: "a2", state: "sent", weight: 2.25, tag: "t" })
    const seen = (await ask("GET", `order/v1/${two}`)).json
    expect(seen).toMatchObject({ code: "a2", status: "sent", note: null, version: 1 })
    expect(Object.keys(seen).some((name) => name.startsWith("_c_") || name === "weight")).toBe(false)
    const listed = await ask("GET", "order/v2?filter%5Bstate%5D%5Beq%5D=sent&sort=code")
    expect(listed.json.items.map((item: { code: string }) => item.code)).toEqual(expect.arrayContaining(["a1", "a2"]))
    expect((await ask("GET", "order/v2?filter%5Bstatus%5D%5Beq%5D=sent")).status).toBe(400)
  })

  it("keep on PUT and PATCH what the other version alone has", async () => {
    const id = await make("order/v1", { code: "b1", note: "kept", secret: "AAE=" })
    expect((await ask("PUT", `order/v2/${id}`, { code: "b1", state: "sent", weight: 9, tag: "b" })).status).toBe(200)
    expect((await ask("PUT", `order/v1/${id}`, { code: "b1x", status: "draft", note: "again" })).status).toBe(200)
    expect((await ask("PATCH", `order/v2/${id}`, { tag: "b2" })).status).toBe(200)
    expect((await ask("GET", `order/v2/${id}`)).json).toMatchObject({
      code: "b1x",
      state: "draft",
      weight: 9,
      tag: "b2",
      version: 4
    })
    expect((await ask("GET", `order/v1/${id}`)).json).toMatchObject({ code: "b1x", note: "again", secret: null })
  })

  it("have one row version: If-Match spans, and tags are each version's own", async () => {
    const id = await make("order/v1", { code: "c1" })
    const first = await ask("GET", `order/v1/${id}`)
    const second = await ask("GET", `order/v2/${id}`)
    const etag = String(first.headers.etag)
    expect(etag).not.toBe(second.headers.etag)
    expect((await ask("GET", `order/v2/${id}`, undefined, { headers: { "if-none-match": etag } })).status).toBe(200)
    expect((await ask("PATCH", `order/v2/${id}`, { tag: "c" }, { headers: { "if-match": etag } })).status).toBe(200)
    expect((await ask("PATCH", `order/v1/${id}`, { note: "x" }, { headers: { "if-match": etag } })).status).toBe(412)
  })

  it("have uniqueness and references in common", async () => {
    const id = await make("order/v1", { code: "d1" })
    const clash = await ask("POST", "order/v2", { code: "d1" })
    expect([clash.status, clash.json.code, clash.json.errors[0].pointer]).toEqual([409, "unique_conflict", "/code"])
    await make("order/v2", { code: "d2", tag: "only" })
    expect((await ask("POST", "order/v2", { code: "d3", tag: "only" })).json.errors[0].pointer).toBe("/tag")
    // bounds of a version hold where the other has no such field, and in its words where it has
    expect((await ask("POST", "order/v2", { code: "d4", weight: -1 })).json.errors[0].pointer).toBe("/weight")
    const line = await make("line/v1", { name: "l", order: id })
    const other = await make("line/v2", { title: "m", parent: id })
    expect((await ask("GET", `line/v2/${line}?include=parent`)).json.parent).toMatchObject({ code: "d1", weight: 1.5 })
    expect((await ask("GET", `line/v1/${other}?include=order`)).json.order).toMatchObject({
      code: "d1",
      status: "draft"
    })
    const many = await ask("GET", `order/v2/${id}?include=line.parent`)
    expect(many.json["line.parent"].items.map((item: { title: string }) => item.title)).toEqual(["l", "m"])
    expect((await ask("DELETE", `order/v2/${id}`)).status).toBe(204)
    expect((await ask("GET", `line/v1/${line}`)).status).toBe(404)
    expect((await ask("GET", `line/v2/${other}`)).status).toBe(404)
    expect((await ask("POST", "line/v1", { name: "late", order: id })).json.code).toBe("reference_not_found")
    expect((await ask("POST", `order/v1/${id}/restore`)).status).toBe(200)
    expect((await ask("GET", `order/v2/${id}`)).json.version).toBe(3)
  })

  it("have one past, each shown in its own names", async () => {
    const id = await make("order/v1", { code: "e1", status: "draft", note: "old", secret: "AAE=" })
    await ask("PATCH", `order/v2/${id}`, { state: "sent", weight: 3, tag: "e" })
    await ask("PATCH", `order/v1/${id}`, { note: "new" })
    const past = async (version: string) => (await ask("GET", `order/${version}/${id}/history`)).json.items
    expect(await past("v2")).toMatchObject([
      { version: 3, changed: [], state: { state: "sent", weight: 3, tag: "e" } },
      { version: 2, changed: ["state", "weight", "tag"], state: { state: "sent" } },
      { version: 1, state: { state: "draft", weight: 1.5, tag: null } }
    ])
    const older = await past("v1")
    expect(older).toMatchObject([
      { version: 3, changed: ["note"], state: { status: "sent", note: "new", secret: "AAE=" } },
      { version: 2, changed: ["status"], state: { status: "sent", note: "old" } },
      { version: 1, state: { status: "draft", note: "old" } }
    ])
    for (const item of older) expect(Object.keys(item.state)).not.toContain("weight")
    const rows = await world.look(
      `select e.version, e.hash = platform.event_hash(e.salt, e.storage_id || '/' || e.entity_id || '/' || e.version || '/' || e.op, e.state) as sound,
         array(select jsonb_object_keys(e.state) order by 1) as keys, a.schema_path as path
       from platform.event_log e join platform.audit_log a on a.payload->>'event' = e.id::text where e.entity_id = $1 order by e.version`,
      [id]
    )
    expect(rows.map((row) => row.sound)).toEqual([true, true, true])
    expect(rows.map((row) => String(row.path).split("/").pop())).toEqual(["v1", "v2", "v1"])
    for (const row of rows) expect(row.keys).toEqual(rows[0]?.keys)
    expect(rows[0]?.keys).toEqual(expect.arrayContaining(["status", "weight", "tag", "note", "secret", "price"]))
  })

  it("mask by the version that is spoken to", async () => {
    const id = await make("order/v1", { code: "f1", price: 7.5 })
    const clerk = { roles: ["clerk"] }
    expect((await ask("GET", `order/v1/${id}`, undefined, clerk)).json.price).toBe(7.5)
    const covered = (await ask("GET", `order/v2/${id}`, undefined, clerk)).json
    expect([covered.price, covered._masked]).toEqual([undefined, { price: null }])
    const past = (await ask("GET", `order/v2/${id}/history`, undefined, clerk)).json.items[0]
    expect(past.state.price).toBe(undefined)
    // a PUT of what he sees leaves what he does not
    const { _masked, created_at, created_by, updated_at, updated_by, deleted_at, ...sent } = covered
    expect((await ask("PUT", `order/v2/${id}`, { ...sent, state: "sent" }, clerk)).status).toBe(200)
    expect((await ask("GET", `order/v1/${id}`)).json).toMatchObject({ price: 7.5, status: "sent" })
  })

  it("take imports and repeat a key's answer, through either", async () => {
    const body = Array.from({ length: 20 }, (_, index) => ({ code: `g${index}`, weight: 4 }))
    const key = { headers: { "idempotency-key": "faces" } }
    const bulk = await ask("POST", "order/v2", body, key)
    expect(bulk.status, bulk.text).toBe(201)
    expect((await ask("POST", "order/v2", body, key)).headers["idempotency-replayed"]).toBe("true")
    const { json } = await ask("POST", "order/v1/query", {
      where: { field: "code", op: "like", value: "g*" },
      count: "exact"
    })
    expect(json.count).toBe(20)
    const once = { headers: { "idempotency-key": "one" } }
    const made = await ask("POST", "order/v2", { code: "h1" }, once)
    await ask("PATCH", `order/v1/${made.json.id}`, { status: "sent" })
    expect((await ask("POST", "order/v2", { code: "h1" }, once)).json).toMatchObject({
      id: made.json.id,
      state: "draft",
      version: 1
    })
  })

  it("are proved through either, by the entry of whichever wrote last", async () => {
    const keys = await Effect.runPromise(makeKeys())
    const id = await make("order/v1", { code: "i1", note: "n" })
    await ask("PATCH", `order/v2/${id}`, { state: "sent" })
    const [first, ...others] = await make20()
    await seal(world.database, keys)
    const verifier = Result.getOrThrow(parseVerifierKey(String(keys.verifierKeys[0])))
    const proved = async (path: string) => {
      const reply = await ask("GET", `${path}/proof`)
      expect(reply.status, reply.text).toBe(200)
      return Result.getOrThrow(await verifyRecordProof(Result.getOrThrow(parseRecordProof(reply.text)), [verifier]))
    }
    const old = await proved(`order/v1/${id}`)
    const fresh = await proved(`order/v2/${id}`)
    expect(old.record).toMatchObject({ path: `${chain}/order/v2`, version: 2, op: "update" })
    expect(fresh.record).toEqual(old.record)
    expect(fresh.event).toBe(old.event)
    // by the columns' names; each shows what its version has
    expect(Object.fromEntries(old.values)).toMatchObject({ status: '"sent"', note: '"n"' })
    expect([old.values.has("weight"), fresh.values.has("weight"), fresh.values.has("note")]).toEqual([
      false,
      true,
      false
    ])
    // of an import through the one, through the other
    expect((await proved(`order/v1/${first}`)).record).toMatchObject({ path: `${chain}/order/v2`, version: 1 })
    expect(others.length).toBe(19)
  })

  it("are erased through either, for both", async () => {
    const officer = await world.token(world.platform, { roles: ["platform-privacy"] })
    const [one, two] = await make20()
    await ask("PATCH", `order/v1/${one}`, { note: "personal" })
    const erase = (path: string) =>
      send(world.url, `/api/${chain}/${path}/erase`, {
        method: "POST",
        token: officer,
        headers: { "content-type": "application/json" },
        body: JSON.stringify({ reason: "asked for" })
      })
    const reply = await erase(`order/v1/${one}`)
    // the answer that was kept of the import through the other version goes as well
    expect([reply.status, reply.json.rows, reply.json.versions, reply.json.answers]).toEqual([200, 1, 2, 1])
    for (const version of ["v1", "v2"]) {
      expect((await ask("GET", `order/${version}/${one}`)).status).toBe(404)
      const past = (await ask("GET", `order/${version}/${one}/history`)).json.items
      expect(past.map((item: { state: unknown }) => item.state)).toEqual([null, null])
      expect((await ask("GET", `order/${version}/${two}`)).status).toBe(200)
    }
    expect((await erase(`order/v2/${two}`)).status).toBe(200)
    expect((await ask("GET", `order/v1/${two}`)).status).toBe(404)
  })

  it("are found sound by the isolation check", async () => {
    const violations = await IsolationCheck.checkAt(Redacted.make(world.database.apiUrl)).pipe(Effect.runPromise)
    expect(violations.map(IsolationCheck.render)).toEqual([])
  })
})
