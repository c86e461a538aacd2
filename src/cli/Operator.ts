/** `velocity operator --manifests DIR`: the reconcilers and the partition manager, until SIGINT or SIGTERM. */
import { Effect, Logger, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as Operator from "../operator/Operator.ts"
import { OperatorStatus, renderChange } from "../operator/OperatorStatus.ts"
import { startFailure } from "./StartFailure.ts"

/** Logs each change of a resource, and ends when another operator has taken over. */
export const follow = Effect.gen(function* () {
  const status = yield* OperatorStatus
  yield* Stream.runForEach(status.changes, (change) => Effect.logInfo(renderChange(change))).pipe(Effect.forkScoped)
  return yield* status.superseded
})

export const operator = Command.make(
  "operator",
  {
    manifests: Flag.Directory("manifests", { mustExist: true }).pipe(
      Flag.withDescription("The folder of manifests, watched; trusted as a whole")
    )
  },
  ({ manifests }) =>
    Effect.scoped(follow).pipe(
      Effect.provide(Operator.layerWithSql({ manifests })),
      Effect.mapError(startFailure),
      Effect.provide(Logger.layer([Logger.consoleJson]))
    )
).pipe(
  Command.withDescription("Turn the manifests of a folder into tables, roles and policies"),
  Command.withExamples([
    {
      command:
        "VELOCITY_OPERATOR_DATABASE_URL=postgres://velocity_operator@host/velocity velocity operator --manifests ./manifests",
      description: "Without a cluster"
    }
  ])
)
