/** A provisioned domain for tests of reads: rows are put there directly, read under the real roles. */
import * as Effect from "effect/Effect"
import { type ExactValue, parse } from "../../src/domain/ExactJson.ts"
import type { Caller } from "../../src/domain/Identity.ts"
import { Problem } from "../../src/domain/Problem.ts"
import type { SchemaDefinitionSpec } from "../../src/domain/SchemaDefinition.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import type { Reference } from "../../src/records/read/Include.ts"
import type { Params } from "../../src/records/read/ReadRequest.ts"
import { compile, type RecordType } from "../../src/records/type/RecordType.ts"
import type { Answer } from "../../src/records/WriteRecords.ts"
import { Database, query } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { provision } from "./Provisioned.ts"
import { specOf } from "./Specs.ts"

export interface Page {
  readonly items: ReadonlyArray<Record<string, unknown>>
  readonly next_cursor: string | null
  readonly count?: number | null
}

/** A page as JavaScript reads it; numbers that must be exact are read from the text. */
export const pageOf = (answer: Answer): Page => JSON.parse(textOf(answer))

/** Provisions a domain under the database's own org and answers ways to read from it. */
export const makeReadWorld = (
  definitions: ReadonlyArray<
    { readonly object: string; readonly fields: ReadonlyArray<unknown> } & Record<string, unknown>
  >,
  domain = "eu"
) =>
  Effect.gen(function* () {
    const database = yield* Database
    const read = yield* ReadRecords
    const specs = definitions.map((one): SchemaDefinitionSpec => specOf({ org: database.org, domain, ...one }))
    const defs = yield* provision(database.operatorUrl, specs)
    const types = new Map([...defs].map(([path, def]) => [path, compile(def)]))
    const chain = `${database.org}/shop/${domain}`
    const type = (object: string) => types.get(`${chain}/${object}/v1`) as RecordType
    const around = {
      peers: (path: string) => types.get(path),
      referring: (target: RecordType): ReadonlyArray<Reference> =>
        [...types.values()].flatMap((other) =>
          other.def.spec.fields.flatMap((field) =>
            field.ref?.object === target.def.spec.object ? [{ type: other, field }] : []
          )
        )
    }
    const target = (object: string, params: Params) => {
      const search = new URLSearchParams()
      for (const [key, value] of Object.entries(params)) {
        for (const one of typeof value === "string" ? [value] : value) search.append(key, one)
      }
      return `/api/${chain}/${object}/v1?${search}`
    }
    return {
      chain,
      type,
      types,
      around,
      get: (object: string, caller: Caller, id: string, params?: Params, ifNoneMatch?: string) =>
        read.get(type(object), caller, { ...around, id, params, ifNoneMatch }),
      list: (object: string, caller: Caller, params: Params = {}) =>
        read.list(type(object), caller, { ...around, params, target: target(object, params) }),
      query: (object: string, caller: Caller, body: ExactValue | string) =>
        read.query(type(object), caller, { ...around, body: typeof body === "string" ? parse(body) : body }),
      history: (object: string, caller: Caller, id: string, params: Params = {}) =>
        read.history(type(object), caller, { id, params, target: target(object, params) }),
      sql: (sql: string, params: ReadonlyArray<unknown> = []) => query(database.superuserUrl, sql, params),
      /** Puts rows there as the superuser: what a test says, and the system columns. */
      put: (object: string, rows: ReadonlyArray<Record<string, unknown>>) => {
        const { def } = type(object)
        const columns = ["id", "created_at", "created_by", "updated_at", "updated_by", "deleted_at", "version"]
        const names = [...columns, ...def.spec.fields.map((field) => field.name)].map((name) => `"${name}"`)
        const filled = rows.map((row) => ({
          created_at: "2026-01-01T00:00:00Z",
          created_by: "dev/seed",
          updated_at: "2026-01-01T00:00:00Z",
          updated_by: "dev/seed",
          version: 1,
          ...row
        }))
        return query(
          database.superuserUrl,
          `insert into "${def.pgSchema}"."${def.pgTable}" (${names.join(", ")})
             select ${names.join(", ")} from jsonb_populate_recordset(null::"${def.pgSchema}"."${def.pgTable}", $1::text::jsonb)`,
          [JSON.stringify(filled)]
        )
      }
    }
  })

/** What an effect was refused with: `403 field_not_readable /where/field`. */
export const refusalOf = <A, R>(effect: Effect.Effect<A, unknown, R>): Effect.Effect<string, never, R> =>
  Effect.match(effect, {
    onSuccess: () => "ok",
    onFailure: (error) =>
      error instanceof Problem
        ? [error.status, error.code, ...(error.errors ?? []).map((one) => one.pointer)].join(" ")
        : String((error as { readonly _tag?: string })._tag)
  })

/** The nth id of a test, in order. */
export const idAt = (n: number): string => `01930000-0000-7000-8000-${n.toString(16).padStart(12, "0")}`
