/** `velocity record list|get|import|erase`: records, by their path, through the API. */
import { createReadStream } from "node:fs"
import { Readable } from "node:stream"
import { Console, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import { type ExactObject, type ExactValue, isExactObject, stringify } from "../domain/ExactJson.ts"
import { parsePath } from "../domain/Names.ts"
import { callJson } from "./ApiCall.ts"
import { importRecords } from "./Import.ts"
import { type Column, document, hintOfMore, limitFlag, outputFlag, printRows } from "./Output.ts"
import { apiFlag, dataFlag, failed, targetOf, tokenFlag } from "./Settings.ts"
import { commaSeparated } from "./Token.ts"

const shared = {
  data: dataFlag,
  api: apiFlag,
  token: tokenFlag,
  roles: Flag.String("roles").pipe(
    Flag.withDescription("Without a token: the roles of the one that is signed for this call"),
    Flag.withMetavar("A,B"),
    Flag.withDefault("visitor,cartographer,buyer,auditor,admin")
  )
}

const pathArgument = Argument.String("path").pipe(
  Argument.withDescription("A record type: org/app/domain/object/version"),
  Argument.filter(
    (text) => parsePath(text) !== undefined,
    () => "org/app/domain/object/version, such as acme/geo/atlas/country/v1"
  )
)

/** A cell: text as it is, anything else as JSON. */
const cell = (value: ExactValue | undefined): string =>
  value === undefined || value === null ? "" : typeof value === "string" ? value : stringify(value)

/** `country.name` of a record whose country is included. */
const valueAt = (record: ExactObject, name: string): ExactValue | undefined =>
  name.split(".").reduce<ExactValue | undefined>((at, part) => (isExactObject(at) ? at[part] : undefined), record)

const hidden = new Set(["created_at", "created_by", "updated_at", "updated_by", "deleted_at", "_masked"])

const columnsOf = (select: string, rows: ReadonlyArray<ExactObject>): ReadonlyArray<Column<ExactObject>> => {
  const names =
    select === "" ? [...new Set(rows.flatMap(Object.keys))].filter((name) => !hidden.has(name)) : commaSeparated(select)
  return names.map((name) => ({ title: name, cell: (row: ExactObject) => cell(valueAt(row, name)) }))
}

const list = Command.make(
  "list",
  {
    path: pathArgument,
    ...shared,
    filter: Flag.String("filter").pipe(
      Flag.withDescription("A condition, as field[op]=value; may be said again"),
      Flag.withMetavar("FIELD[OP]=VALUE"),
      Flag.atLeast(0)
    ),
    sort: Flag.String("sort").pipe(Flag.withDescription("E.g. -population,name"), Flag.withDefault("")),
    select: Flag.String("select").pipe(Flag.withDescription("The fields to show"), Flag.withDefault("")),
    include: Flag.String("include").pipe(Flag.withDescription("References to show as records"), Flag.withDefault("")),
    limit: limitFlag,
    output: outputFlag
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles: commaSeparated(options.roles) })
    const params: Array<readonly [string, string]> = [["limit", String(options.limit)]]
    for (const name of ["sort", "select", "include"] as const)
      if (options[name] !== "") params.push([name, options[name]])
    for (const text of options.filter) {
      const match = /^([^[\]=]+)\[([a-z_]+)\]=(.*)$/su.exec(text)
      if (match === null) return yield* failed(`${text} is not field[op]=value, such as population[gte]=1000000`, 2)
      params.push([`filter[${match[1]}][${match[2]}]`, match[3] ?? ""])
    }
    const page = yield* callJson(target, { path: `/api/${options.path}`, params })
    const rows = (isExactObject(page) && Array.isArray(page.items) ? page.items : []) as ReadonlyArray<ExactObject>
    yield* printRows(options.output, columnsOf(options.select, rows), rows, "no records")
    yield* hintOfMore(page, rows.length)
  })
).pipe(
  Command.withDescription("List records"),
  Command.withExamples([
    {
      command: "velocity record list acme/geo/atlas/city/v1 --filter 'population[gte]=10000000' --sort=-population",
      description: "The largest cities"
    }
  ])
)

const get = Command.make(
  "get",
  {
    path: pathArgument,
    id: Argument.String("id").pipe(Argument.withDescription("The record's id")),
    ...shared,
    output: outputFlag
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles: commaSeparated(options.roles) })
    const record = yield* callJson(target, { path: `/api/${options.path}/${encodeURIComponent(options.id)}` })
    yield* Console.log(document(options.output === "yaml" ? "yaml" : "json", record))
  })
).pipe(Command.withDescription("Show one record, as JSON or YAML"))

const load = Command.make(
  "import",
  {
    path: pathArgument,
    file: Argument.File("file", { mustExist: true }).pipe(Argument.withDescription("Records, one JSON object a line")),
    ...shared
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles: commaSeparated(options.roles) })
    const answer = yield* importRecords(target, {
      path: options.path,
      label: options.path,
      lines: Readable.toWeb(createReadStream(options.file)) as ReadableStream<Uint8Array>,
      total: undefined
    })
    yield* Console.log(
      answer.created === "0" ? "no records" : `${answer.created} records, ${answer.firstId} to ${answer.lastId}`
    )
  })
).pipe(
  Command.withDescription("Create records from a file of NDJSON: all of them, or none"),
  Command.withExamples([
    { command: "velocity record import acme/geo/atlas/country/v1 countries.ndjson", description: "One transaction" }
  ])
)

const erase = Command.make(
  "erase",
  {
    path: pathArgument,
    id: Argument.String("id").pipe(Argument.withDescription("The record's id")),
    data: dataFlag,
    api: apiFlag,
    token: tokenFlag,
    reason: Flag.String("reason").pipe(
      Flag.withDescription("Why; it stands in the audit entry"),
      Flag.withMetavar("TEXT")
    ),
    ticket: Flag.String("ticket").pipe(
      Flag.withDescription("Whose request it is"),
      Flag.withMetavar("REF"),
      Flag.withDefault("")
    ),
    dryRun: Flag.Boolean("dry-run").pipe(
      Flag.withDescription("Do everything and then undo it"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* (options) {
    const target = yield* targetOf({ ...options, roles: ["platform-privacy"] })
    const erased = yield* callJson(target, {
      method: "POST",
      path: `/api/${options.path}/${encodeURIComponent(options.id)}/erase`,
      body: stringify({ reason: options.reason, ...(options.ticket === "" ? {} : { ticket: options.ticket }) }),
      headers: { "content-type": "application/json", ...(options.dryRun ? { prefer: "tx=rollback" } : {}) }
    })
    yield* Console.log(document("json", erased))
  })
).pipe(
  Command.withDescription("Remove the contents of a record and its history for good; entries and proofs stay"),
  Command.withExamples([
    {
      command: "velocity record erase acme/geo/atlas/city/v1 0192… --reason 'asked for by the person' --ticket DSR-12",
      description: "With a token of the platform's strategy that has the role platform-privacy"
    }
  ])
)

export const record = Command.make("record").pipe(
  Command.withDescription("Records, by their path"),
  Command.withSubcommands([list, get, load, erase])
)
