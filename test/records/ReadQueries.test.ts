/**
 * Random queries give what the same query over an array in memory gives, page by page, under the real roles; and this very
 * test finds seeded faults. Fails with fast-check's seed and the smallest query that it found.
 */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import * as fc from "fast-check"
import { stringify } from "../../src/domain/ExactJson.ts"
import type { Caller } from "../../src/domain/Identity.ts"
import type { QueryOperator } from "../../src/domain/Query.ts"
import { operatorsOf } from "../../src/domain/Query.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { type Column, type Condition, judge, type ModelRow, sorted } from "./QueryModel.ts"
import { idAt, makeReadWorld, pageOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

/** A fault that is put into every statement. */
const mutation = { text: (sql: string): string => sql }

const Mutable = Layer.effect(
  TenantTx,
  Effect.map(TenantTx, (real) =>
    TenantTx.of({
      bundle: (enter, statements, end) =>
        real.bundle(
          enter,
          statements.map(({ params, sql }) => ({ sql: mutation.text(sql), params })),
          end
        ),
      run: real.run
    })
  )
).pipe(Layer.provide(TenantTx.layer))

const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(Mutable, GatewayTx.layer))))

const fields = [
  { name: "s", type: "string", filterable: true },
  { name: "i", type: "integer", filterable: true },
  { name: "n", type: "number", precision: 38, scale: 6, filterable: true },
  { name: "m", type: "number", filterable: true },
  { name: "f", type: "number", float: true, filterable: true },
  { name: "b", type: "boolean", filterable: true },
  { name: "d", type: "date", filterable: true },
  { name: "t", type: "timestamp", filterable: true },
  { name: "u", type: "uuid", filterable: true },
  { name: "e", type: "enum", enum: ["x", "y", "z"], filterable: true },
  { name: "j", type: "json", filterable: true },
  { name: "r", type: "integer", required: true, filterable: true },
  { name: "store", type: "string", indexed: true }
] as const

const columns: Readonly<Record<string, Column>> = {
  s: { kind: "string", operators: operatorsOf("string") },
  i: { kind: "decimal", operators: operatorsOf("integer") },
  n: { kind: "decimal", operators: operatorsOf("number") },
  m: { kind: "decimal", operators: operatorsOf("number") },
  f: { kind: "float", operators: operatorsOf("number") },
  b: { kind: "boolean", operators: operatorsOf("boolean") },
  d: { kind: "plain", operators: operatorsOf("date") },
  t: { kind: "plain", operators: operatorsOf("timestamp") },
  u: { kind: "plain", operators: operatorsOf("uuid") },
  e: { kind: "plain", operators: operatorsOf("enum") },
  j: { kind: "json", operators: operatorsOf("json") },
  r: { kind: "decimal", operators: operatorsOf("integer") },
  store: { kind: "string", operators: operatorsOf("string") }
}

const text = fc.oneof(
  fc.constantFrom(
    "",
    "a",
    "A",
    "b",
    "ä",
    "Ä",
    "z",
    "é",
    "€",
    "𐍈",
    "𝔸",
    "\uffee",
    "a%",
    "a_",
    "a\\",
    "*",
    "a*b",
    "100%",
    " "
  ),
  fc.string({ unit: fc.constantFrom("a", "B", "ä", "%", "_", "\\", "*", "𝔸"), maxLength: 4 })
)
const decimals = (scale: number) =>
  fc.oneof(
    fc.constantFrom(
      "0",
      "-1",
      "9007199254740993",
      "9007199254740992",
      "9007199254740994",
      "12345678901234567890123456789012"
    ),
    fc
      .tuple(fc.integer({ min: -3, max: 3 }), fc.nat({ max: 10 ** Math.min(scale, 2) - 1 }))
      .map(([whole, part]) => (scale === 0 ? String(whole) : `${whole}.${String(part).padStart(2, "0")}`))
  )
const date = fc.constantFrom("2026-01-01", "2026-01-02", "1999-12-31", "0001-01-01", "9999-12-31")
const values: Readonly<Record<string, fc.Arbitrary<string>>> = {
  s: text,
  i: fc.oneof(
    fc.integer({ min: -3, max: 3 }).map(String),
    fc.constantFrom("9007199254740993", "9007199254740992", "9223372036854775807", "-9223372036854775808")
  ),
  n: decimals(2),
  m: fc.oneof(decimals(2), fc.constantFrom("1.1", "1.10", "1.1000000000000000000000001")),
  f: fc.constantFrom("0", "-1.5", "0.1", "0.2", "1e300", "-1e-300", "3"),
  b: fc.constantFrom("true", "false"),
  d: date,
  t: fc
    .tuple(date, fc.constantFrom("00:00:00.000000", "23:59:59.999999", "12:00:00.000001"))
    .map(([day, time]) => `${day}T${time}Z`),
  u: fc.integer({ min: 0, max: 5 }).map((n) => idAt(n * 1000)),
  e: fc.constantFrom("x", "y", "z"),
  j: fc.constantFrom(
    '{"a":1}',
    '{"a":1,"b":[1,2]}',
    '{"b":[2]}',
    "[1,2,3]",
    '"a"',
    "3",
    "{}",
    "[]",
    '{"a":{"c":null}}'
  ),
  r: fc.integer({ min: 0, max: 4 }).map(String),
  store: fc.constantFrom("s1", "s2", "")
}
// strings have the most operators
const column = fc.constantFrom("s", "s", "s", ...Object.keys(columns))

const rows = (seed: number): ReadonlyArray<ModelRow> =>
  fc
    .sample(
      fc.record({
        deleted: fc.nat({ max: 5 }).map((n) => n === 0),
        cells: fc.record(
          Object.fromEntries(
            Object.entries(values).map(([name, one]) => [name, name === "r" ? one : fc.option(one, { freq: 3 })])
          )
        )
      }),
      { numRuns: 120, seed }
    )
    .map(({ cells, deleted }, n) => ({ id: idAt((n * 7919) % 1021), deleted, cells: cells as ModelRow["cells"] }))

const condition: fc.Arbitrary<Condition> = fc.letrec<{ tree: Condition; leaf: Condition }>((tie) => ({
  leaf: column.chain((field) => {
    const value = values[field] as fc.Arbitrary<string>
    return fc.constantFrom(...(columns[field]?.operators ?? [])).chain((op: QueryOperator): fc.Arbitrary<Condition> => {
      const as = (one: fc.Arbitrary<unknown>) => one.map((found) => ({ field, op, value: found }))
      if (op === "is_null") return as(fc.boolean())
      if (op === "in") return as(fc.array(value, { minLength: 1, maxLength: 4 }))
      if (op === "between") return as(fc.tuple(value, value))
      if (op === "like" || op === "ilike") {
        const piece = fc.constantFrom("*", "a", "ä", "Ä", "\\*", "\\\\", "%", "_", "b", "𝔸")
        const whole = fc.constantFrom("a", "A", "b", "ä", "Ä", "*a*", "*A*", "a*", "*ä", "a\\*b", "*%*", "_")
        return as(
          fc.oneof(
            whole,
            fc.array(piece, { maxLength: 4 }).map((pieces) => pieces.join(""))
          )
        )
      }
      return as(field === "j" ? value.map((json) => JSON.parse(json)) : value)
    })
  }),
  tree: fc.oneof(
    { maxDepth: 3, withCrossShrink: true },
    tie("leaf"),
    fc.array(tie("tree"), { minLength: 1, maxLength: 3 }).map((and) => ({ and })),
    fc.array(tie("tree"), { minLength: 1, maxLength: 3 }).map((or) => ({ or })),
    tie("tree").map((not) => ({ not }))
  )
})).tree

const sortable = [...Object.keys(columns).filter((name) => name !== "j"), "id"]
const sort = fc
  .uniqueArray(fc.constantFrom(...sortable), { maxLength: 3 })
  .chain((names) => fc.tuple(...names.map((name) => fc.boolean().map((down) => (down ? `-${name}` : name)))))

const people = {
  admin: callerOf(["admin"]),
  store: callerOf(["store"], { store: "s1" }),
  nothing: callerOf(["store"]),
  both: callerOf(["region", "store"], { store: "s2" }),
  // a role that does not grant reading widens nothing
  clerk: callerOf(["clerk", "store"], { store: "s1" })
}
type Person = keyof typeof people

const mayRead = (who: Person, { cells }: ModelRow): boolean => {
  const { identity, roles } = people[who]
  return (
    roles.includes("admin") ||
    (roles.includes("region") && cells.e === "x") ||
    (roles.includes("store") && cells.store !== null && cells.store === identity.attributes.store)
  )
}

interface Asked {
  readonly who: Person
  readonly where: Condition | undefined
  readonly sort: ReadonlyArray<string>
  readonly limit: number
  readonly deleted: "only" | "with" | undefined
}
const asked: fc.Arbitrary<Asked> = fc.record({
  who: fc.constantFrom("admin", ...(Object.keys(people) as Array<Person>)),
  where: fc.option(condition, { nil: undefined, freq: 6 }),
  sort,
  limit: fc.constantFrom(1, 3, 10, 25, 50, 1000),
  deleted: fc.option(fc.constantFrom("only" as const, "with" as const), { nil: undefined, freq: 2 })
})

/** How often the generator made what: printed, so that an empty corner shows. */
class Coverage {
  readonly counts = new Map<string, number>()
  add(what: string): void {
    this.counts.set(what, (this.counts.get(what) ?? 0) + 1)
  }
  where(node: Condition): void {
    if ("and" in node) {
      this.add("and")
      for (const child of node.and) this.where(child)
    } else if ("or" in node) {
      this.add("or")
      for (const child of node.or) this.where(child)
    } else if ("not" in node) {
      this.add("not")
      this.where(node.not)
    } else {
      this.add(`op ${node.op}`)
      this.add(`field ${node.field}`)
    }
  }
  toString(): string {
    return [...this.counts]
      .sort()
      .map(([what, count]) => `${what}: ${count}`)
      .join(", ")
  }
}

const seed = 20261124
const access = {
  roles: [
    { role: "admin", operations: ["create", "read", "update", "delete", "restore", "history"] },
    { role: "store", operations: ["read"] },
    { role: "region", operations: ["read"] },
    { role: "clerk", operations: ["create"] }
  ],
  rowFilters: [
    { role: "store", filter: { field: "store", op: "eq", identity: "attributes.store" } },
    { role: "region", filter: { field: "e", op: "eq", value: "x" } }
  ]
}

layer(Live, { excludeTestServices: true })("random queries", (it) => {
  let domains = 0
  const prepared = Effect.gen(function* () {
    const here = yield* makeReadWorld(
      [
        { object: "thing", fields, access },
        { object: "bare", fields, access },
        { object: "trusting", fields, access }
      ],
      `random${++domains}`
    )
    const data = rows(seed)
    for (const object of ["thing", "bare", "trusting"]) {
      yield* here.put(
        object,
        data.map(({ cells, deleted, id }) => ({
          id,
          deleted_at: deleted ? "2026-02-01T00:00:00Z" : null,
          ...Object.fromEntries(
            Object.entries(cells).map(([name, cell]) => [name, cell === null || name !== "j" ? cell : JSON.parse(cell)])
          )
        }))
      )
      yield* here.sql(`analyze "${here.type(object).def.pgSchema}"."${object}_v1"`)
    }
    // one table that only the API guards, and one that only the policies do
    yield* here.sql(`alter policy velocity_select on ${here.type("bare").table} using (true)`)
    const { path } = here.type("trusting")
    here.types.set(path, { ...here.type("trusting"), rowFilter: () => ({ _tag: "All" }) })

    const expected = ({ deleted, sort, where, who }: Asked): ReadonlyArray<string> =>
      sorted(
        columns,
        data.filter(
          (row) =>
            mayRead(who, row) &&
            (deleted === "with" || row.deleted === (deleted === "only")) &&
            (where === undefined || judge(columns, row, where) === true)
        ),
        sort
      ).map((row) => row.id)

    /** Every id of a query, page by page, and its exact count. */
    const answered = (object: string, { limit, sort, who, ...query }: Asked) =>
      Effect.gen(function* () {
        const ids: Array<string> = []
        let cursor: string | null = null
        let count: number | null | undefined
        do {
          const body: string = stringify(
            JSON.parse(JSON.stringify({ ...query, sort, ...(cursor === null ? { count: "exact" } : { cursor }) }))
          ).replace(/^\{/, `{"limit":${limit},`)
          const page = pageOf(yield* here.query(object, people[who] as Caller, body))
          if (cursor === null) count = page.count
          if (page.items.length > limit) return [`a page of ${page.items.length}`]
          ids.push(...page.items.map((item) => String(item.id)))
          if (ids.length > 2 * data.length) return ["pages without end"]
          cursor = page.next_cursor
        } while (cursor !== null)
        return count === ids.length ? ids : [`${ids.length} rows, but counted ${count}`]
      })

    const context = yield* Effect.context<never>()
    /** Only somebody who may restore asks for deleted rows. */
    const sound = (query: Asked): Asked => (query.who === "admin" ? query : { ...query, deleted: undefined })
    const check = (object: string, numRuns: number, seen?: Coverage) =>
      Effect.promise(() =>
        fc.check(
          fc.asyncProperty(asked, async (drawn) => {
            const query = sound(drawn)
            const wanted = expected(query)
            if (seen !== undefined) {
              if (query.where !== undefined) seen.where(query.where)
              for (const term of query.sort) seen.add(`sort ${term}`)
              seen.add(`who ${query.who}`)
              seen.add(`deleted ${query.deleted}`)
              seen.add(wanted.length === 0 ? "empty" : wanted.length > query.limit ? "several pages" : "one page")
            }
            const got = await Effect.runPromiseWith(context)(answered(object, query))
            assert.deepStrictEqual(got, wanted)
          }),
          { numRuns, seed }
        )
      )
    return { check }
  })

  it.effect(
    "are what the same query over an array is; each of policies and API alone holds",
    () =>
      Effect.gen(function* () {
        mutation.text = (sql) => sql
        const { check } = yield* prepared
        const seen = new Coverage()
        for (const [object, runs] of [
          ["thing", 400],
          ["bare", 120],
          ["trusting", 120]
        ] as const) {
          const found = yield* check(object, runs, object === "thing" ? seen : undefined)
          assert.isFalse(found.failed, `${object}\n${fc.defaultReportMessage(found)}`)
        }
        console.log(`random queries: ${seen}`)
        for (const op of Object.values(columns).flatMap(({ operators }) => operators)) {
          assert.isAbove(seen.counts.get(`op ${op}`) ?? 0, 4, op)
        }
        for (const name of sortable) assert.isAbove(seen.counts.get(`sort -${name}`) ?? 0, 4, name)
      }),
    { timeout: 120_000 }
  )

  it.effect(
    "find seeded faults",
    () =>
      Effect.gen(function* () {
        const { check } = yield* prepared
        const mutants: Readonly<Record<string, (sql: string) => string>> = {
          "row filter dropped": (sql) => sql.replaceAll(/ and \(\(\(?_r\."(store|e)" = \$\d+::text\).*?\)\)/g, ""),
          "< for <=": (sql) => sql.replaceAll(/(_r\."\w+"(?: collate "C")?) <= /g, "$1 < "),
          "<= for <": (sql) => sql.replaceAll(/(_r\."\w+"(?: collate "C")?) < /g, "$1 <= "),
          "> for >=": (sql) => sql.replaceAll(/(_r\."\w+"(?: collate "C")?) >= /g, "$1 > "),
          "NULLs forgotten": (sql) => sql.replaceAll(/ or _r\."\w+" is null\)/g, ")"),
          "NULLs forgotten, descending": (sql) => sql.replaceAll(/\(_r\."\w+" is not null\)/g, "(false)"),
          "NULLs on the other side": (sql) => sql.replaceAll(/" desc([,\s])/g, '" desc nulls last$1'),
          "deleted rows shown": (sql) => sql.replaceAll("_r.deleted_at is null", "true"),
          "no tiebreak": (sql) => sql.replaceAll(/, _r\."id"( desc)? limit/g, " limit"),
          "a row skipped or repeated": (sql) => sql.replaceAll(/(\(_r[^()]*\) [<>]) \(/g, "$1= ("),
          "NULLs forgotten behind a page": (sql) => sql.replaceAll(/_r\."\w+" is null( order by)/g, "false$1"),
          "neq matches NULL": (sql) => sql.replaceAll(" <> ", " is distinct from "),
          "or for and": (sql) => sql.replaceAll(/(\)) and (\()/g, "$1 or $2"),
          "not dropped": (sql) => sql.replaceAll("(not ", "("),
          "through a float": (sql) => sql.replaceAll("::int8", "::float8"),
          "case folded": (sql) => sql.replaceAll(/ like /g, " ilike "),
          "a row too few on each page": (sql) => sql.replaceAll(/(from _q limit \$\d+::int8)\)/g, "$1 - 1)")
        }
        const survived: Array<string> = []
        const killedAfter: Array<string> = []
        for (const [name, fault] of Object.entries(mutants)) {
          let touched = 0
          mutation.text = (sql) => {
            const changed = fault(sql)
            if (changed !== sql) touched += 1
            return changed
          }
          const found = yield* check("bare", 400)
          if (!found.failed) survived.push(`${name} (${touched} statements changed)`)
          else killedAfter.push(`${name} after ${found.numRuns}`)
        }
        mutation.text = (sql) => sql
        console.log(`mutants killed: ${killedAfter.join(", ")}`)
        assert.deepStrictEqual(survived, [])
      }),
    { timeout: 120_000 }
  )
})
