/**
 * `velocity schema validate|plan|apply|approve|drift`: definitions before they are applied, and tables after somebody was at them.
 *
 * `validate` needs no database. The others speak to the database as `velocity_operator` and change nothing in it, `apply`
 * and `approve` excepted.
 */
import { userInfo } from "node:os"
import { Console, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { lifecycleText } from "../domain/Lifecycle.ts"
import { formatPath } from "../domain/Names.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import type { DatabaseFailure } from "../postgres/DatabaseFailure.ts"
import { OperatorSql, type Tx } from "../postgres/OperatorSql.ts"
import { statement } from "../postgres/Statement.ts"
import * as Drift from "../provisioning/Drift.ts"
import { needsApproval, type Step } from "../provisioning/Plan.ts"
import * as PlanStore from "../provisioning/PlanStore.ts"
import * as Provision from "../provisioning/Provision.ts"
import { faultsText, type ProvisionRefused } from "../provisioning/ProvisionRefused.ts"
import { type Definition, fileFlag, isDefinition, readFiles, soundOnly } from "./ManifestFiles.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { type Column, document, outputFlag, printRows, table } from "./Output.ts"
import { apply } from "./SchemaApply.ts"
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

/** A plan as `velocity schema plan` prints it. */
interface Shown {
  readonly path: string
  readonly state: "unchanged" | "refused" | "runs by itself" | "waits for approval"
  readonly hash?: string
  readonly message?: string
  readonly steps: ReadonlyArray<Step>
}

/** The origin that a path has, so that a plan is of what is there. */
const originOf = Effect.fnUntraced(function* (tx: Tx, path: string, { resource }: Definition) {
  const { rows } = yield* tx.query(
    statement("select source, namespace, name from platform.schema_defs where path = $1 and source is not null", [path])
  )
  const [row] = rows
  const { name, namespace } = resource.metadata
  return row === undefined
    ? { source: "folder", namespace, name }
    : { source: String(row.source), namespace: String(row.namespace), name: String(row.name) }
})

const shownOf = (path: string, outcome: Provision.Outcome | Provision.Planned): Shown =>
  outcome._tag === "Planned"
    ? {
        path,
        state: needsApproval(outcome) ? "waits for approval" : "runs by itself",
        hash: outcome.hash,
        steps: outcome.steps
      }
    : { path, state: "unchanged", steps: [] }

const planFor = (one: Definition): Effect.Effect<Shown, DatabaseFailure, OperatorSql> =>
  Effect.gen(function* () {
    const sql = yield* OperatorSql
    const { spec } = one.resource
    const path = formatPath(pathOfDefinition(spec))
    return yield* sql
      .transaction(
        (tx) =>
          Effect.gen(function* () {
            const origin = yield* originOf(tx, path, one)
            return shownOf(path, yield* Provision.apply(tx, { spec, origin }, true))
          }),
        { end: "rollback" }
      )
      .pipe(
        Effect.catchTag("ProvisionRefused", ({ faults, message, reason }: ProvisionRefused) =>
          Effect.succeed<Shown>({
            path,
            state: "refused",
            message: `${reason}: ${faults.length === 0 ? message : `${message}: ${faultsText(faults)}`}`,
            steps: []
          })
        )
      )
  })

const yes = (value: boolean, word: string): string => (value ? word : "")

const stepColumns: ReadonlyArray<Column<Step>> = [
  { title: "phase", cell: (one) => one.phase },
  { title: "step", cell: (one) => one.does },
  { title: "lock", cell: (one) => one.lock.toLowerCase() },
  { title: "rewrites", cell: (one) => yes(one.rewrites, "yes") },
  { title: "data", cell: (one) => yes(one.losesData, "is lost") },
  { title: "approval", cell: (one) => yes(one.needsApproval, "needed") },
  { title: "rows", cell: (one) => (one.estimate === undefined ? "" : `~${one.estimate}`), align: "right" },
  { title: "why", cell: (one) => one.why ?? "" }
]

const printPlan = Effect.fnUntraced(function* ({ hash, message, path, state, steps }: Shown, withSql: boolean) {
  yield* Console.log(`${path}: ${message ?? state}`)
  if (steps.length === 0) return
  yield* Console.log(table(stepColumns, steps))
  if (withSql) {
    for (const one of steps)
      yield* Console.log(`\n-- ${one.phase}: ${one.does}\n${one.sql}${one.sql === "" ? "" : ";"}`)
  }
  if (state === "waits for approval") {
    yield* Console.log(
      `to approve it: annotation velocity.sh/approve-plan: ${hash}, or velocity schema approve ${hash}`
    )
  }
})

const plan = Command.make(
  "plan",
  {
    files: fileFlag,
    url: operatorUrlFlag,
    output: outputFlag,
    sql: Flag.Boolean("sql").pipe(Flag.withDescription("Print each step's SQL too"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ files, output, sql, url }) {
    const definitions = (yield* soundOnly(files)).filter(isDefinition)
    const plans = yield* withOperator(url, Effect.forEach(definitions, planFor)).pipe(Effect.mapError(unreachable))
    if (output !== "table") yield* Console.log(document(output, plans))
    else if (plans.length === 0) yield* Console.log("no definitions")
    else {
      for (const [index, one] of plans.entries()) {
        if (index > 0) yield* Console.log("")
        yield* printPlan(one, sql)
      }
    }
    const refused = plans.filter((one) => one.state === "refused").length
    if (refused > 0) return yield* failed(`${refused} ${refused === 1 ? "definition is" : "definitions are"} refused`)
  })
).pipe(
  Command.withDescription("Show what applying definitions would do to their tables; changes nothing"),
  Command.withExamples([
    {
      command: "velocity schema plan -f order.yaml",
      description: "Steps, locks, what is lost and what must be approved"
    },
    { command: "velocity schema plan -f order.yaml --sql", description: "With the SQL of each step" }
  ])
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
