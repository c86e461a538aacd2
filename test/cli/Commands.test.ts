/**
 * The commands as people type them, beside a `velocity dev` on the samples: what they print, on which stream, and the
 * status they end with (`velocity --help` documents it).
 */
import { writeFile } from "node:fs/promises"
import { createServer } from "node:net"
import { join } from "node:path"
import { Effect } from "effect"
import { afterAll, beforeAll, describe, expect, it } from "vitest"
import { parse as parseYaml } from "yaml"
import { type RunningDev, removeFolder, root, startDev, temporaryFolder } from "../e2e/Dev.ts"
import { query } from "../support/Database.ts"
import { type Ran, run, start } from "./Run.ts"

let dev: RunningDev
let data: string
let folder: string

beforeAll(async () => {
  data = await temporaryFolder()
  folder = await temporaryFolder()
  dev = await startDev({ data, manifests: join(root, "k8s/samples") })
})
afterAll(async () => {
  await dev.end("SIGTERM")
  await removeFolder(data)
  await removeFolder(folder)
})

const country = "acme/geo/atlas/country/v1"
const velocity = (...args: ReadonlyArray<string>): Promise<Ran> => run([...args, "--data", data])
const admin = (sql: string) => Effect.runPromise(Effect.scoped(query(dev.ready.postgres.admin, sql)))
const migrate = () => ({ VELOCITY_MIGRATE_DATABASE_URL: dev.ready.postgres.admin })
/** Wrong usage and what could not be told: one line or two on stderr, nothing on stdout, no trace of a stack. */
const plainly = (ran: Ran, code: number, text: string) => {
  expect(ran.err).toContain(text)
  expect(ran).toMatchObject({ code, out: "" })
  expect(ran.err).not.toMatch(/SchemaError|\n {4}at |undefined/u)
  expect(ran.err.split("\n").length).toBeLessThan(8)
}

describe("velocity record", () => {
  it("imports, lists and gets, each number by its digits", async () => {
    const file = join(folder, "two countries.ndjson")
    const lines = [
      { code: "VA", code3: "VAA", name: "Velocia A", area_km2: "AREA" },
      { code: "VB", code3: "VBB", name: "Velocia B" }
    ].map((one) => JSON.stringify(one).replace('"AREA"', "12345.60"))
    await writeFile(file, lines.join("\n"))
    const imported = await velocity("record", "import", country, file)
    expect(imported).toMatchObject({
      code: 0,
      out: expect.stringMatching(/^2 records, [0-9a-f-]{36} to [0-9a-f-]{36}\n$/u)
    })
    expect(imported.err).toContain("2 records")
    expect(imported.err).not.toContain("0 records")

    const table = await velocity("record", "list", country, "--select", "code,area_km2", "--sort=code", "--limit", "1")
    expect(table).toMatchObject({ code: 0, out: "CODE  AREA_KM2\nVA    12345.60\n" })
    expect(table.err).toContain("say --limit N")
    const yaml = await velocity("record", "list", country, "--filter", "code[eq]=VA", "-o", "yaml")
    expect(yaml.out).toContain("area_km2: 12345.60\n")
    expect(yaml.out).toContain("version: 1\n")
    const [row] = parseYaml(yaml.out)
    const json = await velocity("record", "list", country, "--filter", "code[eq]=VA", "-o", "json")
    expect(json.out).toContain('"area_km2": 12345.60')
    const got = await velocity("record", "get", country, row.id)
    expect(JSON.parse(got.out)).toEqual(JSON.parse(json.out)[0])
    expect(parseYaml((await velocity("record", "get", country, row.id, "-o", "yaml")).out)).toEqual(row)
  })

  it("imports all or nothing, and says which line is wrong", async () => {
    const file = join(folder, "wrong.ndjson")
    await writeFile(file, '{"code":"VC","code3":"VCC","name":"C"}\n{"code":"x"}\n')
    const refused = await velocity("record", "import", country, file)
    expect(refused.code).toBe(1)
    expect(refused.err).toContain("422 invalid")
    expect(refused.err).toContain("/1/code")
    expect((await velocity("record", "list", country, "--filter", "code[eq]=VC")).out).toBe("no records\n")
    await writeFile(file, "")
    expect(await velocity("record", "import", country, file)).toMatchObject({ code: 0, out: "no records\n" })
  })

  it("erases, once and with a reason", async () => {
    const file = join(folder, "erased.ndjson")
    await writeFile(file, '{"code":"VE","code3":"VEE","name":"Velocia E"}')
    const [, id = ""] = /, ([0-9a-f-]{36}) to/u.exec((await velocity("record", "import", country, file)).out) ?? []
    const tried = await velocity("record", "erase", country, id, "--reason", "asked for", "--dry-run")
    expect([tried.code, JSON.parse(tried.out)]).toEqual([0, { id, rows: 1, versions: 1, answers: 0 }])
    expect((await velocity("record", "get", country, id)).code).toBe(0)
    plainly(await velocity("record", "erase", country, id), 2, "--reason")
    const erased = await velocity("record", "erase", country, id, "--reason", "asked for", "--ticket", "DSR-1")
    expect(JSON.parse(erased.out)).toMatchObject({ id, rows: 1, versions: 1, entry: expect.any(String) })
    plainly(await velocity("record", "get", country, id), 1, "404 not_found")
    plainly(await velocity("record", "erase", country, id, "--reason", "again"), 1, "404 not_found")
    const rows = await admin(
      `select reason, ticket_ref, outcome from platform.audit_log where action = 'erase' and entity_id = '${id}' order by occurred_at`
    )
    expect(rows).toEqual([
      { reason: "asked for", ticket_ref: null, outcome: "dry_run" },
      { reason: "asked for", ticket_ref: "DSR-1", outcome: "ok" }
    ])
  })

  it("says in a line what is wrong with its words", async () => {
    plainly(await velocity("record", "list", "acme/geo"), 2, "org/app/domain/object/version, such as")
    plainly(await velocity("record", "list", country, "--filter", "code"), 2, "is not field[op]=value")
    plainly(await velocity("record", "list", country, "--limit", "many"), 2, "--limit")
    plainly(await velocity("record", "list", country, "--nope"), 2, "--nope")
    plainly(await velocity("record", "import", country, join(folder, "away.ndjson")), 2, "away.ndjson")
    plainly(await velocity("record", "list", "acme/geo/atlas/nothing/v1"), 1, "404 not_found")
    plainly(await velocity("record", "get", country, "5"), 1, "400 malformed_id")
    plainly(await run(["record", "list", country, "--data", folder]), 2, "no velocity dev runs")
    plainly(await run(["record", "list", country, "--api", dev.ready.api]), 2, "--token")
    plainly(
      await run(["record", "list", country, "--api", "http://127.0.0.1:1", "--token", "x"]),
      2,
      "http://127.0.0.1:1 does not answer"
    )
  })
})

describe("velocity token", () => {
  it("prints a token that the API believes", async () => {
    const printed = await velocity("token", "--actor", "vera", "--roles", "visitor", "--attribute", "store_id=s=1")
    const [, claims = ""] = printed.out.split(".")
    expect(JSON.parse(Buffer.from(claims, "base64url").toString())).toMatchObject({
      sub: "vera",
      roles: ["visitor"],
      attributes: { store_id: "s=1" }
    })
    const env = { VELOCITY_API_URL: dev.ready.api, VELOCITY_TOKEN: printed.out.trim() }
    expect((await run(["record", "list", country, "--limit", "1"], env)).code).toBe(0)
  })

  it("refuses what no API would believe", async () => {
    plainly(await velocity("token", "--actor", ""), 2, "a name of 1 to 255 characters")
    plainly(await velocity("token", "--roles", "a"), 2, "--actor")
    plainly(await velocity("token", "--actor", "a", "--attribute", "x"), 2, "name=value")
    plainly(await velocity("token", "--actor", "a", "--expires", "soon"), 2, "12h")
    plainly(await run(["token", "--actor", "a", "--data", folder]), 2, "velocity dev has not run on")
  })
})

describe("velocity audit", () => {
  it("lists entries, newest first, and says how many records one is of", async () => {
    const listed = await velocity("audit", "list", "--chain", "acme/geo/atlas", "--limit", "3")
    expect(listed.code).toBe(0)
    expect(listed.out.split("\n")[0]).toMatch(/^OCCURRED AT +CHAIN +LANE +SEQ +ACTOR +ACTION +OUTCOME +RECORD$/u)
    const created = await velocity(
      "audit",
      "list",
      "--chain",
      "acme/geo/atlas",
      "--action",
      "create",
      "--outcome",
      "ok"
    )
    expect(created.out).toMatch(/ create +ok +2 records\n/u)
    plainly(await velocity("audit", "list", "--from", "yesterday"), 2, "a day such as")
    plainly(await velocity("audit", "list", "--outcome", "good"), 1, "one of ok, denied")
  })

  it("tries a rule over the past, and lists what was raised", async () => {
    const file = join(folder, "rule.yaml")
    await writeFile(file, "{ name: busy, title: Busy, severity: info, threshold: 2, count: records, window: 1h }\n")
    const tried = await velocity("audit", "scan", "--rule", file, "--since", "2h")
    expect(tried).toMatchObject({ code: 0, err: "" })
    expect(tried.out).toMatch(/^FROM +TO +CHAIN +ACTOR +ADDRESS +COUNT\n/u)
    expect(tried.out).toMatch(/Z +acme\/geo\/atlas +development\/cli +[0-9]+\n/u)
    const answer = JSON.parse((await velocity("audit", "scan", "--rule", file, "-o", "json")).out)
    expect(answer).toMatchObject({
      rule: "busy",
      truncated: false,
      alerts: expect.arrayContaining([{}].map(() => expect.objectContaining({ chain: "acme/geo/atlas" })))
    })
    await writeFile(file, "[{ name: bulk_reader, threshold: 1000000000 }]\n")
    expect((await velocity("audit", "scan", "--rule", file)).out).toBe("it would have raised nothing\n")
    expect((await velocity("audit", "anomalies")).out).toBe("no anomalies\n")
    await admin(`insert into platform.anomaly_alerts (rule, title, severity, chain, actor, hour, window_from, window_to, count, threshold, created_at)
      values ('busy', 'Busy', 'warning', 'acme/geo/atlas', 'development/cli', now(), now(), now(), 5, 2, now())`)
    const listed = await velocity("audit", "anomalies", "--open", "--severity", "warning")
    expect(listed.out).toMatch(/^RAISED AT +SEVERITY +RULE +CHAIN +ACTOR +ADDRESS +COUNT +ACKNOWLEDGED BY +ALERT\n/u)
    expect(listed.out).toMatch(/ warning +busy +acme\/geo\/atlas +development\/cli +5 +[0-9a-f-]{36}\n/u)

    await writeFile(file, "{ name: busy, title: Busy, severity: info, threshold: 0 }\n")
    const refused = await velocity("audit", "scan", "--rule", file)
    expect(refused.code).toBe(1)
    expect(refused.err).toContain("/rule/threshold: ")
    await writeFile(file, "[]")
    plainly(await velocity("audit", "scan", "--rule", file), 2, "has 0 rules; try one")
    await writeFile(file, "{")
    plainly(await velocity("audit", "scan", "--rule", file), 2, "cannot be read")
    plainly(await velocity("audit", "scan", "--rule", join(folder, "away.yaml")), 2, "away.yaml")
    plainly(await velocity("audit", "scan", "--rule", file, "--since", "long"), 2, "a time such as")
  })

  it("verifies any window: 0 sound, 2 could not tell", async () => {
    expect(await velocity("audit", "verify")).toMatchObject({ code: 0, out: expect.stringMatching(/^sound: [1-9]/u) })
    const all = await velocity("audit", "verify", "--all")
    expect(all).toMatchObject({ code: 0, out: expect.stringMatching(/^sound: [1-9][0-9]* entries from the first/u) })
    const long = await velocity("audit", "verify", "--from", "2020-01-01", "-o", "json")
    expect(JSON.parse(long.out)).toMatchObject({ sound: true, found: 0, findings: [], from: "2020-01-01T00:00:00Z" })
    plainly(await velocity("audit", "verify", "--from", "x"), 2, "a day such as")
    plainly(await velocity("audit", "verify", "--from", "2026-11-24", "--to", "2026-11-23"), 2, "400 malformed_query")
    plainly(await velocity("audit", "verify", "--all", "--from", "2026-11-24"), 2, "not both")
    plainly(await velocity("audit", "verify", "--token", "x"), 2, "401")
    plainly(
      await run(["audit", "verify", "--api", "http://127.0.0.1:1", "--token", "x"]),
      2,
      "http://127.0.0.1:1 does not answer"
    )
  })

  it("cannot tell where the answer ends early", async () => {
    const finding = '{"chain":"a/b/c","problem":"hash"}\n'
    const server = createServer((socket) => {
      socket.once("data", () =>
        socket.end(
          `HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\ntransfer-encoding: chunked\r\n\r\n${finding.length.toString(16)}\r\n${finding}\r\n`
        )
      )
    })
    await new Promise<void>((done) => server.listen(0, "127.0.0.1", done))
    const { port } = server.address() as { readonly port: number }
    plainly(await run(["audit", "verify", "--api", `http://127.0.0.1:${port}`, "--token", "x"]), 2, "to its end")
    server.close()
  })

  it("ends with 1, and names the entry, where one was rewritten", async () => {
    // in one transaction: the server that runs would see a log without its triggers, and close
    const rewrite = (set: string) =>
      admin(`do $$ declare t regclass; begin
        execute 'alter table platform.audit_log disable trigger user';
        update platform.audit_log set ${set} where action = 'create';
        for t in select relid from pg_catalog.pg_partition_tree('platform.audit_log') loop
          execute format('alter table %s enable always trigger refuse_row, enable always trigger refuse_truncate', t);
        end loop;
      end $$`)
    await rewrite("actor = actor || 'x'")
    const tampered = await velocity("audit", "verify")
    expect(tampered.code).toBe(1)
    expect(tampered.out).toMatch(/^PROBLEM +CHAIN +LANE +SEQ +ENTRY\n/u)
    expect(tampered.err).toContain("tampered: ")
    await rewrite("actor = left(actor, -1)")
    expect((await velocity("audit", "verify")).code).toBe(0)
  })
})

describe("velocity doctor and velocity migrate", () => {
  const url = () => ({ VELOCITY_API_DATABASE_URL: dev.ready.postgres.api })

  it("find what lets the API past row-level security, and repair it", async () => {
    expect(await run(["doctor"], url())).toMatchObject({ code: 0 })
    await admin("grant select on platform.audit_log to velocity_api")
    const ill = await run(["doctor"], url())
    expect(ill.code).toBe(1)
    expect(ill.out).toMatch(/revoke .*audit_log.*velocity_api/iu)
    const refused = await run(["api"], { ...url(), VELOCITY_PORT: "0" })
    expect(refused.code).toBe(78)
    expect(refused.err).toMatch(/revoke .*audit_log.*velocity_api/iu)
    expect(await run(["migrate"], migrate())).toMatchObject({
      code: 0,
      out: expect.stringContaining("something was repaired")
    })
    expect(await run(["migrate"], migrate())).toMatchObject({
      code: 0,
      out: expect.stringContaining("nothing was to repair")
    })
    expect(await run(["doctor"], url())).toMatchObject({ code: 0 })
  })

  it("say what is missing, and that a database could not be asked", async () => {
    plainly(await run(["doctor"]), 2, "database-url")
    plainly(await run(["migrate"]), 2, "database-url")
    plainly(await run(["doctor", "--database-url", "postgres://a:b@127.0.0.1:1/x"]), 2, "could not be checked")
    plainly(await run(["migrate", "--database-url", "postgres://a:b@127.0.0.1:1/x"]), 1, "velocity: ")
  })
})

describe("velocity api and velocity operator", () => {
  const databases = () => ({
    VELOCITY_API_DATABASE_URL: dev.ready.postgres.api,
    VELOCITY_OPERATOR_DATABASE_URL: dev.ready.postgres.operator
  })

  it("serve until they are told to stop, and end with 0", async () => {
    const api = start(["api"], { ...databases(), VELOCITY_PORT: "0" })
    await api.says("listening at http://127.0.0.1:")
    api.process.kill("SIGTERM")
    expect(await api.ended).toMatchObject({ code: 0 })
  })

  it("name the variable that is missing or wrong, and who has the port", async () => {
    plainly(await run(["api"]), 2, "VELOCITY_API_DATABASE_URL is not set: how velocity_api reaches Postgres")
    plainly(
      await run(["api"], { ...databases(), VELOCITY_TOKEN_CACHE: "abc" }),
      2,
      "VELOCITY_TOKEN_CACHE cannot be read"
    )
    const busy = await run(["api"], { ...databases(), VELOCITY_PORT: new URL(dev.ready.api).port })
    expect(busy.code).toBe(1)
    expect(busy.err).toMatch(/port [0-9]+ is taken.*; [0-9]+ is free/u)
    plainly(await run(["operator", "--manifests", folder]), 2, "VELOCITY_OPERATOR_DATABASE_URL is not set")
    plainly(await run(["operator", "--manifests", join(folder, "away")], databases()), 2, "away")
  })

  it("reconcile a folder until they are told to stop", async () => {
    const second = start(["operator", "--manifests", join(root, "k8s/samples")], databases())
    await second.says("+ Domain/acme-geo/atlas Provisioned")
    second.process.kill("SIGINT")
    expect(await second.ended).toMatchObject({ code: 0 })
  })
})
