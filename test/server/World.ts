/**
 * A world for tests over HTTP: a fresh database, strategies with keys of their own, domains, and the server over them
 * under its real login. Each token is signed here and believed for its strategy alone.
 */
import { Clock, ConfigProvider, Effect, Exit, Layer, Scope } from "effect"
import * as Server from "../../src/server/Server.ts"
import type { ServerSettings } from "../../src/server/ServerSettings.ts"
import { makeKey, sign, settings as strategySettings, type TestKey } from "../access/Issuer.ts"
import { configOf, freshDatabase, query, type TestDatabase } from "../support/Database.ts"
import { type Running, start } from "./Running.ts"

/** A strategy: who signs for it, and whom its tokens name. */
export interface Strategy {
  readonly id: string
  readonly issuer: string
  readonly key: TestKey
}

/** What a token says. */
export interface Claims {
  readonly sub?: string
  readonly roles?: ReadonlyArray<string>
  readonly attributes?: Readonly<Record<string, unknown>>
  readonly exp?: number
  readonly [claim: string]: unknown
}

export interface World {
  readonly database: TestDatabase
  /** The server's address. */
  readonly url: string
  readonly logs: Array<unknown>
  readonly server: Running<Server.ServerAddress>
  readonly platform: Strategy
  /** Writes a strategy as the operator does. */
  readonly strategy: (name: string) => Promise<Strategy>
  readonly token: (strategy: Strategy, claims?: Claims) => Promise<string>
  /** A statement as `velocity_operator`. */
  readonly operator: (sql: string, params?: ReadonlyArray<unknown>) => Promise<ReadonlyArray<Record<string, unknown>>>
  /** A statement as the superuser, to look at what nobody else may see. */
  readonly look: (sql: string, params?: ReadonlyArray<unknown>) => Promise<ReadonlyArray<Record<string, unknown>>>
  readonly stop: () => Promise<void>
}

const inAnHour = () => Math.floor(Date.now() / 1000) + 3_600

/** A token of a strategy; by default for alice, without roles. */
export const tokenOf = ({ issuer, key }: Strategy, { attributes, ...claims }: Claims = {}): Promise<string> =>
  sign(key, { claims: { iss: issuer, exp: inAnHour(), roles: [], ...claims, ...attributes } })

/** The attributes that every strategy here maps. */
const attributes = { store_id: "$.store_id", region: "$.region" }

const addStrategy = async (database: TestDatabase, id: string): Promise<Strategy> => {
  const key = await makeKey("ES256", id)
  const issuer = `https://${id.replaceAll(":", "-")}.example`
  await Effect.runPromise(
    query(
      database.operatorUrl,
      "insert into platform.auth_strategies (id, spec, generation) values ($1, $2::text::jsonb, nextval('platform.generation_seq'))",
      [
        id,
        JSON.stringify({
          type: "jwt",
          jwt: strategySettings({ issuers: [issuer], jwks: { keys: [key.jwk] }, claims: { attributes } })
        })
      ]
    )
  )
  return { id, issuer, key }
}

export interface WorldOptions {
  /** One that is there already; otherwise a fresh one, dropped in the end. */
  readonly database?: TestDatabase
  readonly settings?: Partial<ServerSettings>
  /** More `VELOCITY_*` variables. */
  readonly variables?: Readonly<Record<string, string>>
  /** What the server takes for the time. */
  readonly clock?: Clock.Clock
  /** Puts domains and definitions in place, before the server starts. */
  readonly prepare?: (database: TestDatabase, strategy: (name: string) => Promise<Strategy>) => Promise<void>
}

/** Makes one. */
export const makeWorld = async (options: WorldOptions = {}): Promise<World> => {
  const scope = Scope.makeUnsafe()
  const database = options.database ?? (await Effect.runPromise(Scope.provide(freshDatabase, scope)))
  const strategy = (name: string) => addStrategy(database, name)
  const platform = await strategy("platform")
  await options.prepare?.(database, strategy)
  const logs: Array<unknown> = []
  const server = await start(
    Server.layer({ host: "127.0.0.1", port: 0, ...options.settings }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(database, options.variables))),
      options.clock === undefined ? (layer) => layer : Layer.provide(Layer.succeed(Clock.Clock, options.clock))
    ),
    logs
  )
  const rows =
    (url: string) =>
    (sql: string, params: ReadonlyArray<unknown> = []) =>
      Effect.runPromise(query(url, sql, params))
  return {
    database,
    url: server.get(Server.ServerAddress).url,
    logs,
    server,
    platform,
    strategy,
    token: tokenOf,
    operator: rows(database.operatorUrl),
    look: rows(database.superuserUrl),
    stop: async () => {
      await server.stop()
      await Effect.runPromise(Scope.close(scope, Exit.void))
    }
  }
}
