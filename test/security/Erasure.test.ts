/**
 * Erasing a record, over HTTP under the real roles: who may, that its contents are nowhere in the database afterwards, that
 * everything which was proved of it stays proved, and that nothing is ever half erased.
 */
import { randomBytes } from "node:crypto"
import { ConfigProvider, Effect, Exit, Layer, Scope } from "effect"
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest"
import { type AuditEntry, entryHash } from "../../src/domain/AuditEntry.ts"
import * as ErasedTables from "../../src/operator/retention/ErasedTables.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { sqlStateOf } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { provision } from "../server/Provisioned.ts"
import { type Reply, type Sent, send } from "../server/Requests.ts"
import { part, thing } from "../server/Things.ts"
import { makeWorld, type Strategy, type World } from "../server/World.ts"
import { configOf, connect, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import * as TcpProxy from "../support/TcpProxy.ts"

const scope = Scope.makeUnsafe()
let database: TestDatabase
let proxy: TcpProxy.TcpProxy
let world: World
let sales: Strategy
let chain: string
let schema: string
let things: string
let parts: string
let admin: string
let officer: string
const json = { "content-type": "application/json" }
const ask = (path: string, sent: Sent = {}) => send(world.url, path, { token: admin, ...sent })
const post = (path: string, body: unknown, sent: Sent = {}) =>
  ask(path, { method: "POST", ...sent, headers: { ...json, ...sent.headers }, body: JSON.stringify(body) })
const erase = (id: string, body: unknown = { reason: "asked for by the person", ticket: "DSR-12" }, sent: Sent = {}) =>
  post(`${things}/${id}/erase`, body, { token: officer, ...sent })
const codeOf = ({ json: body, status }: Reply) => [status, body?.code]

/** A value that stands nowhere else. */
const marker = () => `person-${randomBytes(9).toString("hex")}`

/** A thing with a past: created with a key, changed twice; all of its values hold the marker. */
const lived = async (name = marker()) => {
  const made = await post(
    things,
    { name, note: `note ${name}`, secret: `secret ${name}`, hidden: name, data: { deep: [name] }, store_id: "s1" },
    { headers: { "idempotency-key": `key-${name.slice(-8)}` } }
  )
  expect(made.status).toBe(201)
  const id = String(made.json.id)
  const patch = (body: unknown) =>
    ask(`${things}/${id}`, {
      method: "PATCH",
      headers: { ...json, "idempotency-key": `patch-${randomBytes(6).toString("hex")}` },
      body: JSON.stringify(body)
    })
  expect((await patch({ note: `other ${name}` })).status).toBe(200)
  expect((await patch({ secret: `other ${name}` })).status).toBe(200)
  return { id, name, patch }
}

/** Tables, of ours and of Postgres's own, that hold a text somewhere. */
const holding = async (text: string) => {
  const tables = await world.look(
    `select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where c.relkind in ('r', 'm') and n.nspname !~ '^pg_toast' and n.nspname <> 'information_schema' order by 1`
  )
  expect(tables.length).toBeGreaterThan(60)
  const found: Array<string> = []
  for (const { name } of tables) {
    const [row] = await world.look(
      `select count(*)::int4 as n from ${name} t where strpos(t::text, $1) > 0 or strpos(t::text, encode(convert_to($1, 'UTF8'), 'hex')) > 0`,
      [text]
    )
    if (row?.n !== 0) found.push(String(name))
  }
  return found
}

const eventsOf = (id: string) =>
  world.look(
    "select version, op, state, salt, changed, encode(hash, 'hex') as hash from platform.event_log where entity_id = $1::uuid order by version",
    [id]
  )
const entriesOf = async (id: string): Promise<ReadonlyArray<AuditEntry & { readonly hash: string }>> => {
  const token = await world.token(world.platform, { roles: ["platform-auditor"] })
  return (await send(world.url, `/api/platform/audit?entity=${id}`, { token })).json.items
}
const findings = () => world.look("select problem from platform.audit_verify_window(null, null)")

/** A round of the operator's, as it runs each minute. */
const swept = () =>
  Effect.runPromise(
    ErasedTables.sweep.pipe(
      Effect.provide(
        Fence.layerOf({ holder: "test", source: "folder" }).pipe(
          Layer.provide(OperatorSql.layer),
          Layer.provide(ConfigProvider.layer(configOf(database)))
        )
      )
    )
  )

/** The backend of an erasure that waits for a lock, once there is one. */
const waiting = async (): Promise<number> => {
  const look = () =>
    world.look(
      "select pid from pg_stat_activity where usename = 'velocity_api' and wait_event_type = 'Lock' and query like '%erase_record%'"
    )
  await expect.poll(async () => (await look()).length, { timeout: 5_000 }).toBe(1)
  return Number((await look())[0]?.pid)
}

/** All that is known of a record, to be compared with itself. */
const whole = async (id: string) =>
  JSON.stringify([
    await world.look(`select t::text from ${schema}.thing_v1 t where id = $1::uuid`, [id]),
    await world.look("select t::text from platform.event_log t where entity_id = $1::uuid order by version", [id]),
    await world.look(
      "select method, path, key, encode(request_hash, 'hex') as hash, result::text from platform.idempotency_keys where result -> 'ids' ? $1 order by key",
      [id]
    ),
    await world.look(
      "select id::text from platform.audit_log where entity_id = $1::uuid and outcome = 'ok' order by seq",
      [id]
    )
  ])

beforeAll(async () => {
  database = await Effect.runPromise(Scope.provide(freshDatabase, scope))
  proxy = await Effect.runPromise(Scope.provide(TcpProxy.make(database.apiUrl), scope))
  chain = `${database.org}/shop/sales`
  schema = `${database.org}_shop_sales`
  things = `/api/${chain}/thing/v1`
  parts = `/api/${chain}/part/v1`
  world = await makeWorld({
    database,
    variables: {
      VELOCITY_API_DATABASE_URL: proxy.url,
      VELOCITY_LISTEN_URL: database.apiUrl,
      VELOCITY_STATEMENT_TIMEOUT: "1s",
      VELOCITY_MAX_TX: "3s"
    },
    prepare: async (_, strategy) => {
      sales = await strategy("sales")
      const { concurrency: _c, ...refers } = part(chain)
      const { rowFilters: _r, ...access } = thing(chain).access
      const small = { ...thing(chain), fields: [{ name: "name", type: "string" }], validation: { rules: [] }, access }
      await provision(database, [
        {
          chain,
          strategy: sales.id,
          types: [
            thing(chain),
            refers,
            { ...small, object: "strict", audit: { requireTicketRef: ["erase"] } },
            { ...small, object: "lone" }
          ]
        }
      ])
    }
  })
  admin = await world.token(sales, { sub: "ann", roles: ["admin"] })
  officer = await world.token(world.platform, { sub: "olga", roles: ["platform-privacy"] })
})
afterAll(async () => {
  await world.stop()
  await Effect.runPromise(Scope.close(scope, Exit.void))
})
afterEach(async () => {
  proxy.refuse(false)
  proxy.resume()
  await expect.poll(async () => (await ask(`${things}?limit=1`)).status, { timeout: 10_000 }).toBe(200)
})

describe("an erased record", () => {
  it("is nowhere in the database, and what was proved of it stays proved", async () => {
    const { id, name } = await lived()
    await lived()
    const before = await eventsOf(id)
    const proved = await entriesOf(id)
    expect(before.map(({ version }) => version)).toEqual([1, 2, 3])
    // what ANALYZE samples is a copy too
    await world.look("analyze")
    const there = await holding(name)
    expect(there).toEqual(expect.arrayContaining([`${schema}.thing_v1`]))
    expect(there.some((table) => table.startsWith("platform.event_log_"))).toBe(true)

    const reply = await erase(id)
    expect(reply.status).toBe(200)
    expect(reply.json).toEqual({ id, entry: expect.any(String), rows: 1, versions: 3, answers: 3 })

    // a sample of the table's values is left until the operator has gathered its statistics anew
    expect(await holding(name)).toEqual(["pg_statistic"])
    await swept()
    expect(await holding(name)).toEqual([])
    expect(await world.look("select 1 from platform.erased_tables")).toEqual([])
    expect(await eventsOf(id)).toEqual(before.map((event) => ({ ...event, state: null, salt: null, changed: [] })))
    const [entry, ...others] = await entriesOf(id)
    expect(others).toEqual(proved)
    expect(entry).toMatchObject({
      id: reply.json.entry,
      chain,
      actor: "platform/olga",
      action: "erase",
      outcome: "ok",
      schema_path: `${chain}/thing/v1`,
      entity_id: id,
      reason: "asked for by the person",
      ticket_ref: "DSR-12",
      request_id: reply.headers["x-request-id"],
      db_login: "velocity_api",
      db_role: "velocity_privacy"
    })
    expect(JSON.parse(String(entry?.payload))).toEqual({ rows: 1, versions: 3, answers: 3 })
    // each entry still commits to the hash of its event, which is there without what it is of
    for (const one of await entriesOf(id)) expect(Buffer.from(entryHash(one)).toString("hex")).toBe(one.hash)
    for (const [index, one] of [...proved].reverse().entries()) {
      expect(JSON.parse(String(one.payload)).hash).toBe(before[index]?.hash)
    }
    expect(await findings()).toEqual([])
  })

  it("is gone for reads and writes, and its history says that it was erased", async () => {
    const { id, patch } = await lived()
    expect((await erase(id)).status).toBe(200)
    expect(codeOf(await ask(`${things}/${id}`))).toEqual([404, "not_found"])
    expect(codeOf(await patch({ note: "again" }))).toEqual([404, "not_found"])
    expect(codeOf(await ask(`${things}/${id}`, { method: "DELETE" }))).toEqual([404, "not_found"])
    expect(codeOf(await ask(`${things}/${id}/restore`, { method: "POST" }))).toEqual([404, "not_found"])
    const listed = await ask(`${things}?filter[store_id][eq]=s1&deleted=with&limit=1000`)
    expect(listed.json.items.map((one: { id: string }) => one.id)).not.toContain(id)
    const history = await ask(`${things}/${id}/history`)
    expect(history.status).toBe(200)
    expect(
      history.json.items.map(({ changed, op, state, version }: Record<string, unknown>) => [
        version,
        op,
        changed,
        state
      ])
    ).toEqual([
      [3, "update", [], null],
      [2, "update", [], null],
      [1, "create", [], null]
    ])
    // a filter has nothing left to judge by
    const store = await world.token(sales, { roles: ["store"], attributes: { store_id: "s1" } })
    expect((await ask(`${things}/${id}/history`, { token: store })).status).toBe(403)
    expect(codeOf(await erase(id))).toEqual([404, "not_found"])
    expect((await entriesOf(id)).filter(({ action }) => action === "erase")).toHaveLength(1)
  })

  it("leaves no sample behind as the last of its table, or in a table that is gone", async () => {
    const lone = `/api/${chain}/lone/v1`
    const { json: made } = await post(lone, { name: marker() })
    const { json: last } = await post(lone, { name: marker() })
    await world.look("analyze")
    expect(await holding(String(made.name))).toContain("pg_statistic")
    for (const { id } of [made, last]) {
      expect((await post(`${lone}/${id}/erase`, { reason: "r" }, { token: officer })).status).toBe(200)
    }
    await world.look("insert into platform.erased_tables values ('no_such', 'table', now())")
    await swept()
    expect(await holding(String(made.name))).toEqual([])
    expect(await world.look("select 1 from platform.erased_tables")).toEqual([])
  })

  it("may have been deleted before", async () => {
    const { id, name } = await lived()
    expect((await ask(`${things}/${id}`, { method: "DELETE" })).status).toBe(204)
    const reply = await erase(id)
    expect(reply.json).toMatchObject({ rows: 1, versions: 4, answers: 3 })
    expect(await holding(name)).toEqual([])
  })

  it("frees its unique values, and leaves its neighbours as they are", async () => {
    const { id, name } = await lived()
    const other = await lived()
    const before = await whole(other.id)
    expect((await erase(id)).status).toBe(200)
    expect((await post(things, { name })).status).toBe(201)
    expect(await whole(other.id)).toBe(before)
    expect(await holding(other.name)).not.toEqual([])
  })

  it("may have come with many, whose answer goes too, because its hash is over all of them", async () => {
    const names = [marker(), marker(), marker()]
    const made = await post(
      things,
      names.map((name) => ({ name })),
      { headers: { "idempotency-key": "many" } }
    )
    expect(made.json.created).toBe(3)
    const [{ id } = {}] = await world.look(`select id::text from ${schema}.thing_v1 where name = $1`, [names[1]])
    expect((await erase(String(id))).json).toMatchObject({ rows: 1, versions: 1, answers: 1 })
    expect(await holding(String(names[1]))).toEqual([])
    expect((await world.look("select 1 from platform.idempotency_keys where key = 'many'")).length).toBe(0)
    expect(await findings()).toEqual([])
  })

  it("of a withdrawn record type can be erased all the same", async () => {
    const made = await post(`/api/${chain}/strict/v1`, { name: marker() })
    const id = String(made.json.id)
    const row = "path = $1"
    const path = `${chain}/strict/v1`
    const [kept] = await world.look(`select serving::text from platform.schema_defs where ${row}`, [path])
    await world.look(`update platform.schema_defs set serving = null where ${row}`, [path])
    const erased = await post(`/api/${path}/${id}/erase`, { reason: "r" }, { token: officer })
    await world.look(`update platform.schema_defs set serving = $2::text::jsonb where ${row}`, [path, kept?.serving])
    expect(erased.json).toMatchObject({ rows: 1, versions: 1 })
  })
})

describe("erasing is refused", () => {
  it("to whoever is not platform-privacy of the platform's own strategy", async () => {
    const { id } = await lived()
    const before = await whole(id)
    const refusedTo = async (token: string | undefined, ...wanted: ReadonlyArray<unknown>) => {
      const reply = await send(world.url, `${things}/${id}/erase`, {
        method: "POST",
        headers: json,
        body: '{"reason":"r","ticket":"t"}',
        ...(token === undefined ? {} : { token })
      })
      expect(codeOf(reply)).toEqual(wanted)
    }
    await refusedTo(undefined, 401, "token_missing")
    await refusedTo(admin, 401, "token_issuer")
    await refusedTo(await world.token(sales, { roles: ["platform-privacy", "admin"] }), 401, "token_issuer")
    for (const roles of [[], ["admin"], ["platform-admin", "platform-auditor"], ["privacy"], ["platform-Privacy"]]) {
      await refusedTo(await world.token(world.platform, { roles }), 403, "operation_not_granted")
    }
    // a domain's binding cannot give it, and its token is told so where it is one
    const claims = await world.token(sales, { roles: ["platform-privacy"] })
    expect(codeOf(await ask(`${things}/${id}`, { token: claims }))).toEqual([403, "platform_role_refused"])
    await world.operator(
      `insert into platform.role_bindings (id, actor, chain, roles, generation, source, namespace, name)
       values (gen_random_uuid(), 'platform/bo', $1, '{platform-privacy}', nextval('platform.generation_seq'), 'test', 'test', 'bo')`,
      [chain]
    )
    await world.operator("select pg_notify('velocity_registry', $1)", [`bindings:${chain}`])
    await refusedTo(await world.token(world.platform, { sub: "bo" }), 403, "operation_not_granted")
    expect(await whole(id)).toBe(before)
    // each is entered where the record is
    const denied = await world.look(
      "select distinct action, outcome, schema_path from platform.audit_log where chain = $1 and outcome = 'denied' and payload ->> 'route' like '%/erase' order by schema_path",
      [chain]
    )
    expect(denied).toEqual([
      { action: "erase", outcome: "denied", schema_path: `${chain}/thing/v1` },
      { action: "erase", outcome: "denied", schema_path: null }
    ])
  })

  it("is granted by a binding of the platform", async () => {
    const { id } = await lived()
    await world.operator(
      `insert into platform.role_bindings (id, actor, chain, roles, generation, source, namespace, name)
       values (gen_random_uuid(), 'platform/pia', 'platform', '{platform-privacy}', nextval('platform.generation_seq'), 'test', 'test', 'pia')`
    )
    await world.operator("select pg_notify('velocity_registry', 'bindings:platform')")
    const token = await world.token(world.platform, { sub: "pia" })
    await expect.poll(async () => (await erase(id, { reason: "r" }, { token })).status).toBe(200)
  })

  it.each([
    ["{}", 400, "reason_required"],
    ['{"reason":" "}', 400, "reason_required"],
    ['{"reason":5}', 422, "invalid"],
    ['{"reason":"a\\nb"}', 422, "invalid"],
    [`{"reason":"${"x".repeat(1_001)}"}`, 422, "invalid"],
    ['{"reason":"r","why":"x"}', 422, "invalid"],
    ['["reason"]', 422, "invalid"],
    ["{", 400, "malformed_json"]
  ])("without a sound reason: %.40s", async (body, status, code) => {
    const { id } = await lived()
    const before = await whole(id)
    const reply = await ask(`${things}/${id}/erase`, { method: "POST", token: officer, headers: json, body })
    expect(codeOf(reply)).toEqual([status, code])
    expect(await whole(id)).toBe(before)
  })

  it("without a ticket where the definition demands one", async () => {
    const strict = `/api/${chain}/strict/v1`
    const { json: made } = await post(strict, { name: marker() })
    const at = `${strict}/${made.id}/erase`
    expect(codeOf(await post(at, { reason: "r" }, { token: officer }))).toEqual([400, "ticket_required"])
    expect(codeOf(await post(at, { reason: "r", ticket: " " }, { token: officer }))).toEqual([400, "ticket_required"])
    expect((await post(at, { reason: "r", ticket: "T" }, { token: officer })).status).toBe(200)
  })

  it("for what is not there, alike whatever is missing", async () => {
    const nothing = "01920000-0000-7000-8000-000000000000"
    expect(codeOf(await erase(nothing))).toEqual([404, "not_found"])
    for (const path of [`${chain}/nothing/v1`, `${chain}/thing/v2`, "no/such/place/thing/v1", "A/b/c/d/e"]) {
      const reply = await post(`/api/${path}/${nothing}/erase`, { reason: "r" }, { token: officer })
      expect(codeOf(reply)).toEqual([404, "not_found"])
    }
    expect(codeOf(await erase("nothing"))).toEqual([400, "malformed_id"])
    // a record of another type
    const { id } = await lived()
    const before = await whole(id)
    expect(codeOf(await post(`${parts}/${id}/erase`, { reason: "r" }, { token: officer }))).toEqual([404, "not_found"])
    expect(codeOf(await erase(id, { reason: "r" }, { headers: { prefer: "tx=maybe, handling=strict" } }))).toEqual([
      400,
      "malformed_header"
    ])
    expect(codeOf(await post(`${things}/${id}/erase?dry_run=true`, { reason: "r" }, { token: officer }))).toEqual([
      400,
      "malformed_query"
    ])
    expect(await whole(id)).toBe(before)
  })

  it("while live records refer to it, and not once these are deleted", async () => {
    const { id } = await lived()
    const { json: child } = await post(parts, { label: "p", thing: id })
    const before = await whole(id)
    const reply = await erase(id)
    expect(codeOf(reply)).toEqual([409, "still_referenced"])
    expect(reply.json.detail).toContain(`live records of ${chain}/part/v1 refer to it by thing`)
    expect(await whole(id)).toBe(before)
    const [failed] = await entriesOf(id)
    expect(failed).toMatchObject({ action: "erase", outcome: "failed", actor: "platform/olga" })
    const deleted = await ask(`${parts}/${child.id}`, { method: "DELETE", headers: { "x-velocity-reason": "r" } })
    expect(deleted.status).toBe(204)
    expect((await erase(id)).status).toBe(200)
    // what referred to it cannot come back
    expect(codeOf(await ask(`${parts}/${child.id}/restore`, { method: "POST" }))).toEqual([409, "reference_not_found"])
  })

  it("while a legal hold is on its domain, and reaches months that are kept apart", async () => {
    const { id, name } = await lived()
    const before = await whole(id)
    // as retention makes them
    await world.look(
      `create table if not exists platform.legal_holds (id uuid primary key default gen_random_uuid(), chain text not null, reason text not null,
         placed_by text not null, placed_at timestamptz not null default now(), lifted_by text, lifted_at timestamptz)`
    )
    await world.look("alter table platform.legal_holds owner to velocity_owner")
    await world.look("insert into platform.legal_holds (chain, reason, placed_by) values ($1, 'r', 'x')", [chain])
    expect(codeOf(await erase(id))).toEqual([409, "held"])
    expect(await whole(id)).toBe(before)
    await world.look("update platform.legal_holds set lifted_by = 'x', lifted_at = now()")
    await world.look("create schema if not exists platform_archive authorization velocity_owner")
    await world.look("create table platform_archive.event_log_2001_01 (like platform.event_log)")
    await world.look("alter table platform_archive.event_log_2001_01 owner to velocity_owner")
    await world.look(
      "insert into platform_archive.event_log_2001_01 select * from platform.event_log where entity_id = $1::uuid and version = 1",
      [id]
    )
    expect((await erase(id)).json).toMatchObject({ versions: 4 })
    expect(await holding(name)).toEqual([])
    await world.look("drop table platform_archive.event_log_2001_01")
  })

  it("where a hold is placed while it waits, and one that comes later waits for it", async () => {
    const { id } = await lived()
    const before = await whole(id)
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const holder = yield* connect(database.superuserUrl)
          yield* holder.query("begin")
          yield* holder.query(`select from ${schema}.thing_v1 where id = $1::uuid for update`, [id])
          const erasing = erase(id)
          yield* Effect.promise(waiting)
          yield* query(database.operatorUrl, "select platform.hold_place($1, 'r', 'ops/eve')", [chain])
          yield* holder.query("rollback")
          expect(codeOf(yield* Effect.promise(() => erasing))).toEqual([409, "held"])
        })
      )
    )
    expect(await whole(id)).toBe(before)
    await world.look("update platform.legal_holds set lifted_by = 'x', lifted_at = now() where lifted_at is null")
    // an erasure that has judged for the last time holds what a hold is written to
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const holder = yield* connect(database.superuserUrl)
          yield* holder.query("begin")
          yield* holder.query("lock table platform.erased_tables in access exclusive mode")
          const erasing = erase(id)
          yield* Effect.promise(waiting)
          const impatient = yield* connect(database.operatorUrl)
          yield* impatient.query("set lock_timeout = 1")
          const refused = yield* Effect.flip(impatient.query("select platform.hold_place($1, 'r', 'ops/eve')", [chain]))
          expect(sqlStateOf(refused)).toBe("55P03")
          yield* holder.query("rollback")
          expect((yield* Effect.promise(() => erasing)).status).toBe(200)
        })
      )
    )
  })

  it("while history is being moved, so that nothing comes back with a copy", async () => {
    const { id } = await lived()
    const before = await whole(id)
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const mover = yield* connect(database.superuserUrl)
          yield* mover.query("begin")
          yield* mover.query("select pg_advisory_xact_lock(hashtextextended('velocity/history', 0))")
          expect((yield* Effect.promise(() => erase(id))).status).toBe(503)
          yield* mover.query("rollback")
        })
      )
    )
    expect(await whole(id)).toBe(before)
    expect((await erase(id)).status).toBe(200)
  })

  it("before the operator has provisioned the table for it, and never done in part", async () => {
    const { id } = await lived()
    const before = await whole(id)
    const damages = [
      [
        `revoke delete on ${schema}.thing_v1 from velocity_owner`,
        `grant delete on ${schema}.thing_v1 to velocity_owner`
      ],
      [
        `drop policy velocity_erase on ${schema}.thing_v1`,
        `create policy velocity_erase on ${schema}.thing_v1 to velocity_owner using (true) with check (false)`
      ],
      [`revoke usage on schema ${schema} from velocity_owner`, `grant usage on schema ${schema} to velocity_owner`]
    ] as const
    for (const [damage, repair] of damages) {
      await world.look(damage)
      expect(codeOf(await erase(id))).toEqual([503, "not_ready"])
      expect(await whole(id)).toBe(before)
      await world.look(repair)
    }
    expect((await erase(id)).status).toBe(200)
  })
})

describe("an erasure", () => {
  it("that is tried is undone, and entered as tried", async () => {
    const { id } = await lived()
    const before = await whole(id)
    const reply = await erase(id, { reason: "r" }, { headers: { prefer: "tx=rollback" } })
    expect([reply.status, reply.headers["preference-applied"]]).toEqual([200, "tx=rollback"])
    expect(reply.json).toEqual({ id, rows: 1, versions: 3, answers: 3 })
    expect(await whole(id)).toBe(before)
    expect((await entriesOf(id))[0]).toMatchObject({ action: "erase", outcome: "dry_run", reason: "r" })
  })

  it("that is interrupted anywhere leaves everything as it was", async () => {
    const { id } = await lived()
    const before = await whole(id)
    const steps = [
      ["the row", `lock table ${schema}.thing_v1 in share mode`],
      ["history", "lock table platform.event_log in share mode"],
      ["answers", "lock table platform.idempotency_keys in share mode"],
      ["the mark", "lock table platform.erased_tables in share mode"],
      ["the entry", "lock table platform.audit_log in share mode"]
    ] as const
    for (const [name, lock] of steps) {
      for (const end of ["terminated", "in time"]) {
        await Effect.runPromise(
          Effect.scoped(
            Effect.gen(function* () {
              const holder = yield* connect(database.superuserUrl)
              yield* holder.query("begin")
              yield* holder.query(lock)
              const erasing = erase(id)
              if (end === "terminated") {
                const found = yield* Effect.promise(waiting)
                yield* holder.query("select pg_terminate_backend($1::int4)", [found])
              }
              const reply = yield* Effect.promise(() => erasing)
              expect([name, end, reply.status]).toEqual([name, end, 503])
              yield* holder.query("rollback")
            })
          )
        )
        await expect.poll(() => whole(id)).toBe(before)
      }
    }
    expect((await erase(id)).status).toBe(200)
    expect(await findings()).toEqual([])
  })

  it("whose COMMIT is not answered was done whole, and is entered as unknown", async () => {
    const { id, name } = await lived()
    expect((await ask(`${things}?limit=1`)).status).toBe(200)
    proxy.deafen()
    const reply = await erase(id)
    expect(codeOf(reply)).toEqual([503, "commit_unknown"])
    proxy.cut()
    proxy.resume()
    await expect.poll(async () => (await ask(`${things}?limit=1`)).status, { timeout: 10_000 }).toBe(200)
    expect(await holding(name)).toEqual([])
    await expect
      .poll(async () => (await entriesOf(id)).map(({ action, outcome }) => `${action} ${outcome}`), { timeout: 10_000 })
      .toContain("erase unknown")
    expect(codeOf(await erase(id))).toEqual([404, "not_found"])
  })

  it("waits for whoever is changing the record, and takes that change too", async () => {
    const { id, name } = await lived()
    await Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const writer = yield* connect(database.apiUrl)
          yield* writer.query("begin")
          const [def] = yield* Effect.promise(() =>
            world.look("select id, storage_id, chain from platform.schema_defs where path = $1", [`${chain}/thing/v1`])
          )
          yield* writer.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
            `${schema}_writer`,
            JSON.stringify({ op: "update", def: def?.id, actor: "sales/ann", roles: ["admin"] })
          ])
          yield* writer.query(
            `update ${schema}.thing_v1 set note = $2, version = version + 1, updated_at = clock_timestamp() where id = $1::uuid`,
            [id, `late ${name}`]
          )
          const erasing = erase(id)
          yield* Effect.promise(waiting)
          yield* writer.query(
            `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, state, salt, hash)
             values (gen_random_uuid(), $1, $2::int4, $3::int4, $4::uuid, 4, 'update', clock_timestamp(), 'sales/ann', jsonb_build_object('note', $5::text), '\\x01', '\\x02')`,
            [def?.chain, def?.storage_id, def?.id, id, `late ${name}`]
          )
          yield* writer.query("commit")
          const reply = yield* Effect.promise(() => erasing)
          expect(reply.json).toMatchObject({ rows: 1, versions: 4 })
        })
      )
    )
    expect(await holding(name)).toEqual([])
  })

  it("is done once, however many ask for it at the same time, and never beside a new reference", async () => {
    const { id } = await lived()
    const replies = await Promise.all(Array.from({ length: 6 }, () => erase(id)))
    expect(replies.map(({ status }) => status).sort()).toEqual([200, 404, 404, 404, 404, 404])
    expect((await entriesOf(id)).filter(({ action, outcome }) => action === "erase" && outcome === "ok")).toHaveLength(
      1
    )
    for (let round = 0; round < 5; round++) {
      const one = await lived()
      const [erased, child] = await Promise.all([erase(one.id), post(parts, { label: "p", thing: one.id })])
      expect([
        [200, 409],
        [409, 201]
      ]).toContainEqual([erased.status, child.status])
    }
    const dangling = await world.look(
      `select p.id from ${schema}.part_v1 p where p.deleted_at is null and p.thing is not null and not exists (select from ${schema}.thing_v1 t where t.id = p.thing)`
    )
    expect(dangling).toEqual([])
  })
})

describe("in the database nobody but velocity_privacy, by its one function,", () => {
  const attempt = (url: string, role: string, sql: string, ctx = '{"actor":"x","reason":"r"}') =>
    Effect.runPromise(
      Effect.scoped(
        Effect.gen(function* () {
          const connection = yield* connect(url)
          yield* connection.query("begin")
          const state = yield* Effect.gen(function* () {
            yield* connection.query("select set_config('role', $1, true), set_config('velocity.ctx', $2, true)", [
              role,
              ctx
            ])
            yield* connection.query(sql)
            return "done"
          }).pipe(Effect.catch((error) => Effect.succeed(sqlStateOf(error))))
          yield* Effect.ignore(connection.query("rollback"))
          return state
        })
      )
    )
  const rolesOf = async (login: string) => [
    "none",
    ...(
      await world.look(
        `select rolname::text as name from pg_roles where rolname <> $1 and pg_has_role($1, oid, 'SET') and (rolname ~ '^velocity_' or rolname ~ $2) order by 1`,
        [login, `^${database.org}_`]
      )
    ).map(({ name }) => String(name))
  ]

  it("erases", async () => {
    const { id } = await lived()
    const call = `select platform.erase_record('${chain}/thing/v1', '${id}')`
    for (const [login, url] of [
      ["velocity_api", database.apiUrl],
      ["velocity_operator", database.operatorUrl]
    ] as const) {
      const roles = await rolesOf(login)
      expect(roles.length).toBeGreaterThanOrEqual(3)
      for (const role of roles) {
        const wanted = role === "velocity_privacy" ? "done" : "42501"
        expect([role, await attempt(url, role, call)]).toEqual([role, wanted])
        if (role === `${schema}_owner`) continue
        for (const sql of [
          `delete from ${schema}.thing_v1`,
          "update platform.event_log set state = null",
          "update platform.event_log set salt = null",
          "delete from platform.event_log",
          "delete from platform.idempotency_keys",
          "insert into platform.erased_tables values ('x', 'x', now())"
        ]) {
          expect([role, sql, await attempt(url, role, sql)]).toEqual([role, sql, "42501"])
        }
      }
    }
  })

  it("says that something was erased", async () => {
    const said = (action: string, outcome: string, of = chain) =>
      `select platform.audit_insert('${of}', 'x', '${action}', '${outcome}', null, null, null, null, null, null, null)`
    // not even the role itself, but through the function
    expect(await attempt(database.apiUrl, "velocity_privacy", said("erase", "ok"))).toBe("42501")
    for (const role of ["reader", "writer", "admin"]) {
      expect(await attempt(database.apiUrl, `${schema}_${role}`, said("erase", "ok"))).toBe("42501")
      expect(await attempt(database.apiUrl, `${schema}_${role}`, said("create", "ok"))).toBe("done")
    }
    expect(await attempt(database.apiUrl, "velocity_gateway", said("erase", "ok"))).toBe("42501")
    expect(await attempt(database.apiUrl, "velocity_gateway", said("erase", "denied"))).toBe("done")
  })

  it("and it reads no table, and needs an actor and a reason", async () => {
    const tables = await world.look(
      `select c.oid::regclass::text as name from pg_class c join pg_namespace n on n.oid = c.relnamespace
       where n.nspname in ('platform', $1) and c.relkind in ('r', 'p', 'v')`,
      [schema]
    )
    for (const { name } of tables) {
      expect([name, await attempt(database.apiUrl, "velocity_privacy", `select * from ${name}`)]).toEqual([
        name,
        "42501"
      ])
    }
    const functions = await world.look(
      "select proname::text as name from pg_proc where pronamespace = 'platform'::regnamespace and has_function_privilege('velocity_privacy', oid, 'EXECUTE')"
    )
    expect(functions).toEqual([{ name: "erase_record" }])
    const { id } = await lived()
    const call = `select platform.erase_record('${chain}/thing/v1', '${id}')`
    for (const ctx of ["", '{"actor":"x"}', '{"reason":"r"}', '{"actor":"x","reason":" "}']) {
      expect([ctx, await attempt(database.apiUrl, "velocity_privacy", call, ctx)]).toEqual([ctx, "VL012"])
    }
    expect(await attempt(database.apiUrl, "velocity_privacy", call.replace("thing", "nothing"))).toBe("VL080")
  })
})
