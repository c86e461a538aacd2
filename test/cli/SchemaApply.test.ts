/** `velocity schema apply` as people type it: made what it says, once, and where an operator is at work not at all. */
import { mkdtemp, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { it } from "@effect/vitest"
import { Effect } from "effect"
import { describe, expect } from "vitest"
import { freshDatabase, query } from "../support/Database.ts"
import { run, start } from "./Run.ts"

const manifest = (kind: string, namespace: string | undefined, name: string, spec: object) =>
  JSON.stringify({ apiVersion: "velocity.sh/v1", kind, metadata: { name, ...(namespace && { namespace }) }, spec })

const world = Effect.gen(function* () {
  const database = yield* freshDatabase
  const { org } = database
  const folder = yield* Effect.acquireRelease(
    Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-apply-"))),
    (made) => Effect.promise(() => rm(made, { recursive: true, force: true }))
  )
  const env = { VELOCITY_OPERATOR_DATABASE_URL: database.operatorUrl }
  const write = (name: string, ...manifests: ReadonlyArray<string>) =>
    Effect.promise(async () => {
      await writeFile(join(folder, name), manifests.join("\n---\n"))
      return join(folder, name)
    })
  const velocity = (...args: ReadonlyArray<string>) =>
    Effect.map(
      Effect.promise(() => run(["schema", ...args], env)),
      ({ code, err, out }) => ({
        code,
        out: out.replaceAll(org, "ORG").replaceAll(/generation \d+/gu, "generation N"),
        err: err.replaceAll(org, "ORG")
      })
    )
  const definition = (object: string, fields: ReadonlyArray<object>) =>
    manifest("SchemaDefinition", `${org}-shop-eu`, object, {
      org,
      app: "shop",
      domain: "eu",
      object,
      version: "v1",
      fields,
      access: { roles: [{ role: "buyer", operations: ["create", "read"] }] }
    })
  const parents = [
    manifest("Organisation", undefined, org, { org }),
    manifest("Application", org, "shop", { org, app: "shop" }),
    manifest("Domain", `${org}-shop`, "eu", { org, app: "shop", domain: "eu" })
  ]
  const look = (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params)
  return { org, folder, env, write, velocity, definition, parents, look }
})

const a = { name: "a", type: "string" }
const b = { name: "b", type: "string" }

describe("velocity schema apply", () => {
  it.live("makes manifests what they say, whose parents the database knows, and says what waits", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { definition, look, org, parents, velocity, write } = yield* world
        const all = yield* write("all.yaml", ...parents, definition("thing", [a, b]), definition("other", [a]))
        expect(yield* velocity("apply", "-f", all)).toEqual({
          code: 0,
          out: `+ Organisation/velocity-system/ORG Reconciled: organisation ORG
+ Application/ORG/shop Reconciled: application ORG/shop
+ Domain/ORG-shop/eu Provisioned: schema ORG_shop_eu; no AuthStrategy is named, so nobody can prove who he is
+ SchemaDefinition/ORG-shop-eu/thing Provisioned: ORG_shop_eu.thing_v1 is served in generation N
+ SchemaDefinition/ORG-shop-eu/other Provisioned: ORG_shop_eu.other_v1 is served in generation N
`,
          err: ""
        })
        yield* look(
          `insert into ${org}_shop_eu.thing_v1 (id, created_at, created_by, updated_at, updated_by, a, b)
           select gen_random_uuid(), now(), 'x', now(), 'x', 'a', 'b' from generate_series(1, 10) n`
        )
        // a definition alone, with an index that is built
        const indexed = yield* write("thing.yaml", definition("thing", [{ ...a, indexed: true }, b]))
        expect(yield* velocity("apply", "-f", indexed)).toMatchObject({
          code: 0,
          out: "+ SchemaDefinition/ORG-shop-eu/thing Provisioned: ORG_shop_eu.thing_v1 is served in generation N\n"
        })
        // what can lose data waits, and is carried out by the next one
        const less = yield* write("thing.yaml", definition("thing", [{ ...a, indexed: true }]))
        const waits = yield* velocity("apply", "-f", less)
        expect(waits).toMatchObject({ code: 1, err: "velocity: 1 of 1 are not what they say; see above\n" })
        const hash = /ApprovalRequired: plan (p[0-9a-f]{32})/u.exec(waits.out)?.[1] ?? ""
        expect((yield* velocity("approve", hash)).code).toBe(0)
        expect((yield* velocity("apply", "-f", less)).code).toBe(0)
        // what no file names is as it was
        const served = yield* look("select path from platform.schema_defs where serving is not null order by path")
        expect(served).toEqual([{ path: `${org}/shop/eu/other/v1` }, { path: `${org}/shop/eu/thing/v1` }])
      })
    )
  )

  it.live("leaves an operator that is at work, and a cluster's database, alone", () =>
    Effect.scoped(
      Effect.gen(function* () {
        const { definition, env, folder, look, parents, velocity, write } = yield* world
        const all = yield* write("all.yaml", ...parents, definition("thing", [a]))
        const operator = start(["operator", "--manifests", folder], env)
        yield* Effect.promise(() => operator.says("no API replica is alive to serve"))
        expect(yield* velocity("apply", "-f", all)).toMatchObject({
          code: 1,
          out: "",
          err: expect.stringMatching(
            /an operator is at work on this database \(pid \d+\): put the file into its folder/u
          )
        })
        expect(operator.process.exitCode).toBeNull()
        operator.process.kill("SIGTERM")
        expect((yield* Effect.promise(() => operator.ended)).code).toBe(0)
        yield* look("update platform.installation set source = 'a-cluster'")
        expect(yield* velocity("apply", "-f", all)).toMatchObject({
          code: 1,
          err: expect.stringContaining("belongs to the installation fed from a-cluster")
        })
      })
    )
  )
})
