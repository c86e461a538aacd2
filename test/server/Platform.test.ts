/** `/api/platform/*`, `/api/me` without a domain, and health, over HTTP with real tokens. */
import { Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type AuditEntry, entryHash } from "../../src/domain/AuditEntry.ts"
import { monthOf, retireMonths } from "../support/Months.ts"
import { makeKeys } from "../support/Sealing.ts"
import { send } from "./Requests.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
let tenant: Strategy
let auditor: string
let chain: string
const get = (path: string, token?: string, headers: Record<string, string> = {}) =>
  send(world.url, path, token === undefined ? { headers } : { token, headers })

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex")

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, strategy) => {
      chain = `${database.org}/shop/sales`
      tenant = await strategy("tenant")
    }
  })
  await world.operator(
    "insert into platform.domains (chain, pg_schema, auth_strategy, spec) values ($1, $2, 'tenant', '{}')",
    [chain, `${world.database.org}_shop_sales`]
  )
  await world.operator("select pg_notify('velocity_registry', $1)", [`domain:${chain}`])
  for (let index = 0; index < 7; index++) {
    await world.operator(
      "select platform.audit_insert($1, 'operator', $2, 'ok', null, null, $3::text::jsonb, null, $4, null, null)",
      [chain, `operator.test.${index % 2}`, JSON.stringify({ index, price: "1.10" }), `r-${index}`]
    )
  }
  auditor = await world.token(world.platform, { sub: "ann", roles: ["platform-auditor"] })
})
afterAll(() => world.stop())

describe("who may ask the platform", () => {
  const paths = ["/api/platform/schemas", "/api/platform/audit", "/api/platform/audit/verify"]

  it.each(paths)("%s: platform-admin and platform-auditor of the platform's strategy", async (path) => {
    for (const role of ["platform-admin", "platform-auditor"]) {
      const token = await world.token(world.platform, { roles: [role] })
      expect((await get(path, token)).status).toBe(200)
    }
  })

  it.each(paths)("%s: nobody else", async (path) => {
    const none = await get(path)
    expect([none.status, none.json.code, none.headers["www-authenticate"]]).toEqual([401, "token_missing", "Bearer"])
    const roleless = await get(path, await world.token(world.platform, { roles: ["admin", "platform"] }))
    expect([roleless.status, roleless.json.code]).toEqual([403, "operation_not_granted"])
    const foreign = await get(path, await world.token(tenant, { roles: ["platform-admin"] }))
    expect([foreign.status, foreign.json.code]).toEqual([401, "token_issuer"])
    const expired = await get(path, await world.token(world.platform, { roles: ["platform-admin"], exp: 1_000 }))
    expect([expired.status, expired.json.code]).toEqual([401, "token_expired"])
    const forged = await get(path, await world.token({ ...world.platform, key: tenant.key }, {}))
    expect(forged.status).toBe(401)
  })

  it("leaves one entry for each refusal, and none for what is answered", async () => {
    const requestId = "refused-once"
    const token = await world.token(world.platform, { sub: "mallory", roles: [] })
    await get("/api/platform/audit", token, { "x-request-id": requestId })
    await get("/api/platform/audit", auditor, { "x-request-id": "answered" })
    const found = await get("/api/platform/audit?outcome=denied&actor=platform%2Fmallory", auditor)
    expect(found.json.items.length).toBe(1)
    const [entry] = found.json.items
    expect(entry).toMatchObject({
      chain: "platform",
      actor: "platform/mallory",
      action: "platform.audit",
      outcome: "denied",
      request_id: requestId,
      db_login: "velocity_api",
      db_role: "velocity_gateway"
    })
    expect(JSON.parse(entry.payload)).toMatchObject({ code: "operation_not_granted", status: 403 })
    const all = await get("/api/platform/audit?limit=1000", auditor)
    expect(all.json.items.filter((one: AuditEntry) => one.request_id === "answered")).toEqual([])
  })
})

describe("a flood of refusals", () => {
  it("cannot flood the log: what is held back is counted in the next entry that is written", async () => {
    const token = await world.token(world.platform, { sub: "flooder", roles: [] })
    const replies = await Promise.all(Array.from({ length: 80 }, () => get("/api/platform/schemas", token)))
    expect(new Set(replies.map(({ status }) => status))).toEqual(new Set([403]))
    const [row] = await world.look(
      "select count(*)::int4 as entries from platform.audit_log where actor = 'platform/flooder'"
    )
    expect(row?.entries).toBeGreaterThan(0)
    expect(row?.entries).toBeLessThanOrEqual(30)
  })
})

describe("the audit log", () => {
  it("is listed newest first, each entry once, whatever the page's size", async () => {
    const whole = (await get(`/api/platform/audit?chain=${chain}`, auditor)).json
    expect(whole.next_cursor).toBeNull()
    const times = whole.items.map((entry: AuditEntry) => entry.occurred_at)
    expect(times).toEqual([...times].sort().reverse())
    expect(whole.items.filter((entry: AuditEntry) => entry.action.startsWith("operator.test")).length).toBe(7)
    const paged: Array<string> = []
    let cursor: string | null = ""
    while (cursor !== null) {
      const next: string = cursor === "" ? "" : `&cursor=${cursor}`
      const page: { items: ReadonlyArray<AuditEntry>; next_cursor: string | null } = (
        await get(`/api/platform/audit?chain=${chain}&limit=3${next}`, auditor)
      ).json
      paged.push(...page.items.map((entry) => entry.id))
      cursor = page.next_cursor
    }
    expect(paged).toEqual(whole.items.map((entry: AuditEntry) => entry.id))
  })

  it("is filtered by chain, actor, action, outcome, entity and time", async () => {
    const of = async (query: string) =>
      (await get(`/api/platform/audit?${query}`, auditor)).json.items as Array<AuditEntry>
    expect((await of(`chain=${chain}&action=operator.test.1`)).length).toBe(3)
    expect((await of("chain=nobody/at/all")).length).toBe(0)
    expect((await of(`chain=${chain}&outcome=denied`)).length).toBe(0)
    expect((await of(`chain=${chain}&entity=01920000-0000-7000-8000-000000000000`)).length).toBe(0)
    const tests = await of(`chain=${chain}&actor=operator`)
    const [newest] = tests
    expect((await of(`chain=${chain}&actor=operator&to=${newest?.occurred_at}`)).length).toBe(tests.length - 1)
    expect((await of(`chain=${chain}&actor=operator&from=${newest?.occurred_at}`)).length).toBe(1)
  })

  it("gives each entry so that its hash can be computed without a database", async () => {
    const { items } = (await get(`/api/platform/audit?chain=${chain}`, auditor)).json
    for (const entry of items) expect(hex(entryHash(entry))).toBe(entry.hash)
  })

  it.each([
    ["limit=0", "malformed_query"],
    ["limit=1001", "malformed_query"],
    ["limit=ten", "malformed_query"],
    ["entity=5", "malformed_query"],
    ["outcome=fine", "malformed_query"],
    ["from=yesterday", "malformed_query"],
    ["to=2026-01-01", "malformed_query"],
    ["cursor=x", "cursor_invalid"],
    ["cursor=W10", "cursor_invalid"],
    [`cursor=${Buffer.from('{"occurredAt":"x\'; drop table","id":"1"}').toString("base64url")}`, "cursor_invalid"],
    ["order=asc", "malformed_query"],
    ["chain=a&chain=b", "malformed_query"]
  ])("refuses ?%s", async (query, code) => {
    const reply = await get(`/api/platform/audit?${query}`, auditor)
    expect([reply.status, reply.json.code]).toEqual([400, code])
  })

  it("takes text as text", async () => {
    const reply = await get(`/api/platform/audit?actor=${encodeURIComponent("' or 1=1 --")}`, auditor)
    expect(reply.json.items).toEqual([])
    const odd = await get("/api/platform/audit?actor=%00", auditor)
    expect(odd.status).toBe(400)
    expect((await get("/api/platform/audit?from=2026-02-30T00:00:00Z", auditor)).status).toBe(400)
  })
})

describe("verification", () => {
  it("finds a sound log sound", async () => {
    const reply = await get("/api/platform/audit/verify", auditor)
    expect(reply.json).toMatchObject({ sound: true, findings: [], truncated: false })
    expect(reply.json.entries).toBeGreaterThanOrEqual(7)
    const stream = await get("/api/platform/audit/verify", auditor, { accept: "application/x-ndjson" })
    expect(stream.headers["content-type"]).toBe("application/x-ndjson")
    expect(JSON.parse(stream.text)).toMatchObject({ sound: true })
  })

  it("refuses a window that is none, and one too large for one answer", async () => {
    expect((await get("/api/platform/audit/verify?from=x", auditor)).json.code).toBe("malformed_query")
    // which would be found sound, being empty
    const turned = "/api/platform/audit/verify?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z"
    expect((await get(turned, auditor)).json.code).toBe("malformed_query")
    expect((await get("/api/platform/audit/verify?from=9999-12-31T00:00:00Z", auditor)).json.code).toBe(
      "malformed_query"
    )
    const large = await get("/api/platform/audit/verify?from=2020-01-01T00:00:00Z", auditor)
    expect([large.status, large.json.code]).toEqual([400, "malformed_query"])
    const streamed = await get("/api/platform/audit/verify?from=2020-01-01T00:00:00Z", auditor, {
      accept: "application/x-ndjson"
    })
    expect(JSON.parse(streamed.text)).toMatchObject({ sound: true })
  })

  it("tells of a long window how far it is, and of one with retired months which they are", async () => {
    // one entry more than a slice has, as audit_insert would have made them
    const row = (seq: string, at: string, prev: string) =>
      `'many'::text, 0::int2, ${seq}, ${at}, '00000000-0000-7000-8000-000000000000'::uuid, 'x'::text, 'create'::text, 'ok'::text, null::text, null::uuid,
       null::jsonb, null::text, null::text, null::text, null::jsonb, 'velocity_api'::text, 'x'::text, ${prev}`
    const hash = (seq: string, at: string, prev: string) =>
      `sha256('\\x00'::bytea || record_send(row(${row(seq, at, prev)})))`
    const start = "date_trunc('month', now(), 'UTC')"
    const genesis = "sha256('velocity/audit/v1/many/0'::bytea)"
    await world.look(
      `with recursive e(seq, at, prev, hash) as (
         select 1::int8, ${start}, ${genesis}, ${hash("1::int8", start, genesis)}
         union all
         select seq + 1, at + interval '1 microsecond', hash, ${hash("seq + 1", "at + interval '1 microsecond'", "hash")} from e where seq < 50001)
       insert into platform.audit_log select ${row("seq", "at", "prev")}, hash from e`
    )
    const keys = await Effect.runPromise(makeKeys())
    await Effect.runPromise(retireMonths(world.database, "old/of/months", keys, ["drop"]))
    const partition = await Effect.runPromise(monthOf(world.database, "audit_log", 2))
    const [year, month] = partition.split("_").slice(2).map(Number) as [number, number]
    const instant = (text: string) => text.replace("Z", "000Z")
    const window = `/api/platform/audit/verify?from=${new Date(Date.UTC(year, month - 1, 15)).toISOString()}`
    const stream = await get(window, auditor, { accept: "application/x-ndjson" })
    const [far, verdict, ...more] = stream.text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    expect(more).toEqual([])
    expect(far.verified).toMatchObject({ entries: 50_000, total: verdict.entries })
    expect(far.verified.until).toMatch(/^2\d{3}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z$/u)
    const sealed = {
      partition,
      from: instant(new Date(Date.UTC(year, month - 1)).toISOString()),
      to: instant(new Date(Date.UTC(year, month)).toISOString()),
      entries: "64",
      disposition: "drop"
    }
    expect(verdict).toMatchObject({ sound: true, sealed: [sealed] })
    expect(verdict.entries).toBeGreaterThan(50_001)
    // from there on it is the rest
    const rest = await get(`${window.split("?")[0]}?from=${far.verified.until}`, auditor)
    expect(rest.json).toMatchObject({ sound: true, sealed: [], entries: verdict.entries - 50_000 })
  }, 60_000)

  it("names what was altered", async () => {
    const [entry] = (await get(`/api/platform/audit?chain=${chain}&actor=operator&limit=1`, auditor)).json.items
    await world.look(
      `do $$ begin
         execute 'alter table platform.audit_log disable trigger all';
         update platform.audit_log set reason = 'altered' where id = '${entry.id}';
       end $$`
    )
    const reply = await get("/api/platform/audit/verify", auditor)
    expect(reply.json.sound).toBe(false)
    expect(reply.json.findings[0]).toMatchObject({ id: entry.id, problem: "hash_mismatch", stored_hash: entry.hash })
    const stream = await get("/api/platform/audit/verify", auditor, { accept: "application/x-ndjson" })
    const lines = stream.text
      .trim()
      .split("\n")
      .map((line) => JSON.parse(line))
    const [finding] = lines.filter((line) => line.verified === undefined)
    expect(finding).toMatchObject({ id: entry.id, problem: "hash_mismatch" })
    expect(lines.at(-1)).toMatchObject({ sound: false })
  })
})

describe("who am I", () => {
  it("tells the platform's actor what he is there", async () => {
    const reply = await get("/api/me", auditor)
    expect(reply.json).toMatchObject({
      actor: "platform/ann",
      strategy: "platform",
      subject: "ann",
      roles: ["platform-auditor"],
      path: null
    })
    expect(Date.parse(reply.json.expires_at)).toBeGreaterThan(Date.now())
  })

  it("is judged by the domain's strategy where a path names one", async () => {
    const token = await world.token(tenant, { sub: "bob", roles: ["buyer"], attributes: { store_id: "s1" } })
    const reply = await get(`/api/me?path=${chain}`, token)
    expect(reply.json).toMatchObject({
      actor: "tenant/bob",
      roles: ["buyer"],
      attributes: { store_id: "s1" },
      path: chain
    })
    expect((await get("/api/me", token)).json.code).toBe("token_issuer")
    for (const elsewhere of [
      `${chain}x`,
      "no/such/domain",
      `${chain}/thing/v1`,
      "x",
      "a/b",
      `${chain}/too/many/parts`
    ]) {
      const nothing = await get(`/api/me?path=${elsewhere}`, token)
      expect([elsewhere, nothing.status, nothing.json.code]).toEqual([elsewhere, 404, "not_found"])
    }
    expect((await get(`/api/me?path=${chain}`)).status).toBe(401)
    const claimed = await get(`/api/me?path=${chain}`, await world.token(tenant, { roles: ["platform-admin"] }))
    expect([claimed.status, claimed.json.code]).toEqual([403, "platform_role_refused"])
  })
})

describe("health", () => {
  it("is ready with everything in place", async () => {
    const ready = await get("/readyz")
    expect(ready.json).toEqual({
      ready: true,
      checks: { postgres: { ok: true }, isolation: { ok: true }, registry: { ok: true }, running: { ok: true } }
    })
    expect((await get("/healthz")).json).toEqual({ status: "ok" })
  })

  it("is measured, by route and not by path", async () => {
    const { text } = await get("/metrics")
    expect(text).toMatch(
      /velocity_http_requests_total\{[^}]*route="\/api\/platform\/audit"[^}]*status="200"[^}]*\} [1-9]/u
    )
    expect(text).toContain("velocity_http_request_duration_seconds_bucket")
    expect(text).toMatch(/velocity_isolation_verified 1/u)
    expect(text).toMatch(/velocity_pool_connections\{[^}]*state="idle"/u)
    expect(text).toContain("velocity_registry_age_seconds")
    expect(text).not.toContain(world.database.org)
  })
})
