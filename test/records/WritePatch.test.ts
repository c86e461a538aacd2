import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type ExactValue, parse, stringify } from "../../src/domain/ExactJson.ts"
import type { Values } from "../../src/records/type/InputDecoder.ts"
import { compileJsonPatch, maxCopies, maxOperations, mergePatch, sameValue } from "../../src/records/write/Patch.ts"
import { specOf } from "./Specs.ts"

const exact = (value: unknown): ExactValue => parse(typeof value === "string" ? value : JSON.stringify(value))

const { fields } = specOf({
  fields: [
    { name: "j", type: "json" },
    { name: "n", type: "number" },
    { name: "s", type: "string" }
  ]
})
const byName = new Map(fields.map((field) => [field.name, field]))
const row = exact('{"j":{"list":[1.10,"a"],"deep":{"x":9007199254740993}},"n":0.10,"s":"text","version":3}') as Values

const applied = (patch: unknown) => {
  const outcome = Result.flatMap(compileJsonPatch(byName, ["admin"], exact(patch)), (compiled) => compiled.apply(row))
  return Result.isSuccess(outcome)
    ? stringify(outcome.success as ExactValue)
    : `${outcome.failure.status} ${outcome.failure.code}`
}

describe("mergePatch", () => {
  // RFC 7396, appendix A
  it.each([
    ['{"a":"b"}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"b"}', '{"b":"c"}', '{"a":"b","b":"c"}'],
    ['{"a":"b"}', '{"a":null}', "{}"],
    ['{"a":"b","b":"c"}', '{"a":null}', '{"b":"c"}'],
    ['{"a":["b"]}', '{"a":"c"}', '{"a":"c"}'],
    ['{"a":"c"}', '{"a":["b"]}', '{"a":["b"]}'],
    ['{"a":{"b":"c"}}', '{"a":{"b":"d","c":null}}', '{"a":{"b":"d"}}'],
    ['{"a":[{"b":"c"}]}', '{"a":[1]}', '{"a":[1]}'],
    ['["a","b"]', '["c","d"]', '["c","d"]'],
    ['{"a":"b"}', '["c"]', '["c"]'],
    ['{"a":"foo"}', "null", "null"],
    ['{"a":"foo"}', '"bar"', '"bar"'],
    ['{"e":null}', '{"a":1}', '{"e":null,"a":1}'],
    ["[1,2]", '{"a":"b","c":null}', '{"a":"b"}'],
    ["{}", '{"a":{"bb":{"ccc":null}}}', '{"a":{"bb":{}}}'],
    ['{"n":1.10}', '{"m":9007199254740993}', '{"n":1.10,"m":9007199254740993}'],
    ['{"a":1}', '{"__proto__":{"x":1}}', '{"a":1,"__proto__":{"x":1}}']
  ])("%s with %s is %s", (target, patch, expected) => {
    expect(stringify(mergePatch(exact(target), exact(patch)))).toBe(expected)
  })

  it("does nothing the second time", () => {
    fc.assert(
      fc.property(fc.jsonValue(), fc.jsonValue(), (target, patch) => {
        const once = mergePatch(exact({ v: target }), exact({ v: patch }))
        expect(stringify(mergePatch(once, exact({ v: patch })))).toBe(stringify(once))
      })
    )
  })
})

describe("JSON Patch", () => {
  it.each([
    ['[{"op":"add","path":"/j/list/1","value":2.50}]', '{"j":{"list":[1.10,2.50,"a"],"deep":{"x":9007199254740993}}}'],
    ['[{"op":"add","path":"/j/list/-","value":1e2}]', '{"j":{"list":[1.10,"a",1e2],"deep":{"x":9007199254740993}}}'],
    ['[{"op":"copy","from":"/j/deep/x","path":"/n"}]', '{"n":9007199254740993}'],
    ['[{"op":"move","from":"/j/deep","path":"/j/other"}]', '{"j":{"list":[1.10,"a"],"other":{"x":9007199254740993}}}'],
    ['[{"op":"move","from":"/n","path":"/j"}]', '{"j":0.10,"n":null}'],
    ['[{"op":"test","path":"/n","value":0.1},{"op":"replace","path":"/s","value":"x"}]', '{"s":"x"}'],
    ['[{"op":"test","path":"/j/deep","value":{"x":9007199254740993.0}}]', "{}"],
    ['[{"op":"add","path":"/s","value":"\\u0000n5"}]', '{"s":"\\u0000n5"}'],
    ['[{"op":"replace","path":"/version","value":3}]', "{}"],
    ['[{"op":"remove","path":"/s"}]', '{"s":null}']
  ])("%s gives %s", (patch, expected) => {
    expect(applied(patch)).toBe(expected)
  })

  it.each([
    ['[{"op":"test","path":"/j/deep/x","value":9007199254740992}]', "409 write_conflict"],
    ['[{"op":"test","path":"/j/none","value":null}]', "409 write_conflict"],
    ['[{"op":"replace","path":"/j/none","value":1}]', "422 invalid"],
    ['[{"op":"remove","path":"/j/list/7"}]', "422 invalid"],
    ['[{"op":"add","path":"/j/__proto__/x","value":1}]', "422 invalid"],
    ['[{"op":"copy","from":"/j/none","path":"/s"}]', "422 invalid"],
    ['[{"op":"add","path":"/nope","value":1}]', "422 invalid"],
    ['[{"op":"replace","path":"/version","value":4}]', "422 invalid"],
    ['[{"op":"add","path":"s","value":1}]', "400 malformed_patch"],
    ['[{"op":"add","path":"/~2","value":1}]', "400 malformed_patch"],
    ['[{"op":"add","path":"/s"}]', "400 malformed_patch"],
    ['[{"op":"move","path":"/s"}]', "400 malformed_patch"],
    ["[7]", "400 malformed_patch"],
    ["{}", "400 malformed_patch"]
  ])("%s is %s", (patch, expected) => {
    expect(applied(patch)).toBe(expected)
  })

  it("cannot be made to grow without bound", () => {
    const copies = Array.from({ length: maxCopies }, (_, n) => ({ op: "copy", from: "/j", path: `/j/c${n}` }))
    expect(applied(copies)).toBe("413 payload_too_large")
    expect(applied([...copies, copies[0]])).toBe("400 malformed_patch")
    const tests = Array.from({ length: maxOperations + 1 }, () => ({ op: "test", path: "/s", value: "text" }))
    expect(applied(tests)).toBe("400 malformed_patch")
  })

  it("compares as equal what is equal", () => {
    fc.assert(fc.property(fc.jsonValue(), (value) => sameValue(exact({ value }), exact({ value }))))
    expect(sameValue(exact('{"a":1,"b":[2.0]}'), exact('{"b":[2],"a":1.00}'))).toBe(true)
    expect(sameValue(exact('{"a":1}'), exact('{"a":1,"b":null}'))).toBe(false)
  })
})
