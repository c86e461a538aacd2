/**
 * ApiKeys on a real API server: a key lies in a Secret that was made once, and what is in force is always what was
 * delivered, wherever the operator is killed in between. It is killed by hanging at a request and ending there.
 */
import { layer } from "@effect/vitest"
import { Deferred, Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, expect } from "vitest"
import { keyEnvironment } from "../../src/domain/KeyText.ts"
import { sha256Hex } from "../../src/domain/Sha256.ts"
import { type Kube, KubeError, type KubeRequest } from "../../src/kubernetes/Kube.ts"
import { freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { startOperator } from "./ClusterWorld.ts"
import { type Installed, install, until } from "./Installed.ts"
import { apiKey, application, domain, type Manifest, namespacesOf, organisation, strategy } from "./Manifests.ts"

let cluster: Installed

beforeAll(async () => {
  cluster = await install()
})
afterAll(() => cluster?.stop())

const named = (one: Manifest) => [
  `${one.kind.toLowerCase()}.velocity.sh/${one.metadata.name}`,
  "-n",
  String(one.metadata.namespace)
]
const promise = <A>(f: () => Promise<A>) => Effect.promise(f)

interface Status {
  readonly secretName?: string
  readonly fingerprint?: string
  readonly keyId?: string
  readonly retiring?: ReadonlyArray<string>
  readonly conditions?: ReadonlyArray<{
    readonly type: string
    readonly status: string
    readonly reason: string
    readonly message: string
  }>
}
interface Secret {
  readonly immutable?: boolean
  readonly data: Readonly<Record<string, string>>
  readonly metadata: {
    readonly name: string
    readonly annotations?: Readonly<Record<string, string>>
    readonly ownerReferences?: ReadonlyArray<Readonly<Record<string, unknown>>>
  }
}

const read = async (
  one: Manifest
): Promise<{
  readonly status?: Status
  readonly metadata: { readonly uid: string; readonly resourceVersion: string }
}> => JSON.parse(await cluster.ok(["get", ...named(one), "-o", "json"]))
const statusOf = async (one: Manifest): Promise<Status> => (await read(one)).status ?? {}
const readyOf = ({ conditions }: Status) => conditions?.find((one) => one.type === "Ready")
const ready = (one: Manifest) =>
  promise(async () => {
    await cluster.ok(["wait", "--for=condition=Ready", "--timeout=60s", ...named(one)])
    return statusOf(one)
  })
const reasonIs = (one: Manifest, reason: string) =>
  promise(() => until(`it is ${reason}`, async () => readyOf(await statusOf(one))?.reason === reason))
/** As its owner reads it. */
const secretsOf = (org: string) =>
  promise(async () => {
    const { items } = JSON.parse(await cluster.ok(["get", "secrets", "-n", `${org}-shop-eu`, "-o", "json"])) as {
      readonly items: ReadonlyArray<Secret>
    }
    return new Map(
      items.map((one) => [
        one.metadata.name,
        { ...one, key: Buffer.from(one.data.key ?? "", "base64").toString("utf8") }
      ])
    )
  })

interface Row {
  readonly hash: string
  readonly state: string
  readonly secret_name: string
}
const rowsOf = (database: TestDatabase) =>
  query(
    database.operatorUrl,
    "select encode(key_hash, 'hex') as hash, state, secret_name from platform.api_keys where chain like $1 || '/%' and name = 'robot' order by serial",
    [database.org]
  ) as Effect.Effect<ReadonlyArray<Record<string, unknown> & Row>>

/** A domain that takes keys, and an ApiKey of it. */
const world = Effect.fnUntraced(function* () {
  const database = yield* freshDatabase
  const { org } = database
  const key = apiKey(org, "robot", { actor: `${org}-shop:keys/robot` })
  yield* promise(() =>
    cluster.apply([
      ...namespacesOf(org),
      organisation(org),
      application(org),
      strategy(`${org}-shop`, "keys", { type: "apikey" }),
      domain(org, { authStrategy: "keys" }),
      key
    ])
  )
  const start = Effect.fnUntraced(function* (through?: (kube: Kube["Service"]) => Kube["Service"]) {
    const scope = yield* Scope.fork(yield* Scope.Scope)
    yield* startOperator({
      database,
      kubeconfig: cluster.kubeconfig,
      ...(through === undefined ? {} : { through })
    }).pipe(Scope.provide(scope))
    return Scope.close(scope, Exit.void)
  })
  return { database, org, key, start }
})

/** The key in force is the one in the Secret that the status names, and nothing else opens anything. */
const isWhole = Effect.fnUntraced(function* (database: TestDatabase, key: Manifest) {
  const status = yield* ready(key)
  const secrets = yield* secretsOf(database.org)
  const rows = yield* rowsOf(database)
  const active = rows.filter((one) => one.state === "Active")
  expect(active.length).toBe(1)
  expect(active[0]?.hash).toBe(sha256Hex(secrets.get(status.secretName ?? "")?.key ?? ""))
  expect(active[0]?.hash.slice(0, 16)).toBe(status.fingerprint)
  expect(rows.filter((one) => one.state === "Pending")).toEqual([])
  for (const { key: text, metadata } of secrets.values()) {
    const row = rows.find((one) => one.hash === sha256Hex(text))
    if (metadata.name !== status.secretName && row !== undefined) expect(row.state).not.toBe("Active")
  }
  return { status, secrets, rows }
})

const annotate = (key: Manifest, value: string) =>
  promise(() => cluster.ok(["annotate", "--overwrite", ...named(key), `velocity.sh/rotate=${value}`]))

let markers = 0
/**
 * Changes an ApiKey where it means nothing, and makes another one after it: when that is ready the operator has looked at the
 * first, since it works on one after the other as it was told of them.
 */
const settled = Effect.fnUntraced(function* (key: Manifest) {
  yield* promise(() => cluster.ok(["annotate", "--overwrite", ...named(key), `example.org/seen=${markers++}`]))
  const marker = { ...key, metadata: { ...key.metadata, name: `marker-${markers++}` } }
  yield* promise(() => cluster.apply([marker]))
  yield* ready(marker)
})

const isMint = ({ method, path }: KubeRequest): boolean => method === "POST" && path.endsWith("/secrets")
const isStatus = ({ method, path }: KubeRequest): boolean =>
  method === "PATCH" && /\/apikeys\/[^/]+\/status$/u.test(path)
const isFinalizer = ({ method, path }: KubeRequest): boolean => method === "PATCH" && /\/apikeys\/[^/]+$/u.test(path)

layer(Layer.empty, { excludeTestServices: true })("an ApiKey", (it) => {
  it.effect("is minted once into a Secret of its own, and is nowhere else", () =>
    Effect.gen(function* () {
      const { database, key, org, start } = yield* world()
      const stop = yield* start()
      const { secrets, status } = yield* isWhole(database, key)
      const secret = secrets.get("robot")
      const { metadata } = yield* promise(() => read(key))
      expect([...secrets.keys()]).toEqual(["robot"])
      expect(keyEnvironment(secret?.key ?? "")).toBe("live")
      expect(secret?.immutable).toBe(true)
      expect(secret?.metadata.annotations).toEqual({ "velocity.sh/key-id": status.keyId })
      expect(secret?.metadata.ownerReferences).toMatchObject([{ kind: "ApiKey", name: "robot", uid: metadata.uid }])
      expect(readyOf(status)?.message).toBe(
        `${org}-shop:keys/robot by the key ${status.fingerprint} in the Secret robot`
      )
      // nowhere in the database, the object, its events, the log
      const part = (secret?.key ?? "").slice(9)
      const tables = yield* query(
        database.superuserUrl,
        "select table_schema || '.' || quote_ident(table_name) as name from information_schema.tables where table_schema = 'platform' and table_type = 'BASE TABLE'"
      )
      for (const { name } of tables) {
        const [found] = yield* query(
          database.superuserUrl,
          `select count(*)::int as n from ${name} t where t::text like '%' || $1 || '%'`,
          [part]
        )
        expect([name, found?.n]).toEqual([name, 0])
      }
      for (const args of [
        ["get", ...named(key), "-o", "yaml"],
        ["get", "events", "-n", `${org}-shop-eu`, "-o", "yaml"]
      ]) {
        expect(yield* promise(() => cluster.ok(args))).not.toContain(part)
      }
      const log = yield* query(
        database.superuserUrl,
        "select action, payload ->> 'fingerprint' as fingerprint, payload ->> 'in' as place from platform.audit_log where action like 'key.%'"
      )
      expect(log).toEqual([{ action: "key.create", fingerprint: status.fingerprint, place: `${org}-shop-eu/robot` }])
      // another operator finds everything done
      yield* stop
      const requests: Array<KubeRequest> = []
      yield* start((kube) => ({
        ...kube,
        request: (asked) => {
          if (isMint(asked) || isStatus(asked) || isFinalizer(asked)) requests.push(asked)
          return kube.request(asked)
        }
      }))
      yield* settled(key)
      expect(requests.filter((one) => !JSON.stringify(one).includes("marker"))).toEqual([])
      expect((yield* rowsOf(database)).length).toBe(1)
    })
  )

  const killed: ReadonlyArray<{
    readonly when: string
    readonly at: (asked: KubeRequest) => boolean
    readonly sent: boolean
  }> = [
    { when: "before its finalizer", at: isFinalizer, sent: false },
    { when: "between its finalizer and the hash", at: isFinalizer, sent: true },
    { when: "between the hash and the Secret", at: isMint, sent: false },
    { when: "between the Secret and the hash being put in force", at: isMint, sent: true },
    { when: "between being put in force and its status", at: isStatus, sent: false },
    { when: "after its status", at: isStatus, sent: true }
  ]
  /** An operator that hangs at a request, before it is sent or after it was answered, and is ended there. */
  const killedAt = Effect.fnUntraced(function* (
    start: (
      through?: (kube: Kube["Service"]) => Kube["Service"]
    ) => Effect.Effect<Effect.Effect<void>, unknown, Scope.Scope>,
    { at, sent }: (typeof killed)[number]
  ) {
    const reached = yield* Deferred.make<void>()
    const hang = Effect.andThen(Deferred.succeed(reached, undefined), Effect.never)
    const stop = yield* start((kube) => ({
      ...kube,
      request: (asked) => (at(asked) ? (sent ? Effect.andThen(kube.request(asked), hang) : hang) : kube.request(asked))
    }))
    yield* Deferred.await(reached)
    yield* stop
  })

  for (const one of killed) {
    it.effect(`of an operator that is killed ${one.when} is in force once, and in its Secret`, () =>
      Effect.gen(function* () {
        const { database, key, start } = yield* world()
        yield* killedAt(start, one)
        yield* start()
        yield* isWhole(database, key)
      })
    )
    if (one.at === isFinalizer) continue
    it.effect(`is rotated to one other by an operator that is killed ${one.when}, and works all the while`, () =>
      Effect.gen(function* () {
        const { database, key, start } = yield* world()
        const stop = yield* start()
        const before = yield* isWhole(database, key)
        yield* stop
        yield* annotate(key, "now")
        yield* killedAt(start, one)
        const [first] = yield* rowsOf(database)
        expect(["Active", "Retiring"]).toContain(first?.state)
        yield* start()
        yield* promise(() =>
          until("it is rotated", async () => (await statusOf(key)).fingerprint !== before.status.fingerprint)
        )
        const after = yield* isWhole(database, key)
        expect(after.rows[0]?.state).toBe("Retiring")
        expect(after.status.retiring?.[0]).toContain(before.status.fingerprint)
        expect(after.rows.filter((row) => row.state === "Retiring").length).toBe(1)
      })
    )
  }

  it.effect("is rotated when its annotation says something new, and not otherwise", () =>
    Effect.gen(function* () {
      const { database, key, start } = yield* world()
      yield* start()
      const first = yield* isWhole(database, key)
      yield* annotate(key, "1")
      yield* promise(() => until("it is rotated", async () => (await statusOf(key)).secretName === "robot-2"))
      const second = yield* isWhole(database, key)
      expect(second.status.retiring).toEqual([
        expect.stringMatching(new RegExp(`^${first.status.fingerprint} until 20`, "u"))
      ])
      expect(second.rows.map((row) => row.state)).toEqual(["Retiring", "Active"])
      // the same again, and none at all, is nothing new
      yield* annotate(key, "1")
      yield* promise(() => cluster.ok(["annotate", ...named(key), "velocity.sh/rotate-"]))
      yield* settled(key)
      expect((yield* rowsOf(database)).length).toBe(2)
      // without an overlap the one of before ends at once; the first keeps its own
      yield* promise(() =>
        cluster.ok(["patch", ...named(key), "--type=merge", "-p", JSON.stringify({ spec: { rotationOverlap: "0s" } })])
      )
      yield* annotate(key, "2")
      yield* promise(() => until("it is rotated again", async () => (await statusOf(key)).secretName === "robot-3"))
      const third = yield* isWhole(database, key)
      expect(third.rows.map((row) => row.state)).toEqual(["Retiring", "Revoked", "Active"])
    })
  )

  it.effect("does not come back for a Secret that was deleted by hand, and goes past a name that is taken", () =>
    Effect.gen(function* () {
      const { database, key, org, start } = yield* world()
      yield* start()
      yield* isWhole(database, key)
      const { metadata } = yield* promise(() => read(key))
      yield* promise(() => cluster.ok(["delete", "secret", "robot", "-n", `${org}-shop-eu`]))
      yield* promise(() =>
        cluster.ok(["create", "secret", "generic", "robot-2", "-n", `${org}-shop-eu`, "--from-literal=key=mine"])
      )
      yield* settled(key)
      expect((yield* rowsOf(database)).length).toBe(1)
      yield* annotate(key, "1")
      yield* promise(() => until("it is rotated", async () => (await statusOf(key)).secretName === "robot-3"))
      const { secrets } = yield* isWhole(database, key)
      expect(secrets.get("robot-2")?.key).toBe("mine")
      expect((yield* promise(() => read(key))).metadata.uid).toBe(metadata.uid)
    })
  )

  it.effect("ends when it is deleted, and one of its name that is made again has a key of its own", () =>
    Effect.gen(function* () {
      const { database, key, start } = yield* world()
      yield* start()
      yield* isWhole(database, key)
      yield* promise(() => cluster.ok(["delete", "--wait=true", "--timeout=60s", ...named(key)]))
      expect((yield* rowsOf(database)).map((row) => row.state)).toEqual(["Revoked"])
      yield* promise(() => cluster.apply([key]))
      const again = yield* isWhole(database, key)
      // a real cluster collects the first Secret with its owner; the name is another one in any case
      expect(again.status.secretName).toBe("robot-2")
      const log = yield* query(
        database.superuserUrl,
        "select action from platform.audit_log where action like 'key.%' and chain like $1 || '/%' order by occurred_at",
        [database.org]
      )
      expect(log.map((row) => row.action)).toEqual(["key.create", "key.revoke", "key.create"])
    })
  )

  it.effect("that vanishes without a deletion is revoked at once, also while no operator looks", () =>
    Effect.gen(function* () {
      const { database, key, start } = yield* world()
      const vanish = promise(async () => {
        await cluster.ok([
          "patch",
          ...named(key),
          "--type=json",
          "-p",
          '[{"op":"remove","path":"/metadata/finalizers"}]'
        ])
        await cluster.ok(["delete", "--wait=true", "--timeout=60s", ...named(key)])
      })
      const revoked = Effect.fnUntraced(function* (count: number) {
        yield* promise(() =>
          until("it is revoked", async () => {
            const rows = await Effect.runPromise(rowsOf(database))
            return rows.length === count && rows.every((row) => row.state === "Revoked")
          })
        )
      })
      const stop = yield* start()
      yield* isWhole(database, key)
      yield* stop
      yield* vanish
      const next = yield* start()
      yield* revoked(1)
      yield* promise(() => cluster.apply([key]))
      yield* isWhole(database, key)
      // and one of the same name in its place, seen without the gap between the two
      yield* next
      yield* vanish
      yield* promise(() => cluster.apply([key]))
      yield* start()
      yield* promise(() => until("it is another", async () => (await statusOf(key)).secretName === "robot-3"))
      const { rows } = yield* isWhole(database, key)
      expect(rows.map((row) => row.state)).toEqual(["Revoked", "Revoked", "Active"])
    })
  )

  it.effect("is narrowed where it is changed, and keeps its key", () =>
    Effect.gen(function* () {
      const { database, key, start } = yield* world()
      yield* start()
      const before = yield* isWhole(database, key)
      const spec = { roles: ["clerk"], ipAllowlist: ["10.0.0.0/8"], expiresAt: "2099-01-01T00:00:00Z" }
      yield* promise(() => cluster.ok(["patch", ...named(key), "--type=merge", "-p", JSON.stringify({ spec })]))
      const column = () =>
        Effect.map(
          query(
            database.operatorUrl,
            "select array_to_string(roles || ip_allowlist, ' ') as said from platform.api_keys where chain like $1 || '/%'",
            [database.org]
          ),
          (rows) => rows.map((row) => row.said)
        )
      yield* promise(() =>
        until("it is narrowed", async () => (await Effect.runPromise(column())).join() === "clerk 10.0.0.0/8")
      )
      yield* promise(() =>
        until("it is told", async () => readyOf(await statusOf(key))?.message.includes("until 2099") === true)
      )
      const after = yield* isWhole(database, key)
      expect(after.status.fingerprint).toBe(before.status.fingerprint)
    })
  )

  it.effect("waits where its domain does not take keys, and is made when it does", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      const { org } = database
      const key = apiKey(org, "robot", { actor: `${org}-shop:keys/robot` })
      const people = {
        type: "jwt",
        jwt: { issuers: ["i"], audience: "a", jwksUrl: "https://i.example/keys" }
      }
      yield* promise(() =>
        cluster.apply([
          ...namespacesOf(org),
          organisation(org),
          application(org),
          strategy(`${org}-shop`, "people", people),
          domain(org, { authStrategy: "people" }),
          key
        ])
      )
      yield* startOperator({ database, kubeconfig: cluster.kubeconfig })
      yield* reasonIs(key, "StrategyMissing")
      yield* promise(() => cluster.apply([strategy(`${org}-shop`, "keys", { type: "apikey" })]))
      yield* reasonIs(key, "NotTrusted")
      expect((yield* secretsOf(org)).size).toBe(0)
      yield* promise(() =>
        cluster.apply([
          strategy(`${org}-shop`, "both", { type: "composite", composite: { strategies: ["people", "keys"] } }),
          domain(org, { authStrategy: "both" })
        ])
      )
      yield* isWhole(database, key)
    })
  )

  it.effect("says so where no Secret may be made, and leaves nothing that opens anything", () =>
    Effect.gen(function* () {
      const { database, key, start } = yield* world()
      const stop = yield* start((kube) => ({
        ...kube,
        request: (asked) =>
          isMint(asked)
            ? Effect.fail(new KubeError({ reason: "Forbidden", status: 403, message: "secrets is forbidden" }))
            : kube.request(asked)
      }))
      yield* reasonIs(key, "DeliveryRefused")
      expect((yield* rowsOf(database)).map((row) => row.state)).toEqual(["Pending"])
      yield* stop
      yield* start()
      yield* isWhole(database, key)
    })
  )
})
