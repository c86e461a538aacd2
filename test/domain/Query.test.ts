import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { parse } from "../../src/domain/ExactJson.ts"
import { fromBody, fromParams, splitList } from "../../src/domain/Query.ts"

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
    [{ include: "a,b,c,d,e" }, "query_too_large"],
    [{ include: "a.b.c.d.e" }, "query_too_large"],
    [Object.fromEntries(Array.from({ length: 65 }, (_, n) => [`filter[f${n}][eq]`, "1"])), "query_too_large"]
  ])("%j is %s", (params, code) => expect(fromParams(params)).toMatchObject({ code }))

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
})
