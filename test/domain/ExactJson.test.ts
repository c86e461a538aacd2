import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  compareDecimals,
  decimalText,
  ExactJsonError,
  type ExactNumber,
  parse,
  stringify
} from "../../src/domain/ExactJson.ts"

const reasonOf = (text: string): string | undefined => {
  try {
    parse(text)
    return undefined
  } catch (error) {
    return error instanceof ExactJsonError ? error.reason : String(error)
  }
}

describe("exact JSON", () => {
  it.each([
    "0.1",
    "1.10",
    "9007199254740993",
    "-12345678901234567890123456789012345678",
    "0.00000000000000000001",
    "1e400"
  ])("keeps %s as it was written", (text) => {
    expect(stringify(parse(`{"a":[${text}]}`))).toBe(`{"a":[${text}]}`)
    expect((parse(text) as ExactNumber).text).toBe(text)
  })

  it("reads whatever JSON.stringify writes", () => {
    fc.assert(
      fc.property(fc.json({ maxDepth: 8 }), (text) => {
        const value: unknown = JSON.parse(text)
        expect(JSON.parse(stringify(parse(JSON.stringify(value))))).toEqual(value)
      })
    )
  })

  it("refuses depth before anything recurses", () => {
    expect(reasonOf(`${"[".repeat(1000)}${"]".repeat(1000)}`)).toBe("depth")
    expect(reasonOf("[".repeat(10_000_000))).toBe("depth")
    expect(reasonOf(`${'{"a":'.repeat(32)}1${"}".repeat(32)}`)).toBeUndefined()
    expect(reasonOf(`${'{"a":'.repeat(33)}1${"}".repeat(33)}`)).toBe("depth")
  })

  it.each(['{"a":1,"a":2}', '{"a":1,"\\u0061":2}', '[{"b":{"c":1,"c":1}}]', '{"__proto__":1,"__proto__":2}'])(
    "refuses a member named twice: %s",
    (text) => expect(reasonOf(text)).toBe("duplicate")
  )

  it.each([
    "",
    "{",
    "01",
    "+1",
    ".5",
    "NaN",
    "Infinity",
    "'a'",
    '{"a":}',
    '["\u0001"]',
    '"\\x"',
    '{"a" "b"}',
    "1 2",
    '{"a":"b}'
  ])("refuses what RFC 8259 does not know: %j", (text) => expect(reasonOf(text)).toBe("syntax"))

  it("takes equal names of different objects for different members", () => {
    expect(reasonOf('[{"a":1},{"a":{"a":["a"]}}]')).toBeUndefined()
  })

  it.each([
    ["1.5e3", "1500"],
    ["1.5E-3", "0.0015"],
    ["-12e-1", "-1.2"],
    ["1.10", "1.10"],
    ["1e0", "1"],
    ["120e-2", "1.20"],
    ["0.001e3", "1"],
    ["1e2001", undefined]
  ])("writes %s without exponent as %s", (text, expected) => expect(decimalText(text)).toBe(expected))

  it("compares decimals as numbers, beyond any float", () => {
    const decimal = fc.tuple(fc.bigInt({ min: -(10n ** 40n), max: 10n ** 40n }), fc.integer({ min: 0, max: 20 }))
    const write = ([digits, scale]: readonly [bigint, number]) => {
      const text = (digits < 0n ? -digits : digits).toString().padStart(scale + 1, "0")
      const whole = text.slice(0, text.length - scale)
      return `${digits < 0n ? "-" : ""}${whole}${scale === 0 ? "" : `.${text.slice(text.length - scale)}`}`
    }
    fc.assert(
      fc.property(decimal, decimal, (a, b) => {
        const left = a[0] * 10n ** BigInt(20 - a[1])
        const right = b[0] * 10n ** BigInt(20 - b[1])
        expect(compareDecimals(write(a), write(b))).toBe(left < right ? -1 : left > right ? 1 : 0)
      })
    )
  })
})
