/**
 * `velocity schema validate|plan|apply|approve|drift`: definitions before they are applied, and tables after somebody was at them.
 *
 * `validate` needs no database. The others speak to the database as `velocity_operator` and change nothing in it, `apply`
 * and `approve` excepted; `plan` may ask the API instead.
 */
import { userInfo } from "node:os"
import { Console, Effect } from "effect"
import { Argument, Command } from "effect/cli"
import { lifecycleText } from "../domain/Lifecycle.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as Drift from "../provisioning/Drift.ts"
import * as PlanStore from "../provisioning/plan/PlanStore.ts"
import { fileFlag, readFiles, soundOnly } from "./ManifestFiles.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { type Column, document, outputFlag, printRows } from "./Output.ts"
import { apply } from "./SchemaApply.ts"
import { plan } from "./SchemaPlan.ts"
import { failed } from "./Settings.ts"

const validate = Command.make(
  "validate",
  { files: fileFlag, output: outputFlag },
  Effect.fnUntraced(function* ({ files, output }) {
    if (output !== "table") {
      const { problems, resources } = yield* readFiles(files)
      yield* Console.log(document(output, { resources: resources.map((one) => one.identity), problems }))
      if (problems.length > 0) return yield* failed("", 1)
      return
    }
    const resources = yield* soundOnly(files)
    for (const { identity, resource } of resources) {
      const lifecycle = resource.kind === "SchemaDefinition" ? resource.spec.lifecycle : undefined
      const told = lifecycle === undefined ? "" : lifecycleText(lifecycle)
      yield* Console.log(`${identity} is sound${told === "" ? "" : `; ${told}`}`)
    }
    if (resources.length === 0) yield* Console.log("no manifests of velocity.sh")
  })
).pipe(
  Command.withDescription("Check manifests without a database: keys, bounds, rules, and what YAML would read two ways"),
  Command.withExamples([{ command: "velocity schema validate -f order.yaml", description: "0 sound, 1 wrong" }])
)

const approve = Command.make(
  "approve",
  {
    hash: Argument.String("hash").pipe(Argument.withDescription("The plan's hash, as its definition's status says it")),
    url: operatorUrlFlag
  },
  Effect.fnUntraced(function* ({ hash, url }) {
    const by = `cli/${userInfo().username}`
    const path = yield* withOperator(
      url,
      Effect.flatMap(OperatorSql, (sql) =>
        sql.transaction((tx) =>
          Effect.gen(function* () {
            const found = yield* PlanStore.byHash(tx, hash)
            if (found === undefined) return yield* failed(`there is no plan ${hash}`)
            if (found.state !== "Waiting") {
              return yield* failed(`plan ${hash} does not wait for an approval: it is ${found.state.toLowerCase()}`)
            }
            yield* tx.query(
              statement("update platform.plans set approved_by = $2 where id = $1::uuid and state = 'Waiting'", [
                found.id,
                by
              ])
            )
            return found.path
          })
        )
      )
    ).pipe(Effect.mapError((error) => (error._tag === "CommandFailed" ? error : unreachable(error))))
    yield* Console.log(`approved as ${by}: the operator carries it out on ${path} within seconds`)
  })
).pipe(
  Command.withDescription("Approve a plan that waits, by its hash, and no other"),
  Command.withExamples([{ command: "velocity schema approve p1f0…", description: "The operator carries it out" }])
)

const drift = Command.make(
  "drift",
  { url: operatorUrlFlag, output: outputFlag },
  Effect.fnUntraced(function* ({ output, url }) {
    const found = yield* withOperator(
      url,
      Effect.gen(function* () {
        const sql = yield* OperatorSql
        const { rows } = yield* sql.query(
          statement("select path from platform.schema_defs where serving is not null order by path")
        )
        return yield* Effect.forEach(rows, (row) =>
          sql
            .transaction((tx) => Drift.find(tx, String(row.path)), { end: "rollback" })
            .pipe(
              Effect.catchTag("ProvisionRefused", ({ message }) =>
                Effect.succeed<Drift.Drift>({ path: String(row.path), differences: [message] })
              )
            )
        )
      })
    ).pipe(Effect.mapError(unreachable))
    const drifted = found.filter((one) => one.differences.length > 0)
    if (output !== "table") yield* Console.log(document(output, drifted))
    else {
      const lines = drifted.flatMap(({ differences, path }) => differences.map((difference) => ({ path, difference })))
      const columns: ReadonlyArray<Column<(typeof lines)[number]>> = [
        { title: "path", cell: (one) => one.path },
        { title: "difference", cell: (one) => one.difference }
      ]
      yield* printRows("table", columns, lines, `${found.length} tables are as their definitions say`)
    }
    if (drifted.length > 0) {
      return yield* failed(`${drifted.length} of ${found.length} tables were changed by hand`)
    }
  })
).pipe(
  Command.withDescription("Compare every table with its definition; 0 as it should be, 1 changed by hand"),
  Command.withExamples([
    { command: "velocity schema drift", description: "The operator repairs what is safe by itself" }
  ])
)

export const schema = Command.make("schema").pipe(
  Command.withDescription("Definitions, and what becomes of their tables"),
  Command.withSubcommands([validate, plan, apply, approve, drift])
)
