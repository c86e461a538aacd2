/**
 * What a caller may not see is in nothing that Postgres answers: every combination of field access, mask and sensitivity,
 * for every set of roles, through every way to read. Looked for are the values themselves, in the rows that leave the
 * database, and not only in the answers.
 */
import { assert, layer } from "@effect/vitest"
import * as Effect from "effect/Effect"
import * as Layer from "effect/Layer"
import type { Caller } from "../../src/domain/Identity.ts"
import { GatewayTx } from "../../src/postgres/GatewayTx.ts"
import { TenantTx } from "../../src/postgres/TenantTx.ts"
import { ReadRecords } from "../../src/records/ReadRecords.ts"
import { withDatabase } from "../support/Database.ts"
import { textOf } from "./Answers.ts"
import { idAt, makeReadWorld, pageOf, refusalOf } from "./ReadWorld.ts"
import { callerOf } from "./World.ts"

/** Everything that Postgres answered to the last calls. */
let left = ""
const Watched = Layer.effect(
  TenantTx,
  Effect.map(TenantTx, (real) =>
    TenantTx.of({
      bundle: (enter, statements, end) =>
        Effect.tap(real.bundle(enter, statements, end), (results) =>
          Effect.sync(() => {
            left += JSON.stringify(results, (_, value) => (typeof value === "bigint" ? String(value) : value))
          })
        ),
      run: real.run
    })
  )
).pipe(Layer.provide(TenantTx.layer))

const Live = withDatabase(ReadRecords.layerNoDeps.pipe(Layer.provide(Layer.mergeAll(Watched, GatewayTx.layer))))

const readers = [undefined, ["a"], ["a", "b"]]
const masks = [
  undefined,
  { strategy: "redact" },
  { strategy: "redact", unmaskedFor: ["b"] },
  { strategy: "partial", unmaskedFor: ["a"] },
  { strategy: "partial" }
] as const
const sensitivities = [undefined, "personal", "internal"] as const
const types = ["string", "integer", "number", "json", "bytes", "uuid"] as const

interface Hidden {
  readonly name: string
  readonly read: ReadonlyArray<string> | undefined
  readonly mask: (typeof masks)[number]
  readonly sensitivity: (typeof sensitivities)[number]
  readonly type: (typeof types)[number]
  /** As the database is given it. */
  readonly value: unknown
  /** As it would be found in an answer. */
  readonly secret: string
}

const hiddenFields = (prefix: string, base: number): ReadonlyArray<Hidden> => {
  const found: Array<Hidden> = []
  for (const read of readers) {
    for (const mask of masks) {
      for (const sensitivity of sensitivities) {
        const n = base + found.length
        const partial = mask?.strategy === "partial"
        const type = partial ? "string" : (types[n % types.length] ?? "string")
        const digits = `7${String(n).padStart(4, "0")}137`
        const [value, secret] =
          type === "string"
            ? [`secret-${digits}-tail`, `secret-${digits}`]
            : type === "json"
              ? [{ deep: [`j${digits}`] }, `j${digits}`]
              : type === "bytes"
                ? [
                    `\\x${Buffer.from(`b${digits}xx`).toString("hex")}`,
                    Buffer.from(`b${digits}xx`).toString("base64").slice(0, 10)
                  ]
                : type === "uuid"
                  ? [`01930000-0000-7000-9000-0000${digits}`, digits]
                  : [Number(digits), digits]
        found.push({ name: `${prefix}${found.length}`, read, mask, sensitivity, type, value, secret })
      }
    }
  }
  return found
}

/** product.md, section 4, and Access.ts, said once more. */
const sees = ({ mask, read, sensitivity }: Hidden, roles: ReadonlyArray<string>): "clear" | "partial" | "hidden" => {
  const has = (list: ReadonlyArray<string>) => list.some((role) => roles.includes(role))
  if (read !== undefined && !has(read)) return "hidden"
  if (mask === undefined) return sensitivity === "personal" ? "hidden" : "clear"
  if ("unmaskedFor" in mask && has(mask.unmaskedFor)) return "clear"
  return mask.strategy === "partial" ? "partial" : "hidden"
}

const definition = (hidden: ReadonlyArray<Hidden>) =>
  hidden.map(({ mask, name, read, sensitivity, type }) => ({
    name,
    type,
    filterable: type !== "bytes",
    ...(type === "number" ? { precision: 20, scale: 2 } : {}),
    ...(read === undefined ? {} : { access: { read } }),
    ...(mask === undefined ? {} : { mask }),
    ...(sensitivity === undefined ? {} : { sensitivity })
  }))

const operations = ["create", "read", "update", "delete", "restore", "history"]
const access = { roles: ["a", "b", "c"].map((role) => ({ role, operations })) }
const sets = [["a"], ["b"], ["c"], ["a", "b"], ["a", "c"], ["b", "c"], ["a", "b", "c"]]

layer(Live, { excludeTestServices: true })("masks", (it) => {
  it.effect("never leak, by get, list, select, include, query and history, and are named instead", () =>
    Effect.gen(function* () {
      const ofParent = hiddenFields("p", 0)
      const ofChild = hiddenFields("c", 500)
      const here = yield* makeReadWorld([
        { object: "parent", fields: [{ name: "b", type: "string" }, ...definition(ofParent)], access },
        {
          object: "child",
          fields: [
            { name: "up", type: "ref", indexed: true, ref: { object: "parent", version: "v1" } },
            ...definition(ofChild)
          ],
          access
        }
      ])
      const row = (hidden: ReadonlyArray<Hidden>) => Object.fromEntries(hidden.map(({ name, value }) => [name, value]))
      yield* here.put("parent", [{ id: idAt(1), b: "x", ...row(ofParent) }])
      yield* here.put("child", [{ id: idAt(2), up: idAt(1), ...row(ofChild) }])
      for (const object of ["parent", "child"]) {
        const { chain, id, spec } = here.type(object).def
        const fields = spec.fields.map(({ name, type }) =>
          type === "bytes" ? `encode("${name}", 'base64') as "${name}"` : `"${name}"`
        )
        yield* here.sql(
          `insert into platform.event_log (id, chain, storage_id, def_id, entity_id, version, op, occurred_at, actor, changed, state, hash)
           select gen_random_uuid(), $1, $2, $2, t.id, 1, 'create', '2026-11-24T00:00:00Z', 'dev/x', $3::text[],
             (select to_jsonb(s.*) from (select t.id, t.version, ${fields.join(", ")}) s), '' from ${here.type(object).table} t`,
          [chain, id, `{${spec.fields.map((field) => field.name).join(",")}}`]
        )
      }
      const ask = (who: Caller) => [
        here.get("child", who, idAt(2)),
        here.get("child", who, idAt(2), {
          include: "up",
          select: `${ofChild.map((one) => one.name)},${ofParent.map((one) => `up.${one.name}`)}`
        }),
        here.get("parent", who, idAt(1), { include: "child.up.up" }),
        here.list("child", who, { include: "up", count: "exact" }),
        here.query("parent", who, '{"include":["child.up"],"sort":["-id"]}'),
        here.history("child", who, idAt(2)),
        here.history("parent", who, idAt(1))
      ]
      let checked = 0
      for (const roles of sets) {
        const who = callerOf(roles)
        left = ""
        const answers = yield* Effect.all(ask(who))
        const told = left + answers.map((answer) => `${textOf(answer)}${JSON.stringify(answer.headers)}`).join("")
        for (const one of [...ofParent, ...ofChild]) {
          const seen = sees(one, roles)
          assert.strictEqual(told.includes(one.secret), seen === "clear", `${roles}: ${JSON.stringify(one)}`)
          checked += 1
        }
        const record = JSON.parse(textOf(answers[0] ?? { body: "" }))
        const state = pageOf(answers[5] ?? assert.fail()).items[0]?.state as Record<string, unknown>
        const inner = (pageOf(answers[3] ?? assert.fail()).items[0] as { up: Record<string, unknown> }).up
        const shown = (from: Record<string, unknown>, hidden: ReadonlyArray<Hidden>) => {
          const masked = (from._masked ?? {}) as Record<string, unknown>
          for (const one of hidden) {
            const seen = sees(one, roles)
            assert.strictEqual(one.name in from, seen === "clear", one.name)
            assert.strictEqual(one.name in masked, seen !== "clear", one.name)
            if (seen !== "clear") assert.strictEqual(masked[one.name], seen === "partial" ? "…tail" : null)
          }
        }
        shown(record, ofChild)
        shown(state, ofChild)
        shown(inner, ofParent)
      }
      assert.isAbove(checked, 600)
    })
  )

  it.effect("cannot be asked about: the refusal is the same whatever the value", () =>
    Effect.gen(function* () {
      const hidden = hiddenFields("f", 0)
      const here = yield* makeReadWorld(
        [{ object: "thing", fields: [{ name: "b", type: "string" }, ...definition(hidden)], access }],
        "oracle"
      )
      yield* here.put("thing", [{ id: idAt(1), ...Object.fromEntries(hidden.map(({ name, value }) => [name, value])) }])
      for (const roles of sets) {
        const who = callerOf(roles)
        for (const one of hidden.filter((some) => sees(some, roles) !== "clear")) {
          for (const [op, value] of [
            ["eq", one.secret],
            ["eq", "no"],
            ["gt", ""],
            ["is_null", "true"],
            ["like", "\\"],
            ["contains", "*"]
          ] as const) {
            const key = `filter[${one.name}][${op}]`
            assert.strictEqual(
              yield* refusalOf(here.list("thing", who, { [key]: value })),
              `403 field_not_readable /${key}`
            )
          }
          assert.strictEqual(
            yield* refusalOf(here.list("thing", who, { sort: `-${one.name}` })),
            "403 field_not_readable /sort"
          )
          const body = `{"where":{"or":[{"field":"id","op":"eq","value":1},{"not":{"field":"${one.name}","op":"eq","value":null}}]}}`
          // other faults are not told beside it: which those are could depend on it
          assert.strictEqual(
            yield* refusalOf(here.query("thing", who, body)),
            "403 field_not_readable /where/or/1/not/field"
          )
        }
      }
    })
  )
})
