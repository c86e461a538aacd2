/** What the package offers as `velocity/client`. */
export { ExactNumber, type ExactObject, type ExactValue, parse, stringify } from "../domain/ExactJson.ts"
export type { Where } from "../domain/Query.ts"
export { ApiProblem, type ApiProblemCode, type ClientError } from "./ApiProblem.ts"
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
