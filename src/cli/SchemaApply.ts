/** `velocity schema apply`: manifests made what they say, once, where no operator is at work. */
import { Console, Effect } from "effect"
import { Command } from "effect/cli"
import * as Applied from "../operator/Applied.ts"
import { isSound, renderChange } from "../operator/state/OperatorStatus.ts"
import type { ResourceState } from "../operator/state/ResourceStatus.ts"
import { fileFlag, soundOnly } from "./ManifestFiles.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { document, outputFlag } from "./Output.ts"
import { failed } from "./Settings.ts"

/** As far as it is done here: who serves it is for the API's replicas to say, of which there may be none. */
const asProvisioned = (state: ResourceState): ResourceState => {
  const provisioned = state.conditions.find((one) => one.type === "Provisioned")
  if (provisioned === undefined) return state
  const others = state.conditions.filter((one) => one.type !== "Ready")
  return { ...state, conditions: [{ ...provisioned, type: "Ready" }, ...others] }
}

const refusals = new Set(["AtWork", "ForeignInstallation"])

export const apply = Command.make(
  "apply",
  { files: fileFlag, url: operatorUrlFlag, output: outputFlag },
  Effect.fnUntraced(function* ({ files, output, url }) {
    const located = yield* soundOnly(files)
    if (located.length === 0) return yield* failed("no manifests of velocity.sh")
    const states = yield* withOperator(url, Effect.scoped(Applied.apply(located.map((one) => one.resource)))).pipe(
      Effect.mapError((error) => (refusals.has(error._tag) ? failed(error.message) : unreachable(error)))
    )
    if (output === "table") {
      for (const state of states) yield* Console.log(renderChange({ _tag: "Resource", state: asProvisioned(state) }))
    } else yield* Console.log(document(output, states))
    const waiting = states.filter((one) => !isSound(one)).length
    if (waiting > 0) return yield* failed(`${waiting} of ${states.length} are not what they say; see above`)
  })
).pipe(
  Command.withDescription("Make manifests what they say, once, where no operator is at work; deletes nothing"),
  Command.withExamples([
    {
      command: "velocity schema apply -f order.yaml",
      description: "0 all is as it says, 1 something waits or is refused; an operator's folder must hold the file too"
    }
  ])
)
