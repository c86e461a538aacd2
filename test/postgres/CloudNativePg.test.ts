/**
 * The Cluster of docs/operations.md: what CloudNativePG makes of it (the owner, the statements after initdb, the database)
 * is enough for `velocity migrate`; and what it would do to managed roles, which is why the page forbids them.
 */
import { readFileSync } from "node:fs"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { expect } from "vitest"
import { parse } from "yaml"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import * as Migrations from "../../src/postgres/Migrations.ts"
import { query } from "../support/Database.ts"
import { OwnServer } from "../support/OwnServer.ts"

interface Cluster {
  readonly spec: {
    readonly bootstrap: {
      readonly initdb: {
        readonly database: string
        readonly owner: string
        readonly encoding: string
        readonly postInitSQL: ReadonlyArray<string>
      }
    }
    readonly postgresql: { readonly parameters: Readonly<Record<string, string>> }
    readonly managed?: unknown
  }
}

const page = readFileSync(join(import.meta.dirname, "../../docs/operations.md"), "utf8")
const [, text = ""] = /## On CloudNativePG[\s\S]*?```yaml\n([\s\S]*?)```/u.exec(page) ?? []
const cluster = parse(text) as Cluster
const { database, encoding, owner, postInitSQL } = cluster.spec.bootstrap.initdb

layer(OwnServer.layer(cluster.spec.postgresql.parameters), { excludeTestServices: true })("on CloudNativePG", (it) => {
  it.effect("the owner may migrate, and makes the logins; none of the three is a managed role", () =>
    Effect.gen(function* () {
      const server = yield* OwnServer
      expect(cluster.spec.managed).toBeUndefined()
      // as its instance manager does, in this order
      yield* server.sql(`create role ${owner} login`)
      for (const one of postInitSQL) yield* server.sql(one)
      yield* server.sql(`create database ${database} owner ${owner} encoding '${encoding}' template template0`)
      yield* server.sql(`alter role ${owner} password 'own-server'`)
      const url = new URL(server.superuser(database))
      url.username = owner
      url.password = "own-server"
      const migrated = Migrations.run({ url: Redacted.make(url.href) })
      expect((yield* migrated).complaints).toEqual([])
      for (const login of ["velocity_api", "velocity_operator"]) {
        yield* query(url.href, `alter role ${login} password 'own-server'`)
      }
      const api = Redacted.make(server.api(database))
      expect(yield* IsolationCheck.checkAt(api)).toEqual([])

      // what a reconciliation of managed roles without inRoles would do to the API's login
      yield* server.sql(
        `revoke velocity_gateway, velocity_auditor, velocity_privacy from velocity_api granted by ${owner} cascade`
      )
      const refused = yield* Effect.flip(query(server.api(database), "set role velocity_gateway"))
      expect(refused.message).toBeDefined()
      expect((yield* migrated).repaired).toBe(true)
      yield* query(server.api(database), "set role velocity_gateway")
    })
  )
})
