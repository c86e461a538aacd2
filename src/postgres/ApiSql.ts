/**
 * The databases as login `velocity_api`: what serves requests.
 *
 * The login holds nothing by itself and may only take on other roles, so nothing uses this service but the
 * transactions that do that (`TenantTx`, `GatewayTx`, `AuditorTx`) and the isolation check.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as Databases from "./Databases.ts"
import { apiSettings, type PoolSettings } from "./PgSettings.ts"

/** See the module. */
export class ApiSql extends Context.Service<ApiSql, Databases.Databases>()("velocity/postgres/ApiSql") {
  /** Over given settings, by database name. */
  static readonly layerOf = (settings: Readonly<Record<string, PoolSettings>>) =>
    Layer.effect(ApiSql, Databases.make(settings))

  /** One database, from `VELOCITY_API_DATABASE_URL`. */
  static readonly layer = Layer.effect(
    ApiSql,
    Effect.flatMap(apiSettings, (settings) => Databases.make({ [Databases.defaultDatabase]: settings }))
  )
}
