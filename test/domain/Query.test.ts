import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { parse } from "../../src/domain/ExactJson.ts"
import { fieldTypes } from "../../src/domain/Field.ts"
import { operatorsOf, queryOperators } from "../../src/domain/Query.ts"
import { fromBody } from "../../src/domain/QueryBody.ts"
import { fromParams, splitList } from "../../src/domain/QueryParams.ts"

const body = (value: unknown) => fromBody(parse(JSON.stringify(value)))
const faultsOf = (parsed: ReturnType<typeof fromBody>) =>
  "faults" in parsed ? { code: parsed.code, at: parsed.faults.map((fault) => fault.pointer) } : undefined

describe("the query of a URL", () => {
  it("is the same tree as the query of a body", () => {
    const url = fromParams({
      "filter[status][eq]": "draft",
      "filter[amount][gte]": "10",
      "filter[name][in]": 'a,"b,c","say ""so"""',
      "filter[note][is_null]": "true",
      sort: "-amount,po_number",
      select: "a,supplier.name",
      include: "supplier",
      limit: "10",
      count: "exact",
      deleted: "with"
    })
    const tree = body({
      where: {
        and: [
          { field: "status", op: "eq", value: "draft" },
          { field: "amount", op: "gte", value: "10" },
          { field: "name", op: "in", value: ["a", "b,c", 'say "so"'] },
          { field: "note", op: "is_null", value: true }
        ]
      },
      sort: ["-amount", "po_number"],
      select: ["a", "supplier.name"],
      include: ["supplier"],
      limit: 10,
      count: "exact",
      deleted: "with"
    })
    expect(url).toEqual(tree)
    expect("query" in url).toBe(true)
  })

  it("ANDs repeated keys", () => {
    const parsed = fromParams({ "filter[a][gt]": ["1", "2"] })
    expect(parsed).toMatchObject({ query: { where: { and: [{ value: "1" }, { value: "2" }] } } })
  })

  it.each([
    [{ filters: "x" }, "malformed_query"],
    [{ "filter[a]": "x" }, "malformed_query"],
    [{ "filter[a][is]": "x" }, "unknown_operator"],
    [{ "filter[a][between]": "1" }, "malformed_query"],
    [{ "filter[a][in]": '"b' }, "malformed_query"],
    [{ "filter[a][is_null]": "maybe" }, "malformed_query"],
    [{ limit: "0" }, "malformed_query"],
    [{ limit: "1e2" }, "malformed_query"],
    [{ limit: "1001" }, "query_too_large"],
    [{ sort: "a,-a" }, "malformed_query"],
    [{ sort: "" }, "malformed_query"],
    [{ cursor: ["a", "b"] }, "malformed_query"],
    [{ count: "all" }, "malformed_query"],
    [{ select: "" }, "malformed_query"],
    [{ select: "a,,b" }, "malformed_query"],
    [{ include: "" }, "malformed_query"],
    [{ deleted: "no" }, "malformed_query"],
    [{ limit: "-1" }, "malformed_query"],
    [{ limit: "" }, "malformed_query"],
    [{ "filter[a][EQ]": "x" }, "unknown_operator"],
    [{ "filter[a][eq][b]": "x" }, "malformed_query"],
    [{ "filter[a][between]": "1,2,3" }, "malformed_query"],
    [{ "filter[a][in]": 'a"b' }, "malformed_query"],
    [{ "filter[a][in]": "1,".repeat(500) }, "query_too_large"],
    [{ q: "word" }, "malformed_query"],
    [{ at: "2026-01-01T00:00:00Z" }, "malformed_query"],
    [{ include: "a,b,c,d,e" }, "query_too_large"],
    [{ include: "a.b.c.d.e" }, "query_too_large"],
    [Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`filter[f${n}][eq]`, "1"])), "query_too_large"]
  ])("%j is %s", (params, code) => expect(fromParams(params)).toMatchObject({ code }))

  it("names every fault at once, each at its parameter", () => {
    const parsed = fromParams({ colour: "red", limit: "x", "filter[a][is]": "1", sort: "b,b" })
    expect(faultsOf(parsed)).toEqual({
      code: "malformed_query",
      at: ["/colour", "/filter[a][is]", "/sort", "/limit"]
    })
  })

  it("has its defaults", () => {
    expect(fromParams({})).toEqual({ query: { sort: [], include: [], limit: 50 } })
    expect(body({})).toEqual(fromParams({}))
  })

  it("is the same tree as that of a body, whatever is asked", () => {
    const name = fc.stringMatching(/^[a-z][a-z0-9_]{0,8}$/u)
    const quoted = (value: string) => `"${value.replaceAll('"', '""')}"`
    const condition = fc.oneof(
      fc
        .tuple(name, fc.constantFrom("eq", "neq", "lt", "lte", "gt", "gte", "like", "ilike", "contains"), fc.string())
        .map(([field, op, value]) => ({ leaf: { field, op, value: value as unknown }, text: value })),
      fc.tuple(name, fc.array(fc.string(), { minLength: 1, maxLength: 4 })).map(([field, value]) => ({
        leaf: { field, op: "in", value: value as unknown },
        text: value.map(quoted).join(",")
      })),
      fc.tuple(name, fc.string(), fc.string()).map(([field, a, b]) => ({
        leaf: { field, op: "between", value: [a, b] as unknown },
        text: [a, b].map(quoted).join(",")
      })),
      fc
        .tuple(name, fc.boolean())
        .map(([field, value]) => ({ leaf: { field, op: "is_null", value: value as unknown }, text: String(value) }))
    )
    const rest = fc.record(
      {
        sort: fc
          .uniqueArray(name, { minLength: 1, maxLength: 4 })
          .map((names) => names.map((one, n) => (n % 2 ? `-${one}` : one))),
        select: fc.array(name, { minLength: 1, maxLength: 4 }),
        include: fc.array(name, { minLength: 1, maxLength: 4 }),
        limit: fc.integer({ min: 1, max: 1000 }),
        cursor: fc.base64String({ minLength: 1 }),
        count: fc.constantFrom("exact", "estimated"),
        deleted: fc.constantFrom("only", "with")
      },
      { requiredKeys: [] }
    )
    const conditions = fc.uniqueArray(condition, { maxLength: 6, selector: ({ leaf }) => `${leaf.field} ${leaf.op}` })
    fc.assert(
      fc.property(conditions, rest, (given, others) => {
        const url = fromParams({
          ...Object.fromEntries(given.map(({ leaf, text }) => [`filter[${leaf.field}][${leaf.op}]`, text])),
          ...Object.fromEntries(
            Object.entries(others).map(([key, value]) => [key, Array.isArray(value) ? value.join(",") : String(value)])
          )
        })
        const leaves = given.map(({ leaf }) => leaf)
        const where = leaves.length === 0 ? {} : { where: leaves.length === 1 ? leaves[0] : { and: leaves } }
        expect("query" in url).toBe(true)
        expect(url).toEqual(body({ ...where, ...others }))
      })
    )
  })

  it("splits what a CSV writer joins", () => {
    const quoted = (value: string) => (/[",]/u.test(value) || value === "" ? `"${value.replaceAll('"', '""')}"` : value)
    fc.assert(
      fc.property(fc.array(fc.string(), { minLength: 1 }), (values) => {
        expect(splitList(values.map(quoted).join(","))).toEqual(values)
      })
    )
  })
})

describe("the query of a body", () => {
  it.each([
    [[], "malformed_query", [""]],
    [{ where: [] }, "malformed_query", ["/where"]],
    [{ where: { field: "a", op: "eq" } }, "malformed_query", ["/where"]],
    [{ where: { field: "a", op: "eq", value: 1, extra: 1 } }, "malformed_query", ["/where"]],
    [{ where: { and: [] } }, "malformed_query", ["/where/and"]],
    [{ where: { or: [{ field: "a", op: "was", value: 1 }] } }, "unknown_operator", ["/where/or/0/op"]],
    [{ where: { not: { field: "a", op: "in", value: 1 } } }, "malformed_query", ["/where/not/value"]],
    [{ limit: "10" }, "malformed_query", ["/limit"]],
    [{ sort: "a" }, "malformed_query", ["/sort"]],
    [{ colour: 1 }, "malformed_query", ["/colour"]]
  ])("%j is %s at %j", (value, code, at) => expect(faultsOf(body(value))).toEqual({ code, at }))

  it("is bounded in terms", () => {
    const terms = (n: number) => ({
      where: { or: Array.from({ length: n }, () => ({ field: "a", op: "eq", value: 1 })) }
    })
    expect("query" in body(terms(64))).toBe(true)
    expect(faultsOf(body(terms(65)))?.code).toBe("query_too_large")
  })

  it("is bounded in depth, and a deeper one costs nothing", () => {
    const nested = (levels: number) => {
      let where: unknown = { field: "a", op: "eq", value: "1" }
      for (let level = 1; level < levels; level++) where = { not: where }
      return JSON.stringify({ where })
    }
    // 30 levels of conditions in an object, in the 32 levels that JSON may have
    expect("query" in fromBody(parse(nested(31)))).toBe(true)
    expect(faultsOf(fromBody(parse(nested(33), { maxDepth: 64 })))?.code).toBe("query_too_large")
    expect(() => parse(nested(1000))).toThrow("nested deeper than 32")
  })

  it("keeps numbers as they were written", () => {
    const parsed = fromBody(parse('{"where":{"field":"a","op":"eq","value":9007199254740993.10}}'))
    expect(JSON.stringify(parsed)).toContain("9007199254740993.10")
  })
})

describe("operators by type", () => {
  it.each(fieldTypes)("%s can be asked for equality or its absence, and every other one is known", (type) => {
    const operators = operatorsOf(type)
    expect(operators).toEqual(expect.arrayContaining(["eq", "neq", "is_null"]))
    for (const operator of operators) expect(queryOperators).toContain(operator)
  })

  it("of an enum are the four that the grammar gives it", () => {
    expect(operatorsOf("enum")).toEqual(["eq", "neq", "in", "is_null"])
  })

  it("of text alone have wildcards, and only text and json contain something", () => {
    expect(fieldTypes.filter((type) => operatorsOf(type).includes("like"))).toEqual(["string"])
    expect(fieldTypes.filter((type) => operatorsOf(type).includes("contains"))).toEqual(["string", "json"])
  })
})
