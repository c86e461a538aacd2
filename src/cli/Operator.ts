/** `velocity operator`: the reconcilers and the schedules, of a cluster or (`--manifests DIR`) of a folder, until SIGINT or SIGTERM. */
import { join } from "node:path"
import { Config, Effect, Layer, Logger, Option, Stream } from "effect"
import { Command, Flag } from "effect/cli"
import { Kube } from "../kubernetes/Kube.ts"
import { Leadership } from "../kubernetes/Leadership.ts"
import * as ClusterOperator from "../operator/ClusterOperator.ts"
import * as Operator from "../operator/Operator.ts"
import * as OperatorEndpoint from "../operator/OperatorEndpoint.ts"
import {
  isManifestInvalid,
  isSound,
  OperatorStatus,
  renderChange,
  type StatusChange
} from "../operator/state/OperatorStatus.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { defaultDataFolder } from "./Settings.ts"
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
  const last = new Map<string, string>()
  const standing = new Set<string>()
  /**
   * Whether a change says of a resource what its last one did not (a status may change in what no line shows), and of a
   * manifest what was not told when listening began.
   */
  const isNews = (change: StatusChange): boolean => {
    const line = renderChange(change)
    if (change._tag !== "Resource") return !standing.delete(line)
    const { identity } = change.state
    if (last.get(identity) === line) return false
    last.set(identity, line)
    return true
  }
  for (const problem of status.problems()) {
    const change: StatusChange = { _tag: "Problem", problem }
    standing.add(renderChange(change))
    yield* told(change)
  }
  for (const state of status.resources()) {
    const change: StatusChange = { _tag: "Resource", state }
    if (!isSound(state) && isNews(change)) yield* told(change)
  }
  // what changed before anybody listened is told too
  yield* status.changes.pipe(Stream.filter(isNews), Stream.runForEach(told), Effect.forkScoped)
  return yield* status.superseded
})

/** The same, and ends when the Lease is lost: whoever started it starts it again, to stand by. */
const followCluster = Effect.gen(function* () {
  const { lost } = yield* Leadership
  return yield* Effect.raceFirst(follow, lost)
})

const onFolder = Effect.fnUntraced(function* (manifests: string) {
  const data = yield* Config.String("VELOCITY_DATA").pipe(Config.withDefault(defaultDataFolder))
  return yield* Effect.scoped(follow).pipe(
    Effect.provide(Layer.merge(Operator.layerWithSql({ manifests, keys: join(data, "keys") }), OperatorEndpoint.layer))
  )
}, Effect.mapError(startFailure))

const inCluster = Effect.flatMap(ClusterOperator.watchedNamespaces, (namespaces) =>
  Effect.scoped(followCluster).pipe(
    Effect.provide(
      Layer.merge(
        ClusterOperator.layer({ namespaces }).pipe(Layer.provide(Layer.merge(Kube.layer, OperatorSql.layer))),
        // told while it stands by, too
        OperatorEndpoint.layer
      )
    )
  )
).pipe(Effect.mapError(startFailure))

export const operator = Command.make(
  "operator",
  {
    manifests: Flag.Directory("manifests", { mustExist: true }).pipe(
      Flag.withDescription("A folder of manifests instead of a cluster, watched; trusted as a whole"),
      Flag.optional
    )
  },
  ({ manifests }) =>
    Option.match(manifests, { onNone: () => inCluster, onSome: onFolder }).pipe(
      Effect.provide(Logger.layer([Logger.consoleJson]))
    )
).pipe(
  Command.withDescription("Turn resources of a cluster, or of a folder, into tables, roles and policies"),
  Command.withExamples([
    {
      command: "VELOCITY_OPERATOR_DATABASE_URL=postgres://velocity_operator@host/velocity velocity operator",
      description: "In a cluster, or with a kubeconfig; several stand by for each other"
    },
    {
      command:
        "VELOCITY_OPERATOR_DATABASE_URL=postgres://velocity_operator@host/velocity velocity operator --manifests ./manifests",
      description: "Without a cluster"
    }
  ])
)
