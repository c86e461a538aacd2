/** An application stands under its organisation and has nothing in Postgres of its own. */
import { Effect } from "effect"
import { ready } from "../state/Conditions.ts"
import { hasChildren, isReady, parentVerdict, pathConflict } from "../state/Parents.ts"
import { concluded, type Reconciler } from "../state/Reconciler.ts"

export const applicationReconciler: Reconciler<"Application"> = {
  kind: "Application",
  reconcile: (world, resource) =>
    Effect.sync(() => {
      const { app, org } = resource.spec
      const path = `${org}/${app}`
      const parent = world.resources("Organisation").find((one) => one.spec.org === org && isReady(world, one))
      const any = parent ?? world.resources("Organisation").find((one) => one.spec.org === org)
      const rivals = world.resources("Application").filter((one) => `${one.spec.org}/${one.spec.app}` === path)
      const verdict =
        parentVerdict(`organisation ${org}`, any, (one) => isReady(world, one)) ??
        pathConflict(world, resource, rivals, path) ??
        ready(`application ${path}`)
      return concluded(verdict, { path })
    }),
  remove: (world, { state }) =>
    Effect.sync(() =>
      hasChildren(world.resources("Domain").filter((one) => `${one.spec.org}/${one.spec.app}` === state?.status.path))
    ),
  dependents: (world, { spec: { app, org } }) => [
    ...world.resources("Application").filter((one) => one.spec.org === org && one.spec.app === app),
    ...world.resources("Domain").filter((one) => one.spec.org === org && one.spec.app === app)
  ]
}
