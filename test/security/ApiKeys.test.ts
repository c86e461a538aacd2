/**
 * API keys over HTTP: what a key opens, and everything that it must not. The registry is polled so rarely here that only a
 * notification can be why something changes.
 */
import { randomUUID } from "node:crypto"
import { Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Route, routes } from "../../src/api/Routes.ts"
import { newKey } from "../../src/domain/KeyText.ts"
import { hex, sha256, utf8 } from "../../src/domain/Sha256.ts"
import { burst } from "../../src/records/write/Denials.ts"
import { provision } from "../server/Provisioned.ts"
import { type Reply, type Sent, send } from "../server/Requests.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { query } from "../support/Database.ts"

const json = { "content-type": "application/json" }
let world: World
let people: Strategy
/** Two domains that trust the same strategies, tokens and keys; one that trusts tokens alone; one that trusts keys alone. */
let sales = ""
let stock = ""
let closed = ""
let machines = ""
let counter = 0

interface Row {
  readonly chain?: string | null
  readonly actor?: string
  readonly roles?: ReadonlyArray<string>
  readonly scopes?: unknown
  readonly ranges?: ReadonlyArray<string>
  readonly state?: "Pending" | "Active" | "Retiring" | "Revoked"
  readonly expiresAt?: string
  readonly retiresAt?: string
  readonly environment?: string
}

/** Puts a key where the operator puts one, as the operator, and answers it. */
const mint = async (row: Row = {}): Promise<string> => {
  const key = newKey(row.environment ?? "live")
  const chain = row.chain === undefined ? sales : row.chain
  await world.operator(
    `insert into platform.api_keys (key_hash, actor, chain, roles, scopes, ip_allowlist, state, expires_at, retires_at, revoked_at, source, namespace, name)
     select decode($1, 'hex'), $2, $3, array(select jsonb_array_elements_text($4::text::jsonb)), $5::text::jsonb,
       array(select jsonb_array_elements_text($6::text::jsonb)), $7, $8::text::timestamptz, $9::text::timestamptz,
       case when $7 = 'Revoked' then now() end, 'test', 'test', $10`,
    [
      hex(sha256(utf8(key))),
      row.actor ?? "keys/robot",
      chain,
      JSON.stringify(row.roles ?? ["admin"]),
      row.scopes === undefined ? null : JSON.stringify(row.scopes),
      JSON.stringify(row.ranges ?? []),
      row.state ?? "Active",
      row.expiresAt ?? null,
      row.retiresAt ?? null,
      `key-${counter++}`
    ]
  )
  await told(chain)
  return key
}
/** Notifies, and waits until a key that was made afterwards is known: then everything before it is. */
const told = async (chain: string | null) => {
  await world.operator("select pg_notify('velocity_registry', $1)", [`keys:${chain ?? "platform"}`])
  const marker = newKey("live")
  await world.operator(
    `insert into platform.api_keys (key_hash, actor, chain, state, revoked_at, source, namespace, name)
     values (decode($1, 'hex'), 'keys/marker', $2, 'Revoked', now(), 'test', 'test', $3)`,
    [hex(sha256(utf8(marker))), chain, `marker-${counter++}`]
  )
  await world.operator("select pg_notify('velocity_registry', $1)", [`keys:${chain ?? "platform"}`])
  await expect.poll(async () => (await ask(marker, `/api/me?path=${sales}`)).json.code).toBe("key_revoked")
}

const ask = (key: string | undefined, path: string, sent: Sent = {}): Promise<Reply> =>
  send(world.url, path, { ...sent, headers: { ...sent.headers, ...(key === undefined ? {} : { "x-api-key": key }) } })
const list = (chain: string) => `/api/${chain}/thing/v1`
const codeOf = async (key: string | undefined, path = list(sales), sent: Sent = {}) => {
  const reply = await ask(key, path, sent)
  return `${reply.status} ${reply.json?.code ?? ""}`.trim()
}

beforeAll(async () => {
  world = await makeWorld({
    variables: { VELOCITY_REGISTRY_POLL: "1h" },
    prepare: async (database, strategy) => {
      const { org } = database
      sales = `${org}/shop/sales`
      stock = `${org}/shop/stock`
      closed = `${org}/shop/closed`
      machines = `${org}/shop/machines`
      people = await strategy("people")
      const add = async (id: string, spec: unknown) => {
        await Effect.runPromise(
          query(database.operatorUrl, "insert into platform.auth_strategies (id, spec) values ($1, $2::text::jsonb)", [
            id,
            JSON.stringify(spec)
          ])
        )
      }
      await add("keys", { type: "apikey" })
      await add("both", { type: "composite", composite: { strategies: ["people", "keys"] } })
      await provision(
        database,
        [
          [sales, "both"],
          [stock, "both"],
          [closed, "people"],
          [machines, "keys"]
        ].map(([chain = "", id = ""]) => ({ chain, strategy: id, types: [thing(chain)] }))
      )
    }
  })
})
afterAll(() => world.stop())

describe("a key", () => {
  it("is its actor with its roles, in either header", async () => {
    const key = await mint({ roles: ["reader"] })
    expect(await codeOf(key)).toBe("200")
    expect(await codeOf(undefined, list(sales), { headers: { authorization: `ApiKey ${key}` } })).toBe("200")
    const me = await ask(key, `/api/me?path=${sales}`)
    expect([me.json.actor, me.json.strategy, me.json.roles, me.json.expires_at]).toEqual([
      "keys/robot",
      "keys",
      ["reader"],
      null
    ])
    expect(me.headers.vary).toContain("X-API-Key")
    expect(await codeOf(key, list(sales), { method: "POST", headers: json, body: '{"name":"a"}' })).toBe(
      "403 operation_not_granted"
    )
  })

  it("writes what its roles allow, and the log and the record name its actor", async () => {
    const key = await mint({ actor: "keys/writer", roles: ["clerk"] })
    const made = await ask(key, list(sales), { method: "POST", headers: json, body: `{"name":"${randomUUID()}"}` })
    expect([made.status, made.json.created_by]).toEqual([201, "keys/writer"])
    const entries = await world.look("select actor, outcome from platform.audit_log where entity_id = $1::uuid", [
      made.json.id
    ])
    expect(entries).toEqual([{ actor: "keys/writer", outcome: "ok" }])
  })

  it("has the roles that a binding gives its actor, and of all of them only what its scopes leave", async () => {
    await world.operator(
      `insert into platform.role_bindings (actor, chain, roles, source, namespace, name)
       values ('keys/bound', $1, '{clerk}', 'test', 'test', 'bound')`,
      [sales]
    )
    await world.operator("select pg_notify('velocity_registry', $1)", [`bindings:${sales}`])
    const wide = await mint({ actor: "keys/bound", roles: [] })
    const post = { method: "POST", headers: json }
    const body = () => ({ ...post, body: `{"name":"${randomUUID()}"}` })
    await expect.poll(() => codeOf(wide, list(sales), body())).toBe("201")
    const narrow = await mint({ actor: "keys/bound", roles: ["admin"], scopes: [{ operations: ["read"] }] })
    expect(await codeOf(narrow)).toBe("200")
    expect(await codeOf(narrow, list(sales), body())).toBe("403 operation_not_granted")
    const elsewhere = await mint({ actor: "keys/bound", roles: ["admin"], scopes: [{ object: "part" }] })
    expect(await codeOf(elsewhere)).toBe("403 operation_not_granted")
    const other = await mint({ roles: ["admin"], scopes: [{ object: "thing", version: "v2" }] })
    expect(await codeOf(other)).toBe("403 operation_not_granted")
  })

  it("whose scopes or ranges this replica does not understand opens nothing", async () => {
    expect(await codeOf(await mint({ scopes: [{ galaxy: "far" }] }))).toBe("401 key_unknown")
    expect(await codeOf(await mint({ ranges: ["everywhere"] }))).toBe("401 key_unknown")
  })
})

describe("a key is refused", () => {
  it("that is cut, longer, of another letter, or of another environment", async () => {
    const key = await mint()
    const flipped = key.slice(0, 20) + (key[20] === "A" ? "B" : "A") + key.slice(21)
    expect(await codeOf(key.slice(0, -1))).toBe("401 key_malformed")
    expect(await codeOf(`${key}x`)).toBe("401 key_malformed")
    expect(await codeOf("")).toBe("401 key_malformed")
    expect(await codeOf("x".repeat(8_000))).toBe("401 key_malformed")
    expect(await codeOf(flipped)).toBe("401 key_unknown")
    expect(await codeOf(key.replace("vel_live_", "vel_test_"))).toBe("401 key_environment")
    expect(await codeOf(await mint({ environment: "test" }))).toBe("401 key_environment")
    expect(await codeOf(key)).toBe("200")
  })

  it("that is its own hash, or SQL, or the name of something", async () => {
    const key = await mint()
    for (const one of [hex(sha256(utf8(key))), "vel_live_' or true --", "__proto__", "vel_live_%00"]) {
      expect(await codeOf(one)).toBe("401 key_malformed")
    }
  })

  it("that was not put in force yet, has expired, was rotated out for long, or was revoked", async () => {
    const past = new Date(Date.now() - 1_000).toISOString()
    const future = new Date(Date.now() + 3_600_000).toISOString()
    expect(await codeOf(await mint({ state: "Pending" }))).toBe("401 key_unknown")
    expect(await codeOf(await mint({ expiresAt: past }))).toBe("401 key_expired")
    expect(await codeOf(await mint({ expiresAt: future }))).toBe("200")
    expect(await codeOf(await mint({ state: "Retiring", retiresAt: future }))).toBe("200")
    expect(await codeOf(await mint({ state: "Retiring", retiresAt: past, expiresAt: future }))).toBe("401 key_expired")
    expect(await codeOf(await mint({ state: "Retiring", retiresAt: future, expiresAt: past }))).toBe("401 key_expired")
    expect(await codeOf(await mint({ state: "Revoked" }))).toBe("401 key_revoked")
  })

  it("from an address that is not allowed", async () => {
    expect(await codeOf(await mint({ ranges: ["127.0.0.0/8"] }))).toBe("200")
    expect(await codeOf(await mint({ ranges: ["192.0.2.0/24", "127.0.0.1"] }))).toBe("200")
    const elsewhere = await mint({ ranges: ["192.0.2.0/24", "::/0"] })
    expect(await codeOf(elsewhere)).toBe("401 key_address")
    // what a client says of its own address is nothing
    expect(
      await codeOf(elsewhere, list(sales), { headers: { "x-forwarded-for": "192.0.2.1", forwarded: "for=192.0.2.1" } })
    ).toBe("401 key_address")
  })

  it("beside a token, even a good one, and twice over", async () => {
    const key = await mint()
    const token = await world.token(people, { roles: ["admin"] })
    expect(await codeOf(undefined, list(sales), { token })).toBe("200")
    expect(await codeOf(key, list(sales), { token })).toBe("401 credentials_conflict")
    expect(await codeOf(key, list(sales), { headers: { authorization: `ApiKey ${key}` } })).toBe(
      "401 credentials_conflict"
    )
    expect(await codeOf(`${key}, ${key}`)).toBe("401 key_malformed")
  })

  it("as a bearer token, and a token as a key", async () => {
    const key = await mint()
    expect(await codeOf(undefined, list(sales), { token: key })).toBe("401 token_malformed")
    expect(await codeOf(await world.token(people, { roles: ["admin"] }))).toBe("401 key_malformed")
  })

  it("in the address, where logs would keep it", async () => {
    const key = await mint()
    expect(await codeOf(undefined, `/api/me?path=${sales}&x-api-key=${key}`)).toBe("401 token_missing")
  })

  it("with platform roles, which no domain's key has", async () => {
    const key = await mint({ roles: ["admin", "platform-admin"] })
    expect(await codeOf(key)).toBe("403 platform_role_refused")
    expect(await codeOf(key, "/api/platform/audit")).toBe("401 key_domain")
  })
})

describe("a domain", () => {
  it("takes keys where its strategy does, tokens where it does, and both of a composite", async () => {
    const here = await mint({ chain: machines })
    const shut = await mint({ chain: closed })
    const token = await world.token(people, { roles: ["admin"] })
    expect(await codeOf(here, list(machines))).toBe("200")
    expect(await codeOf(undefined, list(machines), { token })).toBe("404 not_found")
    expect(await codeOf(undefined, list(machines))).toBe("401 token_missing")
    expect(await codeOf(shut, list(closed))).toBe("404 not_found")
    expect(await codeOf(undefined, list(closed), { token })).toBe("200")
    expect(await codeOf(undefined, list(sales), { token })).toBe("200")
  })

  it("does not take a key whose actor is of a strategy that proves people", async () => {
    expect(await codeOf(await mint({ actor: "people/alice" }))).toBe("404 not_found")
  })

  it("stops taking keys as soon as its composite does", async () => {
    const key = await mint()
    const set = async (strategies: ReadonlyArray<string>) => {
      await world.operator(
        "update platform.auth_strategies set spec = $1::text::jsonb, generation = nextval('platform.generation_seq') where id = 'both'",
        [JSON.stringify({ type: "composite", composite: { strategies } })]
      )
      await world.operator("select pg_notify('velocity_registry', 'strategy:both')")
    }
    await set(["people"])
    await expect.poll(() => codeOf(key)).toBe("404 not_found")
    expect(await codeOf(undefined, list(sales), { token: await world.token(people, { roles: ["admin"] }) })).toBe("200")
    // a member that is not there, or is a composite itself, admits nobody
    await set(["both", "missing", "keys"])
    await expect.poll(() => codeOf(key)).toBe("200")
    await set(["people", "keys"])
    await expect
      .poll(async () => codeOf(undefined, list(sales), { token: await world.token(people, { roles: ["admin"] }) }))
      .toBe("200")
  })
})

describe("another domain's key", () => {
  const asked: Readonly<Record<string, Sent & { readonly below?: string }>> = {
    list: {},
    query: { method: "POST", headers: json, body: "{}", below: "/query" },
    create: { method: "POST", headers: json, body: '{"name":"x"}' },
    get: { below: "/ID" },
    patch: { method: "PATCH", headers: json, body: '{"note":"x"}', below: "/ID" },
    put: { method: "PUT", headers: json, body: '{"name":"x"}', below: "/ID" },
    delete: { method: "DELETE", below: "/ID" },
    restore: { method: "POST", below: "/ID/restore" },
    history: { below: "/ID/history" },
    proof: { below: "/ID/proof" }
  }

  it("has a case for each endpoint of records", () => {
    const names = routes.filter(({ group }) => group === "records").map(({ endpoint }: Route) => endpoint)
    expect(Object.keys(asked).sort()).toEqual(names.sort())
  })

  it("finds nothing, existing and missing alike, through every endpoint, and does nothing", async () => {
    const own = await mint({ chain: stock })
    const foreign = await mint({ chain: sales })
    const made = await ask(own, list(stock), { method: "POST", headers: json, body: '{"name":"theirs"}' })
    expect(made.status).toBe(201)
    const state = () =>
      world.look(`select id::text, version, name, deleted_at from ${stock.replaceAll("/", "_")}.thing_v1`)
    const before = await state()
    for (const { below = "", ...sent } of Object.values(asked)) {
      const path = below.replace("ID", made.json.id)
      const [there, missing] = await Promise.all([
        ask(foreign, list(stock) + path, sent),
        ask(foreign, `/api/${stock}x/thing/v1${path}`, sent)
      ])
      expect([there.status, there.json.code]).toEqual([404, "not_found"])
      const { requestId: _, ...told } = there.json
      const { requestId: __, ...toldOfMissing } = missing.json
      expect(told).toEqual(toldOfMissing)
    }
    expect(await codeOf(foreign, `/api/me?path=${stock}`)).toBe("404 not_found")
    for (const path of ["audit", "schemas", "anomalies", "audit/verify"]) {
      expect(await codeOf(foreign, `/api/platform/${path}`)).toBe("401 key_domain")
    }
    expect(await state()).toEqual(before)
  })
})

describe("the platform", () => {
  it("takes keys of its own where its strategy is a composite, and their platform roles", async () => {
    const key = await mint({ chain: null, actor: "keys/auditor", roles: ["platform-auditor"] })
    expect(await codeOf(key, "/api/platform/audit")).toBe("401 key_domain")
    const [kept] = await world.look("select spec from platform.auth_strategies where id = 'platform'")
    const set = async (id: string, spec: unknown) => {
      await world.operator(
        `insert into platform.auth_strategies (id, spec) values ($1, $2::text::jsonb)
         on conflict (id) do update set spec = excluded.spec, generation = nextval('platform.generation_seq')`,
        [id, JSON.stringify(spec)]
      )
      await world.operator("select pg_notify('velocity_registry', $1)", [`strategy:${id}`])
    }
    await set("staff", kept?.spec)
    await set("platform", { type: "composite", composite: { strategies: ["staff", "keys"] } })
    await expect.poll(() => codeOf(key, "/api/platform/audit")).toBe("200")
    expect(await codeOf(key, "/api/platform/anomalies")).toBe("200")
    // and the platform's key opens no domain
    expect(await codeOf(key)).toBe("404 not_found")
    const staff = await world.token(world.platform, { roles: ["platform-auditor"] })
    expect(await codeOf(undefined, "/api/platform/audit", { token: staff })).toBe("200")
    await set("platform", kept?.spec)
    await expect.poll(() => codeOf(key, "/api/platform/audit")).toBe("401 key_domain")
  })
})

describe("revocation", () => {
  it("takes effect by its notification alone, and so does the revocation of the actor", async () => {
    const key = await mint({ actor: "keys/leaver" })
    expect(await codeOf(key)).toBe("200")
    await world.operator(
      "update platform.api_keys set state = 'Revoked', revoked_at = now(), generation = nextval('platform.generation_seq') where key_hash = decode($1, 'hex')",
      [hex(sha256(utf8(key)))]
    )
    await world.operator("select pg_notify('velocity_registry', $1)", [`keys:${sales}`])
    await expect.poll(() => codeOf(key)).toBe("401 key_revoked")

    const other = await mint({ actor: "keys/leaver" })
    expect(await codeOf(other)).toBe("200")
    await world.operator("insert into platform.revoked_actors (actor) values ('keys/leaver')")
    await world.operator("select pg_notify('velocity_registry', 'revoked:keys/leaver')")
    await expect.poll(() => codeOf(other)).toBe("401 actor_revoked")
  })

  it("of long ago is forgotten: such a key is unknown", async () => {
    const key = await mint({ state: "Revoked" })
    expect(await codeOf(key)).toBe("401 key_revoked")
    await world.operator(
      "update platform.api_keys set revoked_at = now() - interval '31 days' where key_hash = decode($1, 'hex')",
      [hex(sha256(utf8(key)))]
    )
    await told(sales)
    expect(await codeOf(key)).toBe("401 key_unknown")
  })
})

describe("the audit log", () => {
  const denials = (where: string, params: ReadonlyArray<unknown> = []) =>
    world.look(
      `select actor, payload ->> 'code' as code, payload::text as payload from platform.audit_log where outcome = 'denied' and ${where}`,
      params
    )

  it("names whose key was refused, says why, and never the key", async () => {
    const key = await mint({ actor: "keys/known", state: "Revoked" })
    const requestId = randomUUID()
    const reply = await ask(key, list(sales), { headers: { "x-request-id": requestId } })
    expect(reply.headers["www-authenticate"]).toBe('ApiKey error="invalid_key", error_description="key_revoked"')
    const [entry] = await denials("request_id = $1", [requestId])
    expect([entry?.actor, entry?.code]).toEqual(["keys/known", "key_revoked"])
    for (const text of [JSON.stringify(entry), reply.text, JSON.stringify(reply.headers), JSON.stringify(world.logs)]) {
      expect(text).not.toContain(key.slice(9))
    }
  })

  it("is not flooded by keys that somebody tries", async () => {
    const before = (await denials("actor = 'anonymous'")).length
    for (let n = 0; n < burst + 30; n++) expect(await codeOf(newKey("live"))).toBe("401 key_unknown")
    expect((await denials("actor = 'anonymous'")).length - before).toBeLessThanOrEqual(burst)
  })
})

describe("a browser", () => {
  it("is told in the contract that a key will do", async () => {
    const { json: document } = await send(world.url, "/openapi.json")
    expect(document.components.securitySchemes.apiKey).toMatchObject({
      type: "apiKey",
      in: "header",
      name: "x-api-key"
    })
    const [operation] = Object.values(document.paths["/api/{org}/{app}/{domain}/{object}/{version}"]) as ReadonlyArray<{
      readonly security: ReadonlyArray<object>
    }>
    expect(operation?.security).toEqual([{ bearer: [] }, { apiKey: [] }])
  })
})
