/**
 * `velocity dev`: the whole product on a laptop, in one process. Postgres from its own package, the operator on a folder of
 * manifests, the API, a token and curl lines that work. Ctrl-C stops all of it with status 0.
 */
import { existsSync } from "node:fs"
import { rm, writeFile } from "node:fs/promises"
import { dirname, join, resolve } from "node:path"
import { fileURLToPath } from "node:url"
import { ConfigProvider, Console, Duration, Effect, Fiber, Layer, Logger, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { openDevelopmentIssuer } from "../access/DevelopmentIssuer.ts"
import { AuthStrategySpec } from "../domain/AuthStrategy.ts"
import { decodeStrictly } from "../domain/Resource.ts"
import * as Operator from "../operator/Operator.ts"
import { OperatorStatus } from "../operator/state/OperatorStatus.ts"
import * as DevelopmentDatabase from "../postgres/DevelopmentDatabase.ts"
import * as EmbeddedServer from "../postgres/EmbeddedServer.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { busyMessage, isFree } from "../postgres/Ports.ts"
import * as Server from "../server/Server.ts"
import { openDevAuditKey } from "./DevAuditKey.ts"
import { follow } from "./Operator.ts"
import { addressFile, dataFlag, failed } from "./Settings.ts"
import { startFailure } from "./StartFailure.ts"

/** How long the printed token lasts (fine print 47). */
const tokenLifetime = Duration.hours(12)
/** The roles of the samples, and the platform's own: this token may do everything there. */
const tokenRoles = [
  "cartographer",
  "visitor",
  "buyer",
  "auditor",
  "admin",
  "platform-admin",
  "platform-auditor",
  "platform-privacy"
]

/** The samples that come with the package, from the sources as from the compiled package. */
const samples = (): string => {
  for (let folder = dirname(fileURLToPath(import.meta.url)); ; folder = dirname(folder)) {
    const candidate = join(folder, "k8s", "samples")
    if (existsSync(candidate)) return candidate
    if (dirname(folder) === folder) return "manifests"
  }
}

const manifestsOf = (given: Option.Option<string>): string =>
  resolve(Option.getOrElse(given, () => (existsSync("manifests") ? "manifests" : samples())))

interface Started {
  readonly api: string
  readonly token: string
  readonly data: string
  readonly manifests: string
  readonly postgresPort: number
}

const guide = (started: Started): string => `
Velocity serves ${started.api}
  PostgreSQL  127.0.0.1:${started.postgresPort}, data in ${started.data}
  manifests   ${started.manifests} (watched: save a file and it is applied)
  docs        ${started.api}/docs

A token for twelve hours, with the samples' roles and the platform's:
  export TOKEN=${started.token}

Try it:
  curl -g -sS -w '\\n' '${started.api}/api/me?path=acme/geo/atlas' -H "Authorization: Bearer $TOKEN"
  curl -g -sS -w '\\n' '${started.api}/api/acme/geo/atlas/country/v1?limit=5&count=exact' -H "Authorization: Bearer $TOKEN"
  curl -g -sS -w '\\n' '${started.api}/api/platform/audit/verify' -H "Authorization: Bearer $TOKEN"

Ctrl-C stops all of it.`

const one = (error: { readonly message: string }) => failed(error.message)

export const dev = Command.make(
  "dev",
  {
    data: dataFlag,
    port: Flag.Int("port").pipe(
      Flag.withDescription("The API's port; 0 chooses a free one"),
      Flag.filter(
        (port) => port >= 0 && port <= 65_535,
        () => "a port from 0 to 65535"
      ),
      Flag.withDefault(8080)
    ),
    manifests: Flag.Directory("manifests", { mustExist: true }).pipe(
      Flag.withDescription("The folder of manifests; ./manifests if it is there, else the samples"),
      Flag.withMetavar("DIR"),
      Flag.optional
    ),
    output: Flag.Literals("output", ["text", "json"]).pipe(
      Flag.withDescription("json prints one line once everything serves, for scripts; logs go to stderr"),
      Flag.withDefault("text" as const)
    )
  },
  Effect.fnUntraced(function* (options) {
    const data = resolve(options.data)
    const manifests = manifestsOf(options.manifests)
    const json = options.output === "json"

    const program = Effect.gen(function* () {
      // told before anything is made; who takes it in between is told by the server
      if (options.port !== 0 && !(yield* Effect.promise(() => isFree(options.port)))) {
        return yield* failed(`${yield* Effect.promise(() => busyMessage(options.port))}; say --port`)
      }
      const postgres = yield* EmbeddedServer.make({ dataDir: data }).pipe(Effect.mapError(one))
      const database = yield* DevelopmentDatabase.prepare(postgres.superuser).pipe(Effect.mapError(one))
      const issuer = yield* openDevelopmentIssuer(data).pipe(Effect.mapError(one))
      const strategy = decodeStrictly(AuthStrategySpec, issuer.strategy())
      if ("faults" in strategy) return yield* failed("the development issuer's strategy is not one")

      const variables = {
        ...process.env,
        VELOCITY_API_DATABASE_URL: database.api.href,
        VELOCITY_OPERATOR_DATABASE_URL: database.operator.href,
        VELOCITY_PLATFORM_STRATEGY: "development",
        // one that was killed is not waited for by the next
        VELOCITY_REPLICA: "dev"
      }
      const hasKey = ["VELOCITY_AUDIT_KEY", "VELOCITY_AUDIT_KEY_FILE"].some((name) => (process.env[name] ?? "") !== "")
      const auditKey = hasKey
        ? {}
        : {
            VELOCITY_AUDIT_KEY_FILE: yield* openDevAuditKey(data).pipe(
              Effect.provide(OperatorSql.layer),
              Effect.provide(ConfigProvider.layer(ConfigProvider.fromUnknown(variables))),
              Effect.mapError(startFailure)
            )
          }
      const configuration = ConfigProvider.layer(ConfigProvider.fromUnknown({ ...variables, ...auditKey }))
      const operator = yield* Layer.build(
        Layer.provide(
          Operator.layerWithSql({ manifests, development: strategy.value, keys: join(data, "keys") }),
          configuration
        )
      ).pipe(Effect.mapError(startFailure))
      yield* Effect.provideContext(
        OperatorStatus.use((status) => status.settled),
        operator
      )
      const server = yield* Layer.build(
        Layer.provide(Server.layer({ host: "127.0.0.1", port: options.port }), configuration)
      ).pipe(Effect.mapError(startFailure))
      const api = yield* Effect.provideContext(
        Server.ServerAddress.use((address) => Effect.succeed(address.url)),
        server
      )
      // ends before the server does, which takes its word back that it serves
      const superseded = yield* Effect.forkScoped(Effect.provideContext(Effect.scoped(follow), operator))
      const token = yield* issuer.sign({
        subject: "developer",
        roles: tokenRoles,
        attributes: { store_id: "s1" },
        expiresIn: tokenLifetime
      })
      yield* Effect.acquireRelease(
        Effect.promise(() =>
          writeFile(addressFile(data), `${JSON.stringify({ api, pid: process.pid })}\n`, { mode: 0o600 })
        ),
        () => Effect.promise(() => rm(addressFile(data), { force: true }))
      )
      yield* json
        ? Console.log(
            JSON.stringify({
              api,
              token,
              postgres: { admin: database.admin.href, api: database.api.href, operator: database.operator.href },
              manifests
            })
          )
        : Console.log(guide({ api, token, data, manifests, postgresPort: postgres.port }))
      return yield* Fiber.join(superseded).pipe(Effect.mapError(one))
    })
    return yield* Effect.scoped(program).pipe(
      Effect.provide(Logger.layer([json ? Logger.withConsoleError(Logger.formatLogFmt) : Logger.consolePretty()]))
    )
  })
).pipe(
  Command.withDescription("The whole product on a laptop, in one process"),
  Command.withExamples([
    { command: "velocity dev", description: "On the samples, at http://127.0.0.1:8080" },
    {
      command: "velocity dev --data .velocity --port 9000 --manifests ./manifests",
      description: "On a folder of your own"
    }
  ])
)
