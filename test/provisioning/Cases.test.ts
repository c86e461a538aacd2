/**
 * Definitions, records, and what becomes of them. A case is a folder: `before.yaml` (the last document is the subject, those
 * before it are provisioned first, other versions of it among them; SUBJECT, TARGET, OTHER and TARGET_TABLE stand for names of the case's own), `data.ndjson` (`_in` names another object than the subject), `after.yaml`, and
 * `expected.txt`: the plan, what is refused, how the catalogue differs from the wanted one in the end, and the records.
 * Written anew with `vitest -u`.
 */
import { readdir, readFile } from "node:fs/promises"
import { join } from "node:path"
import { layer } from "@effect/vitest"
import { Effect, Layer } from "effect"
import { expect } from "vitest"
import { parseAllDocuments } from "yaml"
import { ApiSql } from "../../src/postgres/ApiSql.ts"
import * as IsolationCheck from "../../src/postgres/IsolationCheck.ts"
import { OperatorSql } from "../../src/postgres/OperatorSql.ts"
import * as Provision from "../../src/provisioning/Provision.ts"
import type { Step } from "../../src/provisioning/plan/Plan.ts"
import * as Catalogue from "../../src/provisioning/table/Catalogue.ts"
import { faultsText, ProvisionRefused } from "../../src/provisioning/table/ProvisionRefused.ts"
import * as WantedSteps from "../../src/provisioning/WantedSteps.ts"
import { withDatabase } from "../support/Database.ts"
import { makeWorld, originOf } from "./World.ts"

const cases = join(import.meta.dirname, "cases")
const names = await readdir(cases)

type Partial = { readonly object?: string; readonly fields: ReadonlyArray<unknown> } & Record<string, unknown>

const documents = async (name: string, file: string): Promise<ReadonlyArray<Partial>> => {
  const text = await readFile(join(cases, name, file), "utf8")
  return [...parseAllDocuments(text)].map((one) => one.toJS() as Partial)
}

const describe = (one: Step): ReadonlyArray<string> => {
  const marks = [
    ...(one.needsApproval ? ["needs approval"] : []),
    ...(one.losesData ? ["loses data"] : []),
    ...(one.rewrites ? ["rewrites"] : []),
    ...(one.concurrently ? ["concurrently"] : []),
    ...(one.batched ? ["in batches"] : [])
  ]
  return [
    `${one.phase}: ${one.does} [${one.lock}]${marks.map((mark) => `, ${mark}`).join("")}${one.why === undefined ? "" : ` -- ${one.why}`}`,
    ...(one.sql === "" || one.does === "access" ? [] : one.sql.split("\n").map((line) => `    ${line}`))
  ]
}

layer(withDatabase(Layer.mergeAll(OperatorSql.layer, ApiSql.layer)), { excludeTestServices: true })(
  "a definition that changes",
  (it) => {
    for (const [position, name] of names.entries()) {
      it.effect(name.replaceAll("-", " "), () =>
        Effect.gen(function* () {
          const { chain, define, domain, look, org, provision, runner, schema } = yield* makeWorld
          yield* domain()
          const subject = `case-${position}`
          const table = `case_${position}_v1`
          const hide = (text: string) =>
            text
              .replaceAll(schema, "SCHEMA")
              .replaceAll(org, "ORG")
              .replaceAll(table, "TABLE")
              .replaceAll(`case_${position}_v2`, "OTHER_VERSION")
              .replaceAll(subject, "SUBJECT")
              .replaceAll(`target_${position}_v1`, "TARGET_TABLE")
              .replaceAll(`target-${position}`, "TARGET")
              .replaceAll(`other-${position}`, "OTHER")
          const named = (text: string) =>
            text
              .replaceAll("SUBJECT", subject)
              .replaceAll("TARGET_TABLE", `target_${position}_v1`)
              .replaceAll("TARGET", `target-${position}`)
              .replaceAll("OTHER", `other-${position}`)
          const specOf = (partial: Partial) =>
            define(JSON.parse(named(JSON.stringify({ object: "SUBJECT", ...partial }))) as Partial)
          const before = yield* Effect.promise(() => documents(name, "before.yaml"))
          for (const one of before) expect((yield* provision(specOf(one)))._tag).toBe("Applied")
          const lines = (yield* Effect.promise(() => readFile(join(cases, name, "data.ndjson"), "utf8")))
            .split("\n")
            .filter((line) => line !== "")
          for (const [index, line] of lines.entries()) {
            const { _in = table, ...row } = JSON.parse(named(line)) as Record<string, unknown>
            const full = {
              id: `00000000-0000-7000-8000-${String(index + 1).padStart(12, "0")}`,
              version: 1,
              created_at: "2026-11-24T00:00:00Z",
              created_by: "x",
              updated_at: "2026-11-24T00:00:00Z",
              updated_by: "x",
              ...row
            }
            const columns = Object.keys(full).map((key) => `"${key}"`)
            yield* look(
              `insert into ${schema}.${_in} (${columns}) select ${columns} from jsonb_populate_record(null::${schema}.${_in}, $1::text::jsonb)`,
              [JSON.stringify(full)]
            )
          }
          const [after] = yield* Effect.promise(() => documents(name, "after.yaml"))
          const spec = specOf(after as Partial)
          const text: Array<string> = []
          const asked = yield* runner
            .transaction((tx) =>
              Effect.flip(Effect.flip(Provision.apply(tx, { spec, origin: originOf(subject) }, true)))
            )
            .pipe(
              Effect.catch((error) => (error instanceof ProvisionRefused ? Effect.succeed(error) : Effect.die(error)))
            )
          if (asked instanceof ProvisionRefused) {
            text.push(`refused, ${asked.reason}: ${asked.message}: ${faultsText(asked.faults)}`)
          } else if (asked._tag === "Planned") {
            text.push(
              asked.state === "Waiting" ? "waits for approval" : "runs by itself",
              ...asked.steps.flatMap(describe)
            )
            const first = yield* provision(spec)
            if (first._tag === "Planned") {
              expect(first.hash).toBe(asked.hash)
              // what was served is served on, and nothing was touched
              expect((yield* provision(spec, `p${"0".repeat(32)}`))._tag).toBe("Planned")
            }
            const result = first._tag === "Planned" ? yield* provision(spec, first.hash) : first
            text.push(
              `== ${result._tag}`,
              ...("notes" in result ? result.notes : []),
              ...(result._tag === "Conflicting" ? [result.message] : [])
            )
            expect((yield* provision(spec))._tag).toBe(result._tag === "Conflicting" ? "Planned" : "Unchanged")
          } else {
            text.push(asked._tag)
          }
          const [row] = yield* look("select id, storage_id from platform.schema_defs where path = $1", [
            `${chain}/${subject}/${spec.version}`
          ])
          const differences = yield* runner.transaction((tx) =>
            Effect.gen(function* () {
              const actual = yield* Catalogue.read(tx, schema, table)
              if (actual === undefined || asked instanceof ProvisionRefused) return []
              const ids = { id: Number(row?.id), storage: Number(row?.storage_id) }
              return Catalogue.differences(actual, (yield* WantedSteps.compare(tx, spec, schema, actual, ids)).target)
            })
          )
          text.push("== differs from the wanted table in", ...differences)
          const rows = yield* look(
            `select (to_jsonb(_t) - '{version,created_at,created_by,updated_at,updated_by,deleted_at,_live}'::text[])::text as row from ${schema}.${table} _t order by id`
          )
          text.push(
            "== records",
            ...rows.map((one) => String(one.row).replace("00000000-0000-7000-8000-00000000000", ""))
          )
          expect((yield* IsolationCheck.check()).map(IsolationCheck.render)).toEqual([])
          yield* Effect.promise(() =>
            expect(hide(`${text.join("\n")}\n`)).toMatchFileSnapshot(join(cases, name, "expected.txt"))
          )
        })
      )
    }
  }
)
