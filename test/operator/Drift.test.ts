/** The operator looks at each table when it starts: what was done by hand is put right, or said until it is gone. */
import { cp, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { ConfigProvider, Duration, Effect, Layer } from "effect"
import { expect } from "vitest"
import * as Operator from "../../src/operator/Operator.ts"
import { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { configOf, freshDatabase, query } from "../support/Database.ts"
import { startReplica, whenServed } from "../support/Replica.ts"

layer(Layer.empty, { excludeTestServices: true })("drift", (it) => {
  it.effect("is repaired where it can be, and said where it cannot", () =>
    Effect.gen(function* () {
      const database = yield* freshDatabase
      yield* startReplica(database)
      const folder = yield* Effect.acquireRelease(
        Effect.promise(() => mkdtemp(join(tmpdir(), "velocity-drift-"))),
        (one) => Effect.promise(() => rm(one, { recursive: true }))
      )
      yield* Effect.promise(async () => {
        await cp(join(import.meta.dirname, "cases/a-plan-waits-for-its-approval/1"), folder, { recursive: true })
        for (const name of await readdir(folder)) {
          const text = await readFile(join(folder, name), "utf8")
          await writeFile(join(folder, name), text.replaceAll("ORG", database.org))
        }
      })
      const table = `${database.org}_shop_eu.thing_v1`
      const look = (sql: string) => query(database.superuserUrl, sql)
      /** What an operator that starts says of the definition. */
      const said = Effect.scoped(
        Effect.gen(function* () {
          const status = yield* OperatorStatus
          yield* status.settled
          yield* whenServed(status)
          const thing = status.resources().find((one) => one.identity.startsWith("SchemaDefinition/"))
          const ready = thing?.conditions.find((one) => one.type === "Ready")
          return `${ready?.status} ${ready?.reason}: ${ready?.message.replaceAll(database.org, "ORG").replaceAll(/generation \d+/gu, "generation N")}`
        }).pipe(
          Effect.provide(
            Operator.layer({ manifests: folder, quiet: Duration.zero }).pipe(
              Layer.provideMerge(OperatorSql.layer),
              Layer.provide(ConfigProvider.layer(configOf(database)))
            )
          )
        )
      )
      const served = "ORG_shop_eu.thing_v1 is served in generation N"
      expect(yield* said).toBe(`True Provisioned: ${served}`)
      yield* look(`drop policy velocity_select on ${table}`)
      const [index] = yield* look(
        `select i.indexrelid::regclass::text as name from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = '${table}'::regclass and c.relname like 'ix%'`
      )
      yield* look(`drop index ${index?.name}`)
      expect(yield* said).toBe(`True DriftRepaired: ${served}; put right: index b, access`)
      expect(yield* look(`select to_regclass('${index?.name}') is not null as there`)).toEqual([{ there: true }])
      expect(yield* said).toBe(`True Provisioned: ${served}`)
      yield* look(`alter table ${table} alter column a set not null`)
      const drifted = "False Drifted: the table was changed by hand: column a: notNull is true and should be false"
      expect(yield* said).toBe(drifted)
      expect(yield* said).toBe(drifted)
      yield* look(`alter table ${table} alter column a drop not null`)
      expect(yield* said).toBe(`True Provisioned: ${served}`)

      // so it is with what is served on while another definition waits, or is refused
      const thing = join(folder, "thing.yaml")
      const text = yield* Effect.promise(() => readFile(thing, "utf8"))
      const isSecure = look(
        `select relrowsecurity and relforcerowsecurity as yes from pg_class where oid = '${table}'::regclass`
      )
      const open = Effect.andThen(
        look(`alter table ${table} disable row level security, add column if not exists mine int4`),
        look(`grant delete, truncate on ${table} to public`)
      )
      const mine = "meanwhile the table was changed by hand: column mine is there and is not asked for"
      for (const [change, reason] of [
        [text.replace(/.*name: b.*/u, ""), "ApprovalRequired"],
        [text.replace("a, type: string", "a, type: integer"), "CannotEvolve"],
        [
          text.replace("  access:", '  validation: { rules: [{ rule: "self.none", message: m }] }\n  access:'),
          "Invalid"
        ]
      ] as const) {
        yield* Effect.promise(() => writeFile(thing, change))
        yield* open
        const message = yield* said
        expect(message).toContain(`False ${reason}: `)
        expect(message).toContain(mine)
        expect(yield* isSecure, reason).toEqual([{ yes: true }])
        expect(
          yield* look(
            `select count(*)::int4 as open from information_schema.role_table_grants where table_schema || '.' || table_name = '${table}' and grantee = 'PUBLIC'`
          )
        ).toEqual([{ open: 0 }])
      }
    })
  )
})
