/** A replica of the API beside an operator under test, without which nothing is Ready (fine print 10). */
import { ConfigProvider, Effect, Layer, Scope, Stream } from "effect"
import type { OperatorStatus } from "../../src/operator/state/OperatorStatus.ts"
import * as Server from "../../src/server/Server.ts"
import { configOf, type TestDatabase } from "./Database.ts"

/** Serves a database until the scope closes; answers the URL. */
export const startReplica = Effect.fnUntraced(function* (
  database: TestDatabase,
  variables: Readonly<Record<string, string>> = {}
) {
  const scope = yield* Scope.Scope
  const context = yield* Layer.buildWithScope(
    Server.layer({ host: "127.0.0.1", port: 0 }).pipe(
      Layer.provide(ConfigProvider.layer(configOf(database, variables)))
    ),
    scope
  )
  const { url } = yield* Server.ServerAddress.pipe(Effect.provide(context))
  return url
})

const passing = new Set(["Acknowledging", "Withdrawing", "NoReplica"])

const isServed = (status: OperatorStatus["Service"]): boolean =>
  status.resources().every((one) => !one.conditions.some((condition) => passing.has(condition.reason)))

/** Waits until no definition waits for a replica any more. */
export const whenServed = (status: OperatorStatus["Service"]): Effect.Effect<void> =>
  Stream.merge(Stream.succeed(undefined), status.changes).pipe(
    Stream.takeUntil(() => isServed(status)),
    Stream.runDrain
  )

/** Looks at the source until nothing is left to do, by the operator or by a replica. */
export const lookThrough = (status: OperatorStatus["Service"]): Effect.Effect<void> =>
  Effect.gen(function* () {
    yield* status.look
    while (!isServed(status)) {
      yield* whenServed(status)
      yield* status.look
    }
  })
