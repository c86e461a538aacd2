/** A provisioned domain and the people in it, for tests of writes under the real roles. */
import * as Effect from "effect/Effect"
import * as Stream from "effect/Stream"
import type { ExactValue } from "../../src/domain/ExactJson.ts"
import { parse } from "../../src/domain/ExactJson.ts"
import type { Caller } from "../../src/domain/Identity.ts"
import { Problem } from "../../src/domain/Problem.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { compile, type RecordType } from "../../src/records/type/RecordType.ts"
import { type Answer, WriteRecords } from "../../src/records/WriteRecords.ts"
import type { Referring, WriteRequest } from "../../src/records/write/WriteType.ts"
import { Database, query } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { provision } from "./Provisioned.ts"
import { specOf } from "./Specs.ts"

/** Somebody with these roles. */
export const callerOf = (
  roles: ReadonlyArray<string>,
  attributes: Readonly<Record<string, string>> = {},
  name = roles.join("-")
): Caller => ({
  identity: { actor: `dev/${name}`, strategy: "dev", subject: name, roles: [], attributes, expiresAt: 0 },
  roles,
  requestId: `r-${crypto.randomUUID()}`,
  address: "127.0.0.1"
})

const bytesOf = (text: string, piece = 1000): Stream.Stream<Uint8Array> => {
  const bytes = new TextEncoder().encode(text)
  const pieces: Array<Uint8Array> = []
  for (let at = 0; at < bytes.length; at += piece) pieces.push(bytes.subarray(at, at + piece))
  return Stream.fromIterable(pieces)
}

/** A body as the server reads it. */
export const json = (value: unknown): ExactValue => parse(typeof value === "string" ? value : JSON.stringify(value))

/** The body of an answer. */
export const bodyOf = (answer: Answer): Record<string, unknown> => JSON.parse(textOf(answer) || "{}")
export const idOf = (answer: Answer): string => String(bodyOf(answer).id)

/** Provisions a domain under the database's own org and answers ways to write to it. */
export const makeWorld = (
  definitions: ReadonlyArray<
    { readonly object: string; readonly fields: ReadonlyArray<unknown> } & Record<string, unknown>
  >,
  domain = "eu",
  rolesOn?: WriteRequest["rolesOn"]
) =>
  Effect.gen(function* () {
    const database = yield* Database
    const write = yield* WriteRecords
    const specs = definitions.map((one): SchemaDefinitionSpec => specOf({ org: database.org, domain, ...one }))
    const defs = yield* provision(database.operatorUrl, specs)
    const types = new Map([...defs].map(([path, def]) => [path, compile(def)]))
    const chain = `${database.org}/shop/${domain}`
    const type = (object: string) => types.get(`${chain}/${object}/v1`) as RecordType
    const referring = (target: RecordType): ReadonlyArray<Referring> =>
      [...types.values()].flatMap((other) =>
        other.def.spec.fields.flatMap((field) =>
          field.ref !== undefined && field.ref.object === target.def.spec.object
            ? [{ type: other, field, onDelete: field.ref.onDelete }]
            : []
        )
      )
    const request = (headers: WriteRequest["headers"], method: string, target: string): WriteRequest => ({
      headers,
      method,
      target,
      contentType: "application/json",
      peers: (path) => types.get(path),
      rolesOn,
      referring
    })
    const at = (object: string, id?: string) => `/api/${chain}/${object}/v1${id === undefined ? "" : `/${id}`}`
    type Headers = WriteRequest["headers"]
    return {
      chain,
      types,
      type,
      create: (object: string, caller: Caller, body: unknown, headers: Headers = {}) =>
        write.create(type(object), caller, { ...request(headers, "POST", at(object)), body: json(body) }),
      put: (object: string, caller: Caller, id: string, body: unknown, headers: Headers = {}) =>
        write.put(type(object), caller, { ...request(headers, "PUT", at(object, id)), id, body: json(body) }),
      patch: (object: string, caller: Caller, id: string, body: unknown, headers: Headers = {}) =>
        write.patch(type(object), caller, {
          ...request(headers, "PATCH", at(object, id)),
          id,
          body: json(body),
          format: Array.isArray(json(body)) ? "json-patch" : "merge"
        }),
      remove: (object: string, caller: Caller, id: string, headers: Headers = {}) =>
        write.remove(type(object), caller, { ...request(headers, "DELETE", at(object, id)), id }),
      restore: (object: string, caller: Caller, id: string, headers: Headers = {}) =>
        write.restore(type(object), caller, { ...request(headers, "POST", `${at(object, id)}/restore`), id }),
      bulk: (object: string, caller: Caller, body: unknown, headers: Headers = {}) =>
        write.bulkJson(type(object), caller, { ...request(headers, "POST", at(object)), body: json(body) }),
      stream: (
        object: string,
        caller: Caller,
        text: string | Stream.Stream<Uint8Array, Problem>,
        headers: Headers = {}
      ) =>
        write.bulkNdjson(type(object), caller, {
          ...request(headers, "POST", at(object)),
          stream: typeof text === "string" ? bytesOf(text) : text
        }),
      /** As the superuser, outside everything. */
      sql: (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params),
      table: (object: string) => `"${type(object).def.pgSchema}"."${type(object).def.pgTable}"`
    }
  })

/** What an effect failed with: `409 unique_conflict /name`. */
export const refusalOf = <A, R>(effect: Effect.Effect<A, unknown, R>): Effect.Effect<string, never, R> =>
  Effect.match(effect, {
    onSuccess: () => "ok",
    onFailure: (error) =>
      error instanceof Problem
        ? [error.status, error.code, ...(error.errors ?? []).map((one) => one.pointer)].join(" ")
        : String((error as { readonly _tag?: string })._tag)
  })

/** The text of a streamed answer, by lines. */
export const linesOf = (answer: Answer) =>
  Effect.map(Stream.runCollect(answer.stream ?? Stream.empty), (chunks) =>
    Buffer.concat([...chunks])
      .toString()
      .split("\n")
      .filter((line) => line !== "")
      .map((line) => JSON.parse(line) as Record<string, unknown>)
  )
