/**
 * The operator without a cluster: reconcilers fed from a folder of manifests, and the schedules that look after
 * months and the log, for as long as the layer lives. `OperatorStatus` tells what it does.
 */
import { hostname } from "node:os"
import { type Duration, Effect, Layer } from "effect"
import { keyEnvironmentConfig } from "../access/KeyAuthenticator.ts"
import { type AuthStrategySpec, velocityNamespace } from "../domain/AuthStrategy.ts"
import * as AuditChain from "../postgres/AuditChain.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as AnomalyDelivery from "./anomaly/AnomalyDelivery.ts"
import * as AnomalyScanner from "./anomaly/AnomalyScanner.ts"
import { anomalySettings } from "./anomaly/AnomalySettings.ts"
import * as Controller from "./control/Controller.ts"
import * as LogVerification from "./evidence/LogVerification.ts"
import * as Sealer from "./evidence/Sealer.ts"
import * as PlanAnswers from "./PlanAnswers.ts"
import { developmentStrategy, isStrategyCurrent, writeStrategy } from "./reconcile/AuthStrategyReconciler.ts"
import * as ErasedTables from "./retention/ErasedTables.ts"
import * as PartitionManager from "./retention/PartitionManager.ts"
import * as Retirement from "./retention/Retirement.ts"
import * as FolderSource from "./source/FolderSource.ts"
import { Fence } from "./state/Fence.ts"
import { OperatorStatus } from "./state/OperatorStatus.ts"

/** What the mirror rows of resources from a folder are marked with. */
export const folderSource = "folder"

export interface OperatorOptions {
  /** The folder of manifests. */
  readonly manifests: string
  /**
   * In `velocity dev` alone: the strategy of the development issuer, which Domains trust that name none. It is written
   * as `development`; without it a strategy of that name is removed.
   */
  readonly development?: AuthStrategySpec | undefined
  /** How long a manifest must be absent before its resource is deleted (2 s). */
  readonly quiet?: Duration.Duration | undefined
  /** The folder that minted keys are put into; without it an ApiKey is refused. */
  readonly keys?: string | undefined
}

const developmentOrigin = { source: "development", namespace: velocityNamespace, name: developmentStrategy }

/** Writes the development issuer's strategy, or takes it away. */
const settleDevelopment = Effect.fnUntraced(function* (strategy: AuthStrategySpec | undefined) {
  const fence = yield* Fence
  if (strategy !== undefined) {
    const isDone = yield* fence.read((tx) => isStrategyCurrent(tx, developmentStrategy, strategy))
    if (!isDone) {
      yield* fence.transaction((tx) => writeStrategy(tx, developmentStrategy, strategy, developmentOrigin))
    }
    return
  }
  const { rows } = yield* fence.read((tx) =>
    tx.query(statement("select id from platform.auth_strategies where id = $1", [developmentStrategy]))
  )
  if (rows.length === 0) return
  yield* fence.transaction((tx) =>
    Effect.gen(function* () {
      yield* tx.query(statement("delete from platform.auth_strategies where id = $1", [developmentStrategy]))
      yield* tx.query(
        statement("select pg_notify('velocity_registry', $1)::text as sent", [`strategy:${developmentStrategy}`])
      )
      yield* AuditChain.insert(tx, {
        chain: "platform",
        actor: "operator/development",
        action: "operator.strategy.remove",
        outcome: "ok",
        payload: { strategy: developmentStrategy }
      })
    })
  )
})

const anomalies = Layer.unwrap(
  Effect.map(anomalySettings, (settings) =>
    Layer.merge(AnomalyScanner.layer(settings), AnomalyDelivery.layer(settings))
  )
)
/** What an operator looks after beside its resources, wherever those come from. */
export const schedules = Layer.mergeAll(
  PartitionManager.layer,
  Retirement.layer,
  LogVerification.layer,
  Sealer.layer,
  ErasedTables.layer,
  PlanAnswers.layer,
  anomalies
)

/** See the module. Waits for a database that is not there yet; fails where it belongs to another installation. */
export const layer = (options: OperatorOptions) => {
  const fence = Fence.layerOf({ holder: `${hostname()}/${process.pid}`, source: folderSource })
  const status = Layer.effect(
    OperatorStatus,
    Effect.gen(function* () {
      yield* settleDevelopment(options.development)
      return yield* Controller.make({
        source: (known) =>
          FolderSource.make({ folder: options.manifests, known, quiet: options.quiet, keys: options.keys }),
        fallbackStrategy: options.development === undefined ? undefined : developmentStrategy,
        keyEnvironment: yield* keyEnvironmentConfig
      })
    })
  )
  return Layer.merge(status, schedules).pipe(Layer.provide(fence))
}

/** The same with its own login, from `VELOCITY_OPERATOR_DATABASE_URL`. */
export const layerWithSql = (options: OperatorOptions) => layer(options).pipe(Layer.provide(OperatorSql.layer))
