/**
 * Every pair of domains and every role, kept apart through every endpoint.
 *
 * The endpoints are those of the route table, which is made of the contract: a new one without a case here fails.
 */
import { ConfigProvider, Effect, Layer } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { type Route, routes } from "../../src/api/Routes.ts"
import { type Operation, operations } from "../../src/domain/Operation.ts"
import * as PlanAnswers from "../../src/operator/PlanAnswers.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { provision } from "../server/Provisioned.ts"
import { type Reply, type Sent, send } from "../server/Requests.ts"
import { start } from "../server/Running.ts"
import { type ThingRole, thing, thingRoles } from "../server/Things.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { configOf } from "../support/Database.ts"
import { makeKeys, seal } from "../support/Sealing.ts"

interface Domain {
  readonly name: string
  readonly chain: string
  readonly strategy: Strategy
  /** A live record and a deleted one. */
  live: string
  deleted: string
}

const json = { "content-type": "application/json" }
const roles = Object.keys(thingRoles) as ReadonlyArray<ThingRole>
const roleSets = [...roles.map((role) => [role]), [...roles], [], ["platform"], ["nobody"]]
const marker = "only-for-its-own-domain"
let counter = 0
const fresh = (): string => JSON.stringify({ name: `made ${counter++}`, secret: marker })

interface Case {
  /** What of a record type is asked for, with a record of it that there is. */
  readonly ask: (path: string, domain: Domain) => readonly [string, Sent]
  readonly needs: Operation
}

/** A case for each endpoint of the group `records`. */
const recordCases: Readonly<Record<string, Case>> = {
  list: { needs: "read", ask: (path) => [path, {}] },
  query: { needs: "read", ask: (path) => [`${path}/query`, { method: "POST", headers: json, body: "{}" }] },
  create: { needs: "create", ask: (path) => [path, { method: "POST", headers: json, body: fresh() }] },
  get: { needs: "read", ask: (path, { live }) => [`${path}/${live}`, {}] },
  patch: {
    needs: "update",
    ask: (path, { live }) => [`${path}/${live}`, { method: "PATCH", headers: json, body: '{"note":"x"}' }]
  },
  put: {
    needs: "update",
    ask: (path, { live }) => [`${path}/${live}`, { method: "PUT", headers: json, body: `{"name":"put ${counter++}"}` }]
  },
  delete: { needs: "delete", ask: (path, { live }) => [`${path}/${live}`, { method: "DELETE" }] },
  restore: { needs: "restore", ask: (path, { deleted }) => [`${path}/${deleted}/restore`, { method: "POST" }] },
  history: { needs: "history", ask: (path, { live }) => [`${path}/${live}/history`, {}] },
  proof: { needs: "history", ask: (path, { live }) => [`${path}/${live}/proof`, {}] }
}
/** Cases of what is no record: how it is asked about a domain, and by whom it may be. */
const otherCases: Readonly<Record<string, (domain: Domain) => readonly [string, Sent]>> = {
  "me.me": ({ chain }) => [`/api/me?path=${chain}`, {}],
  "platform.schemas": ({ chain }) => [`/api/platform/schemas?chain=${chain}`, {}],
  "platform.audit": ({ chain }) => [`/api/platform/audit?chain=${chain}`, {}],
  "platform.verify": () => ["/api/platform/audit/verify", {}],
  "platform.tree": () => ["/api/platform/audit/tree", {}],
  "platform.checkpoint": () => ["/api/platform/audit/checkpoint", {}],
  "platform.consistency": () => ["/api/platform/audit/consistency?from=1&to=2", {}],
  "platform.proof": ({ chain }) => [`/api/platform/audit/${sealedEntries.get(chain)}/proof`, {}],
  "anomalies.list": ({ chain }) => [`/api/platform/anomalies?chain=${chain}`, {}],
  "anomalies.acknowledge": () => [
    `/api/platform/anomalies/${alert}/acknowledge`,
    { method: "POST", headers: json, body: '{"comment":"seen"}' }
  ],
  "anomalies.scan": ({ chain }) => [
    "/api/platform/anomalies/scan",
    {
      method: "POST",
      headers: json,
      body: JSON.stringify({
        rule: { name: "any", title: "Any", severity: "info", threshold: 1, match: { chains: [chain] } }
      })
    }
  ],
  "planning.plan": ({ chain }) => {
    const manifest = { apiVersion: "velocity.sh/v1", kind: "SchemaDefinition", spec: thing(chain) }
    return ["/api/platform/plan", { method: "POST", headers: json, body: JSON.stringify(manifest) }]
  },
  "privacy.erase": (domain) => [
    `${path(domain)}/${domain.live}/erase`,
    { method: "POST", headers: json, body: '{"reason":"asked for"}' }
  ]
}
/** By chain: an entry that is in the signed tree. */
const keys = Effect.runPromise(makeKeys())
const sealedEntries = new Map<string, string>()
/** The role that each of them is for. */
const rolesFor = (name: string): string =>
  ({
    "me.me": "admin",
    "privacy.erase": "platform-privacy",
    "anomalies.acknowledge": "platform-admin",
    "planning.plan": "platform-admin"
  })[name] ?? "platform-auditor"
/** Without a token, and without anything about tenants in the answer. */
const open = ["health.healthz", "health.readyz", "health.metrics", "docs.openapi", "docs.page", "docs.root"]

const nameOf = ({ endpoint, group }: Route): string => `${group}.${endpoint}`

let world: World
/** Makes the plans that are asked for; in a term of its own, which the next sealing ends. */
const planning = () =>
  start(
    PlanAnswers.layer.pipe(
      Layer.provide(Fence.layerOf({ holder: "test", source: "folder" })),
      Layer.provide(OperatorSql.layer),
      Layer.provide(ConfigProvider.layer(configOf(world.database)))
    )
  )
const domains: Array<Domain> = []
/** An alert about the first domain. */
let alert = ""
const path = ({ chain }: Pick<Domain, "chain">) => `/api/${chain}/thing/v1`
const ask = (token: string | undefined, [to, sent]: readonly [string, Sent]): Promise<Reply> =>
  send(world.url, to, token === undefined ? sent : { ...sent, token })

/** Everything that the tenants' tables and histories hold, and what the log says was done. */
const state = async (): Promise<string> => {
  const rows: Array<unknown> = []
  for (const { chain } of domains) {
    const schema = chain.replaceAll("/", "_").replaceAll("-", "_")
    rows.push(await world.look(`select id::text, version, name, deleted_at::text from ${schema}.thing_v1 order by id`))
  }
  rows.push(await world.look("select id::text, chain from platform.event_log order by id"))
  rows.push(await world.look("select id::text from platform.audit_log where outcome = 'ok' order by id"))
  return JSON.stringify(rows)
}

beforeAll(async () => {
  const wanted: Array<readonly [string, string, string]> = []
  world = await makeWorld({
    prepare: async (database, strategy) => {
      const { org } = database
      // two domains of one application, the same domain of another, and of another organisation; the last two share keys
      const shared = await strategy("shared")
      for (const [name, chain, of] of [
        ["sales", `${org}/shop/sales`, await strategy("sales")],
        ["stock", `${org}/shop/stock`, await strategy("stock")],
        ["depot", `${org}/depot/sales`, shared],
        ["other", `${org}x/shop/sales`, shared]
      ] as const) {
        wanted.push([name, chain, of.id])
        domains.push({ name, chain, strategy: of, live: "", deleted: "" })
      }
      await provision(
        database,
        wanted.map(([, chain, id]) => ({ chain, strategy: id, types: [thing(chain)] }))
      )
    }
  })
  for (const domain of domains) {
    const token = await world.token(domain.strategy, { roles: ["admin"] })
    const make = async () => {
      const reply = await ask(token, [path(domain), { method: "POST", headers: json, body: fresh() }])
      expect([reply.status, reply.json?.errors]).toEqual([201, undefined])
      return String(reply.json.id)
    }
    domain.live = await make()
    domain.deleted = await make()
    expect((await ask(token, [`${path(domain)}/${domain.deleted}`, { method: "DELETE" }])).status).toBe(204)
  }
  await seal(world.database, await keys)
  for (const { chain } of domains) {
    const [entry] = await world.look("select id::text as id from platform.audit_log where chain = $1 limit 1", [chain])
    sealedEntries.set(chain, String(entry?.id))
  }
  const [raised] = await world.operator("select platform.anomaly_raise($1::text::jsonb, '{}', now())::text as id", [
    JSON.stringify({
      rule: "any",
      title: "Any",
      severity: "info",
      chain: domains[0]?.chain,
      actor: "a/b",
      address: "",
      at: new Date().toISOString(),
      window_from: new Date().toISOString(),
      window_to: new Date().toISOString(),
      counted: 1,
      threshold: 1,
      explanation: []
    })
  ])
  alert = String(raised?.id)
})
afterAll(() => world.stop())

describe("the cases", () => {
  it("are those of the route table, each endpoint once", () => {
    const covered = [...Object.keys(recordCases).map((name) => `records.${name}`), ...Object.keys(otherCases), ...open]
    expect(covered.sort()).toEqual(routes.map(nameOf).sort())
  })
})

describe.each(routes.filter(({ group }) => group === "records").map(({ endpoint }) => endpoint))(
  "records.%s",
  (name) => {
    const one = recordCases[name] as Case

    it("is 401 without a token, for what exists and what does not", async () => {
      const before = await state()
      for (const domain of domains) {
        const there = await ask(undefined, one.ask(path(domain), domain))
        const nowhere = await ask(undefined, one.ask("/api/no/such/place/thing/v1", domain))
        expect([there.status, there.json.code]).toEqual([401, "token_missing"])
        expect([nowhere.status, nowhere.json.code, nowhere.json.title]).toEqual([
          401,
          there.json.code,
          there.json.title
        ])
      }
      expect(await state()).toBe(before)
    })

    it("is 404 with another domain's token, whatever roles it claims, and alike for what is missing", async () => {
      const before = await state()
      for (const holder of domains) {
        for (const target of domains) {
          if (holder.strategy === target.strategy) continue
          for (const claimed of roleSets) {
            const token = await world.token(holder.strategy, { roles: claimed, attributes: { store_id: "s1" } })
            const there = await ask(token, one.ask(path(target), target))
            const missing = await ask(token, one.ask(`/api/${target.chain}x/thing/v1`, target))
            expect([there.status, there.json.code]).toEqual([404, "not_found"])
            const { requestId: _, ...told } = there.json
            const { requestId: __, ...toldOfMissing } = missing.json
            expect(told).toEqual(toldOfMissing)
            expect(there.text).not.toContain(marker)
          }
        }
      }
      expect(await state()).toBe(before)
    })

    it("is 404 for the platform's own, and 403 for a tenant who claims to be it", async () => {
      const before = await state()
      for (const target of domains) {
        const platform = await world.token(world.platform, { roles: ["platform-admin", "admin"] })
        expect((await ask(platform, one.ask(path(target), target))).status).toBe(404)
        const claims = await world.token(target.strategy, { roles: ["admin", "platform-admin"] })
        const refused = await ask(claims, one.ask(path(target), target))
        expect([refused.status, refused.json.code]).toEqual([403, "platform_role_refused"])
      }
      expect(await state()).toBe(before)
    })

    it("does not find a record of one domain under another, also where both trust the same keys", async () => {
      const before = await state()
      for (const holder of domains) {
        for (const target of domains) {
          if (holder === target || name === "list" || name === "query" || name === "create") continue
          const token = await world.token(holder.strategy, { roles: ["admin"] })
          const reply = await ask(token, one.ask(path(holder), target))
          expect([holder.name, target.name, reply.status]).toEqual([holder.name, target.name, 404])
        }
      }
      expect(await state()).toBe(before)
    })

    it("is done for the roles that grant it, and refused to every other", async () => {
      if (name === "proof") await seal(world.database, await keys)
      for (const domain of domains) {
        for (const role of roles) {
          const granted = (thingRoles[role] as ReadonlyArray<string>).includes(one.needs)
          const before = granted ? "" : await state()
          const token = await world.token(domain.strategy, { roles: [role], attributes: { store_id: "s1" } })
          const reply = await ask(token, one.ask(path(domain), domain))
          if (granted) {
            // a store sees none of these rows
            expect([role, reply.status]).toEqual([role, role === "store" && name === "get" ? 404 : reply.status])
            expect(reply.status).toBeLessThan(role === "store" ? 405 : 300)
            if (name === "delete") await restored(domain)
            if (name === "restore") await removed(domain)
          } else {
            expect([role, reply.status, reply.json.code]).toEqual([role, 403, "operation_not_granted"])
            expect(await state()).toBe(before)
          }
        }
        const before = await state()
        for (const none of [[], ["nobody"], ["reader-admin"], ["Admin"]]) {
          const token = await world.token(domain.strategy, { roles: none })
          const reply = await ask(token, one.ask(path(domain), domain))
          expect([none, reply.status, reply.json.code]).toEqual([none, 403, "operation_not_granted"])
        }
        expect(await state()).toBe(before)
      }
    })

    it("counts a binding in its own domain alone", async () => {
      if (name === "proof") await seal(world.database, await keys)
      const [home, foreign] = domains.filter(({ strategy }) => strategy.id === "shared") as [Domain, Domain]
      const sub = `bound-${name}`
      await world.operator(
        `insert into platform.role_bindings (id, actor, chain, roles, scopes, generation, source, namespace, name)
       values (gen_random_uuid(), $1, $2, '{admin}', null, nextval('platform.generation_seq'), 'test', 'test', $3)`,
        [`shared/${sub}`, home.chain, sub]
      )
      await world.operator("select pg_notify('velocity_registry', $1)", [`bindings:${home.chain}`])
      const token = await world.token(home.strategy, { sub, roles: [] })
      await expect
        .poll(async () => (await send(world.url, `/api/me?path=${home.chain}`, { token })).json.roles)
        .toEqual(["admin"])
      expect((await ask(token, one.ask(path(home), home))).status).toBeLessThan(300)
      if (name === "delete") await restored(home)
      if (name === "restore") await removed(home)
      const reply = await ask(token, one.ask(path(foreign), foreign))
      expect([reply.status, reply.json.code]).toEqual([403, "operation_not_granted"])
    })
  }
)

const restored = async (domain: Domain) => {
  const token = await world.token(domain.strategy, { roles: ["admin"] })
  expect((await ask(token, [`${path(domain)}/${domain.live}/restore`, { method: "POST" }])).status).toBe(200)
}
const removed = async (domain: Domain) => {
  const token = await world.token(domain.strategy, { roles: ["admin"] })
  expect((await ask(token, [`${path(domain)}/${domain.deleted}`, { method: "DELETE" }])).status).toBe(204)
}

describe.each(Object.keys(otherCases))("%s", (name) => {
  const to = otherCases[name] as (domain: Domain) => readonly [string, Sent]

  it("tells nothing to another domain's token, and does nothing for it", async () => {
    const before = await state()
    for (const holder of domains) {
      for (const target of domains) {
        for (const claimed of roleSets) {
          const token = await world.token(holder.strategy, { roles: claimed })
          const reply = await ask(token, to(target))
          if (name === "me.me" && holder.strategy === target.strategy) {
            expect(reply.status).toBe(200)
            continue
          }
          expect([reply.status, reply.json.code]).toEqual(name === "me.me" ? [404, "not_found"] : [401, "token_issuer"])
          expect(reply.text).not.toContain(marker)
        }
        const claims = await world.token(holder.strategy, {
          roles: ["platform-admin", "platform-auditor", "platform-privacy"]
        })
        expect((await ask(claims, to(target))).status).toBeGreaterThanOrEqual(401)
      }
      expect((await ask(undefined, to(holder))).status).toBe(401)
    }
    expect(await state()).toBe(before)
  })

  it("answers whom it is for, without contents of records", async () => {
    const [domain] = domains as [Domain]
    const strategy = name === "me.me" ? domain.strategy : world.platform
    for (const role of name === "me.me" ? [] : ["admin", "platform", "platform-none", "platform-auditor"]) {
      if (role === rolesFor(name)) continue
      const reply = await ask(await world.token(strategy, { roles: [role] }), to(domain))
      expect([role, reply.status, reply.json.code]).toEqual([role, 403, "operation_not_granted"])
    }
    const operator = name === "planning.plan" ? await planning() : undefined
    const reply = await ask(await world.token(strategy, { roles: [rolesFor(name)] }), to(domain))
    await operator?.stop()
    expect(reply.status).toBe(200)
    expect(reply.text).not.toContain(marker)
  })
})

describe.each(open)("%s", (name) => {
  const route = routes.find((one) => nameOf(one) === name) as Route
  it("says nothing about tenants", async () => {
    const reply = await send(world.url, route.template)
    expect([200, 303]).toContain(reply.status)
    expect(reply.text).not.toContain(world.database.org)
    expect(reply.text).not.toContain(marker)
  })
})

describe("the operations", () => {
  it("are each granted by some role and refused by another, so that both are shown", () => {
    for (const operation of operations) {
      const granting = roles.filter((role) => (thingRoles[role] as ReadonlyArray<string>).includes(operation))
      expect(granting.length).toBeGreaterThan(0)
      expect(operation === "read" ? 0 : granting.length).toBeLessThan(roles.length)
    }
  })
})
