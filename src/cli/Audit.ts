/**
 * `velocity audit …`: `list` and `verify` through the API, as somebody with `platform-auditor`; `keygen` and
 * `verify-proof` by themselves, from files of their own.
 */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { type ExactObject, type ExactValue, isExactObject, parse } from "../domain/ExactJson.ts"
import { callJson, send } from "./ApiCall.ts"
import { keygen } from "./Keygen.ts"
import { type Column, document, hintOfMore, limitFlag, outputFlag, printRows } from "./Output.ts"
import { apiFlag, type CommandFailed, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"
import { verifyProof } from "./VerifyProof.ts"

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

/** The record an entry is of, or how many there are in one entry. */
const recordOf = (entry: ExactObject): string => {
  if (typeof entry.entity_id === "string") return entry.entity_id
  const payload = typeof entry.payload === "string" ? parse(entry.payload) : undefined
  return isExactObject(payload) && payload.count !== undefined ? `${String(payload.count)} records` : ""
}

const condition = (name: string, description: string) =>
  Flag.String(name).pipe(Flag.withDescription(description), Flag.withDefault(""))

/** A day is its midnight in UTC. */
const timeOf = (text: string): string => (/^[0-9]{4}-[0-9]{2}-[0-9]{2}$/u.test(text) ? `${text}T00:00:00Z` : text)

const timeFlag = (name: string, description: string) =>
  Flag.String(name).pipe(
    Flag.withDescription(description),
    Flag.withMetavar("TIME"),
    Flag.filter(
      (text) => /^[0-9]{4}-/u.test(text) && !Number.isNaN(Date.parse(timeOf(text))),
      () => "a day such as 2026-11-24, or a time such as 2026-11-24T13:30:00Z"
    ),
    Flag.map(timeOf),
    Flag.optional
  )

const list = Command.make(
  "list",
  {
    ...shared,
    chain: condition("chain", "org/app/domain, or platform"),
    actor: condition("actor", "{strategy}/{subject}"),
    action: condition("action", "create, update, …"),
    outcome: condition("outcome", "ok, denied, failed, dry_run, unknown"),
    from: timeFlag("from", "The first moment"),
    to: timeFlag("to", "The moment after the last"),
    limit: limitFlag
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles })
    const params: Array<readonly [string, string]> = [["limit", String(options.limit)]]
    for (const name of ["chain", "actor", "action", "outcome"] as const) {
      if (options[name] !== "") params.push([name, options[name]])
    }
    for (const name of ["from", "to"] as const) {
      if (Option.isSome(options[name])) params.push([name, options[name].value])
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
      { title: "record", cell: recordOf }
    ]
    yield* printRows(options.output, columns, rows, "no entries")
    yield* hintOfMore(page, rows.length)
  })
).pipe(Command.withDescription("List entries of the audit log, newest first"))

const dayMillis = 24 * 60 * 60 * 1000
/** Before every entry that there can be. */
const beginning = "0001-01-01T00:00:00Z"
/** Findings that are shown; all of them are counted. */
const maxShown = 1_000

interface Verified {
  readonly sound: boolean
  readonly entries: string
  readonly findings: ReadonlyArray<ExactObject>
  readonly found: number
}

/** Lines of a stream that is read as it comes; the last one may lack its newline. */
const lines = async function* (body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  let rest = ""
  for await (const text of body.pipeThrough(new TextDecoderStream() as ReadableWritablePair<string, Uint8Array>)) {
    const parts = (rest + text).split("\n")
    rest = parts.pop() ?? ""
    yield* parts.filter((line) => line !== "")
  }
  if (rest !== "") yield rest
}

/** Reads findings and the last line, which says that the whole window was seen. */
const readVerdict = async (body: ReadableStream<Uint8Array>): Promise<Verified> => {
  const findings: Array<ExactObject> = []
  let found = 0
  for await (const line of lines(body)) {
    const said = parse(line)
    if (!isExactObject(said)) throw new Error("a line is no object")
    if (typeof said.sound === "boolean") {
      return { sound: said.sound && found === 0, entries: textAt("entries")(said), findings, found }
    }
    found += 1
    if (findings.length < maxShown) findings.push(said)
  }
  throw new Error("it ends before its verdict")
}

const verify = Command.make(
  "verify",
  {
    ...shared,
    from: timeFlag("from", "The first moment; 24 hours before the last unless said"),
    to: timeFlag("to", "The moment after the last; now unless said"),
    all: Flag.Boolean("all").pipe(Flag.withDescription("From the first entry on"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* (options) {
    // whatever keeps it from an answer is no tampering
    const unknown = (error: CommandFailed) => failed(error.message, 2)
    const to = Option.getOrElse(options.to, () => new Date().toISOString())
    if (options.all && Option.isSome(options.from)) return yield* failed("say --from or --all, not both", 2)
    const from = options.all
      ? beginning
      : Option.getOrElse(options.from, () => new Date(Date.parse(to) - dayMillis).toISOString())
    const target = yield* targetOf({ ...options, roles }).pipe(Effect.mapError(unknown))
    const response = yield* send(target, {
      path: "/api/platform/audit/verify",
      params: [
        ["from", from],
        ["to", to]
      ],
      headers: { accept: "application/x-ndjson" }
    }).pipe(Effect.mapError(unknown))
    const verdict = yield* Effect.tryPromise({
      try: () => readVerdict(response.body ?? new ReadableStream()),
      catch: (cause) =>
        failed(`the API's answer cannot be read to its end (${(cause as Error).message}); say it again`, 2)
    })
    const { entries, findings, found, sound } = verdict
    const since = options.all ? "the first entry" : from
    if (options.output !== "table") {
      yield* Console.log(document(options.output, { from, to, sound, entries: Number(entries), found, findings }))
    } else if (sound) {
      yield* Console.log(`sound: ${entries} entries from ${since} to ${to}`)
    } else {
      const columns = [
        column("problem"),
        column("chain"),
        column("lane", "lane", "right"),
        column("seq", "seq", "right"),
        column("entry", "id")
      ]
      yield* printRows("table", columns, findings, "")
    }
    if (!sound) {
      const shown = found > findings.length ? `, the first ${findings.length} of which are shown` : ""
      return yield* failed(`tampered: ${found} of ${entries} entries are not as they were written${shown}`, 1)
    }
  })
).pipe(
  Command.withDescription("Check a window of the audit log; 0 sound, 1 tampered, 2 could not tell"),
  Command.withExamples([
    { command: "velocity audit verify", description: "The last 24 hours" },
    { command: "velocity audit verify --all", description: "Every entry" },
    { command: "velocity audit verify --from 2026-11-01 --to 2026-12-01", description: "A month" }
  ])
)

export const audit = Command.make("audit").pipe(
  Command.withDescription("The audit log"),
  Command.withSubcommands([list, verify, verifyProof, keygen])
)
