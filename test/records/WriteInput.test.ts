import * as Result from "effect/Result"
import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { type ExactValue, parse } from "../../src/domain/ExactJson.ts"
import { compileDecoder, documentOf, type Mode } from "../../src/records/type/InputDecoder.ts"
import { specOf } from "./Specs.ts"

const everyType = specOf({
  fields: [
    { name: "s", type: "string", required: true, minLength: 2, maxLength: 4, pattern: "^[a-zé𝒳]+$" },
    { name: "i", type: "integer", min: "-5", max: "9007199254740993" },
    { name: "n", type: "number", precision: 12, scale: 4, min: "0", max: "99999999.9999" },
    { name: "free", type: "number" },
    { name: "fl", type: "number", float: true },
    { name: "b", type: "boolean", default: true },
    { name: "d", type: "date" },
    { name: "t", type: "time" },
    { name: "ts", type: "timestamp" },
    { name: "u", type: "uuid" },
    { name: "j", type: "json", default: '{"a":1.10}' },
    { name: "e", type: "enum", enum: ["draft", "done"], default: "draft" },
    { name: "r", type: "ref", ref: { object: "other", version: "v1" } },
    { name: "by", type: "bytes", maxLength: 3 },
    { name: "secret", type: "string", access: { read: ["admin"], write: ["admin"] } },
    { name: "blind", type: "string", access: { read: ["admin"], write: ["buyer", "admin"] } }
  ]
})
const decoder = compileDecoder(everyType)
const uuid = "0192a000-0000-7000-8000-000000000000"

const decode = (text: string, mode: Mode = "create", roles = ["buyer"]) =>
  decoder.decode(parse(text) as ExactValue, mode, roles)
const valuesOf = (text: string, mode?: Mode, roles?: Array<string>) =>
  JSON.parse(documentOf(Result.getOrThrow(decode(text, mode, roles)).values))
/** `pointer code` of each fault. */
const faultsOf = (text: string, mode?: Mode, roles?: Array<string>) => {
  const outcome = decode(text, mode, roles)
  if (Result.isSuccess(outcome)) return []
  return [outcome.failure.code, ...(outcome.failure.errors ?? []).map((one) => `${one.pointer} ${one.code}`)]
}

describe("InputDecoder", () => {
  it("takes a value of every type as it is", () => {
    const { values } = Result.getOrThrow(
      decode(
        `{"s":"é𝒳","i":9007199254740993,"n":12345678.1000,"free":1.10,"fl":1e300,"b":false,"d":"2024-02-29","t":"23:59:59.123456",
          "ts":"2026-11-24T13:30:00.000001+05:30","u":"${uuid}","j":{"x":[1.50,null]},"e":"done","r":"${uuid}","by":"AAEC"}`
      )
    )
    expect(documentOf(values)).toBe(
      `{"s":"é𝒳","i":9007199254740993,"n":12345678.1000,"free":1.10,"fl":1e+300,"b":false,"d":"2024-02-29","t":"23:59:59.123456",` +
        `"ts":"2026-11-24T13:30:00.000001+05:30","u":"${uuid}","j":{"x":[1.50,null]},"e":"done","r":"${uuid}","by":"AAEC"}`
    )
  })

  it("fills absent fields with defaults, and leaves an explicit null", () => {
    expect(valuesOf('{"s":"ab"}')).toEqual({ s: "ab", b: true, j: { a: 1.1 }, e: "draft" })
    expect(valuesOf('{"s":"ab","b":null,"e":null,"j":null}')).toEqual({ s: "ab", b: null, e: null, j: null })
    expect(documentOf(Result.getOrThrow(decode('{"s":"ab"}')).values)).toContain('"j":{"a":1.10}')
  })

  it("tells every fault at once", () => {
    expect(
      faultsOf(
        `{"i":1.5,"n":0.00001,"b":"yes","d":"2026-02-30","t":"24:00:00","ts":"2026-01-01T00:00:00","u":"X","j":"\\u0000",
          "e":"no","r":"7","by":"A","fl":1e999,"nope":1}`
      )
    ).toEqual([
      "invalid",
      "/i type",
      "/n scale",
      "/b type",
      "/d format",
      "/t format",
      "/ts format",
      "/u format",
      "/j nul_character",
      "/e enum",
      "/r format",
      "/by format",
      "/fl out_of_range",
      "/nope unknown_field",
      "/s required"
    ])
  })

  it.each([
    ['{"s":"a"}', "/s min_length"],
    ['{"s":"abcde"}', "/s max_length"],
    ['{"s":"AB"}', "/s pattern"],
    ['{"s":null}', "/s required"],
    ['{"s":1}', "/s type"],
    ['{"s":"a\\u0000"}', "/s nul_character"],
    ['{"s":"a\\ud800"}', "/s lone_surrogate"],
    ['{"s":"ab","i":9007199254740994}', "/i max"],
    ['{"s":"ab","i":-6}', "/i min"],
    ['{"s":"ab","i":9223372036854775808}', "/i out_of_range"],
    ['{"s":"ab","i":"5"}', "/i type"],
    ['{"s":"ab","n":-0.0001}', "/n min"],
    ['{"s":"ab","n":123456789}', "/n precision", "/n max"],
    ['{"s":"ab","n":1e2000}', "/n precision", "/n max"],
    ['{"s":"ab","n":1e99999}', "/n out_of_range"],
    ['{"s":"ab","n":"NaN"}', "/n type"],
    ['{"s":"ab","fl":1e-400}', "/fl out_of_range"],
    ['{"s":"ab","by":"AAECAw=="}', "/by max_length"],
    ['{"s":"ab","by":"AAF="}', "/by format"],
    ['{"s":"ab","by":"AB=="}', "/by format"],
    ['{"s":"ab","j":{"a":[{"b":"\\u0000"}]}}', "/j/a/0/b nul_character"],
    ['{"s":"ab","j":{"a":1e5000}}', "/j/a out_of_range"],
    [`{"s":"ab","id":"${uuid}"}`, "/id read_only"],
    ['{"s":"ab","_masked":{}}', "/_masked unknown_field"],
    ['{"s":"ab","__proto__":{}}', "/__proto__ unknown_field"],
    ["[]", " type"],
    ["null", " type"]
  ])("refuses %s", (text, ...expected) => {
    expect(faultsOf(text)).toEqual(["invalid", ...expected])
  })

  it("takes no json whose exponents stand for far more digits than were sent", () => {
    const many = (count: number) => `{"s":"ab","j":[${Array.from({ length: count }, () => "1e900").join()}]}`
    expect(faultsOf(many(73))).toEqual([])
    expect(faultsOf(many(50_000))).toEqual(["invalid", "/j/73 out_of_range"])
  })

  it("lists a thousand faults at most", () => {
    const unknown = JSON.stringify(Object.fromEntries(Array.from({ length: 5000 }, (_, n) => [`x${n}`, n])))
    expect(faultsOf(unknown)).toHaveLength(1001)
  })

  it("counts code points and judges whole numbers by value", () => {
    expect(faultsOf('{"s":"𝒳𝒳𝒳𝒳"}')).toEqual([])
    expect(valuesOf('{"s":"ab","i":5.0,"n":1e2}')).toMatchObject({ i: 5, n: 100 })
    expect(faultsOf('{"s":"ab","n":1.50000}')).toEqual([])
  })

  it("refuses a field that may not be written, whatever else is wrong", () => {
    expect(faultsOf('{"s":1,"secret":"x"}')).toEqual(["field_not_writable", "/s type", "/secret field_not_writable"])
    expect(faultsOf('{"s":"ab","secret":"x"}', "create", ["admin"])).toEqual([])
    expect(faultsOf('{"secret":null}', "patch")).toEqual(["field_not_writable", "/secret field_not_writable"])
  })

  it("lets PUT replace what is read and written, and nothing else", () => {
    expect(valuesOf('{"s":"ab","e":null}', "put")).toEqual({
      s: "ab",
      i: null,
      n: null,
      free: null,
      fl: null,
      b: true,
      d: null,
      t: null,
      ts: null,
      u: null,
      j: { a: 1.1 },
      e: null,
      r: null,
      by: null
    })
    expect(faultsOf('{"s":"ab","blind":"x"}', "put")).toEqual(["field_not_readable", "/blind field_not_readable"])
    expect(valuesOf('{"blind":"x"}', "patch")).toEqual({ blind: "x" })
    expect(valuesOf('{"s":"ab","blind":null}', "put", ["admin"])).toMatchObject({ blind: null, secret: null })
  })

  it("hands system columns on for comparison, and refuses what they can never be", () => {
    const { system } = Result.getOrThrow(
      decode(`{"id":"${uuid}","version":3,"deleted_at":null,"updated_at":"2026-01-01T00:00:00+00:00"}`, "patch")
    )
    expect(Object.keys(system)).toEqual(["id", "version", "deleted_at", "updated_at"])
    expect(faultsOf('{"version":"3"}', "patch")).toEqual(["invalid", "/version type"])
    expect(faultsOf('{"_masked":{"secret":null}}', "patch")).toEqual([])
  })

  it("takes time in proportion to the text for any pattern", () => {
    const nasty = compileDecoder(specOf({ fields: [{ name: "s", type: "string", pattern: "^(a+)+$" }] }))
    const outcome = nasty.decode({ s: `${"a".repeat(50_000)}b` }, "create", ["buyer"])
    expect(Result.isFailure(outcome)).toBe(true)
  })

  it("refuses long numbers before computing with them", () => {
    const text = `0.${"0".repeat(200_000)}1`
    expect(faultsOf(`{"s":"ab","n":${text}}`)).toEqual(["invalid", "/n out_of_range"])
    expect(faultsOf(`{"s":"ab","j":${text}}`)).toEqual(["invalid", "/j out_of_range"])
  })

  it("bounds the depth of what a patch put together", () => {
    let deep: ExactValue = "x"
    for (let level = 0; level < 31; level++) deep = [deep]
    expect(Result.isSuccess(decoder.recheck({ j: deep }, ["j"]))).toBe(true)
    expect(Result.isSuccess(decoder.recheck({ j: [deep] }, ["j"]))).toBe(false)
  })

  it("answers any JSON with values or faults, and never throws", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 3 }), fc.constantFrom<Mode>("create", "put", "patch"), (text, mode) => {
        try {
          parse(text)
        } catch {
          return
        }
        decode(text, mode)
      })
    )
    const names = everyType.fields.map((field) => field.name)
    fc.assert(
      fc.property(fc.dictionary(fc.constantFrom(...names), fc.jsonValue()), (body) => {
        const outcome = decode(JSON.stringify(body), "patch", ["admin"])
        if (Result.isSuccess(outcome)) {
          expect(Object.keys(outcome.success.values).sort()).toEqual(Object.keys(body).sort())
        } else {
          expect(outcome.failure.errors?.length).toBeGreaterThan(0)
        }
      })
    )
  })
})
