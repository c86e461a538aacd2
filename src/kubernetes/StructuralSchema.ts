/**
 * An Effect Schema as the structural schema of a CustomResourceDefinition (Kubernetes: "Extend the Kubernetes API with
 * CustomResourceDefinitions", structural schemas).
 *
 * The AST is walked, not its JSON Schema, which an API server refuses or silently weakens (fine print 21). What is known
 * is a small closed set; anything else fails by its path, and so does a string or list without a bound, because CEL's cost
 * is reckoned from bounds.
 */
import { Exit, Option, Schema, SchemaAST } from "effect"
import type { CelRule } from "../domain/CelRule.ts"

/** A schema that has no structural form. `path` says where. */
export class NotStructural extends Error {
  readonly path: string
  constructor(path: string, why: string) {
    super(`${path}: ${why}`)
    this.path = path
  }
}

export interface Structural {
  readonly type?: "object" | "array" | "string" | "integer" | "boolean"
  readonly description?: string
  readonly format?: string
  readonly default?: unknown
  readonly enum?: ReadonlyArray<string>
  readonly minLength?: number
  readonly maxLength?: number
  readonly pattern?: string
  readonly minimum?: number
  readonly maximum?: number
  readonly minItems?: number
  readonly maxItems?: number
  readonly maxProperties?: number
  readonly required?: ReadonlyArray<string>
  readonly oneOf?: ReadonlyArray<{ readonly required: ReadonlyArray<string> }>
  readonly not?: { readonly anyOf: ReadonlyArray<{ readonly required: ReadonlyArray<string> }> }
  readonly properties?: Readonly<Record<string, Structural>>
  readonly additionalProperties?: Structural
  readonly items?: Structural
  readonly "x-kubernetes-list-type"?: "set" | "map" | "atomic"
  readonly "x-kubernetes-list-map-keys"?: ReadonlyArray<string>
  readonly "x-kubernetes-int-or-string"?: true
  readonly "x-kubernetes-preserve-unknown-fields"?: true
  readonly "x-kubernetes-validations"?: ReadonlyArray<CelRule>
}

/** Annotations stand on the last check where there is one. */
const annotationsOf = (ast: SchemaAST.AST): Schema.Annotations.Annotations => ({
  ...ast.annotations,
  ...ast.checks?.at(-1)?.annotations
})

/** What the checks of a value demand, by the name of the check. */
const demandsOf = (ast: SchemaAST.AST, path: string): ReadonlyMap<string, Readonly<Record<string, unknown>>> => {
  const demands = new Map<string, Readonly<Record<string, unknown>>>()
  for (const check of ast.checks ?? []) {
    if (check.annotations?.operatorJudges === true) continue
    const said = check.annotations?.representation as { readonly id: string; readonly payload: unknown } | undefined
    if (said === undefined) throw new NotStructural(path, "a check that says nothing of itself")
    demands.set(said.id.replace("effect/schema/", ""), (said.payload ?? {}) as Readonly<Record<string, unknown>>)
  }
  return demands
}

/** Demands that a structural schema can say; another fails, so that none is dropped without a word. */
const only = (demands: ReadonlyMap<string, unknown>, allowed: ReadonlyArray<string>, path: string): void => {
  for (const name of demands.keys()) {
    if (!allowed.includes(name)) throw new NotStructural(path, `${name} has no structural form`)
  }
}

const text = (ast: SchemaAST.AST, path: string): Structural => {
  const demands = demandsOf(ast, path)
  only(demands, ["isMinLength", "isMaxLength", "isPattern"], path)
  const maxLength = demands.get("isMaxLength")?.maxLength as number | undefined
  if (maxLength === undefined) throw new NotStructural(path, "a string without isMaxLength")
  const pattern = demands.get("isPattern") as { readonly source: string; readonly flags: string } | undefined
  if (pattern !== undefined && /[^u]/u.test(pattern.flags)) {
    throw new NotStructural(path, `a pattern with flags ${pattern.flags}`)
  }
  const minLength = demands.get("isMinLength")?.minLength as number | undefined
  return {
    type: "string",
    ...(minLength === undefined ? {} : { minLength }),
    maxLength,
    // Go knows \/ as no escape of its own, and no class of properties in braces beyond Unicode's
    ...(pattern === undefined ? {} : { pattern: pattern.source.replaceAll("\\/", "/") })
  }
}

const whole = (ast: SchemaAST.AST, path: string): Structural => {
  const demands = demandsOf(ast, path)
  only(demands, ["isInt", "isBetween"], path)
  if (!demands.has("isInt")) throw new NotStructural(path, "a number that is not whole: say a decimal string")
  const between = demands.get("isBetween")
  return {
    type: "integer",
    ...(between === undefined
      ? { format: "int64" }
      : { minimum: between.minimum as number, maximum: between.maximum as number })
  }
}

const list = (ast: SchemaAST.Arrays, path: string): Structural => {
  const [item] = ast.rest
  if (ast.elements.length > 0 || ast.rest.length !== 1 || item === undefined) {
    throw new NotStructural(path, "a tuple")
  }
  const demands = demandsOf(ast, path)
  only(demands, ["isMinLength", "isMaxLength", "isUnique"], path)
  const maxItems = demands.get("isMaxLength")?.maxLength as number | undefined
  if (maxItems === undefined) throw new NotStructural(path, "a list without isMaxLength")
  const minItems = demands.get("isMinLength")?.minLength as number | undefined
  const items = walk(item, `${path}[]`)
  const keys = annotationsOf(ast).listMapKeys
  const kind = keys !== undefined ? "map" : demands.has("isUnique") && items.type === "string" ? "set" : "atomic"
  return {
    type: "array",
    ...(minItems === undefined ? {} : { minItems }),
    maxItems,
    "x-kubernetes-list-type": kind,
    ...(keys === undefined ? {} : { "x-kubernetes-list-map-keys": keys }),
    items
  }
}

const union = (ast: SchemaAST.Union, path: string): Structural => {
  const literals = ast.types.map((type) => (type._tag === "Literal" ? type.literal : undefined))
  if (literals.every((literal) => typeof literal === "string")) {
    return { type: "string", enum: literals as ReadonlyArray<string> }
  }
  const tags = ast.types.map((type) => type._tag).join(" ")
  const [first] = ast.types
  // the bounds of a string hold for the value where it is one
  if (tags === "String Number" && first !== undefined) {
    const { type: _, ...bounds } = text(first, path)
    return { "x-kubernetes-int-or-string": true, ...bounds }
  }
  // a boolean beside them has no structural type: Admission judges the value
  if (tags === "String Number Boolean") return { "x-kubernetes-preserve-unknown-fields": true }
  throw new NotStructural(path, `a union of ${tags}`)
}

/** What the decoder makes of a key that is not there; undefined where it must be there, or may be missing. */
const defaultOf = (name: string, type: SchemaAST.AST): Option.Option<unknown> => {
  const [link] = type.encoding ?? []
  if (link === undefined || !SchemaAST.isOptional(link.to)) return Option.none()
  const one = Schema.make(new SchemaAST.Objects([new SchemaAST.PropertySignature(name, type)], [])) as Schema.Codec<
    Readonly<Record<string, unknown>>
  >
  const exit = Schema.decodeUnknownExit(one)({})
  return Exit.isSuccess(exit) ? Option.some(exit.value[name]) : Option.none()
}

const requiring = (key: string) => ({ required: [key] })

/** What `kubectl explain` says of a key; a key that says nothing of itself fails, so that none is forgotten. */
const described = (type: SchemaAST.AST, path: string): Structural => {
  const description = type.context?.annotations?.description
  if (typeof description !== "string") throw new NotStructural(path, "a key without a description")
  return { description }
}

const struct = (ast: SchemaAST.Objects, path: string): Structural => {
  const [index] = ast.indexSignatures
  const { exactlyOneOf, noneOf } = annotationsOf(ast)
  if (index !== undefined) {
    if (ast.propertySignatures.length > 0) throw new NotStructural(path, "keys beside an index signature")
    const demands = demandsOf(ast, path)
    only(demands, ["isMaxProperties"], path)
    const maxProperties = demands.get("isMaxProperties")?.maxProperties as number | undefined
    return {
      type: "object",
      ...(maxProperties === undefined ? {} : { maxProperties }),
      ...(noneOf === undefined ? {} : { not: { anyOf: noneOf.map(requiring) } }),
      additionalProperties: walk(index.type, `${path}{}`)
    }
  }
  if ((ast.checks ?? []).some((check) => check.annotations?.celRules === undefined)) {
    throw new NotStructural(path, "a struct with a check that has no celRules")
  }
  const properties: Record<string, Structural> = {}
  const required: Array<string> = []
  for (const { name, type } of ast.propertySignatures) {
    const key = String(name)
    const inner = { ...described(type, `${path}.${key}`), ...walk(type, `${path}.${key}`) }
    const fallback = defaultOf(key, type)
    // the defaults of a struct's own keys make up its default
    const said = Option.map(fallback, (value) =>
      inner.type === "object" && inner.properties !== undefined ? {} : value
    )
    properties[key] = Option.match(said, { onNone: () => inner, onSome: (value) => ({ ...inner, default: value }) })
    if (Option.isNone(fallback) && !SchemaAST.isOptional(type)) required.push(key)
  }
  return {
    type: "object",
    ...(required.length === 0 ? {} : { required }),
    ...(exactlyOneOf === undefined ? {} : { oneOf: exactlyOneOf.map(requiring) }),
    properties
  }
}

const plain = (ast: SchemaAST.AST, path: string): Structural => {
  switch (ast._tag) {
    case "String":
      return text(ast, path)
    case "Number":
      return whole(ast, path)
    case "Boolean":
      return { type: "boolean" }
    case "Literal":
      if (typeof ast.literal === "string") return { type: "string", enum: [ast.literal] }
      break
    case "Arrays":
      return list(ast, path)
    case "Objects":
      return struct(ast, path)
    case "Union":
      return union(ast, path)
    case "Declaration":
      if (ast === Schema.Json.ast || annotationsOf(ast).expected === annotationsOf(Schema.Json.ast).expected) {
        return { "x-kubernetes-preserve-unknown-fields": true }
      }
  }
  throw new NotStructural(path, `${ast._tag} has no structural form`)
}

const walk = (ast: SchemaAST.AST, path: string): Structural => {
  const { celRules, description } = annotationsOf(ast)
  const made = plain(ast, path)
  return {
    ...(typeof description === "string" ? { description } : {}),
    ...made,
    ...(celRules === undefined ? {} : { "x-kubernetes-validations": celRules })
  }
}

/** The structural schema of what a resource of this schema is applied as. Throws `NotStructural`, by path. */
export const structural = (schema: Schema.Constraint, path = ""): Structural => walk(schema.ast, path)
