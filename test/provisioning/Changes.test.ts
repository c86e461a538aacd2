/**
 * The law of changes: a table that was made for one definition and changed for another is the table that would have been
 * made for the other; over random definitions, at the limits of fine print 19 too.
 */
import { layer } from "@effect/vitest"
import { Effect } from "effect"
import * as fc from "fast-check"
import { expect } from "vitest"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld } from "./World.ts"

const name = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.stringMatching(/^[a-z][a-z0-9_]{0,12}$/u).filter((text) => !["id", "version"].includes(text))
  },
  // what every object of JavaScript has
  { weight: 1, arbitrary: fc.constant("constructor") }
)
const word = fc
  .string({ minLength: 1, maxLength: 12, unit: "grapheme" })
  .filter((text) => text.isWellFormed() && !text.includes("\u0000"))

const typed = (type: string, more: Record<string, fc.Arbitrary<unknown>> = {}, indexable = true) =>
  fc.record(
    { type: fc.constant(type), ...(indexable ? { indexed: fc.boolean(), unique: fc.boolean() } : {}), ...more },
    { requiredKeys: ["type"] }
  )

const values = fc.uniqueArray(word, { minLength: 1, maxLength: 4 })

const field = fc.oneof(
  typed("string", { default: word, maxLength: fc.integer({ min: 20, max: 200 }), pattern: fc.constant("^[^']*$") }),
  typed("integer", {
    min: fc.integer({ min: -5, max: 0 }),
    max: fc.constant("9223372036854775807"),
    default: fc.constant("7")
  }),
  typed("number", { precision: fc.constant(12), min: fc.constant("-1"), default: fc.constant("3") }),
  typed("boolean", { default: fc.boolean() }),
  typed("date", { default: fc.constant("2026-11-24") }),
  typed("timestamp"),
  typed("uuid"),
  typed("json", { default: fc.constant('{"it\'s":[1,"\\\\"]}') }, false),
  typed("bytes", { maxLength: fc.integer({ min: 1, max: 100 }), default: fc.constant("AA==") }, false),
  values.map((all) => ({ type: "enum", enum: all })),
  fc.constant({ type: "ref", ref: { object: "OBJECT", version: "v1" } })
)

const named = fc
  .uniqueArray(fc.tuple(name, field), { minLength: 1, maxLength: 8, selector: ([text]) => text })
  .map((all) => all.map(([text, one]): Record<string, unknown> => ({ name: text, ...one })))
  // what a value may be is admission's to judge, and not this law's
  .map((all) =>
    all.map((one) =>
      one.pattern !== undefined && String(one.default ?? "").includes("'") ? { ...one, default: "x" } : one
    )
  )

/** A definition, and one that it may become. */
const change = fc
  .tuple(named, named, fc.array(word, { maxLength: 3 }), fc.array(fc.boolean(), { minLength: 8, maxLength: 8 }))
  .map(([before, more, words, choices]) => {
    const first = before.map((one, index) => ({
      ...one,
      required: choices[index] === true && one.default === undefined
    }))
    const taken = new Set(first.map((one) => (one as Record<string, unknown>).name))
    const grown = first.map((one: Record<string, unknown>) => ({
      ...one,
      ...(Array.isArray(one.enum) ? { enum: [...new Set([...one.enum, ...words])] } : {}),
      ...(one.indexed === false ? { indexed: true } : {})
    }))
    return { first, second: [...grown, ...more.filter((one) => !taken.has(one.name))] }
  })

let count = 0

layer(withDatabase(OperatorSql.layer), { excludeTestServices: true })("changes", (it) => {
  it.effect("lead to the table that would have been made at once", () =>
    Effect.gen(function* () {
      const { apply, define, domain, look, schema } = yield* makeWorld
      yield* domain()
      const context = yield* Effect.context<never>()
      const shape = (object: string) =>
        Effect.map(
          look(
            `select 'column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod) || ' ' || a.attnotnull || ' ' || coalesce(pg_get_expr(d.adbin, d.adrelid), '')
               || ' ' || coalesce((select collname from pg_collation c where c.oid = a.attcollation), '') as line
             from pg_attribute a left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
             where a.attrelid = $1::regclass and a.attnum > 0 and not a.attisdropped
             union all select 'constraint ' || pg_get_constraintdef(oid) || ' ' || convalidated || coalesce(obj_description(oid, 'pg_constraint'), '')
               from pg_constraint where conrelid = $1::regclass and contype <> 'n'
             union all select 'index ' || regexp_replace(pg_get_indexdef(indexrelid), 'INDEX \\S+ ', 'INDEX ') || ' ' || indisvalid from pg_index where indrelid = $1::regclass
             union all select 'policy ' || policyname || ' ' || coalesce(qual, '') || coalesce(with_check, '') from pg_policies where schemaname = $2 and tablename = $3
             order by 1`,
            [`${schema}.${object}_v1`, schema, `${object}_v1`]
          ),
          (rows) =>
            rows.map((row) => String(row.line).replaceAll(`${object}_v1`, "TABLE").replaceAll(`${object}/v1`, "PATH"))
        )
      const spec = (object: string, fields: ReadonlyArray<Record<string, unknown>>) =>
        define({
          object,
          fields: fields.map((one) => (one.type === "ref" ? { ...one, ref: { object, version: "v1" } } : one))
        })
      yield* Effect.promise(() =>
        fc.assert(
          fc.asyncProperty(change, ({ first, second }) =>
            Effect.runPromiseWith(context)(
              Effect.gen(function* () {
                count += 1
                const [grown, fresh] = [`g${count}`, `f${count}`]
                yield* apply(spec(grown, first))
                yield* apply(spec(grown, second))
                expect((yield* apply(spec(grown, second)))._tag).toBe("Unchanged")
                yield* apply(spec(fresh, second))
                expect(yield* shape(grown)).toEqual(yield* shape(fresh))
              })
            )
          ),
          { numRuns: 40 }
        )
      )
    })
  )

  it.effect("hold for a definition at all its limits at once", () =>
    Effect.gen(function* () {
      const { apply, define, domain } = yield* makeWorld
      yield* domain()
      const long = (index: number) => `f${String(index).padStart(3, "0")}_`.padEnd(63, "x")
      const roles = Array.from({ length: 32 }, (_, index) => `r${index}`.padEnd(63, "x"))
      const fields = Array.from({ length: 200 }, (_, index) =>
        index === 0
          ? {
              name: long(0),
              type: "enum",
              enum: Array.from({ length: 256 }, (__, value) => String(value).padStart(63, "e"))
            }
          : {
              name: long(index),
              type: "string",
              unique: index % 3 === 0,
              indexed: true,
              maxLength: 100,
              pattern: "^[a-z]*$"
            }
      )
      const limits = define({
        object: "o".repeat(40),
        fields,
        uniqueConstraints: Array.from({ length: 16 }, (_, index) => ({
          fields: Array.from({ length: 8 }, (__, at) => long(1 + index * 8 + at))
        })),
        access: {
          roles: roles.map((role) => ({
            role,
            operations: ["create", "read", "update", "delete", "restore", "history"]
          })),
          rowFilters: Array.from({ length: 64 }, (_, index) => ({
            role: roles[index % 32],
            filter: {
              field: long(1 + (index % 199)),
              op: "in",
              values: Array.from({ length: 64 }, (__, value) => `v${value}`)
            }
          }))
        }
      })
      expect((yield* apply(limits))._tag).toBe("Applied")
      expect((yield* apply(limits))._tag).toBe("Unchanged")
    })
  )
})
