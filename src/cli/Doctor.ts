/** `velocity doctor`: checks a database as the API's login, lists orphans as the operator's, and says what to type. */
import { Config, Console, Effect, Option } from "effect"
import { Command, Flag } from "effect/cli"
import * as Orphans from "../operator/reconcile/Orphans.ts"
import * as IsolationCheck from "../postgres/IsolationCheck.ts"
import { OperatorSql } from "../postgres/OperatorSql.ts"
import { unreachable, withOperator } from "./OperatorDatabase.ts"
import { failed } from "./Settings.ts"

export const doctor = Command.make(
  "doctor",
  {
    url: Flag.Redacted("database-url").pipe(
      Flag.withDescription("How velocity_api reaches the database"),
      Flag.withFallbackConfig(Config.Redacted("VELOCITY_API_DATABASE_URL"))
    ),
    operatorUrl: Flag.Redacted("operator-url").pipe(
      Flag.withDescription("How velocity_operator reaches it: orphans are listed too"),
      Flag.withFallbackConfig(Config.Redacted("VELOCITY_OPERATOR_DATABASE_URL")),
      Flag.optional
    )
  },
  Effect.fnUntraced(function* ({ operatorUrl, url }) {
    const violations = yield* IsolationCheck.checkAt(url).pipe(
      Effect.mapError((error) => failed(`the database could not be checked: ${error.message}`, 2))
    )
    for (const violation of violations) yield* Console.log(`${IsolationCheck.render(violation)}\n`)
    if (violations.length > 0) return yield* failed(`${violations.length} ways past row-level security; see above`)
    yield* Console.log("nothing lets the API past row-level security")
    if (Option.isNone(operatorUrl)) return
    const orphans = yield* withOperator(
      operatorUrl.value,
      Effect.flatMap(OperatorSql, (sql) => sql.transaction(Orphans.list, { end: "read" }))
    ).pipe(Effect.mapError(unreachable))
    for (const { kind, path } of orphans) {
      yield* Console.log(`${kind} ${path} is served though its object is gone: velocity orphan release ${path}`)
    }
    if (orphans.length === 0) yield* Console.log("no orphans")
  })
).pipe(
  Command.withDescription("Check a database for every way past row-level security, with the SQL that closes it"),
  Command.withExamples([
    {
      command: "VELOCITY_API_DATABASE_URL=postgres://velocity_api@host/velocity velocity doctor",
      description: "As the API would at its start"
    }
  ])
)
