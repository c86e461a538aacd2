/** What the package offers as `velocity/client`. */
export type { AuditEntry } from "../domain/AuditEntry.ts"
export {
  type EntryProofDocument,
  EntryProofFault,
  type EntryProofStep,
  type ExportedEntry,
  type ProvedEntry
} from "../domain/EntryProof.ts"
export { ExactNumber, type ExactObject, type ExactValue, parse, stringify } from "../domain/ExactJson.ts"
export { NoteKeyFault } from "../domain/NoteKey.ts"
export type { Where } from "../domain/Query.ts"
export { type ProvedRecord, type RecordProofDocument, RecordProofFault } from "../domain/RecordProof.ts"
export { ApiProblem, type ApiProblemCode, type ClientError } from "./ApiProblem.ts"
export { type VerifyOptions, verifyEntryProof, verifyRecordProof } from "./Evidence.ts"
export type {
  Erased,
  EraseOptions,
  Imported,
  Page,
  ReadOptions,
  RecordQuery,
  RecordsClient,
  Versioned,
  WriteOptions
} from "./Records.ts"
export { Count, Decimal, Exact, Integer, SystemColumns } from "./Values.ts"
export { type ClientOptions, make, type VelocityClient } from "./VelocityClient.ts"
