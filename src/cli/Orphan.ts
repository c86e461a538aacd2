/**
 * `velocity orphan list|release|drop`: what is served though its object is gone from its source and nobody was seen to delete
 * it, and what is kept of definitions that were deleted. Speaks to the database as `velocity_operator`.
 */
import { userInfo } from "node:os"
import { Console, Effect } from "effect"
import { Argument, Command, Flag } from "effect/cli"
import * as Orphans from "../operator/reconcile/Orphans.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { operatorUrlFlag, unreachable, withOperator } from "./OperatorDatabase.ts"
import { type Column, outputFlag, printRows } from "./Output.ts"
import { failed } from "./Settings.ts"

const columns: ReadonlyArray<Column<Orphans.Orphan>> = [
  { title: "kind", cell: (one) => one.kind },
  { title: "path", cell: (one) => one.path },
  { title: "object", cell: (one) => `${one.namespace}/${one.name}` },
  { title: "table", cell: (one) => one.table ?? "" },
  { title: "records", cell: (one) => (one.records === undefined ? "" : `~${one.records}`), align: "right" },
  { title: "since", cell: (one) => one.since }
]

const path = Argument.String("path").pipe(
  Argument.withDescription(
    "As velocity orphan list shows it: org/app/domain/object/version, org/app/domain, or a strategy"
  )
)

const refusals = new Set(["OrphanKept", "ProvisionRefused"])
const notDone = (error: { readonly _tag: string; readonly message: string }) =>
  refusals.has(error._tag) ? failed(error.message) : unreachable(error)

const by = Effect.sync(() => `cli/${userInfo().username}`)

/** How often replicas are asked for. */
const again = "500 millis"

const list = Command.make(
  "list",
  {
    url: operatorUrlFlag,
    output: outputFlag,
    kept: Flag.Boolean("kept").pipe(
      Flag.withDescription("Instead: definitions that nobody serves any more, and whose records are kept (Retain)"),
      Flag.withDefault(false)
    )
  },
  Effect.fnUntraced(function* ({ kept, output, url }) {
    const found = yield* withOperator(
      url,
      Effect.flatMap(OperatorSql, (sql) => sql.transaction(kept ? Orphans.listKept : Orphans.list, { end: "read" }))
    ).pipe(Effect.mapError(unreachable))
    yield* printRows(output, columns, found, kept ? "nothing is kept" : "no orphans")
  })
).pipe(
  Command.withDescription("What is served though its object is gone from its source without having been deleted"),
  Command.withExamples([
    { command: "velocity orphan list", description: "As the operator saw it last" },
    { command: "velocity orphan list --kept", description: "What was deleted under Retain, which drop destroys" }
  ])
)

const release = Command.make(
  "release",
  { path, url: operatorUrlFlag },
  Effect.fnUntraced(function* ({ path, url }) {
    const actor = yield* by
    const gone = yield* withOperator(
      url,
      Effect.flatMap(OperatorSql, (sql) => sql.transaction((tx) => Orphans.release(tx, path, actor)))
    ).pipe(Effect.mapError(notDone))
    const stays = gone.table === undefined ? "" : `; ${gone.table} stays, with its records`
    yield* Console.log(`${path} is served no longer${stays}`)
  })
).pipe(
  Command.withDescription("Let an orphan go as its deletion under Retain would have: no record is lost"),
  Command.withExamples([
    {
      command: "velocity orphan release acme/shop/eu/order/v1",
      description: "Its path is anybody's who may define in that domain; its table is taken up again"
    }
  ])
)

const drop = Command.make(
  "drop",
  {
    path,
    url: operatorUrlFlag,
    yes: Flag.Boolean("yes").pipe(Flag.withDescription("Really: its records are lost"), Flag.withDefault(false))
  },
  Effect.fnUntraced(function* ({ path, url, yes }) {
    const actor = yield* by
    if (!yes) return yield* failed(`every record of ${path} would be lost: say --yes`)
    const gone = yield* withOperator(
      url,
      Effect.gen(function* () {
        const sql = yield* OperatorSql
        for (let begun: Orphans.Orphan | undefined; ; ) {
          const before = begun
          const { orphan, waits } = yield* sql.transaction((tx) => Orphans.drop(tx, path, actor, before))
          if (!waits) return orphan
          if (begun === undefined)
            yield* Console.error("it is served no longer; waits for the API's replicas to know it")
          begun = orphan
          yield* Effect.sleep(again)
        }
      })
    ).pipe(Effect.mapError(notDone))
    yield* Console.log(
      `${gone.table ?? path} is dropped, with its records; what history holds of them goes with its months`
    )
  })
).pipe(
  Command.withDescription(
    "Destroy the records of an orphan, or of a definition that was deleted under Retain, and give its path and name away"
  ),
  Command.withExamples([
    { command: "velocity orphan drop acme/shop/eu/order/v1 --yes", description: "There is no way back but a backup" }
  ])
)

export const orphan = Command.make("orphan").pipe(
  Command.withDescription("What is served though its object is gone, and what is kept of what was deleted"),
  Command.withSubcommands([list, release, drop])
)
