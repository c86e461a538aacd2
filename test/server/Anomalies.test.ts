/** `/api/platform/anomalies` over HTTP: who may see and acknowledge alerts, and a rule tried over the past. */
import { ConfigProvider, Effect, Layer } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { scan } from "../../src/operator/anomaly/AnomalyScanner.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { chainIn, hourAgo, minutes, ruleOf, wrote } from "../operator/AnomalyWorld.ts"
import { configOf } from "../support/Database.ts"
import { send } from "./Requests.ts"
import { makeWorld, type World } from "./World.ts"

let world: World
let chain: string
let admin: string
let auditor: string
const json = { "content-type": "application/json" }
const path = "/api/platform/anomalies"
const get = (query: string, token = auditor) => send(world.url, `${path}${query}`, { token })
const post = (to: string, body: unknown, token = admin) =>
  send(world.url, `${path}${to}`, {
    method: "POST",
    token,
    headers: json,
    body: typeof body === "string" ? body : JSON.stringify(body)
  })

const rule = {
  name: "probe",
  title: "A probe",
  severity: "warning",
  match: { actions: ["read"] },
  window: "10m",
  threshold: 4
} as const
const written = {
  ...rule,
  source: "entries" as const,
  groupBy: ["chain", "actor"] as const,
  count: "entries" as const,
  enabled: true
}
const start = hourAgo(8)

/** Scans as the operator does. */
const scanned = () =>
  Effect.runPromise(
    scan({ rules: [ruleOf(written)], endpoints: [], now: start + minutes(200) }).pipe(
      Effect.provide(
        Fence.layerOf({ holder: "test", source: "folder" }).pipe(
          Layer.provide(OperatorSql.layer),
          Layer.provide(ConfigProvider.layer(configOf(world.database)))
        )
      ),
      Effect.scoped
    )
  )

beforeAll(async () => {
  world = await makeWorld()
  chain = await Effect.runPromise(chainIn(world.database, "eu"))
  admin = await world.token(world.platform, { sub: "root", roles: ["platform-admin"] })
  auditor = await world.token(world.platform, { sub: "ann", roles: ["platform-auditor"] })
  // two actors, one of whom reads too much in three hours of four
  const entries = [...Array(240).keys()].flatMap((minute) => [
    ...(minute % 60 < 5 && minute < 180 ? [{ chain, at: start + minutes(minute) }] : []),
    ...(minute % 5 === 0 ? [{ chain, actor: "dev/bob", lane: 1, at: start + minutes(minute) }] : [])
  ])
  await Effect.runPromise(wrote(world.database, entries))
})
afterAll(() => world.stop())

describe("a rule tried over the past", () => {
  /** The window of ten minutes that ends so many after the start. */
  const tried = (end: number) => ({
    from: new Date(start + minutes(end - 10)).toISOString(),
    to: new Date(start + minutes(end)).toISOString()
  })
  const over = (more: object = {}) => ({
    rule,
    from: new Date(start).toISOString(),
    to: new Date(start + minutes(240)).toISOString(),
    ...more
  })

  it("tells what the scanner then raises, and neither raises nor writes", async () => {
    const before = await world.look("select count(*)::int4 as n from platform.audit_log")
    const answer = await post("/scan", over(), auditor)
    expect([answer.status, answer.json.errors]).toEqual([200, undefined])
    expect(answer.json).toMatchObject({ rule: "probe", truncated: false })
    expect(answer.json.alerts.length).toBe(3)
    expect(answer.json.alerts[0]).toEqual({
      chain,
      actor: "dev/ann",
      address: null,
      window: { from: new Date(start + minutes(-6)).toISOString(), to: new Date(start + minutes(4)).toISOString() },
      count: 4,
      threshold: 4
    })
    expect(await world.look("select count(*)::int4 as n from platform.audit_log")).toEqual(before)
    expect(await world.look("select id from platform.anomaly_alerts")).toEqual([])
    expect(await world.look("select * from platform.anomaly_scanner")).toEqual([])
    await scanned()
    const { items } = (await get("")).json
    const shown = (alert: { chain: string; actor: string; count: number; window: { to: string } }) =>
      `${alert.chain} ${alert.actor} ${alert.count} ${Date.parse(alert.window.to)}`
    expect(items.map(shown).sort()).toEqual(answer.json.alerts.map(shown).sort())
  })

  it("takes the changes of a built-in rule, and the week before now where no time is said", async () => {
    const answer = await post("/scan", { rule: { name: "bulk_reader", threshold: 12, window: "1h" } }, auditor)
    expect(answer.json.rule).toBe("bulk_reader")
    expect(answer.json.alerts.some(({ actor }: { actor: string }) => actor === "dev/bob")).toBe(true)
    expect(Date.parse(answer.json.to) - Date.parse(answer.json.from)).toBe(7 * 24 * 60 * minutes(1))
    const elsewhere = await post("/scan", over({ rule: { ...rule, match: { chains: ["nobody/*"] } } }), auditor)
    expect(elsewhere.json.alerts).toEqual([])
  })

  it("counts nothing of what is after `to`, and judges no window that ends before `from`", async () => {
    const late = await post("/scan", over({ from: new Date(start + minutes(60)).toISOString() }), auditor)
    expect(late.json.alerts.length).toBe(2)
    // a window that ends behind `from` counts what is before it
    const reaching = await post("/scan", over({ from: new Date(start + minutes(3)).toISOString() }), auditor)
    expect(reaching.json.alerts[0]).toMatchObject({ count: 4, window: tried(4) })
    const early = await post("/scan", over({ to: new Date(start + minutes(3)).toISOString() }), auditor)
    expect(early.json.alerts).toEqual([])
  })

  it.each([
    [{ rule: { ...rule, window: "5d" } }, "/rule/window"],
    [{ rule: { ...rule, nothing: 1 } }, "/rule/nothing"],
    [{ rule: { name: "chain_broken" } }, "/rule/source"],
    [{ rule: 5 }, "/rule"],
    [{}, "/rule"],
    [{ rule, from: "yesterday" }, "/from"],
    [{ rule, to: 5 }, "/to"],
    [{ rule, from: "2020-01-01T00:00:00Z" }, "/from"],
    [{ rule, from: "2026-01-02T00:00:00Z", to: "2026-01-01T00:00:00Z" }, "/from"],
    [{ rule, since: "7d" }, "/since"],
    [[], ""]
  ])("refuses %j at %s", async (body, pointer) => {
    const refused = await post("/scan", body, auditor)
    expect([refused.status, refused.json.code]).toEqual([422, "invalid"])
    expect(refused.json.errors.map((one: { pointer: string }) => one.pointer)).toContain(pointer)
  })

  it("refuses what is no JSON, too long, or has parameters", async () => {
    expect((await post("/scan", "{", auditor)).json.code).toBe("malformed_json")
    expect((await post("/scan", `{"rule":1,"rule":2}`, auditor)).json.code).toBe("malformed_json")
    expect((await post("/scan", JSON.stringify({ rule: "x".repeat(70_000) }), auditor)).status).toBe(413)
    expect((await post("/scan?dry_run=true", { rule }, auditor)).status).toBe(400)
    const typeless = await send(world.url, `${path}/scan`, { method: "POST", token: auditor, body: "{}" })
    expect(typeless.status).toBe(415)
  })
})

describe("alerts", () => {
  it("are listed newest first, each once, whatever the page's size, and filtered", async () => {
    const whole = (await get("")).json
    expect(whole.items.length).toBe(3)
    const [first] = whole.items
    expect(first).toMatchObject({
      rule: "probe",
      title: "A probe",
      severity: "warning",
      chain,
      actor: "dev/ann",
      address: null,
      acknowledged: null,
      deliveries: []
    })
    expect(first.entries.length).toBe(4)
    expect(first.entries[0]).toMatchObject({ chain, lane: 0 })
    const paged: Array<string> = []
    for (let next: string | null = ""; next !== null; ) {
      const page: { items: ReadonlyArray<{ id: string }>; next_cursor: string | null } = (
        await get(`?limit=1${next === "" ? "" : `&cursor=${next}`}`)
      ).json
      paged.push(...page.items.map(({ id }) => id))
      next = page.next_cursor
    }
    expect(paged).toEqual(whole.items.map(({ id }: { id: string }) => id))
    for (const [query, count] of [
      [`?chain=${chain}`, 3],
      ["?chain=nobody/at/all", 0],
      ["?rule=probe&severity=warning&acknowledged=false", 3],
      ["?severity=critical", 0],
      ["?acknowledged=true", 0]
    ] as const) {
      expect([query, (await get(query)).json.items.length]).toEqual([query, count])
    }
    for (const query of ["?severity=bad", "?acknowledged=maybe", "?limit=0", "?order=x"]) {
      expect([query, (await get(query)).json.code]).toEqual([query, "malformed_query"])
    }
    expect((await get("?cursor=x")).json.code).toBe("cursor_invalid")
  })

  it("are acknowledged once, by an admin, with an entry", async () => {
    const [{ id }] = (await get("")).json.items
    const to = `/${id}/acknowledge`
    expect((await post(to, { comment: "seen" }, auditor)).status).toBe(403)
    const faults = [{}, { comment: "" }, { comment: 5 }, { comment: "a\u0000b" }, { comment: "x".repeat(1_001) }]
    for (const body of [...faults, { comment: "a", more: 1 }]) {
      expect((await post(to, body)).status).toBe(422)
    }
    expect((await post("/5/acknowledge", { comment: "seen" })).json.code).toBe("malformed_id")
    expect((await post("/01920000-0000-7000-8000-000000000000/acknowledge", { comment: "seen" })).status).toBe(404)
    // at once, and again: one of them is the first
    const replies = await Promise.all(["one", "two", "three"].map((comment) => post(to, { comment })))
    const again = await post(to, { comment: "four" })
    const said = new Set([...replies, again].map(({ json: alert }) => JSON.stringify(alert.acknowledged)))
    expect([...replies, again].map(({ status }) => status)).toEqual([200, 200, 200, 200])
    expect(said.size).toBe(1)
    expect(again.json).toMatchObject({
      id,
      acknowledged: { by: "platform/root", comment: expect.stringMatching(/one|two|three/u) }
    })
    const entries = await world.look(
      "select chain, actor, action, outcome, reason, payload from platform.audit_log where entity_id = $1::uuid and action = 'platform.acknowledge' and outcome = 'ok'",
      [id]
    )
    expect(entries).toEqual([
      {
        chain: "platform",
        actor: "platform/root",
        action: "platform.acknowledge",
        outcome: "ok",
        reason: again.json.acknowledged.comment,
        payload: { rule: "probe", chain }
      }
    ])
    expect((await get("?acknowledged=true")).json.items.length).toBe(1)
    expect((await get("?acknowledged=false")).json.items.length).toBe(2)
    const sound = await send(world.url, "/api/platform/audit/verify", { token: auditor })
    expect(sound.json).toMatchObject({ sound: true })
  })
})
