/** A definition: its table, and that it is served. */
import { Effect } from "effect"
import { chainOf, formatPath } from "../domain/Names.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import { statement } from "../postgres/Statement.ts"
import * as Provision from "../provisioning/Provision.ts"
import { refused } from "../provisioning/ProvisionRefused.ts"
import { withdraw } from "../provisioning/Withdrawal.ts"
import { ruleFaults } from "../records/type/Rules.ts"
import { ready, waiting } from "./Conditions.ts"
import { isProvisioned, parentVerdict } from "./Parents.ts"
import { concluded, type Reconciler } from "./Reconciler.ts"
import { verdictOf } from "./Refusals.ts"

export const schemaDefinitionReconciler: Reconciler<"SchemaDefinition"> = {
  kind: "SchemaDefinition",
  reconcile: (world, resource) =>
    Effect.gen(function* () {
      const path = pathOfDefinition(resource.spec)
      const text = formatPath(path)
      const domains = world.resources("Domain").filter((one) => chainOf(one.spec) === chainOf(path))
      const parent = domains.find((one) => isProvisioned(world, one)) ?? domains[0]
      const early = parentVerdict(`domain ${chainOf(path)}`, parent, (one) => isProvisioned(world, one))
      if (early !== undefined) return concluded(early, { path: text })
      const wanted = { spec: resource.spec, origin: world.originOf(resource) }
      // what a rule may cost is decided here: no engine can be interrupted while it judges a record
      const rules = ruleFaults(resource.spec).map((one) => ({ ...one, pointer: `/spec${one.pointer}` }))
      if (rules.length > 0) {
        return concluded(verdictOf(refused("Invalid", "a rule cannot be admitted", rules)), { path: text })
      }
      const outcome =
        (yield* world.fence.read((tx) => Provision.current(tx, wanted))) ??
        (yield* world.fence
          .transaction((tx) => Provision.apply(tx, wanted))
          .pipe(Effect.catchTag("ProvisionRefused", (refusal) => Effect.succeed(verdictOf(refusal)))))
      if ("message" in outcome) return concluded(outcome, { path: text })
      const { generation, missing, pgSchema, pgTable } = outcome
      const verdict =
        missing.length > 0
          ? waiting("RefMissing", `${missing.join(", ")} not there; served without that foreign key`)
          : ready(`${pgSchema}.${pgTable} is served in generation ${generation}`, "Provisioned")
      return concluded(
        verdict,
        { path: text, pgTable: `${pgSchema}.${pgTable}`, generation },
        outcome._tag === "Applied"
      )
    }),
  remove: (world, { name, namespace }) =>
    Effect.gen(function* () {
      const origin = { source: world.fence.source, namespace, name }
      const { rows } = yield* world.fence.read((tx) =>
        tx.query(
          statement(
            "select path from platform.schema_defs where source = $1 and namespace = $2 and name = $3 and serving is not null",
            [origin.source, namespace, name]
          )
        )
      )
      for (const row of rows) {
        const refusal = yield* world.fence
          .transaction((tx) => withdraw(tx, { path: String(row.path), origin, leaving: world.leaving() }))
          .pipe(Effect.catchTag("ProvisionRefused", (one) => Effect.succeed(verdictOf(one))))
        if (typeof refusal !== "boolean") return refusal
      }
      return undefined
    }),
  dependents: (world, { spec }) =>
    world
      .resources("SchemaDefinition")
      .filter(
        (one) =>
          chainOf(one.spec) === chainOf(spec) &&
          one.spec.fields.some(
            ({ ref }) => ref !== undefined && ref.object === spec.object && ref.version === spec.version
          )
      )
}
