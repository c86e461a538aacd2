/**
 * A strategy's mirror row. It is compiled first as the API will compile it, so that what is Ready can be used. A composite
 * whose member is missing is written all the same and admits by the others; it is not Ready, and is told so.
 */
import { Effect, Result } from "effect"
import { compileJwt } from "../../access/JwtStrategy.ts"
import { defaultTimings } from "../../access/KeySet.ts"
import { type AuthStrategySpec, strategyCandidates, strategyFaults, strategyId } from "../../domain/AuthStrategy.ts"
import type { ResourceOf } from "../../domain/Resource.ts"
import * as AuditChain from "../../postgres/AuditChain.ts"
import type { Tx } from "../../postgres/OperatorSql.ts"
import { statement } from "../../postgres/Statement.ts"
import { actorOf, foreignOrigin, type Origin, originParams } from "../../provisioning/table/Origin.ts"
import { specHash } from "../../provisioning/table/SpecHash.ts"
import { ready, stalled, type Verdict, waiting } from "../state/Conditions.ts"
import { concluded, type Reconciler, type World } from "../state/Reconciler.ts"
import { verdictOf } from "../state/Refusals.ts"

/** The id that `velocity dev` writes itself. */
export const developmentStrategy = "development"

const faultOf = (id: string, spec: AuthStrategySpec): string | undefined => {
  if (id === developmentStrategy) return `/metadata/name: ${developmentStrategy} is the development issuer's`
  const [fault] = strategyFaults(spec)
  if (fault !== undefined) return `/spec${fault.pointer}: ${fault.detail}`
  if (spec.jwt === undefined) return undefined
  const compiled = compileJwt(id, spec.jwt, defaultTimings)
  return Result.isFailure(compiled) ? `/spec/jwt: ${compiled.failure}` : undefined
}

const idOf = ({ metadata }: ResourceOf<"AuthStrategy">): string => strategyId(metadata.namespace, metadata.name)

/** What keeps a composite from being all that it names: a member that is not there, or of a type that is none of its. */
const memberVerdict = (world: World, { metadata, spec }: ResourceOf<"AuthStrategy">): Verdict | undefined => {
  const types = new Map<string, string>(world.resources("AuthStrategy").map((one) => [idOf(one), one.spec.type]))
  if (world.fallbackStrategy !== undefined) types.set(world.fallbackStrategy, "jwt")
  for (const name of spec.composite?.strategies ?? []) {
    const id = strategyCandidates(metadata.namespace, name).find((one) => types.has(one))
    if (id === undefined) return waiting("StrategyMissing", `the AuthStrategy ${name}, which it names, is not there`)
    const type = types.get(id)
    if (type !== "jwt" && type !== "apikey") {
      return stalled(
        "Invalid",
        `/spec/composite/strategies: ${name} is of type ${type}, and only jwt and apikey can be members`
      )
    }
  }
  return undefined
}

/** Whether a strategy's row says this already. */
export const isStrategyCurrent = (tx: Tx, id: string, spec: AuthStrategySpec) =>
  Effect.map(
    tx.query(statement("select spec_hash from platform.auth_strategies where id = $1", [id])),
    ({ rows }) => rows[0]?.spec_hash === specHash(spec)
  )

/** Writes a strategy's row with its entry and notification. */
export const writeStrategy = Effect.fnUntraced(function* (tx: Tx, id: string, spec: AuthStrategySpec, origin: Origin) {
  yield* tx.query(
    statement(
      `insert into platform.auth_strategies (id, spec, spec_hash, source, namespace, name, uid, resource_generation)
       values ($1, $2::jsonb, $3, $4, $5, $6, $7, $8)
       on conflict (id) do update set spec = excluded.spec, spec_hash = excluded.spec_hash, source = excluded.source,
         namespace = excluded.namespace, name = excluded.name, uid = excluded.uid, resource_generation = excluded.resource_generation,
         generation = nextval('platform.generation_seq'), updated_at = now()`,
      [id, JSON.stringify(spec), specHash(spec), ...originParams(origin)]
    )
  )
  yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`strategy:${id}`]))
  yield* AuditChain.insert(tx, {
    chain: "platform",
    actor: actorOf(origin),
    action: "operator.strategy.apply",
    outcome: "ok",
    payload: { strategy: id, specHash: specHash(spec) }
  })
})

/** Ends believing a strategy's tokens, if it is of this origin. */
export const removeStrategy = Effect.fnUntraced(function* (tx: Tx, id: string, origin: Origin) {
  const { rowCount } = yield* tx.query(
    statement("delete from platform.auth_strategies where id = $1 and source = $2 and namespace = $3 and name = $4", [
      id,
      origin.source,
      origin.namespace,
      origin.name
    ])
  )
  if (rowCount === 0) return
  yield* tx.query(statement("select pg_notify('velocity_registry', $1)::text as sent", [`strategy:${id}`]))
  yield* AuditChain.insert(tx, {
    chain: "platform",
    actor: actorOf(origin),
    action: "operator.strategy.remove",
    outcome: "ok",
    payload: { strategy: id }
  })
})

export const authStrategyReconciler: Reconciler<"AuthStrategy"> = {
  kind: "AuthStrategy",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const { metadata, spec } = resource
      const id = strategyId(metadata.namespace, metadata.name)
      const fault = faultOf(id, spec)
      if (fault !== undefined) return concluded(stalled("Invalid", fault))
      const origin = world.originOf(resource)
      const { rows } = yield* world.fence.read((tx) =>
        tx.query(
          statement("select spec_hash, source, namespace, name from platform.auth_strategies where id = $1", [id])
        )
      )
      const conflict = rows[0] === undefined ? undefined : foreignOrigin(rows[0], origin, `the strategy ${id}`)
      if (conflict !== undefined) return concluded(verdictOf(conflict), { id })
      const isDone = rows[0]?.spec_hash === specHash(spec) && rows[0].source === origin.source
      if (!isDone) yield* world.fence.transaction((tx) => writeStrategy(tx, id, spec, origin))
      const verdict =
        memberVerdict(world, resource) ??
        ready(
          spec.composite === undefined
            ? `actors are ${id}/{subject}`
            : `callers prove themselves by one of ${spec.composite.strategies.join(", ")}`
        )
      return concluded(verdict, { id }, !isDone)
    }),
  remove: (world, { name, namespace }) =>
    Effect.gen(function* () {
      const id = strategyId(namespace, name)
      const origin = { source: world.fence.source, namespace, name }
      yield* world.fence.transaction((tx) => removeStrategy(tx, id, origin))
      return undefined
    }),
  dependents: (world) => [
    ...world.resources("Domain"),
    ...world.resources("AuthStrategy").filter((one) => one.spec.type === "composite"),
    ...world.resources("ApiKey")
  ]
}
