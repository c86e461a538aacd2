/** Why a definition or a domain was not provisioned. Nothing was changed. */
import { Data } from "effect"
import type { Fault } from "../../domain/Fault.ts"

/** What stands in the way, for programs: the reason of the condition. */
export type RefusalReason =
  /** The definition contradicts itself; `faults` says where. */
  | "Invalid"
  /** The domain is not there. */
  | "ParentMissing"
  /** Another path has the name in Postgres. */
  | "NameConflict"
  /** Another resource has the path. */
  | "PathConflict"
  /** The mirror row belongs to another source (a cluster, another folder). */
  | "NotAdopted"
  /** The version whose records it is to show is not there. */
  | "VersionMissing"
  /** Another version of the same rows is being changed. */
  | "VersionEvolving"
  /** Versions that share its rows are there. */
  | "HasFaces"
  /** A change that is not made to a table that is there. */
  | "CannotEvolve"
  /** A legal hold is on the domain, and records would be lost. */
  | "LegalHold"
  /** A database that is not configured. */
  | "UnknownDatabase"
  /** Another definition refers to the one that is to go, or what is kept of one does. */
  | "Referenced"
  /** Something of that name is in the database, and it is not ours. */
  | "NotOurs"
  /** Records that are there contradict the definition. */
  | "DataConflict"

/** See the module. `faults` points into the resource. */
export class ProvisionRefused extends Data.TaggedError("ProvisionRefused")<{
  readonly reason: RefusalReason
  readonly message: string
  readonly faults: ReadonlyArray<Fault>
}> {}

/** A refusal in one sentence, with the faults behind it. */
export const refused = (reason: RefusalReason, message: string, faults: ReadonlyArray<Fault> = []): ProvisionRefused =>
  new ProvisionRefused({ reason, message, faults })

/** Faults as one message: every pointer with what is wrong there. */
export const faultsText = (faults: ReadonlyArray<Fault>): string =>
  faults.map(({ detail, pointer }) => (pointer === "" ? detail : `${pointer}: ${detail}`)).join("; ")
