import { describe, expect, it } from "vitest"
import { parse } from "../../src/domain/ExactJson.ts"
import type { Values } from "../../src/records/type/InputDecoder.ts"
import { costLimit } from "../../src/records/type/RuleCost.ts"
import { compileRules, ruleFaults } from "../../src/records/type/Rules.ts"
import { specOf } from "./Specs.ts"

const fields = [
  { name: "status", type: "enum", enum: ["draft", "approved"] },
  { name: "supplier", type: "ref", ref: { object: "other", version: "v1" } },
  { name: "qty", type: "integer" },
  { name: "price", type: "number", precision: 30, scale: 10 },
  { name: "due", type: "timestamp" },
  { name: "day", type: "date" },
  { name: "owner", type: "string" },
  { name: "long", type: "string" },
  { name: "tags", type: "json" },
  { name: "raw", type: "bytes" }
]
const withRules = (...rules: Array<string>) =>
  specOf({ fields, validation: { rules: rules.map((rule, index) => ({ rule, message: `rule ${index}` })) } })
const now = Date.UTC(2026, 10, 24)
const values = (text: string) => parse(text) as Values

const judge = (rule: string, self: string, old?: string) => {
  const outcome = compileRules(withRules(rule)).judge({
    self: values(self),
    old: old === undefined ? undefined : values(old),
    now,
    actor: "dev/alice"
  })
  return outcome === undefined ? "holds" : outcome.code
}

describe("Rules", () => {
  it.each([
    ["self.status != 'approved' || has(self.supplier)", '{"status":"draft"}', "holds"],
    ["self.status != 'approved' || has(self.supplier)", '{"status":"approved"}', "invalid"],
    ["self.status != 'approved' || has(self.supplier)", '{"status":"approved","supplier":null}', "invalid"],
    ["self.qty == 9007199254740993", '{"qty":9007199254740993}', "holds"],
    ["self.qty == 9007199254740992", '{"qty":9007199254740993}', "invalid"],
    ["dec.lt(self.price, '0.3')", '{"price":0.2999999999}', "holds"],
    ["dec.eq(dec.add('0.1', '0.2'), self.price)", '{"price":0.30}', "holds"],
    ["dec.gte(dec.mul(self.price, '3'), dec.sub('1', '0.1'))", '{"price":0.3}', "holds"],
    ["self.due > now", '{"due":"2026-11-24T00:00:00.000001Z"}', "holds"],
    ["self.due > now", '{"due":"2026-11-24T05:30:00+05:30"}', "invalid"],
    ["self.day < '2026-12-01'", '{"day":"2026-11-30"}', "holds"],
    ["self.owner == actor", '{"owner":"dev/alice"}', "holds"],
    ["self.tags.all(t, t.size() < 4)", '{"tags":["a","bcd"]}', "holds"],
    ["self.tags.exists(t, t == 7)", '{"tags":[1,7]}', "holds"],
    ["size(self.raw) == 3", '{"raw":"AAEC"}', "holds"],
    ["self.qty > 0", "{}", "rule_error"],
    ["self.qty", '{"qty":1}', "rule_error"],
    ["1 / self.qty > 0", '{"qty":0}', "rule_error"]
  ])("%s on %s: %s", (rule, self, expected) => {
    expect(judge(rule, self)).toBe(expected)
  })

  it("shows the row before, which is without fields on create", () => {
    const rule = "!has(old.qty) || self.qty >= old.qty"
    expect(judge(rule, '{"qty":1}')).toBe("holds")
    expect(judge(rule, '{"qty":1}', '{"qty":2}')).toBe("invalid")
    expect(judge(rule, '{"qty":3}', '{"qty":2}')).toBe("holds")
  })

  it("tells every broken rule by its message and place, and quotes no value", () => {
    const outcome = compileRules(withRules("self.qty > 1", "true", "self.owner == 'x'")).judge({
      self: values('{"qty":0,"owner":"secret"}'),
      old: undefined,
      now,
      actor: "a",
      at: [7]
    })
    expect(outcome?.errors).toEqual([
      { pointer: "/7", code: "rule", detail: "rule 0" },
      { pointer: "/7", code: "rule", detail: "rule 2" }
    ])
  })

  it("refuses values that would make a rule slow", () => {
    const many = JSON.stringify(Array.from({ length: 2000 }, (_, index) => index))
    expect(judge("self.tags.all(t, t >= 0)", `{"tags":${many}}`)).toBe("rule_error")
    expect(judge("self.long.contains('x')", `{"long":"${"y".repeat(70_000)}"}`)).toBe("rule_error")
    // what no rule looks at may be as long as it likes
    expect(judge("self.qty == 1", `{"qty":1,"long":"${"y".repeat(70_000)}"}`)).toBe("holds")
  })

  it.each([
    ["self.nope == 1", "rule"],
    ["other.x == 1", "rule"],
    ["self.qty ==", "rule"],
    ["frob(self.qty)", "rule"],
    ["dec.frob(self.price)", "rule"],
    ["self.tags.all(a, self.tags.all(b, a != b))", "rule_cost"],
    ["self.tags.all(a, self.long.matches('^x'))", "rule_cost"]
  ])("is not admitted: %s", (rule, code) => {
    expect(ruleFaults(withRules(rule)).map((one) => one.code)).toContain(code)
  })

  it("admits what product.md shows, far below the limit", () => {
    const rules = ["self.status != 'approved' || has(self.supplier)", "self.tags.all(t, has(t.n) && t.n in [1, 2, 3])"]
    expect(ruleFaults(withRules(...rules))).toEqual([])
    expect(costLimit).toBeGreaterThan(10_000)
  })
})
