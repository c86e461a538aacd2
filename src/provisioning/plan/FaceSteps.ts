/** What a change does to clients of a version though the table stays as it is for them, or nearly: said, and approved. */
import type { Draft } from "./Draft.ts"
import { step } from "./Plan.ts"

/** See the module. */
export const faceSteps = ({ gone, optional, required, steps, version }: Draft): void => {
  // the view is made without it, and the column stays for those who have it
  for (const name of gone) {
    const why = "clients that use it are refused"
    const does = `${name} is no longer a field of ${version}`
    steps.open.push(step("switch", does, [], "ACCESS EXCLUSIVE", { needsApproval: true, why }))
  }
  for (const { name } of required) {
    const versions = optional.get(name)
    if (versions === undefined) continue
    const why = "they are refused when they leave it out"
    const does = `hold clients of ${versions.join(", ")} to a value of ${name}`
    steps.open.push(step("switch", does, [], "ACCESS EXCLUSIVE", { needsApproval: true, why }))
  }
}
