/**
 * Whether `velocity_api` is what every promise about tenants takes it to be (ADR-007): it holds nothing by itself, can
 * become nothing that steps over row-level security, and what it works on is as the migrations and provisioning left it.
 *
 * Run before the API listens, where a violation ends the process with `exitCode`, and every minute after that, where it
 * turns readiness off. Runs as `velocity_api` and reads the catalogue, and the definitions as `velocity_gateway`.
 */
import * as PgConnection from "@effect/sql-pg/PgConnection"
import * as Effect from "effect/Effect"
import type * as Redacted from "effect/Redacted"
import { ApiSql } from "./ApiSql.ts"
import { type DatabaseFailure, fromSqlError } from "./DatabaseFailure.ts"
import { judgeDefinitions } from "./IsolationDefinitions.ts"
import { catalogueRules, type Violation, violationOf } from "./IsolationRules.ts"
import { prefixed, prefixOfUrl } from "./RolePrefix.ts"
import { type Statement, statement } from "./Statement.ts"
import * as Transaction from "./Transaction.ts"

export type { Violation } from "./IsolationRules.ts"

/** What a process exits with that may not serve: EX_CONFIG of sysexits.h. */
export const exitCode = 78

const asWritten = statement("select set_config('search_path', 'pg_catalog', true)")

const ofCatalogue: ReadonlyArray<Statement> = [asWritten, statement(catalogueRules)]

/**
 * Policies, and the definitions that ask for them, as of one moment: of one that is withdrawn between two looks there would
 * be policies without a definition. One that is being withdrawn keeps its policies until every replica has said that it
 * serves it no longer, which a replica that died holds up for a minute and a half.
 */
const ofDefinitions: ReadonlyArray<Statement> = [
  asWritten,
  statement("select set_config('role', 'velocity_gateway', true)"),
  statement(
    `select coalesce((select json_agg(p) from (
       select schemaname as schema, tablename as "table", policyname as name, cmd, qual, with_check from pg_policies
       where policyname like 'velocity\\_%' and policyname not in ('velocity_ddl', 'velocity_erase') order by 1, 2, 3) p), '[]')::text as policies,
     coalesce((select json_agg(d) from (
       select s.path, s.pg_schema, coalesce(o.pg_table, s.pg_table) as pg_table, s.serving -> 'access' as access, s.serving is null as leaving
       from platform.schema_defs s left join platform.schema_defs o on o.id = s.owner_id
       where s.serving is not null or s.state = 'Withdrawing' order by s.path) d), '[]')::text as definitions`
  )
]

const rowsOf = (text: unknown) => JSON.parse(String(text ?? "[]")) as ReadonlyArray<Readonly<Record<string, unknown>>>

type Answers = ReadonlyArray<{ readonly rows: ReadonlyArray<Readonly<Record<string, unknown>>> }>

/** What leaves no way to read the definitions. */
const unanswerable = new Set(["not_migrated", "wrong_login", "missing_membership"])

/** Asks both questions, the second only where there is something to ask it of. */
const judge = <E, R>(
  prefix: string,
  bundle: (statements: ReadonlyArray<Statement>) => Effect.Effect<Answers, E, R>
): Effect.Effect<ReadonlyArray<Violation>, E, R> =>
  Effect.gen(function* () {
    const ask = (statements: ReadonlyArray<Statement>) =>
      bundle(statements.map((one) => ({ ...one, sql: prefixed(one.sql, prefix) })))
    const found = ((yield* ask(ofCatalogue))[1]?.rows ?? []).map(violationOf)
    if (found.some((one) => unanswerable.has(one.code))) return found
    const [row] = (yield* ask(ofDefinitions))[2]?.rows ?? []
    return [...found, ...judgeDefinitions(rowsOf(row?.definitions), rowsOf(row?.policies))]
  })

/**
 * The violations of a database, none when it is sound. Fails with `DatabaseFailure` when it cannot be asked, which is
 * no answer: do not serve on it.
 */
export const check = (database?: string): Effect.Effect<ReadonlyArray<Violation>, DatabaseFailure, ApiSql> =>
  Effect.flatMap(ApiSql, (api) =>
    api.on(database, (pool) =>
      judge(pool.settings.rolePrefix, (statements) => Transaction.bundle(pool, undefined, statements, "read"))
    )
  )

/** The same on a connection of its own, which lasts as long as the question: for `velocity doctor`. */
export const checkAt = (url: Redacted.Redacted): Effect.Effect<ReadonlyArray<Violation>, DatabaseFailure> =>
  Effect.scoped(
    Effect.gen(function* () {
      const connection = yield* PgConnection.make({ url, applicationName: "velocity isolation check" })
      return yield* judge(prefixOfUrl(url), (statements) =>
        Effect.gen(function* () {
          yield* connection.query("begin read only")
          const answers = yield* Effect.forEach(statements, (one) => connection.query(one.sql, one.params, false))
          yield* connection.query("rollback")
          return answers
        })
      )
    })
  ).pipe(Effect.mapError(fromSqlError))

/** A violation as one line for a log or a terminal, with its repair. */
export const render = (violation: Violation): string =>
  `${violation.code}: ${violation.object}: ${violation.detail}. Repair: ${violation.repair}`
