/**
 * The records of every record type, under `/api/{org}/{app}/{domain}/{object}/{version}`.
 *
 * What a record looks like is known only from its definition, so bodies are exact JSON here; the record type's own
 * decoder judges them. Parameters of the query are let through as they came: their grammar is `domain/Query`'s, and each
 * fault is answered with its place.
 */
import { Schema } from "effect"
import { HttpApiEndpoint, HttpApiGroup, HttpApiSchema, OpenApi } from "effect/http-api"
import { Bearer } from "./Bearer.ts"
import { ExactArrayBody, ExactObjectBody, json, jsonPatch, mergePatch, ndjsonContentType } from "./ExactBody.ts"
import { answering, type Parameter, taking } from "./OpenApiNotes.ts"
import { problemsWith, readStatuses, writeStatuses } from "./ProblemBody.ts"

/** The path of a record type. */
export const typeParams = {
  org: Schema.String,
  app: Schema.String,
  domain: Schema.String,
  object: Schema.String,
  version: Schema.String
}
/** The path of one record. */
export const recordParams = { ...typeParams, id: Schema.String.annotate({ description: "A UUID in lower case" }) }

const collection = "/api/:org/:app/:domain/:object/:version"
const record = `${collection}/:id` as const

/** Any parameters; one that is repeated comes as an array. */
export const QueryParams = Schema.Record(Schema.String, Schema.Union([Schema.String, Schema.Array(Schema.String)]))

const header = Schema.optionalKey(Schema.String)
const readHeaders = { "if-none-match": header, prefer: header }
const writeHeaders = {
  "if-match": header,
  "idempotency-key": header,
  prefer: header,
  "x-velocity-reason": header,
  "x-velocity-ticket": header
}

const describe = (summary: string, description: string, parameters: ReadonlyArray<Parameter> = []) =>
  OpenApi.annotations({
    summary,
    description,
    transform: (operation) => answering(recordHeaders, taking(parameters, operation))
  })

const recordHeaders = {
  ETag: "The row's version, and a tag of what the caller sees of it",
  Location: "Of a record that was made",
  Link: "RFC 8288, rel=next, where there is another page; rel=successor-version of a version that is deprecated",
  Deprecation: "RFC 9745: since when this version is deprecated",
  Sunset: "RFC 8594: when this version ends, and is 410",
  "X-Request-Id": "Names the request in logs, audit and history",
  "Preference-Applied": "RFC 7240"
}
const include = { name: "include", description: "References to show as records: supplier, supplier.country" }
const select = { name: "select", description: "Fields to show: a,b,supplier.name" }
const paging = [
  { name: "limit", description: "1 to 1000; 50 where it is left out" },
  { name: "cursor", description: "next_cursor of the page before" }
]
const listing: ReadonlyArray<Parameter> = [
  {
    name: "filter",
    description:
      "filter[field][op]=value; op is eq, neq, lt, lte, gt, gte, in, like, ilike, contains, is_null or between, as the field's type allows; several are ANDed. With curl use -g.",
    schema: { type: "object", additionalProperties: { type: "object", additionalProperties: { type: "string" } } },
    style: "deepObject"
  },
  { name: "sort", description: "-amount,po_number; without it, the order of ids" },
  select,
  include,
  ...paging,
  { name: "count", description: "exact or estimated" },
  { name: "deleted", description: "only or with, for roles that may restore" }
]

const page = ExactObjectBody.annotate({ description: "{items, next_cursor, count?}" }).pipe(json)
const one = ExactObjectBody.annotate({ description: "The record; ETag says its version" }).pipe(json)

const list = HttpApiEndpoint.get("list", collection, {
  params: typeParams,
  query: QueryParams,
  headers: { prefer: header },
  success: page,
  error: problemsWith(...readStatuses)
}).annotateMerge(
  describe(
    "List records",
    "filter[field][op]=value, sort=-amount,po_number, select=a,b, include=supplier, limit (50, at most 1000), cursor, count=exact|estimated, deleted=only|with. Without sort, in the order of ids.",
    listing
  )
)

const query = HttpApiEndpoint.post("query", `${collection}/query`, {
  params: typeParams,
  headers: { prefer: header },
  payload: ExactObjectBody.pipe(json),
  success: page,
  error: problemsWith(...readStatuses)
}).annotateMerge(
  describe(
    "List records by a tree",
    "The same query as JSON: {where, sort, select, include, limit, cursor, count, deleted}; a leaf of where is {field, op, value}, its nodes are {and: []}, {or: []}, {not: {}}."
  )
)

const ndjson = HttpApiSchema.StreamUint8Array({ contentType: ndjsonContentType })

const create = HttpApiEndpoint.post("create", collection, {
  params: typeParams,
  headers: writeHeaders,
  payload: [ExactObjectBody.pipe(json), ExactArrayBody.pipe(json), ndjson],
  success: [
    ExactObjectBody.annotate({ description: "The record, or {created, first_id, last_id} for many" }).pipe(
      HttpApiSchema.status(201),
      json
    ),
    ExactObjectBody.annotate({ description: "A replayed or rolled-back request's answer" }).pipe(json),
    HttpApiSchema.StreamUint8Array({ contentType: ndjsonContentType })
  ],
  error: problemsWith(...writeStatuses)
}).annotateMerge(
  describe(
    "Create one record, or many",
    "An object is one record; an array, or a stream of NDJSON, is many, all or nothing. Prefer: handling=lenient commits in batches and answers one line of NDJSON per record; Prefer: tx=rollback does everything and then undoes it."
  )
)

const get = HttpApiEndpoint.get("get", record, {
  params: recordParams,
  query: QueryParams,
  headers: readHeaders,
  success: [one, HttpApiSchema.Empty(304)],
  error: problemsWith(...readStatuses)
}).annotateMerge(describe("Read one record", "If-None-Match answers 304.", [select, include]))

const patch = HttpApiEndpoint.patch("patch", record, {
  params: recordParams,
  headers: writeHeaders,
  payload: [ExactObjectBody.pipe(mergePatch), ExactArrayBody.pipe(jsonPatch), ExactObjectBody.pipe(json)],
  success: one,
  error: problemsWith(...writeStatuses)
}).annotateMerge(
  describe("Change fields of a record", "RFC 7396 (also as plain JSON) or RFC 6902; If-Match compares the version.")
)

const put = HttpApiEndpoint.put("put", record, {
  params: recordParams,
  headers: writeHeaders,
  payload: ExactObjectBody.pipe(json),
  success: one,
  error: problemsWith(...writeStatuses)
}).annotateMerge(
  describe("Replace a record", "Replaces the fields that you may both read and write; the others keep their value.")
)

const remove = HttpApiEndpoint.delete("delete", record, {
  params: recordParams,
  headers: writeHeaders,
  success: [HttpApiSchema.NoContent, one],
  error: problemsWith(...writeStatuses)
}).annotateMerge(describe("Delete a record", "Softly: it can be restored, and unique values are free again."))

const restore = HttpApiEndpoint.post("restore", `${record}/restore`, {
  params: recordParams,
  headers: writeHeaders,
  success: one,
  error: problemsWith(...writeStatuses)
}).annotateMerge(describe("Restore a deleted record", "Refused where a unique value is taken or a reference is gone."))

const history = HttpApiEndpoint.get("history", `${record}/history`, {
  params: recordParams,
  query: QueryParams,
  headers: { prefer: header },
  success: page,
  error: problemsWith(...readStatuses)
}).annotateMerge(
  describe("Read a record's past", "Newest first. Judged by today's rights on the state being shown.", paging)
)

const proof = HttpApiEndpoint.get("proof", `${record}/proof`, {
  params: recordParams,
  success: ExactObjectBody.annotate({
    description: "{record, fields, batch?, entry, proof}: verified by velocity audit verify-proof"
  }).pipe(json),
  error: problemsWith(...readStatuses, 409)
}).annotateMerge(
  describe(
    "Prove a record",
    "For roles that may read the record and its history. Its present state as you see it (of other fields the hash alone), the audit entry that commits to it, with all of its columns, and the proof that the entry is in the signed tree. 409 not_sealed where no checkpoint covers it yet: ask again in some seconds."
  )
)

/** See the module. */
export const records = HttpApiGroup.make("records")
  .add(list, query, create, get, patch, put, remove, restore, history, proof)
  .middleware(Bearer)
  .annotateMerge(OpenApi.annotations({ title: "Records", description: "The records of every record type" }))
