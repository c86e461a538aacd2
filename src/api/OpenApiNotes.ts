/**
 * What the OpenAPI document says beyond what the schemas can: parameters whose names a caller makes up, headers of
 * answers, which codes a status has, and that a body carried as exact text is JSON.
 */
import { type ProblemCode, problems } from "../domain/Problem.ts"

/** A parameter of the query. */
export interface Parameter {
  readonly name: string
  readonly description: string
  readonly schema?: Readonly<Record<string, unknown>>
  readonly style?: "deepObject"
}

// biome-ignore lint/suspicious/noExplicitAny: a JSON document, as OpenApi.Transform hands it over
type Json = Record<string, any>

/** An operation that takes these parameters too. */
export const taking = (parameters: ReadonlyArray<Parameter>, operation: Json): Json => ({
  ...operation,
  parameters: [
    ...operation.parameters,
    ...parameters.map(({ description, name, schema = { type: "string" }, style }) => ({
      name,
      in: "query",
      description,
      required: false,
      schema,
      ...(style === undefined ? {} : { style, explode: true })
    }))
  ]
})

/** An operation whose successes may carry these headers. */
export const answering = (headers: Readonly<Record<string, string>>, operation: Json): Json => ({
  ...operation,
  responses: Object.fromEntries(
    Object.entries(operation.responses as Json).map(([status, response]) => [
      status,
      Number(status) >= 400
        ? response
        : {
            ...response,
            headers: Object.fromEntries(
              Object.entries(headers).map(([name, description]) => [name, { description, schema: { type: "string" } }])
            )
          }
    ])
  )
})

const codesOf = (status: number): string =>
  Object.entries(problems)
    .filter(([, entry]) => entry.status === status)
    .map(([code]) => code as ProblemCode)
    .join(", ")

/** The generator numbers a schema that is used with several statuses; a problem is one and the same everywhere. */
const isProblem = (name: string): boolean => /^Problem(_[0-9]+)?$/u.test(name)
const problemRef = { $ref: "#/components/schemas/Problem" }

const ofStatus = (status: string, response: Json): Json =>
  response.content?.["application/problem+json"] === undefined
    ? response
    : {
        ...response,
        description: codesOf(Number(status)),
        content: { "application/problem+json": { schema: problemRef } }
      }

const object = { type: "object", additionalProperties: true }
const array = { type: "array", items: true }

/** The schema of a body that the contract carries as text. */
const exactBody = (mediaType: string, content: Json): Json => {
  if (!/[/+]json$/u.test(mediaType) || content.schema?.type !== "string") return content
  if (mediaType === "application/json-patch+json") return { schema: array }
  return { schema: content.schema.anyOf === undefined ? object : { oneOf: [object, { type: "array", items: object }] } }
}

const withExactBodies = (holder: Json): Json =>
  holder.content === undefined
    ? holder
    : {
        ...holder,
        content: Object.fromEntries(
          Object.entries(holder.content as Json).map(([type, content]) => [type, exactBody(type, content)])
        )
      }

const operationOf = (operation: Json): Json => ({
  ...operation,
  ...(operation.requestBody === undefined ? {} : { requestBody: withExactBodies(operation.requestBody) }),
  responses: Object.fromEntries(
    Object.entries(operation.responses as Json).map(([status, response]) => [
      status,
      withExactBodies(ofStatus(status, response))
    ])
  )
})

/** The document as it is served. */
export const tidied = (spec: Json): Json => ({
  ...spec,
  paths: Object.fromEntries(
    Object.entries(spec.paths as Json).map(([path, operations]) => [
      path,
      Object.fromEntries(Object.entries(operations as Json).map(([method, one]) => [method, operationOf(one)]))
    ])
  ),
  components: {
    ...spec.components,
    schemas: {
      ...Object.fromEntries(Object.entries(spec.components.schemas as Json).filter(([name]) => !isProblem(name))),
      Problem: Object.entries(spec.components.schemas as Json).find(([name]) => isProblem(name))?.[1]
    }
  }
})
