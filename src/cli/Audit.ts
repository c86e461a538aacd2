/**
 * `velocity audit …`: `list`, `verify`, `anomalies` and `scan` through the API, as somebody with `platform-auditor`; `keygen` and
 * `verify-proof` by themselves, from files of their own.
 */
import { Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import { type ExactObject, type ExactValue, isExactObject, parse } from "../domain/ExactJson.ts"
import { parseVerifierKey } from "../domain/SignedNote.ts"
import { anomalies, scan } from "./Anomalies.ts"
import { callJson } from "./ApiCall.ts"
import { checkpoint, prove, readCheckpoint, restoreNote } from "./Evidence.ts"
import { keygen } from "./Keygen.ts"
import { type Column, document, hintOfMore, limitFlag, outputFlag, printRows } from "./Output.ts"
import { apiFlag, type CommandFailed, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"
import { type Place, readPlace, removePlace, type WindowPlace, writePlace } from "./VerifyPlace.ts"
import { keysOf, verifyProof } from "./VerifyProof.ts"
import { outsideOf, treeName, verifyTree } from "./VerifyTree.ts"
import { verifyWindow } from "./VerifyWindow.ts"

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

const textOf = (said: Option.Option<string>): string => Option.getOrElse(said, () => "")

const dayMillis = 24 * 60 * 60 * 1000
/** Before every entry that there can be. */
const beginning = "0001-01-01T00:00:00Z"
const treeColumns = [
  column("problem"),
  column("chain"),
  column("lane", "lane", "right"),
  column("seq", "seq", "right"),
  column("leaf", "index", "right")
]

/**
 * The place that an earlier sitting of this command left. Another window or checkpoint than this one's is refused: what was
 * found of it is no answer to what is asked now.
 */
const placeOf = Effect.fnUntraced(function* (file: string, asked: Place["asked"], against: string | undefined) {
  const place = yield* readPlace(file)
  if (place === undefined) return undefined
  if (place.asked.from !== asked.from || place.asked.to !== asked.to) {
    const { from, to } = place.window
    return yield* failed(
      `${file} is of another command, for the window from ${from} to ${to}: say --from, --to and --all as then, or another file`,
      2
    )
  }
  if (place.tree !== undefined && place.tree.against !== against) {
    return yield* failed(`${file} is of another command, against another checkpoint: say that one, or another file`, 2)
  }
  return place
})

const verify = Command.make(
  "verify",
  {
    ...shared,
    from: timeFlag("from", "The first moment; 24 hours before the last unless said"),
    to: timeFlag("to", "The moment after the last; now unless said"),
    all: Flag.Boolean("all").pipe(Flag.withDescription("From the first entry on"), Flag.withDefault(false)),
    resume: Flag.String("resume").pipe(
      Flag.withDescription("Keep the place that was reached in this file, and go on from it where it is there"),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    checkpoint: Flag.String("checkpoint").pipe(
      Flag.withDescription("Also the log against its tree, and the tree against this checkpoint from outside"),
      Flag.withMetavar("FILE"),
      Flag.optional
    ),
    key: Flag.String("key").pipe(
      Flag.withDescription("With --checkpoint: the verifier key that must have signed it; may be said again"),
      Flag.withMetavar("KEY|@FILE"),
      Flag.atLeast(0)
    )
  },
  Effect.fnUntraced(function* (options) {
    // whatever keeps it from an answer is no tampering
    const unknown = (error: CommandFailed) => failed(error.message, 2)
    const until = Option.getOrElse(options.to, () => new Date().toISOString())
    if (options.all && Option.isSome(options.from)) return yield* failed("say --from or --all, not both", 2)
    const asked = options.all
      ? beginning
      : Option.getOrElse(options.from, () => new Date(Date.parse(until) - dayMillis).toISOString())
    const keys = yield* keysOf(options.key, parseVerifierKey)
    const outside = Option.isSome(options.checkpoint)
      ? yield* outsideOf(options.checkpoint.value, yield* readCheckpoint(options.checkpoint.value), keys)
      : undefined
    const said = { from: options.all ? beginning : textOf(options.from), to: textOf(options.to) }
    const file = Option.getOrUndefined(options.resume)
    const place =
      file === undefined ? undefined : yield* placeOf(file, said, outside === undefined ? undefined : treeName(outside))
    const target = yield* targetOf({ ...options, roles }).pipe(Effect.mapError(unknown))
    let reached: WindowPlace | undefined
    const verdict = yield* verifyWindow(target, {
      from: asked,
      to: until,
      place: place?.window,
      keep:
        file === undefined
          ? undefined
          : (window) => {
              reached = window
              return writePlace(file, { asked: said, window })
            }
    })
    const { entries, findings, found, from, sealed, sound, to } = verdict
    const window = reached ?? place?.window
    const tree =
      outside === undefined
        ? undefined
        : yield* verifyTree(target, {
            outside,
            keys,
            place: place?.tree,
            keep:
              file === undefined || window === undefined
                ? undefined
                : (part) => writePlace(file, { asked: said, window, tree: part })
          })
    if (file !== undefined) yield* removePlace(file)
    const since = from === beginning ? "the first entry" : from
    if (options.output !== "table") {
      yield* Console.log(document(options.output, { from, to, sound, entries, found, findings, sealed, tree }))
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
    if (sealed.length > 0 && options.output === "table") {
      const names = sealed.map((month) => `${textAt("partition")(month)} (${textAt("disposition")(month)})`)
      yield* Console.log(`sealed: ${names.join(", ")}`)
    }
    if (tree !== undefined && options.output === "table") {
      if (tree.sound) {
        yield* Console.log(`the log is its tree, and the tree has the ${tree.size} leaves of ${tree.origin}`)
      }
      if (tree.findings.length > 0) yield* printRows("table", treeColumns, tree.findings, "")
      if (options.key.length === 0) {
        yield* Console.error("who signed the checkpoint was not looked at: say --key KEY")
      }
    }
    if (!sound) {
      const shown = found > findings.length ? `, the first ${findings.length} of which are shown` : ""
      return yield* failed(`tampered: ${found} of ${entries} entries are not as they were written${shown}`, 1)
    }
    if (tree !== undefined && !tree.sound) {
      return yield* failed("tampered: the log, its tree and the checkpoint from outside do not agree", 1)
    }
  })
).pipe(
  Command.withDescription("Check a window of the audit log; 0 sound, 1 tampered, 2 could not tell"),
  Command.withExamples([
    { command: "velocity audit verify", description: "The last 24 hours" },
    { command: "velocity audit verify --all", description: "Every entry" },
    { command: "velocity audit verify --from 2026-11-01 --to 2026-12-01", description: "A month" },
    {
      command: "velocity audit verify --all --resume place.json",
      description: "Years, in as many sittings as it takes"
    },
    {
      command: "velocity audit verify --checkpoint checkpoint --key @verifier.key",
      description: "And whether anything was cut off or rewritten since the checkpoint was taken outside"
    }
  ])
)

export const audit = Command.make("audit").pipe(
  Command.withDescription("The audit log"),
  Command.withSubcommands([list, verify, anomalies, scan, checkpoint, prove, verifyProof, keygen, restoreNote])
)
