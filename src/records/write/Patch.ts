/**
 * The two patch formats over a record: JSON Merge Patch (RFC 7396) and JSON Patch (RFC 6902).
 *
 * A patch operation that reads a field which the caller cannot read unmasked is 403 (`test` would be an oracle, `copy` and
 * `move` a way out); one that writes a field is judged as any write of it. Numbers stay exact: while fast-json-patch
 * works, they stand as marked strings, because it clones through JSON; `test` compares numbers by value.
 */

import * as Result from "effect/Result"
import jsonPatch from "fast-json-patch"
import { mayWrite, readsClearly } from "../../domain/Access.ts"
import {
  compareDecimals,
  decimalText,
  ExactNumber,
  type ExactObject,
  type ExactValue,
  isExactObject
} from "../../domain/ExactJson.ts"
import { type Fault, fault } from "../../domain/Fault.ts"
import { type Field, systemColumns } from "../../domain/Field.ts"
import { type Problem, problem } from "../../domain/Problem.ts"
import { faultsProblem, readOnlyFault, type Values } from "../type/InputDecoder.ts"

/** RFC 7396, section 2: what `target` becomes. */
export const mergePatch = (target: ExactValue, patch: ExactValue): ExactValue => {
  if (!isExactObject(patch)) return patch
  // without a prototype, so that a key may have any name
  const merged: Record<string, ExactValue> = Object.create(null)
  if (isExactObject(target)) for (const key of Object.keys(target)) merged[key] = target[key] as ExactValue
  for (const key of Object.keys(patch)) {
    const value = patch[key] as ExactValue
    if (value === null) delete merged[key]
    else merged[key] = mergePatch(merged[key] ?? null, value)
  }
  return merged
}

/** Whether a merge patch needs the row: it reaches into a json field. */
export const reachesInto = (fields: ReadonlyMap<string, Field>, body: ExactValue): boolean =>
  isExactObject(body) &&
  Object.keys(body).some((name) => fields.get(name)?.type === "json" && isExactObject(body[name]))

/** The same value, numbers compared as numbers (RFC 6902, 4.6). */
export const sameValue = (a: ExactValue | undefined, b: ExactValue | undefined): boolean => {
  if (a === b) return true
  if (a instanceof ExactNumber || b instanceof ExactNumber) {
    if (!(a instanceof ExactNumber && b instanceof ExactNumber)) return false
    const [left, right] = [decimalText(a), decimalText(b)]
    return a.text === b.text || (left !== undefined && right !== undefined && compareDecimals(left, right) === 0)
  }
  if (Array.isArray(a) || Array.isArray(b)) {
    return (
      Array.isArray(a) && Array.isArray(b) && a.length === b.length && a.every((one, index) => sameValue(one, b[index]))
    )
  }
  if (!isExactObject(a) || !isExactObject(b)) return false
  const keys = Object.keys(a)
  return (
    keys.length === Object.keys(b).length && keys.every((key) => Object.hasOwn(b, key) && sameValue(a[key], b[key]))
  )
}

interface Step {
  readonly op: "add" | "remove" | "replace" | "move" | "copy" | "test"
  readonly path: ReadonlyArray<string>
  readonly from: ReadonlyArray<string> | undefined
  readonly value: ExactValue | undefined
  readonly source: ExactObject
}

/** Operations that one patch may have. */
export const maxOperations = 1000

/** Of these, copies: each may double what it is applied to. */
export const maxCopies = 32
/** Characters that a record may grow to while it is patched. */
const maxSize = 10_485_760

const names = ["add", "remove", "replace", "move", "copy", "test"]

const pointer = (value: ExactValue | undefined): ReadonlyArray<string> | undefined => {
  if (typeof value !== "string" || !/^(\/([^~/]|~0|~1)*)+$/u.test(value)) return undefined
  return value
    .slice(1)
    .split("/")
    .map((step) => step.replaceAll("~1", "/").replaceAll("~0", "~"))
}

const malformed = (index: number, key: string, detail: string): Problem =>
  problem("malformed_patch", { errors: [fault([index, key], "patch", detail)] })

/** The operations of a patch document, each well-formed. Fails with 400 `malformed_patch` at the first that is not. */
const stepsOf = (document: ExactValue): Result.Result<ReadonlyArray<Step>, Problem> => {
  if (!Array.isArray(document)) {
    return Result.fail(problem("malformed_patch", { detail: "a JSON Patch is an array of operations" }))
  }
  if (document.length > maxOperations) {
    return Result.fail(problem("malformed_patch", { detail: `at most ${maxOperations} operations` }))
  }
  const steps: Array<Step> = []
  let copies = 0
  for (const [index, source] of (document as ReadonlyArray<ExactValue>).entries()) {
    if (!isExactObject(source)) return Result.fail(malformed(index, "op", "an operation is an object"))
    const { op } = source
    if (typeof op !== "string" || !names.includes(op)) {
      return Result.fail(malformed(index, "op", `one of ${names.join(", ")}`))
    }
    const path = pointer(source.path)
    if (path === undefined) {
      return Result.fail(malformed(index, "path", "a JSON pointer to a field or into one, such as /status"))
    }
    const needsFrom = op === "move" || op === "copy"
    const from = needsFrom ? pointer(source.from) : undefined
    if (needsFrom && from === undefined) return Result.fail(malformed(index, "from", "a JSON pointer to a field"))
    if (op === "copy" && ++copies > maxCopies) {
      return Result.fail(problem("malformed_patch", { detail: `at most ${maxCopies} copies` }))
    }
    const needsValue = op === "add" || op === "replace" || op === "test"
    if (needsValue && !Object.hasOwn(source, "value")) {
      return Result.fail(malformed(index, "value", "is required"))
    }
    steps.push({ op: op as Step["op"], path, from, value: needsValue ? source.value : undefined, source })
  }
  return Result.succeed(steps)
}

const system: ReadonlySet<string> = new Set<string>(systemColumns)

/** What a step may not do, whatever the row holds. */
const stepFaults = (
  step: Step,
  index: number,
  fields: ReadonlyMap<string, Field>,
  roles: ReadonlyArray<string>
): ReadonlyArray<Fault> => {
  const faults: Array<Fault> = []
  const read = (path: ReadonlyArray<string>, key: string) => {
    const field = fields.get(path[0] ?? "")
    if (field !== undefined && !readsClearly(field, roles)) {
      faults.push(fault([index, key], "field_not_readable", "reads a field that you cannot read"))
    }
  }
  const write = (path: ReadonlyArray<string>, key: string) => {
    const name = path[0] ?? ""
    const field = fields.get(name)
    if (field !== undefined) {
      if (!mayWrite(field, roles))
        faults.push(fault([index, key], "field_not_writable", "you may not write this field"))
    } else if (!system.has(name)) faults.push(fault([index, key], "unknown_field", "there is no such field"))
  }
  if (step.op === "test") {
    read(step.path, "path")
    if (!fields.has(step.path[0] ?? "") && !system.has(step.path[0] ?? "")) {
      faults.push(fault([index, "path"], "unknown_field", "there is no such field"))
    }
    return faults
  }
  write(step.path, "path")
  if (step.from !== undefined) {
    read(step.from, "from")
    if (step.op === "move") write(step.from, "from")
  }
  return faults
}

const numberMark = "\u0000n"
const textMark = "\u0000s"

const marked = (value: ExactValue): unknown => {
  if (value instanceof ExactNumber) return numberMark + value.text
  if (typeof value === "string") return value.startsWith("\u0000") ? textMark + value : value
  if (Array.isArray(value)) return value.map(marked)
  if (!isExactObject(value)) return value
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, marked(item)]))
}

const unmarked = (value: unknown): ExactValue => {
  if (typeof value === "string") {
    if (value.startsWith(numberMark)) return new ExactNumber(value.slice(numberMark.length))
    return value.startsWith(textMark) ? value.slice(textMark.length) : value
  }
  if (Array.isArray(value)) return value.map(unmarked)
  if (typeof value !== "object" || value === null) return value as ExactValue
  return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, unmarked(item)]))
}

/** The value at a path; undefined where there is none. */
const valueAt = (document: unknown, path: ReadonlyArray<string>): unknown => {
  let value = document
  for (const step of path) {
    if (Array.isArray(value)) value = /^(0|[1-9][0-9]*)$/u.test(step) ? value[Number(step)] : undefined
    else if (typeof value === "object" && value !== null && Object.hasOwn(value, step)) {
      value = (value as Record<string, unknown>)[step]
    } else return undefined
  }
  return value
}

/** A JSON Patch that may be applied by this caller to rows of this type. */
export interface JsonPatch {
  /** What the fields that it writes become; fails where a `test` does not hold, or a path leads nowhere. */
  readonly apply: (row: Values) => Result.Result<Values, Problem>
}

/**
 * Reads a JSON Patch. Fails with 400 `malformed_patch`, 403 `field_not_readable` or `field_not_writable`, 422 for fields
 * that do not exist; none of it depends on what the row holds.
 */
export const compileJsonPatch = (
  fields: ReadonlyMap<string, Field>,
  roles: ReadonlyArray<string>,
  document: ExactValue
): Result.Result<JsonPatch, Problem> => {
  const steps = stepsOf(document)
  if (Result.isFailure(steps)) return Result.fail(steps.failure)
  const faults = steps.success.flatMap((step, index) => stepFaults(step, index, fields, roles))
  if (faults.length > 0) return Result.fail(faultsProblem(faults))
  const written = new Set<string>()
  for (const { from, op, path } of steps.success) {
    if (op !== "test") written.add(path[0] ?? "")
    if (op === "move") written.add(from?.[0] ?? "")
  }

  const apply: JsonPatch["apply"] = (row) => {
    const before = Object.fromEntries(Object.entries(row))
    let state = marked(before) as object
    for (const [index, step] of steps.success.entries()) {
      if (step.op === "test") {
        const found = valueAt(state, step.path)
        if (found === undefined || !sameValue(unmarked(found), step.value)) {
          return Result.fail(
            problem("write_conflict", {
              detail: "a test of the patch does not hold",
              errors: [fault([index], "patch_test", "the value is another one")]
            })
          )
        }
        continue
      }
      const operation = { ...(marked(step.source) as object) } as jsonPatch.Operation
      try {
        state = jsonPatch.applyOperation(state, operation, true, true, true, index).newDocument
        if (step.op === "copy" && JSON.stringify(state).length > maxSize) {
          return Result.fail(problem("payload_too_large", { detail: "the patch makes the record too large" }))
        }
      } catch {
        return Result.fail(
          problem("invalid", { errors: [fault([index, "path"], "patch_path", "leads to nothing in this record")] })
        )
      }
    }
    const after = unmarked(state) as ExactObject
    const wrong = [...written].filter((name) => system.has(name) && !sameValue(after[name], before[name]))
    if (wrong.length > 0) return Result.fail(faultsProblem(wrong.map((name) => readOnlyFault(name))))
    return Result.succeed(
      Object.fromEntries([...written].filter((name) => !system.has(name)).map((name) => [name, after[name] ?? null]))
    )
  }
  return Result.succeed({ apply })
}
