/** `velocity api-key …` as people type it, and what the API makes of the key that it prints. */
import { Effect, Exit, Scope } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { keyEnvironment } from "../../src/domain/KeyText.ts"
import { sha256Hex } from "../../src/domain/Sha256.ts"
import { provision } from "../server/Provisioned.ts"
import { send } from "../server/Requests.ts"
import { thing } from "../server/Things.ts"
import { makeWorld, type World } from "../server/World.ts"
import { connect, query } from "../support/Database.ts"
import * as Run from "./Run.ts"

let world: World
let chain = ""

beforeAll(async () => {
  world = await makeWorld({
    prepare: async (database, strategy) => {
      chain = `${database.org}/shop/sales`
      await strategy("people")
      for (const [id, spec] of [
        ["keys", { type: "apikey" }],
        ["both", { type: "composite", composite: { strategies: ["people", "keys"] } }]
      ] as const) {
        await Effect.runPromise(
          query(database.operatorUrl, "insert into platform.auth_strategies (id, spec) values ($1, $2::text::jsonb)", [
            id,
            JSON.stringify(spec)
          ])
        )
      }
      await provision(database, [
        { chain, strategy: "both", types: [thing(chain)] },
        { chain: `${database.org}/shop/closed`, strategy: "people", types: [] }
      ])
    }
  })
})
afterAll(() => world.stop())

const environment = () => ({ VELOCITY_OPERATOR_DATABASE_URL: world.database.operatorUrl })
const velocity = (...args: ReadonlyArray<string>) => Run.run(["api-key", ...args], environment())
const create = (name: string, ...more: ReadonlyArray<string>) =>
  velocity("create", "--name", name, "--domain", chain, "--actor", "keys/ci", "--roles", "reader", ...more)
const codeOf = async (key: string, headers: Readonly<Record<string, string>> = {}) => {
  const reply = await send(world.url, `/api/${chain}/thing/v1`, { headers: { "x-api-key": key, ...headers } })
  return `${reply.status} ${reply.json?.code ?? ""}`.trim()
}
const keyOf = ({ code, err, out }: Run.Ran): string => {
  expect([code, err.includes("shown this once")]).toEqual([0, true])
  return out.trim()
}
const rowOf = (key: string) =>
  world.look(
    "select id::text as id, state, left(encode(key_hash, 'hex'), 16) as fingerprint from platform.api_keys where key_hash = decode($1, 'hex')",
    [sha256Hex(key)]
  )

describe("velocity api-key", () => {
  it("create prints a key alone on stdout, which the API takes; revoke ends it, by its fingerprint", async () => {
    const key = keyOf(await create("ci"))
    expect(keyEnvironment(key)).toBe("live")
    await expect.poll(() => codeOf(key)).toBe("200")
    const listed = await velocity("list", "--domain", chain)
    const [row] = await rowOf(key)
    expect(listed.out).toContain(String(row?.fingerprint))
    expect(listed.out).toMatch(/FINGERPRINT +DOMAIN +ACTOR +ROLES +STATE +ENDS +OF/u)
    expect(listed.out).not.toContain(key.slice(9))

    const ended = await velocity("revoke", String(row?.fingerprint), "--reason", "leaked")
    expect([ended.code, ended.out]).toEqual([0, `the key ${row?.fingerprint} is revoked\n`])
    await expect.poll(() => codeOf(key)).toBe("401 key_revoked")
    expect((await velocity("list", "--domain", chain)).out).toBe("no keys\n")
    const all = JSON.parse((await velocity("list", "--all", "--output", "json")).out) as ReadonlyArray<{
      readonly state: string
    }>
    expect(all.map((one) => one.state)).toEqual(["Revoked"])

    const log = await world.look(
      "select action, actor, payload ->> 'why' as why, payload ->> 'fingerprint' as fingerprint from platform.audit_log where action like 'key.%' order by occurred_at"
    )
    expect(log).toEqual([
      { action: "key.create", actor: expect.stringMatching(/^cli\//u), why: null, fingerprint: row?.fingerprint },
      { action: "key.revoke", actor: expect.stringMatching(/^cli\//u), why: "leaked", fingerprint: row?.fingerprint }
    ])
    // the name is free again
    const next = keyOf(await create("ci"))
    await expect.poll(() => codeOf(next)).toBe("200")
    const again = await create("ci")
    expect([again.code, again.out]).toEqual([1, ""])
    expect(again.err).toContain("is there already")
    const byId = await velocity("revoke", String((await rowOf(next))[0]?.id))
    expect(byId.code).toBe(0)
    const twice = await velocity("revoke", String((await rowOf(next))[0]?.id))
    expect([twice.code, twice.err]).toEqual([1, expect.stringContaining("opens nothing: it is revoked")])
  })

  it("create narrows a key by addresses and a scope", async () => {
    const elsewhere = keyOf(await create("elsewhere", "--from", "192.0.2.0/24,2001:db8::/32"))
    await expect.poll(() => codeOf(elsewhere)).toBe("401 key_address")
    const other = keyOf(await create("other", "--object", "part", "--operations", "read"))
    await expect.poll(() => codeOf(other)).toBe("403 operation_not_granted")
    const scoped = keyOf(await create("scoped", "--object", "thing", "--operations", "read"))
    await expect.poll(() => codeOf(scoped)).toBe("200")
  })

  it("create refuses what opens nothing, and leaves nothing", async () => {
    const before = await world.look("select count(*)::int as n from platform.api_keys")
    const refused: ReadonlyArray<readonly [ReadonlyArray<string>, number, string]> = [
      [["--actor", "people/alice"], 1, "is of type jwt"],
      [["--domain", `${world.database.org}/shop/closed`], 1, "trusts people, and not keys"],
      [["--domain", "platform"], 2, "begin with platform-"],
      [["--from", "everywhere"], 2, "ipAllowlist"],
      [["--expires-at", "2020-01-01T00:00:00Z"], 2, "is past"]
    ]
    for (const [more, code, message] of refused) {
      const flags = new Map([
        ["--name", "refused"],
        ["--domain", chain],
        ["--actor", "keys/ci"],
        ["--roles", "reader"]
      ])
      for (let index = 0; index < more.length; index += 2) flags.set(more[index] ?? "", more[index + 1] ?? "")
      const ran = await velocity("create", ...[...flags].flat())
      expect([more.join(" "), ran.code, ran.out]).toEqual([more.join(" "), code, ""])
      expect(ran.err).toContain(message)
    }
    expect(await world.look("select count(*)::int as n from platform.api_keys")).toEqual(before)
    const missing = await velocity("revoke", "0000000000000000")
    expect([missing.code, missing.err]).toEqual([1, expect.stringContaining("there is no key")])
  })

  it("create that is killed when it has printed the key leaves one that opens nothing, and a name that is free", async () => {
    const scope = Scope.makeUnsafe()
    const blocker = await Effect.runPromise(Scope.provide(connect(world.database.superuserUrl), scope))
    // what is put in force is entered into the log, and waits for it
    await Effect.runPromise(blocker.query("begin"))
    await Effect.runPromise(blocker.query("lock table platform.audit_log in share row exclusive mode"))
    const command = Run.start(
      ["api-key", "create", "--name", "cut", "--domain", chain, "--actor", "keys/ci", "--roles", "reader"],
      environment()
    )
    await command.says("vel_live_")
    command.process.kill("SIGKILL")
    const { out } = await command.ended
    await Effect.runPromise(blocker.query("rollback"))
    await Effect.runPromise(Scope.close(scope, Exit.void))
    const key = out.trim()
    await expect.poll(async () => (await rowOf(key))[0]?.state).toBe("Pending")
    expect(await codeOf(key)).toBe("401 key_unknown")
    const next = keyOf(await create("cut"))
    await expect.poll(() => codeOf(next)).toBe("200")
    expect(await rowOf(key)).toEqual([])
  })
})
