/** A domain: its schema and roles, and the strategy that its callers prove themselves by. */
import { Effect } from "effect"
import { chainOf, rolesOf } from "../../domain/Names.ts"
import { statement } from "../../postgres/Statement.ts"
import { applyDomain, isCurrent, withdrawDomain } from "../../provisioning/ProvisionDomain.ts"
import { ready, type Verdict, waiting } from "../state/Conditions.ts"
import { effectiveStrategy } from "../state/EffectiveStrategy.ts"
import { hasChildren, isReady, parentVerdict } from "../state/Parents.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"
import { verdictOf } from "../state/Refusals.ts"

export const domainReconciler: Reconciler<"Domain"> = {
  kind: "Domain",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const { app, org } = resource.spec
      const chain = chainOf(resource.spec)
      const applications = world.resources("Application").filter((one) => one.spec.org === org && one.spec.app === app)
      const parent = applications.find((one) => isReady(world, one)) ?? applications[0]
      const early = parentVerdict(`application ${org}/${app}`, parent, (one) => isReady(world, one))
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
  remove: (world, { name, namespace, state }) =>
    Effect.gen(function* () {
      const chain = String(state?.status.chain ?? "")
      const { rows: defined } = yield* world.fence.read((tx) =>
        tx.query(
          statement(
            "select namespace, name from platform.schema_defs where chain = $1 and (serving is not null or state = 'Withdrawing') order by 1, 2",
            [chain]
          )
        )
      )
      const children = [
        ...world.resources("SchemaDefinition").filter((one) => chainOf(one.spec) === chain),
        ...[...world.resources("RoleBinding"), ...world.resources("ApiKey")].filter(
          ({ spec }) => `${spec.org}/${spec.app}/${spec.domain}` === chain
        )
      ]
      const wait = hasChildren(
        children,
        defined.map((one) => `SchemaDefinition/${one.namespace}/${one.name}`)
      )
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
