/**
 * Records over HTTP, under the real roles with real tokens: what is asked for is done, and whatever is wrong with a
 * request is answered with its own documented problem; never a 500, never a word of Postgres's, nothing half done.
 */
import { createHmac, randomBytes } from "node:crypto"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { makeKey, rawToken, sign } from "../access/Issuer.ts"
import { provision } from "./Provisioned.ts"
import { type Reply, raw, type Sent, send } from "./Requests.ts"
import { part, thing } from "./Things.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
let strategy: Strategy
let things: string
let parts: string
let admin: string
let editor: string
const json = { "content-type": "application/json" }
const ndjson = { "content-type": "application/x-ndjson" }
const spoken = /postgres|SQLSTATE|relation|violates|syntax error at|duplicate key|pg_|at character [0-9]+ of|stack/iu

/** Asks, and holds what every answer must keep: no 500, no word of the database's. */
const ask = async (path: string, sent: Sent = {}): Promise<Reply> => {
  const reply = await send(world.url, path, { token: admin, ...sent })
  expect(reply.status).not.toBe(500)
  if (reply.status >= 400) {
    expect(reply.text).not.toMatch(spoken)
    if (reply.text !== "") expect(reply.headers["content-type"]).toBe("application/problem+json")
  }
  return reply
}
const post = (path: string, body: string | Buffer, more: Sent = {}) =>
  ask(path, { method: "POST", body, ...more, headers: { ...json, ...more.headers } })
const codes = (reply: Reply): ReadonlyArray<string> =>
  (reply.json.errors ?? []).map((one: { pointer: string; code: string }) => `${one.pointer} ${one.code}`).sort()
let counter = 0
const named = (more: Record<string, unknown> = {}) => JSON.stringify({ name: `thing ${counter++}`, ...more })
const made = async (more: Record<string, unknown> = {}): Promise<Reply> => {
  const reply = await post(things, named(more))
  expect([reply.status, codes(reply)]).toEqual([201, []])
  return reply
}
const count = async (): Promise<number> => {
  const [row] = await world.look(
    `select (select count(*) from ${world.database.org}_shop_sales.thing_v1)::int4 as rows, (select count(*) from platform.event_log)::int4 as events`
  )
  return Number(row?.rows) * 1_000_000 + Number(row?.events)
}

beforeAll(async () => {
  let chain = ""
  world = await makeWorld({
    settings: { bodyTimeout: 300 },
    prepare: async (database, makeStrategy) => {
      chain = `${database.org}/shop/sales`
      strategy = await makeStrategy("sales")
      await provision(database, [{ chain, strategy: strategy.id, types: [thing(chain), part(chain)] }])
    }
  })
  things = `/api/${chain}/thing/v1`
  parts = `/api/${chain}/part/v1`
  admin = await world.token(strategy, { sub: "ann", roles: ["admin"] })
  editor = await world.token(strategy, { sub: "ed", roles: ["editor"] })
})
afterAll(() => world.stop())

describe("a record", () => {
  it("is created, read, changed, deleted, restored, and its past is kept", async () => {
    const created = await made({ note: "first" })
    expect(created.headers.location).toBe(`${things}/${created.json.id}`)
    expect(created.headers.etag).toMatch(/^"1-[0-9a-f]{8}"$/u)
    expect(created.json).toMatchObject({ version: 1, created_by: "sales/ann", status: "draft", note: "first" })
    const at = String(created.headers.location)
    const read = await ask(at)
    expect(read.json).toEqual(created.json)
    expect(read.headers).toMatchObject({
      etag: created.headers.etag,
      "cache-control": "private, no-cache",
      vary: "Authorization, X-API-Key, Accept, Prefer"
    })
    const patched = await ask(at, { method: "PATCH", headers: json, body: '{"note":null}' })
    expect(patched.json).toMatchObject({ version: 2, note: null })
    const put = await ask(at, { method: "PUT", headers: json, body: named({ amount: 5 }) })
    expect(put.json).toMatchObject({ version: 3, amount: 5, status: "draft" })
    const pointed = await ask(at, {
      method: "PATCH",
      headers: { "content-type": "application/json-patch+json" },
      body: '[{"op":"replace","path":"/amount","value":6}]'
    })
    expect(pointed.json).toMatchObject({ version: 4, amount: 6 })
    expect((await ask(at, { method: "DELETE" })).status).toBe(204)
    expect((await ask(at)).status).toBe(404)
    const restored = await ask(`${at}/restore`, { method: "POST" })
    expect(restored.json).toMatchObject({ version: 6, deleted_at: null })
    const history = await ask(`${at}/history`)
    expect(history.json.items.map((event: { version: number; op: string }) => [event.version, event.op])).toEqual([
      [6, "restore"],
      [5, "delete"],
      [4, "update"],
      [3, "update"],
      [2, "update"],
      [1, "create"]
    ])
  })

  it("leaves one history row and one audit entry for each write, under the request's id", async () => {
    const created = await post(things, named(), { headers: { "x-request-id": "one-of-each" } })
    const events = await world.look("select id::text from platform.event_log where request_id = 'one-of-each'")
    const entries = await world.look(
      "select action, outcome, entity_id::text, actor, payload from platform.audit_log where request_id = 'one-of-each'"
    )
    expect(events.length).toBe(1)
    expect(entries).toMatchObject([{ action: "create", outcome: "ok", entity_id: created.json.id, actor: "sales/ann" }])
  })

  it.each([
    ["0.1", "0.1000"],
    ["1.10", "1.1000"],
    ["9007199254740993.0001", "9007199254740993.0001"],
    ["1234567890123456789012345678901234.5678", "1234567890123456789012345678901234.5678"],
    ["1e3", "1000.0000"]
  ])("keeps the number %s exactly", async (sent, kept) => {
    const reply = await post(things, `{"name":"exact ${counter++}","price":${sent},"amount":9007199254740993}`)
    expect(reply.status).toBe(201)
    expect(reply.text).toContain(`"price":${kept}`)
    expect(reply.text).toContain('"amount":9007199254740993')
    const at = String(reply.headers.location)
    expect((await ask(at)).text).toContain(`"price":${kept}`)
    const patched = await ask(at, { method: "PATCH", headers: json, body: `{"price":${sent}}` })
    expect(patched.text).toContain(`"price":${kept}`)
    expect((await ask(`${at}/history`)).text).toContain(kept)
    const listed = await ask(`${things}?filter[price][eq]=${kept}&limit=1`)
    expect(listed.text).toContain(`"price":${kept}`)
  })

  it("answers HEAD as GET, and 304 to whoever has it", async () => {
    const created = await made()
    const at = String(created.headers.location)
    const head = await ask(at, { method: "HEAD" })
    expect([head.status, head.text, head.headers.etag]).toEqual([200, "", created.headers.etag])
    const same = await ask(at, { headers: { "if-none-match": String(created.headers.etag) } })
    expect([same.status, same.text, same.headers.etag]).toEqual([304, "", created.headers.etag])
    expect((await ask(at, { headers: { "if-none-match": '"1-00000000"' } })).status).toBe(200)
    // another caller sees another body under the same version
    const other = await ask(at, { token: editor, headers: { "if-none-match": String(created.headers.etag) } })
    expect(other.status).toBe(200)
  })

  it("hides what its reader may not see, and names it", async () => {
    const created = await made({ secret: "s3cret", hidden: "h1dden" })
    expect(created.json).toMatchObject({ secret: "s3cret", hidden: "h1dden" })
    for (const path of [String(created.headers.location), `${things}?limit=1000`]) {
      const read = await ask(path, { token: editor })
      expect(read.text).not.toMatch(/s3cret|h1dden/u)
    }
    const read = await ask(String(created.headers.location), { token: editor })
    expect(read.json).not.toHaveProperty("secret")
    expect(Object.keys(read.json._masked).sort()).toEqual(["hidden", "secret"])
  })
})

describe("what is wrong with a body", () => {
  it.each(
    [
      ["{", 400, "malformed_json"],
      ["", 400, "malformed_json"],
      ['{"name":"a","name":"b"}', 400, "malformed_json"],
      ["[".repeat(1_000) + "]".repeat(1_000), 400, "malformed_json"],
      [`${'{"a":'.repeat(1_000)}1${"}".repeat(1_000)}`, 400, "malformed_json"],
      ['{"name":NaN}', 400, "malformed_json"],
      ['"text"', 422, "invalid"],
      ["5", 422, "invalid"],
      ["null", 422, "invalid"]
    ].map(([body, ...rest]) => [`${body}`.slice(0, 30), body, ...rest] as [string, string, number, string])
  )("%s", async (_, body, status, code) => {
    const before = await count()
    const reply = await post(things, body)
    expect([reply.status, reply.json.code]).toEqual([status, code])
    expect(await count()).toBe(before)
  })

  it("is told whole: every fault at once, each with its place", async () => {
    const before = await count()
    const reply = await post(
      things,
      '{"nmae":"x","name":"bad!","status":"gone","price":-1,"amount":1.5,"note":7,"data":{"a":1},"id":"x"}'
    )
    expect([reply.status, reply.json.code]).toEqual([422, "invalid"])
    const told = codes(reply).map((one) => one.split(" ")[0])
    expect(told).toEqual(expect.arrayContaining(["/nmae", "/name", "/status", "/price", "/amount", "/note"]))
    expect(await count()).toBe(before)
  })

  it.each(
    [
      ['{"name":"a","price":1.23456}', "/price"],
      ['{"name":"a","price":"1.0"}', "/price"],
      ['{"name":"a","price":1e400}', "/price"],
      ['{"name":"a","amount":9223372036854775808}', "/amount"],
      ['{"name":"a\\u0000b"}', "/name"],
      ['{"name":null}', "/name"],
      ["{}", "/name"],
      [`{"name":"${"x".repeat(101)}"}`, "/name"],
      ['{"name":"a","status":"done"}', ""]
    ].map(([body = "", pointer = ""]) => [body.slice(0, 40), body, pointer])
  )("%s is 422", async (_, body = "", pointer = "") => {
    const reply = await post(things, body)
    expect(reply.status).toBe(422)
    if (pointer !== "") expect(codes(reply).some((one) => one.startsWith(`${pointer} `))).toBe(true)
  })

  it("of 20 MiB is refused", async () => {
    const head = `POST ${things} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${admin}\r\nContent-Type: application/json\r\n`
    expect(await raw(world.url, `${head}Content-Length: ${20 * 1024 * 1024}\r\n\r\n{`)).toMatch(/^HTTP\/1.1 413/u)
  })

  it("that does not come is a 408", async () => {
    const head = `POST ${things} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ${admin}\r\nContent-Type: application/json\r\n`
    expect(await raw(world.url, `${head}Content-Length: 50\r\n\r\n{"name":`)).toMatch(/^HTTP\/1.1 408/u)
    const stream = head.replace("application/json", "application/x-ndjson")
    expect(await raw(world.url, `${stream}Content-Length: 50\r\n\r\n{"name":`)).toMatch(/^HTTP\/1.1 408/u)
  })

  it("of a type that is not understood is a 415", async () => {
    const reply = await post(things, "name: x", { headers: { "content-type": "application/yaml" } })
    expect([reply.status, reply.headers["accept-post"]]).toEqual([415, "application/json, application/x-ndjson"])
    const patch = await ask(`${things}/x`, { method: "PATCH", body: "{}", headers: { "content-type": "text/plain" } })
    expect(patch.headers["accept-patch"]).toContain("application/json-patch+json")
  })
})

describe("what is wrong with a write", () => {
  it("is told by its own code", async () => {
    const created = await made({ note: "n" })
    const at = String(created.headers.location)
    const duplicate = await post(things, JSON.stringify({ name: created.json.name }))
    expect([duplicate.status, duplicate.json.code, codes(duplicate)[0]?.split(" ")[0]]).toEqual([
      409,
      "unique_conflict",
      "/name"
    ])
    const dangling = await post(parts, '{"label":"p","thing":"01920000-0000-7000-8000-000000000000"}')
    expect([dangling.status, dangling.json.code]).toEqual([409, "reference_not_found"])
    const long = await post(things, named({ store_id: randomBytes(6000).toString("base64") }))
    expect([long.status, codes(long)[0]]).toEqual([422, "/store_id max_length"])
    const stale = await ask(at, { method: "PATCH", headers: { ...json, "if-match": '"7-00000000"' }, body: "{}" })
    expect([stale.status, stale.json.code]).toEqual([412, "stale"])
    const unread = await ask(at, { method: "PATCH", headers: { ...json, "if-match": "seven" }, body: "{}" })
    expect([unread.status, unread.json.code]).toEqual([400, "malformed_header"])
    for (const id of ["5", "x".repeat(90), "01920000-0000-7000-8000-00000000000G", "%27", "%00"]) {
      const malformed = await ask(`${things}/${id}`)
      expect([id, malformed.status, malformed.json.code]).toEqual([id, 400, "malformed_id"])
    }
    const nobody = await ask(`${things}/01920000-0000-7000-8000-000000000000`)
    expect([nobody.status, nobody.json.code]).toEqual([404, "not_found"])
    const live = await ask(`${at}/restore`, { method: "POST" })
    expect([live.status, live.json.code]).toEqual([409, "not_deleted"])
    const unwritable = await ask(at, { token: editor, method: "PATCH", headers: json, body: '{"hidden":"x"}' })
    expect([unwritable.status, unwritable.json.code]).toEqual([403, "field_not_writable"])
    const oracle = await ask(at, {
      token: editor,
      method: "PATCH",
      headers: { "content-type": "application/json-patch+json" },
      body: '[{"op":"test","path":"/secret","value":"x"}]'
    })
    expect([oracle.status, oracle.json.code]).toEqual([403, "field_not_readable"])
    expect((await ask(at)).json.version).toBe(1)
  })

  it("that a definition demands is asked for", async () => {
    const created = await post(parts, '{"label":"demanding"}')
    const at = String(created.headers.location)
    const blind = await ask(at, { method: "PATCH", headers: json, body: '{"label":"x"}' })
    expect([blind.status, blind.json.code]).toEqual([428, "precondition_required"])
    const match = { "if-match": String(created.headers.etag) }
    const silent = await ask(at, { method: "DELETE", headers: match })
    expect([silent.status, silent.json.code]).toEqual([400, "reason_required"])
    const odd = await ask(at, { method: "DELETE", headers: { ...match, "x-velocity-reason": "x".repeat(1_001) } })
    expect([odd.status, odd.json.code]).toEqual([400, "malformed_header"])
    const said = { ...match, "x-velocity-reason": "no longer made", "x-request-id": "with-a-reason" }
    expect((await ask(at, { method: "DELETE", headers: said })).status).toBe(204)
    const entries = await world.look("select reason from platform.audit_log where request_id = 'with-a-reason'")
    expect(entries).toEqual([{ reason: "no longer made" }])
  })

  it("that says what its call does not take is refused, and not done", async () => {
    const created = await made()
    const at = String(created.headers.location)
    const deleted = String((await made()).headers.location)
    expect((await ask(deleted, { method: "DELETE" })).status).toBe(204)
    const before = await count()
    const body = named()
    for (const [method, path, sent] of [
      ["POST", things, body],
      ["POST", `${things}/query`, "{}"],
      ["PUT", at, body],
      ["PATCH", at, body],
      ["DELETE", at, undefined],
      ["POST", `${deleted}/restore`, undefined]
    ] as const) {
      const odd = await ask(`${path}?dry_run=true`, {
        method,
        headers: json,
        ...(sent === undefined ? {} : { body: sent })
      })
      expect([method, path, odd.status, codes(odd)]).toEqual([method, path, 400, ["/dry_run malformed_query"]])
      if (path.endsWith("/query")) continue
      const conditional = { ...json, "if-none-match": "*" }
      const passed = await ask(path, { method, headers: conditional, ...(sent === undefined ? {} : { body: sent }) })
      expect([method, path, passed.status, passed.json.code]).toEqual([method, path, 400, "malformed_header"])
    }
    const then = await ask(`${deleted}/restore`, {
      method: "POST",
      headers: json,
      body: '{"at":"2020-01-01T00:00:00Z"}'
    })
    expect([then.status, codes(then)]).toEqual([422, ["/at unknown_field"]])
    const why = await ask(at, { method: "DELETE", headers: json, body: '{"reason":"old"}' })
    expect([why.status, codes(why)]).toEqual([422, ["/reason unknown_field"]])
    expect(await count()).toBe(before)
    expect((await ask(`${deleted}/restore`, { method: "POST", headers: json, body: "{}" })).status).toBe(200)
  })

  it("is kept from what others refer to", async () => {
    const target = await made()
    const reference = await post(parts, JSON.stringify({ label: "refers", thing: target.json.id }))
    expect(reference.status).toBe(201)
    const refused = await ask(String(target.headers.location), { method: "DELETE" })
    expect([refused.status, refused.json.code]).toEqual([409, "still_referenced"])
    expect(refused.json.detail).toBe(`records of ${parts.slice("/api/".length)} refer to it by thing`)
    const included = await ask(`${reference.headers.location}?include=thing`)
    expect(included.json.thing).toMatchObject({ id: target.json.id, name: target.json.name })
  })

  it("under an Idempotency-Key is done once", async () => {
    const body = named()
    const headers = { "idempotency-key": `key-${counter++}` }
    const first = await post(things, body, { headers })
    const before = await count()
    const again = await post(things, body, { headers })
    expect([again.status, again.json.id, again.headers.etag]).toEqual([201, first.json.id, first.headers.etag])
    const other = await post(things, named(), { headers })
    expect([other.status, other.json.code]).toEqual([422, "idempotency_mismatch"])
    expect(await count()).toBe(before)
    const dry = await post(things, body, { headers: { ...headers, prefer: "tx=rollback" } })
    expect([dry.status, dry.json.code]).toEqual([422, "idempotency_dry_run"])
  })

  it("that is a dry run does everything and keeps nothing but its entry", async () => {
    const before = await count()
    const dry = await post(things, named(), { headers: { prefer: "tx=rollback", "x-request-id": "a-dry-run" } })
    expect([dry.status, dry.headers["preference-applied"]]).toEqual([201, "tx=rollback"])
    expect(dry.json).not.toHaveProperty("id")
    const shouted = await post(things, named(), { headers: { prefer: "TX=Rollback" } })
    expect([shouted.status, shouted.headers["preference-applied"]]).toEqual([201, "tx=rollback"])
    expect(await count()).toBe(before)
    const entries = await world.look("select outcome from platform.audit_log where request_id = 'a-dry-run'")
    expect(entries).toEqual([{ outcome: "dry_run" }])
    const strict = await post(things, named(), { headers: { prefer: "handling=strict, wishful=yes" } })
    expect([strict.status, strict.json.code]).toEqual([400, "malformed_header"])
  })
})

describe("many records", () => {
  it("come as an array, all or nothing", async () => {
    const before = await count()
    const bad = await post(things, `[${named()},${named({ price: -1 })},{"nmae":"x"}]`)
    expect(bad.status).toBe(422)
    expect(codes(bad).map((one) => one.split(" ")[0])).toEqual(expect.arrayContaining(["/1/price", "/2/nmae"]))
    expect(await count()).toBe(before)
    const good = await post(things, `[${named()},${named()},${named()}]`)
    expect([good.status, good.json.created]).toEqual([201, 3])
    expect((await ask(`${things}/${good.json.first_id}`)).status).toBe(200)
  })

  it("come as a stream of lines, all or nothing", async () => {
    const lines = Array.from({ length: 1_203 }, () => named({ amount: counter }))
    const before = await count()
    const bad = await post(things, [...lines, "{"].join("\n"), { headers: ndjson })
    expect([bad.status >= 400, bad.status < 500]).toEqual([true, true])
    expect(await count()).toBe(before)
    const good = await post(things, lines.join("\n"), { headers: ndjson })
    expect([good.status, good.json.created]).toEqual([201, 1_203])
    expect(await count()).toBe(before + 1_203 * 1_000_001)
  })

  it("come leniently, with an outcome a line", async () => {
    const reply = await post(things, [named(), '{"name":"bad!"}', "nonsense", named()].join("\n"), {
      headers: { ...ndjson, prefer: "handling=lenient" }
    })
    expect([reply.status, reply.headers["content-type"]]).toEqual([200, "application/x-ndjson"])
    const outcomes = reply.text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(outcomes.map(({ line, status }) => [line, status])).toEqual([
      [1, 201],
      [2, 422],
      [3, 400],
      [4, 201]
    ])
    expect(reply.text).not.toMatch(spoken)
  })
})

describe("a list", () => {
  const page = async (query: string) => ask(`${things}?${query}`)
  beforeAll(async () => {
    const rows = Array.from({ length: 300 }, (_, index) => named({ amount: index % 7 }))
    expect((await post(things, rows.join("\n"), { headers: ndjson })).status).toBe(201)
  })

  it("pages through every record once, by cursor and by Link", async () => {
    const counted = (await page("limit=1&count=exact")).json.count
    const ids: Array<string> = []
    let next: string | undefined = `${things}?limit=137&sort=-amount,name`
    while (next !== undefined) {
      const reply: Reply = await ask(next)
      ids.push(...reply.json.items.map((one: { id: string }) => one.id))
      const link = /<([^>]+)>; rel="next"/u.exec(String(reply.headers.link ?? ""))?.[1]
      expect(link === undefined).toBe(reply.json.next_cursor === null)
      next = link
    }
    expect(ids.length).toBe(counted)
    expect(new Set(ids).size).toBe(ids.length)
  })

  it("of more than 64 MiB says how many records fit, and gives these", async () => {
    const large = JSON.stringify("x".repeat(9 * 1024 * 1024))
    for (let n = 0; n < 8; n++) {
      const reply = await post(things, `{"name":"large ${n}","note":"large","data":${large}}`)
      expect(reply.status).toBe(201)
    }
    const asked = (query: string) => ask(`${things}?filter[name][like]=large*&${query}`)
    const refused = await asked("limit=8")
    expect([refused.status, refused.json.code, codes(refused)]).toEqual([
      400,
      "page_too_large",
      ["/limit query_too_large"]
    ])
    const [, fits] = /about ([0-9]+) records/u.exec(refused.json.errors[0].detail) ?? []
    const page = await asked(`limit=${fits}`)
    expect([page.status, page.json.items.length]).toEqual([200, Number(fits)])
    const rest = await asked(`limit=${fits}&cursor=${page.json.next_cursor}`)
    expect(page.json.items.length + rest.json.items.length).toBe(8)
    expect((await asked("limit=8&select=name")).json.items.length).toBe(8)
  })

  it("is the same by parameters and by a tree", async () => {
    const one = await page("filter[status][eq]=draft&filter[amount][gte]=5&sort=name&limit=10&select=name,amount")
    const tree = await post(
      `${things}/query`,
      JSON.stringify({
        where: {
          and: [
            { field: "status", op: "eq", value: "draft" },
            { field: "amount", op: "gte", value: 5 }
          ]
        },
        sort: ["name"],
        limit: 10,
        select: ["name", "amount"]
      })
    )
    expect(one.status).toBe(200)
    expect(tree.json.items).toEqual(one.json.items)
    expect((await page("count=exact&limit=1&filter[name][eq]=nobody")).json).toMatchObject({ items: [], count: 0 })
  })

  it.each([
    ["filter[name][equals]=a", 400, "unknown_operator"],
    ["filter[status][like]=a", 400, "unknown_operator"],
    ["filter[nobody][eq]=a", 400, "unknown_field"],
    ["filter[note][eq]=a", 400, "not_filterable"],
    ["sort=nobody", 400, "unknown_field"],
    ["select=nobody", 400, "unknown_field"],
    ["include=nobody", 400, "malformed_query"],
    ["limit=0", 400, "malformed_query"],
    ["limit=1001", 400, "query_too_large"],
    ["limit=ten", 400, "malformed_query"],
    ["page=2", 400, "malformed_query"],
    ["filter[amount][eq]=ten", 400, "malformed_query"],
    ["filter[amount][eq]=1%20or%201=1", 400, "malformed_query"],
    ["filter=a", 400, "malformed_query"],
    ["cursor=x", 400, "cursor_invalid"],
    [`cursor=${"A".repeat(200)}`, 400, "cursor_invalid"]
  ])("refuses ?%s", async (query, status, code) => {
    const reply = await page(query)
    expect(reply.status).toBe(status)
    const acceptable = code === "malformed_query" || code === "query_too_large" || code === "unknown_field"
    if (acceptable) expect(["malformed_query", "query_too_large", "unknown_field"]).toContain(reply.json.code)
    else expect(reply.json.code).toBe(code)
  })

  it("says nothing of a field that is masked, whatever the value", async () => {
    for (const field of ["secret", "hidden"]) {
      for (const query of [`filter[${field}][eq]=s3cret`, `filter[${field}][eq]=nothing`, `sort=${field}`]) {
        const reply = await ask(`${things}?${query}`, { token: editor })
        expect([query, reply.status, reply.json.code]).toEqual([query, 403, "field_not_readable"])
      }
    }
  })

  it("takes no cursor but its own", async () => {
    const first = await page("limit=2&sort=name")
    const cursor = String(first.json.next_cursor)
    const half = Math.floor(cursor.length / 2)
    const flipped = `${cursor.slice(0, half)}${cursor[half] === "A" ? "B" : "A"}${cursor.slice(half + 1)}`
    for (const forged of [flipped, cursor.slice(0, -4), `${cursor}AAAA`, cursor.slice(4)]) {
      expect((await page(`limit=2&sort=name&cursor=${forged}`)).json.code).toBe("cursor_invalid")
    }
    expect((await page(`limit=2&sort=-name&cursor=${cursor}`)).json.code).toBe("cursor_invalid")
    expect((await ask(`${things}?limit=2&sort=name&cursor=${cursor}`, { token: editor })).json.code).toBe(
      "cursor_invalid"
    )
    expect((await page(`limit=2&sort=name&cursor=${cursor}`)).status).toBe(200)
  })

  it("takes text as text", async () => {
    for (const text of ["' or 1=1 --", "\\", '"', "%", "a'); drop table x; --", "\u{1f600}"]) {
      const reply = await page(`filter[name][eq]=${encodeURIComponent(text)}`)
      expect(reply.json.items).toEqual([])
    }
  })

  it("shows a store its own rows alone", async () => {
    await made({ store_id: "s1" })
    await made({ store_id: "s2" })
    const store = await world.token(strategy, { roles: ["store"], attributes: { store_id: "s1" } })
    const seen = await ask(`${things}?limit=1000`, { token: store })
    expect(seen.json.items.length).toBeGreaterThan(0)
    expect(new Set(seen.json.items.map((one: { store_id: string }) => one.store_id))).toEqual(new Set(["s1"]))
    const none = await world.token(strategy, { roles: ["store"] })
    expect((await ask(things, { token: none })).json.items).toEqual([])
  })
})

describe("a token", () => {
  const of = async (token: string) => {
    const reply = await ask(things, { token })
    return [reply.status, reply.json?.code, String(reply.headers["www-authenticate"] ?? "").startsWith("Bearer")]
  }
  const soon = () => Math.floor(Date.now() / 1000) + 600
  const claims = () => ({ iss: strategy.issuer, aud: "velocity", sub: "eve", exp: soon(), roles: ["admin"] })

  it("is judged, and refused for its own reason", async () => {
    const past = soon() - 10_000
    const foreign = await makeKey("ES256", strategy.key.kid)
    const unknownKey = await makeKey("ES256", "nobody-s")
    expect(await of(await world.token(strategy, { exp: past }))).toEqual([401, "token_expired", true])
    expect(await of(await world.token(strategy, { nbf: soon() }))).toEqual([401, "token_not_yet_valid", true])
    expect(await of(await world.token(strategy, { iss: "https://nobody.example" }))).toEqual([
      401,
      "token_issuer",
      true
    ])
    expect(await of(await world.token(strategy, { aud: "somebody" }))).toEqual([401, "token_audience", true])
    expect(await of(await sign(foreign, { claims: claims() }))).toEqual([401, "token_signature", true])
    expect(await of(await sign(unknownKey, { claims: claims() }))).toEqual([401, "token_key", true])
    const none = await rawToken({ alg: "none" }, claims(), () => new Uint8Array())
    expect(await of(none)).toEqual([401, "token_unsigned", true])
    const hmac = await rawToken({ alg: "HS256", kid: strategy.key.kid }, claims(), (input) =>
      createHmac("sha256", JSON.stringify(strategy.key.jwk)).update(input).digest()
    )
    expect(await of(hmac)).toEqual([401, "token_algorithm", true])
    expect(await of("nonsense")).toEqual([401, "token_malformed", true])
    expect(await of(`${admin.slice(0, -6)}AAAAAA`)).toEqual([401, "token_signature", true])
    const basic = await send(world.url, things, { headers: { authorization: "Basic YTpi" } })
    expect([basic.status, basic.json.code]).toEqual([401, "token_malformed"])
  })

  it("that was revoked is refused from then on", async () => {
    const token = await world.token(strategy, { sub: "leaver", roles: ["reader"] })
    expect((await ask(things, { token })).status).toBe(200)
    await world.operator("insert into platform.revoked_actors (actor, reason) values ('sales/leaver', 'left')")
    await world.operator("select pg_notify('velocity_registry', 'revoked:sales/leaver')")
    await expect.poll(async () => (await ask(things, { token })).json.code).toBe("actor_revoked")
  })

  it("is told what it may do", async () => {
    const path = things.slice("/api/".length)
    const me = await ask(`/api/me?path=${path}`, { token: editor })
    expect(me.json.rights.operations.map((one: { operation: string }) => one.operation)).toEqual([
      "create",
      "read",
      "update"
    ])
    expect(me.json.rights.fields.masked.sort()).toEqual(["hidden", "secret"])
    expect(me.json.rights.fields.writable).not.toContain("hidden")
    const domain = path.split("/").slice(0, 3).join("/")
    const there = async (token: string) => (await ask(`/api/me?path=${domain}`, { token })).json.record_types
    const operations = ["create", "read", "update"]
    expect(await there(editor)).toEqual([
      { path: `${domain}/part/v1`, operations },
      { path: `${domain}/thing/v1`, operations }
    ])
    expect(await there(await world.token(strategy, { roles: ["nobody"] }))).toEqual([])
  })
})

describe("a definition that changed behind the registry's back", () => {
  const bump = () =>
    world.operator("update platform.schema_defs set generation = nextval('platform.generation_seq') where path = $1", [
      things.slice("/api/".length)
    ])

  it("is read again, and the request is done once, whatever it is", async () => {
    const created = await made()
    const at = String(created.headers.location)
    const asks: ReadonlyArray<readonly [string, Sent, number]> = [
      [at, {}, 200],
      [`${things}?limit=1`, {}, 200],
      [`${things}/query`, { method: "POST", headers: json, body: "{}" }, 200],
      [things, { method: "POST", headers: json, body: named() }, 201],
      [things, { method: "POST", headers: json, body: `[${named()}]` }, 201],
      [things, { method: "POST", headers: ndjson, body: named() }, 201],
      [at, { method: "PATCH", headers: json, body: '{"note":"again"}' }, 200],
      [`${at}/history`, {}, 200],
      [at, { method: "DELETE" }, 204],
      [`${at}/restore`, { method: "POST" }, 200]
    ]
    for (const [path, sent, status] of asks) {
      await bump()
      expect([path, sent.method, (await ask(path, sent)).status]).toEqual([path, sent.method, status])
    }
    expect((await ask(at)).json.version).toBe(4)
  })

  it("and is served no more is gone", async () => {
    const path = parts.slice("/api/".length)
    await world.operator(
      "update platform.schema_defs set serving = null, wanted = null, generation = nextval('platform.generation_seq') where path = $1",
      [path]
    )
    const reply = await ask(parts)
    expect([reply.status, reply.json.code]).toEqual([410, "gone"])
  })
})
