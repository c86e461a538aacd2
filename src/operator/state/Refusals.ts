/** What a refusal of provisioning means for a resource. */
import { faultsText, type ProvisionRefused } from "../../provisioning/table/ProvisionRefused.ts"
import { stalled, type Verdict, waiting } from "./Conditions.ts"

/** Reasons that something else can end, without a change of the resource. */
const passing = new Set(["ParentMissing", "Referenced", "VersionMissing", "VersionEvolving", "HasFaces", "LegalHold"])

export const verdictOf = ({ faults, message, reason }: ProvisionRefused): Verdict => {
  const text = faults.length === 0 ? message : `${message}: ${faultsText(faults)}`
  return passing.has(reason) ? waiting(reason, text) : stalled(reason, text)
}
