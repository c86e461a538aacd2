/** `velocity api`: the HTTP server, from `VELOCITY_*` variables, until SIGINT or SIGTERM. */
import { Effect, Layer, Logger } from "effect"
import { Command } from "effect/cli"
import * as Server from "../server/Server.ts"
import { startFailure } from "./StartFailure.ts"

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
