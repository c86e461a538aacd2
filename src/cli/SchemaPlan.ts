/**
 * `velocity schema plan`: what applying definitions would do to their tables. Asked of the API, for who has no credentials of
 * the database, or of the database as `velocity_operator`; both answer the same.
 */
import { Config, Console, Effect, Option, type Redacted } from "effect"
import { Command, Flag } from "effect/cli"
import { chainOf, formatPath } from "../domain/Names.ts"
import { apiVersion } from "../domain/Resource.ts"
import { pathOfDefinition } from "../domain/SchemaDefinition.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import * as PlanShown from "../provisioning/PlanShown.ts"
import type { Step } from "../provisioning/plan/Plan.ts"
import { faultsText, type ProvisionRefused } from "../provisioning/table/ProvisionRefused.ts"
import { answerOf, problemText } from "./ApiCall.ts"
import { type Definition, fileFlag, isDefinition, soundOnly } from "./ManifestFiles.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { type Column, document, outputFlag, table } from "./Output.ts"
import { dataFlag, failed, type Target, targetOf, tokenFlag } from "./Settings.ts"

/** A plan as it is printed. */
type Printed =
  | PlanShown.Shown
  | { readonly path: string; readonly state: "refused"; readonly message: string; readonly steps: readonly [] }

const pathOf = ({ resource }: Definition) => formatPath(pathOfDefinition(resource.spec))

const refusedAs = (one: Definition, message: string): Printed => ({
  path: pathOf(one),
  state: "refused",
  message,
  steps: []
})

/** Of the database, as the operator. */
const planOf = Effect.fnUntraced(function* (one: Definition) {
  const sql = yield* OperatorSql
  return yield* sql
    .transaction((tx) => PlanShown.shown(tx, one.resource, "folder"), { end: "rollback" })
    .pipe(
      Effect.catchTag("ProvisionRefused", ({ faults, message, reason }: ProvisionRefused) =>
        Effect.succeed(
          refusedAs(one, `${reason}: ${faults.length === 0 ? message : `${message}: ${faultsText(faults)}`}`)
        )
      )
    )
})

/** Of the API. */
const asked = (target: Target, platform: boolean) =>
  Effect.fnUntraced(function* (one: Definition) {
    const { kind, metadata, spec } = one.resource
    const { status, text } = yield* answerOf(target, {
      method: "POST",
      path: "/api/platform/plan",
      params: platform ? [] : [["path", chainOf(spec)]],
      body: JSON.stringify({ apiVersion, kind, metadata, spec }),
      headers: { "content-type": "application/json" }
    })
    if (status === 200) return JSON.parse(text) as PlanShown.Shown
    if (status !== 422) return yield* failed(problemText(status, text))
    const { detail = "", errors = [] } = JSON.parse(text) as {
      readonly detail?: string
      readonly errors?: Parameters<typeof faultsText>[0]
    }
    return refusedAs(one, errors.length === 0 ? detail : `${detail}: ${faultsText(errors)}`)
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

const printPlan = Effect.fnUntraced(function* (one: Printed, withSql: boolean) {
  const { path, state, steps } = one
  yield* Console.log(`${path}: ${one.state === "refused" ? one.message : state}`)
  if (steps.length === 0) return
  yield* Console.log(table(stepColumns, steps))
  if (withSql) {
    for (const { does, phase, sql } of steps) {
      yield* Console.log(`\n-- ${phase}: ${does}\n${sql}${sql === "" ? "" : ";"}`)
    }
  }
  if (one.state === "waits for approval") {
    const { hash } = one
    yield* Console.log(
      `to approve it: annotation velocity.sh/approve-plan: ${hash}, or velocity schema approve ${hash}`
    )
  }
})

const otherApi = Effect.orElseSucceed(Config.option(Config.String("VELOCITY_API_URL")), () => Option.none<string>())

/** Where to ask: `--api`, else the database that is named, else `VELOCITY_API_URL` or the running `velocity dev`. */
const plansOf = Effect.fnUntraced(function* (
  definitions: ReadonlyArray<Definition>,
  options: {
    readonly api: Option.Option<string>
    readonly data: string
    readonly platform: boolean
    readonly token: Option.Option<Redacted.Redacted>
    readonly url: Option.Option<Redacted.Redacted>
  }
) {
  const { data, platform, token, url } = options
  if (Option.isNone(options.api) && Option.isSome(url)) {
    return yield* withOperator(url.value, Effect.forEach(definitions, planOf)).pipe(Effect.mapError(unreachable))
  }
  const api = Option.isSome(options.api) ? options.api : yield* otherApi
  const target = yield* targetOf({ data, api, token, roles: [platform ? "platform-admin" : "schema-planner"] })
  return yield* Effect.forEach(definitions, asked(target, platform))
})

export const plan = Command.make(
  "plan",
  {
    files: fileFlag,
    api: Flag.String("api").pipe(
      Flag.withDescription("Ask the API at this address; without it the database, where that is named"),
      Flag.withMetavar("URL"),
      Flag.optional
    ),
    token: tokenFlag,
    platform: Flag.Boolean("platform").pipe(
      Flag.withDescription(
        "The token is one of the platform's, with platform-admin; without this one of the domain's, with schema-planner"
      ),
      Flag.withDefault(false)
    ),
    data: dataFlag,
    url: Flag.optional(operatorUrlFlag),
    output: outputFlag,
    sql: Flag.Boolean("sql").pipe(Flag.withDescription("Print each step's SQL too"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ files, output, sql, ...where }) {
    const definitions = (yield* soundOnly(files)).filter(isDefinition)
    const plans: ReadonlyArray<Printed> = yield* plansOf(definitions, where)
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
    { command: "velocity schema plan -f order.yaml --sql", description: "With the SQL of each step" },
    {
      command: "velocity schema plan -f order.yaml --api https://velocity.example --token $TOKEN",
      description: "Without credentials of the database, for schema-planner of the domain"
    }
  ])
)
