/**
 * The condition `Serving` of a definition, and what becomes of `Ready` by it: Ready is Provisioned and Serving (fine print
 * 10). Pure.
 *
 * A message says nothing that changes while all is well, such as how many replicas there are: each change is a write for
 * each definition.
 */
import type { Condition } from "../../domain/Resource.ts"
import { type ServingState, someOf } from "../../provisioning/ServingState.ts"

/** What is said of serving. */
export interface Serving {
  readonly status: Condition["status"]
  readonly reason: "Acknowledged" | "Acknowledging" | "NoReplica" | "NotServed" | "ReplicaProblem"
  readonly message: string
  /** The resource's generation that is served, where it is not the one that was judged. */
  readonly generation?: number | undefined
}

const unserved: Serving = { status: "False", reason: "NotServed", message: "nothing is served yet" }

/** Judges what replicas acknowledged of a definition. */
export const judge = (state: ServingState | undefined): Serving => {
  if (state === undefined || !state.served) return unserved
  const { alive, behind, generation, problems, serving } = state
  const of = `generation ${generation}`
  if (alive === 0) return { status: "Unknown", reason: "NoReplica", message: `no API replica is alive to serve ${of}` }
  if (problems.length > 0) {
    const told = problems.slice(0, 3).map(({ problem, replica }) => `${replica}: ${problem}`)
    return { status: "False", reason: "ReplicaProblem", message: `${of} is not served; ${told.join("; ")}` }
  }
  if (behind.length > 0) {
    return { status: "False", reason: "Acknowledging", message: `waits for ${someOf(behind)} to serve ${of}` }
  }
  // all that are alive have only just started
  if (serving === 0) {
    return { status: "False", reason: "Acknowledging", message: `waits for the API's replicas to serve ${of}` }
  }
  return { status: "True", reason: "Acknowledged", message: `every API replica that is alive serves ${of}` }
}
