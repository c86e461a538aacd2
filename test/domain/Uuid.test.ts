import fc from "fast-check"
import { describe, expect, it } from "vitest"
import { isUuid, uuidSource, uuidv7 } from "../../src/domain/Uuid.ts"

const random = fc.uint8Array({ minLength: 10, maxLength: 10 })
const millis = fc.integer({ min: 0, max: 2 ** 48 - 1 })

describe("uuidv7", () => {
  // RFC 9562, appendix A.6
  it("is the RFC's example", () => {
    const bytes = Uint8Array.from([0x0c, 0xc3, 0x18, 0xc4, 0xdc, 0x0c, 0x0c, 0x07, 0x39, 0x8f])
    expect(uuidv7(0x017f22e279b0, bytes)).toBe("017f22e2-79b0-7cc3-98c4-dc0c0c07398f")
  })

  it("has version 7, the variant of RFC 9562 and its time, whatever is drawn", () => {
    fc.assert(
      fc.property(millis, random, (time, bytes) => {
        const id = uuidv7(time, bytes)
        expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/u)
        expect(isUuid(id)).toBe(true)
        expect(Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16)).toBe(time)
      })
    )
  })

  it("sorts by time", () => {
    fc.assert(
      fc.property(millis, millis, random, random, (a, b, first, second) => {
        fc.pre(a < b)
        expect(uuidv7(a, first) < uuidv7(b, second)).toBe(true)
      })
    )
  })

  it("of one source rise strictly: within a millisecond, beyond 4,096 in one, and when the clock goes back", () => {
    let now = 1_700_000_000_000
    const next = uuidSource(
      () => now,
      (bytes) => crypto.getRandomValues(bytes)
    )
    const ids = Array.from({ length: 20_000 }, (_, index) => {
      if (index === 10_000) now -= 60_000
      if (index === 15_000) now += 120_000
      return next()
    })
    for (let index = 1; index < ids.length; index++)
      expect((ids[index - 1] as string) < (ids[index] as string)).toBe(true)
  })

  it.each([
    "",
    "0193",
    "01930000-0000-7000-9000-00000000000G",
    "01930000-0000-7000-9000-00000000000A",
    "{01930000-0000-7000-9000-000000000000}",
    "01930000000070009000000000000000",
    "01930000-0000-7000-9000-000000000000\n"
  ])("%j is none", (text) => expect(isUuid(text)).toBe(false))
})
