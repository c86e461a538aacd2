/**
 * What several commands share: where a data folder is, which API to speak to and with which token.
 *
 * `velocity dev` leaves its address in the data folder while it runs, so that `velocity record …` and `velocity audit …`
 * need no flags on the same laptop; anywhere else `VELOCITY_API_URL` and `VELOCITY_TOKEN` say it.
 */
import { readFile } from "node:fs/promises"
import { join } from "node:path"
import { Config, Data, Duration, Effect, Option, Redacted } from "effect"
import { Flag } from "effect/cli"
import { openDevelopmentIssuer } from "../access/DevelopmentIssuer.ts"

/** A mistake of the person at the keyboard, or something missing; the message says what to type next. */
export class CommandFailed extends Data.TaggedError("CommandFailed")<{
  readonly message: string
  /** The status the process ends with. */
  readonly exitCode: number
}> {}

export const failed = (message: string, exitCode = 1) => new CommandFailed({ message, exitCode })

export const defaultDataFolder = ".velocity"

/** `--data DIR`: the folder of `velocity dev`. */
export const dataFlag = Flag.String("data").pipe(
  Flag.withDescription("The data folder of velocity dev"),
  Flag.withMetavar("DIR"),
  Flag.withFallbackConfig(Config.String("VELOCITY_DATA")),
  Flag.withDefault(defaultDataFolder)
)

/** `--api URL`, else `VELOCITY_API_URL`, else the running `velocity dev` of the data folder. */
export const apiFlag = Flag.String("api").pipe(
  Flag.withDescription("The API's address, e.g. http://127.0.0.1:8080"),
  Flag.withMetavar("URL"),
  Flag.withFallbackConfig(Config.String("VELOCITY_API_URL")),
  Flag.optional
)

/** `--token`, else `VELOCITY_TOKEN`, else one signed by the development issuer of the data folder. */
export const tokenFlag = Flag.Redacted("token").pipe(
  Flag.withDescription("A bearer token"),
  Flag.withFallbackConfig(Config.Redacted("VELOCITY_TOKEN")),
  Flag.optional
)

/** What `velocity dev` writes beside its data while it runs. */
export interface DevAddress {
  readonly api: string
  readonly pid: number
}

export const addressFile = (data: string): string => join(data, "dev.json")

export const noDevelopment = (data: string): string =>
  `velocity dev has not run on ${data}: start it, or say --data DIR`

const runningDev = (data: string): Effect.Effect<DevAddress, CommandFailed> =>
  Effect.tryPromise({
    try: async () => JSON.parse(await readFile(addressFile(data), "utf8")) as DevAddress,
    catch: () =>
      failed(`no velocity dev runs on ${data}: start it with npm run dev, or say --api URL (or VELOCITY_API_URL)`, 2)
  })

export interface Target {
  readonly api: string
  readonly token: Redacted.Redacted
}

/**
 * Where to speak to, and as whom. On a laptop, without `--token`, the actor is `cli` with the roles asked for here.
 */
export const targetOf = Effect.fnUntraced(function* (options: {
  readonly data: string
  readonly api: Option.Option<string>
  readonly token: Option.Option<Redacted.Redacted>
  readonly roles: ReadonlyArray<string>
}) {
  const api = Option.isSome(options.api) ? options.api.value : (yield* runningDev(options.data)).api
  if (Option.isSome(options.token)) return { api, token: options.token.value } satisfies Target
  if (Option.isSome(options.api)) {
    return yield* failed("say --token TOKEN (or VELOCITY_TOKEN); velocity token --help makes one for velocity dev", 2)
  }
  const issuer = yield* openDevelopmentIssuer(options.data).pipe(Effect.mapError((error) => failed(error.message, 2)))
  const token = yield* issuer.sign({ subject: "cli", roles: options.roles, expiresIn: Duration.minutes(10) })
  return { api, token: Redacted.make(token) } satisfies Target
})
