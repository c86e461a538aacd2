/** The parts of a read that need neither database nor record: grammar, grants, the headers of requests and answers. */
import { fault } from "../../domain/Fault.ts"
import type { Caller } from "../../domain/Identity.ts"
import type { Operation } from "../../domain/Operation.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { ParsedQuery, Query } from "../../domain/Query.ts"
import type { DatabaseFailure } from "../../postgres/DatabaseFailure.ts"
import type { RecordType } from "../type/RecordType.ts"

/** The parameters of a URL; one that is repeated is an array. */
export type Params = Readonly<Record<string, string | ReadonlyArray<string>>>

/** The query, or the problem of its grammar. */
export const refused = (parsed: ParsedQuery): Query | Problem =>
  "query" in parsed ? parsed.query : problem(parsed.code, { errors: parsed.faults })

/** Parameters that a call does not take. */
export const strangers = (params: Params, known: ReadonlyArray<string>): Problem | undefined => {
  const errors = Object.keys(params)
    .filter((name) => !known.includes(name))
    .map((name) => fault([name], "malformed_query", `there is no parameter ${name} here`))
  return errors.length === 0 ? undefined : problem("malformed_query", { errors })
}

/** The refusal of a caller none of whose roles grants an operation. */
export const ungranted = (type: RecordType, operation: Operation, caller: Caller): Problem | undefined =>
  type.rowFilter(operation, caller.roles)._tag === "None"
    ? problem("operation_not_granted", {
        detail: `none of your roles in this domain grants ${operation} on ${type.def.spec.object}`
      })
    : undefined

/** Whether `If-None-Match` names this tag (RFC 9110, 13.1.2: compared weakly). */
export const isNamed = (header: string | undefined, etag: string): boolean =>
  header !== undefined &&
  (header.trim() === "*" ||
    header.split(",").some((one) => {
      const tag = one.trim()
      return (tag.startsWith("W/") ? tag.slice(2) : tag) === etag
    }))

/** The same URL with another cursor (RFC 8288). */
export const nextLink = (target: string, cursor: string): string => {
  const mark = target.indexOf("?")
  const path = mark < 0 ? target : target.slice(0, mark)
  const params = new URLSearchParams(mark < 0 ? "" : target.slice(mark + 1))
  params.set("cursor", cursor)
  return `<${path}?${params}>; rel="next"`
}

/** Which of the record types of a request the database knows otherwise: the gate's message names it by its number. */
export const staleOf = (failure: DatabaseFailure, types: ReadonlyArray<RecordType>): RecordType | undefined => {
  const { reason } = failure
  if (reason._tag !== "Platform" || reason.code !== "VL010") return undefined
  const id = /^definition (\d+) /u.exec(reason.message)?.[1]
  return types.find((type) => String(type.def.id) === id)
}
