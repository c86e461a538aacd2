/** A domain: its schema and roles, and the strategy that its callers prove themselves by. */
import { Effect } from "effect"
import { chainOf, rolesOf } from "../../domain/Names.ts"
import { statement } from "../../postgres/Statement.ts"
import { applyDomain, isCurrent, withdrawDomain } from "../../provisioning/ProvisionDomain.ts"
import { ready, type Verdict, waiting } from "../state/Conditions.ts"
import { effectiveStrategy } from "../state/EffectiveStrategy.ts"
import { applicationOf, parentVerdict } from "../state/Parents.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"
import { verdictOf } from "../state/Refusals.ts"
import { childrenVerdict } from "./Children.ts"

export const domainReconciler: Reconciler<"Domain"> = {
  kind: "Domain",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const { app, org } = resource.spec
      const chain = chainOf(resource.spec)
      const early = parentVerdict(`application ${org}/${app}`, applicationOf(world, resource.spec))
      if (early !== undefined) return concluded(early, { chain })
      const strategy = effectiveStrategy(world, resource)
      const wanted = { spec: resource.spec, origin: world.originOf(resource), authStrategy: strategy.id }
      const isDone = yield* world.fence.read((tx) => isCurrent(tx, wanted))
      const outcome = isDone
        ? undefined
        : yield* world.fence
            .transaction((tx) => applyDomain(tx, wanted))
            .pipe(Effect.catchTag("ProvisionRefused", (refusal) => Effect.succeed(verdictOf(refusal))))
      if (outcome !== undefined && "message" in outcome) return concluded(outcome, { chain })
      const schema = chain.replaceAll(/[-/]/gu, "_")
      const verdict: Verdict =
        strategy.problem !== undefined
          ? waiting("StrategyMissing", strategy.problem, true)
          : ready(
              strategy.id === undefined
                ? `schema ${schema}; no AuthStrategy is named, so nobody can prove who he is`
                : `schema ${schema}, strategy ${strategy.id}`,
              "Provisioned"
            )
      const roles = rolesOf(schema)
      return concluded(
        verdict,
        {
          chain,
          pgSchema: schema,
          pgRoles: [roles.owner, roles.reader, roles.writer, roles.admin],
          authStrategy: strategy.id ?? null
        },
        outcome?._tag === "Applied"
      )
    }),
  remove: (world, { name, namespace, resource, state }) =>
    Effect.gen(function* () {
      // what an operator made that was killed before it could say so
      const { rows } = yield* world.fence.read((tx) =>
        tx.query(
          statement(
            "select chain from platform.domains where source = $1 and namespace = $2 and name = $3 and spec is not null",
            [world.fence.source, namespace, name]
          )
        )
      )
      const wait = yield* childrenVerdict(world, "Domain", resource, rows[0]?.chain ?? state?.status.chain)
      if (wait !== undefined) return wait
      // nobody can prove himself to it any more; its names stay, and under Retain its schema does
      yield* world.fence.transaction((tx) => withdrawDomain(tx, { source: world.fence.source, namespace, name }))
      return undefined
    }),
  dependents: (world, { spec }) => {
    const chain = chainOf(spec)
    return [
      ...world.resources("Domain").filter((one) => chainOf(one.spec) === chain),
      ...world.resources("SchemaDefinition").filter((one) => chainOf(one.spec) === chain),
      ...[...world.resources("RoleBinding"), ...world.resources("ApiKey")].filter(
        (one) => `${one.spec.org}/${one.spec.app}/${one.spec.domain}` === chain
      )
    ]
  }
}
