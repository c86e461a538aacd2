import { assert, layer } from "@effect/vitest"
import { ConfigProvider, Context, Effect, Fiber, Layer, Redacted, Stream } from "effect"
import { Authenticator, StrategySource } from "../../src/access/Authenticator.ts"
import { platformChain, rolesFor } from "../../src/access/Authorization.ts"
import { Registry } from "../../src/server/Registry.ts"
import { makeKey, settings, sign, type TestKey } from "../access/Issuer.ts"
import { configOf, Database, query, withDatabase } from "../support/Database.ts"

const [key, other] = (await Promise.all([makeKey("ES256", "a"), makeKey("ES256", "b")])) as [TestKey, TestKey]
const lasting = { exp: Math.floor(Date.now() / 1000) + 3_600 }

const spec = (org: string, object: string, fields: ReadonlyArray<unknown>) => ({
  org,
  app: "shop",
  domain: "sales",
  object,
  version: "v1",
  fields,
  access: { roles: [{ role: "buyer", operations: ["read", "create"] }] }
})

/** Writes mirrors as the operator does, with or without telling. */
class Mirrors extends Context.Service<
  Mirrors,
  {
    readonly chain: string
    readonly org: string
    readonly sql: (
      sql: string,
      params?: ReadonlyArray<unknown>
    ) => Effect.Effect<ReadonlyArray<Record<string, unknown>>>
    readonly notify: (payload: string) => Effect.Effect<void>
    readonly domain: (strategy: string | null, named?: boolean) => Effect.Effect<void>
    readonly definition: (object: string, fields?: ReadonlyArray<unknown>) => Effect.Effect<string>
    readonly strategy: (id: string, jwk: unknown, more?: Record<string, unknown>) => Effect.Effect<void>
  }
>()("velocity/test/Mirrors") {
  static readonly layer = Layer.effect(
    Mirrors,
    Effect.gen(function* () {
      const { operatorUrl, org } = yield* Database
      const chain = `${org}/shop/sales`
      const sql = (text: string, params: ReadonlyArray<unknown> = []) =>
        Effect.orDie(query(operatorUrl, text, params)) as Effect.Effect<ReadonlyArray<Record<string, unknown>>>
      return {
        chain,
        org,
        sql,
        notify: (payload) => Effect.asVoid(sql("select pg_notify('velocity_registry', $1)", [payload])),
        domain: (strategy, named = true) =>
          Effect.asVoid(
            sql(
              `insert into platform.domains (chain, pg_schema, auth_strategy, spec)
               values ($1, replace(replace($1, '/', '_'), '-', '_'), $2, case when $3 then jsonb_build_object('authStrategy', $2::text) else '{}' end)
               on conflict (chain) do update set auth_strategy = excluded.auth_strategy, spec = excluded.spec`,
              [chain, strategy, named]
            )
          ),
        definition: (object, fields = [{ name: "a", type: "string" }]) => {
          const path = `${chain}/${object}/v1`
          return Effect.as(
            sql(
              `insert into platform.schema_defs (path, chain, storage, pg_schema, pg_table, wanted, serving, generation, state)
               values ($1, $2, $3, $4, $5, $6::text::jsonb, $6::text::jsonb, nextval('platform.generation_seq'), 'Ready')
               on conflict (path) do update set serving = excluded.serving, wanted = excluded.wanted, generation = excluded.generation`,
              [
                path,
                chain,
                `${chain}/${object}`,
                chain.replaceAll("/", "_"),
                `${object}_v1`,
                JSON.stringify(spec(org, object, fields))
              ]
            ),
            path
          )
        },
        strategy: (id, jwk, more = {}) =>
          Effect.asVoid(
            sql(
              `insert into platform.auth_strategies (id, spec, generation) values ($1, $2::text::jsonb, nextval('platform.generation_seq'))
               on conflict (id) do update set spec = excluded.spec, generation = excluded.generation`,
              [id, JSON.stringify({ type: "jwt", jwt: settings({ jwks: { keys: [jwk] }, ...more }) })]
            )
          )
      }
    })
  )
}

const Live = Layer.mergeAll(Authenticator.layer.pipe(Layer.provideMerge(Registry.layer)), Mirrors.layer)

/** Asks again, without waiting in between, until what is asked for is so. */
const until = <A, E, R>(ask: Effect.Effect<A, E, R>, holds: (answer: A) => boolean): Effect.Effect<A, E, R> =>
  ask.pipe(
    Effect.tap(() => Effect.promise(() => new Promise(setImmediate))),
    Effect.repeat({ until: holds })
  )

const codeAt = (path: string) =>
  Effect.flatMap(Registry, (registry) =>
    registry.lookup(path).pipe(Effect.match({ onSuccess: (type) => type.path, onFailure: (problem) => problem.code }))
  )

// a poll so rare that only a notification can be the reason
layer(withDatabase(Live, { VELOCITY_REGISTRY_POLL: "1h" }), { excludeTestServices: true })(
  "the registry, told",
  (it) => {
    it.effect("serves what is served, and tells missing from gone", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        yield* mirrors.domain(null)
        const path = yield* mirrors.definition("order")
        assert.strictEqual(yield* codeAt(path), "not_found")
        yield* mirrors.notify(`def:${path}`)
        yield* until(codeAt(path), (code) => code === path)
        assert.strictEqual(yield* codeAt(`${mirrors.chain}/order/v2`), "not_found")
        assert.strictEqual(yield* codeAt("nobody/shop/sales/order/v1"), "not_found")
        assert.strictEqual(yield* codeAt("__proto__"), "not_found")

        yield* mirrors.sql(
          "update platform.schema_defs set serving = null, generation = nextval('platform.generation_seq') where path = $1",
          [path]
        )
        yield* mirrors.notify(`def:${path}`)
        // still wanted: it was never served here, or waits for its plan
        yield* until(codeAt(path), (code) => code === "not_found")
        yield* mirrors.sql(
          "update platform.schema_defs set wanted = null, generation = nextval('platform.generation_seq') where path = $1",
          [path]
        )
        yield* mirrors.notify(`def:${path}`)
        yield* until(codeAt(path), (code) => code === "gone")
      })
    )

    it.effect("compiles again when the definition changes, and not otherwise", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const supplier = yield* mirrors.definition("supplier")
        const invoice = yield* mirrors.definition("invoice", [
          { name: "s", type: "ref", ref: { object: "supplier", version: "v1" } }
        ])
        const apart = yield* mirrors.definition("apart")
        yield* registry.reload
        const types = () => [supplier, invoice, apart].map((path) => registry.peers(path))
        const [s1, i1, a1] = types()
        assert.deepStrictEqual(types(), [s1, i1, a1])
        yield* registry.reload
        assert.isTrue(types()[0] === s1 && types()[1] === i1)

        yield* mirrors.definition("apart", [{ name: "b", type: "integer" }])
        yield* registry.refresh(apart)
        const [s2, i2, a2] = types()
        assert.isTrue(s2 === s1 && i2 === i1 && a2 !== a1)
        assert.isTrue((a2?.generation ?? 0) > (a1?.generation ?? 0))

        yield* mirrors.definition("supplier", [{ name: "b", type: "integer" }])
        yield* registry.refresh(supplier)
        const [s3, , a3] = types()
        assert.isTrue(s3 !== s2 && a3 === a2)
      })
    )

    it.effect("a refresh sees what was committed before it, however many ask at once", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        for (let n = 0; n < 10; n++) {
          const path = yield* mirrors.definition("busy", [{ name: `f${n}`, type: "string" }])
          const [row] = yield* mirrors.sql(
            "select generation::text as generation from platform.schema_defs where path = $1",
            [path]
          )
          yield* Effect.all(
            Array.from({ length: 50 }, () => registry.refresh(path)),
            { concurrency: "unbounded" }
          )
          assert.strictEqual((yield* registry.lookup(path)).generation, Number(row?.generation))
        }
      })
    )

    it.effect("a definition that cannot be read takes no other along", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const good = yield* mirrors.definition("good")
        const bad = yield* mirrors.definition("bad", [{ name: "a", type: "from-the-future" }])
        yield* registry.reload
        assert.strictEqual(yield* codeAt(bad), "not_ready")
        assert.strictEqual(yield* codeAt(good), good)
      })
    )

    it.effect("a binding, its narrowing and its withdrawal take effect when told", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const identity = {
          actor: "corp/alice",
          strategy: "corp",
          subject: "alice",
          roles: [],
          attributes: {},
          expiresAt: 0
        }
        const roles = Effect.sync(() => {
          const target = { chain: mirrors.chain, object: "order", version: "v1", operation: "read" } as const
          const bindings = registry.bindingsOf(identity.actor, mirrors.chain)
          return Effect.runSync(
            Effect.fromResult(rolesFor(identity, target, bindings, registry.strategiesOf(platformChain), Date.now()))
          ).join()
        })
        const set = (name: string, columns: Record<string, unknown>) =>
          mirrors
            .sql(
              `insert into platform.role_bindings (namespace, name, actor, chain, roles, scopes, expires_at, revoked_at, generation)
           select 'ns', $1, 'corp/alice', $2, array(select jsonb_array_elements_text(r.roles)), r.scopes, r.expires_at, r.revoked_at, nextval('platform.generation_seq')
           from jsonb_to_record($3::text::jsonb) as r(roles jsonb, scopes jsonb, expires_at timestamptz, revoked_at timestamptz)
           on conflict (namespace, name) do update set roles = excluded.roles, scopes = excluded.scopes,
             expires_at = excluded.expires_at, revoked_at = excluded.revoked_at, generation = excluded.generation`,
              [name, mirrors.chain, JSON.stringify(columns)]
            )
            .pipe(Effect.andThen(mirrors.notify(`bindings:${mirrors.chain}`)))
        yield* set("b", { roles: ["buyer", "clerk"] })
        yield* until(roles, (held) => held === "buyer,clerk")
        yield* set("b", { roles: ["buyer"], scopes: [{ object: "order", operations: ["read"] }] })
        yield* until(roles, (held) => held === "buyer")
        yield* set("b", { roles: ["buyer"], scopes: [{ object: "invoice" }] })
        yield* until(roles, (held) => held === "")
        yield* set("b", { roles: ["buyer"] })
        yield* until(roles, (held) => held === "buyer")
        // a scope that this replica does not understand grants nothing
        yield* set("b", { roles: ["buyer"], scopes: [{ galaxy: "far" }] })
        yield* until(roles, (held) => held === "")
        yield* set("b", { roles: ["buyer"], expires_at: new Date(Date.now() - 1).toISOString() })
        yield* set("c", { roles: ["clerk"] })
        yield* until(roles, (held) => held === "clerk")
        yield* set("c", { roles: ["clerk"], revoked_at: new Date().toISOString() })
        yield* until(roles, (held) => held === "")
      })
    )

    it.effect("a changed strategy, a changed trust and a revocation end cached tokens when told", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        const auth = yield* Authenticator
        const id = `${mirrors.org}:corp`
        yield* mirrors.strategy(id, key.jwk)
        yield* mirrors.domain(id)
        yield* registry.reload
        const token = Redacted.make(yield* Effect.promise(() => sign(key, { claims: lasting })))
        const verdict = Effect.suspend(() => auth.authenticate(token, registry.strategiesOf(mirrors.chain))).pipe(
          Effect.match({ onSuccess: (identity) => identity.actor, onFailure: (problem) => problem.code })
        )
        assert.strictEqual(yield* verdict, `${id}/alice`)

        yield* mirrors.strategy(id, other.jwk)
        yield* mirrors.notify(`strategy:${id}`)
        yield* until(verdict, (now) => now === "token_key")
        yield* mirrors.strategy(id, key.jwk)
        yield* mirrors.notify(`strategy:${id}`)
        yield* until(verdict, (now) => now === `${id}/alice`)

        yield* mirrors.sql("insert into platform.revoked_actors (actor, reason) values ($1, 'left')", [`${id}/alice`])
        yield* mirrors.notify(`revoked:${id}/alice`)
        yield* until(verdict, (now) => now === "actor_revoked")
        yield* mirrors.sql("delete from platform.revoked_actors where actor = $1", [`${id}/alice`])
        yield* mirrors.notify(`revoked:${id}/alice`)
        yield* until(verdict, (now) => now === `${id}/alice`)

        yield* mirrors.domain(null)
        yield* mirrors.notify(`domain:${mirrors.chain}`)
        yield* until(verdict, (now) => now === "not_found")
        yield* mirrors.sql("delete from platform.auth_strategies where id = $1", [id])
        yield* mirrors.notify(`strategy:${id}`)
        yield* until(verdict, (now) => now === "token_issuer")
      })
    )

    it.effect("a strategy keeps its keys while others change", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        const source = yield* StrategySource
        yield* mirrors.strategy("stays", key.jwk)
        yield* mirrors.strategy("moves", key.jwk)
        yield* registry.reload
        const [stays, moves] = [source.strategy("stays"), source.strategy("moves")]
        yield* mirrors.strategy("moves", other.jwk)
        yield* registry.reload
        assert.strictEqual(source.strategy("stays"), stays)
        assert.notStrictEqual(source.strategy("moves"), moves)
        assert.deepStrictEqual(
          source
            .issuedBy("https://issuer.example")
            .map((one) => one.id)
            .sort(),
          ["moves", "stays"]
        )
      })
    )

    it.effect("a strategy that cannot be compiled believes no token", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        const source = yield* StrategySource
        yield* mirrors.strategy("broken", key.jwk, { algorithms: ["HS256"] })
        yield* mirrors.domain("broken")
        yield* registry.reload
        assert.isUndefined(source.strategy("broken"))
        assert.deepStrictEqual(registry.strategiesOf(mirrors.chain), [])
      })
    )

    it.effect("type none counts only for the domain that names it", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.sql(
          `insert into platform.auth_strategies (id, spec, generation) values ('open', '{"type":"none"}', 1)`
        )
        yield* mirrors.domain("open", false)
        yield* registry.reload
        assert.deepStrictEqual(registry.strategiesOf(mirrors.chain), [])
        yield* mirrors.domain("open", true)
        yield* registry.reload
        assert.deepStrictEqual(registry.strategiesOf(mirrors.chain), ["open"])
        assert.deepStrictEqual(registry.strategiesOf("platform"), ["platform"])
        assert.deepStrictEqual(registry.strategiesOf("nobody/shop/sales"), [])
      })
    )

    it.effect("hints are only hints: nonsense and floods of them change nothing", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const path = yield* mirrors.definition("calm")
        for (const payload of [
          "",
          ":",
          "def:",
          "def:'; drop table x",
          "def:a/b/c/d/e",
          "bindings:",
          "def:__proto__/a/b",
          "x".repeat(7_000)
        ]) {
          yield* mirrors.notify(payload)
        }
        yield* mirrors.sql(
          "select pg_notify('velocity_registry', 'def:flood/a/b/c/v' || n) from generate_series(1, 5000) n"
        )
        yield* mirrors.notify(`def:${path}`)
        yield* until(codeAt(path), (code) => code === path)
        assert.isTrue((yield* registry.state).loaded)
      })
    )

    it.effect("tells of changes", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const path = yield* mirrors.definition("watched")
        const told = yield* registry.changes.pipe(
          Stream.filter((change) => change.definitions.includes(path)),
          Stream.runHead,
          Effect.forkChild({ startImmediately: true })
        )
        yield* registry.reload
        assert.strictEqual((yield* Fiber.join(told))._tag, "Some")
      })
    )

    it.effect("goes on after its listener's connection was killed, having missed nothing", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const { superuserUrl } = yield* Database
        yield* mirrors.domain(null)
        const first = yield* mirrors.definition("before")
        yield* mirrors.notify(`def:${first}`)
        yield* until(codeAt(first), (code) => code === first)
        const killed = yield* query(
          superuserUrl,
          "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() and application_name = 'velocity-listener'"
        )
        assert.lengthOf(killed, 1)
        // told to nobody, or to a connection that is dead
        const missed = yield* mirrors.definition("missed")
        yield* until(codeAt(missed), (code) => code === missed)
        const later = yield* mirrors.definition("later")
        yield* mirrors.notify(`def:${later}`)
        yield* until(codeAt(later), (code) => code === later)
      })
    )
  }
)

layer(withDatabase(Live, { VELOCITY_REGISTRY_POLL: "50ms" }), { excludeTestServices: true })(
  "the registry, untold",
  (it) => {
    it.effect("finds what no notification told: new, changed, deleted, and committed out of order", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const source = yield* StrategySource
        yield* mirrors.domain(null)
        const path = yield* mirrors.definition("quiet")
        yield* until(codeAt(path), (code) => code === path)

        // a transaction that took its generation first and commits last
        yield* mirrors.sql("select nextval('platform.generation_seq')")
        const newer = yield* mirrors.definition("newer")
        yield* until(codeAt(newer), (code) => code === newer)
        const old = yield* mirrors.definition("older")
        yield* mirrors.sql("update platform.schema_defs set generation = 1 where path = $1", [old])
        yield* until(codeAt(old), (code) => code === old)

        yield* mirrors.sql("insert into platform.revoked_actors (actor) values ('a/b')")
        yield* until(
          Effect.sync(() => source.isRevoked("a/b")),
          (revoked) => revoked
        )
        yield* mirrors.sql("delete from platform.revoked_actors where actor = 'a/b'")
        yield* until(
          Effect.sync(() => source.isRevoked("a/b")),
          (revoked) => !revoked
        )
      })
    )
  }
)

layer(withDatabase(Live, { VELOCITY_REGISTRY_MAX: "3" }), { excludeTestServices: true })(
  "the registry, small",
  (it) => {
    it.effect("keeps as many compiled record types as it may", () =>
      Effect.gen(function* () {
        const mirrors = yield* Mirrors
        const registry = yield* Registry
        yield* mirrors.domain(null)
        const paths: Array<string> = []
        for (let n = 0; n < 6; n++) paths.push(yield* mirrors.definition(`o${n}`))
        yield* registry.reload
        for (const path of paths) assert.strictEqual(yield* codeAt(path), path)
        const { compiled, definitions } = yield* registry.state
        assert.strictEqual(compiled, 3)
        assert.strictEqual(definitions, 6)
      })
    )
  }
)

layer(Database.layer, { excludeTestServices: true })("the registry and a database that is away", (it) => {
  it.effect("comes up without it, says that it is not ready, serves the last it knew, and recovers by itself", () =>
    Effect.gen(function* () {
      const database = yield* Database
      const allow = (yes: boolean) =>
        query(
          database.superuserUrl.replace(/\/[^/]*$/, "/postgres"),
          `alter database "${database.name}" with allow_connections ${yes}`
        )
      const cut = query(
        database.superuserUrl.replace(/\/[^/]*$/, "/postgres"),
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = $1",
        [database.name]
      )
      const mirrors = yield* Effect.provide(Mirrors, Mirrors.layer)
      yield* mirrors.domain(null)
      const path = yield* mirrors.definition("sturdy")
      yield* allow(false)
      yield* cut
      yield* Effect.gen(function* () {
        const registry = yield* Registry
        assert.isFalse((yield* registry.state).loaded)
        assert.strictEqual(yield* codeAt(path), "not_ready")
        const problem = yield* Effect.flip(registry.refresh(path))
        assert.strictEqual(problem.code, "unavailable")

        yield* allow(true)
        yield* until(codeAt(path), (code) => code === path)

        yield* allow(false)
        yield* cut
        yield* until(Effect.flip(Effect.andThen(registry.reload, Effect.fail("up"))), (failure) => failure !== "up")
        assert.strictEqual(yield* codeAt(path), path)
        assert.isTrue((yield* registry.state).loaded)

        yield* allow(true)
        const later = yield* mirrors.definition("later")
        yield* until(codeAt(later), (code) => code === later)
      }).pipe(Effect.provide(Registry.layer.pipe(Layer.provide(ConfigProvider.layer(configOf(database))))))
    })
  )
})
