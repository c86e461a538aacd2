/**
 * What a write to one record is answered with: the record as its caller sees it, or the problem that its verdict tells of.
 */
import { type ExactObject, isExactObject, parse, stringify } from "../../domain/ExactJson.ts"
import { fault } from "../../domain/Fault.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import type { Answer } from "../type/Answer.ts"
import { faultsProblem, readOnlyFault } from "../type/InputDecoder.ts"
import type { Prepared } from "./Prepared.ts"
import type { Verdict } from "./WriteSql.ts"

/** The problem that a verdict tells of, in the order of refusals; undefined when the record was written. */
export const refusalOf = (verdict: Verdict): Problem | undefined => {
  if (verdict.missing) return problem("not_found")
  if (verdict.stale) return problem("stale")
  if (verdict.live) return problem("not_deleted")
  if (verdict.readOnly.length > 0) return faultsProblem(verdict.readOnly.map((name) => readOnlyFault(name)))
  if (verdict.dangling.length > 0) return danglingProblem(verdict.dangling)
  if (verdict.outside) return problem("row_outside_filter")
  return verdict.version === undefined ? problem("internal", { cause: "a verdict without a row" }) : undefined
}

/** Fields that refer to nothing that the caller may refer to. */
export const danglingProblem = (names: ReadonlyArray<string>, at: ReadonlyArray<PropertyKey> = []): Problem =>
  problem("reference_not_found", {
    errors: names.map((name) => fault([...at, name], "reference_not_found", "refers to no record that you may see"))
  })

/** On every answer about records: it is its caller's alone, and to be asked for again. */
export const answerHeaders = {
  "cache-control": "private, no-cache",
  vary: "Authorization, X-API-Key, Accept, Prefer"
}

/** A dry run tells no ids: the one that it made will not be the record's. */
const withoutIds = (body: string): string => {
  const value = parse(body, { maxDepth: 64 })
  if (!isExactObject(value)) return body
  const { id: _, ...rest } = value
  return stringify(rest as ExactObject)
}

/** What a written record is answered with. */
export const answerOf = (
  prepared: Prepared,
  id: string,
  status: number,
  version: number,
  body: string | undefined
): Answer => {
  const { prefer, type } = prepared
  const dry = prefer.rollback
  const told = body ?? JSON.stringify({ id, version })
  const shown = prefer.answer === "minimal" || status === 204 ? undefined : dry ? withoutIds(told) : told
  const applied = [...(dry ? ["tx=rollback"] : []), ...(prefer.answer === undefined ? [] : [`return=${prefer.answer}`])]
  return {
    status,
    body: shown,
    headers: {
      ...answerHeaders,
      ...(dry || status === 204 ? {} : { etag: `"${version}-${prepared.shape.tag}"` }),
      ...(status === 201 && !dry ? { location: `/api/${type.path}/${id}` } : {}),
      ...(applied.length === 0 ? {} : { "preference-applied": applied.join(", ") })
    }
  }
}
