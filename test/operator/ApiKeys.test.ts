/**
 * ApiKeys from a folder, and the API over the same database: what lies in the file opens the domain, and ends with its
 * manifest. Minting is broken off at each of its writes, by a database that fails there.
 */
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Duration, Effect, Exit, Layer, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { sha256Hex } from "../../src/domain/Sha256.ts"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { failure } from "../../src/postgres/DatabaseFailure.ts"
import { OperatorSql, type Tx } from "../../src/postgres/OperatorSql.ts"
import { send } from "../server/Requests.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, type World } from "../server/World.ts"
import { configOf } from "../support/Database.ts"

let world: World
let made = ""
const folder = () => join(made, "manifests")
const keys = () => join(made, "keys")

interface Wanted {
  readonly name: string
  readonly annotations?: Readonly<Record<string, string>>
  readonly spec?: object
}

/** The folder with these ApiKeys in a domain that takes keys. */
const write = async (wanted: ReadonlyArray<Wanted>): Promise<void> => {
  const { org } = world.database
  const path = { org, app: "shop", domain: "eu" }
  const of = (kind: string, name: string, namespace: string, spec: object, annotations?: object) => ({
    apiVersion: "velocity.sh/v1",
    kind,
    metadata: { name, namespace, ...(annotations === undefined ? {} : { annotations }) },
    spec
  })
  const all = [
    of("Organisation", org, "velocity-system", { org }),
    of("AuthStrategy", "keys", "velocity-system", { type: "apikey" }),
    of("Application", "shop", org, { org, app: "shop" }),
    of("Domain", "eu", `${org}-shop`, { ...path, authStrategy: "keys" }),
    of("SchemaDefinition", "thing", `${org}-shop-eu`, thing(`${org}/shop/eu`)),
    ...wanted.map(({ annotations, name, spec }) =>
      of("ApiKey", name, `${org}-shop-eu`, { ...path, actor: `keys/${name}`, roles: ["reader"], ...spec }, annotations)
    )
  ]
  await writeFile(join(folder(), "all.yaml"), all.map((one) => JSON.stringify(one)).join("\n---\n"))
}

/** An operator on the folder until it is stopped; `through` alters how it reaches the database. */
const operate = async (through: (sql: OperatorSql["Service"]) => OperatorSql["Service"] = (sql) => sql) => {
  const scope = Scope.makeUnsafe()
  const sql = Layer.effect(OperatorSql, Effect.map(OperatorSql, through)).pipe(Layer.provide(OperatorSql.layer))
  const context = await Effect.runPromise(
    Layer.buildWithScope(
      Operator.layer({ manifests: folder(), quiet: Duration.zero, keys: keys() }).pipe(
        Layer.provide(sql),
        Layer.provide(ConfigProvider.layer(configOf(world.database)))
      ),
      scope
    )
  )
  const status = await Effect.runPromise(Effect.provideContext(OperatorStatus, context))
  return {
    status,
    look: () => Effect.runPromise(status.look),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}

const codeOf = async (key: string) => {
  const reply = await send(world.url, `/api/${world.database.org}/shop/eu/thing/v1`, { headers: { "x-api-key": key } })
  return `${reply.status} ${reply.json?.code ?? ""}`.trim()
}
const keyIn = async (name: string): Promise<string> => (await readFile(join(keys(), name), "utf8")).trim()
const rowsOf = (name: string) =>
  world.look(
    "select encode(key_hash, 'hex') as hash, state, secret_name from platform.api_keys where name = $1 order by serial",
    [name]
  )

beforeAll(async () => {
  world = await makeWorld()
  made = await mkdtemp(join(tmpdir(), "velocity-keys-"))
  await mkdir(folder())
})
afterAll(async () => {
  await world.stop()
  await rm(made, { recursive: true, force: true })
})

describe("an ApiKey in a folder", () => {
  it("is minted into a file that its owner alone reads, opens the domain, and ends with its manifest", async () => {
    await write([{ name: "robot" }])
    const operator = await operate()
    await operator.look()
    const key = await keyIn("robot")
    expect((await stat(join(keys(), "robot"))).mode & 0o777).toBe(0o600)
    expect((await stat(keys())).mode & 0o777).toBe(0o700)
    await expect.poll(() => codeOf(key)).toBe("200")

    await write([{ name: "robot", annotations: { "velocity.sh/rotate": "1" } }])
    await operator.look()
    const next = await keyIn("robot-2")
    await expect.poll(() => codeOf(next)).toBe("200")
    expect(await codeOf(key)).toBe("200")

    await write([])
    await operator.look()
    await expect.poll(() => codeOf(next)).toBe("401 key_revoked")
    await expect.poll(() => codeOf(key)).toBe("401 key_revoked")
    await operator.stop()
  })

  it("stays ended where it was revoked by hand, until something new asks for another", async () => {
    await write([{ name: "leaked" }])
    const operator = await operate()
    await operator.look()
    const key = await keyIn("leaked")
    await expect.poll(() => codeOf(key)).toBe("200")
    await world.operator(
      "update platform.api_keys set state = 'Revoked', revoked_at = now(), generation = nextval('platform.generation_seq') where name = 'leaked'"
    )
    await write([{ name: "leaked", spec: { roles: ["clerk"] } }])
    await operator.look()
    const said = () =>
      operator.status
        .resources()
        .find((one) => one.identity.endsWith("/leaked"))
        ?.conditions.find((one) => one.type === "Ready")?.reason
    expect(said()).toBe("Revoked")
    expect((await rowsOf("leaked")).length).toBe(1)
    await write([{ name: "leaked", spec: { roles: ["clerk"] }, annotations: { "velocity.sh/rotate": "1" } }])
    await operator.look()
    expect(said()).toBe("Reconciled")
    const next = await keyIn("leaked-2")
    await expect.poll(() => codeOf(next)).toBe("200")
    await operator.stop()
  })

  it("ends its key of before when the overlap is over, and says so in its row", async () => {
    await write([{ name: "short", spec: { rotationOverlap: "1s" } }])
    const operator = await operate()
    await operator.look()
    const key = await keyIn("short")
    await write([{ name: "short", spec: { rotationOverlap: "1s" }, annotations: { "velocity.sh/rotate": "1" } }])
    await operator.look()
    await expect
      .poll(async () => (await rowsOf("short")).map((row) => row.state), { timeout: 30_000 })
      .toEqual(["Revoked", "Active"])
    await expect.poll(() => codeOf(key)).toBe("401 key_revoked")
    await operator.stop()
  })

  const broken = failure("Unavailable", new Error("ended here"))
  /** Statements at which minting is broken off: nothing of their transaction is kept, and nothing comes after. */
  const writes = [
    ["the hash is kept", "'Pending', $10"],
    ["the key is put in force", "set state = 'Active'"],
    ["the log is written", "audit_insert"]
  ] as const
  for (const [index, [what, text]] of writes.entries()) {
    it(`whose minting is broken off where ${what} is minted by the next operator, and nothing else opens anything`, async () => {
      const name = `broken-${index}`
      await write([])
      const before = await operate()
      await before.look()
      await before.stop()
      let reached = 0
      const failing = (tx: Tx): Tx => ({
        ...tx,
        query: (asked) => {
          if (!JSON.stringify(asked).includes(text)) return tx.query(asked)
          reached += 1
          return Effect.fail(broken)
        }
      })
      await write([{ name }])
      const first = await operate((sql) => ({
        ...sql,
        transaction: (f, options) => sql.transaction((tx) => f(failing(tx)), options)
      }))
      await expect.poll(() => reached).toBeGreaterThan(0)
      await first.stop()
      expect((await rowsOf(name)).filter((row) => row.state !== "Pending")).toEqual([])
      const second = await operate()
      await second.look()
      const rows = await rowsOf(name)
      expect(rows.map((row) => row.state)).toEqual(["Active"])
      const file = String(rows[0]?.secret_name)
      const key = await keyIn(file)
      expect(sha256Hex(key)).toBe(rows[0]?.hash)
      await expect.poll(() => codeOf(key)).toBe("200")
      for (const other of await readdir(keys())) {
        if (other.startsWith(name) && other !== file) expect(await codeOf(await keyIn(other))).toBe("401 key_unknown")
      }
      await second.stop()
    })
  }
})
