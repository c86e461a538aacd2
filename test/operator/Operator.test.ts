/** The operator as a whole: what a restart costs, who may be the operator, what it tells, and two databases at once. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Exit, Fiber, Layer, Scope, Stream } from "effect"
import { PrometheusMetrics } from "effect/observability"
import { describe, expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { Fence } from "../../src/operator/state/Fence.ts"
import { OperatorStatus, renderChange } from "../../src/operator/state/OperatorStatus.ts"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { applyDomain } from "../../src/provisioning/ProvisionDomain.ts"
import { configOf, connect, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startReplica, whenServed } from "../support/Replica.ts"
import { versionsOf } from "../support/Shape.ts"
import { manifest, parents, specOf } from "./FolderManifests.ts"

const samples = join(import.meta.dirname, "../../k8s/samples")

const temporary = Effect.acquireRelease(
  Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-operator-"))),
  (folder) => Effect.promise(() => rm(folder, { recursive: true, force: true }))
)

const definition = (org: string, name: string, fields: string) => `apiVersion: velocity.sh/v1
kind: SchemaDefinition
metadata: { name: ${name}, namespace: ${org}-shop-eu }
spec:
  org: ${org}
  app: shop
  domain: eu
  object: ${name}
  version: v1
  fields: [${fields}]
  access: { roles: [{ role: buyer, operations: [create, read] }] }
`

const config = (database: TestDatabase) => ConfigProvider.layer(configOf(database))

/** An operator on a folder until the scope closes. */
const start = (database: TestDatabase, manifests: string, more: Partial<Operator.OperatorOptions> = {}) =>
  Effect.gen(function* () {
    const scope = yield* Scope.Scope
    const layer = Operator.layerWithSql({ manifests, quiet: Duration.zero, ...more }).pipe(
      Layer.provide(config(database))
    )
    const context = yield* Layer.buildWithScope(layer, scope)
    return yield* OperatorStatus.pipe(Effect.provide(context))
  })

const strategy = {
  type: "jwt",
  jwt: {
    issuers: ["urn:velocity:development"],
    audience: "velocity",
    algorithms: ["EdDSA"],
    clockSkew: "0s",
    jwks: {
      keys: [{ kty: "OKP", crv: "Ed25519", x: "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", kid: "k", alg: "EdDSA" }]
    },
    claims: { actorId: "$.sub", roles: "$.roles", attributes: { "*": "$.attributes" } }
  }
} as const

describe("the operator", () => {
  it.live("writes nothing when it starts again and nothing has changed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const folder = yield* temporary
        yield* Effect.promise(() => writeFile(join(folder, "a.yaml"), parents(org)))
        yield* Effect.promise(() =>
          writeFile(join(folder, "b.yaml"), definition(org, "thing", "{ name: a, type: string }"))
        )
        const options = { development: strategy }
        yield* startReplica(database)
        yield* Effect.scoped(
          Effect.gen(function* () {
            const status = yield* start(database, folder, options)
            yield* status.settled
            yield* whenServed(status)
          })
        )
        // heartbeats go on
        const {
          "platform.operator_term": _,
          "platform.replicas": beats,
          ...before
        } = yield* versionsOf(database.superuserUrl, database.org)
        expect(beats).toBeDefined()
        const again = yield* start(database, folder, options)
        yield* again.settled
        yield* again.look
        const {
          "platform.operator_term": __,
          "platform.replicas": ___,
          ...after
        } = yield* versionsOf(database.superuserUrl, database.org)
        expect(after).toEqual(before)
        expect(again.resources().every((one) => one.conditions[0]?.status === "True")).toBe(true)
      })
    )
  )

  it.live("tells each change as a line, as it happens", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const folder = yield* temporary
        yield* Effect.promise(() => writeFile(join(folder, "a.yaml"), parents(org)))
        const status = yield* start(database, folder)
        yield* status.settled
        const told = yield* status.changes.pipe(
          Stream.map(renderChange),
          Stream.take(6),
          Stream.runCollect,
          Effect.forkChild({ startImmediately: true })
        )
        const write = (name: string, text: string) => Effect.promise(() => writeFile(join(folder, name), text))
        yield* write("b.yaml", definition(org, "thing", "{ name: a, type: ref, ref: { object: other, version: v1 } }"))
        yield* status.look
        yield* write("c.yaml", "kind: [")
        yield* status.look
        yield* write("c.yaml", definition(org, "other", "{ name: b, type: string }"))
        const lines = [...(yield* Fiber.join(told))].map((line) =>
          line.replaceAll(org, "ORG").replaceAll(/generation \d+/gu, "generation N")
        )
        expect(lines).toEqual([
          // what was told before anybody listened
          "+ Organisation/velocity-system/ORG Reconciled: organisation ORG",
          "+ Application/ORG/shop Reconciled: application ORG/shop",
          "+ Domain/ORG-shop/eu Provisioned: schema ORG_shop_eu; no AuthStrategy is named, so nobody can prove who he is",
          "… SchemaDefinition/ORG-shop-eu/thing RefMissing: ORG/shop/eu/other/v1 not there; served without that foreign key",
          expect.stringMatching(/^! c\.yaml:1:8: /u),
          "… SchemaDefinition/ORG-shop-eu/other NoReplica: no API replica is alive to serve generation N"
        ])
      })
    )
  )

  it.live("stops when another one takes over, and writes nothing more", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const folder = yield* temporary
        yield* Effect.promise(() => writeFile(join(folder, "a.yaml"), parents(org)))
        const first = yield* start(database, folder)
        yield* first.settled
        yield* query(database.operatorUrl, "select platform.term_take('another', 'folder')")
        yield* Effect.promise(() =>
          writeFile(join(folder, "b.yaml"), definition(org, "thing", "{ name: a, type: string }"))
        )
        yield* Effect.forkChild(first.look)
        const ended = yield* Effect.exit(first.superseded)
        expect(Exit.isFailure(ended)).toBe(true)
        expect(yield* query(database.operatorUrl, "select path from platform.schema_defs")).toEqual([])
      })
    )
  )

  it.live("refuses a database that is fed from elsewhere", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const fence = (source: string) =>
          Effect.scoped(
            Layer.build(
              Fence.layerOf({ holder: "test", source }).pipe(
                Layer.provide(OperatorSql.layer),
                Layer.provide(config(database))
              )
            )
          )
        yield* fence("folder")
        const refused = yield* Effect.flip(fence("a-cluster"))
        expect(refused).toMatchObject({ _tag: "ForeignInstallation" })
        expect(yield* query(database.operatorUrl, "select epoch::int4 from platform.operator_term")).toEqual([
          { epoch: 1 }
        ])
      })
    )
  )

  it.live("gives domains that name no strategy the development issuer, and takes it away without it", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const folder = yield* temporary
        yield* Effect.promise(() => writeFile(join(folder, "a.yaml"), parents(database.org)))
        const trusted = query(
          database.operatorUrl,
          "select auth_strategy, (select count(*)::int4 from platform.auth_strategies) as strategies from platform.domains where chain <> 'platform'"
        )
        yield* Effect.scoped(
          Effect.flatMap(start(database, folder, { development: strategy }), (status) => status.settled)
        )
        expect(yield* trusted).toEqual([{ auth_strategy: "development", strategies: 1 }])
        const plain = yield* start(database, folder)
        yield* plain.settled
        expect(yield* trusted).toEqual([{ auth_strategy: null, strategies: 0 }])
      })
    )
  )

  it.live("provisions the samples, and the isolation check finds nothing", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const folder = join(yield* temporary, "samples")
        yield* Effect.promise(() => cp(samples, folder, { recursive: true }))
        yield* Effect.promise(async () => {
          for (const name of await readdir(folder)) {
            const text = await readFile(join(folder, name), "utf8")
            await writeFile(join(folder, name), text.replaceAll(/\bacme\b/gu, database.org))
          }
        })
        const status = yield* start(database, folder, { development: strategy })
        yield* status.settled
        yield* startReplica(database, { VELOCITY_PLATFORM_STRATEGY: "development" })
        yield* whenServed(status)
        expect(status.problems()).toEqual([])
        const unready = status.resources().filter((one) => one.conditions[0]?.status !== "True")
        expect(unready).toEqual([])
        const violations = yield* IsolationCheck.check().pipe(
          Effect.provide(ApiSql.layer.pipe(Layer.provide(config(database))))
        )
        expect(violations.map(IsolationCheck.render)).toEqual([])
      })
    )
  )

  it.live("does not try again what cannot be done, while it tries again what failed", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const folder = yield* temporary
        const us = { org, app: "shop", domain: "us" }
        const all = [
          parents(org),
          manifest("Domain", `${org}-shop`, "us", us),
          manifest("SchemaDefinition", `${org}-shop-eu`, "thing", {
            ...specOf(org, "thing", [{ name: "a", type: "string" }]),
            validation: { rules: [{ rule: "self.nothing == 1", message: "names no field" }] }
          })
        ]
        yield* Effect.promise(() => writeFile(join(folder, "all.yaml"), all.join("\n---\n")))
        const holder = yield* connect(database.superuserUrl)
        yield* holder.query("begin")
        yield* holder.query(
          `select pg_advisory_xact_lock(hashtextextended('velocity/provision/${org}/shop/us', 0))::text as held`
        )
        const status = yield* start(database, folder)
        const turns = (controller: string, result: string) =>
          Effect.map(PrometheusMetrics.format(), (text) => {
            const line = new RegExp(`_reconcile_total\\{controller="${controller}",result="${result}"\\} (\\d+)`, "u")
            return Number(line.exec(text)?.[1] ?? 0)
          })
        yield* status.settled
        const thing = status.resources().find(({ identity }) => identity.startsWith("SchemaDefinition/"))
        expect(thing?.conditions).toContainEqual(
          expect.objectContaining({ type: "Stalled", status: "True", reason: "Invalid" })
        )
        const taken = Effect.all([turns("SchemaDefinition", "success"), turns("SchemaDefinition", "error")])
        const before = yield* taken
        const failed = yield* turns("Domain", "error")
        yield* status.changes.pipe(
          Stream.mapEffect(() => turns("Domain", "error")),
          Stream.takeUntil((now) => now >= failed + 2),
          Stream.runDrain
        )
        expect(yield* taken).toEqual(before)
        yield* holder.query("rollback")
      })
    )
  )

  it.live("says of a binding that it has ended when it ends, and so of one that came too late", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const database = yield* freshDatabase
        const { org } = database
        const folder = yield* temporary
        const bound = (name: string, end: Date) =>
          manifest("RoleBinding", `${org}-shop-eu`, name, {
            org,
            app: "shop",
            domain: "eu",
            actorId: `keys/${name}`,
            roles: ["buyer"],
            expiresAt: end.toISOString().replace(/\.\d+Z$/u, "Z")
          })
        const all = [parents(org), bound("past", new Date(0)), bound("soon", new Date(Date.now() + 5_000))]
        yield* Effect.promise(() => writeFile(join(folder, "all.yaml"), all.join("\n---\n")))
        const status = yield* start(database, folder)
        const isOver = (name: string) => {
          const one = status.resources().find(({ identity }) => identity === `RoleBinding/${org}-shop-eu/${name}`)
          return one?.conditions.some(({ reason, type }) => type === "Stalled" && reason === "Expired") === true
        }
        yield* status.settled
        expect(isOver("past")).toBe(true)
        yield* Stream.merge(Stream.succeed(undefined), status.changes).pipe(
          Stream.takeUntil(() => isOver("soon")),
          Stream.runDrain
        )
      })
    )
  )

  it.live("makes a domain in two databases of one server at once, which share its roles", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const [one, two] = [yield* freshDatabase, yield* freshDatabase]
        const apply = (database: TestDatabase, domain: string) =>
          OperatorSql.pipe(
            Effect.flatMap((sql) =>
              sql.transaction((tx) =>
                applyDomain(tx, {
                  spec: { org: one.org, app: "shop", domain, deletionPolicy: "Retain", database: "default" },
                  origin: { source: "folder", namespace: "shop", name: domain },
                  authStrategy: undefined
                })
              )
            ),
            // two grants on one role may not be made at once; whoever comes second tries again, as the queue does
            Effect.retry({ times: 5 }),
            Effect.provide(OperatorSql.layer.pipe(Layer.provide(config(database))))
          )
        const domains = Array.from({ length: 6 }, (_, index) => `d${index}`)
        const done = yield* Effect.all(
          domains.map((domain) => Effect.all([apply(one, domain), apply(two, domain)], { concurrency: "unbounded" }))
        )
        expect(done.flat().map((outcome) => outcome._tag)).toEqual(done.flat().map(() => "Applied"))
        for (const database of [one, two]) {
          const violations = yield* IsolationCheck.check().pipe(
            Effect.provide(ApiSql.layer.pipe(Layer.provide(config(database))))
          )
          expect(violations.map(IsolationCheck.render)).toEqual([])
        }
      })
    )
  )
})
