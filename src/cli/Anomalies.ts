/**
 * `velocity audit anomalies`: what the anomaly scanner found; `velocity audit scan --rule FILE`: what a rule would have
 * found in the past. Both through the API, as somebody with `platform-auditor`.
 */
import { readFile } from "node:fs/promises"
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { parse as parseYaml } from "yaml"
import { severities } from "../domain/AnomalyRule.ts"
import { type ExactObject, isExactObject } from "../domain/ExactJson.ts"
import { callJson } from "./ApiCall.ts"
import { type Column, document, hintOfMore, limitFlag, outputFlag, printRows } from "./Output.ts"
import { apiFlag, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"

const shared = { data: dataFlag, api: apiFlag, token: tokenFlag, output: outputFlag }
const roles = ["platform-auditor"]

const textOf = (value: unknown): string => (value === undefined || value === null ? "" : String(value))

const column = (title: string, name = title, align: "left" | "right" = "left"): Column<ExactObject> => ({
  title,
  cell: (row) => textOf(row[name]),
  align
})

/** A member of the window of a row. */
const edge = (title: string, name: "from" | "to"): Column<ExactObject> => ({
  title,
  cell: ({ window }) => (isExactObject(window) ? textOf(window[name]) : "")
})

const who = [column("chain"), column("actor"), column("address")]

const rowsOf = (page: unknown, name: string): ReadonlyArray<ExactObject> => {
  const rows = (page as Readonly<Record<string, unknown>>)[name]
  return Array.isArray(rows) ? (rows as ReadonlyArray<ExactObject>) : []
}

export const anomalies = Command.make(
  "anomalies",
  {
    ...shared,
    chain: Flag.String("chain").pipe(Flag.withDescription("org/app/domain, or platform"), Flag.withDefault("")),
    rule: Flag.String("rule").pipe(Flag.withDescription("The name of a rule"), Flag.withDefault("")),
    severity: Flag.Literals("severity", ["", ...severities]).pipe(
      Flag.withDescription("info, warning or critical"),
      Flag.withDefault("" as const)
    ),
    open: Flag.Boolean("open").pipe(
      Flag.withDescription("Only those that nobody has acknowledged"),
      Flag.withDefault(false)
    ),
    limit: limitFlag
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    const params: Array<readonly [string, string]> = [["limit", String(options.limit)]]
    for (const name of ["chain", "rule", "severity"] as const) {
      if (options[name] !== "") params.push([name, options[name]])
    }
    if (options.open) params.push(["acknowledged", "false"])
    const page = yield* callJson(target, { path: "/api/platform/anomalies", params })
    const rows = rowsOf(page, "items")
    const columns = [
      column("raised at", "created_at"),
      column("severity"),
      column("rule"),
      ...who,
      column("count", "count", "right"),
      {
        title: "acknowledged by",
        cell: ({ acknowledged }: ExactObject) => (isExactObject(acknowledged) ? textOf(acknowledged.by) : "")
      },
      column("alert", "id")
    ]
    yield* printRows(options.output, columns, rows, "no anomalies")
    yield* hintOfMore(page, rows.length)
  })
).pipe(
  Command.withDescription("List what the anomaly scanner found, newest first"),
  Command.withExamples([
    { command: "velocity audit anomalies --open", description: "Those that nobody has acknowledged" }
  ])
)

const units = { m: 60_000, h: 3_600_000, d: 86_400_000 } as const

const sinceFlag = Flag.String("since").pipe(
  Flag.withDescription("How far back to look, at most 31d"),
  Flag.withMetavar("TIME"),
  Flag.filter(
    (text) => /^[1-9][0-9]{0,4}[mhd]$/u.test(text),
    () => "a time such as 90m, 12h or 7d"
  ),
  Flag.map((text) => Number.parseInt(text, 10) * units[text.at(-1) as keyof typeof units]),
  Flag.withDefault(7 * units.d)
)

/** The one rule of a file, which may stand in a list as the operator's file has it. */
const ruleIn = Effect.fnUntraced(function* (file: string) {
  const value = yield* Effect.tryPromise({
    try: async (): Promise<unknown> => parseYaml(await readFile(file, "utf8"), { maxAliasCount: 100 }),
    catch: (cause) => failed(`${file} cannot be read: ${(cause as Error).message.split("\n", 1)[0]}`, 2)
  })
  if (!Array.isArray(value)) return value
  return value.length === 1 ? (value[0] as unknown) : yield* failed(`${file} has ${value.length} rules; try one`, 2)
})

export const scan = Command.make(
  "scan",
  {
    ...shared,
    rule: Flag.File("rule", { mustExist: true }).pipe(
      Flag.withDescription("A file with one rule, as VELOCITY_ANOMALY_RULES has them"),
      Flag.withMetavar("FILE")
    ),
    since: sinceFlag
  },
  Effect.fnUntraced(function* (options) {
    const rule = yield* ruleIn(options.rule)
    const target = yield* targetOf({ ...options, roles })
    const to = Date.now()
    const body = { rule, from: new Date(to - options.since).toISOString(), to: new Date(to).toISOString() }
    const trial = yield* callJson(target, {
      method: "POST",
      path: "/api/platform/anomalies/scan",
      headers: { "content-type": "application/json" },
      body: JSON.stringify(body)
    })
    if (options.output !== "table") return yield* Console.log(document(options.output, trial))
    const alerts = rowsOf(trial, "alerts")
    const columns = [edge("from", "from"), edge("to", "to"), ...who, column("count", "count", "right")]
    yield* printRows("table", columns, alerts, "it would have raised nothing")
    if (isExactObject(trial) && trial.truncated === true) {
      yield* Console.error(`the first ${alerts.length}; there would have been more: narrow the rule or --since`)
    }
  })
).pipe(
  Command.withDescription("Try a rule over the past: what it would have raised; nothing is raised or written"),
  Command.withExamples([
    { command: "velocity audit scan --rule rule.yaml --since 7d", description: "The last seven days" }
  ])
)
