/** The typed client against the running server, over real HTTP: exact numbers, streams of pages, typed problems. */
import { Effect, Redacted, Schema, Stream } from "effect"
import { FetchHttpClient } from "effect/http"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import {
  ApiProblem,
  Decimal,
  ExactNumber,
  type ExactObject,
  Integer,
  make,
  SystemColumns,
  type VelocityClient,
  verifyEntryProof
} from "../../src/client/index.ts"
import { seal } from "../domain/EntryLog.ts"
import { provision } from "../server/Provisioned.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, tokenOf, type World } from "../server/World.ts"

let world: World
let client: VelocityClient
let platform: VelocityClient
let path: string
const run = <A, E>(effect: Effect.Effect<A, E>) => Effect.runPromise(effect)
const clientOf = (token: string): Promise<VelocityClient> =>
  Effect.runPromise(
    make({ baseUrl: world.url, token: Redacted.make(token) }).pipe(Effect.provide(FetchHttpClient.layer))
  )
/** The problem that a call fails with. */
const problemOf = async <A, E>(effect: Effect.Effect<A, E>): Promise<ApiProblem> => {
  const error = await Effect.runPromise(Effect.flip(effect))
  expect(error).toBeInstanceOf(ApiProblem)
  return error as ApiProblem
}

const Thing = Schema.Struct({
  ...SystemColumns,
  name: Schema.String,
  status: Schema.Literals(["draft", "done"]),
  price: Schema.NullOr(Decimal),
  amount: Schema.NullOr(Integer),
  note: Schema.NullOr(Schema.String)
})

const number = (text: string) => new ExactNumber(text)

beforeAll(async () => {
  let admin = ""
  world = await makeWorld({
    prepare: async (database, makeStrategy) => {
      const strategy = await makeStrategy("sales")
      path = `${database.org}/shop/sales/thing/v1`
      await provision(database, [
        { chain: `${database.org}/shop/sales`, strategy: strategy.id, types: [thing(`${database.org}/shop/sales`)] }
      ])
      admin = await tokenOf(strategy, { sub: "ann", roles: ["admin"] })
    }
  })
  client = await clientOf(admin)
  platform = await clientOf(await world.token(world.platform, { sub: "pam", roles: ["platform-auditor"] }))
})
afterAll(() => world.stop())

describe("records of the client", () => {
  it("come and go by a schema, their numbers exact", async () => {
    const things = client.records(path, Thing)
    const sent = { name: "exact", price: number("12345678901234567890.1234"), amount: number("9007199254740993") }
    const created = await run(things.create(sent))
    expect(created.record).toMatchObject({
      name: "exact",
      price: "12345678901234567890.1234",
      amount: 9007199254740993n,
      version: 1
    })
    expect(created.etag).toMatch(/^"1-/u)
    const read = await run(things.get(created.record.id))
    expect(read).toEqual(created)
    const changed = await run(
      things.patch(
        created.record.id,
        { price: number("0.1") },
        created.etag === undefined ? {} : { ifMatch: created.etag }
      )
    )
    expect(changed.record.price).toBe("0.1000")
    const pointed = await run(
      things.jsonPatch(created.record.id, [{ op: "replace", path: "/price", value: number("2") }])
    )
    expect(pointed.record.price).toBe("2.0000")
    const put = await run(things.put(created.record.id, { name: "put", price: number("3.5") }))
    expect([put.record.price, put.record.amount]).toEqual(["3.5000", null])
    await run(things.delete(created.record.id))
    expect((await problemOf(things.get(created.record.id))).code).toBe("not_found")
    expect((await run(things.restore(created.record.id))).record.version).toBe(6)
    const past = await run(Stream.runCollect(things.history(created.record.id)))
    expect(past.length).toBe(6)
  })

  it("are erased by the platform's officer, and by nobody else", async () => {
    const { record } = await run(client.records(path, Thing).create({ name: "erased" }))
    const officer = await clientOf(await world.token(world.platform, { sub: "olga", roles: ["platform-privacy"] }))
    const why = { reason: "asked for", ticket: "DSR-1" }
    expect((await problemOf(client.records(path).erase(record.id, why))).code).toBe("token_issuer")
    expect((await problemOf(platform.records(path).erase(record.id, why))).code).toBe("operation_not_granted")
    const tried = await run(officer.records(path).erase(record.id, { ...why, dryRun: true }))
    expect(tried).toEqual({ id: record.id, rows: 1, versions: 1, answers: 0 })
    const erased = await run(officer.records(path).erase(record.id, why))
    expect(erased).toEqual({ ...tried, entry: expect.any(String) })
    expect((await problemOf(officer.records(path).erase(record.id, why))).code).toBe("not_found")
    const [past] = await run(Stream.runCollect(client.records(path).history(record.id)))
    expect(past).toMatchObject({ op: "create", state: null, changed: [] })
  })

  it("come as they are without one", async () => {
    const things = client.records(path)
    const { record } = await run(
      things.create({ name: "plain", price: number("1.10"), data: { deep: [number("1e2")] } })
    )
    expect((record.price as ExactNumber).text).toBe("1.1000")
    expect(record.version).toBeInstanceOf(ExactNumber)
  })

  it("are listed, and streamed over every page", async () => {
    const things = client.records(path, Thing)
    const many = Array.from({ length: 23 }, (_, index) => ({ name: `many ${index}`, amount: number(String(index)) }))
    const imported = await run(things.createMany(many))
    expect(imported.created).toBe(23)
    const where = { field: "amount", op: "gte", value: number("0") } as const
    const first = await run(things.list({ where, sort: ["-amount"], limit: 10, count: "exact" }))
    expect(first.items.length).toBe(10)
    expect(first.count?.text).toBe("23")
    const all = await run(Stream.runCollect(things.all({ where, sort: ["-amount"], limit: 5 })))
    expect(all.map((one) => Number(one.amount))).toEqual(Array.from({ length: 23 }, (_, index) => 22 - index))
    const few = await run(Stream.runCollect(Stream.take(things.all({ sort: ["name"], limit: 2 }), 3)))
    expect(few.length).toBe(3)
  })

  it("are imported as they come", async () => {
    const things = client.records(path)
    const rows = Stream.map(Stream.range(1, 700), (index): ExactObject => ({ name: `streamed ${index}` }))
    const imported = await run(things.import(rows))
    expect(imported.created).toBe(700)
    expect((await run(things.get(String(imported.first_id)))).record.name).toBe("streamed 1")
  })
})

describe("problems of the client", () => {
  it("are typed, with every fault", async () => {
    const problem = await problemOf(client.records(path).create({ name: "bad!", price: number("-1") }))
    expect([problem._tag, problem.code, problem.status]).toEqual(["ApiProblem", "invalid", 422])
    expect(problem.errors.map((one) => one.pointer).sort()).toEqual(["/name", "/price"])
    expect(problem.requestId).toBeDefined()
    expect((await problemOf(client.records(`${path}2`).list())).code).toBe("not_found")
    const nobody = await clientOf("nonsense")
    expect((await problemOf(nobody.me(path))).code).toBe("token_malformed")
    expect(() => client.records("nonsense")).toThrow(TypeError)
  })

  it("are matched by code, as an Effect", async () => {
    const handled = client
      .records(path)
      .create({})
      .pipe(
        Effect.map(() => "made"),
        Effect.catchTag("ApiProblem", (problem) => Effect.succeed(problem.code))
      )
    expect(await run(handled)).toBe("invalid")
  })
})

describe("the rest of the client", () => {
  it("knows who it is, and reads the platform", async () => {
    const me = await run(client.me(path))
    expect(me).toMatchObject({ actor: "sales/ann", roles: ["admin"] })
    expect(me.rights?.operations.length).toBe(6)
    const schemas = await run(Stream.runCollect(platform.platform.schemas()))
    expect(schemas.map((one) => one.path)).toEqual([path])
    const entries = await run(Stream.runCollect(Stream.take(platform.platform.audit({ limit: "3" }), 10)))
    expect(entries.length).toBe(10)
    expect((await problemOf(Stream.runCollect(client.platform.audit()))).code).toBe("token_issuer")
  })

  it("verifies each entry as the API exports it, once it is sealed, and none that was altered", async () => {
    const entries = await run(Stream.runCollect(platform.platform.audit({ limit: "1000" })))
    expect(new Set(entries.map((one) => one.action)).size).toBeGreaterThan(2)
    const log = await seal(entries)
    for (const [index, entry] of entries.entries()) {
      const proved = await run(verifyEntryProof(log.document(index), [log.key.text]))
      expect({ ...proved.entry, hash: proved.hash }).toEqual(entry)
      const document = { ...log.document(index), entry: { ...entry, actor: `${entry.actor}x` } }
      expect(await Effect.runPromise(Effect.flip(verifyEntryProof(document, [log.key.text])))).toMatchObject({
        verdict: "refuted"
      })
    }
  })

  it("asks for its token before each request", async () => {
    let asked = 0
    const renewing = await Effect.runPromise(
      make({
        baseUrl: world.url,
        token: Effect.sync(() => {
          asked += 1
          return Redacted.make("nonsense")
        })
      }).pipe(Effect.provide(FetchHttpClient.layer))
    )
    await problemOf(renewing.me())
    await problemOf(renewing.me())
    expect(asked).toBe(2)
  })
})
