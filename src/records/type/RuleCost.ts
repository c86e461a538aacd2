/**
 * What a rule may cost at most, from its syntax alone, and what in it is unknown. Part of `Rules`.
 *
 * No CEL engine can be interrupted on its own thread, so a rule that could take long is refused when it is compiled. One
 * unit is about one step of evaluation (a million took 0.9 s). The bound stands on limits that hold at run time: a text of
 * at most `longestText` characters, a json value of at most `largestJson` members and `longestText` characters in all.
 */
import type { parse } from "@bufbuild/cel"
import type { Field } from "../../domain/Field.ts"

/** A syntax tree of CEL. */
export type Expr = ReturnType<typeof parse>["expr"]

/** Characters of a text, or of all texts of a json value, that a rule may see. */
export const longestText = 65_536
/** Members of a json value, counted through all levels, that a rule may see. */
export const largestJson = 1000
/** Units that one rule may cost. */
export const costLimit = 100_000

/** What was found in a rule. */
export interface RuleFacts {
  /** At most this many units. */
  readonly cost: number
  /** The fields of `self` and of `old` that it can see; undefined where it takes one of them as a whole. */
  readonly self: ReadonlySet<string> | undefined
  readonly old: ReadonlySet<string> | undefined
  /** Words for each thing that does not exist. */
  readonly unknown: ReadonlyArray<string>
}

const variables: ReadonlySet<string> = new Set(["self", "old", "now", "actor"])
const types: ReadonlySet<string> = new Set(
  "bool bytes double duration dyn int list map null_type string timestamp type uint".split(" ")
)
const functions: ReadonlySet<string> = new Set(
  [
    "size contains startsWith endsWith matches timestamp duration int uint double string bytes bool type dyn",
    "getDate getDayOfMonth getDayOfWeek getDayOfYear getFullYear getHours getMilliseconds getMinutes getMonth getSeconds"
  ]
    .join(" ")
    .split(" ")
)
/** Functions under `dec`, on numbers as decimal strings. */
export const decimalFunctions = ["lt", "lte", "gt", "gte", "eq", "neq", "add", "sub", "mul"] as const

const textTypes: ReadonlySet<string> = new Set(["string", "enum", "ref", "uuid", "date", "time", "number"])

/** Looks through a rule. */
export const factsOf = (expr: Expr, fields: ReadonlyMap<string, Field>): RuleFacts => {
  const seen = { self: new Set<string>(), old: new Set<string>() }
  const whole = { self: false, old: false }
  const unknown: Array<string> = []

  const fieldOf = (node: Expr | undefined, locals: ReadonlySet<string>): Field | undefined => {
    if (node?.exprKind.case !== "selectExpr") return undefined
    const { field, operand } = node.exprKind.value
    if (operand?.exprKind.case !== "identExpr") return undefined
    const { name } = operand.exprKind.value
    return (name === "self" || name === "old") && !locals.has(name) ? fields.get(field) : undefined
  }
  const isLocal = (node: Expr | undefined, locals: ReadonlySet<string>): boolean => {
    if (node?.exprKind.case === "identExpr") return locals.has(node.exprKind.value.name)
    return node?.exprKind.case === "selectExpr" && isLocal(node.exprKind.value.operand, locals)
  }
  const isScalar = (node: Expr | undefined, locals: ReadonlySet<string>): boolean => {
    if (node?.exprKind.case === "constExpr") return true
    const field = fieldOf(node, locals)
    return field !== undefined && field.type !== "json"
  }
  const lengthOf = (node: Expr | undefined, locals: ReadonlySet<string>): number => {
    if (node?.exprKind.case === "constExpr") {
      const { constantKind } = node.exprKind.value
      return constantKind.case === "stringValue" ? constantKind.value.length : 1
    }
    // the members of one value share its characters
    if (isLocal(node, locals)) return Math.ceil(longestText / largestJson)
    const field = fieldOf(node, locals)
    if (field?.type === "string") return Math.min(field.maxLength ?? longestText, longestText)
    return field !== undefined && textTypes.has(field.type) ? 128 : longestText
  }
  /** How many members a range can have. */
  const sizeOf = (node: Expr | undefined): number => {
    switch (node?.exprKind.case) {
      case "listExpr":
        return node.exprKind.value.elements.length
      case "structExpr":
        return node.exprKind.value.entries.length
      case "comprehensionExpr":
        return sizeOf(node.exprKind.value.iterRange)
      case "callExpr": {
        const { args, function: name } = node.exprKind.value
        return name === "_+_" ? args.reduce((sum, arg) => sum + sizeOf(arg), 0) : largestJson
      }
      default:
        return largestJson
    }
  }

  const costOf = (node: Expr | undefined, locals: ReadonlySet<string>): number => {
    if (node === undefined) return 0
    const { exprKind } = node
    switch (exprKind.case) {
      case "identExpr": {
        const { name } = exprKind.value
        if (locals.has(name)) return 1
        if (name === "self" || name === "old") whole[name] = true
        else if (!variables.has(name) && !types.has(name)) unknown.push(`there is no ${name}`)
        return 1
      }
      case "selectExpr": {
        const { field, operand } = exprKind.value
        if (operand?.exprKind.case === "identExpr") {
          const { name } = operand.exprKind.value
          if ((name === "self" || name === "old") && !locals.has(name)) {
            seen[name].add(field)
            if (!fields.has(field)) unknown.push(`there is no field ${field}`)
            return 2
          }
        }
        return 1 + costOf(operand, locals)
      }
      case "callExpr": {
        const { args, function: name, target } = exprKind.value
        const isDecimal = target?.exprKind.case === "identExpr" && target.exprKind.value.name === "dec"
        if (isDecimal) {
          if (!(decimalFunctions as ReadonlyArray<string>).includes(name)) unknown.push(`there is no dec.${name}`)
        } else if (/^[a-zA-Z]/u.test(name) && !functions.has(name)) unknown.push(`there is no function ${name}`)
        const operands = isDecimal || target === undefined ? args : [target, ...args]
        const inner = operands.reduce((sum, one) => sum + costOf(one, locals), 0)
        return inner + callCost(name, operands, isDecimal, locals)
      }
      case "listExpr":
        return exprKind.value.elements.reduce((sum, one) => sum + costOf(one, locals), 1)
      case "structExpr":
        return exprKind.value.entries.reduce(
          (sum, entry) =>
            sum +
            costOf(entry.value, locals) +
            (entry.keyKind.case === "mapKey" ? costOf(entry.keyKind.value, locals) : 0),
          1
        )
      case "comprehensionExpr": {
        const { accuInit, accuVar, iterRange, iterVar, iterVar2, loopCondition, loopStep, result } = exprKind.value
        const inner = new Set([...locals, accuVar, iterVar, ...(iterVar2 === "" ? [] : [iterVar2])])
        return (
          costOf(iterRange, locals) +
          costOf(accuInit, locals) +
          sizeOf(iterRange) * (costOf(loopCondition, inner) + costOf(loopStep, inner)) +
          costOf(result, new Set([...locals, accuVar]))
        )
      }
      default:
        return 1
    }
  }

  const callCost = (
    name: string,
    operands: ReadonlyArray<Expr>,
    isDecimal: boolean,
    locals: ReadonlySet<string>
  ): number => {
    if (isDecimal) return 10
    switch (name) {
      case "_==_":
      case "_!=_":
        return operands.some((one) => isScalar(one, locals)) ? 1 : largestJson
      case "@in":
        return sizeOf(operands[1])
      case "matches":
        return 1 + Math.ceil(lengthOf(operands[0], locals) / 10)
      case "size":
      case "contains":
      case "startsWith":
      case "endsWith":
        return 1 + Math.ceil(lengthOf(operands[0], locals) / 100)
      case "timestamp":
      case "duration":
      case "int":
      case "uint":
      case "double":
      case "string":
      case "bytes":
        return 10
      default:
        return 1
    }
  }

  const cost = costOf(expr, new Set())
  return {
    cost,
    self: whole.self ? undefined : seen.self,
    old: whole.old ? undefined : seen.old,
    unknown
  }
}
