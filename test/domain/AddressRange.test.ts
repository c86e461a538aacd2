import { describe, expect, it } from "vitest"
import { isWithin, parseRange } from "../../src/domain/AddressRange.ts"

const within = (address: string, ...ranges: ReadonlyArray<string>): boolean =>
  isWithin(
    address,
    ranges.map((one) => {
      const range = parseRange(one)
      if (range === undefined) throw new Error(`${one} is no range`)
      return range
    })
  )

describe("a range of addresses", () => {
  it("has the addresses of its prefix and no other", () => {
    expect(within("192.0.2.7", "192.0.2.7")).toBe(true)
    expect(within("192.0.2.8", "192.0.2.7")).toBe(false)
    expect(within("10.255.255.255", "10.0.0.0/8")).toBe(true)
    expect(within("11.0.0.0", "10.0.0.0/8")).toBe(false)
    expect(within("9.255.255.255", "10.0.0.0/8")).toBe(false)
    expect(within("192.0.2.129", "192.0.2.128/25")).toBe(true)
    expect(within("192.0.2.127", "192.0.2.128/25")).toBe(false)
    // bits behind the prefix say nothing
    expect(within("10.1.2.3", "10.9.9.9/8")).toBe(true)
    expect(within("203.0.113.9", "0.0.0.0/0")).toBe(true)
    expect(within("2001:db8::1", "2001:db8::/32")).toBe(true)
    expect(within("2001:db9::1", "2001:db8::/32")).toBe(false)
    expect(within("2001:DB8:0:0:0:0:0:1", "2001:db8::1")).toBe(true)
    expect(within("::1", "::1")).toBe(true)
    expect(within("::2", "::1/127")).toBe(false)
    expect(within("::3", "::2/127")).toBe(true)
  })

  it("is of one family: all of IPv6 is no IPv4, and the other way round", () => {
    expect(within("10.0.0.1", "::/0")).toBe(false)
    expect(within("2001:db8::1", "0.0.0.0/0")).toBe(false)
  })

  it("knows an IPv4 client behind a socket of both families, and an address with a zone", () => {
    expect(within("::ffff:10.1.2.3", "10.0.0.0/8")).toBe(true)
    expect(within("::ffff:0a01:0203", "10.0.0.0/8")).toBe(true)
    expect(within("::ffff:10.1.2.3", "::/0")).toBe(false)
    expect(within("fe80::1%eth0", "fe80::/10")).toBe(true)
  })

  it("has nothing that is no address", () => {
    for (const one of ["", "localhost", "10.0.0", "10.0.0.1:80", "[::1]", "10.0.0.256", "undefined"]) {
      expect(within(one, "0.0.0.0/0", "::/0"), one).toBe(false)
    }
    expect(within("10.0.0.1")).toBe(false)
  })

  it("is refused where two readers could read two", () => {
    const bad = [
      "",
      "/8",
      "10.0.0.0/",
      "10.0.0.0/33",
      "10.0.0.0/-1",
      "10.0.0.0/08",
      "10.0.0.0/8/8",
      "10.0.0",
      "010.0.0.1",
      "256.0.0.1",
      "10.0.0.1.2",
      "::/129",
      "1:2:3:4:5:6:7",
      "1:2:3:4:5:6:7:8:9",
      "1::2::3",
      "1:2:3:4:5:6:7::8:9",
      ":1::2",
      "12345::",
      "g::",
      "::ffff:10.0.0.0/104",
      "::ffff:10.0.0.1",
      "fe80::1%eth0",
      "example.org"
    ]
    for (const one of bad) expect(parseRange(one), one).toBeUndefined()
    for (const one of ["0.0.0.0/0", "::", "::/0", "1:2:3:4:5:6:7:8", "1::8", "1:2:3:4:5:6:7::", "64:ff9b::192.0.2.1"]) {
      expect(parseRange(one), one).toBeDefined()
    }
  })
})
