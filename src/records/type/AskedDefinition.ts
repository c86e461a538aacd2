/**
 * A definition that somebody asks about and has not applied: the manifest that `kubectl apply` would take, whose metadata may
 * be left out, and everything that is wrong with it before a table is looked at.
 */
import { admit } from "../../domain/Admission.ts"
import { type Fault, fault } from "../../domain/Fault.ts"
import { decodeResource, type ResourceOf } from "../../domain/Resource.ts"
import { backfillFaults, ruleFaults } from "./Rules.ts"

type Definition = ResourceOf<"SchemaDefinition">

/** What a resource is called that was given no name; a plan has no name in it. */
const unnamed = { name: "unnamed" }

/** The definition, or its faults, by pointers into the manifest. */
export const askedDefinition = (
  manifest: Readonly<Record<string, unknown>>
): { readonly definition: Definition } | { readonly faults: ReadonlyArray<Fault> } => {
  const decoded = decodeResource({ metadata: unnamed, ...manifest })
  if ("faults" in decoded) return decoded
  const { resource } = decoded
  if (resource.kind !== "SchemaDefinition") {
    return { faults: [fault(["kind"], "invalid", "a plan is of a SchemaDefinition")] }
  }
  const { spec } = resource
  const faults = [...admit(spec), ...ruleFaults(spec), ...backfillFaults(spec)].map((one) => ({
    ...one,
    pointer: `/spec${one.pointer}`
  }))
  return faults.length > 0 ? { faults } : { definition: resource }
}
