/**
 * Writing records: create, put, patch, remove, restore, and many at once.
 *
 * A write whose inputs are known is one network write: BEGIN, the caller's role and context, the idempotency key, the one
 * statement that writes row and history event, the audit entry, COMMIT. What needs the row first (rules on a change, a
 * JSON Patch, a merge patch that reaches into a json field) takes two, under the row's lock.
 *
 * Order of refusals: operation (403), headers (400), the definition's demands (400, 428), body (403, 422), idempotency key
 * (409, 422), then what depends on the row: 404, 412, 409, 403, 422. A write that breaks rules leaves at most one audit
 * entry `failed`, a dry run always one `dry_run`; 401 and 403 are entered by the server.
 */
import * as Context from "effect/Context"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { ExactValue } from "../domain/ExactJson.ts"
import { uuidSource } from "../domain/Uuid.ts"
import { apiConnections } from "../postgres/PgSettings.ts"
import { TenantTx } from "../postgres/TenantTx.ts"
import { type BulkWrite, makeBulk, maxRecordsConfig } from "./bulk/Bulk.ts"
import { makeImportPlaces } from "./bulk/ImportPlaces.ts"
import { Denials } from "./write/Denials.ts"
import { makeOutcomes } from "./write/Outcomes.ts"
import { Unknowns } from "./write/Unknowns.ts"
import { makeOne, type Write } from "./write/WriteOne.ts"

export type { Answer } from "./type/Answer.ts"
export type { WriteRequest } from "./write/WriteType.ts"

/** See the module. Every call fails with `Problem`, or with `StaleDefinition` when nothing was done. */
export class WriteRecords extends Context.Service<
  WriteRecords,
  {
    /** POST of one record: 201, `Location`, `ETag`. */
    readonly create: Write<{ readonly body: ExactValue }>
    /** PUT: replaces the fields that the caller may both read and write. */
    readonly put: Write<{ readonly id: string; readonly body: ExactValue }>
    /** PATCH: a merge patch (an object) or a JSON Patch (an array). */
    readonly patch: Write<{ readonly id: string; readonly body: ExactValue; readonly format: "merge" | "json-patch" }>
    /** DELETE, softly: 204, or 200 with `Prefer: return=representation`. */
    readonly remove: Write<{ readonly id: string }>
    /** POST …/restore. */
    readonly restore: Write<{ readonly id: string }>
    /** POST of a JSON array: all or nothing, or with `Prefer: handling=lenient` what is good. */
    readonly bulkJson: BulkWrite["json"]
    /** POST of an NDJSON stream, in flat memory. Never fails with `StaleDefinition`, since a stream comes only once. */
    readonly bulkNdjson: BulkWrite["ndjson"]
  }
>()("velocity/records/WriteRecords") {
  static readonly layerNoDeps = Layer.effect(
    WriteRecords,
    Effect.gen(function* () {
      const parts = {
        tenant: yield* TenantTx,
        outcomes: yield* makeOutcomes,
        newId: uuidSource(Date.now, (bytes) => {
          crypto.getRandomValues(bytes)
        })
      }
      const bulk = makeBulk(parts, {
        maxRecords: yield* maxRecordsConfig,
        places: makeImportPlaces(yield* apiConnections)
      })
      return WriteRecords.of({ ...makeOne(parts), bulkJson: bulk.json, bulkNdjson: bulk.ndjson })
    })
  )
  /** Over `TenantTx.layer`, `Denials.layer` and `Unknowns.layer`. */
  static readonly layer = this.layerNoDeps.pipe(
    Layer.provide(Layer.mergeAll(TenantTx.layer, Denials.layer, Unknowns.layer))
  )
}
