/** What the operator tells of its work: what `velocity dev` prints, and what a test waits for. */
import { Context, type Effect, type Stream } from "effect"
import type { Superseded } from "./Fence.ts"
import { type ManifestProblem, renderProblem } from "./Manifests.ts"
import type { ResourceState } from "./ResourceStatus.ts"

/** Something new about a resource or a manifest. */
export type StatusChange =
  | { readonly _tag: "Resource"; readonly state: ResourceState }
  | { readonly _tag: "Removed"; readonly identity: string }
  | { readonly _tag: "Problem"; readonly problem: ManifestProblem }
  | { readonly _tag: "Failure"; readonly identity: string; readonly message: string }

/** Whether it is what its manifest says, or on its way there. */
export const isSound = ({ conditions }: ResourceState): boolean =>
  conditions.some((one) => one.type === "Ready" && one.status !== "False")

/** Whether its manifest is what is wrong. */
export const isManifestInvalid = ({ conditions }: ResourceState): boolean =>
  conditions.some((one) => one.type === "Stalled" && one.status === "True" && one.reason === "ManifestInvalid")

/** One line for a terminal. */
export const renderChange = (change: StatusChange): string => {
  switch (change._tag) {
    case "Removed":
      return `- ${change.identity} is gone`
    case "Problem":
      return `! ${renderProblem(change.problem)}`
    case "Failure":
      return `! ${change.identity}: ${change.message}; it is tried again`
    case "Resource": {
      const { conditions, identity } = change.state
      const stalled = conditions.find((one) => one.type === "Stalled" && one.status === "True")
      const said = stalled ?? conditions.find((one) => one.type === "Ready")
      const mark = stalled !== undefined ? "!" : said?.status === "True" ? "+" : "…"
      return `${mark} ${identity} ${said?.reason ?? ""}: ${said?.message ?? ""}`
    }
  }
}

/** See the module. */
export class OperatorStatus extends Context.Service<
  OperatorStatus,
  {
    /** Waits until everything that was there at the start has been reconciled once. */
    readonly settled: Effect.Effect<void>
    /** Looks at the source now, and waits until nothing stands in the queue or is at work. */
    readonly look: Effect.Effect<void>
    /** One element for each change, from when it is run on. */
    readonly changes: Stream.Stream<StatusChange>
    readonly resources: () => ReadonlyArray<ResourceState>
    readonly problems: () => ReadonlyArray<ManifestProblem>
    /** Never succeeds; fails when another operator has taken over and this one has stopped. */
    readonly superseded: Effect.Effect<never, Superseded>
  }
>()("velocity/operator/OperatorStatus") {}
