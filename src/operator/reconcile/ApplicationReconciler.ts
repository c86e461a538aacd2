/** An application stands under its organisation and has nothing in Postgres of its own. */
import { Effect } from "effect"
import { ready } from "../state/Conditions.ts"
import { organisationOf, parentVerdict, pathConflict } from "../state/Parents.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"
import { childrenVerdict } from "./Children.ts"

export const applicationReconciler: Reconciler<"Application"> = {
  kind: "Application",
  reconcile: (world, resource) =>
    Effect.sync(() => {
      const { app, org } = resource.spec
      const path = `${org}/${app}`
      const rivals = world.resources("Application").filter((one) => `${one.spec.org}/${one.spec.app}` === path)
      const verdict =
        parentVerdict(`organisation ${org}`, organisationOf(world, org)) ??
        pathConflict(world, resource, rivals, path) ??
        ready(`application ${path}`)
      return concluded(verdict, { path })
    }),
  remove: (world, { resource, state }) => childrenVerdict(world, "Application", resource, state?.status.path),
  dependents: (world, { spec: { app, org } }) => [
    ...world.resources("Application").filter((one) => one.spec.org === org && one.spec.app === app),
    ...world.resources("Domain").filter((one) => one.spec.org === org && one.spec.app === app)
  ]
}
