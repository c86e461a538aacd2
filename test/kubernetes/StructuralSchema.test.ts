/** The generator refuses what a structural schema cannot say, by path, instead of dropping it. */
import { Effect, Schema } from "effect"
import { describe, expect, it } from "vitest"
import { structural } from "../../src/kubernetes/StructuralSchema.ts"

const bounded = Schema.String.check(Schema.isMaxLength(10))
const key = <S extends Schema.Top>(schema: S) => Schema.Struct({ a: schema.annotateKey({ description: "a" }) })

const refused: ReadonlyArray<readonly [string, Schema.Top, string]> = [
  ["a string without a bound", key(Schema.String), "spec.a: a string without isMaxLength"],
  ["a list without a bound", key(Schema.Array(bounded)), "spec.a: a list without isMaxLength"],
  ["a number that is not whole", key(Schema.Number), "spec.a: a number that is not whole: say a decimal string"],
  [
    "a check that has no structural form",
    key(bounded.check(Schema.isStartingWith("x"))),
    "spec.a: isStartingWith has no"
  ],
  ["a pattern with flags", key(bounded.check(Schema.isPattern(/a/i))), "spec.a: a pattern with flags i"],
  ["a tuple", key(Schema.Tuple([bounded])), "spec.a: a tuple"],
  ["a union of objects", key(Schema.Union([key(bounded), key(Schema.Boolean)])), "spec.a: a union of"],
  ["a key without a description", Schema.Struct({ a: bounded }), "spec.a: a key without a description"],
  ["a fault deep inside", key(Schema.Array(key(Schema.String)).check(Schema.isMaxLength(3))), "spec.a[].a: a string"]
]

describe("the generator", () => {
  for (const [name, schema, message] of refused) {
    it(`refuses ${name}`, () => expect(() => structural(schema, "spec")).toThrow(message))
  }

  it("writes defaults, bounds, rules and how lists merge", () => {
    const schema = Schema.Struct({
      list: Schema.Array(key(bounded))
        .check(Schema.isMaxLength(3))
        .annotate({ listMapKeys: ["a"] })
        .annotateKey({ description: "l" }),
      word: Schema.Literals(["x", "y"])
        .pipe(Schema.withDecodingDefaultKey(Effect.succeed("x" as const)))
        .annotateKey({ description: "w" })
    }).annotate({ celRules: [{ rule: "true", message: "never" }] })
    expect(structural(schema)).toEqual({
      type: "object",
      required: ["list"],
      properties: {
        list: {
          description: "l",
          type: "array",
          maxItems: 3,
          "x-kubernetes-list-type": "map",
          "x-kubernetes-list-map-keys": ["a"],
          items: {
            type: "object",
            required: ["a"],
            properties: { a: { description: "a", type: "string", maxLength: 10 } }
          }
        },
        word: { description: "w", type: "string", enum: ["x", "y"], default: "x" }
      },
      "x-kubernetes-validations": [{ rule: "true", message: "never" }]
    })
  })
})
