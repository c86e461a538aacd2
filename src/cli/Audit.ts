/** `velocity audit list|verify`: the audit log, through the API, as somebody with `platform-auditor`. */
import { Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import { type ExactObject, type ExactValue, isExactObject } from "../domain/ExactJson.ts"
import { callJson } from "./ApiCall.ts"
import { type Column, outputFlag, printRows } from "./Output.ts"
import { apiFlag, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"

const shared = { data: dataFlag, api: apiFlag, token: tokenFlag, output: outputFlag }
const roles = ["platform-auditor"]

const textAt =
  (name: string) =>
  (row: ExactObject): string => {
    const value: ExactValue | undefined = row[name]
    return value === undefined || value === null ? "" : String(value)
  }

const column = (title: string, name = title, align: "left" | "right" = "left"): Column<ExactObject> => ({
  title,
  cell: textAt(name),
  align
})

const condition = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withDefault(""))

const list = Command.make(
  "list",
  {
    ...shared,
    chain: condition("chain", "org/app/domain, or platform"),
    actor: condition("actor", "{strategy}/{subject}"),
    action: condition("action", "create, update, …"),
    outcome: condition("outcome", "ok, denied, failed, dry_run, unknown"),
    from: condition("from", "RFC 3339, inclusive"),
    to: condition("to", "RFC 3339, exclusive"),
    limit: Flag.Int("limit").pipe(Flag.withDescription("At most so many"), Flag.withDefault(20))
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    const params: Array<readonly [string, string]> = [["limit", String(options.limit)]]
    for (const name of ["chain", "actor", "action", "outcome", "from", "to"] as const) {
      if (options[name] !== "") params.push([name, options[name]])
    }
    const page = yield* callJson(target, { path: "/api/platform/audit", params })
    const rows = (isExactObject(page) && Array.isArray(page.items) ? page.items : []) as ReadonlyArray<ExactObject>
    const columns = [
      column("occurred at", "occurred_at"),
      column("chain"),
      column("lane", "lane", "right"),
      column("seq", "seq", "right"),
      column("actor"),
      column("action"),
      column("outcome"),
      column("record", "entity_id")
    ]
    yield* printRows(options.output, columns, rows, "no entries")
  })
).pipe(Command.withDescription("List entries of the audit log, newest first"))

const verify = Command.make(
  "verify",
  {
    ...shared,
    from: condition("from", "RFC 3339, inclusive; 24 hours ago unless said"),
    to: condition("to", "RFC 3339, exclusive")
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    const params = (["from", "to"] as const).flatMap((name) =>
      options[name] === "" ? [] : [[name, options[name]] as const]
    )
    const answer = yield* callJson(target, { path: "/api/platform/audit/verify", params })
    if (!isExactObject(answer) || typeof answer.sound !== "boolean")
      return yield* failed("the API's answer cannot be read", 2)
    const findings = (Array.isArray(answer.findings) ? answer.findings : []) as ReadonlyArray<ExactObject>
    if (options.output !== "table") yield* Console.log(JSON.stringify(answer, null, 2))
    else if (answer.sound)
      yield* Console.log(
        `sound: ${textAt("entries")(answer)} entries from ${textAt("from")(answer)} to ${textAt("to")(answer)}`
      )
    else {
      const columns = [
        column("problem"),
        column("chain"),
        column("lane", "lane", "right"),
        column("seq", "seq", "right"),
        column("entry", "id")
      ]
      yield* printRows("table", columns, findings, "")
    }
    if (!answer.sound) return yield* failed(`${findings.length} entries are not as they were written`, 1)
  })
).pipe(
  Command.withDescription("Check a window of the audit log; 0 sound, 1 tampered, 2 could not tell"),
  Command.withExamples([{ command: "velocity audit verify", description: "The last 24 hours" }])
)

export const audit = Command.make("audit").pipe(
  Command.withDescription("The audit log"),
  Command.withSubcommands([list, verify])
)
