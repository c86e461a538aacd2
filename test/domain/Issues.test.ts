import { Exit, Schema } from "effect"
import { describe, expect, it } from "vitest"
import { plainIssues } from "../../src/domain/Issues.ts"

const Port = Schema.Int.check(Schema.isBetween({ minimum: 1, maximum: 65_535 }))
const Named = Schema.String.check(Schema.isPattern(/^[a-z]+$/u, { message: "letters a to z" }))
const Thing = Schema.Struct({
  fields: Schema.Array(Schema.Struct({ name: Named, type: Schema.Literals(["string", "integer"]) })),
  port: Schema.optionalKey(Port),
  title: Schema.optionalKey(Schema.String),
  open: Schema.optionalKey(Schema.Boolean)
})

const told = (value: unknown): ReadonlyArray<string> => {
  const exit = Schema.decodeUnknownExit(Thing)(value, { errors: "all", onExcessProperty: "error" })
  const reason = Exit.isFailure(exit) ? exit.cause.reasons[0] : undefined
  if (reason?._tag !== "Fail" || !Schema.isSchemaError(reason.error)) return []
  return plainIssues(reason.error.issue, ["spec"]).map((one) => `${one.path.join("/")} ${one.code}: ${one.detail}`)
}

describe("what a schema finds wrong", () => {
  it("is told in plain words, all of it", () => {
    expect(told({ feilds: [], title: 5, open: "yes", port: 70_000 })).toEqual([
      "spec/feilds unknown_key: there is no key feilds here; did you mean fields?",
      "spec/fields required: is missing",
      "spec/port invalid: must be a value between 1 and 65535",
      "spec/title invalid: must be a text",
      "spec/open invalid: must be true or false"
    ])
    expect(told({ fields: [{ name: "A", type: "text" }, 3], colour: 1 })).toEqual([
      "spec/colour unknown_key: there is no key colour here",
      "spec/fields/0/name invalid: letters a to z",
      "spec/fields/0/type invalid: must be one of string, integer",
      "spec/fields/1 invalid: must be an object"
    ])
    expect(told({ fields: {} })).toEqual(["spec/fields invalid: must be a list"])
    expect(told("x")).toEqual(["spec invalid: must be an object"])
  })

  it("is nothing where nothing is wrong", () => {
    expect(told({ fields: [{ name: "a", type: "string" }], port: 80 })).toEqual([])
  })
})
