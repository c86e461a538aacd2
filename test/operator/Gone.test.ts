/** A definition whose manifest goes, seen over HTTP: 410, its rows kept, and there again when the manifest comes back. */
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { ConfigProvider, Duration, Effect, Layer } from "effect"
import { afterAll, beforeAll, expect, it } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { makeKey, settings } from "../access/Issuer.ts"
import { type Sent, send } from "../server/Requests.ts"
import { type Running, start } from "../server/Running.ts"
import { makeWorld, type World } from "../server/World.ts"
import { configOf } from "../support/Database.ts"

const house = { id: "house", issuer: "https://house.example", key: await makeKey("ES256", "house") }
const cases = join(import.meta.dirname, "cases/refused-changes/1")
let world: World
let operator: Running<OperatorStatus>
let folder: string
let manifest: string

const manifestOf = async (name: string) =>
  (await readFile(join(cases, name), "utf8")).replaceAll("ORG", world.database.org)

beforeAll(async () => {
  world = await makeWorld()
  folder = await mkdtemp(join(tmpdir(), "velocity-gone-"))
  const parents = await manifestOf("p.yaml")
  await writeFile(join(folder, "p.yaml"), parents.replace("domain: eu }", "domain: eu, authStrategy: house }"))
  const strategy = {
    apiVersion: "velocity.sh/v1",
    kind: "AuthStrategy",
    metadata: { name: house.id, namespace: "velocity-system" },
    spec: { type: "jwt", jwt: settings({ issuers: [house.issuer], jwks: { keys: [house.key.jwk] } }) }
  }
  await writeFile(join(folder, "strategy.yaml"), JSON.stringify(strategy))
  manifest = await manifestOf("thing.yaml")
  await writeFile(join(folder, "thing.yaml"), manifest)
  operator = await start(
    Operator.layer({ manifests: folder, quiet: Duration.zero }).pipe(
      Layer.provide(OperatorSql.layer),
      Layer.provide(ConfigProvider.layer(configOf(world.database)))
    )
  )
})
afterAll(async () => {
  await operator.stop()
  await world.stop()
  await rm(folder, { recursive: true })
})

it("is 410 while its manifest is away, and has its rows when it is back", async () => {
  const path = `/api/${world.database.org}/shop/eu/thing/v1`
  const token = await world.token(house, { roles: ["buyer"] })
  const ask = (sent: Sent = {}, at = path) => send(world.url, at, { token, ...sent })
  const status = async () => (await ask()).status
  const look = () => operator.run(Effect.flatMap(OperatorStatus, (one) => one.look))
  await look()
  await expect.poll(status, { timeout: 10_000 }).toBe(200)
  const create = {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ a: "kept" })
  }
  const made = await ask(create)
  expect(made.status).toBe(201)

  await rm(join(folder, "thing.yaml"))
  await look()
  await expect.poll(status, { timeout: 10_000 }).toBe(410)
  const record = `${path}/${made.json.id}`
  for (const reply of [
    await ask(),
    await ask({}, record),
    await ask(create),
    await ask({ method: "DELETE" }, record)
  ]) {
    expect([reply.status, reply.json.code]).toEqual([410, "gone"])
  }

  await writeFile(join(folder, "thing.yaml"), manifest)
  await look()
  await expect.poll(status, { timeout: 10_000 }).toBe(200)
  const again = await ask({}, record)
  expect([again.status, again.json]).toEqual([200, made.json])
})
