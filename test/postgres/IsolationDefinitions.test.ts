/** Policies judged by the definitions that ask for them, those that are on their way out among them. */
import { describe, expect, it } from "vitest"
import { judgeDefinitions } from "../../src/postgres/IsolationDefinitions.ts"

const policy = (qual: string) => ({
  schema: "acme_shop_eu",
  table: "thing_v1",
  name: "velocity_select",
  cmd: "SELECT",
  qual,
  with_check: null
})
const table = { pg_schema: "acme_shop_eu", pg_table: "thing_v1" }
const plain = { ...table, path: "acme/shop/eu/thing/v1", access: {}, leaving: false }
const filtered = {
  ...table,
  path: "acme/shop/eu/thing/v2",
  access: { roles: [{ role: "buyer", operations: ["read"] }], rowFilters: [{ role: "buyer" }] },
  leaving: false
}
const leaving = { ...table, path: "acme/shop/eu/thing/v2", access: null, leaving: true }
const filter = "platform.has_role('{buyer}'::text[])"

const codes = (definitions: ReadonlyArray<Readonly<Record<string, unknown>>>, qual: string) =>
  judgeDefinitions(definitions, [policy(qual)]).map((one) => one.code)

describe("a policy of a tenant's table", () => {
  it("is asked for by a definition that is served, or that is being withdrawn", () => {
    expect(codes([], "true")).toEqual(["unexpected_policy"])
    expect(codes([plain], "true")).toEqual([])
    expect(codes([leaving], "true")).toEqual([])
    expect(codes([leaving], filter)).toEqual([])
  })

  it("has a filter only where one of those whose rows it shows has, or may have had", () => {
    expect(codes([plain], filter)).toEqual(["unexpected_policy"])
    expect(codes([plain, filtered], filter)).toEqual([])
    expect(codes([plain, leaving], filter)).toEqual([])
  })

  it("is not opened where one that stays has filters, whatever else is on its way out", () => {
    expect(codes([filtered], "true")).toEqual(["open_policy"])
    expect(codes([filtered, leaving], "true")).toEqual(["open_policy"])
  })
})
