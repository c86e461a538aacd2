/**
 * A database without any of our tables, with a login and roles shaped as the API's are, for tests of the driver and of
 * transactions: they must hold whatever the migrations make.
 */
import { randomBytes } from "node:crypto"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import type * as Scope from "effect/Scope"
import type { SqlError } from "effect/sql/SqlError"
import { inject } from "vitest"
import type { PoolSettings } from "../../src/postgres/PgSettings.ts"
import { connect, query } from "./Database.ts"

/** Schema `shop` with table `item(id int primary key, name text not null, price numeric(8,2) check (price > 0))`. */
export interface PlainDatabase {
  /** A login that holds nothing and may enter `reader` and `writer`. */
  readonly url: string
  readonly superuserUrl: string
  readonly reader: string
  readonly writer: string
  /** A role that exists and that the login may not enter. */
  readonly stranger: string
}

/** A fresh one, dropped when the scope closes. */
export const plainDatabase: Effect.Effect<PlainDatabase, SqlError, Scope.Scope> = Effect.gen(function* () {
  const id = randomBytes(5).toString("hex")
  const name = `p_${id}`
  const [login, reader, writer, stranger] = [`${name}_login`, `${name}_reader`, `${name}_writer`, `${name}_stranger`]
  const server = inject("postgres")
  yield* Effect.acquireRelease(query(server, `create database ${name}`), () =>
    Effect.ignore(query(server, `drop database ${name} with (force)`))
  )
  const superuser = new URL(server)
  superuser.pathname = `/${name}`
  const url = new URL(superuser)
  url.username = login
  url.password = "login"
  yield* Effect.scoped(
    Effect.gen(function* () {
      const admin = yield* connect(superuser.href)
      for (const sql of [
        `create role ${login} login noinherit password 'login'`,
        ...[reader, writer, stranger].map((role) => `create role ${role} nologin`),
        ...[reader, writer].map((role) => `grant ${role} to ${login} with inherit false, set true, admin false`),
        "create schema shop",
        "create table shop.item(id int primary key, name text not null, price numeric(8,2) check (price > 0), parent int)",
        "alter table shop.item add constraint parent_is foreign key (parent) references shop.item deferrable initially deferred",
        "create unique index name_is_unique on shop.item (name)",
        `grant usage on schema shop to ${reader}, ${writer}`,
        `grant select on shop.item to ${reader}, ${writer}`,
        `grant insert, update on shop.item to ${writer}`
      ]) {
        yield* admin.query(sql)
      }
    })
  )
  return { url: url.href, superuserUrl: superuser.href, reader, writer, stranger }
})

/** Settings of a small pool over a URL, with timeouts that a test can wait for. */
export const settingsOf = (url: string, more: Partial<PoolSettings> = {}): PoolSettings => ({
  rolePrefix: "",
  url: Redacted.make(url),
  name: "velocity test",
  maxConnections: 2,
  prepared: 500,
  statementTimeout: 5_000,
  maxTransaction: 30_000,
  ...more
})
