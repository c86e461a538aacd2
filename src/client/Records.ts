/**
 * The records of one record type, as the client has them: each operation of the contract, pages as a stream, bodies
 * decoded by the record type's schema where one is given.
 */
import { Effect, Schema, Stream } from "effect"
import type { HttpClientResponse } from "effect/http"
import type { HttpApiClient } from "effect/http-api"
import type { ErasedBody } from "../api/Privacy.ts"
import type { VelocityApi } from "../api/VelocityApi.ts"
import { ExactNumber, type ExactObject, type ExactValue, isExactObject, stringify } from "../domain/ExactJson.ts"
import { parsePath } from "../domain/Names.ts"
import type { Where } from "../domain/Query.ts"
import { type ClientError, clientError } from "./ApiProblem.ts"

type Api = HttpApiClient.ForApi<typeof VelocityApi>

/** How a record comes and goes. `Schema.Struct({ ...SystemColumns, name: Schema.String, area: Decimal })`, for example. */
export type Decoder<A> = Schema.Codec<A, unknown>

/** A query as a tree. `sort` is `["-amount", "po_number"]`. */
export interface RecordQuery {
  readonly where?: Where
  readonly sort?: ReadonlyArray<string>
  readonly select?: ReadonlyArray<string>
  readonly include?: ReadonlyArray<string>
  /** 1 to 1,000; 50 where it is left out. */
  readonly limit?: number
  readonly cursor?: string
  readonly count?: "exact" | "estimated"
  readonly deleted?: "only" | "with"
}

/** A record, and what its version is called. */
export interface Versioned<A> {
  readonly record: A
  /** To be sent back as `ifMatch`. */
  readonly etag: string | undefined
}

/** A page of records. */
export interface Page<A> {
  readonly items: ReadonlyArray<A>
  /** Where the next one begins; undefined on the last. */
  readonly next: string | undefined
  readonly count: ExactNumber | undefined
}

/** What of a record is asked for. */
export interface ReadOptions {
  readonly select?: ReadonlyArray<string>
  readonly include?: ReadonlyArray<string>
}

/** How a write is made. */
export interface WriteOptions {
  /** The ETag of the version that was seen; another is the problem `stale`. */
  readonly ifMatch?: string
  /** The same key for the same request: it is done once, however often it is sent. */
  readonly idempotencyKey?: string
  /** Does everything and then undoes it. */
  readonly dryRun?: boolean
  readonly reason?: string
  readonly ticket?: string
}

/** What an import of many made. */
export interface Imported {
  readonly created: number
  readonly first_id: string | undefined
  readonly last_id: string | undefined
}

type Call<A> = Effect.Effect<A, ClientError>

/** Why a record is erased. */
export interface EraseOptions {
  readonly reason: string
  readonly ticket?: string
  /** Does everything and then undoes it. */
  readonly dryRun?: boolean
}

/** What was erased, and the audit entry that says so. */
export type Erased = typeof ErasedBody.Type

/** See the module. Every call fails with `ApiProblem` where the API refuses. */
export interface RecordsClient<A> {
  readonly path: string
  readonly get: (id: string, options?: ReadOptions) => Call<Versioned<A>>
  /** One page. */
  readonly list: (query?: RecordQuery) => Call<Page<A>>
  /** Every record of a query, page by page as they are taken. */
  readonly all: (query?: Omit<RecordQuery, "cursor">) => Stream.Stream<A, ClientError>
  readonly create: (record: ExactObject, options?: Omit<WriteOptions, "ifMatch">) => Call<Versioned<A>>
  /** Many, all or nothing, in one body of at most 10 MiB. */
  readonly createMany: (records: ReadonlyArray<ExactObject>, options?: Omit<WriteOptions, "ifMatch">) => Call<Imported>
  /** Any number of them, as they come; all or nothing. */
  readonly import: <E>(
    records: Stream.Stream<ExactObject, E>,
    options?: Omit<WriteOptions, "ifMatch">
  ) => Call<Imported>
  /** Changes the fields that are named (RFC 7396). */
  readonly patch: (id: string, fields: ExactObject, options?: WriteOptions) => Call<Versioned<A>>
  /** RFC 6902. */
  readonly jsonPatch: (id: string, patch: ReadonlyArray<ExactObject>, options?: WriteOptions) => Call<Versioned<A>>
  readonly put: (id: string, record: ExactObject, options?: WriteOptions) => Call<Versioned<A>>
  readonly delete: (id: string, options?: WriteOptions) => Call<void>
  readonly restore: (id: string, options?: WriteOptions) => Call<Versioned<A>>
  /** Removes its contents for good; for a token of the platform's strategy with the role platform-privacy. */
  readonly erase: (id: string, options: EraseOptions) => Call<Erased>
  /** What `verifyRecordProof` verifies; the problem `not_sealed` until a checkpoint covers it. */
  readonly proof: (id: string) => Call<ExactObject>
  /** The record's past, newest first, as `{event_id, version, op, occurred_at, actor, changed, state, …}`. */
  readonly history: (id: string) => Stream.Stream<ExactObject, ClientError>
}

/** How bodies become records: exactly as they came, or by a schema. */
export interface Shape<A> {
  readonly Row: A
  readonly decode: (body: ExactObject) => Effect.Effect<A, Schema.SchemaError>
}

export const exactly = (): Shape<ExactObject> => ({ Row: {}, decode: Effect.succeed })

export const typed = <A>(schema: Decoder<A>): Shape<A> => ({
  Row: undefined as A,
  decode: Schema.decodeUnknownEffect(schema)
})

const optional = <K extends string>(key: K, value: string | undefined): { readonly [P in K]?: string } =>
  value === undefined ? {} : ({ [key]: value } as { readonly [P in K]: string })

const headersOf = (options: WriteOptions = {}) => ({
  ...optional("if-match", options.ifMatch),
  ...optional("idempotency-key", options.idempotencyKey),
  ...optional("prefer", options.dryRun === true ? "tx=rollback" : undefined),
  ...optional("x-velocity-reason", options.reason),
  ...optional("x-velocity-ticket", options.ticket)
})

const bodyOf = ({ limit, ...query }: RecordQuery): ExactObject => ({
  ...(query as ExactObject),
  ...(limit === undefined ? {} : { limit: new ExactNumber(String(limit)) })
})

const named = (options: ReadOptions = {}): Record<string, string> => ({
  ...optional("select", options.select?.join(",")),
  ...optional("include", options.include?.join(","))
})

const textOf = (value: ExactValue | undefined): string | undefined => (typeof value === "string" ? value : undefined)
const numberOf = (value: ExactValue | undefined): ExactNumber | undefined =>
  value instanceof ExactNumber ? value : undefined
const rowsOf = (value: ExactValue | undefined): ReadonlyArray<ExactObject> =>
  Array.isArray(value) ? (value as ReadonlyArray<ExactValue>).filter(isExactObject) : []

const imported = (body: ExactObject): Imported => ({
  created: numberOf(body.created)?.toNumber() ?? 0,
  first_id: textOf(body.first_id),
  last_id: textOf(body.last_id)
})

const lines = new TextEncoder()

/** Makes it; a path that names no record type is a defect. */
export const makeRecords = <A>(api: Api, path: string, shape: Shape<A>): RecordsClient<A> => {
  const params = parsePath(path)
  if (params === undefined) throw new TypeError(`not a record type's path (org/app/domain/object/version): ${path}`)
  const { records } = api

  type Answered = readonly [unknown, HttpClientResponse.HttpClientResponse]
  const versioned = <E>(call: Effect.Effect<Answered, E>): Call<Versioned<A>> =>
    call.pipe(
      Effect.mapError((error) => clientError(error) as ClientError),
      Effect.flatMap(([body, response]) =>
        Effect.map(shape.decode(body as ExactObject), (record) => ({ record, etag: response.headers.etag }))
      )
    )
  const plain = <B, E>(call: Effect.Effect<B, E>): Call<B> =>
    Effect.mapError(call, (error) => clientError(error) as ClientError)

  const list = (query: RecordQuery = {}): Call<Page<A>> =>
    plain(records.query({ params, headers: {}, payload: bodyOf(query) })).pipe(
      Effect.flatMap((body) =>
        Effect.map(Effect.forEach(rowsOf(body.items), shape.decode), (items) => ({
          items,
          next: textOf(body.next_cursor),
          count: numberOf(body.count)
        }))
      )
    )

  const paged = <B>(
    page: (cursor: string | undefined) => Call<{ items: ReadonlyArray<B>; next: string | undefined }>
  ) =>
    Stream.flattenIterable(
      Stream.unfold({ cursor: undefined as string | undefined, done: false }, ({ cursor, done }) =>
        done
          ? Effect.succeed(undefined)
          : Effect.map(page(cursor), ({ items, next }) => [items, { cursor: next, done: next === undefined }] as const)
      )
    )

  const both = { responseMode: "decoded-and-response" } as const
  return {
    path,
    list,
    get: (id, options) =>
      versioned(records.get({ params: { ...params, id }, query: named(options), headers: {}, ...both })),
    all: (query = {}) => paged((cursor) => list(cursor === undefined ? query : { ...query, cursor })),
    create: (record, options) =>
      versioned(records.create({ params, headers: headersOf(options), payload: record, ...both })),
    createMany: (many, options) =>
      Effect.map(plain(records.create({ params, headers: headersOf(options), payload: many })), (body) =>
        imported(body as ExactObject)
      ),
    import: (many, options) =>
      Effect.map(
        plain(
          records.create({
            params,
            headers: headersOf(options),
            payload: Stream.map(many, (record) => lines.encode(`${stringify(record)}\n`))
          })
        ),
        (body) => imported(body as ExactObject)
      ),
    patch: (id, fields, options) =>
      versioned(records.patch({ params: { ...params, id }, headers: headersOf(options), payload: fields, ...both })),
    jsonPatch: (id, patch, options) =>
      versioned(records.patch({ params: { ...params, id }, headers: headersOf(options), payload: patch, ...both })),
    put: (id, record, options) =>
      versioned(records.put({ params: { ...params, id }, headers: headersOf(options), payload: record, ...both })),
    delete: (id, options) =>
      Effect.asVoid(plain(records.delete({ params: { ...params, id }, headers: headersOf(options) }))),
    restore: (id, options) =>
      versioned(records.restore({ params: { ...params, id }, headers: headersOf(options), ...both })),
    proof: (id) => plain(records.proof({ params: { ...params, id } })),
    erase: (id, { dryRun, reason, ticket }) =>
      plain(
        api.privacy.erase({
          params: { ...params, id },
          headers: optional("prefer", dryRun === true ? "tx=rollback" : undefined),
          payload: { reason, ...optional("ticket", ticket) }
        })
      ),
    history: (id) =>
      paged((cursor) =>
        Effect.map(
          plain(
            records.history({ params: { ...params, id }, query: cursor === undefined ? {} : { cursor }, headers: {} })
          ),
          (body) => ({ items: rowsOf(body.items), next: textOf(body.next_cursor) })
        )
      )
  }
}
