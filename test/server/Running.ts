/** A layer that runs for the tests of a file. */
import { type Context, Context as Contexts, Effect, Exit, Layer, Logger, Scope } from "effect"

export interface Running<Services> {
  readonly get: <I extends Services, S>(key: Context.Key<I, S>) => S
  readonly stop: () => Promise<void>
  readonly run: <A, E>(effect: Effect.Effect<A, E, Services>) => Promise<A>
}

/** Builds a layer; what it logs goes to `logs`, for tests that look at it. */
export const start = async <Services, E>(
  layer: Layer.Layer<Services, E>,
  logs: Array<unknown> = []
): Promise<Running<Services>> => {
  const scope = Scope.makeUnsafe()
  const logger = Logger.layer([
    Logger.make((entry) => {
      if (entry.logLevel === "Error" || entry.logLevel === "Fatal") logs.push(Logger.formatJson.log(entry))
    })
  ])
  const context = await Effect.runPromise(Layer.buildWithScope(Layer.provide(layer, logger), scope))
  return {
    get: (key) => Contexts.getUnsafe(context as Context.Context<never>, key as never) as never,
    run: (effect) => Effect.runPromise(Effect.provideContext(effect, context)),
    stop: () => Effect.runPromise(Scope.close(scope, Exit.void))
  }
}
