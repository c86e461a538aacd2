import { describe, expect, it } from "vitest"
import { fingerprintOf, keyEnvironment, keyText, newKey } from "../../src/domain/KeyText.ts"
import { sha256Hex } from "../../src/domain/Sha256.ts"

describe("an API key as text", () => {
  it("is vel_, its environment, and 43 characters that stand for 32 bytes", () => {
    expect(keyText("live", new Uint8Array(32))).toBe(`vel_live_${"A".repeat(43)}`)
    expect(keyText("dev", new Uint8Array(32).fill(255))).toBe(`vel_dev_${"_".repeat(42)}8`)
    expect(
      keyText(
        "t1",
        Uint8Array.from({ length: 32 }, (_, index) => 251 - index)
      )
    ).toMatch(/^vel_t1_[A-Za-z0-9_-]{43}$/u)
  })

  it("is another each time, and names its environment", () => {
    const made = new Set(Array.from({ length: 1_000 }, () => newKey("live")))
    expect(made.size).toBe(1_000)
    for (const one of made) expect(keyEnvironment(one)).toBe("live")
  })

  it("is nothing else: cut, longer, padded, of other letters, or with bits that stand for nothing", () => {
    const key = newKey("live")
    const others = [
      "",
      "vel_",
      key.slice(0, -1),
      `${key}A`,
      `${key}=`,
      ` ${key}`,
      `${key}\n`,
      key.toUpperCase(),
      key.replace("vel_", "val_"),
      key.replace("vel_live_", "vel__"),
      key.replace("vel_live_", "vel_Live_"),
      key.replace("vel_live_", `vel_${"l".repeat(17)}_`),
      `${key.slice(0, -1)}+`,
      // B, as its last character, would have a bit of no byte
      `vel_live_${"A".repeat(42)}B`,
      "vel_live_".padEnd(1_000_000, "A")
    ]
    for (const one of others) expect(keyEnvironment(one), one.slice(0, 80)).toBeUndefined()
  })

  it("is called by its hash", () => {
    expect(fingerprintOf(sha256Hex(`vel_live_${"A".repeat(43)}`))).toMatch(/^[0-9a-f]{16}$/u)
  })
})
