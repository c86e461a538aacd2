/** How the HTTP server is run, from `VELOCITY_*` variables. All times in milliseconds. */
import { Config } from "effect"
import { duration, integer } from "../postgres/PgSettings.ts"

export interface ServerSettings {
  readonly host: string
  /** 0 chooses a free one. */
  readonly port: number
  /** Origins that a browser may call from, or `*`; none by default. */
  readonly corsOrigins: ReadonlyArray<string>
  /** A request is given up after this, an import excepted. */
  readonly requestTimeout: number
  /** A body of which nothing comes for this long is given up. */
  readonly bodyTimeout: number
  /** How long the operator is waited for, where a plan is asked for. */
  readonly planTimeout: number
  /** How long requests may still take when the server is told to stop. */
  readonly shutdownTimeout: number
}

const listed = (text: string): ReadonlyArray<string> =>
  text
    .split(",")
    .map((one) => one.trim())
    .filter((one) => one !== "")

export const serverSettings: Config.Config<ServerSettings> = Config.all({
  host: Config.String("VELOCITY_HOST").pipe(Config.withDefault("127.0.0.1")),
  port: integer("VELOCITY_PORT", 8080, 0, 65_535),
  corsOrigins: Config.String("VELOCITY_CORS_ORIGINS").pipe(Config.withDefault(""), Config.map(listed)),
  requestTimeout: duration("VELOCITY_REQUEST_TIMEOUT", 30_000),
  bodyTimeout: duration("VELOCITY_BODY_TIMEOUT", 10_000),
  // a row says how long it is waited for, in five minutes at most
  planTimeout: duration("VELOCITY_PLAN_TIMEOUT", 10_000).pipe(
    Config.map((within) => Math.max(1, Math.min(within, 300_000)))
  ),
  shutdownTimeout: duration("VELOCITY_SHUTDOWN_TIMEOUT", 20_000)
})

/** The most bytes of a JSON body. */
export const maxJsonBody = 10 * 1024 * 1024
/** The most bytes of a request's line and headers together, so of a query too. */
export const maxHeaderBytes = 32 * 1024
