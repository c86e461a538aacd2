/**
 * How we connect: what is read from `VELOCITY_*` variables, and what every session is pinned to.
 *
 * Used by the layers of this room. Durations are written `500ms`, `5s`, `5min`, `1h`.
 */
import * as Config from "effect/Config"
import * as Option from "effect/Option"
import type * as Redacted from "effect/Redacted"
import * as Schema from "effect/Schema"
import { prefixOfUrl } from "./RolePrefix.ts"

/** One login's pool. All times in milliseconds. */
export interface PoolSettings {
  readonly url: Redacted.Redacted
  /** What stands in front of this installation's roles (RolePrefix). */
  readonly rolePrefix: string
  /** Shown in pg_stat_activity. */
  readonly name: string
  readonly maxConnections: number
  /**
   * Prepared statements kept per connection. 0: none, as a pooler in transaction mode (PgBouncer) needs it; settings
   * of the session are then made part of each transaction.
   */
  readonly prepared: number
  /** A statement is ended by the server after this; a whole bundle, and waiting for a connection, by us. */
  readonly statementTimeout: number
  /** A transaction that is held open by us (streams, imports) may last this long. */
  readonly maxTransaction: number
}

/** Connections are replaced at this age, so that memory of a backend that saw many tables is given back. */
export const connectionLifetime = 30 * 60_000
/** Connections beyond need are closed after this much idleness. */
export const connectionIdle = 60_000
/** What a client adds to the server's own timeout before it cuts a connection that says nothing. */
export const graceAfterTimeout = 500

const units = { ms: 1, s: 1000, min: 60_000, h: 3_600_000 } as const

/** A duration in milliseconds, from a variable such as `5s`. */
export const duration = (name: string, fallback: number): Config.Config<number> =>
  Config.schema(Schema.String.check(Schema.isPattern(/^[0-9]{1,9} ?(?:ms|s|min|h)$/u)), name).pipe(
    Config.map((text) => {
      const unit = text.replace(/[0-9 ]/g, "") as keyof typeof units
      return Number.parseInt(text, 10) * units[unit]
    }),
    Config.withDefault(fallback)
  )

/** A whole number within bounds. */
export const integer = (name: string, fallback: number, minimum: number, maximum: number): Config.Config<number> =>
  Config.schema(Schema.NumberFromString.check(Schema.isInt(), Schema.isBetween({ minimum, maximum })), name).pipe(
    Config.withDefault(fallback)
  )

const common = {
  prepared: integer("VELOCITY_PREPARED", 500, 0, 10_000),
  statementTimeout: duration("VELOCITY_STATEMENT_TIMEOUT", 5_000),
  maxTransaction: duration("VELOCITY_MAX_TX", 5 * 60_000)
}

/** `VELOCITY_API_CONNECTIONS` (16). */
export const apiConnections = integer("VELOCITY_API_CONNECTIONS", 16, 1, 1_000)

/** `VELOCITY_API_DATABASE_URL`, `VELOCITY_API_CONNECTIONS`, and what both logins share. */
export const apiSettings: Config.Config<PoolSettings> = Config.all({
  url: Config.Redacted("VELOCITY_API_DATABASE_URL"),
  maxConnections: apiConnections,
  ...common
}).pipe(Config.map((settings) => ({ ...settings, rolePrefix: prefixOfUrl(settings.url), name: "velocity-api" })))

/** DDL waits for locks and reads whole tables; a request does not. */
const operatorStatement = 60_000

/** `VELOCITY_OPERATOR_DATABASE_URL`, `VELOCITY_OPERATOR_STATEMENT_TIMEOUT` (60s); 10 connections: five keys at work, three index builds, and the schedules. */
export const operatorSettings: Config.Config<PoolSettings> = Config.all({
  url: Config.Redacted("VELOCITY_OPERATOR_DATABASE_URL"),
  ...common,
  statementTimeout: duration("VELOCITY_OPERATOR_STATEMENT_TIMEOUT", operatorStatement)
}).pipe(
  Config.map((settings) => ({
    ...settings,
    rolePrefix: prefixOfUrl(settings.url),
    name: "velocity-operator",
    maxConnections: 10
  }))
)

/**
 * The direct connection for LISTEN: `VELOCITY_LISTEN_URL`, else `VELOCITY_API_DATABASE_URL`. None behind a pooler whose
 * way around nobody said: its sessions are lent, and one that listens would tell whoever has it then.
 */
export const listenUrl: Config.Config<Option.Option<Redacted.Redacted>> = Config.all({
  direct: Config.option(Config.Redacted("VELOCITY_LISTEN_URL")),
  api: Config.option(Config.Redacted("VELOCITY_API_DATABASE_URL")),
  prepared: common.prepared
}).pipe(Config.map(({ api, direct, prepared }) => (Option.isSome(direct) || prepared === 0 ? direct : api)))

/** What no session of ours leaves to the server's, the database's or the role's defaults. */
const everySession = { TimeZone: "UTC", client_encoding: "UTF8" }

const perTransaction = (settings: PoolSettings): Readonly<Record<string, string>> => ({
  // every name in our SQL says its schema
  search_path: "pg_catalog, pg_temp",
  statement_timeout: `${settings.statementTimeout}ms`,
  lock_timeout: `${Math.ceil(settings.statementTimeout * 0.6)}ms`,
  idle_in_transaction_session_timeout: `${settings.maxTransaction}ms`
})

/** What travels in a connection's startup packet. A pooler in transaction mode takes only names that it knows. */
export const startupParameters = (settings: PoolSettings): Readonly<Record<string, string>> =>
  settings.prepared === 0
    ? everySession
    : {
        ...everySession,
        ...perTransaction(settings),
        default_transaction_isolation: "read committed",
        // compiling a plan that runs for a millisecond costs a hundred
        jit: "off"
      }

/**
 * The settings that each transaction makes for itself because its session is a pooler's: `, set_config(…)` terms to
 * go on with a select list, or nothing where the session is ours.
 */
export const transactionSettings = (settings: PoolSettings): string =>
  settings.prepared === 0
    ? Object.entries(perTransaction(settings))
        .map(([name, value]) => `, set_config('${name}', '${value}', true)`)
        .join("")
    : ""
