/** `velocity schema …` as people type it: what is printed, on which stream, and the status. */
import { mkdtemp, readFile, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { Effect } from "effect"
import { expect } from "vitest"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { makeWorld } from "../provisioning/World.ts"
import { withDatabase } from "../support/Database.ts"
import { run } from "./Run.ts"

const manifest = (org: string, fields: ReadonlyArray<string>, more = "") => `apiVersion: velocity.sh/v1
kind: SchemaDefinition
metadata: { name: thing, namespace: shop-eu }
spec:
  org: ${org}
  app: shop
  domain: eu
  object: thing
  version: v1
  fields:
${fields.map((field) => `    - ${field}`).join("\n")}
  access:
    roles: [{ role: buyer, operations: [create, read, update] }]
${more}`

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("velocity schema", (it) => {
  const written = Effect.fnUntraced(function* (text: string, name = "thing.yaml") {
    const folder = yield* Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-schema-")))
    const file = join(folder, name)
    yield* Effect.promise(() => writeFile(file, text))
    return { file, folder }
  })
  const velocity = (...args: ReadonlyArray<string>) => Effect.promise(() => run(["schema", ...args]))

  it.effect("validate says where what is wrong, without a database", () =>
    Effect.gen(function* () {
      const sound = yield* written(manifest("acme", ["{ name: a, type: string }"]))
      expect(yield* velocity("validate", "-f", sound.file)).toMatchObject({
        code: 0,
        out: "SchemaDefinition/shop-eu/thing is sound\n",
        err: ""
      })
      const wrong = yield* written(
        manifest("acme", ["{ name: a, type: string, min: '3' }", "{ name: b, type: enum, enum: [no, yes] }"])
      )
      const told = yield* velocity("validate", "-f", wrong.file)
      expect(told).toMatchObject({ code: 1, out: "" })
      expect(told.err.replaceAll(wrong.file, "FILE").split("\n")).toEqual([
        'FILE:12:37: YAML 1.1 and 1.2 read no differently; quote it: "no"',
        'FILE:12:41: YAML 1.1 and 1.2 read yes differently; quote it: "yes"',
        "velocity: 2 things are wrong; see above",
        ""
      ])
      const inner = yield* written(
        manifest(
          "acme",
          ["{ name: a, type: string, min: '3' }", "{ name: b, type: uuid, renamedFrom: [a] }"],
          '  validation: { rules: [{ rule: "self.nothing == 1 +", message: no rule }] }\n'
        )
      )
      const rules = yield* velocity("validate", "-f", inner.file)
      const lines = rules.err.replaceAll(inner.file, "FILE").split("\n")
      expect(lines[0]).toBe("FILE:11:32: /spec/fields/0/min: min and max are for integer and number")
      expect(lines[1]).toBe("FILE:12:44: /spec/fields/1/renamedFrom/0: a is a name of the field a")
      expect(lines[2]).toMatch(/^FILE:15:27: \/spec\/validation\/rules\/0\/rule: /u)
      expect(yield* velocity("validate", "-f", "/nowhere.yaml")).toMatchObject({ out: "" })
      const json = yield* velocity("validate", "-f", wrong.file, "-o", "json")
      expect(JSON.parse(json.out)).toMatchObject({ resources: [], problems: [{ line: 12 }, { line: 12 }] })
    })
  )

  it.effect("plan shows what applying would do, changes nothing, and its hash is the one that is approved", () =>
    Effect.gen(function* () {
      const { apply, database, define, domain, look, org, provision, schema } = yield* makeWorld
      const url = ["--database-url", database.operatorUrl]
      const first = yield* written(manifest(org, ["{ name: a, type: string }", "{ name: b, type: integer }"]))
      const refused = yield* velocity("plan", "-f", first.file, ...url)
      expect(refused).toMatchObject({ code: 1 })
      expect(refused.out).toBe(`${org}/shop/eu/thing/v1: ParentMissing: the domain ${org}/shop/eu is not there\n`)
      yield* domain()
      const fresh = yield* velocity("plan", "-f", first.file, ...url)
      expect(fresh.out.split("\n")).toEqual([
        `${org}/shop/eu/thing/v1: runs by itself`,
        "PHASE   STEP    LOCK              REWRITES  DATA  APPROVAL  ROWS  WHY",
        "switch  create  access exclusive",
        "switch  access  none",
        ""
      ])
      expect(yield* look("select to_regclass($1)::text as found", [`${schema}.thing_v1`])).toEqual([{ found: null }])
      const access = { roles: [{ role: "buyer", operations: ["create", "read", "update"] }] }
      yield* apply(
        define({
          object: "thing",
          fields: [
            { name: "a", type: "string" },
            { name: "b", type: "integer" }
          ],
          access
        })
      )
      yield* look(
        `insert into ${schema}.thing_v1 (id, created_at, created_by, updated_at, updated_by, a) values (gen_random_uuid(), now(), 'x', now(), 'x', 'c')`
      )
      expect((yield* velocity("plan", "-f", first.file, ...url)).out).toBe(`${org}/shop/eu/thing/v1: unchanged\n`)
      const second = yield* written(manifest(org, ["{ name: a, type: string, indexed: true }"]))
      const shown = yield* velocity("plan", "-f", second.file, ...url)
      expect(shown).toMatchObject({ code: 0, err: "" })
      const lines = shown.out.split("\n")
      const hash = /approve (p[0-9a-f]{32})$/u.exec(lines.at(-2) ?? "")?.[1] ?? ""
      expect(lines.slice(0, -2)).toEqual([
        `${org}/shop/eu/thing/v1: waits for approval`,
        "PHASE   STEP             LOCK                    REWRITES  DATA     APPROVAL  ROWS  WHY",
        "build   index a          share update exclusive                                 ~1",
        "switch  policies away    access exclusive",
        "switch  drop field b     access exclusive                  is lost  needed          of about 1 record",
        "switch  comment index a  none",
        "switch  access           access exclusive"
      ])
      const json = JSON.parse((yield* velocity("plan", "-f", second.file, ...url, "-o", "json")).out)
      expect(json).toMatchObject([{ hash, state: "waits for approval", steps: [{ phase: "build" }, {}, {}, {}, {}] }])
      const withSql = yield* velocity("plan", "-f", second.file, "--sql", ...url)
      expect(withSql.out).toContain(`alter table "${schema}"."thing_v1" drop column "b";`)

      // nobody has asked for it yet
      expect(yield* velocity("approve", hash, ...url)).toMatchObject({
        code: 1,
        err: `velocity: there is no plan ${hash}\n`
      })
      const spec = define({ object: "thing", fields: [{ name: "a", type: "string", indexed: true }], access })
      expect(yield* provision(spec)).toMatchObject({ _tag: "Planned", hash, state: "Waiting" })
      const approved = yield* velocity("approve", hash, ...url)
      expect(approved).toMatchObject({
        code: 0,
        out: expect.stringContaining(`carries it out on ${org}/shop/eu/thing/v1`)
      })
      expect(yield* provision(spec)).toMatchObject({ _tag: "Applied" })
      expect(yield* look("select approved_by, state from platform.plans where plan_hash = $1", [hash])).toEqual([
        { approved_by: expect.stringMatching(/^cli\//u), state: "Done" }
      ])
      expect((yield* velocity("approve", hash, ...url)).err).toContain("does not wait for an approval: it is done")
    })
  )

  it.effect("drift tells which tables were changed by hand", () =>
    Effect.gen(function* () {
      const { apply, database, define, domain, look, org, schema } = yield* makeWorld
      const url = ["--database-url", database.operatorUrl]
      yield* domain()
      yield* apply(define({ object: "steady", fields: [{ name: "a", type: "string" }] }))
      const quiet = yield* velocity("drift", ...url)
      expect(quiet).toMatchObject({
        code: 0,
        out: expect.stringMatching(/^\d tables are as their definitions say\n$/u)
      })
      yield* look(`alter table ${schema}.steady_v1 add column mine int4`)
      const told = yield* velocity("drift", ...url)
      expect(told).toMatchObject({ code: 1 })
      expect(told.out).toBe(
        `PATH${" ".repeat(`${org}/shop/eu/steady/v1`.length - 2)}DIFFERENCE\n${org}/shop/eu/steady/v1  column mine is there and is not asked for\n`
      )
      expect(
        yield* velocity("drift", "--database-url", "postgres://velocity_operator:x@127.0.0.1:1/nothing")
      ).toMatchObject({
        code: 2,
        out: ""
      })
    })
  )

  it.effect("is documented", () =>
    Effect.gen(function* () {
      const page = yield* Effect.promise(() => readFile(join(import.meta.dirname, "../../docs/operations.md"), "utf8"))
      for (const command of ["validate", "plan", "approve", "drift"])
        expect(page).toContain(`velocity schema ${command}`)
    })
  )
})
