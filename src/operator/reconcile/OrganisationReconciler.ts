/** An organisation has nothing in Postgres of its own: it is there, and its applications may be. */
import { Effect } from "effect"
import { isReservedOrg } from "../../domain/Names.ts"
import { ready, stalled } from "../state/Conditions.ts"
import { pathConflict } from "../state/Parents.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"
import { childrenVerdict } from "./Children.ts"

export const organisationReconciler: Reconciler<"Organisation"> = {
  kind: "Organisation",
  reconcile: (world, resource) =>
    Effect.sync(() => {
      const { org } = resource.spec
      if (isReservedOrg(org)) {
        return concluded(stalled("Invalid", `/spec/org: the name ${org} is reserved (pg, platform, velocity, pg-…)`))
      }
      const rivals = world.resources("Organisation").filter((one) => one.spec.org === org)
      return concluded(pathConflict(world, resource, rivals, org) ?? ready(`organisation ${org}`), { path: org })
    }),
  remove: (world, { resource, state }) => childrenVerdict(world, "Organisation", resource, state?.status.path),
  dependents: (world, { spec: { org } }) => [
    ...world.resources("Organisation").filter((one) => one.spec.org === org),
    ...world.resources("Application").filter((one) => one.spec.org === org),
    ...world.resources("Domain").filter((one) => one.spec.org === org)
  ]
}
