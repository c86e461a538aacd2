/**
 * Everything the API can answer with instead of what was asked: RFC 9457 problems, one closed catalogue.
 *
 * A code is stable and is what programs match; its type is `https://velocity.sh/problems/{code}`; titles and details are
 * for people and may change. No problem carries a message of Postgres's, or a value that its reader may not see.
 * docs/problems.md is made of this catalogue.
 */
import { Data } from "effect"
import { type Fault, requestFaults } from "./Fault.ts"

interface Entry {
  readonly status: number
  readonly title: string
  /** When it happens and what to do, for docs/problems.md. */
  readonly doc: string
}

const entry = (status: number, title: string, doc: string): Entry => ({ status, title, doc })

export const problems = {
  // 400: the request itself cannot be read
  malformed_json: entry(
    400,
    "The body is not JSON",
    "It does not parse (RFC 8259), has a key twice, or is nested deeper than 32."
  ),
  malformed_id: entry(400, "Not an id", "Ids are UUIDs in lower case."),
  malformed_query: entry(
    400,
    "The query cannot be read",
    "A parameter is unknown, repeated, or not of the form the grammar asks for; `errors` names each."
  ),
  malformed_header: entry(
    400,
    "A header cannot be read",
    "If-Match, Prefer, Idempotency-Key or another header is not of its form."
  ),
  unknown_field: entry(400, "No such field", "The query names a field that the record type does not have."),
  unknown_operator: entry(
    400,
    "No such operator for this field",
    "The operator does not exist or does not fit the field's type."
  ),
  not_filterable: entry(
    400,
    "This field is not filterable",
    "Only a field that is filterable, indexed or unique in the definition can be filtered or sorted by."
  ),
  query_too_large: entry(
    400,
    "The query is too large",
    "At most 64 terms, 32 levels, 4 includes and 1,000 records a page."
  ),
  page_too_large: entry(
    400,
    "The page is too large",
    "The records of a page may have 64 MiB together. Ask for fewer with `limit`, or for fewer fields with `select`."
  ),
  cursor_invalid: entry(
    400,
    "Not a cursor of this query",
    "It was altered, cut, or made for another query or caller. Begin again without it."
  ),
  cursor_expired: entry(
    400,
    "The cursor has expired",
    "It is older than 24 hours, or the caller may no longer read what it was sorted by. Begin again without it."
  ),
  malformed_patch: entry(400, "Not a patch", "The body is not an RFC 7396 or RFC 6902 document."),
  reason_required: entry(
    400,
    "A reason is required",
    "This record type demands the header X-Velocity-Reason for this operation; an erasure always demands `reason` in its body."
  ),
  ticket_required: entry(
    400,
    "A ticket is required",
    "This record type demands the header X-Velocity-Ticket for this operation, or `ticket` in the body of an erasure."
  ),
  // 401
  token_missing: entry(
    401,
    "A token is required",
    "Send Authorization: Bearer with a JWT, or an API key in X-API-Key."
  ),
  token_malformed: entry(401, "The token cannot be read", "It is not a compact JWS with a JSON payload."),
  token_unsigned: entry(401, "The token is not signed", "alg none is never accepted."),
  token_expired: entry(401, "The token has expired", "Ask its issuer for a new one."),
  token_not_yet_valid: entry(401, "The token is not valid yet", "Its nbf lies in the future; compare the clocks."),
  token_issuer: entry(401, "The token's issuer is not trusted here", "No strategy of this domain trusts its iss."),
  token_audience: entry(401, "The token is for somebody else", "Its aud does not name this service."),
  token_algorithm: entry(
    401,
    "The token's algorithm is not allowed",
    "The strategy lists the algorithms that it accepts."
  ),
  token_key: entry(401, "The token's key is not known", "Its kid is none of the issuer's keys."),
  token_signature: entry(401, "The token's signature is wrong", "It was altered, or signed by another key."),
  token_claims: entry(401, "The token lacks a claim", "exp and the claim that names the actor are required."),
  key_malformed: entry(
    401,
    "The API key cannot be read",
    "A key is `vel_{environment}_` and 43 characters of base64url, in X-API-Key or behind `Authorization: ApiKey`. It may have been cut."
  ),
  key_environment: entry(
    401,
    "The API key is of another environment",
    "It was made for another installation, as its second part says."
  ),
  key_unknown: entry(401, "The API key is not known", "It was never in force here, or was revoked over 30 days ago."),
  key_revoked: entry(401, "The API key was revoked", "Take the key of the newest Secret, or ask for another one."),
  key_expired: entry(401, "The API key has expired", "Its end has come, or the overlap after its rotation."),
  key_address: entry(
    401,
    "The API key is not taken from this address",
    "Its ipAllowlist does not have the address that the request came from, which behind a proxy is the proxy's."
  ),
  key_domain: entry(401, "The API key is not one of the platform's", "It opens the domain that it was made for alone."),
  credentials_conflict: entry(
    401,
    "Two credentials",
    "The request has both Authorization and X-API-Key. Send one of the two."
  ),
  actor_revoked: entry(401, "This actor has been revoked", "Somebody took all access from this actor."),
  // 403
  operation_not_granted: entry(
    403,
    "None of your roles grants this operation",
    "Ask for a role that does; GET /api/me?path= tells what you have."
  ),
  platform_role_refused: entry(
    403,
    "A role that begins with platform- is not yours to give",
    "Such roles come only from the platform's own strategy and bindings."
  ),
  field_not_readable: entry(
    403,
    "A field cannot be read by you",
    "A value that the caller cannot read unmasked cannot be filtered, sorted, tested or copied."
  ),
  field_not_writable: entry(403, "A field cannot be written by you", "`errors` names it; leave it out."),
  row_outside_filter: entry(
    403,
    "The record would leave the rows you may see",
    "A write may not move a record out of the writer's own row filter."
  ),
  // 404, 405, 406, 408, 410
  not_found: entry(404, "Not found", "There is nothing here that you may see."),
  method_not_allowed: entry(405, "This method is not allowed here", "The header Allow lists those that are."),
  not_acceptable: entry(
    406,
    "No answer of the type asked for",
    "Answers are application/json or application/problem+json."
  ),
  request_timeout: entry(408, "The body did not come in time", "Send it again."),
  gone: entry(410, "This record type is no longer served", "Its definition was deleted; the data is kept."),
  sunset: entry(
    410,
    "This version has ended",
    "Its end was announced by the header Sunset. Link, rel=successor-version, names the version to move to, where there is one."
  ),
  // 409
  unique_conflict: entry(
    409,
    "The value is taken",
    "Another live record has it; `errors` names the fields, not the record."
  ),
  reference_not_found: entry(
    409,
    "The record referred to does not exist",
    "It is missing, deleted, or not yours to see."
  ),
  still_referenced: entry(409, "Other records refer to this one", "Delete or change them first."),
  held: entry(
    409,
    "A legal hold keeps this record",
    "While a hold on its domain is in force nothing of it is erased; the audit log tells who placed it and why."
  ),
  in_flight: entry(
    409,
    "The same request is being carried out",
    "A request with this Idempotency-Key has not ended; ask again in a moment."
  ),
  not_deleted: entry(409, "The record is not deleted", "Only a deleted record can be restored."),
  not_sealed: entry(
    409,
    "The entry is not sealed yet",
    "It becomes a leaf of the signed tree within seconds: ask again after Retry-After. An installation without an audit key seals nothing."
  ),
  write_conflict: entry(409, "Another write was faster", "Read the record again and repeat."),
  // 412 to 428
  stale: entry(412, "The record has changed", "If-Match names another version than the present one. Read it again."),
  expectation_failed: entry(417, "The expectation cannot be met", "Expect takes 100-continue and nothing else."),
  headers_too_large: entry(
    431,
    "The request line and headers are too large",
    "Together they may have 32 KiB. A long query can be sent as the body of POST …/query."
  ),
  payload_too_large: entry(
    413,
    "The body is too large",
    "A JSON body may have 10 MiB, an NDJSON record 1 MiB, an import 1,000,000 records."
  ),
  unsupported_media_type: entry(
    415,
    "The body is of the wrong type",
    "The header Accept-Post or Accept-Patch lists what is understood."
  ),
  invalid: entry(
    422,
    "The record breaks rules of its definition",
    "`errors` has every fault at once, each with a pointer and a code."
  ),
  definition_refused: entry(
    422,
    "The definition is refused",
    "It contradicts itself, or what is there: `errors` points into the manifest, and the detail begins with the reason that its condition would have."
  ),
  rule_error: entry(
    422,
    "A rule could not be judged",
    "A validation rule failed to run on this record, which counts as refused."
  ),
  idempotency_mismatch: entry(
    422,
    "The Idempotency-Key was used for another request",
    "Use a new key for a new request."
  ),
  idempotency_dry_run: entry(422, "An Idempotency-Key cannot be used with a dry run", "Leave out one of the two."),
  precondition_required: entry(
    428,
    "If-Match is required",
    "This record type takes no write that does not say which version it saw."
  ),
  // 429 to 503
  internal: entry(500, "Something is wrong on our side", "It is logged under the requestId."),
  unavailable: entry(
    503,
    "The database cannot be asked now",
    "It does not answer, or every connection is busy. Nothing was done. Repeat after Retry-After."
  ),
  busy: entry(503, "Too many imports or plans are under way", "Nothing was done. Repeat after Retry-After."),
  timeout: entry(503, "It took too long", "Nothing was done. Repeat, or ask for less."),
  lock_timeout: entry(503, "A lock did not come", "Nothing was done. Repeat after Retry-After."),
  commit_unknown: entry(
    503,
    "Whether it was done is not known",
    "The connection was lost during COMMIT. Read before repeating, or repeat with the same Idempotency-Key."
  ),
  dependency_unavailable: entry(
    503,
    "Something that is needed to decide does not answer",
    "The issuer's keys could not be read, so nobody is admitted. Repeat after Retry-After."
  ),
  no_operator: entry(
    503,
    "No operator has answered",
    "A plan is made by the operator, and none did in time: none is at work, or the domain's tables are large or being changed. Repeat after Retry-After, or ask the database itself: velocity schema plan --database-url."
  ),
  not_ready: entry(
    503,
    "Not ready",
    "Starting, stopping, or refusing to serve because the isolation check found a violation."
  )
} as const satisfies Record<string, Entry>

export type ProblemCode = keyof typeof problems

export interface ProblemOptions {
  readonly detail?: string | undefined
  readonly errors?: ReadonlyArray<Fault> | undefined
  /** Headers of the answer, e.g. Retry-After, WWW-Authenticate, Allow. */
  readonly headers?: Readonly<Record<string, string>> | undefined
  /** For the log, never for the caller. */
  readonly cause?: unknown
}

/** The failure of everything above the database: a refusal that its caller can act on. */
export class Problem extends Data.TaggedError("Problem")<
  ProblemOptions & { readonly code: ProblemCode; readonly status: number; readonly title: string }
> {
  override get message(): string {
    return `${this.code}: ${this.detail ?? this.title}`
  }
}

export const problem = (code: ProblemCode, options: ProblemOptions = {}): Problem => {
  const { status, title } = problems[code]
  return new Problem({ code, status, title, ...options })
}

export const problemType = (code: ProblemCode): string => `https://velocity.sh/problems/${code}`

/** The body of an `application/problem+json` answer (RFC 9457). */
export interface ProblemDocument {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: ProblemCode
  readonly detail?: string
  readonly requestId?: string
  readonly errors?: ReadonlyArray<Fault>
}

export const problemDocument = (failure: Problem, requestId?: string): ProblemDocument => ({
  type: problemType(failure.code),
  title: failure.title,
  status: failure.status,
  code: failure.code,
  ...(failure.detail === undefined ? {} : { detail: failure.detail }),
  ...(requestId === undefined ? {} : { requestId }),
  ...(failure.errors === undefined ? {} : { errors: failure.errors })
})

/** docs/problems.md, whole. */
export const problemsMarkdown = (): string =>
  [
    "# Problems",
    "",
    "Every answer that is not what was asked for is `application/problem+json` (RFC 9457) with a stable `code`; its `type` is `https://velocity.sh/problems/{code}`.",
    "This page is generated from `src/domain/Problem.ts` by `npm run generate`.",
    "",
    "| status | code | title | when, and what to do |",
    "| --- | --- | --- | --- |",
    ...Object.entries(problems).map(
      ([code, { doc, status, title }]) => `| ${status} | \`${code}\` | ${title} | ${doc} |`
    ),
    "",
    "## Members of `errors`",
    "",
    "`{pointer, code, detail}`: the pointer (RFC 6901) leads into the body, `/field`, or `/index/field` in bulk, or names a parameter of the query.",
    "All faults of a body are told at once; those of a query in two steps: what cannot be read, then what its record type does not have.",
    "",
    "| code | meaning |",
    "| --- | --- |",
    ...Object.entries(requestFaults).map(([code, doc]) => `| \`${code}\` | ${doc} |`),
    ""
  ].join("\n")
