/** `velocity migrate`: applies the migrations with a database owner's credentials; safe to repeat, and how drift is repaired. */
import { Config, Console, Effect } from "effect"
import { Command, Flag } from "effect/cli"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"
import * as Migrations from "../postgres/Migrations.ts"
import { rolePrefix } from "../postgres/RolePrefix.ts"
import { failed } from "./Settings.ts"
import { startFailure } from "./StartFailure.ts"

const counted = (count: number, what: string): string => `${count} ${what}${count === 1 ? "" : "s"}`

export const migrate = Command.make(
  "migrate",
  {
    url: Flag.Redacted("database-url").pipe(
      Flag.withDescription("The owner's connection: CREATEROLE, not superuser"),
      Flag.withFallbackConfig(Config.Redacted("VELOCITY_MIGRATE_DATABASE_URL"))
    )
  },
  Effect.fnUntraced(function* ({ url }) {
    const prefix = yield* Effect.mapError(rolePrefix, startFailure)
    const run = Migrations.run({ url, rolePrefix: prefix })
    const applied = yield* Effect.mapError(run, (error) => failed(error.message))
    for (const file of applied.added) yield* Console.log(`applied   ${file}`)
    for (const what of applied.complaints) yield* Console.error(`not repaired: ${IsolationCheck.render(what)}`)
    yield* Console.log(
      `${counted(applied.added.length, "new file")}, ${counted(applied.repeated.length, "file")} applied again; ${applied.repaired ? "something was repaired" : "nothing was to repair"}`
    )
    if (applied.complaints.length > 0) return yield* failed("something is left that only a superuser can repair")
  })
).pipe(
  Command.withDescription("Apply the migrations to a database, or repair one that drifted"),
  Command.withExamples([
    {
      command: "VELOCITY_MIGRATE_DATABASE_URL=postgres://owner@host/velocity velocity migrate",
      description: "As the owner"
    }
  ])
)
