/** `velocity api`: the HTTP server, from `VELOCITY_*` variables, until SIGINT or SIGTERM. */
import { Effect, Layer, Logger } from "effect"
import { Command } from "effect/cli"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"
import * as Server from "../server/Server.ts"
import { failed } from "./Settings.ts"

/** What keeps a server from starting, as a person reads it, with the status of the process. */
export const startFailure = (error: { readonly _tag: string; readonly message: string }) =>
  failed(error.message, error._tag === "IsolationViolated" ? IsolationCheck.exitCode : 1)

export const api = Command.make("api", {}, () =>
  Layer.launch(Server.layer()).pipe(Effect.mapError(startFailure), Effect.provide(Logger.layer([Logger.consoleJson])))
).pipe(
  Command.withDescription("Serve the API; the environment says how"),
  Command.withExamples([
    {
      command: "VELOCITY_API_DATABASE_URL=postgres://velocity_api@host/velocity VELOCITY_PORT=8080 velocity api",
      description: "One replica"
    }
  ])
)
