/**
 * `POST /api/platform/plan`, from one end to the other: a server and an operator under their real logins. What is answered is
 * what `velocity schema plan --database-url` says, and the plan that applying then makes; nobody but an operator can answer.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Duration, Effect, Exit, Layer, Schedule, Scope, Stream } from "effect"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import * as PlanAnswers from "../../src/operator/PlanAnswers.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Server from "../../src/server/Server.ts"
import { run, start as startChild } from "../cli/Run.ts"
import { configOf, connect, query } from "../support/Database.ts"
import { provision } from "./Provisioned.ts"
import { send } from "./Requests.ts"
import { type Running, start } from "./Running.ts"
import { makeWorld, type Strategy, type World } from "./World.ts"

let world: World
/** The same, which waits for an operator a third of a second. */
let impatient: Running<Server.ServerAddress>
let shop: Strategy
let other: Strategy
let org: string
let folder: string
let planner: string
let ids: ReadonlyArray<string>

const access = { roles: [{ role: "buyer", operations: ["create", "read", "update"] }] }
const secret = "4815162342"
const before = [
  { name: "a", type: "string" },
  { name: "salary", type: "integer" }
]

const spec = (fields: ReadonlyArray<unknown>, more: object = {}) => ({
  org,
  app: "shop",
  domain: "eu",
  object: "thing",
  version: "v1",
  fields,
  access,
  ...more
})
const manifest = (fields: ReadonlyArray<unknown>, more: object = {}) => ({
  apiVersion: "velocity.sh/v1",
  kind: "SchemaDefinition",
  metadata: { name: "eu-thing", namespace: "test" },
  spec: spec(fields, more)
})
/** Drops a field, bounds another that a record breaks, and indexes a third. */
const changed = () =>
  manifest([
    { name: "a", type: "string", indexed: true },
    { name: "b", type: "integer" }
  ])

const chain = () => `${org}/shop/eu`
const ask = (body: unknown, token = planner, path = `?path=${chain()}`, url = world.url) =>
  send(url, `/api/platform/plan${path}`, {
    method: "POST",
    token,
    headers: { "content-type": "application/json" },
    body: typeof body === "string" ? body : JSON.stringify(body)
  })

const until = (sql: string, is: (rows: ReadonlyArray<Record<string, unknown>>) => boolean) =>
  Effect.runPromise(
    Effect.promise(() => world.look(sql)).pipe(Effect.repeat({ until: is, schedule: Schedule.spaced("20 millis") }))
  )

/** Whatever a test started, ended after it. */
let scope = Scope.makeUnsafe()
afterEach(async () => {
  await Effect.runPromise(Scope.close(scope, Exit.void))
  scope = Scope.makeUnsafe()
})

const built = <A, E>(layer: Layer.Layer<A, E>) => Effect.runPromise(Layer.buildWithScope(layer, scope))

/** What answers of an operator, with a term of its own: the world's domains are in no folder. */
const operate = () => {
  const fence = Fence.layerOf({ holder: "test", source: Operator.folderSource })
  return built(
    PlanAnswers.layer.pipe(
      Layer.provide(fence),
      Layer.provide(OperatorSql.layer),
      Layer.provide(ConfigProvider.layer(configOf(world.database)))
    )
  )
}

/** A whole operator. */
const operateOn = async (manifests: string) => {
  const context = await built(
    Operator.layerWithSql({ manifests, quiet: Duration.zero }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(world.database)))
    )
  )
  return Effect.runPromise(OperatorStatus.pipe(Effect.provide(context)))
}

const domainLock = (domain: string) =>
  `select pg_advisory_xact_lock(hashtextextended('velocity/provision/${domain}', 0))::text`

/** Holds a lock, by default that under which the domain is changed, so that a plan is not ready before it is let go. */
const holding = (lock = domainLock(chain())) =>
  Effect.runPromise(
    Effect.gen(function* () {
      const connection = yield* Scope.provide(connect(world.database.superuserUrl), scope)
      yield* connection.query("begin")
      yield* connection.query(lock)
      return () => Effect.runPromise(connection.query("rollback"))
    })
  )

beforeAll(async () => {
  world = await makeWorld({
    settings: { planTimeout: 100_000, requestTimeout: 110_000 },
    prepare: async (database, make) => {
      org = database.org
      shop = await make("shop")
      other = await make("other")
      await provision(database, [
        { chain: chain(), strategy: shop.id, types: [spec(before)] },
        { chain: `${org}/shop/us`, strategy: other.id, types: [] }
      ])
    }
  })
  impatient = await start(
    Server.layer({ host: "127.0.0.1", port: 0, planTimeout: 300 }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(world.database)))
    )
  )
  folder = await mkdtemp(join(tmpdir(), "velocity-plans-"))
  await writeFile(join(folder, "none.yaml"), "# nothing\n")
  planner = await world.token(shop, { roles: ["schema-planner"] })
  ids = (
    await world.look(
      `insert into ${org}_shop_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a, salary)
       select gen_random_uuid(), now(), 'x', now(), 'x', 'same', ${secret} + n from generate_series(1, 3) n returning id::text as id`
    )
  ).map((row) => String(row.id))
}, 60_000)
afterAll(async () => {
  await impatient.stop()
  await world.stop()
  await rm(folder, { recursive: true })
})

const hurried = () => impatient.get(Server.ServerAddress).url
const open = () => world.look("select id::text as id, answer from platform.plan_requests")

describe("a plan that is asked for", () => {
  it("is the one that velocity schema plan makes of the database, for planner and platform-admin", async () => {
    await operate()
    const file = join(folder, "asked.json")
    await writeFile(file, JSON.stringify(changed()))
    const told = await run(["schema", "plan", "-f", file, "--database-url", world.database.operatorUrl, "-o", "json"])
    expect(told).toMatchObject({ code: 0, err: "" })
    const [of] = JSON.parse(told.out)
    expect(of.steps.map((one: { does: string }) => one.does)).toContain("drop field salary")
    const asked = await ask(changed())
    expect([asked.status, asked.json]).toEqual([200, of])
    const admin = await world.token(world.platform, { roles: ["platform-admin"] })
    // kubectl's fields and no metadata at all are one and the same
    const { metadata: _, ...bare } = changed()
    expect((await ask(bare, admin, "")).json).toEqual(of)
    const byHand = await run(["schema", "plan", "-f", file, "--api", world.url, "--token", planner, "-o", "json"])
    expect(byHand).toMatchObject({ code: 0, err: "" })
    expect(JSON.parse(byHand.out)).toEqual([of])
    const asAdmin = await run(["schema", "plan", "-f", file, "--api", world.url, "--token", admin, "--platform"])
    expect(asAdmin.out).toContain(`velocity schema approve ${of.hash}`)
    const stranger = await run(["schema", "plan", "-f", file, "--api", world.url, "--token", admin])
    expect(stranger).toMatchObject({ code: 1, out: "" })
    expect(stranger.err).toContain("404 not_found")
    expect((await ask(manifest(before))).json).toEqual({ path: `${chain()}/thing/v1`, state: "unchanged", steps: [] })
    expect(await open()).toEqual([])
    // nothing was changed by any of it
    expect(await world.look("select count(*)::int4 as n from platform.plans")).toEqual([{ n: 0 }])
  })

  it("tells how many records break a rule, and neither which nor with what", async () => {
    await operate()
    const bound = manifest([
      { name: "a", type: "string", unique: true },
      { name: "salary", type: "integer", required: true, max: 5 }
    ])
    const doubled = await ask(bound)
    expect([doubled.status, doubled.json.code]).toEqual([422, "definition_refused"])
    expect(doubled.json.detail).toMatch(/^DataConflict: /u)
    expect(doubled.json.errors).toEqual([
      { pointer: "/spec/fields/0/unique", code: expect.any(String), detail: "not unique: 1 value" }
    ])
    const broken = await ask(
      manifest([
        { name: "a", type: "string" },
        { name: "salary", type: "integer", max: 5 }
      ])
    )
    expect(broken.status).toBe(200)
    expect(broken.text).toContain("is not kept by 3 records;")
    for (const { text } of [doubled, broken]) {
      expect(text).not.toContain(secret.slice(0, 6))
      for (const id of ids) expect(text).not.toContain(id)
    }
    // whoever has the database's credentials is told
    const file = join(folder, "bound.json")
    await writeFile(file, JSON.stringify(bound))
    const told = await run(["schema", "plan", "-f", file, "--database-url", world.database.operatorUrl])
    expect(ids.some((id) => told.out.includes(id))).toBe(true)
  })

  it("is refused where the definition is wrong, by pointers into the manifest, without an operator", async () => {
    const wrong = await ask(manifest([{ name: "a", type: "string", min: 3, masks: true }]))
    expect([wrong.status, wrong.json.code]).toEqual([422, "definition_refused"])
    expect(wrong.json.errors.map((one: { pointer: string }) => one.pointer)).toEqual(["/spec/fields/0/masks"])
    const rule = await ask(
      manifest([{ name: "a", type: "string" }], {
        validation: { rules: [{ rule: "self.nothing == 1 +", message: "x" }] }
      })
    )
    expect(rule.json.errors.map((one: { pointer: string }) => one.pointer)).toEqual(["/spec/validation/rules/0/rule"])
    const kind = await ask({ ...changed(), kind: "Organisation", spec: { org } })
    expect([kind.status, kind.json.errors?.[0]?.pointer]).toEqual([422, "/kind"])
    expect((await ask("[]")).status).toBe(422)
    expect([(await ask("{")).status, (await ask('{"a":1,"a":2}')).json.code]).toEqual([400, "malformed_json"])
    const large = await ask(JSON.stringify({ ...changed(), padding: "x".repeat(1024 * 1024) }))
    expect([large.status, large.json.code]).toEqual([413, "payload_too_large"])
    expect(await open()).toEqual([])
  })

  it("is for schema-planner of the definition's domain, and for nobody else", async () => {
    const tokenOf = (strategy: Strategy, ...roles: ReadonlyArray<string>) => world.token(strategy, { roles })
    for (const roles of [[], ["buyer"], ["admin"], ["schema-planner-x"]]) {
      const reply = await ask(changed(), await tokenOf(shop, ...roles))
      expect([roles, reply.status, reply.json.code]).toEqual([roles, 403, "operation_not_granted"])
    }
    // the domain is said by the path, and the definition must be of it
    const elsewhere = await ask(changed(), await tokenOf(other, "schema-planner"), `?path=${org}/shop/us`)
    expect([elsewhere.status, elsewhere.json.errors?.[0]?.pointer]).toEqual([422, "/spec"])
    for (const path of [chain(), `${org}/shop/nowhere`, "no/such/place"]) {
      const reply = await ask(changed(), await tokenOf(other, "schema-planner"), `?path=${path}`)
      expect([path, reply.status, reply.json.code]).toEqual([path, 404, "not_found"])
    }
    expect((await ask(changed(), planner, `?path=${chain()}/thing/v1`)).status).toBe(404)
    expect((await ask(changed(), planner, "")).status).toBe(401)
    for (const role of ["platform-auditor", "schema-planner", "platform-privacy"]) {
      expect((await ask(changed(), await tokenOf(world.platform, role), "")).status).toBe(403)
    }
    expect((await ask(changed(), await tokenOf(shop, "schema-planner", "platform-admin"))).json.code).toBe(
      "platform_role_refused"
    )
    // a binding to one record type is not one to the domain
    const narrowed = async (name: string, scopes: string | null) => {
      await world.operator(
        `insert into platform.role_bindings (id, actor, chain, roles, scopes, generation, source, namespace, name)
         values (gen_random_uuid(), $1, $2, '{schema-planner}', $3::text::jsonb, nextval('platform.generation_seq'), 'test', 'test', $4)`,
        [`shop/${name}`, chain(), scopes, name]
      )
      await world.operator("select pg_notify('velocity_registry', $1)", [`bindings:${chain()}`])
      const token = await world.token(shop, { sub: name, roles: [] })
      const roles = async () => (await send(world.url, `/api/me?path=${chain()}/thing/v1`, { token })).json.roles
      await expect.poll(roles).toEqual(["schema-planner"])
      return ask(changed(), token, `?path=${chain()}`, hurried())
    }
    expect((await narrowed("nan", '[{"object":"thing"}]')).status).toBe(403)
    expect((await narrowed("ned", null)).json.code).toBe("no_operator")
    // of a domain that is not there the operator knows
    await operate()
    const admin = await tokenOf(world.platform, "platform-admin")
    const missing = await ask({ ...changed(), spec: { ...changed().spec, domain: "nowhere" } }, admin, "")
    expect([missing.status, missing.json.code]).toEqual([404, "not_found"])
  })

  it("is 503 in its time where no operator is at work, and leaves nothing behind", async () => {
    const reply = await ask(changed(), planner, undefined, hurried())
    expect([reply.status, reply.json.code, reply.headers["retry-after"]]).toEqual([503, "no_operator", "10"])
    expect(await open()).toEqual([])
  })

  it("is answered each by its own, several at once, and no more than four of one actor", async () => {
    await operate()
    const letGo = await holding()
    const versions = ["b", "c", "d", "e"].map((name) =>
      manifest([
        { name: "a", type: "string" },
        { name, type: "uuid" }
      ])
    )
    const asked = versions.map((one) => ask(one))
    await until("select id from platform.plan_requests", (rows) => rows.length === 4)
    const fifth = await ask(changed(), planner, undefined, hurried())
    expect([fifth.status, fifth.json.code]).toEqual([503, "busy"])
    await letGo()
    const replies = await Promise.all(asked)
    expect(replies.map(({ status }) => status)).toEqual([200, 200, 200, 200])
    for (const [index, { json }] of replies.entries()) {
      const name = ["b", "c", "d", "e"][index]
      expect(json.steps.some(({ sql }: { sql: string }) => sql.includes(`add column "${name}" uuid`))).toBe(true)
    }
    expect(new Set(replies.map(({ json }) => json.hash)).size).toBe(4)
    expect(await open()).toEqual([])
  })
})

describe("velocity_api", () => {
  const api = (role: string | undefined, sql: string) =>
    Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(world.database.apiUrl)
          yield* connection.query("begin")
          if (role !== undefined) yield* connection.query("select set_config('role', $1, true)", [role])
          return (yield* connection.query(sql)).rows
        })
      )
    )

  it("asks, and can neither answer, nor change what was asked, nor see what others ask", async () => {
    const letGo = await holding()
    const asked = ask(changed(), planner, undefined, world.url)
    await until("select id from platform.plan_requests", (rows) => rows.length === 1)
    const [request] = await open()
    const forged = JSON.stringify({ _tag: "Shown", plan: { path: "x", state: "unchanged", steps: [] } })
    for (const role of [undefined, "velocity_gateway", "velocity_auditor", `${org}_shop_eu_admin`]) {
      for (const sql of [
        `select platform.plan_answer('${request?.id}', '${forged}')`,
        `update platform.plan_requests set answer = '${forged}'`,
        "update platform.plan_requests set manifest = '{}'",
        "insert into platform.plan_requests (chain, actor, manifest, wanted_until, answer) values ('a', 'b', '{}', now(), '{}')",
        "delete from platform.plan_requests",
        "select * from platform.plan_requests"
      ]) {
        await expect(api(role, sql), `${role}: ${sql}`).rejects.toThrow()
      }
    }
    // whoever says that there is an answer is not believed
    await api(undefined, `select pg_notify('velocity_plan_answered', '${request?.id}')::text as sent`)
    await Effect.runPromise(
      query(world.database.apiUrl, `select pg_notify('velocity_plan_answered', '${request?.id}')::text as sent`)
    )
    await operate()
    await letGo()
    expect((await asked).json.hash).toMatch(/^p[0-9a-f]{32}$/u)
  })

  it("is not believed by the operator, whatever it asks", async () => {
    await operate()
    const say = async (domain: string, text: string) => {
      const [row] = await Effect.runPromise(
        Effect.scoped(
          Effect.gen(function* () {
            const connection = yield* connect(world.database.apiUrl)
            yield* connection.query("begin")
            yield* connection.query("select set_config('role', 'velocity_gateway', true)")
            const { rows } = yield* connection.query("select platform.plan_ask($1, 'x/y', $2, 60000)::text as id", [
              domain,
              text
            ])
            yield* connection.query("commit")
            return rows
          })
        )
      )
      const id = String((row as { id?: unknown } | undefined)?.id)
      await until(`select answer from platform.plan_requests where id = '${id}'`, ([one]) => one?.answer !== null)
      const [found] = await world.look("delete from platform.plan_requests where id = $1::uuid returning answer", [id])
      return JSON.parse(String(found?.answer))
    }
    const invalid = { _tag: "Refused", reason: "Invalid" }
    expect(await say(chain(), "no JSON")).toMatchObject(invalid)
    expect(await say(chain(), "null")).toMatchObject(invalid)
    expect(await say(chain(), "[]")).toMatchObject(invalid)
    expect(await say(`${org}/shop/us`, JSON.stringify(changed()))).toMatchObject({
      ...invalid,
      message: "the definition is of another domain"
    })
    const sql = manifest([{ name: `a" text); drop table platform.secrets; --`, type: "string" }])
    expect(await say(chain(), JSON.stringify(sql))).toMatchObject(invalid)
  })

  it("asks for no more than it may: its size, its time, 64 in all", async () => {
    const asking = (manifest: string, within: number) =>
      api("velocity_gateway", `select platform.plan_ask('a', 'b', ${manifest}, ${within})`)
    await expect(asking("repeat('x', 2097153)", 1_000)).rejects.toThrow()
    await expect(asking("'{}'", 300_001)).rejects.toThrow()
    await expect(asking("'{}'", 0)).rejects.toThrow()
    await expect(asking("null", 1_000)).rejects.toThrow()
    const many = (n: number) =>
      api(
        "velocity_gateway",
        `select count(platform.plan_ask('a', 'b' || i, '{}', 1000)) from generate_series(1, ${n}) i`
      )
    await many(64)
    await expect(many(65)).rejects.toThrow()
  })
})

// it finds the world's domains in no folder, and takes their strategies away
describe("beside a whole operator, a plan", () => {
  let own: string
  beforeAll(async () => {
    own = await mkdtemp(join(tmpdir(), "velocity-plans-"))
  })
  afterAll(() => rm(own, { recursive: true }))

  it("is the plan that applying then makes", async () => {
    const of = { org, app: "desk", domain: "eu" }
    const parts = (fields: ReadonlyArray<unknown>) => [
      { kind: "Organisation", metadata: { name: org }, spec: { org } },
      { kind: "Application", metadata: { name: "desk", namespace: org }, spec: { org, app: "desk" } },
      { kind: "Domain", metadata: { name: "eu", namespace: `${org}-desk` }, spec: of },
      {
        kind: "SchemaDefinition",
        metadata: { name: "thing", namespace: `${org}-desk-eu` },
        spec: { ...spec(fields), ...of }
      }
    ]
    const write = (fields: ReadonlyArray<unknown>) =>
      writeFile(
        join(own, "all.yaml"),
        parts(fields)
          .map((one) => JSON.stringify({ apiVersion: "velocity.sh/v1", ...one }))
          .join("\n---\n")
      )
    await write(before)
    const status = await operateOn(own)
    await Effect.runPromise(status.settled)
    await world.look(
      `insert into ${org}_desk_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a) values (gen_random_uuid(), now(), 'x', now(), 'x', 'c')`
    )
    const next = [{ name: "a", type: "string", indexed: true, maxLength: 20 }]
    const admin = await world.token(world.platform, { roles: ["platform-admin"] })
    const asked = await ask({ apiVersion: "velocity.sh/v1", ...parts(next)[3] }, admin, "")
    expect([asked.status, asked.json.state]).toEqual([200, "waits for approval"])
    await write(next)
    const made = await Effect.runPromise(
      Effect.andThen(
        status.look,
        Stream.merge(Stream.succeed(undefined), status.changes).pipe(
          Stream.map(() => status.resources().find((one) => one.identity === `SchemaDefinition/${org}-desk-eu/thing`)),
          Stream.filter((one) => one?.conditions.some(({ reason }) => reason === "ApprovalRequired") === true),
          Stream.runHead
        )
      )
    )
    expect(made).toMatchObject({ value: { status: { plan: { hash: asked.json.hash } } } })
    const steps = await world.look(
      `select s.phase, s.does, s.sql, s.lock from platform.plan_steps s join platform.plans p on p.id = s.plan_id
       where p.plan_hash = $1 order by s.position`,
      [asked.json.hash]
    )
    expect(steps).toEqual(
      asked.json.steps.map(({ does, lock, phase, sql }: Record<string, string>) => ({ phase, does, sql, lock }))
    )
  })

  it("is answered by whoever operates next, where the operator is killed while it makes it", async () => {
    const desk = `${org}/desk/eu`
    const { metadata: _, ...asking } = changed()
    const letGo = await holding(domainLock(desk))
    const child = startChild(["operator", "--manifests", own], {
      VELOCITY_OPERATOR_DATABASE_URL: world.database.operatorUrl
    })
    const admin = await world.token(world.platform, { roles: ["platform-admin"] })
    const asked = ask({ ...asking, spec: { ...asking.spec, app: "desk" } }, admin, "")
    // what this operator has of the domain waits for an approval, so only the plan wants its lock
    await until(
      `select pid from pg_locks where locktype = 'advisory' and not granted
         and database = (select oid from pg_database where datname = current_database())`,
      ([one]) => one !== undefined
    )
    child.process.kill("SIGKILL")
    await child.ended
    expect(await open()).toMatchObject([{ answer: null }])
    await letGo()
    await operate()
    expect((await asked).status).toBe(200)
    expect(await open()).toEqual([])
  })
})
