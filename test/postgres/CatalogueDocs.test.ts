/** What `npm run generate` writes into docs/architecture/, and that the hand-written tables beside it are complete. */
import * as Fs from "node:fs/promises"
import * as Path from "node:path"
import { layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Redacted from "effect/Redacted"
import { expect, it as plain } from "vitest"
import * as CatalogueDocs from "../../src/postgres/CatalogueDocs.ts"
import { catalogueRules } from "../../src/postgres/IsolationRules.ts"
import { Database, query } from "../support/Database.ts"

const page = (name: string) =>
  Fs.readFile(Path.resolve(import.meta.dirname, "..", "..", "docs", "architecture", name), "utf8")

plain("parts are put in again and again with the same result", () => {
  const text = "a\n<!-- generated:begin x -->\nold\n<!-- generated:end x -->\nb <!-- c -->\n"
  const once = CatalogueDocs.fill(text, { x: "new\n$1\n" })
  expect(once).toBe("a\n<!-- generated:begin x -->\nnew\n$1\n<!-- generated:end x -->\nb <!-- c -->\n")
  expect(CatalogueDocs.fill(once, { x: "new\n$1\n" })).toBe(once)
  expect(CatalogueDocs.fill(text, { x: "" })).toContain("begin x -->\n\n<!--")
})

plain("a part that nobody makes, and one without an end, are refused by name", () => {
  const broken = "<!-- generated:begin x -->\n<!-- generated:begin y -->\n<!-- generated:end y -->\n"
  expect(() => CatalogueDocs.fill(broken, { y: "" })).toThrow("nothing makes the part x")
  expect(() => CatalogueDocs.fill(broken, { x: "", y: "" })).toThrow("the part x has no end")
})

plain("every code of the isolation check is explained", async () => {
  const text = await page("rls-and-grants.md")
  const found = [...catalogueRules.matchAll(/select (?:distinct )?'([a-z_]+)',/g)].map((match) => match[1])
  const codes = [...found, "superuser", "bypassrls", "role_attribute", "open_policy"]
  expect(new Set(codes).size).toBeGreaterThan(25)
  for (const code of new Set(codes)) expect(text, code).toContain(`\`${code}\``)
})

layer(Database.layer, { excludeTestServices: true })("the catalogue", (it) => {
  it.effect("says of every table, sequence of ours and function what it is for", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Database
      const blocks = yield* CatalogueDocs.read(Redacted.make(superuserUrl))
      for (const [name, text] of Object.entries(blocks))
        expect(text, name).not.toMatch(/\bnull\b(?! \|)|undefined|\[object/)
      const silent = yield* query(
        superuserUrl,
        `select relname::text as name from pg_class where relnamespace = 'platform'::regnamespace and relkind in ('r', 'p') and not relispartition and obj_description(oid, 'pg_class') is null
         union all select proname::text from pg_proc where pronamespace = 'platform'::regnamespace and obj_description(oid, 'pg_proc') is null`
      )
      expect(silent).toEqual([])
    })
  )

  it.effect("raises no SQLSTATE of ours that the page does not explain", () =>
    Effect.gen(function* () {
      const { superuserUrl } = yield* Database
      const rows = yield* query(
        superuserUrl,
        "select distinct m[1] as code from pg_proc, regexp_matches(prosrc, '''(VL\\d{3})''', 'g') m where pronamespace = 'platform'::regnamespace"
      )
      const text = yield* Effect.promise(() => page("stored-procedures.md"))
      expect(rows.length).toBeGreaterThan(9)
      for (const row of rows) expect(text).toContain(`| ${row.code} |`)
    })
  )
})
