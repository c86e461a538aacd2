/**
 * The typed client, made of the same contract as the server.
 *
 * It runs wherever an `HttpClient` does (`FetchHttpClient.layer` in a browser). Numbers stay exact: without a schema a
 * record is `ExactObject`, with one it is what the schema says, its number fields by `Values.Decimal` and `Integer`.
 *
 * ```ts
 * const velocity = yield* VelocityClient.make({ baseUrl: "http://127.0.0.1:8080", token })
 * const country = velocity.records("acme/geo/atlas/country/v1")
 * const { record, etag } = yield* country.get(id)
 * ```
 */
import { Effect, Redacted, Stream } from "effect"
import { HttpClient, HttpClientRequest } from "effect/http"
import { HttpApiClient, HttpApiMiddleware } from "effect/http-api"
import { Bearer } from "../api/Bearer.ts"
import { VelocityApi } from "../api/VelocityApi.ts"
import type { ExactObject } from "../domain/ExactJson.ts"
import { clientError } from "./ApiProblem.ts"
import { type Decoder, exactly, makeRecords, type RecordsClient, typed } from "./Records.ts"

/** How to reach an API, and as whom. */
export interface ClientOptions {
  /** `https://velocity.example`, without `/api`. */
  readonly baseUrl: string
  /** The bearer token, or how to get one: asked for before each request, so that it can be renewed. */
  readonly token: Redacted.Redacted | Effect.Effect<Redacted.Redacted>
}

const bearing = (token: ClientOptions["token"]) =>
  HttpApiMiddleware.layerClient(
    Bearer,
    Effect.fnUntraced(function* ({ next, request }) {
      const held = Effect.isEffect(token) ? yield* token : token
      return yield* next(HttpClientRequest.bearerToken(request, Redacted.value(held)))
    })
  )

/** Makes a client. */
export const make = Effect.fnUntraced(function* (options: ClientOptions) {
  const http = yield* HttpClient.HttpClient
  const api = yield* HttpApiClient.makeWith(VelocityApi, { httpClient: http, baseUrl: options.baseUrl }).pipe(
    Effect.provide(bearing(options.token))
  )

  /** A list of the platform as a stream over all its pages. */
  const paged = <A, E>(
    page: (
      cursor: string | undefined
    ) => Effect.Effect<{ readonly items: ReadonlyArray<A>; readonly next_cursor: string | null }, E>
  ) =>
    Stream.flattenIterable(
      Stream.unfold<string | null | undefined, ReadonlyArray<A>, E, never>(undefined, (cursor) =>
        cursor === null
          ? Effect.succeed(undefined)
          : Effect.map(page(cursor), ({ items, next_cursor }) => [items, next_cursor] as const)
      )
    )

  type Query<F extends (request: never) => unknown> = Parameters<F>[0] extends { readonly query: infer Q } ? Q : never
  const continuing = <Q>(query: Q, cursor: string | undefined): Q =>
    cursor === undefined ? query : { ...query, cursor }

  function records(path: string): RecordsClient<ExactObject>
  function records<A>(path: string, schema: Decoder<A>): RecordsClient<A>
  function records<A>(path: string, schema?: Decoder<A>) {
    return schema === undefined ? makeRecords(api, path, exactly()) : makeRecords(api, path, typed(schema))
  }

  return {
    /** The records of a record type, `org/app/domain/object/version`; with a schema typed by it. */
    records,
    /** Who the token speaks for, and what that may do at a path. */
    me: (path?: string) =>
      Effect.mapError(api.me.me({ query: path === undefined ? {} : { path } }), (error) => clientError(error)),
    platform: {
      /** Every record type. */
      schemas: (query: Query<typeof api.platform.schemas> = {}) =>
        paged((cursor) =>
          Effect.mapError(api.platform.schemas({ query: continuing(query, cursor) }), (error) => clientError(error))
        ),
      /** Entries of the audit log, newest first, page by page as they are taken. */
      audit: (query: Query<typeof api.platform.audit> = {}) =>
        paged((cursor) =>
          Effect.mapError(api.platform.audit({ query: continuing(query, cursor) }), (error) => clientError(error))
        )
    },
    /** The endpoints as the contract has them. */
    api
  } as const
})

/** See `make`. */
export type VelocityClient = Effect.Success<ReturnType<typeof make>>
