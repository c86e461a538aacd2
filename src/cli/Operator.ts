/** `velocity operator --manifests DIR`: the reconcilers and the partition manager, until SIGINT or SIGTERM. */
import { Effect, Logger, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import * as Operator from "../operator/Operator.ts"
import {
  isManifestInvalid,
  isSound,
  OperatorStatus,
  renderChange,
  type StatusChange
} from "../operator/OperatorStatus.ts"
import { startFailure } from "./StartFailure.ts"

/** One line; what a manifest has wrong is told with its place in the file, and not again as its resource's condition. */
const told = (change: StatusChange): Effect.Effect<void> => {
  if (change._tag === "Resource" && isManifestInvalid(change.state)) return Effect.void
  const line = renderChange(change)
  return line.startsWith("!") ? Effect.logWarning(line) : Effect.logInfo(line)
}

/** Logs what is not as it should be, then each change, and ends when another operator has taken over. */
export const follow = Effect.gen(function* () {
  const status = yield* OperatorStatus
  for (const problem of status.problems()) yield* told({ _tag: "Problem", problem })
  for (const state of status.resources()) {
    if (!isSound(state)) yield* told({ _tag: "Resource", state })
  }
  yield* Stream.runForEach(status.changes, told).pipe(Effect.forkScoped)
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
