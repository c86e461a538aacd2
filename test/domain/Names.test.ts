import fc from "fast-check"
import { describe, expect, it } from "vitest"
import {
  constraintName,
  domainNameFaults,
  formatPath,
  historyViewOf,
  liveColumn,
  parsePath,
  pgSchemaOf,
  pgTableOf,
  recordNameFaults,
  rolesOf,
  schemaMaxLength
} from "../../src/domain/Names.ts"

const label = fc.stringMatching(/^[a-z]([-a-z0-9]{0,18}[a-z0-9])?$/u).filter((text) => text.length <= 40)
const path = fc.record({
  org: label,
  app: label,
  domain: label,
  object: label,
  version: fc.integer({ min: 1, max: 99_999 }).map((n) => `v${n}`)
})
const bytes = (text: string) => new TextEncoder().encode(text).length

describe("names", () => {
  it("come back from their text", () => {
    fc.assert(
      fc.property(path, (given) => {
        expect(parsePath(formatPath(given))).toEqual(given)
      })
    )
  })

  it("are different texts for different paths", () => {
    fc.assert(
      fc.property(path, path, (a, b) => {
        fc.pre(JSON.stringify(a) !== JSON.stringify(b))
        expect(formatPath(a)).not.toBe(formatPath(b))
      })
    )
  })

  it("fit into PostgreSQL's 63 bytes, or are refused", () => {
    fc.assert(
      fc.property(path, (given) => {
        fc.pre(recordNameFaults(given).length === 0)
        const schema = pgSchemaOf(given)
        const table = pgTableOf(given)
        for (const name of [...Object.values(rolesOf(schema)), historyViewOf(table)]) {
          expect(bytes(name), name).toBeLessThanOrEqual(63)
        }
      })
    )
  })

  it("are refused and not cut when they are too long", () => {
    const long = { org: "a".repeat(20), app: "b".repeat(20), domain: "c".repeat(20) }
    expect(pgSchemaOf(long).length).toBeGreaterThan(schemaMaxLength)
    expect(domainNameFaults(long).map((fault) => fault.code)).toEqual(["name_too_long"])
  })

  it.each(["pg", "pg-shop", "platform", "velocity"])("keep %s for ourselves", (org) => {
    expect(domainNameFaults({ org, app: "a", domain: "d" }).map((fault) => fault.code)).toEqual(["reserved_name"])
  })

  it.each([
    "a/b/c/d",
    "a/b/c/d/v0",
    "a/b/c/d/1",
    "A/b/c/d/v1",
    "a_b/b/c/d/v1",
    "a/b/c/d/v1/e",
    "-a/b/c/d/v1",
    "a-/b/c/d/v1",
    "a//c/d/v1",
    `${"a".repeat(41)}/b/c/d/v1`
  ])("refuse %s", (text) => expect(parsePath(text)).toBeUndefined())

  it("of constraints differ by table, columns, order and purpose", () => {
    const names = new Set([
      constraintName("uq", "t_v1", ["a"]),
      constraintName("uq", "t_v2", ["a"]),
      constraintName("uq", "t_v1", ["b"]),
      constraintName("uq", "t_v1", ["a", "b"]),
      constraintName("uq", "t_v1", ["b", "a"]),
      constraintName("uq", "t_v1", ["a"], "min"),
      constraintName("ck", "t_v1", ["a"])
    ])
    expect(names.size).toBe(7)
    expect(liveColumn("supplier")).not.toBe(liveColumn("store"))
  })
})
