/**
 * Manifests applied once, without an operator that goes on: the same reconcilers, fed with these and with what the database
 * knows of the folder's resources already, so that a definition finds its domain. Nothing is absent, so nothing is deleted.
 *
 * It takes the term, which would end an operator that is at work: it is refused while one is.
 */
import { hostname } from "node:os"
import { Clock, type Config, Data, Effect, Layer, Schedule, type Scope } from "effect"
import { keyEnvironmentConfig } from "../access/KeyAuthenticator.ts"
import { apiVersion, decodeResource, identityOf, type Resource } from "../domain/Resource.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as Controller from "./control/Controller.ts"
import { folderSource } from "./Operator.ts"
import { developmentStrategy } from "./reconcile/AuthStrategyReconciler.ts"
import { Fence, type ForeignInstallation, type Superseded } from "./state/Fence.ts"
import type { ResourceState } from "./state/ResourceStatus.ts"
import type { Source } from "./state/Source.ts"

/** An operator is at work on this database. */
export class AtWork extends Data.TaggedError("AtWork")<{ readonly message: string }> {}

/** What the database knows of the folder's resources, and whether it has a development issuer. */
const knownResources = Effect.gen(function* () {
  const sql = yield* OperatorSql
  return yield* sql.transaction(
    (tx) =>
      Effect.gen(function* () {
        const { rows: others } = yield* tx.query(
          statement(
            `select pid::text as pid from pg_stat_activity where datname = current_database() and usename = current_user
               and application_name = current_setting('application_name') and pid <> pg_backend_pid() order by pid limit 1`
          )
        )
        if (others.length > 0) {
          return yield* new AtWork({
            message: `an operator is at work on this database (pid ${String(others[0]?.pid)}): put the file into its folder`
          })
        }
        const { rows } = yield* tx.query(
          statement(
            "select kind, namespace, name, spec::text as spec from platform.resource_status where source = $1 and spec is not null",
            [folderSource]
          )
        )
        const resources = rows.flatMap(({ kind, name, namespace, spec }) => {
          const decoded = decodeResource({
            apiVersion,
            kind,
            metadata: { name, namespace },
            spec: JSON.parse(String(spec))
          })
          return "resource" in decoded ? [decoded.resource] : []
        })
        const { rows: development } = yield* tx.query(
          statement("select id from platform.auth_strategies where id = $1", [developmentStrategy])
        )
        return { resources, fallbackStrategy: development.length > 0 ? developmentStrategy : undefined }
      }),
    { end: "read" }
  )
})

/** How long what fails is tried again before it is answered as it stands, in milliseconds. */
const patience = 30_000

/** Nothing goes on: each is what its manifest says, or waits for somebody. */
const isAtRest = (state: ResourceState): boolean => !isFor(state, evolving) && !isFor(state, failing)

const evolving = new Set(["Evolving"])
const failing = new Set(["Retrying", "WaitsForLock"])

const isFor = ({ conditions }: ResourceState, reasons: ReadonlySet<string>): boolean =>
  conditions.some((one) => one.type === "Reconciling" && one.status === "True" && reasons.has(one.reason))

/** Applies, and answers what became of each, in their order. See the module. */
export const apply = Effect.fn("Applied.apply")(function* (
  resources: ReadonlyArray<Resource>
): Effect.fn.Return<
  ReadonlyArray<ResourceState>,
  AtWork | Config.ConfigError | DatabaseFailure | ForeignInstallation | Superseded,
  OperatorSql | Scope.Scope
> {
  const known = yield* knownResources
  const all = new Map([...known.resources, ...resources].map((resource) => [identityOf(resource), { resource }]))
  const source: Source = {
    read: Effect.succeed({ resources: all, problems: [], spoiled: new Map(), deleted: [] }),
    wait: Effect.never
  }
  const fence = Fence.layerOf({ holder: `${hostname()}/${process.pid}`, source: folderSource })
  const status = yield* Controller.make({
    source: () => Effect.succeed(source),
    fallbackStrategy: known.fallbackStrategy,
    keyEnvironment: yield* keyEnvironmentConfig
  }).pipe(Effect.provide(yield* Layer.build(fence)))
  const wanted = resources.map(identityOf)
  const states = Effect.sync(() => {
    const found = new Map(status.resources().map((one) => [one.identity, one]))
    return wanted.flatMap((identity) => found.get(identity) ?? [])
  })
  yield* status.settled
  let failingSince: number | undefined
  return yield* states.pipe(
    Effect.repeat({
      until: Effect.fnUntraced(function* (found) {
        const now = yield* Clock.currentTimeMillis
        failingSince = found.some((one) => isFor(one, failing)) ? (failingSince ?? now) : undefined
        if (found.length < wanted.length || found.some((one) => isFor(one, evolving))) return false
        return found.every(isAtRest) || now - (failingSince ?? now) >= patience
      }),
      schedule: Schedule.spaced("100 millis")
    })
  )
})
